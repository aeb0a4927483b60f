//! Sockets whose path is longer than the system lets one be: they have another name, by way of their
//! directory, for as long as that is held open. Directories of tests and of continuous integration
//! are that deep. The gateway's own socket has none of this: the gateway could not connect to it.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags};

use crate::config::MAX_PATH_BYTES;

/// A name for a socket's file that the system takes.
#[derive(Debug)]
pub struct ShortPath {
    path: PathBuf,
    /// The name leads through this.
    _directory: Option<OwnedFd>,
}

impl ShortPath {
    /// The path itself where it is short enough, or else another one for it.
    ///
    /// # Errors
    /// Its directory cannot be opened.
    pub fn of(path: &Path) -> io::Result<Self> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if path.as_os_str().len() <= MAX_PATH_BYTES {
            return Ok(Self {
                path: path.to_owned(),
                _directory: None,
            });
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(parent, flags, Mode::empty())?;
        let short = format!("/proc/self/fd/{}", directory.as_raw_fd());
        Ok(Self {
            path: Path::new(&short).join(name),
            _directory: Some(directory),
        })
    }

    /// The name, which holds as long as this value lives.
    pub fn as_path(&self) -> &Path {
        &self.path
    }
}
