//! What the operator sets per plugin: `[plugins.NAME]` of the configuration file.
//!
//! A reference that cannot be resolved concerns its plugin only: the host runs on, and that
//! plugin is not loaded. Resolved values are secrets: they leave this module only for the plugin
//! they belong to, never for a log or a listing.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};

use super::ConfigError;
use super::references::{self, ReferenceError};
use super::source::{Environment, Origin, suggest};
use crate::plugin::metadata::{Execution, FailurePolicy};
use crate::plugin::settings::{Operator, PluginSettings};

/// Most bytes of a plugin's name: the gateway's own bound.
const MAX_NAME_BYTES: usize = 128;

/// Largest `timeout_ms`: the gateway gives up after 60 s.
const MAX_TIMEOUT_MS: i64 = 60_000;

const KEYS: [&str; 4] = ["failure_policy", "timeout_ms", "execution", "settings"];

/// Why the settings of one plugin cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The operator's reference leads nowhere.
    #[error("`plugins.{plugin}.{setting}`: {source}")]
    Reference {
        /// Name of the plugin.
        plugin: String,
        /// Path of the setting below the plugin's table.
        setting: String,
        /// What is wrong with the reference.
        source: ReferenceError,
    },
    /// The operator wrote a value that JSON does not have.
    #[error("`plugins.{plugin}.{setting}` is {value}, which JSON cannot express")]
    NotJson {
        /// Name of the plugin.
        plugin: String,
        /// Path of the setting below the plugin's table.
        setting: String,
        /// The value.
        value: f64,
    },
}

/// The operator's word on every plugin that the configuration file names.
#[derive(Debug, Default)]
pub struct PluginTable {
    named: BTreeMap<String, Result<PluginSettings, SettingsError>>,
    unnamed: PluginSettings,
}

impl PluginTable {
    /// What the operator says about a plugin: nothing, if the file does not name it.
    ///
    /// # Errors
    /// The plugin's settings cannot be used, so it must not be loaded.
    pub fn get(&self, plugin: &str) -> Result<&PluginSettings, &SettingsError> {
        self.named
            .get(plugin)
            .map_or(Ok(&self.unnamed), Result::as_ref)
    }

    /// Every plugin that the file names, in order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Result<&PluginSettings, &SettingsError>)> {
        self.named
            .iter()
            .map(|(name, settings)| (name.as_str(), settings.as_ref()))
    }

    /// The same for the plugin manager, to which a reason is a text.
    pub fn to_operator(&self) -> Operator {
        let named = self.named.iter().map(|(name, settings)| {
            let usable = settings.as_ref().cloned();
            (name.clone(), usable.map_err(ToString::to_string))
        });
        Operator::new(named.collect())
    }

    /// Reads the file's `[plugins]`. What is written wrongly goes to `problems`; what cannot be
    /// resolved stays with its plugin.
    pub(crate) fn read(
        tables: &toml::Table,
        file: &Path,
        environment: &Environment,
        problems: &mut Vec<ConfigError>,
    ) -> Self {
        let mut named = BTreeMap::new();
        for (name, value) in tables {
            let mut reader = Reader {
                name,
                file,
                problems,
            };
            if let Some(settings) = reader.plugin(value, environment) {
                named.insert(name.clone(), settings);
            }
        }
        Self {
            named,
            unnamed: PluginSettings::default(),
        }
    }
}

struct Reader<'a> {
    name: &'a str,
    file: &'a Path,
    problems: &'a mut Vec<ConfigError>,
}

