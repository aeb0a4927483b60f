//! What may stand in a package, by its path: nothing else does.

use std::path::{Component, Path};

use super::{MANIFEST, MAX_TEXT_BYTES, PackageError, Platform};
use crate::plugin::{
    elf::MAX_LIBRARY_BYTES,
    metadata::{FILE_NAME, MAX_FILE_BYTES},
};

/// Where the libraries are.
pub(super) const LIBRARIES: &str = "lib";

/// How the names of texts begin that belong to a package.
const TEXTS: [&str; 6] = [
    "README",
    "LICENSE",
    "LICENCE",
    "COPYING",
    "NOTICE",
    "CHANGELOG",
];

/// Length of a file's name, at most, in bytes: with the rest of its path it fits a header.
pub(super) const MAX_NAME_BYTES: usize = 100;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// The digests of the others.
    Manifest,
    /// The `plugin.json`.
    Metadata,
    /// A library.
    Library {
        /// Whom it is for.
        platform: Platform,
        /// Its file name.
        name: String,
    },
    /// A text for people.
    Text(String),
}

impl Entry {
    /// What a path stands for.
    pub(super) fn parse(path: &[u8]) -> Result<Self, PackageError> {
        let text = std::str::from_utf8(path);
        let shown = || String::from_utf8_lossy(path).into_owned();
        let Ok(text) = text else {
            return Err(PackageError::BadPath {
                path: shown(),
                why: "is not UTF-8",
            });
        };
        let mut components = Path::new(text).components();
        if components.clone().next() == Some(Component::RootDir) {
            return Err(PackageError::BadPath {
                path: shown(),
                why: "is absolute",
            });
        }
        if components.any(|component| component == Component::ParentDir) {
            return Err(PackageError::BadPath {
                path: shown(),
                why: "has `..` in it",
            });
        }
        Self::known(text).ok_or_else(|| PackageError::Unknown { path: shown() })
    }

    fn known(path: &str) -> Option<Self> {
        match path.split('/').collect::<Vec<_>>()[..] {
            [MANIFEST] => Some(Self::Manifest),
            [FILE_NAME] => Some(Self::Metadata),
            [name] if is_text(name) => Some(Self::Text(name.to_owned())),
            [LIBRARIES, platform, name] if is_library_name(name) => Some(Self::Library {
                platform: platform.parse().ok()?,
                name: name.to_owned(),
            }),
            _ => None,
        }
    }

    /// Its path.
    pub(super) fn path(&self) -> String {
        match self {
            Self::Manifest => MANIFEST.to_owned(),
            Self::Metadata => FILE_NAME.to_owned(),
            Self::Library { platform, name } => format!("{LIBRARIES}/{platform}/{name}"),
            Self::Text(name) => name.clone(),
        }
    }

    /// Its size, at most, in bytes.
    pub(super) fn max_bytes(&self) -> u64 {
        match self {
            Self::Manifest | Self::Text(_) => MAX_TEXT_BYTES,
            Self::Metadata => MAX_FILE_BYTES,
            Self::Library { .. } => MAX_LIBRARY_BYTES,
        }
    }
}

/// Whether a file beside a `plugin.json` is a text for people that belongs into a package.
pub(super) fn is_text(name: &str) -> bool {
    is_plain(name) && TEXTS.iter().any(|begin| name.starts_with(begin))
}

pub(super) fn is_library_name(name: &str) -> bool {
    is_plain(name)
}

fn is_plain(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with('.')
}
