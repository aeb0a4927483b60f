//! What one worker leaves to the next: the libraries that serve, those that served before, and a
//! ledger that says which those are and what is not to be tried again.
//!
//! The directory belongs to one supervisor and ends with it. One worker at a time writes there, the
//! next one reads. The ledger is replaced as a whole, after the libraries that it names are there, so
//! that a death at any moment leaves one that is right. Nothing here loads a library, and no library
//! is ever mapped from here: a worker maps links of its own.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags},
    io::Errno,
};
use semver::Version;
use serde::{Deserialize, Serialize};

use super::{
    discovery::{Files, Origin},
    metadata::{Build, Digest, PluginName},
    signature::Signature,
};

/// Name of the ledger in the directory.
pub const LEDGER: &str = "ledger.json";

/// What becomes the ledger or a library when it is complete.
const UNFINISHED: &str = ".unfinished";

/// The directory.
#[derive(Debug, Clone)]
pub struct Kept {
    directory: PathBuf,
}

/// The right to write there, which one worker has at a time. It ends with the worker, however that
/// dies.
#[derive(Debug)]
pub struct Writer {
    kept: Kept,
    /// A lock on the directory.
    _claim: OwnedFd,
}

/// What a worker knew. A worker of another release may have written it: what it does not say is
/// empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ledger {
    /// Every place of the plugin directory that has given something.
    pub places: Vec<KeptPlace>,
    /// Plugins that were being loaded for the first time: their routes waited.
    pub awaited: Vec<PluginName>,
}

/// What a place of the plugin directory has given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeptPlace {
    /// The place, in the plugin directory.
    pub place: PathBuf,
    /// The operator's files that were tried last, well or not.
    pub tried: Option<Files>,
    /// What serves.
    pub serving: Option<KeptBuild>,
    /// What served before.
    pub previous: Option<KeptBuild>,
    /// What is known to kill workers.
    pub quarantined: Vec<KeptBuild>,
    /// What would serve, had no operator disabled it.
    pub set_aside: Option<KeptBuild>,
    /// Whether the operator's files have changed while it was disabled.
    pub has_changed: bool,
    /// The last tries to load something, oldest first.
    pub history: Vec<Attempt>,
}

/// A build whose library is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptBuild {
    /// What it is.
    pub build: Build,
    /// The operator's file, in the plugin directory.
    pub library: PathBuf,
    /// Its `plugin.json`; none where the library speaks for itself.
    pub document: Option<String>,
    /// Who vouched for it when it was judged; none where nobody has looked.
    #[serde(default)]
    pub signature: Option<Signature>,
}

/// One try to load something.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it ended.
    pub at: SystemTime,
    /// The plugin that was tried.
    pub name: PluginName,
    /// The version that was tried.
    pub version: Version,
    /// Digest of the library that was tried.
    pub digest: Digest,
    /// Why it failed, if it did.
    pub failed: Option<String>,
    /// HTTP routes of it that were other plugins'.
    #[serde(default)]
    pub refused_routes: Vec<RefusedRoute>,
}

/// An HTTP route for which a try was refused: another plugin serves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRoute {
    /// Its method; none for all of them.
    pub method: Option<String>,
    /// Its path.
    pub route: String,
    /// What tells the plugin which of its routes it is.
    pub label: String,
    /// Name and version of who serves it; none where that cannot be told.
    pub taken_by: Option<String>,
    /// The same in words, with that one's route.
    pub reason: String,
}

/// The directory cannot be used: the machine's fault.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct KeptError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl KeptBuild {
    /// What to write of a build.
    pub fn of(origin: &Origin, plugin_dir: &Path) -> Self {
        let document = origin.document.as_deref().map(String::from_utf8_lossy);
        Self {
            build: origin.build(),
            library: within(plugin_dir, &origin.library_path),
            document: document.map(std::borrow::Cow::into_owned),
            signature: origin.signature.clone(),
        }
    }
}