impl Reader<'_> {
    fn plugin(
        &mut self,
        value: &toml::Value,
        environment: &Environment,
    ) -> Option<Result<PluginSettings, SettingsError>> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if self.name.is_empty()
            || self.name.len() > MAX_NAME_BYTES
            || !self.name.bytes().all(allowed)
        {
            self.invalid(
                "",
                "not a plugin name: letters, digits, `-`, `_`, `.`, at most 128",
            );
            return None;
        }
        let toml::Value::Table(table) = value else {
            self.invalid("", "must be a table");
            return None;
        };
        for key in table.keys().filter(|key| !KEYS.contains(&key.as_str())) {
            self.problems.push(ConfigError::UnknownKey {
                path: self.file.to_owned(),
                key: format!("plugins.{}.{key}", self.name),
                suggestion: suggest(key, KEYS.iter().copied()),
            });
        }
        let mut settings = PluginSettings {
            failure_policy: self.word(
                table,
                "failure_policy",
                &[
                    ("closed", FailurePolicy::Closed),
                    ("open", FailurePolicy::Open),
                ],
            ),
            execution: self.word(
                table,
                "execution",
                &[
                    ("async", Execution::Async),
                    ("blocking", Execution::Blocking),
                ],
            ),
            timeout: self.timeout(table),
            settings: Map::new(),
        };
        let written = match table.get("settings") {
            None => return Some(Ok(settings)),
            Some(toml::Value::Table(written)) => written,
            Some(_) => {
                self.invalid("settings", "must be a table");
                return None;
            }
        };
        Some(
            object(written, self.name, "settings", environment).map(|resolved| {
                settings.settings = resolved;
                settings
            }),
        )
    }

    fn word<T: Copy>(&mut self, table: &toml::Table, key: &str, words: &[(&str, T)]) -> Option<T> {
        let value = table.get(key)?;
        let found = words
            .iter()
            .find(|(word, _)| value.as_str() == Some(word))
            .map(|(_, meaning)| *meaning);
        if found.is_none() {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
            self.invalid(key, &format!("must be one of {}", words.join(", ")));
        }
        found
    }

    fn timeout(&mut self, table: &toml::Table) -> Option<Duration> {
        let value = table.get("timeout_ms")?;
        let timeout = value
            .as_integer()
            .filter(|milliseconds| (1..=MAX_TIMEOUT_MS).contains(milliseconds))
            .map(|milliseconds| Duration::from_millis(milliseconds.unsigned_abs()));
        if timeout.is_none() {
            self.invalid(
                "timeout_ms",
                &format!("must be a whole number of milliseconds from 1 to {MAX_TIMEOUT_MS}"),
            );
        }
        timeout
    }

    fn invalid(&mut self, key: &str, reason: &str) {
        let key = match key {
            "" => format!("plugins.{}", self.name),
            key => format!("plugins.{}.{key}", self.name),
        };
        self.problems.push(ConfigError::Invalid {
            origin: Origin::File(self.file.to_owned(), key),
            reason: reason.to_owned(),
        });
    }
}

fn object(
    table: &toml::Table,
    plugin: &str,
    place: &str,
    environment: &Environment,
) -> Result<Map<String, Value>, SettingsError> {
    table
        .iter()
        .map(|(key, value)| {
            let place = format!("{place}.{key}");
            Ok((key.clone(), json(value, plugin, &place, environment)?))
        })
        .collect()
}

