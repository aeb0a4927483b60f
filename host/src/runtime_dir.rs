//! The directory for everything that belongs to one running host, and the lock that hosts on the
//! same address share.
//!
//! ```text
//! /run/plugin-host/           mode 0700, one per user (0711 where plugins run as another user)
//!     3f1c9a02b7d4e865/       one per listen address (start of its SHA-256)
//!         lock                held while somebody binds or removes the socket file
//!         4711/               one per running host; its owner holds a lock on it while alive
//! ```
//!
//! Locks are the kernel's (`flock`): they end with their owner, however it dies, so that nobody
//! ever has to guess from a process number whether an owner lives. This module never looks into
//! what others keep in their directories.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};
use sha2::{Digest, Sha256};

/// Bytes of the listen address's digest in the directory's name.
const NAME_BYTES: usize = 8;

/// Names that are tried for the directory of one process: in containers that share a runtime
/// directory, several live hosts can have the same process number.
const MAX_NAMES: u32 = 64;

/// Permissions of a directory that others may pass through and not look into.
const PASSABLE: u32 = 0o711;

/// How often a lock that somebody holds is tried again.
const LOCK_RETRY: Duration = Duration::from_millis(2);

/// The runtime directory of this process. Dropping it removes what belongs to the process.
#[derive(Debug)]
pub struct RuntimeDir {
    shared: PathBuf,
    private: PathBuf,
    /// Holds the lock that tells others that the owner of `private` lives.
    owner: OwnedFd,
}

/// Why there is no runtime directory.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeDirError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}; --runtime-dir names another place", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Somebody else could put files there, which this host would load as code.
    #[error(
        "{} belongs to user {owner} and not to user {user}, who runs this host; remove it, or name another place with --runtime-dir",
        path.display()
    )]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// Its owner's number.
        owner: u32,
        /// Our number.
        user: u32,
    },
    /// A link or a file stands where the directory belongs.
    #[error("{} is not a directory; remove it, or name another place with --runtime-dir", path.display())]
    NotADirectory {
        /// What stands there.
        path: PathBuf,
    },
    /// Live hosts hold every name that a process of this number could take.
    #[error("{} has {MAX_NAMES} live owners of the same process number", path.display())]
    NoNameLeft {
        /// The directory of the listen address.
        path: PathBuf,
    },
}

impl RuntimeDir {
    /// Makes, or finds, the directory of `listen_path` below `parent`, and in it a directory of
    /// this process. What belongs to us and is open to others is closed to them.
    ///
    /// # Errors
    /// The place cannot be written, or belongs to another user.
    pub fn open(parent: &Path, listen_path: &Path) -> Result<Self, RuntimeDirError> {
        ensure_directory(parent)?;
        let shared = Self::place_of(parent, listen_path);
        ensure_directory(&shared)?;
        let process = std::process::id();
        for attempt in 0..MAX_NAMES {
            let private = match attempt {
                0 => shared.join(process.to_string()),
                _ => shared.join(format!("{process}-{attempt}")),
            };
            if let Some(owner) = own(&private)? {
                return Ok(Self {
                    shared,
                    private,
                    owner,
                });
            }
        }
        Err(RuntimeDirError::NoNameLeft { path: shared })
    }

    /// The directory that the program before this one had opened, in the same process; `owner` is
    /// its [`RuntimeDir::owner`].
    pub fn adopt(shared: &Path, private: &Path, owner: OwnedFd) -> Self {
        Self {
            shared: shared.to_owned(),
            private: private.to_owned(),
            owner,
        }
    }

    /// What tells others that the owner lives, for as long as it is open.
    pub fn owner(&self) -> BorrowedFd<'_> {
        self.owner.as_fd()
    }

    /// Where the directory of a listen address is, or would be.
    pub fn place_of(parent: &Path, listen_path: &Path) -> PathBuf {
        parent.join(address_name(listen_path))
    }

    /// The directory of the listen address, which a successor on the same address shares.
    pub fn shared(&self) -> &Path {
        &self.shared
    }

    /// The directory of this process alone: empty at first, mode 0700.
    pub fn private(&self) -> &Path {
        &self.private
    }

    /// Lets other users pass through to what is theirs in the private directory; they cannot list
    /// any level of it.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn open_passage(&self) -> Result<(), RuntimeDirError> {
        let levels = [
            self.shared.parent(),
            Some(&self.shared),
            Some(&self.private),
        ];
        for level in levels.into_iter().flatten() {
            fs::set_permissions(level, fs::Permissions::from_mode(PASSABLE))
                .map_err(failed("let a user pass through", level))?;
        }
        Ok(())
    }

    /// The lock that hosts on this address share, not yet held.
    ///
    /// # Errors
    /// The lock's file cannot be made.
    pub fn address_lock(&self) -> Result<AddressLock, RuntimeDirError> {
        AddressLock::open(&self.shared)
    }

    /// Removes the directories of hosts on this address that are no more. Gives their number.
    /// What cannot be removed is left to the next host.
    pub fn remove_dead_owners(&self) -> usize {
        let Ok(entries) = fs::read_dir(&self.shared) else {
            return 0;
        };
        entries
            .filter_map(Result::ok)
            .filter(is_process_name)
            .map(|entry| entry.path())
            .filter(|path| *path != self.private && remove_if_dead(path))
            .count()
    }
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        // A failure leaves files to `remove_dead_owners` of the next host, and nothing else.
        let _ = fs::remove_dir_all(&self.private);
    }
}

