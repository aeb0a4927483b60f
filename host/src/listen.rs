//! The socket that the gateway connects to, as a file: how it appears, whose it is, how it goes.
//!
//! A reload of the gateway starts the next host on the same path before this one is told to stop.
//! So a socket appears by being renamed over whatever is there, complete and with its permissions,
//! and is removed only while it is still the one that this process put there. Both happen under
//! the lock that hosts on one address share. This module never accepts a connection.

pub mod services;
pub mod short_path;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::config::MAX_PATH_BYTES;
use crate::runtime_dir::AddressLock;
use short_path::ShortPath;

/// How long a start waits for another host that is binding or removing. Those take microseconds:
/// one that takes longer hangs, and a gateway without a host is worse than the race with it.
const BIND_PATIENCE: Duration = Duration::from_millis(500);

/// How long a removal waits. Without the lock the file stays, which harms nobody: the next host
/// replaces it.
const REMOVE_PATIENCE: Duration = Duration::from_millis(50);

/// A socket file of ours. Dropping it removes the file, if it is still ours.
#[derive(Debug)]
pub struct Binding {
    path: PathBuf,
    /// Open without access, only so that the inode's number is not given to another file while
    /// we compare by it, even after our own file is gone.
    inode: OwnedFd,
    lock: AddressLock,
}

/// Why the address cannot be listened on; the operator's to put right.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Something else than a socket stands there, which may be somebody's data.
    #[error("{} is {kind}, not a socket; it is left alone: remove it, or listen elsewhere", path.display())]
    NotASocket {
        /// The path to listen on.
        path: PathBuf,
        /// What stands there.
        kind: &'static str,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
}

impl Binding {
    /// Listens on `path`, in place of whatever socket is there, living or left over.
    ///
    /// The listener does not block, is closed on `exec`, and takes `backlog` connections before
    /// anybody accepts. The file has the permissions `mode` from the moment it appears.
    ///
    /// # Errors
    /// Something that is not a socket stands at `path`, or the directory cannot be written.
    pub fn bind(
        path: &Path,
        mode: u32,
        backlog: u32,
        lock: AddressLock,
    ) -> Result<(Self, UnixListener), BindError> {
        let held = lock.acquire(BIND_PATIENCE);
        if held.is_none() {
            tracing::warn!(
                path = %path.display(),
                "another host holds the lock of this address; binding without it"
            );
        }
        refuse_other_files(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(failed("make a socket for", path))?;
        let inode = match temporary_path(path) {
            Some(temporary) => {
                let placed = place(&socket, &temporary, mode, backlog).and_then(|inode| {
                    rustix::fs::rename(&temporary, path)
                        .map_err(failed("put the socket at", path))?;
                    Ok(inode)
                });
                if placed.is_err() {
                    let _ = rustix::fs::unlink(&temporary);
                }
                placed?
            }
            // No room for a second name: the path is without a socket for a moment.
            None => place(&socket, path, mode, backlog)?,
        };
        drop(held);
        let binding = Self {
            path: path.to_owned(),
            inode,
            lock,
        };
        Ok((binding, UnixListener::from(socket)))
    }

    /// A socket file that the program before this one had bound, in the same process; `inode` is its
    /// [`Binding::inode`].
    pub fn adopt(path: &Path, inode: OwnedFd, lock: AddressLock) -> Self {
        Self {
            path: path.to_owned(),
            inode,
            lock,
        }
    }

    /// What the socket file is known by.
    pub fn inode(&self) -> BorrowedFd<'_> {
        self.inode.as_fd()
    }

    /// Where the socket file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path still leads to the socket that this process bound.
    pub fn still_ours(&self) -> bool {
        self.at_path().is_some_and(|ours| ours)
    }

    /// Whether somebody else has bound the path since.
    pub fn has_successor(&self) -> bool {
        self.at_path().is_some_and(|ours| !ours)
    }

    /// Removes the file if it is still ours; otherwise, or a second time, does nothing.
    pub fn remove(&self) {
        if !self.still_ours() {
            return;
        }
        // Whoever is binding now finishes first, and then the file is theirs.
        let Some(_held) = self.lock.acquire(REMOVE_PATIENCE) else {
            return;
        };
        if self.still_ours() {
            let _ = rustix::fs::unlink(&self.path);
        }
    }

    /// Whether what is at the path is ours; `None` where nothing is there.
    fn at_path(&self) -> Option<bool> {
        let ours = rustix::fs::fstat(&self.inode).ok()?;
        let there = rustix::fs::lstat(&self.path).ok()?;
        Some((ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino))
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        self.remove();
    }
}

