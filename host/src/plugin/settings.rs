//! The operator's word on one plugin, which wins over the plugin's own metadata.
//!
//! Values may be secrets: they go to the plugin they belong to, and never into a log.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde_json::{Map, Value};

use super::metadata::{Execution, FailurePolicy};

/// What the operator says about one plugin; what is absent is left to its metadata.
#[derive(Clone, Default)]
pub struct PluginSettings {
    /// Wins over the metadata's `failure_policy`.
    pub failure_policy: Option<FailurePolicy>,
    /// Wins over the metadata's `timeout_ms`.
    pub timeout: Option<Duration>,
    /// Wins over the metadata's `execution`.
    pub execution: Option<Execution>,
    /// Settings for `on_load`, complete.
    pub settings: Map<String, Value>,
}

impl PluginSettings {
    /// The settings that the plugin gets: the defaults of its metadata, overridden by the
    /// operator's. Objects are merged at every depth; any other value replaces as a whole.
    #[must_use]
    pub fn merged_with(&self, defaults: &Map<String, Value>) -> Value {
        let mut merged = defaults.clone();
        merge(&mut merged, &self.settings);
        Value::Object(merged)
    }
}

impl fmt::Debug for PluginSettings {
    /// Keys of the settings only: their values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginSettings")
            .field("failure_policy", &self.failure_policy)
            .field("timeout", &self.timeout)
            .field("execution", &self.execution)
            .field("settings", &self.settings.keys().collect::<Vec<_>>())
            .finish()
    }
}

fn merge(into: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(key), value) {
            (Some(Value::Object(into)), Value::Object(from)) => merge(into, from),
            _ => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}

/// What the operator says about every plugin that is named; a reason in place of settings that
/// cannot be used, which keeps that plugin from being loaded and no other.
#[derive(Debug, Default)]
pub struct Operator {
    named: BTreeMap<String, Result<PluginSettings, String>>,
    unnamed: PluginSettings,
}

impl Operator {
    /// The operator's word on the named plugins.
    pub fn new(named: BTreeMap<String, Result<PluginSettings, String>>) -> Self {
        Self {
            named,
            unnamed: PluginSettings::default(),
        }
    }

    /// What is said about a plugin; nothing, where it is not named.
    ///
    /// # Errors
    /// The settings cannot be used, and why.
    pub fn of(&self, plugin: &str) -> Result<&PluginSettings, &str> {
        match self.named.get(plugin) {
            Some(Ok(settings)) => Ok(settings),
            Some(Err(reason)) => Err(reason),
            None => Ok(&self.unnamed),
        }
    }
}
