//! The places that settings come from: flags, environment, configuration file.
//!
//! A source is read into plain maps once; nothing else in the program looks at the process's
//! environment. This module never judges what a value means.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::ConfigError;
use super::settings::{self, Setting};
use super::value::Written;

/// Most bytes that a configuration file may have.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What was typed on the command line.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    config_file: Option<PathBuf>,
    config_copy: Option<PathBuf>,
    values: BTreeMap<&'static str, String>,
}

impl Flags {
    /// No flag at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the value of one flag, as it was typed.
    ///
    /// ```
    /// use plugin_host::config::{Config, Environment, Flags, settings};
    ///
    /// let flags = Flags::new().with(&settings::LISTEN, "/tmp/runner.sock");
    /// let config = Config::load(&flags, &Environment::empty()).unwrap();
    /// assert_eq!(config.limits.max_connections, 10_000);
    /// ```
    #[must_use]
    pub fn with(mut self, setting: &'static Setting, value: impl Into<String>) -> Self {
        self.values.insert(setting.flag, value.into());
        self
    }

    /// Names the configuration file.
    #[must_use]
    pub fn with_config_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.config_file = Some(path.into());
        self
    }

    /// Names a copy of the configuration file, which is read in its place: a worker goes by what its
    /// supervisor has read, whatever became of the operator's file since.
    #[must_use]
    pub(crate) fn with_config_copy(mut self, path: &Path, copy: &Path) -> Self {
        self.config_file = Some(path.to_owned());
        self.config_copy = Some(copy.to_owned());
        self
    }

    pub(crate) fn config_copy(&self) -> Option<&Path> {
        self.config_copy.as_deref()
    }

    pub(crate) fn config_file(&self) -> Option<&Path> {
        self.config_file.as_deref()
    }

    pub(crate) fn get(&self, setting: &Setting) -> Option<&str> {
        self.values.get(setting.flag).map(String::as_str)
    }
}

/// Environment variables, taken once, so that nothing else needs the process's own.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
}

impl Environment {
    /// The variables of this process.
    pub fn of_process() -> Self {
        Self {
            variables: std::env::vars_os().collect(),
        }
    }

    /// No variable at all.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Adds a variable.
    #[must_use]
    pub fn with(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// The value of a variable. An empty one counts as not set: that is how service managers and
    /// container tools pass what nobody gave.
    pub(crate) fn get(&self, name: &str) -> Result<Option<&str>, ConfigError> {
        match self.get_os(name) {
            None => Ok(None),
            Some(value) => value
                .to_str()
                .map(Some)
                .ok_or_else(|| ConfigError::NotUnicode {
                    variable: name.to_owned(),
                }),
        }
    }

    pub(crate) fn get_os(&self, name: &str) -> Option<&OsStr> {
        self.variables
            .get(OsStr::new(name))
            .map(OsString::as_os_str)
            .filter(|value| !value.is_empty())
    }

    /// Names that begin like ours but are none of ours: most likely mistyped.
    pub(crate) fn unknown_names(&self) -> Vec<String> {
        let known: Vec<String> = settings::ALL
            .iter()
            .map(|setting| setting.variable())
            .chain([
                settings::CONFIG_FILE_VARIABLE.to_owned(),
                settings::KEY_PASSWORD_VARIABLE.to_owned(),
                settings::CREDENTIALS_VARIABLE.to_owned(),
            ])
            .collect();
        self.variables
            .keys()
            .filter_map(|name| name.to_str())
            .filter(|name| name.starts_with("PLUGIN_HOST_") && !known.iter().any(|k| k == name))
            .map(str::to_owned)
            .collect()
    }
}

impl fmt::Debug for Environment {
    /// Names only: values are where secrets live.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A flag, without its dashes.
    Flag(&'static str),
    /// An environment variable.
    Variable(String),
    /// A key of the configuration file.
    File(PathBuf, String),
    /// No source: the default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "--{flag}"),
            Self::Variable(name) => write!(f, "{name}"),
            Self::File(path, key) => write!(f, "{}: `{key}`", path.display()),
            Self::Default => write!(f, "default"),
        }
    }
}

/// A configuration file, split into our own settings and those of plugins.
#[derive(Debug, Default)]
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    pub(crate) values: BTreeMap<&'static str, Written>,
    pub(crate) plugins: toml::Table,
}

