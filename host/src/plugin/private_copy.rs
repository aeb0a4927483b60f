//! Private copies of plugin libraries: what is mapped is never what the operator may overwrite.
//!
//! A copy lies in a directory of mode 0700 under a name made of plugin, version, digest and a number. Where
//! that directory cannot hold it, or is mounted `noexec`, the copy is a memory file whose descriptor
//! stays open as long as the process. Nothing here opens a library.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, SealFlags, StatVfsMountFlags};
use semver::Version;

use super::metadata::{Digest, PluginName};

/// Digits of the digest in a copy's name, for people who look at what is mapped.
const DIGEST_DIGITS: usize = 16;

/// The files of this process's copies, by device and inode. One that is mapped keeps its inode for as
/// long as the process lives.
static FILES: Mutex<BTreeSet<(u64, u64)>> = Mutex::new(BTreeSet::new());

/// A copy that can be mapped. A file is removed when this is dropped, which does no harm to what is
/// mapped from it.
#[derive(Debug)]
pub struct PrivateCopy {
    path: PathBuf,
    /// Keeps the memory file behind `path` open.
    memory: Option<File>,
}

/// No copy could be made: the operator's or the machine's fault.
#[derive(Debug, thiserror::Error)]
#[error(
    "no private copy of the library could be made, neither in {directory} ({in_directory}) nor in memory: {in_memory}"
)]
pub struct CopyError {
    directory: PathBuf,
    in_directory: String,
    #[source]
    in_memory: io::Error,
}

impl PrivateCopy {
    /// Writes a copy into `directory`, or into memory where that does not do.
    ///
    /// # Errors
    /// Neither worked.
    pub fn write(
        directory: &Path,
        name: &PluginName,
        version: &Version,
        digest: &Digest,
        bytes: &[u8],
    ) -> Result<Self, CopyError> {
        let file_name = own_name(name, version, digest);
        let in_directory = match allows_mapping(directory) {
            Ok(true) => match write_file(&directory.join(&file_name), bytes) {
                Ok(path) => return Ok(Self { path, memory: None }),
                Err(error) => error.to_string(),
            },
            Ok(false) => "it is mounted noexec".to_owned(),
            Err(error) => error.to_string(),
        };
        match write_memory(&file_name, bytes) {
            Ok((path, memory)) => {
                tracing::debug!(
                    plugin = %name,
                    %version,
                    reason = in_directory,
                    "keeping the private copy of the library in memory"
                );
                Ok(Self {
                    path,
                    memory: Some(memory),
                })
            }
            Err(in_memory) => Err(CopyError {
                directory: directory.to_owned(),
                in_directory,
                in_memory,
            }),
        }
    }

    /// Links a file in `directory` that another process has left, with these bytes, and that nobody
    /// writes to; writes a copy where a link does not do.
    ///
    /// # Errors
    /// As for [`PrivateCopy::write`].
    pub fn link(
        left: &Path,
        directory: &Path,
        name: &PluginName,
        version: &Version,
        digest: &Digest,
        bytes: &[u8],
    ) -> Result<Self, CopyError> {
        let path = directory.join(own_name(name, version, digest));
        let is_linked = allows_mapping(directory).is_ok_and(|allowed| allowed)
            && is_new_here(left)
            && fs::hard_link(left, &path).is_ok();
        if is_linked {
            return Ok(Self { path, memory: None });
        }
        Self::write(directory, name, version, digest, bytes)
    }

    /// Writes a copy into memory, for a process that leaves nothing behind.
    ///
    /// # Errors
    /// The system has no memory files, or no memory.
    pub fn in_memory(name: &PluginName, version: &Version, bytes: &[u8]) -> io::Result<Self> {
        let (path, memory) = write_memory(&format!("{name}-{version}.so"), bytes)?;
        Ok(Self {
            path,
            memory: Some(memory),
        })
    }

    /// Where to map it from.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PrivateCopy {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            // Its path is that of its descriptor: closed, the next copy could get the same one, which
            // the loader would take for this library.
            std::mem::forget(memory);
        } else {
            // Whatever stays behind goes with the directory, at the latest when the next host
            // cleans up after this one.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A name of its own for each copy, also of the same bytes: the loader takes a path that it has
/// opened before for the library that it found there then, and a copy that goes must not take another
/// with it.
fn own_name(name: &PluginName, version: &Version, digest: &Digest) -> String {
    static COPIES: AtomicU64 = AtomicU64::new(0);
    let number = COPIES.fetch_add(1, Ordering::Relaxed);
    let digest = digest.to_string();
    format!("{name}-{version}-{}-{number}.so", &digest[..DIGEST_DIGITS])
}

/// Whether a file is none that this process has made or linked: the loader also takes another name
/// of one that it has opened for the same library.
fn is_new_here(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|metadata| {
        let mut known = FILES.lock();
        known.insert((metadata.dev(), metadata.ino()))
    })
}

fn allows_mapping(directory: &Path) -> io::Result<bool> {
    let mount = rustix::fs::statvfs(directory)?;
    Ok(!mount.f_flag.contains(StatVfsMountFlags::NOEXEC))
}

fn write_file(path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(0o500))?;
    let metadata = file.metadata()?;
    FILES.lock().insert((metadata.dev(), metadata.ino()));
    Ok(path.to_owned())
}

fn write_memory(name: &str, bytes: &[u8]) -> io::Result<(PathBuf, File)> {
    // The name shows in /proc/PID/maps; the kernel takes at most 249 bytes.
    let name = &name[..name.len().min(200)];
    let descriptor =
        rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(descriptor);
    file.write_all(bytes)?;
    // Nobody but this process has the descriptor, so that the seals only guard against its own
    // faults. On a busy machine the kernel refuses the one on writing while it still has pages of
    // the file in hand (EBUSY): not worth losing a plugin for.
    let _ = rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    );
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    Ok((path, file))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails where an unwrap does")]

    use super::*;

    #[test]
    fn a_file_that_was_left_is_linked_once_and_copied_after_that() {
        let directory = tempfile::tempdir().unwrap();
        let left = directory.path().join("left.so");
        fs::write(&left, b"bytes").unwrap();
        let name = PluginName::new("say").unwrap();
        let version = Version::new(1, 0, 0);
        let digest = Digest::of(b"bytes");
        let link = || {
            PrivateCopy::link(&left, directory.path(), &name, &version, &digest, b"bytes").unwrap()
        };
        let (first, second) = (link(), link());
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        assert_eq!(inode(first.path()), inode(&left));
        assert_ne!(
            inode(second.path()),
            inode(&left),
            "the loader would take it for the first"
        );
        assert_eq!(fs::read(second.path()).unwrap(), b"bytes");
        drop(first);
        assert!(left.exists());
    }
}
