//! What the plugins that serve say about themselves, in a form for operators. Never values of settings.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Manager;
use crate::plugin::{registry::Generation, schema::Schema};

/// What one version of a plugin says about itself.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct About {
    /// The version.
    pub version: String,
    /// One sentence; empty where nothing was said.
    pub description: String,
    /// E-mail addresses or `Name <e-mail>`.
    pub maintainers: Vec<String>,
    /// Home page or repository; empty where nothing was said.
    pub home: String,
    /// SPDX expression; empty where nothing was said.
    pub license: String,
    /// Bound on its part of one call, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Variables that the gateway is asked for before it runs.
    pub needed_variables: Vec<String>,
    /// Whether the gateway is asked for the request's body before it runs.
    pub needs_request_body: bool,
    /// Whether the gateway is asked for the response's body before it runs.
    pub needs_response_body: bool,
    /// JSON Schema of a route's configuration, where there is one.
    pub config_schema: Option<Value>,
    /// JSON Schema of what the operator may set, where there is one.
    pub settings_schema: Option<Value>,
}

impl Manager {
    /// What serves of one name, with what it says about itself.
    pub fn about(&self, name: &str) -> Vec<About> {
        let snapshot = self.registry.current();
        let generations = snapshot.generations();
        generations
            .filter(|generation| generation.name().as_str() == name)
            .map(|generation| About::of(generation))
            .collect()
    }
}

impl About {
    fn of(generation: &Generation) -> Self {
        let (metadata, rules) = (&generation.origin().metadata, generation.rules());
        let source = |schema: &Option<Schema>| schema.as_ref().map(|it| it.source().clone());
        Self {
            version: metadata.version.to_string(),
            description: metadata.description.clone(),
            maintainers: metadata.maintainers.clone(),
            home: metadata.home.clone(),
            license: metadata.license.clone(),
            timeout_ms: rules
                .timeout
                .map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
            needed_variables: rules.needs.variables.clone(),
            needs_request_body: rules.needs.request_body,
            needs_response_body: rules.needs.response_body,
            config_schema: source(&rules.config_schema),
            settings_schema: source(&metadata.settings_schema),
        }
    }
}
