//! The file system's side of discovery: lists directories and reads files, within bounds.
//!
//! Links are followed as long as they stay inside the plugin's directory, wherever that directory
//! itself really is: Kubernetes mounts files as links to links (`libsay.so` to `..data/libsay.so`,
//! `..data` to `..2026_08_01`). Nothing here knows what the bytes mean.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{Cause, MAX_ENTRIES, MAX_LIBRARY_BYTES, is_library, is_package};
use crate::plugin::metadata::{FILE_NAME, MAX_FILE_BYTES, MetadataError};
use crate::plugin::package::{MAX_PACKAGE_BYTES, PackageError};
use crate::plugin::signature::{MAX_SIGNATURE_BYTES, SUFFIX};

/// What `mkfs` puts on every new volume: nobody's plugin.
const VOLUME_REMAINDER: &str = "lost+found";

/// A directory's entries that can matter, sorted by name.
pub(super) struct Listing {
    pub(super) entries: Vec<Entry>,
    /// What cannot even be looked at.
    pub(super) unusable: Vec<PathBuf>,
}

/// A directory's entry, by its name there; links count as what they lead to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A directory.
    Directory(String),
    /// Anything else.
    File(String),
}

impl Entry {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Directory(name) | Self::File(name) => name,
        }
    }

    pub(super) fn is_named(&self, wanted: &str) -> bool {
        matches!(self, Self::File(name) if name == wanted)
    }

    /// Whether it is the signature of some file.
    pub(super) fn is_signature(&self) -> bool {
        matches!(self, Self::File(name) if name.ends_with(SUFFIX))
    }

    /// The name, if it is a library's.
    pub(super) fn library(&self) -> Option<&str> {
        match self {
            Self::File(name) if is_library(name) => Some(name),
            _ => None,
        }
    }
}

/// Lists a directory. Names that begin with a dot are nobody's business here: editors, archives
/// and Kubernetes keep their own things under such names.
pub(super) fn list(directory: &Path) -> Result<Listing, Cause> {
    let mut listing = Listing {
        entries: Vec::new(),
        unusable: Vec::new(),
    };
    let entries = fs::read_dir(directory).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Cause::NoDirectory,
        _ => Cause::Unreadable(error),
    })?;
    for (index, entry) in entries.enumerate() {
        if index >= MAX_ENTRIES {
            return Err(Cause::TooManyEntries);
        }
        let entry = entry.map_err(Cause::Unreadable)?;
        let path = entry.path();
        let name = entry.file_name().into_string();
        if name
            .as_ref()
            .is_ok_and(|name| name.starts_with('.') || name == VOLUME_REMAINDER)
        {
            continue;
        }
        let (Ok(name), metadata) = (name, fs::metadata(&path)) else {
            listing.unusable.push(path);
            continue;
        };
        match metadata {
            Ok(metadata) if metadata.is_dir() => listing.entries.push(Entry::Directory(name)),
            // A dead link may still be the one that `plugin.json` names: whoever reads it says so.
            Err(_) if name != FILE_NAME && !is_library(&name) && !is_package(&name) => {
                listing.unusable.push(path);
            }
            _ => listing.entries.push(Entry::File(name)),
        }
    }
    listing.entries.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(listing)
}

/// Why an entry cannot even be looked at; none where it can by now.
pub(super) fn why_unusable(path: &Path) -> Option<Cause> {
    match path.file_name() {
        Some(name) if name.to_str().is_none() => Some(Cause::UnreadableName {
            name: name.to_string_lossy().into_owned(),
        }),
        _ => Some(unreadable(path, fs::metadata(path).err()?)),
    }
}

/// Reads a plugin directory's `plugin.json`.
pub(super) fn read_metadata(directory: &Path) -> Result<Vec<u8>, Cause> {
    read_inside(directory, Path::new(FILE_NAME), MAX_FILE_BYTES, |_| {
        MetadataError::TooLarge.into()
    })
}

/// Reads a package: once, so that what is judged, compared with its signature and loaded are the same
/// bytes.
pub(super) fn read_package(directory: &Path, name: &str) -> Result<Vec<u8>, Cause> {
    read_inside(directory, Path::new(name), MAX_PACKAGE_BYTES, |bytes| {
        PackageError::TooLarge { bytes }.into()
    })
}

/// Reads the signature of something.
pub(super) fn read_signature(directory: &Path, name: &Path) -> Result<Vec<u8>, Cause> {
    read_inside(directory, name, MAX_SIGNATURE_BYTES, |_| {
        Cause::SignatureTooLarge
    })
}

/// Reads a library: once, so that what is hashed, judged and loaded are the same bytes.
pub(super) fn read_library(directory: &Path, library: &Path) -> Result<Vec<u8>, Cause> {
    let read = read_inside(directory, library, MAX_LIBRARY_BYTES, |bytes| {
        Cause::TooLarge { bytes }
    });
    match read {
        Err(Cause::Unreadable(error)) if error.kind() == io::ErrorKind::NotFound => {
            let there = list(directory)
                .map(|listing| listing.entries)
                .unwrap_or_default();
            let instead = there
                .iter()
                .filter_map(Entry::library)
                .map(str::to_owned)
                .collect();
            Err(Cause::NoLibrary {
                instead,
                archives: archives(&there),
            })
        }
        read => read,
    }
}

/// Names of Rust libraries that can be linked but not loaded: what cargo makes of a crate that does
/// not say otherwise.
pub(super) fn archives(entries: &[Entry]) -> Vec<String> {
    let names = entries.iter().map(Entry::name);
    names
        .filter(|name| name.ends_with(".rlib") || name.ends_with(".a"))
        .map(str::to_owned)
        .collect()
}

/// Reads a file that must really lie within the directory.
fn read_inside(
    directory: &Path,
    file: &Path,
    limit: u64,
    too_large: impl Fn(u64) -> Cause,
) -> Result<Vec<u8>, Cause> {
    let home = directory.canonicalize().map_err(Cause::Unreadable)?;
    let path = directory.join(file);
    let target = path
        .canonicalize()
        .map_err(|error| unreadable(&path, error))?;
    if !target.starts_with(&home) {
        return Err(Cause::LeavesDirectory { target });
    }
    // Asked before it is opened: opening a pipe would wait for whoever writes into it.
    let metadata = fs::metadata(&target).map_err(Cause::Unreadable)?;
    if !metadata.is_file() {
        return Err(Cause::NotAFile);
    }
    if metadata.len() > limit {
        return Err(too_large(metadata.len()));
    }
    let file = File::open(&target).map_err(Cause::Unreadable)?;
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
    // It may have grown meanwhile.
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(Cause::Unreadable)?;
    if bytes.len() as u64 > limit {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes)
}

fn unreadable(path: &Path, error: io::Error) -> Cause {
    match fs::read_link(path) {
        Ok(target) if error.kind() == io::ErrorKind::NotFound => Cause::DeadLink { target },
        _ => Cause::Unreadable(error),
    }
}
