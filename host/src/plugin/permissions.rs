//! Whether others than the host's user could change what is about to be loaded: a library, its
//! metadata, a directory on the way to them, or whose signatures count.
//!
//! Whoever can do that runs code as the host. Volumes of Kubernetes are writable for everybody by
//! default, so this is a warning, told once per place, unless the operator wants a refusal. Nothing
//! here changes a file, and access lists count as far as a file's mode shows them.

use std::{
    collections::BTreeSet,
    fmt, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;

use super::{discovery::Candidate, metadata::FILE_NAME, signature::Trust};

/// Places that are remembered as told; further ones are told again with each plugin.
const MAX_TOLD: usize = 1_024;

/// Write permission of group and others.
const WRITABLE: u32 = 0o022;

/// In a directory with this bit only their owners replace entries, as in `/tmp`.
const STICKY: u32 = 0o1000;

/// Looks at the places of plugins that are about to be loaded.
#[derive(Debug)]
pub struct Permissions {
    strict: bool,
    told: Mutex<BTreeSet<PathBuf>>,
}

/// Somebody else could put code where the host loads it from: the operator's to put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenToOthers {
    /// What they could change.
    pub path: PathBuf,
    /// Its permissions.
    pub mode: u32,
    /// Number of the user whose it is.
    pub owner: u32,
    /// Number of its group.
    pub group: u32,
    /// Number of the user who loads plugins.
    user: u32,
}

impl Permissions {
    /// With `strict`, what others could change is refused, and warned about otherwise.
    #[must_use]
    pub fn new(strict: bool) -> Self {
        Self {
            strict,
            told: Mutex::default(),
        }
    }

    /// Looks at everything that a plugin is made of, and at what says who has to vouch for it.
    ///
    /// # Errors
    /// Others could change it, and the operator does not want that.
    pub fn check(&self, candidate: &Candidate, trust: &Trust) -> Result<(), OpenToOthers> {
        let metadata = candidate.directory.join(FILE_NAME);
        let mut files = vec![candidate.library_path.clone(), metadata];
        files.extend(trust.places());
        for open in files.iter().flat_map(|file| open_to_others(file)) {
            if self.strict {
                return Err(open);
            }
            if self.is_news(&open.path) {
                tracing::warn!(
                    plugin = %candidate.metadata.name,
                    version = %candidate.metadata.version,
                    "{open}; with --strict-permissions the plugin would not be loaded"
                );
            }
        }
        Ok(())
    }

    fn is_news(&self, path: &Path) -> bool {
        let mut told = self.told.lock();
        if told.len() == MAX_TOLD {
            return !told.contains(path);
        }
        told.insert(path.to_owned())
    }
}

/// The places on the way to a file, and the file, that somebody else could change; by the way that
/// is written as well as by that where links lead. A file that is not there is nobody's.
fn open_to_others(file: &Path) -> Vec<OpenToOthers> {
    let Ok(real) = fs::canonicalize(file) else {
        return Vec::new();
    };
    let user = rustix::process::geteuid().as_raw();
    let places: BTreeSet<&Path> = file.ancestors().chain(real.ancestors()).collect();
    places
        .into_iter()
        .filter_map(|place| {
            let metadata = fs::metadata(place).ok()?;
            let open = OpenToOthers {
                path: place.to_owned(),
                mode: metadata.mode() & 0o7777,
                owner: metadata.uid(),
                group: metadata.gid(),
                user,
            };
            let replaceable = metadata.is_file() || open.mode & STICKY == 0;
            let writable = open.mode & WRITABLE != 0 && replaceable;
            (writable || open.is_anothers()).then_some(open)
        })
        .collect()
}

impl OpenToOthers {
    fn is_anothers(&self) -> bool {
        self.owner != 0 && self.owner != self.user
    }
}

impl std::error::Error for OpenToOthers {}

impl fmt::Display for OpenToOthers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            mode,
            owner,
            group,
            user,
        } = self;
        let path = path.display();
        let next = match self.is_anothers() {
            true => format!("make it root's or that of user {user}, who loads it: `chown`"),
            false => format!("`chmod go-w {path}`"),
        };
        write!(
            f,
            "others can change {path} (mode {mode:04o}, owner {owner}, group {group}), and so put \
             code there that the host runs; {next}"
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    /// `say/libsay.so` in a directory that nobody else can change.
    fn library() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("say")).unwrap();
        let library = directory.path().join("say/libsay.so");
        fs::write(&library, "").unwrap();
        for place in [directory.path(), library.parent().unwrap(), &library] {
            set_mode(place, 0o755);
        }
        (directory, library)
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn opens(library: &Path) -> Vec<PathBuf> {
        let open = open_to_others(library);
        open.into_iter().map(|open| open.path).collect()
    }

    #[test]
    fn every_place_that_others_can_write_to_is_found() {
        let (directory, library) = library();
        assert_eq!(opens(&library), Vec::<PathBuf>::new());
        let places = [directory.path(), library.parent().unwrap(), &library];
        for place in places {
            for mode in [0o777, 0o775, 0o757] {
                set_mode(place, mode);
                assert_eq!(opens(&library), [place], "{mode:o}");
            }
            set_mode(place, 0o755);
        }
    }

    #[test]
    fn a_directory_where_only_owners_replace_entries_is_no_danger() {
        let (directory, library) = library();
        set_mode(directory.path(), 0o1777);
        assert_eq!(opens(&library), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_link_is_followed_and_the_way_to_it_looked_at_too() {
        let (directory, library) = library();
        let links = tempfile::tempdir().unwrap();
        set_mode(links.path(), 0o777);
        symlink(directory.path(), links.path().join("plugins")).unwrap();
        let by_link = links.path().join("plugins/say/libsay.so");
        assert_eq!(opens(&by_link), [links.path()]);
        set_mode(library.parent().unwrap(), 0o777);
        assert!(opens(&by_link).contains(&library.parent().unwrap().to_owned()));
    }

    #[test]
    fn what_belongs_to_another_user_is_open_to_them() {
        let (directory, library) = library();
        if !rustix::process::geteuid().is_root() {
            // Only root can give something away; and everything of root's is trusted.
            assert_eq!(opens(Path::new("/etc/passwd")), Vec::<PathBuf>::new());
            return;
        }
        chown(directory.path(), Some(65_534), None).unwrap();
        let open = open_to_others(&library);
        assert_eq!(open.len(), 1);
        let text = open[0].to_string();
        let expected = format!(
            "others can change {} (mode 0755, owner 65534, group 0), and so put code there that \
             the host runs; make it root's or that of user 0, who loads it: `chown`",
            directory.path().display()
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn a_place_is_news_once() {
        let permissions = Permissions::new(false);
        assert!(permissions.is_news(Path::new("/a")));
        assert!(!permissions.is_news(Path::new("/a")));
        assert!(permissions.is_news(Path::new("/b")));
    }
}
