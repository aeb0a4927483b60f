//! What is asked of a running host: one request each, and its answer for people or as JSON. They are
//! one file because they differ in a line each; `show` has the words.

mod show;

use std::time::{Duration, Instant};

use clap::Args;
use hyper::{Method, StatusCode};
use serde_json::json;

use super::{
    hosts::{Host, Which},
    output,
};
use crate::control::client::{self, ControlError};

/// How it stands with the workers.
const WORKERS: &str = "/v1/workers";

/// How often it is looked whether a host has become what it is waited for.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

const JSON_FIELDS: &str = "\
Output of --json, stable for scripts (fields are only ever added; those not named here, and what they
mean, are in the OpenAPI description of the host): one object with
  plugins      one for each place of the plugin directory: {name, state, version, serving, since,
               place, library, digest, signature: {state, key_id, signer, comment,
               expires, reason}, build: {abi, plugin_abi, compiler, target}, execution,
               failure_policy, configurations, http_routes: [{method, route, label, state,
               version, generation, taken_by, reason}], calls: {calls, errors, panics, missed_deadlines,
               misuses, without_thread, without_room}, duration: {count, sum_seconds,
               p50_seconds, p99_seconds}, last_failure: {at, route, request_id, reason}, previous,
               last_tried, last_error, history: [{at, version, digest, outcome, error}]};
               state is serving, loading, failed, disabled, quarantined or unloaded; serving is
               null where nothing serves
  problems     [{path, problem, signature}]: what keeps files from being tried at all
  quarantined  [{name, version, digest, serving_instead}]
  disabled     [{name, since, by}]";

macro_rules! arguments {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Args)]
        #[command(after_help = super::HELP)]
        pub(super) struct $name {
            $($(#[$field_meta])* $field: $type,)*
            #[command(flatten)]
            host: Host,
        }
    };
}

/// Show a running host and what serves in it
#[derive(Debug, Args)]
#[command(after_long_help = format!(
    "{JSON_FIELDS}\n  host         {{release, pid, listen, http_listen, plugin_dir, worker, connections, open_calls, crashes,\n               replacements, calls_lost, ...}}\n  readiness    {{ready, reasons}}\n\n{}", super::HELP), after_help = super::HELP)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    host: Host,
}

/// List the plugins of a running host
#[derive(Debug, Args)]
#[command(after_long_help = format!("{JSON_FIELDS}\n\n{}", super::HELP), after_help = super::HELP)]
pub(super) struct ListArgs {
    #[command(flatten)]
    host: Host,
}

arguments! {
    /// Show everything that a running host knows of one plugin
    ShowArgs {
        /// The plugin's name
        plugin: String,
    }
}

arguments! {
    /// Show the chains of routes: which plugins each runs, or what keeps it from running
    ChainsArgs {
        /// Only chains with this plugin
        #[arg(long, value_name = "NAME")]
        plugin: Option<String>,
        /// Only routes whose key has this text in it
        #[arg(long, value_name = "TEXT")]
        route: Option<String>,
        /// Only those that are in this state
        #[arg(long, value_parser = ["ready", "waiting", "refused"])]
        state: Option<String>,
        /// Most chains to show
        #[arg(long, default_value_t = 100, value_name = "NUMBER")]
        limit: usize,
    }
}

arguments! {
    /// Show the configurations that the gateway has prepared
    TokensArgs {
        /// Only configurations with this plugin
        #[arg(long, value_name = "NAME")]
        plugin: Option<String>,
        /// Only routes whose key has this text in it
        #[arg(long, value_name = "TEXT")]
        route: Option<String>,
        /// Only those that are in this state
        #[arg(long, value_parser = ["ready", "waiting", "refused"])]
        state: Option<String>,
        /// Most configurations to show
        #[arg(long, default_value_t = 100, value_name = "NUMBER")]
        limit: usize,
    }
}

