//! Whether a `plugin.json` and the library beside it can belong together.
//!
//! The file wins over what the library says about itself, but it may not claim to be another
//! plugin, another version, or to fit another ABI: then one of the two was forgotten when the
//! other was replaced.

use plugin_abi::build_info::BuildInfo;
use semver::{Version, VersionReq};

use super::{Metadata, PluginName, parse_version};

/// One point where file and library differ.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// They name different plugins.
    #[error("plugin.json says that this is `{file}`, the library says `{library}`")]
    Name {
        /// What the file says.
        file: PluginName,
        /// What the library says.
        library: String,
    },
    /// They name versions of different precedence.
    #[error("plugin.json says version {file}, the library says {library}")]
    Version {
        /// What the file says.
        file: Version,
        /// What the library says.
        library: String,
    },
    /// The file does not accept the ABI that the library was built for.
    #[error("plugin.json accepts ABI `{file}`, the library was built for ABI {library}")]
    Abi {
        /// What the file accepts.
        file: VersionReq,
        /// What the library says.
        library: String,
    },
}

impl Contradiction {
    /// What to do about it.
    pub(in crate::plugin) fn next_step(&self) -> String {
        match self {
            Self::Name { file, library } => format!(
                "write `\"name\": \"{library}\"` into plugin.json, or `name = \"{file}\"` into the Cargo.toml that the library is built from; or put the library of `{file}` there"
            ),
            Self::Version { file, library } => format!(
                "put the library and the plugin.json of one version there: write `\"version\": \"{library}\"` into plugin.json, or build the library with `version = \"{file}\"` in its Cargo.toml"
            ),
            Self::Abi { file, library } => format!(
                "correct `abi` in plugin.json, or build the library with a `plugin-abi` whose ABI is `{file}` instead of {library}"
            ),
        }
    }
}

pub(super) fn between(file: &Metadata, library: &BuildInfo) -> Vec<Contradiction> {
    let mut found = Vec::new();
    if file.name.as_str() != library.name {
        found.push(Contradiction::Name {
            file: file.name.clone(),
            library: library.name.clone(),
        });
    }
    // Build metadata does not count: whoever packages a plugin may add some.
    let same = parse_version(&library.version)
        .is_ok_and(|version| version.cmp_precedence(&file.version).is_eq());
    if !same {
        found.push(Contradiction::Version {
            file: file.version.clone(),
            library: library.version.clone(),
        });
    }
    if let Some(accepted) = &file.abi {
        let fits =
            Version::parse(&library.abi_version).is_ok_and(|version| accepted.matches(&version));
        if !fits {
            found.push(Contradiction::Abi {
                file: accepted.clone(),
                library: library.abi_version.clone(),
            });
        }
    }
    found
}