fn json(
    value: &toml::Value,
    plugin: &str,
    place: &str,
    environment: &Environment,
) -> Result<Value, SettingsError> {
    Ok(match value {
        toml::Value::String(text) => {
            Value::String(references::resolve(text, environment).map_err(|source| {
                SettingsError::Reference {
                    plugin: plugin.to_owned(),
                    setting: place.to_owned(),
                    source,
                }
            })?)
        }
        toml::Value::Integer(number) => Value::from(*number),
        toml::Value::Float(number) => serde_json::Number::from_f64(*number)
            .map(Value::Number)
            .ok_or_else(|| SettingsError::NotJson {
                plugin: plugin.to_owned(),
                setting: place.to_owned(),
                value: *number,
            })?,
        toml::Value::Boolean(switch) => Value::Bool(*switch),
        // JSON has no dates; their text is what its users write instead.
        toml::Value::Datetime(datetime) => Value::String(datetime.to_string()),
        toml::Value::Array(items) => Value::Array(
            items
                .iter()
                .enumerate()
                .map(|(index, item)| json(item, plugin, &format!("{place}[{index}]"), environment))
                .collect::<Result<_, _>>()?,
        ),
        toml::Value::Table(table) => Value::Object(object(table, plugin, place, environment)?),
    })
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> (PluginTable, Vec<String>) {
        let environment = Environment::empty().with("TOKEN", "hunter2");
        let mut problems = Vec::new();
        let tables: toml::Table = text.parse().unwrap();
        let table = PluginTable::read(&tables, Path::new("/c.toml"), &environment, &mut problems);
        (table, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn an_operators_settings_override_the_defaults_at_every_depth() {
        let (table, problems) = read(
            r#"
            [say.settings]
            list = [1]
            [say.settings.backend]
            url = "http://other"
            token = "Bearer ${env:TOKEN}"
            "#,
        );
        assert_eq!(problems, Vec::<String>::new());
        let defaults = json!({
            "backend": {"url": "http://default", "retries": 3},
            "list": [7, 8],
            "name": "kept",
        });
        assert_eq!(
            table
                .get("say")
                .unwrap()
                .merged_with(defaults.as_object().unwrap()),
            json!({
                "backend": {"url": "http://other", "retries": 3, "token": "Bearer hunter2"},
                "list": [1],
                "name": "kept",
            })
        );
    }

    #[test]
    fn a_plugin_that_the_file_does_not_name_keeps_its_defaults() {
        let (table, _) = read("");
        let settings = table.get("say").unwrap();
        assert_eq!(settings.failure_policy, None);
        let defaults = json!({"a": 1});
        assert_eq!(
            settings.merged_with(defaults.as_object().unwrap()),
            defaults
        );
    }

    #[test]
    fn policy_execution_and_timeout_are_read() {
        let (table, problems) =
            read("[say]\nfailure_policy = 'open'\nexecution = 'blocking'\ntimeout_ms = 250");
        assert_eq!(problems, Vec::<String>::new());
        let settings = table.get("say").unwrap();
        assert_eq!(settings.failure_policy, Some(FailurePolicy::Open));
        assert_eq!(settings.execution, Some(Execution::Blocking));
        assert_eq!(settings.timeout, Some(Duration::from_millis(250)));
    }

    #[test]
    fn an_unresolvable_reference_names_plugin_and_setting_and_spares_the_others() {
        let (table, problems) = read(
            r#"
            [auth.settings.keys]
            list = ["fine", "${env:ABSENT}"]
            [say.settings]
            greeting = "hello"
            "#,
        );
        assert_eq!(problems, Vec::<String>::new());
        let error = table.get("auth").unwrap_err().to_string();
        assert!(
            error.starts_with("`plugins.auth.settings.keys.list[1]`: `${env:ABSENT}`"),
            "{error}"
        );
        assert!(table.get("say").is_ok());
    }

    #[test]
    fn a_wrong_entry_is_named_with_its_place() {
        let check = |text: &str, expected: &str| {
            let (_, problems) = read(text);
            assert_eq!(problems, [expected.to_owned()]);
        };
        check("say = 1", "/c.toml: `plugins.say`: must be a table");
        check(
            "[say]\nfailure_policy = 'ajar'",
            "/c.toml: `plugins.say.failure_policy`: must be one of `closed`, `open`",
        );
        check(
            "[say]\ntimeout_ms = 0",
            "/c.toml: `plugins.say.timeout_ms`: must be a whole number of milliseconds from 1 to 60000",
        );
        check(
            "[say]\ntimeout = 5",
            "/c.toml: unknown key `plugins.say.timeout`; did you mean `timeout_ms`?",
        );
        check(
            "[say]\nsettings = 'x'",
            "/c.toml: `plugins.say.settings`: must be a table",
        );
        check(
            "['a b']",
            "/c.toml: `plugins.a b`: not a plugin name: letters, digits, `-`, `_`, `.`, at most 128",
        );
    }

    #[test]
    fn a_number_that_json_lacks_is_refused_for_its_plugin() {
        let (table, _) = read("[say.settings]\nrate = nan");
        let error = table.get("say").unwrap_err().to_string();
        assert_eq!(
            error,
            "`plugins.say.settings.rate` is NaN, which JSON cannot express"
        );
    }

    #[test]
    fn debug_output_shows_no_resolved_value() {
        let (table, _) = read("[say.settings]\ntoken = '${env:TOKEN}'\nplain = 'literal'");
        let shown = format!("{table:?}");
        assert!(shown.contains("token"), "{shown}");
        assert!(
            !shown.contains("hunter2") && !shown.contains("literal"),
            "{shown}"
        );
    }
}
