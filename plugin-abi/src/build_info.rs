//! What a plugin's library says about itself, readable without running any of its code.
//!
//! `export_plugin!` puts these facts into an exported byte array of the library: one line of
//! text per fact, `key=value`, each ended by a NUL byte. The host reads the array from the file
//! before it loads anything, so that a library built for another ABI, or one that aborts on
//! panic, is refused while it is still only data. This module never reads files.

use std::fmt;

/// The version of the ABI that this crate speaks, as semantic version.
///
/// A host loads a library whose major version equals its own. One with a newer minor version is
/// loaded where the library uses none of the [`FEATURES`] that came after the host's.
pub const ABI_VERSION: &str = "1.2.0";

/// What has been added to the ABI since 1.0.0 and a library that uses it cannot do without, by the
/// names that [`need!`](crate::need) marks it with.
pub const FEATURES: &[&str] = &["http_client", "metrics", "tasks", "values"];

/// Beginning of the names of the sections in a library's file that mark the [`FEATURES`] it uses;
/// the feature's name follows.
pub const NEED_SECTION: &str = ".plugin_host.need.";

/// Name of the exported symbol that holds the facts.
pub const SYMBOL: &str = "PLUGIN_HOST_BUILD_INFO";

/// First record of the array: names the format, so that a later one can differ.
pub const MAGIC: &str = "plugin-host build info 1";

/// The compiler that built this crate and, with it, the plugin.
pub const COMPILER: &str = env!("PLUGIN_ABI_RUSTC");

/// The target triple that this crate was built for.
pub const TARGET: &str = env!("PLUGIN_ABI_TARGET");

/// The version of this crate.
pub const CRATE_VERSION: &str = env!("CARGO_PKG_VERSION");

/// What every library says, whatever its author wrote.
const FACTS_OF_THIS_CRATE: &[(&str, &str)] = &[
    ("abi_version", ABI_VERSION),
    ("abi_crate", CRATE_VERSION),
    ("compiler", COMPILER),
    ("target", TARGET),
];

/// Length of what [`encode`] makes of these facts of a plugin's package.
#[doc(hidden)]
pub const fn encoded_len(facts: &[(&str, &str)]) -> usize {
    MAGIC.len() + 1 + records_len(FACTS_OF_THIS_CRATE) + records_len(facts)
}

/// The array that `export_plugin!` exports: the facts of a plugin's package and of this crate.
#[doc(hidden)]
pub const fn encode<const N: usize>(facts: &[(&str, &str)]) -> [u8; N] {
    let mut bytes = [0; N];
    let end = copy(&mut bytes, 0, MAGIC) + 1;
    let end = copy_records(&mut bytes, end, FACTS_OF_THIS_CRATE);
    let end = copy_records(&mut bytes, end, facts);
    assert!(end == N, "the length comes from `encoded_len`");
    bytes
}

const fn records_len(facts: &[(&str, &str)]) -> usize {
    let (mut len, mut index) = (0, 0);
    while index < facts.len() {
        // `=` between, NUL behind.
        len += facts[index].0.len() + facts[index].1.len() + 2;
        index += 1;
    }
    len
}

const fn copy_records(bytes: &mut [u8], mut at: usize, facts: &[(&str, &str)]) -> usize {
    let mut index = 0;
    while index < facts.len() {
        at = copy(bytes, at, facts[index].0);
        at = copy(bytes, at, "=");
        at = copy(bytes, at, facts[index].1) + 1;
        index += 1;
    }
    at
}

const fn copy(bytes: &mut [u8], at: usize, text: &str) -> usize {
    let text = text.as_bytes();
    let mut index = 0;
    while index < text.len() {
        bytes[at + index] = text[index];
        index += 1;
    }
    at + text.len()
}

/// The facts that a library exports about itself. Every text may be empty where the plugin's
/// package does not say it, except those that the macro always knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildInfo {
    /// [`ABI_VERSION`] of the `plugin-abi` that the plugin was built with.
    pub abi_version: String,
    /// Version of the `plugin-abi` crate that the plugin was built with.
    pub abi_crate: String,
    /// What `rustc --version` said.
    pub compiler: String,
    /// Target triple.
    pub target: String,
    /// Panic strategy: `unwind` or `abort`.
    pub panic: String,
    /// Cargo package name: the plugin's name, where no `plugin.json` says another.
    pub name: String,
    /// Cargo package version.
    pub version: String,
    /// Cargo package description.
    pub description: String,
    /// Cargo package authors, separated by `:`.
    pub authors: String,
    /// Cargo package home page.
    pub homepage: String,
    /// Cargo package repository.
    pub repository: String,
    /// Cargo package licence, as SPDX expression.
    pub license: String,
    /// Names of the [`FEATURES`] that the library uses. They are no part of the exported array: see
    /// [`NEED_SECTION`].
    pub needs: Vec<String>,
}

/// Why the facts could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildInfoError {
    /// The array does not begin with [`MAGIC`].
    UnknownFormat,
    /// A record is not UTF-8 or lacks its `=`.
    MalformedRecord,
    /// A fact that every library has is absent.
    Missing(&'static str),
}

impl fmt::Display for BuildInfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownFormat => write!(f, "the build information has an unknown format"),
            Self::MalformedRecord => write!(f, "the build information has a malformed record"),
            Self::Missing(key) => write!(f, "the build information lacks `{key}`"),
        }
    }
}

impl std::error::Error for BuildInfoError {}

impl BuildInfo {
    /// Reads the exported array. Unknown keys are ignored, so that later versions can add some.
    ///
    /// # Errors
    /// The array is not in the format of [`MAGIC`], or lacks a fact that every library has.
    ///
    /// ```
    /// use plugin_abi::build_info::BuildInfo;
    ///
    /// let exported = b"plugin-host build info 1\0abi_version=1.0.0\0panic=unwind\0name=say\0version=0.1.0\0";
    /// let info = BuildInfo::parse(exported).unwrap();
    /// assert_eq!((info.name.as_str(), info.panic.as_str()), ("say", "unwind"));
    /// assert!(BuildInfo::parse(b"something else\0").is_err());
    /// ```
    pub fn parse(exported: &[u8]) -> Result<Self, BuildInfoError> {
        let mut records = exported
            .split(|byte| *byte == 0)
            .filter(|record| !record.is_empty());
        if records.next() != Some(MAGIC.as_bytes()) {
            return Err(BuildInfoError::UnknownFormat);
        }
        let mut info = Self::default();
        for record in records {
            let record =
                std::str::from_utf8(record).map_err(|_| BuildInfoError::MalformedRecord)?;
            let (key, value) = record
                .split_once('=')
                .ok_or(BuildInfoError::MalformedRecord)?;
            if let Some(field) = info.field(key) {
                value.clone_into(field);
            }
        }
        for (key, value) in [
            ("abi_version", &info.abi_version),
            ("panic", &info.panic),
            ("name", &info.name),
            ("version", &info.version),
        ] {
            if value.is_empty() {
                return Err(BuildInfoError::Missing(key));
            }
        }
        Ok(info)
    }

    fn field(&mut self, key: &str) -> Option<&mut String> {
        Some(match key {
            "abi_version" => &mut self.abi_version,
            "abi_crate" => &mut self.abi_crate,
            "compiler" => &mut self.compiler,
            "target" => &mut self.target,
            "panic" => &mut self.panic,
            "name" => &mut self.name,
            "version" => &mut self.version,
            "description" => &mut self.description,
            "authors" => &mut self.authors,
            "homepage" => &mut self.homepage,
            "repository" => &mut self.repository,
            "license" => &mut self.license,
            _ => return None,
        })
    }
}