impl File {
    /// Reads and splits a file, or in its place a copy of it. Problems that leave the rest readable go
    /// to `problems`.
    pub(crate) fn read(
        path: &Path,
        copy: Option<&Path>,
        problems: &mut Vec<ConfigError>,
    ) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::UnreadableFile {
            path: path.to_owned(),
            source,
        };
        let mut text = String::new();
        std::fs::File::open(copy.unwrap_or(path))
            .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text))
            .map_err(unreadable)?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(ConfigError::FileTooLarge {
                path: path.to_owned(),
                bound: MAX_FILE_BYTES,
            });
        }
        let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            // Only the message and the line: the error's own text shows the line itself, which
            // may hold a password.
            let offset = error.span().map_or(0, |span| span.start);
            ConfigError::MalformedFile {
                path: path.to_owned(),
                line: text
                    .bytes()
                    .take(offset)
                    .filter(|byte| *byte == b'\n')
                    .count()
                    + 1,
                reason: error.message().trim().to_owned(),
            }
        })?;
        let plugins = match table.remove("plugins") {
            None => toml::Table::new(),
            Some(toml::Value::Table(plugins)) => plugins,
            Some(_) => {
                problems.push(ConfigError::Invalid {
                    origin: Origin::File(path.to_owned(), "plugins".to_owned()),
                    reason: "must be tables, one `[plugins.NAME]` for each plugin".to_owned(),
                });
                toml::Table::new()
            }
        };
        let mut values = BTreeMap::new();
        for (key, value) in flatten(table) {
            let Some(setting) = settings::ALL.iter().find(|setting| setting.key == key) else {
                problems.push(unknown_key(path, key));
                continue;
            };
            match written(value) {
                Some(value) => {
                    values.insert(setting.key, value);
                }
                None => problems.push(ConfigError::Invalid {
                    origin: Origin::File(path.to_owned(), key),
                    reason: "must be a string, a whole number, `true` or `false`".to_owned(),
                }),
            }
        }
        Ok(Self {
            path: path.to_owned(),
            text,
            values,
            plugins,
        })
    }
}

/// Keys of the top and of one level of tables: ours have no more.
fn flatten(table: toml::Table) -> Vec<(String, toml::Value)> {
    let mut flat = Vec::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => flat.extend(
                inner
                    .into_iter()
                    .map(|(inner_key, value)| (format!("{key}.{inner_key}"), value)),
            ),
            value => flat.push((key, value)),
        }
    }
    flat
}

fn written(value: toml::Value) -> Option<Written> {
    match value {
        toml::Value::String(text) => Some(Written::Text(text)),
        toml::Value::Integer(number) => Some(Written::Number(number)),
        toml::Value::Boolean(switch) => Some(Written::Switch(switch)),
        _ => None,
    }
}

fn unknown_key(path: &Path, key: String) -> ConfigError {
    let suggestion = suggest(&key, settings::ALL.iter().map(|setting| setting.key));
    ConfigError::UnknownKey {
        path: path.to_owned(),
        key,
        suggestion,
    }
}

/// The known key that was most likely meant: the same one in another table, one that only goes on
/// longer, or one with few letters of difference.
pub(crate) fn suggest(
    key: &str,
    known: impl Iterator<Item = &'static str> + Clone,
) -> Option<&'static str> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    known
        .clone()
        .find(|candidate| last(candidate) == last(key))
        .or_else(|| {
            known
                .clone()
                .find(|candidate| last(candidate).starts_with(&format!("{}_", last(key))))
        })
        .or_else(|| {
            known
                .map(|candidate| (edit_distance(&last(key), &last(candidate)), candidate))
                .filter(|(distance, _)| *distance <= 2)
                .min()
                .map(|(_, candidate)| candidate)
        })
}

/// How many letters have to be put in, taken out or changed (Levenshtein).
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let change = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_or_misplaced_key_is_recognised() {
        let keys = || settings::ALL.iter().map(|setting| setting.key);
        for (wrong, meant) in [
            ("limits.max_conections", Some("limits.max_connections")),
            ("max_tokens", Some("limits.max_tokens")),
            ("plugin_dirs", Some("plugin_dir")),
            ("log.formt", Some("log.format")),
            ("colour", None),
        ] {
            assert_eq!(suggest(wrong, keys()), meant, "{wrong}");
        }
    }

    #[test]
    fn an_environment_shows_names_and_never_values() {
        let environment = Environment::empty().with("API_TOKEN", "hunter2");
        let shown = format!("{environment:?}");
        assert!(
            shown.contains("API_TOKEN") && !shown.contains("hunter2"),
            "{shown}"
        );
    }

    #[test]
    fn every_setting_has_a_key_a_flag_and_a_variable_of_its_own() {
        for (index, setting) in settings::ALL.iter().enumerate() {
            for other in &settings::ALL[index + 1..] {
                assert_ne!(setting.key, other.key);
                assert_ne!(setting.flag, other.flag);
                assert_ne!(setting.variable(), other.variable());
            }
        }
        assert_eq!(
            settings::MAX_CONNECTIONS.variable(),
            "PLUGIN_HOST_MAX_CONNECTIONS"
        );
    }
}
