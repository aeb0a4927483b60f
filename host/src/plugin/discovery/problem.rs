//! What can be wrong with a plugin on its way from files to a candidate: where, whose fault, and
//! what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;

use semver::{Version, VersionReq};

use super::{MAX_ENTRIES, MAX_LIBRARY_BYTES};
use crate::plugin::elf::ElfError;
use crate::plugin::metadata::{Contradiction, Digest, FILE_NAME, MetadataError, PluginName};
use crate::plugin::package::PackageError;
use crate::plugin::signature::{MAX_SIGNATURE_BYTES, Refused, Signature};

/// Something that keeps a plugin from being loaded.
#[derive(Debug)]
pub struct Problem {
    /// The file or directory that it is about.
    pub path: PathBuf,
    /// The plugin, where that much is known.
    pub plugin: Option<PluginName>,
    /// Its version, where that much is known.
    pub version: Option<Version>,
    /// What is wrong.
    pub cause: Cause,
}

/// Who can mend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Who wrote or built the plugin.
    Author,
    /// Who put it here.
    Operator,
    /// This host, which cannot do this yet.
    Host,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The directory is not there.
    #[error("there is no such directory")]
    NoDirectory,
    /// A file or directory cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// A link to something that is not there.
    #[error("it is a link to `{}`, which is not there", target.display())]
    DeadLink {
        /// Where it leads.
        target: PathBuf,
    },
    /// More than [`MAX_ENTRIES`] entries.
    #[error("the directory has more than {MAX_ENTRIES} entries: none of it is looked at")]
    TooManyEntries,
    /// A file name that is not UTF-8.
    #[error("the name `{}` is not UTF-8", name.escape_debug())]
    UnreadableName {
        /// As much of it as can be read.
        name: String,
    },
    /// Neither a `plugin.json` nor a library.
    #[error(
        "the directory has neither a {FILE_NAME} nor a library{}",
        beside(archives)
    )]
    NoPlugin {
        /// Rust libraries for linking that are there instead.
        archives: Vec<String>,
    },
    /// Several libraries, and no `plugin.json` to choose one.
    #[error("the directory has several libraries and no {FILE_NAME}: `{}`", libraries.join("`, `"))]
    SeveralLibraries {
        /// Their names.
        libraries: Vec<String>,
    },
    /// A directory, pipe or device where a file should be.
    #[error("it is not a file")]
    NotAFile,
    /// The library that `plugin.json` names is not there.
    #[error("the library that {FILE_NAME} names is not there{}", beside(archives))]
    NoLibrary {
        /// Libraries that are there instead.
        instead: Vec<String>,
        /// Rust libraries for linking that are there instead.
        archives: Vec<String>,
    },
    /// A link leads out of the plugin's directory.
    #[error("it leads out of the plugin's directory, to `{}`", target.display())]
    LeavesDirectory {
        /// Where it leads.
        target: PathBuf,
    },
    /// The library is larger than [`MAX_LIBRARY_BYTES`].
    #[error("the library has {bytes} bytes, more than {MAX_LIBRARY_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// The library is not the one that `plugin.json` speaks of.
    #[error("the library's SHA-256 is {found}, but {FILE_NAME} says {wanted}")]
    OtherDigest {
        /// What `plugin.json` says.
        wanted: Digest,
        /// What the library has.
        found: Digest,
    },
    /// The directory has another plugin's name.
    #[error("the directory `{directory}` holds plugin `{plugin}` {version}")]
    Misplaced {
        /// The directory's name.
        directory: String,
        /// The plugin in it.
        plugin: PluginName,
        /// Its version.
        version: Box<Version>,
    },
    /// A package has another plugin's name.
    #[error("the package `{package}` holds plugin `{plugin}` {version}")]
    Misnamed {
        /// The package's name.
        package: String,
        /// The plugin in it.
        plugin: PluginName,
        /// Its version.
        version: Box<Version>,
    },
    /// A package that is none, or none for this machine.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// Nobody who is trusted vouches for it.
    #[error(transparent)]
    Signature(Box<Refused>),
    /// Nobody's signature is that long.
    #[error("its signature has more than {MAX_SIGNATURE_BYTES} bytes")]
    SignatureTooLarge,
    /// `plugin.json` and library tell different stories.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    /// `plugin.json` does not accept this host's ABI.
    #[error("{FILE_NAME} asks for ABI `{wanted}`, this host speaks ABI {host}")]
    AbiRefused {
        /// What it accepts.
        wanted: VersionReq,
        /// What this host speaks.
        host: Version,
    },
    /// Other libraries claim to be the same plugin in a version of equal precedence.
    #[error(
        "the same plugin in the same version is also at {}; neither is used",
        quoted(others)
    )]
    Twins {
        /// The others.
        others: Vec<PathBuf>,
    },
    /// A mistake in `plugin.json`, or in what the library says about itself.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The library cannot be loaded.
    #[error(transparent)]
    Library(#[from] ElfError),
}

impl Problem {
    /// What to do about it.
    #[must_use]
    pub fn next_step(&self) -> String {
        self.cause.next_step()
    }

    /// Who can mend it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.cause.fault()
    }
}