arguments! {
    /// Make a running host look at its plugin directory now
    ///
    /// What failed before is tried again, also where its files have not changed.
    ReloadArgs {
        /// Load also what refuses configurations that work now: their routes then fail closed
        #[arg(long)]
        force: bool,
    }
}

arguments! {
    /// Try the files of one plugin now, also where they have failed before
    UpgradeArgs {
        /// The plugin: NAME, or NAME@REQUIREMENT where several versions stand side by side
        plugin: String,
        /// Load it also where it refuses configurations that work now: their routes then fail closed
        #[arg(long)]
        force: bool,
    }
}

arguments! {
    /// Go back to the version of a plugin that served before
    ///
    /// The host has kept a copy of it. The operator's file is not loaded again until it changes.
    RollbackArgs {
        /// The plugin: NAME, or NAME@REQUIREMENT where several versions stand side by side
        plugin: String,
        /// Go back also to what refuses configurations that work now
        #[arg(long)]
        force: bool,
    }
}

arguments! {
    /// Take a plugin out of service: its routes fail closed until it is enabled
    ///
    /// Every version of it. That outlives workers and hosts, until the machine starts anew; what is to
    /// stay away for good does not belong into the plugin directory.
    DisableArgs {
        /// The plugin's name
        plugin: String,
    }
}

arguments! {
    /// Let a plugin serve again that was disabled
    EnableArgs {
        /// The plugin's name
        plugin: String,
    }
}

arguments! {
    /// Put the build of a plugin that serves into quarantine
    ///
    /// It is not loaded again until that is lifted or another file comes. What served before it serves
    /// in its place, or its routes fail closed.
    QuarantineArgs {
        /// The plugin: NAME, or NAME@REQUIREMENT where several versions stand side by side
        plugin: String,
    }
}

arguments! {
    /// Run a plugin's calls on the event loops again, after it was found to hold them up
    ///
    /// Until it does so again: its calls then run on the pool once more.
    UnblockArgs {
        /// The plugin: NAME, or NAME@REQUIREMENT where several versions stand side by side
        plugin: String,
    }
}

arguments! {
    /// Load a plugin again that is in quarantine
    ///
    /// Its record is clean afterwards. A new file of the plugin ends a quarantine too.
    LiftArgs {
        /// The plugin's name
        plugin: String,
    }
}

arguments! {
    /// Show the worker processes of a running host
    WorkersArgs {}
}

/// Show what a running host counts, and its plugins
///
/// As Prometheus text. Whoever collects them asks the control socket, or --telemetry-listen, for
/// /metrics.
#[derive(Debug, Args)]
#[command(after_help = super::HELP)]
pub(super) struct MetricsArgs {
    #[command(flatten)]
    host: Which,
}

arguments! {
    /// Show what workers have died of, or one report of that
    CrashesArgs {
        /// The report to show, as the list names it
        id: Option<String>,
    }
}

arguments! {
    /// Show the settings in force in a running host, and where each comes from
    SettingsArgs {}
}

arguments! {
    /// Replace the worker of a running host by a new one, without losing a call
    ///
    /// The new one loads every plugin first; then connections change hands between two calls. Memory
    /// that libraries of earlier versions have kept is free afterwards.
    ReplaceWorkerArgs {}
}

arguments! {
    /// Make a running host go on as the program that has replaced its own on disk
    ///
    /// The gateway's child stays the same process, no connection is closed and no call is lost. A
    /// program that cannot take over, or does not understand the configuration, changes nothing.
    UpgradeHostArgs {}
}

arguments! {
    /// Show what a running host logs, or have it log something else
    ///
    /// Until it ends, or another word; with its next start it logs again what is configured.
    LogLevelArgs {
        /// What to log: error, warn, info, debug, trace or off, also per target, as --log takes it
        #[arg(conflicts_with = "reset")]
        filter: Option<String>,
        /// Give a plugin this level of its own, whatever else is logged; with --reset take it back
        #[arg(long, value_name = "NAME")]
        plugin: Option<String>,
        /// Log what is configured
        #[arg(long)]
        reset: bool,
    }
}

