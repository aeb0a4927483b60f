//! What a plugin is, as its `plugin.json` or its library says: checked once, then only used.
//!
//! A [`Metadata`] exists only where all of it is valid. A file with mistakes gives all of them,
//! each with the field and what to write there instead, because whoever mends a file wants to
//! mend it once. This module takes bytes; it never looks at the file system, so whether the
//! library exists, has the right digest and fits the directory's name is `discovery`'s question.

mod contradiction;
mod document;
mod fields;
mod http_routes;
mod reading;
mod types;

use std::time::Duration;

use plugin_abi::build_info::BuildInfo;
use semver::{Version, VersionReq};
use serde_json::{Map, Value};

pub use contradiction::Contradiction;
pub use http_routes::{HttpRoute, Lookup, MAX_ROUTES, RoutePattern, Routing};
pub use types::{
    Build, Digest, Execution, FailurePolicy, LibraryPath, MAX_NAME_BYTES, MAX_VERSION_BYTES,
    PluginName, TypeError, parse_version,
};

use super::schema::Schema;

/// Name of the file.
pub const FILE_NAME: &str = "plugin.json";

/// Size of a `plugin.json`, at most, in bytes. Schemas are the only large thing in it.
pub const MAX_FILE_BYTES: u64 = 256 << 10;

/// The longest `timeout_ms`: the gateway itself gives up after this time.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// How many variables one plugin may need, at most: each costs a question to the gateway.
pub const MAX_NEEDED_VARIABLES: usize = 64;

/// Everything that is known of a plugin before its library is loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Metadata {
    /// The name that routes use.
    pub name: PluginName,
    /// Its version.
    pub version: Version,
    /// One sentence; empty where nothing was said.
    pub description: String,
    /// E-mail addresses or `Name <e-mail>`.
    pub maintainers: Vec<String>,
    /// Home page or repository; empty where nothing was said.
    pub home: String,
    /// SPDX expression; empty where nothing was said.
    pub license: String,
    /// Where the library comes from.
    pub source: Source,
    /// Which versions of the ABI it accepts.
    pub abi: Option<VersionReq>,
    /// Whether its calls may block the thread that they run on.
    pub execution: Execution,
    /// What happens to a request when this plugin fails on it, where the operator says nothing.
    pub failure_policy: FailurePolicy,
    /// Defaults of what the operator may set.
    pub settings: Map<String, Value>,
    /// What the merged settings must look like.
    pub settings_schema: Option<Schema>,
    /// Bound on this plugin's part of one call.
    pub timeout: Option<Duration>,
    /// What to ask the gateway for before the plugin runs.
    pub needs: Needs,
    /// What a route's configuration must look like.
    pub config_schema: Option<Schema>,
    /// Which HTTP requests it serves on a listener of the host's own.
    pub http_routes: Vec<HttpRoute>,
}

/// Where a plugin's library comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A library in the plugin's directory.
    LocalSo {
        /// Its place, relative to the directory.
        path: LibraryPath,
        /// Its digest, where given.
        sha256: Option<Digest>,
    },
}

/// What the host asks the gateway for before the plugin runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Variables of the gateway, without `$`.
    pub variables: Vec<String>,
    /// The request's body.
    pub request_body: bool,
    /// The upstream response's body.
    pub response_body: bool,
}

/// A valid file, and what is worth saying about it nevertheless.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// What it says.
    pub metadata: Metadata,
    /// What does not keep the plugin from running.
    pub warnings: Vec<Warning>,
}

/// Something in a valid file that its author should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// A field that this host does not know. A running host only warns, so that a newer plugin
    /// whose ABI fits loads into an older host; `check` treats it as a mistake
    /// ([`MetadataError::UnknownField`]), because a typo must not pass silently.
    UnknownField(UnknownField),
}

/// A field that this host does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownField {
    /// Its place, like `source.pth`.
    pub field: String,
    /// The known field that was probably meant.
    pub meant: Option<String>,
}

/// A file that cannot be used, and what could be read of it for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The plugin's name, where that much is valid.
    pub name: Option<PluginName>,
    /// The plugin's version, where that much is valid.
    pub version: Option<Version>,
    /// The library's place, where that much is valid.
    pub library: Option<LibraryPath>,
    /// All mistakes, at least one.
    pub errors: Vec<MetadataError>,
}

