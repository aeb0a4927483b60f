//! What a plugin is loaded with: the parts of its `plugin.json` that change what it does, and the
//! operator's settings.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::outcome::Asked;

/// How a plugin is loaded, where it matters.
///
/// ```
/// use plugin_abi::testing::{Loading, json};
///
/// // As its `plugin.json` says, which a test reads with `include_str!("../plugin.json")`:
/// let loading = Loading::from_plugin_json(r#"{
///     "name": "auth", "version": "1.2.0", "source": {"mode": "local_so", "path": "libauth.so"},
///     "failure_policy": "closed", "timeout_ms": 500, "needs": {"variables": ["route_id"]}
/// }"#)
/// // and as the operator says:
/// .settings(json!({ "endpoint": "http://auth:8080" }));
/// # let _ = loading;
/// ```
#[derive(Debug, Clone)]
pub struct Loading {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) settings: Value,
    pub(super) needs: Vec<Need>,
    pub(super) open: bool,
    pub(super) timeout: Option<Duration>,
}

/// What is asked for before a plugin runs.
#[derive(Debug, Clone)]
pub(super) struct Need {
    pub(super) asked: Asked,
    /// A variable is, in both phases.
    pub(super) in_requests: bool,
    pub(super) in_responses: bool,
}

#[derive(Deserialize)]
struct Document {
    name: String,
    version: String,
    #[serde(default)]
    settings: Option<Value>,
    #[serde(default)]
    needs: Needs,
    #[serde(default)]
    failure_policy: Policy,
    timeout_ms: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Needs {
    variables: Vec<String>,
    request_body: bool,
    response_body: bool,
}

#[derive(Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Policy {
    #[default]
    Closed,
    Open,
}

impl Loading {
    /// A plugin of this name, as a library without a `plugin.json`.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: "0.0.0".to_owned(),
            settings: Value::Object(serde_json::Map::new()),
            needs: Vec::new(),
            open: false,
            timeout: None,
        }
    }

    /// As a `plugin.json` says: name, version, `settings`, `needs`, `failure_policy`, `timeout_ms`.
    /// Whether it is a good one otherwise, `plugin-host check` says.
    ///
    /// # Panics
    /// It cannot be read.
    #[track_caller]
    pub fn from_plugin_json(text: &str) -> Self {
        let document: Document = match serde_json::from_str(text) {
            Ok(document) => document,
            Err(error) => panic!("plugin.json: {error}"),
        };
        let mut loading = Self::new(&document.name);
        loading.version = document.version;
        loading.timeout = document.timeout_ms.map(Duration::from_millis);
        loading.open = document.failure_policy == Policy::Open;
        if let Some(settings) = document.settings {
            loading.settings = settings;
        }
        for name in document.needs.variables {
            loading.needs.push(Need {
                asked: Asked::Variable(name),
                in_requests: true,
                in_responses: true,
            });
        }
        if document.needs.request_body {
            loading.needs.push(Need {
                asked: Asked::RequestBody,
                in_requests: true,
                in_responses: false,
            });
        }
        if document.needs.response_body {
            loading.needs.push(Need {
                asked: Asked::ResponseBody,
                in_requests: false,
                in_responses: true,
            });
        }
        loading
    }

    /// What the operator says; laid over the settings of `plugin.json`, object into object.
    #[must_use]
    pub fn settings(mut self, settings: Value) -> Self {
        merge(&mut self.settings, settings);
        self
    }

    /// A request that the plugin fails on goes on without it (`"failure_policy": "open"`).
    #[must_use]
    pub fn fail_open(mut self) -> Self {
        self.open = true;
        self
    }

    /// Bounds the plugin's part of one call (`timeout_ms`).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
