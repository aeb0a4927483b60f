//! The values of `plugin.json` that need more than a JSON type: each exists only once valid.

use std::fmt;
use std::path::{Component, Path};

use semver::Version;
use serde::{Deserialize, Serialize};

/// Length of a plugin's name, at most, in bytes: what the gateway's schema allows.
pub const MAX_NAME_BYTES: usize = 128;

/// Length of a version, at most, in bytes: names of directories and private copies contain it.
pub const MAX_VERSION_BYTES: usize = 64;

/// A plugin's name: letters, digits, `-`, `_`, `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PluginName(String);

/// A library's place relative to the plugin's directory, which it cannot leave by `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryPath(String);

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// One build of one version of a plugin: what is to blame when a process has died.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// The plugin.
    pub name: PluginName,
    /// Its version.
    pub version: Version,
    /// Digest of its library.
    pub digest: Digest,
}

/// Whether a plugin's calls may block the thread that they run on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Execution {
    /// They never block: they run on the event loop.
    #[default]
    Async,
    /// They may: they run on a pool of threads.
    Blocking,
}

/// What happens to a request when a plugin fails on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FailurePolicy {
    /// The request fails.
    #[default]
    Closed,
    /// The plugin is skipped.
    Open,
}

/// Why a text is none of the above.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TypeError {
    /// Not a [`PluginName`].
    #[error(
        "a plugin's name has 1 to {MAX_NAME_BYTES} letters, digits, `-`, `_`, `.` and does not begin with `.`"
    )]
    Name,
    /// Not a version of at most [`MAX_VERSION_BYTES`] bytes.
    #[error(
        "a version is a semantic version such as `1.0.0`, of at most {MAX_VERSION_BYTES} bytes"
    )]
    Version,
    /// Not a [`LibraryPath`].
    #[error(
        "a library's path is its file name, such as `libsay.so`, within the plugin's own directory"
    )]
    LibraryPath,
    /// Not a [`Digest`].
    #[error("a SHA-256 digest is 64 hexadecimal digits, as `sha256sum` prints them")]
    Digest,
}

/// Reads a plugin's version.
///
/// # Errors
/// It is not a semantic version (like `1.0` or `v1.0.0`), or too long.
pub fn parse_version(text: &str) -> Result<Version, TypeError> {
    if text.len() > MAX_VERSION_BYTES {
        return Err(TypeError::Version);
    }
    Version::parse(text).map_err(|_| TypeError::Version)
}

impl PluginName {
    /// Takes a name.
    ///
    /// # Errors
    /// It has other characters, none at all, or too many. (A leading dot would hide the
    /// plugin's directory, and `..` be another one.)
    pub fn new(name: &str) -> Result<Self, TypeError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let valid = (1..=MAX_NAME_BYTES).contains(&name.len())
            && name.bytes().all(allowed)
            && !name.starts_with('.');
        if valid {
            Ok(Self(name.to_owned()))
        } else {
            Err(TypeError::Name)
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl LibraryPath {
    /// Takes a path.
    ///
    /// # Errors
    /// It is empty or absolute, contains `..`, or ends like a directory.
    pub fn new(path: &str) -> Result<Self, TypeError> {
        let parts: Option<Vec<_>> = Path::new(path)
            .components()
            .filter(|part| *part != Component::CurDir)
            .map(|part| match part {
                Component::Normal(name) => name.to_str(),
                _ => None,
            })
            .collect();
        match parts {
            Some(parts)
                if !parts.is_empty() && !path.contains('\0') && !path.ends_with(['/', '.']) =>
            {
                Ok(Self(parts.join("/")))
            }
            _ => Err(TypeError::LibraryPath),
        }
    }

    /// The library's own name.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The path, relative to the plugin's directory.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl Digest {
    /// Takes the bytes of a digest.
    #[must_use]
    pub fn new(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// Computes the digest of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::{Digest as _, Sha256};
        Self(Sha256::digest(bytes).into())
    }

    /// Reads hexadecimal digits, of either case.
    ///
    /// # Errors
    /// There are not 64 of them.
    pub fn from_hex(text: &str) -> Result<Self, TypeError> {
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(TypeError::Digest);
        }
        let mut digest = [0; 32];
        for (byte, digits) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| TypeError::Digest)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| TypeError::Digest)?;
        }
        Ok(Self(digest))
    }

    /// The digest's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl TryFrom<String> for PluginName {
    type Error = TypeError;

    fn try_from(name: String) -> Result<Self, TypeError> {
        Self::new(&name)
    }
}

impl From<PluginName> for String {
    fn from(name: PluginName) -> Self {
        name.0
    }
}

impl TryFrom<String> for Digest {
    type Error = TypeError;

    fn try_from(text: String) -> Result<Self, TypeError> {
        Self::from_hex(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.name, self.version, self.digest)
    }
}

impl fmt::Display for PluginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for LibraryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Async => "async",
            Self::Blocking => "blocking",
        })
    }
}

impl fmt::Display for FailurePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Open => "open",
        })
    }
}
