//! `plugins.lock`: which bytes a plugin directory is made of, and where they are from, so that another
//! machine gets the same ones.
//!
//! A TOML file in the plugin directory, written by the program and readable by people, with one table
//! for each plugin. Nothing here fetches or installs anything, and no host reads it in order to load.

use std::{collections::BTreeMap, fmt::Write as _};

use semver::Version;
use serde::{Deserialize, Serialize};

use super::{
    metadata::{Digest, PluginName},
    package::Platform,
};

/// Name of the file.
pub const FILE_NAME: &str = "plugins.lock";

/// The format that this program writes, and the only one that it reads.
pub const FORMAT: u64 = 1;

/// Size of the file, at most, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// What stands above all.
const HEADING: &str =
    "# Written by plugin-host: which bytes this directory is made of, and where they are from.\n";

/// What a plugin directory is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock {
    plugins: BTreeMap<(PluginName, Version), Locked>,
}

/// One version of one plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    /// The plugin.
    pub name: PluginName,
    /// Its version.
    pub version: Version,
    /// Where it is from: a path or URL, without credentials.
    pub source: String,
    /// The commit that it was built from, where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Number of the key that has signed it, as minisign prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// Digest of its package, which is the same for all platforms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<Digest>,
    /// Digests of its library, by platform.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub libraries: BTreeMap<Platform, Digest>,
}

/// A file that is no lock file: whoever has changed it can mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// Larger than [`MAX_BYTES`].
    #[error("it has more than {MAX_BYTES} bytes")]
    TooLarge,
    /// Not what this program writes.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// Written by a newer program.
    #[error("it has format {0}, this program reads format {FORMAT}: use a newer plugin-host")]
    OtherFormat(u64),
    /// One version of one plugin stands there twice.
    #[error("`{name}` {version} stands there twice: remove one")]
    Twice {
        /// The plugin.
        name: PluginName,
        /// The version.
        version: Version,
    },
    /// Nothing says which bytes are meant.
    #[error("`{name}` {version} has neither `package` nor `libraries`: it would pin nothing")]
    PinsNothing {
        /// The plugin.
        name: PluginName,
        /// The version.
        version: Version,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    plugin: Vec<Locked>,
}

impl Lock {
    /// Reads the file's text.
    ///
    /// # Errors
    /// It is not what this program writes, or contradicts itself.
    ///
    /// ```
    /// use plugin_host::plugin::lock::Lock;
    ///
    /// let text = r#"
    /// format = 1
    ///
    /// [[plugin]]
    /// name = "say"
    /// version = "1.2.0"
    /// source = "https://example.com/say-1.2.0.plg"
    /// signer = "B4B396117E3FEEBB"
    /// package = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    /// "#;
    /// let lock = Lock::parse(text).unwrap();
    /// assert_eq!(lock.plugins().count(), 1);
    /// assert_eq!(Lock::parse(&lock.to_text()), Ok(lock));
    /// ```
    pub fn parse(text: &str) -> Result<Self, LockError> {
        #[derive(Deserialize)]
        struct Format {
            format: u64,
        }
        if text.len() > MAX_BYTES {
            return Err(LockError::TooLarge);
        }
        let unreadable = |error: toml::de::Error| LockError::Unreadable(error.to_string());
        let Format { format } = toml::from_str(text).map_err(unreadable)?;
        if format != FORMAT {
            return Err(LockError::OtherFormat(format));
        }
        let file: File = toml::from_str(text).map_err(unreadable)?;
        let mut lock = Self::default();
        for locked in file.plugin {
            let (name, version) = (locked.name.clone(), locked.version.clone());
            if locked.package.is_none() && locked.libraries.is_empty() {
                return Err(LockError::PinsNothing { name, version });
            }
            if lock.put(locked).is_some() {
                return Err(LockError::Twice { name, version });
            }
        }
        Ok(lock)
    }