arguments! {
    /// Wait until a host is ready: it listens, has read its plugin directory, and what --require names
    /// serves
    ///
    /// A host that does not run yet is waited for as well. Exit code 1 where it is not ready in time.
    WaitReadyArgs {
        /// How long to wait
        #[arg(long, default_value_t = 60, value_name = "SECONDS")]
        timeout: u64,
    }
}

arguments! {
    /// End a running host as SIGTERM does: calls that are open may end within its --drain-time
    ///
    /// A gateway starts its host anew after 3 s.
    DrainArgs {}
}

pub(super) fn status(args: &StatusArgs) -> u8 {
    let paint = args.host.paint();
    args.host.ask(Method::GET, "/v1/status", |status| {
        show::status(status, paint)
    })
}

pub(super) fn list(args: &ListArgs) -> u8 {
    let paint = args.host.paint();
    args.host.ask(Method::GET, "/v1/plugins", |plugins| {
        show::list(plugins, paint)
    })
}

pub(super) fn show(args: &ShowArgs) -> u8 {
    let paint = args.host.paint();
    let path = format!("/v1/plugins/{}", client::encoded(&args.plugin));
    args.host
        .ask(Method::GET, &path, |plugins| show::plugins(plugins, paint))
}

pub(super) fn chains(args: &ChainsArgs) -> u8 {
    let paint = args.host.paint();
    let path = listed(
        "/v1/chains",
        args.limit,
        &[
            ("plugin", &args.plugin),
            ("route", &args.route),
            ("state", &args.state),
        ],
    );
    args.host
        .ask(Method::GET, &path, |chains| show::chains(chains, paint))
}

pub(super) fn tokens(args: &TokensArgs) -> u8 {
    let path = listed(
        "/v1/tokens",
        args.limit,
        &[
            ("plugin", &args.plugin),
            ("route", &args.route),
            ("state", &args.state),
        ],
    );
    args.host.ask(Method::GET, &path, show::tokens)
}

pub(super) fn reload(args: &ReloadArgs) -> u8 {
    let path = format!("/v1/rescan?force={}", args.force);
    args.host.ask(Method::POST, &path, show::reloaded)
}

pub(super) fn upgrade(args: &UpgradeArgs) -> u8 {
    let path = action(&args.plugin, "upgrade") + &format!("?force={}", args.force);
    args.host.ask(Method::POST, &path, show::reloaded)
}

pub(super) fn rollback(args: &RollbackArgs) -> u8 {
    let path = action(&args.plugin, "rollback") + &format!("?force={}", args.force);
    args.host.ask(Method::POST, &path, show::rolled_back)
}

pub(super) fn disable(args: &DisableArgs) -> u8 {
    args.host.ask(
        Method::POST,
        &action(&args.plugin, "disable"),
        show::disabled,
    )
}

pub(super) fn enable(args: &EnableArgs) -> u8 {
    args.host.ask(
        Method::POST,
        &action(&args.plugin, "enable"),
        show::reloaded,
    )
}

pub(super) fn quarantine(args: &QuarantineArgs) -> u8 {
    let path = action(&args.plugin, "quarantine");
    args.host.ask(Method::POST, &path, show::quarantined)
}

pub(super) fn unblock(args: &UnblockArgs) -> u8 {
    args.host.ask(
        Method::POST,
        &action(&args.plugin, "unblock"),
        show::unblocked,
    )
}

pub(super) fn lift(args: &LiftArgs) -> u8 {
    args.host
        .ask(Method::POST, &action(&args.plugin, "lift"), show::reloaded)
}

pub(super) fn workers(args: &WorkersArgs) -> u8 {
    args.host.ask(Method::GET, WORKERS, show::workers)
}

pub(super) fn metrics(args: &MetricsArgs) -> u8 {
    args.host
        .ask_with(async |target| client::ask_text(target, "/metrics").await)
}

