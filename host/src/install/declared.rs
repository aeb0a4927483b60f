//! `plugins.toml`: which plugins a plugin directory is to have, in which versions, and from where.
//!
//! ```toml
//! [plugins]
//! say = { source = "oci://registry.example/plugins/say", version = "^1.2" }
//! limit-req = "packages/limit-req-0.1.0.plg"
//! ```
//!
//! A path that is not absolute is below the file's own directory. Nothing here asks a source.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use semver::VersionReq;
use serde::Deserialize;

use crate::{
    plugin::metadata::PluginName,
    sources::{NotASource, Source, SourceError, read_file},
};

/// The file's name in a plugin directory.
pub const FILE: &str = "plugins.toml";

/// Bytes of the file, at most.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// Plugins that it may name.
pub const MAX_PLUGINS: usize = 1_000;

/// A plugin that is to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: PluginName,
    /// Where it is from.
    pub source: Source,
    /// Which versions will do.
    pub version: VersionReq,
}

/// The file says nothing that can be understood: whoever has written it can mend it.
#[derive(Debug, thiserror::Error)]
pub enum NotDeclared {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] SourceError),
    /// It is no text.
    #[error("{}: it is not UTF-8", .0.display())]
    Text(PathBuf),
    /// It is no TOML, or has other keys.
    #[error("{}: {reason}", file.display())]
    Toml {
        /// The file.
        file: PathBuf,
        /// Where, and what is wrong.
        reason: String,
    },
    /// A source that is none.
    #[error("{}: plugin `{plugin}`: {error}", file.display())]
    Source {
        /// The file.
        file: PathBuf,
        /// Whose.
        plugin: PluginName,
        /// What is wrong with it.
        error: NotASource,
    },
    /// More than one file may name.
    #[error("{}: it names {found} plugins, where {MAX_PLUGINS} are allowed", file.display())]
    TooMany {
        /// The file.
        file: PathBuf,
        /// How many it names.
        found: usize,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    plugins: BTreeMap<PluginName, Entry>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a source, or { source = ..., version = ... }")]
enum Entry {
    Source(String),
    Table(Table),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    source: String,
    #[serde(default)]
    version: VersionReq,
}

/// Reads a file, which names each plugin once.
///
/// # Errors
/// See [`NotDeclared`].
pub fn read(file: &Path) -> Result<Vec<Wanted>, NotDeclared> {
    let bytes = read_file(file, MAX_FILE_BYTES)?;
    let text = String::from_utf8(bytes).map_err(|_| NotDeclared::Text(file.to_owned()))?;
    parse(&text, file)
}

fn parse(text: &str, file: &Path) -> Result<Vec<Wanted>, NotDeclared> {
    let document: Document = toml::from_str(text).map_err(|error| NotDeclared::Toml {
        file: file.to_owned(),
        reason: error.to_string(),
    })?;
    if document.plugins.len() > MAX_PLUGINS {
        return Err(NotDeclared::TooMany {
            file: file.to_owned(),
            found: document.plugins.len(),
        });
    }
    let below = file.parent().unwrap_or(Path::new(""));
    let plugins = document.plugins.into_iter();
    plugins
        .map(|(name, entry)| {
            let table = match entry {
                Entry::Source(source) => Table {
                    source,
                    version: VersionReq::STAR,
                },
                Entry::Table(table) => table,
            };
            let source = match table.source.parse() {
                Ok(Source::File(path)) => Source::File(below.join(path)),
                Ok(source) => source,
                Err(error) => {
                    return Err(NotDeclared::Source {
                        file: file.to_owned(),
                        plugin: name,
                        error,
                    });
                }
            };
            Ok(Wanted {
                name,
                source,
                version: table.version,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::*;

    fn parsed(text: &str) -> Result<Vec<Wanted>, String> {
        parse(text, Path::new("/etc/plugins/plugins.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_plugin_is_declared_by_its_source_with_or_without_versions() {
        let wanted = parsed(
            "[plugins]\nsay = { source = \"oci://registry.example/say\", version = \"^1.2\" }\n\
             limit-req = \"packages/limit-req.plg\"\n",
        )
        .unwrap();
        assert_eq!(wanted.len(), 2);
        assert_eq!(wanted[0].name.as_str(), "limit-req");
        let below = Source::File("/etc/plugins/packages/limit-req.plg".into());
        assert_eq!(wanted[0].source, below);
        assert_eq!(wanted[0].version, VersionReq::STAR);
        assert_eq!(wanted[1].source.to_string(), "oci://registry.example/say");
        assert_eq!(wanted[1].version.to_string(), "^1.2");
        assert_eq!(parsed("").unwrap(), []);
    }

    #[test]
    fn what_cannot_be_understood_is_told_with_file_and_plugin() {
        for (text, told) in [
            ("[plugins]\nsay = 3\n", "a source, or"),
            ("[plugin]\n", "unknown field `plugin`"),
            ("[plugins]\n\"a b\" = \"x\"\n", "a b"),
            (
                "[plugins]\nsay = { source = \"x\", version = \"one\" }\n",
                "say",
            ),
            ("[plugins]\nsay = \"ftp://host/x\"\n", "plugin `say`"),
            ("[plugins]\nsay = { source = \"x\", sha = \"y\" }\n", "say"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains("/etc/plugins/plugins.toml"), "{error}");
            assert!(error.contains(told), "{told} in {error}");
        }
        let many: String = (0..=MAX_PLUGINS)
            .map(|n| format!("p{n} = \"x\"\n"))
            .collect();
        let error = parsed(&format!("[plugins]\n{many}")).unwrap_err();
        assert!(error.contains("1001 plugins"), "{error}");
    }
}