/// A path without the plugin directory in front: that may have a name that no ledger can hold.
pub fn within(plugin_dir: &Path, path: &Path) -> PathBuf {
    path.strip_prefix(plugin_dir).unwrap_or(path).to_owned()
}

impl Kept {
    /// The directory at this path, which [`Kept::writer`] makes.
    pub fn at(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// Where the library with this digest lies, if it is kept.
    pub fn library(&self, digest: &Digest) -> PathBuf {
        self.directory.join(format!("{digest}.so"))
    }

    /// Reads the ledger; none where no worker has written one.
    ///
    /// # Errors
    /// It cannot be read, or says nothing that can be understood.
    pub fn read(&self) -> Result<Option<Ledger>, KeptError> {
        let path = self.directory.join(LEDGER);
        let read = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.and_then(|bytes| Ok(serde_json::from_slice(&bytes)?)),
        };
        read.map(Some).map_err(failed("read", &path))
    }

    /// Claims the right to write; none while another worker has it.
    ///
    /// # Errors
    /// There is no such directory, and none can be made.
    pub fn writer(&self) -> Result<Option<Writer>, KeptError> {
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory);
        made.map_err(failed("make", &self.directory))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let claim = rustix::fs::open(&self.directory, flags, Mode::empty());
        let claim = claim.map_err(|error| failed("open", &self.directory)(error.into()))?;
        match rustix::fs::flock(&claim, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Writer {
                kept: self.clone(),
                _claim: claim,
            })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(failed("lock", &self.directory)(error.into())),
        }
    }
}

impl Writer {
    /// Keeps libraries, each at the path where it lies, then the ledger, and removes what is kept of
    /// others. Blocks. The ledger is written even where a library cannot be kept.
    ///
    /// # Errors
    /// The first thing that could not be done.
    pub fn write(&self, ledger: &Ledger, libraries: &[(Digest, PathBuf)]) -> Result<(), KeptError> {
        let directory = &self.kept.directory;
        let mut named = BTreeSet::from([directory.join(LEDGER)]);
        let mut libraries_kept = Ok(());
        for (digest, from) in libraries {
            let to = self.kept.library(digest);
            if let Err(error) = self.keep_library(from, &to) {
                libraries_kept = libraries_kept.and(Err(failed("keep", &to)(error)));
            }
            named.insert(to);
        }
        let path = directory.join(LEDGER);
        serde_json::to_vec(ledger)
            .map_err(io::Error::from)
            .and_then(|bytes| self.put(&path, &bytes))
            .map_err(failed("write", &path))?;
        self.remove_all_but(&named);
        libraries_kept
    }

    fn keep_library(&self, from: &Path, to: &Path) -> io::Result<()> {
        match fs::hard_link(from, to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            // It may be a memory file, or lie on another file system.
            Err(_) => self.put(to, &fs::read(from)?),
            Ok(()) => Ok(()),
        }
    }

