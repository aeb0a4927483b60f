//! What can be wrong with a package, and what to do about it.

use super::{
    EXTENSION, FORMAT, MANIFEST, MAX_ENTRIES, MAX_PACKAGE_BYTES, MAX_RATIO, MAX_UNPACKED_BYTES,
    Platform,
};
use crate::plugin::metadata::{Digest, FILE_NAME, Invalid};

/// Why something is no package, or none for this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackageError {
    /// Larger than [`MAX_PACKAGE_BYTES`].
    #[error("the package has {bytes} bytes, more than {MAX_PACKAGE_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// It cannot be read to its end.
    #[error("the package is cut short or damaged: {0}")]
    Damaged(String),
    /// It unpacks to more than [`MAX_UNPACKED_BYTES`], or than its own size allows.
    #[error(
        "the package unpacks to more than {MAX_UNPACKED_BYTES} bytes, or than {MAX_RATIO} times its size"
    )]
    Expands,
    /// More than [`MAX_ENTRIES`] entries.
    #[error("the package has more than {MAX_ENTRIES} entries")]
    TooManyEntries,
    /// An entry is larger than it may be.
    #[error("`{path}` in the package has {bytes} bytes, more than {bound}")]
    EntryTooLarge {
        /// The entry.
        path: String,
        /// Its size.
        bytes: u64,
        /// What it may have.
        bound: u64,
    },
    /// A link, directory, device or the like.
    #[error("`{path}` in the package is {kind}, not a file")]
    NotAFile {
        /// The entry.
        path: String,
        /// What it is.
        kind: &'static str,
    },
    /// A path that leads elsewhere, or none.
    #[error("the path `{path}` in the package {why}")]
    BadPath {
        /// The path.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Two entries of one path.
    #[error("`{path}` is in the package twice")]
    Duplicate {
        /// The path.
        path: String,
    },
    /// An entry that no package has.
    #[error("`{path}` is nothing that a package holds")]
    Unknown {
        /// The path.
        path: String,
    },
    /// Something follows the archive.
    #[error("something follows the end of the archive")]
    TrailingGarbage,
    /// An entry that every package has is not there, or one that the manifest names.
    #[error("`{path}` is not in the package")]
    Missing {
        /// The path.
        path: String,
    },
    /// The manifest is no manifest.
    #[error("{MANIFEST} cannot be read: {0}")]
    UnreadableManifest(String),
    /// Made by a newer program.
    #[error("the package has format {format}, this program reads format {FORMAT}")]
    OtherFormat {
        /// Its format.
        format: u64,
    },
    /// An entry that the manifest does not name.
    #[error("{MANIFEST} does not name `{path}`")]
    NotInManifest {
        /// The path.
        path: String,
    },
    /// An entry is not the one that the manifest speaks of.
    #[error("the SHA-256 of `{path}` is {found}, but {MANIFEST} says {wanted}")]
    OtherDigest {
        /// The path.
        path: String,
        /// What the manifest says.
        wanted: Digest,
        /// What the entry has.
        found: Digest,
    },
    /// Its `plugin.json` has mistakes.
    #[error("its {FILE_NAME}: {}", errors(.0))]
    Metadata(Box<Invalid>),
    /// Manifest and `plugin.json`, or `plugin.json` and libraries, tell different stories.
    #[error("{FILE_NAME} in the package has {what} `{metadata}`, but {place} has `{other}`")]
    Contradiction {
        /// What they differ in.
        what: &'static str,
        /// What `plugin.json` says.
        metadata: String,
        /// What says otherwise.
        place: &'static str,
        /// What that says.
        other: String,
    },
    /// It has no library for the platform.
    #[error("the package has no library for {wanted}, only for {}", listed(has))]
    OtherPlatform {
        /// The platform.
        wanted: Platform,
        /// Those that it has libraries for.
        has: Vec<Platform>,
    },
}

impl PackageError {
    /// What to do about it.
    #[must_use]
    pub fn next_step(&self) -> String {
        match self {
            Self::TooLarge { .. } | Self::EntryTooLarge { .. } | Self::Expands => {
                "strip the library of its debug information (`strip -g`) and pack it again".into()
            }
            Self::Damaged(_) | Self::TrailingGarbage => {
                "copy the package again, under another name first, then rename it into place".into()
            }
            Self::OtherFormat { .. } => "use a newer plugin-host".into(),
            Self::Metadata(invalid) => {
                let steps = invalid.errors.iter().map(|error| error.next_step());
                steps.collect::<Vec<_>>().join("; ")
            }
            Self::OtherPlatform { wanted, .. } => format!(
                "take a package for {wanted}, or have its author build for that and pack it with \
                 `--library`"
            ),
            _ => format!(
                "make it anew with `plugin-host pack`, and trust no `.{EXTENSION}` of unknown origin"
            ),
        }
    }

    /// Whether it looks like a file that is still being copied.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Damaged(_))
    }

    /// Whether who made the package can mend it, and nobody else.
    #[must_use]
    pub fn is_its_authors(&self) -> bool {
        !matches!(
            self,
            Self::Damaged(_)
                | Self::TrailingGarbage
                | Self::OtherPlatform { .. }
                | Self::OtherFormat { .. }
        )
    }
}

fn errors(invalid: &Invalid) -> String {
    let errors = invalid.errors.iter().map(ToString::to_string);
    errors.collect::<Vec<_>>().join("; ")
}

fn listed(platforms: &[Platform]) -> String {
    let names = platforms.iter().map(ToString::to_string);
    names.collect::<Vec<_>>().join(", ")
}
