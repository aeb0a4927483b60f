//! The configuration in force, as text: every setting with its value and where it came from.
//!
//! The text is a configuration file again, except that texts in plugins' settings are hidden:
//! only the references in them are shown, since anything else may be a secret.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::references;
use super::settings::{self, Kind, Setting};
use super::source::Origin;
use super::value::Written;

/// Stands for what is hidden.
const HIDDEN: &str = "***";

/// Every setting with its value and its origin, without secrets. Its text is TOML.
#[derive(Debug, Clone, Default)]
pub struct Effective {
    values: BTreeMap<&'static str, Entry>,
    plugins: toml::Table,
    unusable: Vec<String>,
    warnings: Vec<String>,
}

/// One setting as it is in force.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct InForce {
    /// Its key in the configuration file.
    pub key: String,
    /// Its flag.
    pub flag: String,
    /// Its value; none where it is left to what `default` describes.
    #[schema(value_type = Option<Value>)]
    pub value: Option<serde_json::Value>,
    /// What holds where no source says anything.
    pub default: String,
    /// The source that says it: a flag, a variable, a key of the file, or `default`.
    pub origin: String,
}

#[derive(Debug, Clone)]
struct Entry {
    setting: &'static Setting,
    /// Absent where the setting is left to its described default.
    value: Option<toml::Value>,
    origin: Origin,
}

impl Effective {
    /// What is wrong with the settings of single plugins, one line each; these plugins would not
    /// be loaded.
    pub fn unusable_plugins(&self) -> &[String] {
        &self.unusable
    }

    /// What is probably a mistake and no reason not to run.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    pub(crate) fn record_warnings(&mut self, warnings: Vec<String>) {
        self.warnings = warnings;
    }

    pub(crate) fn record(
        &mut self,
        setting: &'static Setting,
        value: Option<&Written>,
        origin: Origin,
    ) {
        let value = value.map(|written| as_toml(written, setting.kind));
        self.values.insert(
            setting.key,
            Entry {
                setting,
                value,
                origin,
            },
        );
    }

    pub(crate) fn record_plugins(&mut self, written: &toml::Table, unusable: Vec<String>) {
        self.plugins = written
            .iter()
            .map(|(name, value)| (name.clone(), hide_settings(value)))
            .collect();
        self.unusable = unusable;
    }

    /// Every setting, in the order of the help.
    pub fn in_force(&self) -> Vec<InForce> {
        let entries = settings::ALL
            .iter()
            .filter_map(|setting| self.values.get(setting.key));
        entries
            .map(|entry| InForce {
                key: entry.setting.key.to_owned(),
                flag: format!("--{}", entry.setting.flag),
                value: entry.value.as_ref().map(as_json),
                default: entry.setting.default_text().to_owned(),
                origin: entry.origin.to_string(),
            })
            .collect()
    }

    /// What is said of single plugins, without the texts of their settings.
    pub fn plugins(&self) -> serde_json::Value {
        as_json(&toml::Value::Table(self.plugins.clone()))
    }

    /// The entries of one table of the file, in the order of the help.
    fn table<'a>(&'a self, table: &'a str) -> impl Iterator<Item = (&'a str, &'a Entry)> {
        settings::ALL.iter().filter_map(move |setting| {
            let (of, key) = setting.key.split_once('.').unwrap_or(("", setting.key));
            let entry = self.values.get(setting.key).filter(|_| of == table)?;
            Some((key, entry))
        })
    }
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in ["", "http_client", "limits", "hooks", "log", "control"] {
            if !table.is_empty() {
                writeln!(f, "\n[{table}]")?;
            }
            for (key, entry) in self.table(table) {
                match &entry.value {
                    Some(value) => writeln!(f, "{key} = {value} # {}", entry.origin)?,
                    None => writeln!(f, "# {key}: {}", entry.setting.default_text())?,
                }
            }
        }
        if !self.plugins.is_empty() {
            let plugins = toml::Table::from_iter([(
                "plugins".to_owned(),
                toml::Value::from(self.plugins.clone()),
            )]);
            write!(f, "\n{plugins}")?;
        }
        for line in &self.unusable {
            writeln!(f, "# not loaded: {line}")?;
        }
        Ok(())
    }
}

fn as_json(value: &toml::Value) -> serde_json::Value {
    // A number that is none becomes null.
    serde_json::to_value(value).unwrap_or_default()
}

fn as_toml(written: &Written, kind: Kind) -> toml::Value {
    let text = written.text();
    match kind {
        Kind::Number => text.parse().map(toml::Value::Integer).ok(),
        Kind::Switch => text.parse().map(toml::Value::Boolean).ok(),
        Kind::Text => None,
    }
    .unwrap_or(toml::Value::String(text))
}

fn hide_settings(plugin: &toml::Value) -> toml::Value {
    let mut plugin = plugin.clone();
    if let Some(settings) = plugin.get_mut("settings") {
        hide_texts(settings);
    }
    plugin
}

fn hide_texts(value: &mut toml::Value) {
    match value {
        toml::Value::String(text) => *text = references::only_references(text, HIDDEN),
        toml::Value::Array(items) => items.iter_mut().for_each(hide_texts),
        toml::Value::Table(table) => table.iter_mut().for_each(|(_, value)| hide_texts(value)),
        _ => {}
    }
}