    /// Puts a whole file in place.
    fn put(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let unfinished = self.kept.directory.join(UNFINISHED);
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)?;
        file.write_all(bytes)?;
        fs::rename(&unfinished, path)
    }

    /// What stays behind costs disk space until the next time, or until the supervisor ends.
    fn remove_all_but(&self, named: &BTreeSet<PathBuf>) {
        for entry in fs::read_dir(&self.kept.directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = entry.path();
            if !named.contains(&path) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> KeptError + 'a {
    move |source| KeptError {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails where an unwrap does")]

    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn build(version: &str, bytes: &[u8]) -> KeptBuild {
        KeptBuild {
            build: Build {
                name: PluginName::new("say").unwrap(),
                version: version.parse().unwrap(),
                digest: Digest::of(bytes),
            },
            library: "say/libsay.so".into(),
            document: Some("{}".to_owned()),
            signature: Some(Signature::Unsigned),
        }
    }

    fn ledger(serving: KeptBuild) -> Ledger {
        Ledger {
            places: vec![KeptPlace {
                place: "say".into(),
                tried: Some(Files {
                    document: Some(Digest::of(b"{}")),
                    library: serving.build.digest,
                    signature: None,
                }),
                has_changed: false,
                set_aside: None,
                history: vec![Attempt {
                    at: SystemTime::now(),
                    name: serving.build.name.clone(),
                    version: serving.build.version.clone(),
                    digest: serving.build.digest,
                    failed: Some("no".to_owned()),
                    refused_routes: vec![RefusedRoute {
                        method: Some("GET".to_owned()),
                        route: "/:name".to_owned(),
                        label: String::new(),
                        taken_by: Some("other 1.0.0".to_owned()),
                        reason: "taken".to_owned(),
                    }],
                }],
                serving: Some(serving),
                ..KeptPlace::default()
            }],
            awaited: vec![PluginName::new("late").unwrap()],
        }
    }

    #[test]
    fn what_is_written_is_read_and_what_is_not_named_any_more_goes() {
        let directory = tempfile::tempdir().unwrap();
        let kept = Kept::at(&directory.path().join("kept"));
        assert_eq!(kept.read().unwrap(), None);
        let copy = directory.path().join("copy.so");
        for version in ["1.0.0", "2.0.0"] {
            fs::write(&copy, version).unwrap();
            let digest = Digest::of(version.as_bytes());
            let ledger = ledger(build(version, version.as_bytes()));
            kept.writer()
                .unwrap()
                .unwrap()
                .write(&ledger, &[(digest, copy.clone())])
                .unwrap();
            assert_eq!(kept.read().unwrap(), Some(ledger));
            assert_eq!(fs::read_to_string(kept.library(&digest)).unwrap(), version);
            fs::remove_file(&copy).unwrap();
        }
        assert!(!kept.library(&Digest::of(b"1.0.0")).exists());
        let mode = fs::metadata(&kept.directory).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn only_one_writes_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let kept = Kept::at(directory.path());
        let one = kept.writer().unwrap();
        assert!(one.is_some() && kept.writer().unwrap().is_none());
        drop(one);
        assert!(kept.writer().unwrap().is_some());
    }

    #[test]
    fn a_library_that_cannot_be_linked_is_copied() {
        let directory = tempfile::tempdir().unwrap();
        let kept = Kept::at(directory.path());
        let memory = rustix::fs::memfd_create("copy", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let mut memory = fs::File::from(memory);
        memory.write_all(b"bytes").unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&memory));
        let digest = Digest::of(b"bytes");
        kept.writer()
            .unwrap()
            .unwrap()
            .write(&Ledger::default(), &[(digest, path.into())])
            .unwrap();
        assert_eq!(fs::read(kept.library(&digest)).unwrap(), b"bytes");
    }

    #[test]
    fn a_ledger_is_written_even_where_a_library_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let kept = Kept::at(directory.path());
        let ledger = ledger(build("1.0.0", b"gone"));
        let missing = directory.path().join("missing.so");
        let written = kept
            .writer()
            .unwrap()
            .unwrap()
            .write(&ledger, &[(Digest::of(b"gone"), missing)]);
        let error = written.unwrap_err().to_string();
        assert!(error.contains("cannot keep"), "{error}");
        assert_eq!(kept.read().unwrap(), Some(ledger));
    }

    #[test]
    fn another_releases_ledger_is_understood_and_no_ledger_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let kept = Kept::at(directory.path());
        let path = directory.path().join(LEDGER);
        fs::write(
            &path,
            br#"{"places": [{"place": "say", "new": 1}], "more": {}}"#,
        )
        .unwrap();
        let ledger = kept.read().unwrap().unwrap();
        assert_eq!(ledger.places[0].place, Path::new("say"));
        assert_eq!(ledger.places[0].serving, None);
        fs::write(&path, b"{").unwrap();
        assert!(kept.read().unwrap_err().to_string().contains(LEDGER));
    }
}
