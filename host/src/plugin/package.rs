//! `.plg` packages: a plugin as one file, for one platform or several.
//!
//! A package is a gzip of a tar archive with `plugin.json`, the library of each platform below
//! `lib/`, texts for people, and `manifest.json`, which has the SHA-256 of all of them. [`pack`]
//! makes the same bytes from the same files, [`Package::read`] takes them apart in memory and within
//! bounds, and [`unpack()`] makes a plugin's directory of it. Whether the library is any good is
//! `discovery`'s question, and who made the package that of `signature`. Nothing here loads a library.

mod entry;
mod error;
mod pack;
mod platform;
mod read;
mod unpack;

use std::{collections::BTreeMap, path::Path};

use semver::Version;
use serde::{Deserialize, Serialize};

use super::metadata::{Digest, Parsed, PluginName};

pub use error::PackageError;
pub use pack::{Contents, Elsewhere, PackError, pack};
pub use platform::{Platform, UnknownPlatform};
pub use unpack::{UnpackError, unpack};

/// What a package's name ends with, after a dot.
pub const EXTENSION: &str = "plg";

/// Name of the entry that has the digests of the others.
pub const MANIFEST: &str = "manifest.json";

/// The format that this program writes, and the only one that it reads.
pub const FORMAT: u64 = 1;

/// Size of a package, at most, in bytes: it is held in memory while it is judged.
pub const MAX_PACKAGE_BYTES: u64 = 512 << 20;

/// Entries of a package, at most.
pub const MAX_ENTRIES: usize = 64;

/// Size of a text for people in a package, and of its manifest, at most, in bytes.
pub const MAX_TEXT_BYTES: u64 = 1 << 20;

/// Bytes that a package unpacks to, at most.
pub const MAX_UNPACKED_BYTES: u64 = 1 << 30;

/// How many times its own size a package unpacks to, at most, beside [`MAX_TEXT_BYTES`]. Libraries
/// come to three or four.
pub const MAX_RATIO: u64 = 100;

/// What a package says that it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u64,
    /// The plugin.
    pub name: PluginName,
    /// Its version.
    pub version: Version,
    /// Every other entry, by its path.
    pub files: BTreeMap<String, FileFacts>,
}

/// What the manifest says of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileFacts {
    /// Its size in bytes.
    pub bytes: u64,
    /// Its digest.
    pub sha256: Digest,
}

/// A whole package whose parts fit each other.
#[derive(Debug, Clone)]
pub struct Package {
    /// What it says that it holds, which is what it holds.
    pub manifest: Manifest,
    /// Its `plugin.json` as it was packed.
    pub document: Vec<u8>,
    /// The same, understood.
    pub parsed: Parsed,
    /// Texts for people, by their names.
    pub texts: BTreeMap<String, Vec<u8>>,
    /// The platforms that it has libraries for.
    pub platforms: Vec<Platform>,
    /// The library for the platform that was asked for.
    library: Option<PackedLibrary>,
    wanted: Platform,
}

/// One platform's library.
#[derive(Debug, Clone)]
pub struct PackedLibrary {
    /// Its file name.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Their digest.
    pub digest: Digest,
}

impl Package {
    /// Takes a package apart. Of its libraries only that for `platform` is kept; the others are
    /// checked all the same.
    ///
    /// # Errors
    /// The first thing that is wrong with it. That it has nothing for the platform is no such thing:
    /// [`Package::take_library`] says so.
    pub fn read(bytes: &[u8], platform: &Platform) -> Result<Self, PackageError> {
        read::read(bytes, platform)
    }

    /// Gives the library for the platform that was asked for.
    ///
    /// # Errors
    /// There is none.
    pub fn take_library(&mut self) -> Result<PackedLibrary, PackageError> {
        self.library
            .take()
            .ok_or_else(|| PackageError::OtherPlatform {
                wanted: self.wanted.clone(),
                has: self.platforms.clone(),
            })
    }
}

/// Whether a name is a package's.
pub fn is_package(name: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|extension| extension == EXTENSION)
}

/// What a package is called where it says which plugin it is.
pub fn file_name(name: &PluginName, version: &Version) -> String {
    format!("{name}-{version}.{EXTENSION}")
}

/// Whether a package with this plugin may have this name: the plugin's, alone or with its version, so
/// that nobody looks for a plugin under another plugin's name.
pub fn may_be_called(file: &str, name: &PluginName, version: &Version) -> bool {
    let stem = file.strip_suffix(&format!(".{EXTENSION}"));
    stem.is_some_and(|stem| {
        let rest = stem.strip_prefix(name.as_str());
        rest.is_some_and(|rest| {
            let version = version.to_string();
            rest.is_empty() || rest.strip_prefix(['-', '@']) == Some(version.as_str())
        })
    })
}

#[cfg(test)]
mod tests;