/// One mistake in a `plugin.json`, or in what a library says about itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// Larger than [`MAX_FILE_BYTES`].
    #[error("the file has more than {MAX_FILE_BYTES} bytes")]
    TooLarge,
    /// The text is not JSON.
    #[error("line {line}, column {column}: {reason}")]
    NotJson {
        /// What the parser stumbled over.
        reason: String,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// A field stands there twice.
    #[error("`{field}` stands there twice")]
    Duplicate {
        /// Its place, like `source.path`.
        field: String,
    },
    /// A required field is absent.
    #[error("`{field}` is missing")]
    Missing {
        /// Its place.
        field: String,
        /// What to write.
        write: String,
    },
    /// A field has a value that it cannot have.
    #[error("`{field}` is {found}")]
    Invalid {
        /// Its place.
        field: String,
        /// What stands there.
        found: String,
        /// What to write instead.
        write: String,
    },
    /// A field that this host does not know.
    #[error("`{}` is not a field", .0.field)]
    UnknownField(UnknownField),
    /// `source.mode` is `remote_git`.
    #[error("`source.mode` is `remote_git`, and a running host builds nothing")]
    RemoteGit,
    /// `http_services.driver` names a Go framework.
    #[error(
        "`http_services.driver` is `{driver}`, a framework of Go: this file describes a Go plugin"
    )]
    GoDriver {
        /// The framework.
        driver: String,
    },
}

impl Metadata {
    /// Reads a `plugin.json`.
    ///
    /// # Errors
    /// All mistakes of the file. Unknown fields are among them only where there are others: they
    /// may well be the reason.
    ///
    /// ```
    /// use plugin_host::plugin::metadata::Metadata;
    ///
    /// let file = br#"{
    ///     "name": "say", "version": "1.0.0",
    ///     "source": {"mode": "local_so", "path": "libsay.so"}
    /// }"#;
    /// let parsed = Metadata::parse(file).unwrap();
    /// assert_eq!(parsed.metadata.name.as_str(), "say");
    /// assert!(parsed.warnings.is_empty());
    ///
    /// let mistakes = Metadata::parse(br#"{"name": "say", "verson": "1"}"#).unwrap_err().errors;
    /// let mistakes: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
    /// assert_eq!(mistakes, [
    ///     "`version` is missing",
    ///     "`source` is missing",
    ///     "`verson` is not a field",
    /// ]);
    /// ```
    pub fn parse(file: &[u8]) -> Result<Parsed, Invalid> {
        reading::parse(file)
    }

    /// Takes what a library says about itself, for one that comes without `plugin.json`.
    ///
    /// # Errors
    /// The name or the version of its Cargo package cannot be a plugin's.
    pub fn from_build_info(facts: &BuildInfo, library: LibraryPath) -> Result<Self, Invalid> {
        reading::from_build_info(facts, library)
    }

    /// The library's place, relative to the plugin's directory.
    #[must_use]
    pub fn library(&self) -> &LibraryPath {
        let Source::LocalSo { path, .. } = &self.source;
        path
    }

    /// The library's digest, where the file gives one.
    #[must_use]
    pub fn sha256(&self) -> Option<&Digest> {
        let Source::LocalSo { sha256, .. } = &self.source;
        sha256.as_ref()
    }

    /// Where this file and the library beside it tell different stories.
    #[must_use]
    pub fn contradictions(&self, facts: &BuildInfo) -> Vec<Contradiction> {
        contradiction::between(self, facts)
    }
}

impl Warning {
    /// The same as a mistake, where `check` counts it as one.
    #[must_use]
    pub fn as_mistake(&self) -> Option<MetadataError> {
        match self {
            Self::UnknownField(unknown) => Some(MetadataError::UnknownField(unknown.clone())),
        }
    }
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnknownField(unknown) => {
                let mistake = MetadataError::UnknownField(unknown.clone());
                write!(f, "{mistake}, it has no effect: {}", mistake.next_step())
            }
        }
    }
}

impl MetadataError {
    /// What to do about it.
    #[must_use]
    pub fn next_step(&self) -> String {
        match self {
            Self::TooLarge => "shorten the schemas".to_owned(),
            Self::NotJson { .. } => "correct the JSON there".to_owned(),
            Self::Duplicate { .. } => "keep one of the two".to_owned(),
            Self::Missing { write, .. } | Self::Invalid { write, .. } => format!("write {write}"),
            Self::UnknownField(UnknownField { meant: Some(meant), .. }) => format!("did you mean `{meant}`?"),
            Self::UnknownField(_) => "remove it, or let its name begin with `x-`".to_owned(),
            Self::RemoteGit => {
                "move the directory elsewhere, and build and install it with `plugin-host install DIRECTORY --allow-build`; or build the library yourself, put it beside plugin.json, and write `\"mode\": \"local_so\"` with its file name as `path`".to_owned()
            }
            Self::GoDriver { .. } => {
                "Go plugins cannot be loaded: write the plugin anew in Rust, with the crate `plugin-abi`, and write `axum` as driver, or leave `http_services` out".to_owned()
            }
        }
    }
}

#[cfg(test)]
mod tests;
