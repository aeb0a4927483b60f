//! Makes a plugin's directory of a package: all of it, or nothing.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Package, PackageError, PackedLibrary};
use crate::plugin::metadata::FILE_NAME;

/// The package was not unpacked, and nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It has no library for this platform.
    #[error("{} ({})", .0, .0.next_step())]
    Package(#[from] PackageError),
    /// Something is there already.
    #[error("{}: it is there already; remove it, or name another directory", .0.display())]
    Exists(PathBuf),
    /// It cannot be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// What could not be written.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Writes what a package holds for one platform into a directory that is not there yet, which appears
/// complete.
///
/// # Errors
/// It cannot be written, or the package holds nothing for the platform.
pub fn unpack(mut package: Package, directory: &Path) -> Result<(), UnpackError> {
    let library = package.take_library()?;
    if directory.symlink_metadata().is_ok() {
        return Err(UnpackError::Exists(directory.to_owned()));
    }
    let failed = |source| UnpackError::Write {
        path: directory.to_owned(),
        source,
    };
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    // With a dot: no host takes it for a plugin.
    let unfinished = directory.with_file_name(format!(".{name}.{}", std::process::id()));
    fs::create_dir_all(directory.parent().unwrap_or(Path::new("."))).map_err(failed)?;
    fs::create_dir(&unfinished).map_err(failed)?;
    let written =
        write(&package, &library, &unfinished).and_then(|()| fs::rename(&unfinished, directory));
    if written.is_err() {
        // What cannot be removed either is told with the error's reason.
        let _ = fs::remove_dir_all(&unfinished);
    }
    written.map_err(failed)
}

fn write(package: &Package, library: &PackedLibrary, directory: &Path) -> io::Result<()> {
    let library_path = directory.join(package.parsed.metadata.library().as_path());
    if let Some(parent) = library_path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(library_path, &library.bytes)?;
    fs::write(directory.join(FILE_NAME), &package.document)?;
    for (name, text) in &package.texts {
        fs::write(directory.join(name), text)?;
    }
    Ok(())
}
