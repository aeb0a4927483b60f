//! What operators see at one look: the host, its workers, its plugins, its settings.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Api, Request};
use crate::{
    config::InForce,
    control::problem::Refused,
    pipeline::pool::PoolUse,
    plugin::{
        disabled::DisabledPlugin,
        manager::{
            ClosedRoute, DrainingGeneration, PlaceProblem, PluginStatus, QuarantinedBuild,
            RetiredCounts, Status,
        },
    },
    supervisor::{Overview, readiness::Readiness},
};

/// A host, and everything that it serves.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct HostStatus {
    /// The host.
    pub(super) host: HostFacts,
    /// Whether it is ready.
    pub(super) readiness: Readiness,
    /// Every plugin, by place.
    pub(super) plugins: Vec<PluginStatus>,
    /// What keeps files of the plugin directory from being tried at all.
    pub(super) problems: Vec<PlaceProblem>,
    /// Builds that worker processes have died in, or that an operator has put aside.
    pub(super) quarantined: Vec<QuarantinedBuild>,
    /// Routes whose chain cannot run, by their keys; the first 64.
    pub(super) closed_routes: Vec<ClosedRoute>,
    /// How many more there are; `/v1/chains?state=refused` has them all.
    pub(super) more_closed_routes: usize,
    /// Plugins that an operator has taken out of service.
    pub(super) disabled: Vec<DisabledPlugin>,
    /// Generations that serve no more.
    pub(super) retired: RetiredCounts,
    /// Those of them that calls still use.
    pub(super) draining: Vec<DrainingGeneration>,
    /// Threads for plugins that block.
    pub(super) pool: Option<PoolUse>,
    /// Why nothing is known of plugins at the moment; none where it is.
    pub(super) unknown: Option<String>,
}

/// What a host is, and how it goes.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct HostFacts {
    /// Its release.
    release: String,
    /// Its process.
    pid: u32,
    /// The socket that the gateway connects to.
    listen: String,
    /// The plugin directory.
    plugin_dir: String,
    /// The address of the control interface, where there is one beside the socket.
    control_listen: Option<String>,
    /// The address for probes and scrapes, where there is one.
    telemetry_listen: Option<String>,
    /// The address of the plugins' HTTP services, where there is one.
    http_listen: Option<String>,
    /// The process of the worker that serves; none for the moment between two.
    worker: Option<i32>,
    /// When that worker was started, in UTC.
    worker_since: Option<String>,
    /// Connections that have come to stay.
    pub(super) connections: usize,
    /// Calls that are open.
    pub(super) open_calls: usize,
    /// Workers that died without having been told to.
    crashes: u64,
    /// Times that one worker took over from another.
    replacements: u64,
    /// Calls that were inside a worker when it died.
    calls_lost: u64,
}

/// The settings in force.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Settings {
    /// Every setting, in the order of the help.
    settings: Vec<InForce>,
    /// What is said of single plugins; texts in their settings are hidden, but for references.
    plugins: serde_json::Value,
    /// Plugins whose settings cannot be used, and why; they are not loaded.
    unusable: Vec<String>,
    /// What is probably a mistake.
    warnings: Vec<String>,
}

/// The host and everything that it serves
///
/// Answers also where there is no worker at the moment: then it says so, and knows no plugins.
#[utoipa::path(get, path = "/v1/status", tag = "host", responses((status = 200, body = HostStatus)))]
pub(super) async fn status(State(api): State<Api>) -> Result<Json<HostStatus>, Refused> {
    api.status().await.map(Json)
}

/// What the host is
///
/// Without its plugins: answered at once, whatever its worker does.
#[utoipa::path(get, path = "/v1/host", tag = "host", responses((status = 200, body = HostFacts)))]
pub(super) async fn host(State(api): State<Api>) -> Result<Json<HostFacts>, Refused> {
    let overview = api.ask(Request::Overview).await?;
    Ok(Json(api.facts(&overview)))
}

/// The worker processes, and what became of earlier ones
#[utoipa::path(get, path = "/v1/workers", tag = "host", responses((status = 200, body = Overview)))]
pub(super) async fn workers(State(api): State<Api>) -> Result<Json<Overview>, Refused> {
    api.ask(Request::Overview).await.map(Json)
}

/// The settings in force, with where each comes from
#[utoipa::path(get, path = "/v1/settings", tag = "host", responses((status = 200, body = Settings)))]
pub(super) async fn settings(State(api): State<Api>) -> Json<Settings> {
    let effective = api.parts.config.effective();
    Json(Settings {
        settings: effective.in_force(),
        plugins: effective.plugins(),
        unusable: effective.unusable_plugins().to_vec(),
        warnings: effective.warnings().to_vec(),
    })
}

impl Api {
    pub(super) async fn status(&self) -> Result<HostStatus, Refused> {
        let overview = self.ask(Request::Overview).await?;
        let (known, unknown) = match self.look_at_worker::<Status>("/v1/plugins").await {
            Ok(status) => (status, None),
            Err(reason) => (Status::default(), Some(reason)),
        };
        Ok(HostStatus {
            host: self.facts(&overview),
            readiness: overview.readiness,
            plugins: known.plugins,
            problems: known.problems,
            quarantined: known.quarantined,
            closed_routes: known.closed_routes,
            more_closed_routes: known.more_closed_routes,
            disabled: overview.disabled,
            retired: known.retired,
            draining: known.draining,
            pool: known.pool,
            unknown,
        })
    }

    fn facts(&self, overview: &Overview) -> HostFacts {
        let config = &self.parts.config;
        let mut workers = overview.workers.iter();
        let serving = workers.find(|worker| worker.phase == "serving");
        HostFacts {
            release: overview.release.clone(),
            pid: overview.pid,
            listen: config.listen.to_string(),
            plugin_dir: config.plugin_dir.display().to_string(),
            control_listen: config.control.listen.map(|address| address.to_string()),
            telemetry_listen: config.control.telemetry.map(|address| address.to_string()),
            http_listen: config
                .http_services
                .listen
                .as_ref()
                .map(ToString::to_string),
            worker: serving.map(|worker| worker.pid),
            worker_since: serving.map(|worker| worker.since.clone()),
            connections: overview.connections,
            open_calls: overview.open_calls,
            crashes: overview.crashes,
            replacements: overview.replacements,
            calls_lost: overview.calls_lost,
        }
    }
}