pub(super) fn crashes(args: &CrashesArgs) -> u8 {
    match &args.id {
        None => args.host.ask(Method::GET, "/v1/crashes", show::crashes),
        Some(id) => {
            let path = format!("/v1/crashes/{}", client::encoded(id));
            args.host
                .ask(Method::GET, &path, |report| format!("{report:#}\n"))
        }
    }
}

pub(super) fn settings(args: &SettingsArgs) -> u8 {
    args.host.ask(Method::GET, "/v1/settings", show::settings)
}

pub(super) fn replace_worker(args: &ReplaceWorkerArgs) -> u8 {
    args.host.ask(Method::POST, "/v1/workers/replace", |_| {
        "another worker serves\n".to_owned()
    })
}

pub(super) fn upgrade_host(args: &UpgradeHostArgs) -> u8 {
    args.host.which.ask_with(async |target| {
        let before = client::ask(target, Method::GET, WORKERS, None).await?;
        let heir = client::ask(target, Method::POST, "/v1/renew", None).await?;
        let until = Instant::now() + client::PATIENCE;
        while Instant::now() < until {
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            // It does not answer while one program takes the place of the other.
            let Ok(now) = client::ask(target, Method::GET, WORKERS, None).await else {
                continue;
            };
            if now["renewals"] != before["renewals"]
                && now["replacements"] != before["replacements"]
            {
                return Ok(args.host.shown(&heir, show::renewed));
            }
        }
        Err(ControlError::Refused {
            status: StatusCode::CONFLICT,
            detail: "the host is still its old self, or its old worker serves; its log says why"
                .to_owned(),
        })
    })
}

pub(super) fn log_level(args: &LogLevelArgs) -> u8 {
    if args.filter.is_none() && !args.reset {
        return args.host.ask(Method::GET, "/v1/log", show::log_level);
    }
    args.host.which.ask_with(async |target| {
        let wanted = match &args.plugin {
            None => json!({ "filter": args.filter }),
            Some(plugin) => json!({ "plugin": plugin, "level": args.filter }),
        };
        let now = client::ask(target, Method::POST, "/v1/log", Some(wanted)).await?;
        Ok(args.host.shown(&now, show::log_level))
    })
}

pub(super) fn wait_ready(args: &WaitReadyArgs) -> u8 {
    let until = Instant::now() + Duration::from_secs(args.timeout);
    let mut reason = "nobody was asked".to_owned();
    while Instant::now() < until {
        match args.host.which.target() {
            Ok(target) => {
                let asking = client::answer(&target, Method::GET, "/readyz", None);
                match super::hosts::run(asking) {
                    Ok(Ok(answer)) if answer.status.is_success() => {
                        let shown = args.host.shown(&answer.body, |_| "ready\n".to_owned());
                        return output::print(&shown);
                    }
                    Ok(Ok(answer)) => reason = show::not_ready(&answer.body),
                    Ok(Err(error)) => reason = error.to_string(),
                    Err(error) => return output::fail(&error),
                }
            }
            Err(super::hosts::NotFound::Nobody(nobody)) => reason = nobody,
            Err(error) => return error.complain(),
        }
        std::thread::sleep(LOOK_AGAIN_AFTER);
    }
    output::fail(&format!("not ready after {} s: {reason}", args.timeout))
}

pub(super) fn drain(args: &DrainArgs) -> u8 {
    args.host
        .ask(Method::POST, "/v1/drain", |_| "the host ends\n".to_owned())
}

fn action(plugin: &str, action: &str) -> String {
    format!("/v1/plugins/{}/{action}", client::encoded(plugin))
}

fn listed(path: &str, limit: usize, filters: &[(&str, &Option<String>)]) -> String {
    let mut path = format!("{path}?limit={limit}");
    for (key, value) in filters {
        if let Some(value) = value {
            path += &format!("&{key}={}", client::encoded(value));
        }
    }
    path
}
