//! Where plugins come from: a file, a URL, a git repository, a registry of OCI artifacts.
//!
//! [`Source`] is what an operator writes. [`Sources::resolve`] finds out what it means now (a commit, a
//! digest), [`Sources::fetch`] gets exactly that: a package, with its signature where there is one. What was fetched is somebody's bytes and no more: whether they are any good, and
//! who vouches for them, is `install`'s question. Nothing here writes to a plugin directory or loads a
//! library; building from source runs what its authors wrote, so it has to be allowed.

mod cache;
mod cargo;
mod child;
mod credentials;
mod error;
mod file;
mod git;
mod http;
mod https;
mod oci;
mod roots;
mod source;

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use semver::VersionReq;

use crate::plugin::{
    lock::Locked,
    metadata::Digest,
    package::{MAX_PACKAGE_BYTES, Package, Platform},
};

pub use cache::Cache;
pub use credentials::Credentials;
pub use error::SourceError;
pub use file::read as read_file;
pub use http::Proxy;
pub use oci::Reference;
pub use roots::ROOTS_VARIABLE;
pub use source::{At, GitSource, HttpsSource, NotASource, Source};

/// What the operator decides about sources.
#[derive(Clone)]
pub struct Settings {
    /// Whether plugins may be built here, which runs code of their authors.
    pub allow_build: bool,
    /// Whether sources on loopback addresses are asked without TLS.
    pub loopback_http: bool,
    /// Where downloads are kept; nowhere where there is none.
    pub cache: Option<Cache>,
    /// Who the operator is for whom.
    pub credentials: Credentials,
    /// Certificates of roots that are trusted beside the system's, in PEM.
    pub extra_roots: String,
    /// Whom to ask in place of other servers.
    pub proxy: Option<Proxy>,
    /// Where cargo keeps what it builds; a directory that is removed afterwards where there is none.
    pub target_dir: Option<PathBuf>,
    /// Where checkouts and builds get directories of their own.
    pub work_dir: PathBuf,
    /// What git and cargo get to know of the environment.
    pub environment: Vec<(String, OsString)>,
    /// How long one download, or one command of git, may take.
    pub fetch_time: Duration,
    /// How long a build may take, with getting what it depends on.
    pub build_time: Duration,
    /// Cargo's profile for builds.
    pub build_profile: String,
    /// Bytes on disk that a checkout, its dependencies and its build may take.
    pub build_disk: u64,
}

impl fmt::Debug for Settings {
    /// Without what could be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("allow_build", &self.allow_build)
            .field("cache", &self.cache)
            .field("target_dir", &self.target_dir)
            .finish_non_exhaustive()
    }
}

/// Who is told how far something is that takes its time.
pub trait Progress {
    /// Something begins, with so many bytes where that is known.
    fn begin(&self, what: &str, bytes: Option<u64>);
    /// So many more of them are here.
    fn advance(&self, bytes: u64);
    /// A program says this.
    fn line(&self, line: &str);
}

/// Nobody is told.
#[derive(Debug)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
    fn line(&self, _: &str) {}
}

/// What a source means, exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The source as a lock file names it.
    pub source: Source,
    /// What has to come.
    pub pin: Pin,
}

/// What tells one content from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pin {
    /// The digest of a package.
    Package(Digest),
    /// A commit, and, where that is known, the digest of the library that was built of it.
    Commit(String, Option<Digest>),
}

/// What came from a source.
#[derive(Debug)]
pub struct Fetched {
    /// The package.
    pub package: Vec<u8>,
    /// Its signature, where there is one.
    pub signature: Option<Vec<u8>>,
    /// The source as a lock file names it.
    pub source: Source,
    /// The commit that it was built from, where it was.
    pub commit: Option<String>,
}

/// A package, and its signature where there is one.
struct Content {
    package: Vec<u8>,
    signature: Option<Vec<u8>>,
}

impl Pin {
    /// Whether a locked plugin is this very content.
    #[must_use]
    pub fn is_of(&self, locked: &Locked) -> bool {
        match self {
            Self::Package(digest) => locked.package == Some(*digest),
            Self::Commit(commit, _) => locked.commit.as_ref() == Some(commit),
        }
    }
}