impl Cause {
    /// What is known of who vouches for it, where that is what is wrong.
    pub fn signature(&self) -> Option<&Signature> {
        match self {
            Self::Signature(refused) => Some(&refused.0),
            _ => None,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn next_step(&self) -> String {
        match self {
            Self::NoDirectory => "create it, or name another plugin directory".to_owned(),
            Self::Unreadable(_) => "let the user that the host runs as read it".to_owned(),
            Self::DeadLink { .. } | Self::UnreadableName { .. } => {
                "correct or remove it".to_owned()
            }
            Self::TooManyEntries => "keep nothing but plugins in the directory".to_owned(),
            Self::NoPlugin { archives } if archives.is_empty() => {
                format!("put a {FILE_NAME} and the library there, or remove the directory")
            }
            Self::NoPlugin { .. } => CRATE_TYPE.to_owned(),
            Self::SeveralLibraries { .. } => format!("keep one, or name it in a {FILE_NAME}"),
            Self::NotAFile => "put a file there".to_owned(),
            Self::NoLibrary { instead, archives } if instead.is_empty() => {
                if archives.is_empty() {
                    "build the plugin (`cargo build --release`) and copy the library there; where that makes no `.so` file, its Cargo.toml lacks `crate-type = [\"cdylib\"]` under `[lib]`".to_owned()
                } else {
                    CRATE_TYPE.to_owned()
                }
            }
            Self::NoLibrary { instead, .. } => {
                format!("correct `source.path`: `{}` is there", instead.join("`, `"))
            }
            Self::LeavesDirectory { .. } => {
                "copy the file itself into the plugin's directory".to_owned()
            }
            Self::TooLarge { .. } => {
                "strip the library of its debug information (`strip -g`)".to_owned()
            }
            Self::OtherDigest { .. } => {
                "copy the library again, or correct `source.sha256`".to_owned()
            }
            Self::Misplaced {
                plugin, version, ..
            } => {
                format!("rename the directory to `{plugin}` or `{plugin}@{version}`")
            }
            Self::Misnamed {
                plugin, version, ..
            } => format!("rename it to `{plugin}.plg` or `{plugin}-{version}.plg`"),
            Self::Package(error) => error.next_step(),
            Self::Signature(refused) => refused.next_step(),
            Self::SignatureTooLarge => "get the signature again, or remove it".to_owned(),
            Self::Contradiction(contradiction) => contradiction.next_step(),
            Self::AbiRefused { .. } => {
                "use a version of the plugin for this host, or correct `abi`".to_owned()
            }
            Self::Twins { .. } => {
                "remove all but one, or raise `version` in the Cargo.toml and plugin.json of the newer one".to_owned()
            }
            Self::Metadata(error) => error.next_step(),
            Self::Library(error) => error.next_step(),
        }
    }

    /// Whether it looks like files that are still being copied: the rest may be on its way.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NoDirectory
            | Self::DeadLink { .. }
            | Self::NoPlugin { .. }
            | Self::SeveralLibraries { .. }
            | Self::NoLibrary { .. }
            | Self::OtherDigest { .. }
            | Self::Misplaced { .. }
            | Self::Contradiction(_)
            | Self::Twins { .. }
            | Self::Metadata(MetadataError::NotJson { .. }) => true,
            Self::Unreadable(error) => error.kind() == io::ErrorKind::NotFound,
            Self::Package(error) => error.may_pass(),
            // The signature may come after what it signs, or before it.
            Self::Signature(refused) => {
                matches!(refused.0, Signature::Unsigned | Signature::Modified(_))
            }
            // A file that is given its size before its content looks like anything but a library.
            Self::Library(error) => matches!(
                error,
                ElfError::Empty
                    | ElfError::NotElf { .. }
                    | ElfError::CutShort { .. }
                    | ElfError::Damaged(_)
            ),
            _ => false,
        }
    }

    /// Who can mend it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Metadata(MetadataError::RemoteGit) => Fault::Host,
            Self::Metadata(_) => Fault::Author,
            Self::Package(error) if error.is_its_authors() => Fault::Author,
            Self::Library(error) => match error {
                ElfError::Empty
                | ElfError::CutShort { .. }
                | ElfError::Damaged(_)
                | ElfError::OtherMachine { .. }
                | ElfError::LacksFeatures { .. } => Fault::Operator,
                _ => Fault::Author,
            },
            _ => Fault::Operator,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        if let Some(plugin) = &self.plugin {
            write!(f, "plugin `{plugin}`")?;
            if let Some(version) = &self.version {
                write!(f, " {version}")?;
            }
            write!(f, ": ")?;
        }
        write!(f, "{} ({}: {})", self.cause, self.fault(), self.next_step())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Author => "for the plugin's author",
            Self::Operator => "for the operator",
            Self::Host => "for this host",
        })
    }
}

/// What to do where cargo has made a library for linking and none for loading.
const CRATE_TYPE: &str = "write `crate-type = [\"cdylib\"]` under `[lib]` in the plugin's Cargo.toml, run `cargo build --release`, and copy the `.so` file from `target/release` there";

fn beside(archives: &[String]) -> String {
    if archives.is_empty() {
        return String::new();
    }
    format!(
        ", only `{}`, which can be linked but not loaded",
        archives.join("`, `")
    )
}

fn quoted(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths
        .iter()
        .map(|path| format!("`{}`", path.display()))
        .collect();
    paths.join(", ")
}