fn refuse_other_files(path: &Path) -> Result<(), BindError> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        // Not there; or not to be seen, which the attempt to bind will explain.
        return Ok(());
    };
    let file_type = metadata.file_type();
    let kind = if file_type.is_socket() {
        return Ok(());
    } else if file_type.is_dir() {
        "a directory"
    } else if file_type.is_symlink() {
        "a symbolic link"
    } else if file_type.is_file() {
        "a regular file"
    } else {
        "a special file"
    };
    Err(BindError::NotASocket {
        path: path.to_owned(),
        kind,
    })
}

/// A name beside `path` that a socket can have. The longer one is easier to recognise: tools go on
/// showing the name under which a socket was bound.
fn temporary_path(path: &Path) -> Option<PathBuf> {
    let process = std::process::id();
    let mut recognisable = path.as_os_str().to_owned();
    recognisable.push(format!(".{process}"));
    [
        PathBuf::from(recognisable),
        path.with_file_name(format!(".{process}")),
    ]
    .into_iter()
    .find(|temporary| {
        let is_long = path.as_os_str().len() > MAX_PATH_BYTES;
        is_long || temporary.as_os_str().len() <= MAX_PATH_BYTES
    })
}

/// Binds and listens at `path`, which is ours alone to name or about to be, and holds its inode.
fn place(socket: &OwnedFd, path: &Path, mode: u32, backlog: u32) -> Result<OwnedFd, BindError> {
    match rustix::fs::unlink(path) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(failed("replace", path)(error)),
    }
    let short = ShortPath::of(path).map_err(|source| BindError::Io {
        action: "bind",
        path: path.to_owned(),
        source,
    })?;
    let address = SocketAddrUnix::new(short.as_path()).map_err(failed("bind", path))?;
    rustix::net::bind(socket, &address).map_err(failed("bind", path))?;
    let inode = rustix::fs::open(
        path,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(failed("look at", path))?;
    rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(mode), AtFlags::empty())
        .map_err(failed("set the permissions of", path))?;
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    rustix::net::listen(socket, backlog).map_err(failed("listen on", path))?;
    Ok(inode)
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> BindError {
    let path = path.to_owned();
    move |error| BindError::Io {
        action,
        path,
        source: error.into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::*;
    use crate::runtime_dir::RuntimeDir;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream;

    struct Place {
        directory: tempfile::TempDir,
        runtime: RuntimeDir,
    }

    impl Place {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let runtime =
                RuntimeDir::open(&directory.path().join("run"), Path::new("/any")).unwrap();
            Self { directory, runtime }
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("runner.sock")
        }

        fn bind_at(&self, path: &Path) -> Result<(Binding, UnixListener), BindError> {
            Binding::bind(path, 0o666, 4_096, self.runtime.address_lock().unwrap())
        }

        fn bind(&self) -> (Binding, UnixListener) {
            self.bind_at(&self.path()).unwrap()
        }
    }

    #[test]
    fn the_socket_has_its_mode_and_takes_connections_before_anybody_accepts() {
        let place = Place::new();
        let (binding, listener) = place.bind();
        assert!(binding.still_ours() && !binding.has_successor());
        assert_eq!(
            std::fs::metadata(place.path()).unwrap().mode() & 0o777,
            0o666
        );
        let _waiting = UnixStream::connect(place.path()).unwrap();
        assert!(listener.accept().is_ok());
        // Nobody waits any more, and the listener does not wait either.
        let error = listener.accept().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn the_socket_is_closed_on_exec_and_leaves_no_other_name() {
        let place = Place::new();
        let (_binding, listener) = place.bind();
        let flags = rustix::io::fcntl_getfd(listener.as_fd()).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        let mut names: Vec<_> = std::fs::read_dir(place.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["run", "runner.sock"]);
    }

    #[test]
    fn the_file_goes_with_its_binding() {
        let place = Place::new();
        let (binding, _listener) = place.bind();
        binding.remove();
        assert!(!place.path().exists());
        assert!(!binding.still_ours() && !binding.has_successor());
        drop(binding);
    }

    #[test]
    fn a_stale_socket_file_is_replaced() {
        let place = Place::new();
        drop(UnixListener::bind(place.path()).unwrap());
        assert!(UnixStream::connect(place.path()).is_err());
        let (_binding, _listener) = place.bind();
        assert!(UnixStream::connect(place.path()).is_ok());
    }

    #[test]
    fn what_is_not_a_socket_is_left_alone_and_named() {
        let place = Place::new();
        std::fs::write(place.path(), "precious").unwrap();
        let error = place.bind_at(&place.path()).unwrap_err().to_string();
        assert!(
            error.contains("runner.sock is a regular file, not a socket"),
            "{error}"
        );
        assert_eq!(std::fs::read_to_string(place.path()).unwrap(), "precious");

        let error = place.bind_at(place.directory.path()).unwrap_err();
        assert!(
            matches!(
                error,
                BindError::NotASocket {
                    kind: "a directory",
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn in_the_order_of_a_reload_the_old_hosts_end_keeps_the_new_socket() {
        let place = Place::new();
        let (old, old_listener) = place.bind();
        let (new, new_listener) = place.bind();
        assert!(old.has_successor() && !old.still_ours());
        assert!(new.still_ours() && !new.has_successor());

        drop(old_listener);
        drop(old);
        assert!(new.still_ours());
        let _client = UnixStream::connect(place.path()).unwrap();
        assert!(new_listener.accept().is_ok());
        drop(new);
        assert!(!place.path().exists());
    }

    #[test]
    fn a_hundred_hosts_in_a_row_never_take_anothers_socket_for_their_own() {
        // File systems give the number of a removed inode to the next file.
        let place = Place::new();
        let (mut last, mut last_listener) = place.bind();
        for _ in 0..100 {
            let (next, next_listener) = place.bind();
            drop(std::mem::replace(&mut last_listener, next_listener));
            let (after, after_listener) = place.bind();
            drop(std::mem::replace(&mut last, next));
            assert!(last.has_successor());
            drop(std::mem::replace(&mut last_listener, after_listener));
            drop(std::mem::replace(&mut last, after));
            assert!(last.still_ours());
        }
    }

    #[test]
    fn connections_to_the_old_socket_live_on_after_the_new_one_is_bound() {
        let place = Place::new();
        let (_old, old_listener) = place.bind();
        let _client = UnixStream::connect(place.path()).unwrap();
        let (_new, _new_listener) = place.bind();
        assert!(old_listener.accept().is_ok());
    }

    #[test]
    fn a_socket_can_be_bound_where_no_second_name_fits() {
        let place = Place::new();
        let room = crate::config::MAX_PATH_BYTES - place.directory.path().as_os_str().len();
        let deep = place.directory.path().join("d".repeat(room - 3));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("s");
        assert_eq!(path.as_os_str().len(), crate::config::MAX_PATH_BYTES);

        let (first, _first_listener) = place.bind_at(&path).unwrap();
        let (second, _second_listener) = place.bind_at(&path).unwrap();
        drop(first);
        assert!(second.still_ours());
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn a_name_without_room_for_a_suffix_is_bound_under_a_shorter_one_first() {
        let place = Place::new();
        let room = crate::config::MAX_PATH_BYTES - place.directory.path().as_os_str().len();
        let path = place.directory.path().join("s".repeat(room - 1));
        let temporary = temporary_path(&path).unwrap();
        assert!(temporary.as_os_str().len() < path.as_os_str().len());
        let (_binding, _listener) = place.bind_at(&path).unwrap();
        assert!(path.exists() && !temporary.exists());
    }

    #[test]
    fn a_path_that_is_longer_than_a_sockets_is_bound_and_reached_all_the_same() {
        let place = Place::new();
        let deep = place.directory.path().join("d".repeat(MAX_PATH_BYTES));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("control.sock");
        let (first, _first_listener) = place.bind_at(&path).unwrap();
        let (second, _second_listener) = place.bind_at(&path).unwrap();
        drop(first);
        assert!(second.still_ours());
        assert!(UnixStream::connect(&path).is_err());
        let short = ShortPath::of(&path).unwrap();
        assert!(UnixStream::connect(short.as_path()).is_ok());
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o666);
        assert_eq!(std::fs::read_dir(&deep).unwrap().count(), 1);
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn a_missing_directory_is_named() {
        let place = Place::new();
        let path = place.directory.path().join("missing/s.sock");
        let error = place.bind_at(&path).unwrap_err().to_string();
        let expected = format!("cannot bind {}", path.display());
        assert!(
            error.starts_with(&expected) && error.contains("No such file"),
            "{error}"
        );
    }

    #[test]
    fn without_the_lock_the_file_is_left_to_the_next_host() {
        let place = Place::new();
        let (binding, _listener) = place.bind();
        let other = place.runtime.address_lock().unwrap();
        let held = other.acquire(Duration::ZERO);
        assert!(held.is_some());
        binding.remove();
        assert!(place.path().exists());
    }
}