    /// The file's text: the same for the same plugins, in the order of their names and versions.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEADING}format = {FORMAT}\n");
        for locked in self.plugins() {
            let table =
                toml::to_string(locked).expect("what is locked is texts in tables of texts");
            // Below the plugin's own table.
            let table = table.replace("[libraries]", "[plugin.libraries]");
            let _ = write!(text, "\n[[plugin]]\n{table}");
        }
        text
    }

    /// Every plugin, by name and version.
    pub fn plugins(&self) -> impl Iterator<Item = &Locked> {
        self.plugins.values()
    }

    /// A version of a plugin.
    #[must_use]
    pub fn get(&self, name: &PluginName, version: &Version) -> Option<&Locked> {
        self.plugins.get(&(name.clone(), version.clone()))
    }

    /// Locks a version of a plugin; gives what was locked of it before.
    pub fn put(&mut self, locked: Locked) -> Option<Locked> {
        let key = (locked.name.clone(), locked.version.clone());
        self.plugins.insert(key, locked)
    }

    /// Forgets a version of a plugin.
    pub fn remove(&mut self, name: &PluginName, version: &Version) -> Option<Locked> {
        self.plugins.remove(&(name.clone(), version.clone()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]

    use super::*;

    fn locked(name: &str, version: &str) -> Locked {
        Locked {
            name: PluginName::new(name).unwrap(),
            version: version.parse().unwrap(),
            source: "git+https://example.com/say#v1".to_owned(),
            commit: Some("0123abcd".to_owned()),
            signer: None,
            package: None,
            libraries: [("linux-x86_64-gnu", "a"), ("linux-aarch64-musl", "b")]
                .map(|(platform, bytes)| (platform.parse().unwrap(), Digest::of(bytes.as_bytes())))
                .into(),
        }
    }

    #[test]
    fn what_is_locked_is_the_same_text_whatever_the_order_and_is_read_again() {
        let (one, two) = (locked("say", "1.0.0"), locked("auth", "2.0.0"));
        let (mut lock, mut other) = (Lock::default(), Lock::default());
        lock.put(one.clone());
        lock.put(two.clone());
        other.put(two);
        other.put(one.clone());
        assert_eq!(lock.to_text(), other.to_text());
        assert_eq!(Lock::parse(&lock.to_text()), Ok(lock.clone()));
        assert_eq!(Lock::parse(&Lock::default().to_text()), Ok(Lock::default()));
        assert_eq!(lock.get(&one.name, &one.version), Some(&one));
        assert_eq!(lock.remove(&one.name, &one.version), Some(one));
        let text = lock.to_text();
        assert!(
            text.contains("\n[plugin.libraries]\nlinux-aarch64-musl = \""),
            "{text}"
        );
    }

    #[test]
    fn what_is_no_lock_file_is_told() {
        let wrong = |text: &str, expected: &str| {
            let error = Lock::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        let plugin = "\n[[plugin]]\nname = 'say'\nversion = '1.0.0'\nsource = 'x'\n";
        let digest = Digest::of(b"").to_string();
        let pinned = format!("{plugin}package = '{digest}'\n");
        wrong("", "missing field `format`");
        wrong("format = 2\nmore = 1", "it has format 2");
        wrong("format = 1\nmore = 1", "unknown field `more`");
        wrong(&format!("format = 1{plugin}"), "it would pin nothing");
        wrong(&format!("format = 1{pinned}{pinned}"), "stands there twice");
        wrong(
            &format!("format = 1{pinned}extra = 1"),
            "unknown field `extra`",
        );
        wrong(
            &format!("format = 1{plugin}package = 'x'"),
            "64 hexadecimal digits",
        );
        let elsewhere = format!("format = 1{plugin}libraries = {{ beos = '{digest}' }}");
        wrong(&elsewhere, "is no platform");
        wrong(&" ".repeat(MAX_BYTES + 1), "more than 1048576 bytes");
    }
}