impl Resolved {
    /// What a lock file says.
    ///
    /// # Errors
    /// Its source is none, or it pins nothing for this platform.
    pub fn of(locked: &Locked) -> Result<Self, SourceError> {
        let source: Source = locked.source.parse()?;
        let library = locked.libraries.get(&Platform::of_this_host()).copied();
        let pin = match (&locked.commit, locked.package, library) {
            (Some(commit), _, library) => Pin::Commit(commit.clone(), library),
            (None, Some(package), _) => Pin::Package(package),
            (None, None, _) => {
                return Err(SourceError::NotForThisPlatform {
                    name: locked.name.to_string(),
                    platform: Platform::of_this_host(),
                });
            }
        };
        Ok(Self { source, pin })
    }
}

/// The means to fetch.
pub struct Sources<'a> {
    settings: &'a Settings,
    progress: &'a dyn Progress,
    /// This very program, under which others run and with which they end.
    program: PathBuf,
}

impl<'a> Sources<'a> {
    /// With these settings; `program` is this program's own file.
    #[must_use]
    pub fn new(settings: &'a Settings, program: &Path, progress: &'a dyn Progress) -> Self {
        Self {
            settings,
            progress,
            program: program.to_owned(),
        }
    }

    /// Finds out what a source means now: the newest that fits the requirement, where it leaves a choice.
    ///
    /// # Errors
    /// Nobody can say.
    pub fn resolve(
        &self,
        source: &Source,
        requirement: &VersionReq,
    ) -> Result<Resolved, SourceError> {
        match source {
            Source::File(path) => match file::repository_of(path)? {
                Some(source) => self.resolve(&source, requirement),
                None => file::resolve(path),
            },
            Source::Https(source) => https::resolve(source),
            Source::Git(source) => git::resolve(self, source, requirement),
            Source::Oci(reference) => oci::resolve(self, reference, requirement),
        }
    }

    /// Gets exactly what was resolved.
    ///
    /// # Errors
    /// It cannot be had, or what came is something else.
    pub fn fetch(&self, resolved: &Resolved) -> Result<Fetched, SourceError> {
        let (content, commit) = match (&resolved.source, &resolved.pin) {
            (Source::File(path), _) => (file::fetch(path)?, None),
            (Source::Https(source), Pin::Package(digest)) => {
                (https::fetch(self, source, *digest)?, None)
            }
            (Source::Git(source), Pin::Commit(commit, _)) => {
                (git::fetch(self, source, commit)?, Some(commit.clone()))
            }
            (Source::Oci(reference), Pin::Package(_)) => (oci::fetch(self, reference)?, None),
            (source, _) => {
                return Err(SourceError::PinnedOtherwise(source.to_string()));
            }
        };
        let fetched = Fetched {
            package: content.package,
            signature: content.signature,
            source: resolved.source.clone(),
            commit,
        };
        fetched.is_what(resolved)?;
        Ok(fetched)
    }

    /// Puts a package, with its signature where there is one, into a registry. Gives the reference with
    /// the digest under which it can be had for ever.
    ///
    /// # Errors
    /// It is no package, or the registry does not take it.
    pub fn push(
        &self,
        bytes: &[u8],
        signature: Option<&[u8]>,
        to: &Reference,
    ) -> Result<Reference, SourceError> {
        oci::push(self, bytes, signature, to)
    }

    fn build_is_allowed(&self, source: &GitSource) -> Result<(), SourceError> {
        match self.settings.allow_build {
            true => Ok(()),
            false => Err(SourceError::BuildNotAllowed(source.to_string())),
        }
    }
}

impl Fetched {
    /// Whether it is what was asked for.
    fn is_what(&self, resolved: &Resolved) -> Result<(), SourceError> {
        let (wanted, found) = match &resolved.pin {
            Pin::Package(wanted) => (*wanted, Digest::of(&self.package)),
            Pin::Commit(_, Some(wanted)) => {
                let library = Package::read(&self.package, &Platform::of_this_host())
                    .and_then(|mut package| package.take_library())
                    .map_err(SourceError::Package)?;
                (*wanted, library.digest)
            }
            Pin::Commit(_, None) => return Ok(()),
        };
        match wanted == found {
            true => Ok(()),
            false => Err(SourceError::OtherDigest {
                what: resolved.source.to_string(),
                wanted,
                found,
            }),
        }
    }
}

/// What a download may have, in bytes.
const MAX_DOWNLOAD_BYTES: u64 = MAX_PACKAGE_BYTES;

/// What git and cargo may know of the operator's environment, at most.
pub const CHILD_VARIABLES: [&str; 14] = cargo::VARIABLES;