/// Orders what hosts on one address do to its socket file.
#[derive(Debug)]
pub struct AddressLock {
    file: fs::File,
}

impl AddressLock {
    /// The lock of a directory, not yet held.
    ///
    /// # Errors
    /// Its file cannot be made.
    pub fn open(directory: &Path) -> Result<Self, RuntimeDirError> {
        let path = directory.join("lock");
        let file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed("open", &path))?;
        Ok(Self { file })
    }

    /// Waits for the lock, for at most `patience`. Gives `None` where somebody else holds it for
    /// longer, or where the file system has no locks.
    pub fn acquire(&self, patience: Duration) -> Option<Held<'_>> {
        let start = Instant::now();
        loop {
            match rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Some(Held { lock: self }),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR)
                    if start.elapsed() < patience =>
                {
                    std::thread::sleep(LOCK_RETRY);
                }
                Err(_) => return None,
            }
        }
    }
}

/// The address's lock, held until this is dropped.
#[derive(Debug)]
pub struct Held<'a> {
    lock: &'a AddressLock,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Closing the file would unlock it as well; unlocking does not fail on a valid one.
        let _ = rustix::fs::flock(&self.lock.file, FlockOperation::Unlock);
    }
}

fn address_name(listen_path: &Path) -> String {
    let digest = Sha256::digest(listen_path.as_os_str().as_encoded_bytes());
    digest
        .iter()
        .take(NAME_BYTES)
        .fold(String::new(), |mut name, byte| {
            let _ = write!(name, "{byte:02x}");
            name
        })
}

/// Makes a directory of mode 0700, or makes sure that the one that is there is ours alone.
fn ensure_directory(path: &Path) -> Result<(), RuntimeDirError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(failed("create", path)(source)),
    }
    // Without following a link: one that somebody else put there must not lead us elsewhere.
    let metadata = fs::symlink_metadata(path).map_err(failed("look at", path))?;
    if !metadata.is_dir() {
        return Err(RuntimeDirError::NotADirectory {
            path: path.to_owned(),
        });
    }
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        return Err(RuntimeDirError::NotOurs {
            path: path.to_owned(),
            owner: metadata.uid(),
            user,
        });
    }
    // Another host below it may have opened a passage, which stays.
    if ![0o700, PASSABLE].contains(&(metadata.mode() & 0o777)) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(failed("close to others", path))?;
    }
    Ok(())
}

/// Makes a directory and the lock on it ours; `None` where a living owner has it.
fn own(path: &Path) -> Result<Option<OwnedFd>, RuntimeDirError> {
    match fs::symlink_metadata(path) {
        // An owner of our number that is dead, or alive in another container.
        Ok(_) if !remove_if_dead(path) => return Ok(None),
        _ => {}
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
        Err(source) => return Err(failed("create", path)(source)),
    }
    // Between the making and the lock somebody may have taken it for a dead owner's: then it is
    // locked by them, or is no more what the path leads to.
    match lock_directory(path) {
        Some(directory) if is_at(&directory, path) => Ok(Some(directory)),
        _ => Ok(None),
    }
}

/// Removes a directory whose owner holds no lock on it any more.
fn remove_if_dead(path: &Path) -> bool {
    lock_directory(path)
        .is_some_and(|directory| is_at(&directory, path) && fs::remove_dir_all(path).is_ok())
}

/// Directories of processes begin with their number; others in the shared directory do not.
fn is_process_name(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name();
    name.as_encoded_bytes()
        .first()
        .is_some_and(u8::is_ascii_digit)
}

fn lock_directory(path: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(directory)
}

