//! What a worker tells about itself in numbers: its part of the exposition that `GET /metrics` of the
//! control socket and `plugin-host metrics` give.
//!
//! There is one registry for all of it. The metrics of plugins are in it from the beginning
//! ([`plugins`]), and what the host counts of their calls ([`plugin_calls`]); others come in through
//! [`Metrics::register`], like what goes over the gateway's connections ([`traffic`]). Names of the
//! host's begin with `pluginhost_`, those of plugins with `plugin_`. Nothing that counts waits for a
//! reader.

pub mod durations;
pub mod plugin_calls;
pub mod plugins;
pub mod shards;
pub mod traffic;
pub mod writing;

use std::{fmt, sync::Arc};

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{prometheus_text, text},
    registry::Registry,
};

use plugins::PluginMetrics;

/// How numbers are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text, version 0.0.4, which everybody reads.
    Text,
    /// OpenMetrics text, version 1.0.0, for those who ask for it.
    OpenMetrics,
}

impl Format {
    /// What somebody gets who accepts this, as HTTP's `Accept` has it.
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// What stands behind all metrics.
    pub fn end(self) -> &'static str {
        match self {
            Self::Text => "",
            Self::OpenMetrics => "# EOF\n",
        }
    }

    /// As HTTP's `Content-Type` has it.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Everything that is told in numbers.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    plugins: Arc<PluginMetrics>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Those of plugins that are yet to come, and nothing else.
    pub fn new() -> Self {
        let plugins = Arc::new(PluginMetrics::default());
        let metrics = Self {
            registry: Mutex::default(),
            plugins: Arc::clone(&plugins),
        };
        metrics.register(Box::new(plugins));
        metrics
    }

    /// Adds what a collector knows, each time that somebody asks.
    pub fn register(&self, collector: Box<dyn Collector>) {
        self.registry.lock().register_collector(collector);
    }

    /// Where plugins have theirs.
    pub fn plugins(&self) -> &Arc<PluginMetrics> {
        &self.plugins
    }

    /// All of it, as it is now.
    ///
    /// # Errors
    /// A collector did not come to its end.
    pub fn expose(&self, format: Format) -> Result<String, fmt::Error> {
        let mut exposition = expose(&self.registry.lock(), format)?;
        exposition.push_str(format.end());
        Ok(exposition)
    }
}

/// What a registry knows, without the format's end: more may follow.
///
/// # Errors
/// A collector did not come to its end.
pub fn expose(registry: &Registry, format: Format) -> Result<String, fmt::Error> {
    let mut exposition = String::new();
    match format {
        Format::Text => prometheus_text::encode(&mut exposition, registry)?,
        Format::OpenMetrics => text::encode_registry(&mut exposition, registry)?,
    }
    Ok(exposition)
}
