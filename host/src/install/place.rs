//! The files of a plugin directory: staged under names that hosts do not look at, and renamed when they
//! are complete and on disk. Judges nothing.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use semver::Version;

use super::InstallError;
use crate::{
    plugin::{
        lock::{self, Lock},
        metadata::PluginName,
        package::{EXTENSION, MAX_PACKAGE_BYTES, file_name},
        signature::beside,
    },
    sources::Fetched,
};

/// A plugin directory that others may not change with such commands meanwhile.
pub(super) struct Place {
    directory: PathBuf,
    /// Open as long as it is ours.
    _held: File,
}

/// A package that no host sees, gone with this.
pub(super) struct Staged {
    directory: PathBuf,
    package: PathBuf,
}

impl Staged {
    pub(super) fn package(&self) -> &Path {
        &self.package
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // The next one of this name begins by removing it, too.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Place {
    pub(super) fn take(directory: PathBuf) -> Result<Self, InstallError> {
        fs::create_dir_all(&directory).map_err(|error| failed(&directory, error))?;
        let held = File::open(&directory).map_err(|error| failed(&directory, error))?;
        match flock(&held, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                directory,
                _held: held,
            }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(InstallError::Busy(directory)),
            Err(error) => Err(failed(&directory, error.into())),
        }
    }

    pub(super) fn read_lock(&self) -> Result<Lock, InstallError> {
        let path = self.directory.join(lock::FILE_NAME);
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| {
            file.take(lock::MAX_BYTES as u64 + 1)
                .read_to_string(&mut text)
        });
        match read {
            Ok(_) => Lock::parse(&text).map_err(|error| InstallError::Lock { path, error }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Lock::default()),
            Err(error) => Err(failed(&path, error)),
        }
    }

    pub(super) fn write_lock(&self, lock: &Lock) -> Result<(), InstallError> {
        let path = self.directory.join(lock::FILE_NAME);
        let unfinished = self.directory.join(format!(".{}", lock::FILE_NAME));
        write(&unfinished, lock.to_text().as_bytes())
            .and_then(|()| fs::rename(&unfinished, &path))
            .map_err(|error| failed(&path, error))
    }

    /// The package of a version, where it is there.
    pub(super) fn read(&self, name: &PluginName, version: &Version) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = File::open(self.package(name, version)).ok()?;
        file.take(MAX_PACKAGE_BYTES + 1)
            .read_to_end(&mut bytes)
            .ok()?;
        Some(bytes)
    }

    /// Whether nobody else has put this plugin there.
    pub(super) fn is_free(&self, name: &PluginName, version: &Version) -> Result<(), InstallError> {
        let mut others = [
            format!("{name}"),
            format!("{name}@{version}"),
            format!("{name}.{EXTENSION}"),
            format!("{name}@{version}.{EXTENSION}"),
            file_name(name, version),
        ]
        .map(|other| self.directory.join(other))
        .into_iter();
        match others.find(|path| path.symlink_metadata().is_ok()) {
            Some(path) => Err(InstallError::InTheWay(path)),
            None => Ok(()),
        }
    }

    pub(super) fn stage(
        &self,
        name: &PluginName,
        version: &Version,
        fetched: &Fetched,
    ) -> Result<Staged, InstallError> {
        let directory = self.directory.join(".plugin-host-install");
        // What a command has left that was killed.
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir(&directory).map_err(|error| failed(&directory, error))?;
        let staged = Staged {
            package: directory.join(file_name(name, version)),
            directory,
        };
        write(&staged.package, &fetched.package)
            .and_then(|()| match &fetched.signature {
                Some(signature) => write(&beside(&staged.package), signature),
                None => Ok(()),
            })
            .map_err(|error| failed(&staged.package, error))?;
        Ok(staged)
    }

    /// Lets hosts see it: the signature first, so that the package never lies there without.
    pub(super) fn put(
        &self,
        name: &PluginName,
        version: &Version,
        fetched: &Fetched,
    ) -> Result<(), InstallError> {
        let staged = self.stage(name, version, fetched)?;
        let package = self.package(name, version);
        let moved = match &fetched.signature {
            Some(_) => fs::rename(beside(&staged.package), beside(&package)),
            None => gone(&beside(&package)),
        };
        moved
            .and_then(|()| fs::rename(&staged.package, &package))
            .and_then(|()| File::open(&self.directory)?.sync_all())
            .map_err(|error| failed(&package, error))
    }

    pub(super) fn remove(&self, name: &PluginName, version: &Version) -> Result<(), InstallError> {
        let package = self.package(name, version);
        gone(&package)
            .and_then(|()| gone(&beside(&package)))
            .map_err(|error| failed(&package, error))
    }

    fn package(&self, name: &PluginName, version: &Version) -> PathBuf {
        self.directory.join(file_name(name, version))
    }
}

/// Writes a file that is on disk when this returns.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Removes a file, if it is there.
fn gone(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn failed(path: &Path, error: io::Error) -> InstallError {
    InstallError::File {
        path: path.to_owned(),
        error,
    }
}
