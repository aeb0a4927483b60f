//! How it stands with a worker's plugins, routes and memory, in numbers: asked for each time that
//! somebody reads the metrics, and counted nowhere.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, atomic::Ordering},
};

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};
use tokio::sync::watch;

use crate::{
    logging::AccessLines,
    metrics::{
        plugin_calls::MAX_SHOWN,
        writing::{Kind, number, series},
    },
    pipeline::pool::Pool,
    plugin::manager::{Manager, PlaceProblem, PluginState, PluginStatus, Status},
    server::Shared,
    tokens::ChainState,
};

/// Whom to ask.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) manager: Arc<Manager>,
    pub(super) shared: Arc<Shared>,
    pub(super) pool: Pool,
    pub(super) problems: watch::Receiver<Vec<PlaceProblem>>,
    pub(super) access_lines: Option<AccessLines>,
}

impl Collector for Standing {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let status = self.manager.status();
        self.encode_plugins(encoder, &status)?;
        self.encode_routes(encoder, &status)?;
        self.encode_memory(encoder, &status)
    }
}

impl Standing {
    fn encode_plugins(&self, encoder: &mut DescriptorEncoder<'_>, status: &Status) -> fmt::Result {
        let mut states: BTreeMap<&str, u64> =
            PluginState::ALL.map(|state| (state.label(), 0)).into();
        for plugin in &status.plugins {
            *states.entry(plugin.state.label()).or_default() += 1;
        }
        let about = (
            "pluginhost_plugins",
            "Places of the plugin directory, by how it stands with them",
        );
        let states = states
            .into_iter()
            .map(|(state, count)| ([("state", state)], count));
        series(encoder, Kind::Gauge, about, states)?;
        let about = (
            "pluginhost_plugin_out_of_service",
            "Plugins that do not serve, and why; none is the rule",
        );
        let out = status
            .plugins
            .iter()
            .filter(|plugin| plugin.state != PluginState::Serving)
            .take(MAX_SHOWN)
            .map(|plugin| {
                let labels = [
                    ("plugin", name_of(plugin)),
                    ("state", plugin.state.label().to_owned()),
                ];
                (labels, 1_u64)
            });
        series(encoder, Kind::Gauge, about, out)?;
        let serving = || {
            let serving = status.plugins.iter();
            serving
                .filter_map(|plugin| Some((plugin, plugin.serving.as_deref()?)))
                .take(MAX_SHOWN)
        };
        let about = (
            "pluginhost_plugin_info",
            "The generations that serve, with what they were made of",
        );
        let infos = serving().map(|(plugin, version)| {
            let build = plugin.build.as_ref();
            let labels = [
                ("plugin", name_of(plugin)),
                ("version", version.to_owned()),
                ("digest", plugin.digest.clone().unwrap_or_default()),
                (
                    "abi",
                    build.map_or_else(String::new, |build| build.abi.clone()),
                ),
                ("execution", plugin.execution.clone().unwrap_or_default()),
            ];
            (labels, 1_u64)
        });
        series(encoder, Kind::Gauge, about, infos)?;
        let about = (
            "pluginhost_plugin_configurations",
            "Live configurations of routes that a plugin has parsed",
        );
        let configurations = serving().map(|(plugin, version)| {
            let labels = [("plugin", name_of(plugin)), ("version", version.to_owned())];
            (labels, plugin.configurations)
        });
        series(encoder, Kind::Gauge, about, configurations)?;
        let about = (
            "pluginhost_changes",
            "What became of tries to load, roll back or unload a plugin",
        );
        let changes = self.manager.changes();
        let changes = changes.map(|(change, count)| ([("outcome", change.label())], count));
        series(encoder, Kind::Counter, about, changes)?;
        let about = (
            "pluginhost_directory_problems",
            "Files and directories of the plugin directory that cannot be tried at all",
        );
        let problems = self.problems.borrow().len() as u64;
        number(encoder, Kind::Gauge, about, problems)
    }

    fn encode_routes(&self, encoder: &mut DescriptorEncoder<'_>, status: &Status) -> fmt::Result {
        let (mut compiling, mut ready, mut refused) = (0, 0, 0);
        for token in self.shared.tokens.live() {
            match token.chain() {
                ChainState::Compiling => compiling += 1,
                ChainState::Ready(_) => ready += 1,
                ChainState::Refused(_) => refused += 1_u64,
            }
        }
        let about = (
            "pluginhost_tokens",
            "Live configurations of routes, by how it stands with their chain",
        );
        let states = [
            ([("chain", "ready")], ready),
            ([("chain", "waiting")], compiling),
            ([("chain", "refused")], refused),
        ];
        series(encoder, Kind::Gauge, about, states)?;
        let about = (
            "pluginhost_closed_routes",
            "Routes whose newest configuration cannot run: their calls fail closed",
        );
        let closed = status.closed_routes.len() + status.more_closed_routes;
        number(encoder, Kind::Gauge, about, closed as u64)
    }

    fn encode_memory(&self, encoder: &mut DescriptorEncoder<'_>, status: &Status) -> fmt::Result {
        let retired = status.retired;
        let about = (
            "pluginhost_retired_generations",
            "Generations that serve no more, by what is left of them",
        );
        let states = [
            ([("state", "draining")], retired.draining as u64),
            ([("state", "unloaded")], retired.unloaded as u64),
            ([("state", "stuck")], retired.stuck as u64),
        ];
        series(encoder, Kind::Gauge, about, states)?;
        let about = (
            "pluginhost_retired_mapped_bytes",
            "What libraries occupy that serve no more and stay mapped",
        );
        number(encoder, Kind::Gauge, about, retired.mapped_bytes)?;
        let pool = self.pool.in_use();
        let about = (
            "pluginhost_pool_threads",
            "Threads for plugins that block, by what they do",
        );
        let threads = [
            ([("state", "running")], pool.running as u64),
            ([("state", "stuck")], pool.stuck as u64),
        ];
        series(encoder, Kind::Gauge, about, threads)?;
        let about = (
            "pluginhost_pool_threads_limit",
            "Threads for plugins that block, at most",
        );
        number(encoder, Kind::Gauge, about, pool.threads as u64)?;
        let about = (
            "pluginhost_open_connections",
            "Connections of the gateway that this worker serves",
        );
        let open = self.shared.connections.load(Ordering::Relaxed);
        number(encoder, Kind::Gauge, about, open as u64)?;
        let about = (
            "pluginhost_body_memory_bytes",
            "Memory that large frames and bodies hold, beyond the first of each connection",
        );
        number(
            encoder,
            Kind::Gauge,
            about,
            self.shared.memory.held() as u64,
        )?;
        let Some(lines) = &self.access_lines else {
            return Ok(());
        };
        let about = (
            "pluginhost_access_log_lines_lost",
            "Lines of the access log that this worker made and could not pass on",
        );
        number(encoder, Kind::Counter, about, lines.lost())
    }
}

/// A plugin's name, or else that of the place that has not given one.
fn name_of(plugin: &PluginStatus) -> String {
    let place = || plugin.place.file_name().unwrap_or_default();
    let name = plugin.name.clone();
    name.unwrap_or_else(|| place().to_string_lossy().into_owned())
}