fn is_at(directory: &OwnedFd, path: &Path) -> bool {
    match (rustix::fs::fstat(directory), rustix::fs::lstat(path)) {
        (Ok(held), Ok(named)) => (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino),
        _ => false,
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RuntimeDirError {
    let path = path.to_owned();
    move |source| RuntimeDirError::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::*;

    fn open(parent: &Path) -> Result<RuntimeDir, RuntimeDirError> {
        RuntimeDir::open(&parent.join("plugin-host"), Path::new("/run/runner.sock"))
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn every_level_is_made_for_the_owner_alone_and_the_process_s_part_goes_with_it() {
        let parent = tempfile::tempdir().unwrap();
        let runtime = open(parent.path()).unwrap();
        let (shared, private) = (runtime.shared().to_owned(), runtime.private().to_owned());
        assert_eq!(mode(&parent.path().join("plugin-host")), 0o700);
        assert_eq!((mode(&shared), mode(&private)), (0o700, 0o700));
        fs::write(private.join("copy.so"), "x").unwrap();
        drop(runtime);
        assert!(!private.exists());
        assert!(shared.exists());
    }

    #[test]
    fn addresses_have_directories_of_their_own() {
        let parent = tempfile::tempdir().unwrap();
        let one = RuntimeDir::open(parent.path(), Path::new("/run/a.sock")).unwrap();
        let other = RuntimeDir::open(parent.path(), Path::new("/run/b.sock")).unwrap();
        assert_ne!(one.shared(), other.shared());
    }

    #[test]
    fn two_living_hosts_of_one_process_number_do_not_share_a_directory() {
        let parent = tempfile::tempdir().unwrap();
        let one = open(parent.path()).unwrap();
        let other = open(parent.path()).unwrap();
        assert_eq!(one.shared(), other.shared());
        assert_ne!(one.private(), other.private());
        assert_eq!(other.remove_dead_owners(), 0);
        assert!(one.private().exists());
    }

    #[test]
    fn what_dead_owners_left_is_removed_and_what_all_share_stays() {
        let parent = tempfile::tempdir().unwrap();
        let runtime = open(parent.path()).unwrap();
        let lock = runtime.address_lock().unwrap();
        for dead in ["1", "1-1", "4711"] {
            let left = runtime.shared().join(dead);
            fs::create_dir(&left).unwrap();
            fs::write(left.join("copy.so"), "x").unwrap();
        }
        fs::create_dir(runtime.shared().join("reports")).unwrap();
        assert_eq!(runtime.remove_dead_owners(), 3);
        let mut names: Vec<_> = fs::read_dir(runtime.shared())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let own = std::process::id().to_string();
        assert_eq!(names, [own.as_str(), "lock", "reports"]);
        assert!(lock.acquire(Duration::ZERO).is_some());
    }

    #[test]
    fn a_dead_owner_of_our_number_is_replaced() {
        let parent = tempfile::tempdir().unwrap();
        let private = open(parent.path()).unwrap().private().to_owned();
        fs::create_dir(&private).unwrap();
        fs::write(private.join("old.so"), "x").unwrap();
        let runtime = open(parent.path()).unwrap();
        assert_eq!(runtime.private(), private);
        assert_eq!(fs::read_dir(&private).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_of_ours_that_is_open_to_others_is_closed() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("plugin-host");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        let _runtime = open(parent.path()).unwrap();
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn a_passage_for_another_user_stays_open_for_hosts_that_come_later() {
        let parent = tempfile::tempdir().unwrap();
        let runtime = open(parent.path()).unwrap();
        runtime.open_passage().unwrap();
        let _other = open(parent.path()).unwrap();
        for level in [
            &parent.path().join("plugin-host"),
            runtime.shared(),
            runtime.private(),
        ] {
            assert_eq!(mode(level), 0o711, "{}", level.display());
        }
    }

    #[test]
    fn a_link_in_place_of_the_directory_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), parent.path().join("plugin-host")).unwrap();
        let error = open(parent.path()).unwrap_err();
        assert!(
            matches!(error, RuntimeDirError::NotADirectory { .. }),
            "{error}"
        );
    }

    #[test]
    fn a_directory_of_another_user_is_refused() {
        // Only root can give a directory away; everybody else has /, which is root's.
        let parent = tempfile::tempdir().unwrap();
        let path = if rustix::process::geteuid().is_root() {
            let path = parent.path().join("plugin-host");
            fs::create_dir(&path).unwrap();
            std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
            path
        } else {
            PathBuf::from("/")
        };
        let error = RuntimeDir::open(&path, Path::new("/run/runner.sock")).unwrap_err();
        assert!(
            matches!(error, RuntimeDirError::NotOurs { owner, user, .. } if owner != user),
            "{error}"
        );
    }

    #[test]
    fn a_missing_parent_is_named_with_the_way_out() {
        let error = open(Path::new("/no/such/place")).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot create /no/such/place/plugin-host: ")
                && error.ends_with("--runtime-dir names another place"),
            "{error}"
        );
    }

    #[test]
    fn the_address_lock_has_one_holder_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let runtime = open(parent.path()).unwrap();
        let (one, other) = (
            runtime.address_lock().unwrap(),
            runtime.address_lock().unwrap(),
        );
        let held = one.acquire(Duration::ZERO).unwrap();
        assert!(other.acquire(Duration::from_millis(5)).is_none());
        drop(held);
        assert!(other.acquire(Duration::ZERO).is_some());
    }
}
