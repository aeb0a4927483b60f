//! What is asked of a running host over its control socket: `plugin-host status`, `reload`, `rollback`,
//! `unblock`, `workers`, `metrics` and `replace-worker`. They are one file because they differ in a line each.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use hyper::Method;
use serde_json::Value;

use super::output;
use crate::{
    config::{Config, Environment, Flags, settings},
    control::{
        self,
        client::{self, ControlError},
    },
    runtime_dir::RuntimeDir,
};

/// How it stands with the workers.
const OVERVIEW: &str = "/v1/host";

/// How often it is looked whether a host has become its next release.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Which host is meant, and how its answer is shown.
#[derive(Debug, Args)]
struct Host {
    #[command(flatten)]
    target: Target,
    /// Give the host's answer as JSON
    #[arg(long)]
    json: bool,
}

/// Which host is meant.
#[derive(Debug, Args)]
struct Target {
    /// The address that the host listens on [default: $APISIX_LISTEN_ADDRESS]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// The host's --runtime-dir, where it was given one
    #[arg(long, value_name = "DIR")]
    runtime_dir: Option<String>,
    /// The control socket itself, in place of the two above
    #[arg(long, value_name = "PATH", conflicts_with_all = ["listen", "runtime_dir"])]
    control: Option<PathBuf>,
}

/// Show what serves in a running host
#[derive(Debug, Args)]
#[command(after_help = super::HELP)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    host: Host,
}

/// Make a running host look at its plugin directory now
///
/// What failed before is tried again, also where its files have not changed.
#[derive(Debug, Args)]
#[command(after_help = super::HELP)]
pub(super) struct ReloadArgs {
    /// Load also what refuses configurations that work now: their routes then fail closed
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    host: Host,
}

/// Go back to the version of a plugin that served before
///
/// The host has kept a copy of it. The operator's file is not loaded again until it changes.
#[derive(Debug, Args)]
#[command(after_help = super::HELP)]
pub(super) struct RollbackArgs {
    /// The plugin: NAME, or NAME@REQUIREMENT where several versions stand side by side
    plugin: String,
    /// Go back also to what refuses configurations that work now
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    host: Host,
}

/// Run a plugin's calls on the event loops again, after it was found to hold them up
///
/// Until it does so again: its calls then run on the pool once more.
#[derive(Debug, Args)]
#[command(after_help = super::HELP)]
pub(super) struct UnblockArgs {
    /// The plugin: NAME, or NAME@REQUIREMENT where several versions stand side by side
    plugin: String,
    #[command(flatten)]
    host: Host,
}

/// Load a plugin again that was put into quarantine for ending its workers
///
/// Its record is clean afterwards. A new file of the plugin ends a quarantine too.
#[derive(Debug, Args)]
#[command(after_help = super::HELP)]
pub(super) struct LiftArgs {
    /// The plugin's name
    plugin: String,
    #[command(flatten)]
    host: Host,
}

pub(super) fn lift(args: &LiftArgs) -> u8 {
    let target = format!("/v1/plugins/{}/lift", percent_encoded(&args.plugin));
    args.host.ask(Method::POST, &target, show_reload)
}

/// Show the worker processes of a running host
#[derive(Debug, Args)]
#[command(after_help = super::HELP)]
pub(super) struct WorkersArgs {
    #[command(flatten)]
    host: Host,
}

/// Replace the worker of a running host by a new one, without losing a call
///
/// The new one loads every plugin first; then connections change hands between two calls. Memory
/// that libraries of earlier versions have kept is free afterwards.
#[derive(Debug, Args)]
#[command(after_help = super::HELP)]
pub(super) struct ReplaceWorkerArgs {
    #[command(flatten)]
    host: Host,
}

/// Make a running host go on as the program that has replaced its own on disk
///
/// The gateway's child stays the same process, no connection is closed and no call is lost. A
/// program that cannot take over, or does not understand the configuration, changes nothing.
#[derive(Debug, Args)]
#[command(after_help = super::HELP)]
pub(super) struct UpgradeHostArgs {
    #[command(flatten)]
    host: Host,
}

/// Show what a running host counts: the metrics of its plugins
///
/// As Prometheus text. Whoever collects them asks the control socket for /metrics.
#[derive(Debug, Args)]
#[command(after_help = super::HELP)]
pub(super) struct MetricsArgs {
    #[command(flatten)]
    host: Target,
}

pub(super) fn metrics(args: &MetricsArgs) -> u8 {
    args.host
        .ask_with(async |socket| client::ask_text(socket, "/metrics").await)
}

pub(super) fn upgrade_host(args: &UpgradeHostArgs) -> u8 {
    args.host.target.ask_with(async |socket| {
        let before = client::ask(socket, Method::GET, OVERVIEW).await?;
        let heir = client::ask(socket, Method::POST, "/v1/host/renew").await?;
        let until = Instant::now() + client::PATIENCE;
        while Instant::now() < until {
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            // It does not answer while one program takes the place of the other.
            let Ok(now) = client::ask(socket, Method::GET, OVERVIEW).await else {
                continue;
            };
            if now["renewals"] != before["renewals"]
                && now["replacements"] != before["replacements"]
            {
                return Ok(format!(
                    "release {} serves, its worker too\n",
                    text(&heir, "release")
                ));
            }
        }
        Err(ControlError::Refused(
            "the host is still its old self, or its old worker serves; its log says why".to_owned(),
        ))
    })
}

pub(super) fn workers(args: &WorkersArgs) -> u8 {
    args.host.ask(Method::GET, OVERVIEW, show_workers)
}

pub(super) fn replace_worker(args: &ReplaceWorkerArgs) -> u8 {
    args.host.ask(Method::POST, "/v1/worker/replace", |_| {
        "another worker serves\n".to_owned()
    })
}

pub(super) fn status(args: &StatusArgs) -> u8 {
    args.host.ask(Method::GET, "/v1/status", show_status)
}

pub(super) fn reload(args: &ReloadArgs) -> u8 {
    let target = format!("/v1/reload?force={}", args.force);
    args.host.ask(Method::POST, &target, show_reload)
}

pub(super) fn rollback(args: &RollbackArgs) -> u8 {
    let target = format!(
        "/v1/plugins/{}/rollback?force={}",
        percent_encoded(&args.plugin),
        args.force
    );
    args.host.ask(Method::POST, &target, |answer| {
        format!("{} serves\n", text(answer, "serving"))
    })
}

pub(super) fn unblock(args: &UnblockArgs) -> u8 {
    let target = format!("/v1/plugins/{}/unblock", percent_encoded(&args.plugin));
    args.host.ask(Method::POST, &target, show_unblocked)
}

impl Host {
    fn ask(&self, method: Method, target: &str, show: impl Fn(&Value) -> String) -> u8 {
        self.target.ask_with(async |socket| {
            let answer = client::ask(socket, method, target).await?;
            Ok(match self.json {
                true => format!("{answer:#}\n"),
                false => show(&answer),
            })
        })
    }
}

impl Target {
    fn ask_with(&self, ask: impl AsyncFnOnce(&Path) -> Result<String, ControlError>) -> u8 {
        let socket = match self.control_socket() {
            Ok(socket) => socket,
            Err(reason) => return output::refuse(&reason),
        };
        let runtime = match tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
        {
            Ok(runtime) => runtime,
            Err(error) => return output::fail(&error.to_string()),
        };
        match runtime.block_on(ask(&socket)) {
            Ok(answer) => output::print(&answer),
            Err(error) => output::fail(&error.to_string()),
        }
    }

    fn control_socket(&self) -> Result<PathBuf, String> {
        match &self.control {
            Some(path) => Ok(path.clone()),
            None => control_socket(self.listen.as_deref(), self.runtime_dir.as_deref()),
        }
    }
}

/// The control socket of the host that listens on an address.
pub(super) fn control_socket(
    listen: Option<&str>,
    runtime_dir: Option<&str>,
) -> Result<PathBuf, String> {
    let mut flags = Flags::new();
    if let Some(listen) = listen {
        flags = flags.with(&settings::LISTEN, listen);
    }
    if let Some(runtime_dir) = runtime_dir {
        flags = flags.with(&settings::RUNTIME_DIR, runtime_dir);
    }
    let config =
        Config::load(&flags, &Environment::of_process()).map_err(|error| error.to_string())?;
    let place = RuntimeDir::place_of(&config.runtime_dir, config.listen.path());
    Ok(control::socket_path(&place))
}

fn show_status(status: &Value) -> String {
    let mut shown = String::new();
    let plugins = status["plugins"].as_array().map_or(&[][..], Vec::as_slice);
    for plugin in plugins {
        let name = text(plugin, "name");
        let _ = match plugin["serving"].as_str() {
            Some(version) => writeln!(
                shown,
                "{name} {version} serves, from {}",
                text(plugin, "place")
            ),
            None => writeln!(shown, "{name} does not serve, {}", text(plugin, "place")),
        };
        let found = &plugin["found_blocking"];
        if found.is_object() {
            let _ = writeln!(
                shown,
                "  held an event loop up ({}): its calls run on the pool",
                text(found, "how")
            );
        }
        if plugin["serving"].is_string() {
            let _ = writeln!(shown, "  {}", calls(&plugin["calls"]));
        }
        if let Some(previous) = plugin["previous"].as_str() {
            let _ = writeln!(shown, "  before: {previous}");
        }
        if let Some(error) = plugin["last_error"].as_str() {
            let _ = writeln!(shown, "  last try failed: {error}");
        }
    }
    if plugins.is_empty() {
        shown.push_str("no plugin has been loaded\n");
    }
    for build in status["quarantined"]
        .as_array()
        .map_or(&[][..], Vec::as_slice)
    {
        let name = text(build, "name");
        let instead = match build["serving_instead"].as_str() {
            Some(version) => format!("{version} serves instead"),
            None => "its routes fail closed".to_owned(),
        };
        let _ = writeln!(
            shown,
            "{name} {} is in quarantine, {instead}; digest {}",
            text(build, "version"),
            text(build, "digest")
        );
    }
    for closed in status["closed_routes"].as_array().into_iter().flatten() {
        let _ = writeln!(
            shown,
            "calls of {} fail closed: {}",
            text(closed, "route"),
            text(closed, "reason")
        );
    }
    if let Some(more @ 1..) = status["more_closed_routes"].as_u64() {
        let _ = writeln!(shown, "and those of {more} routes more");
    }
    let retired = &status["retired"];
    let _ = writeln!(
        shown,
        "retired generations: {} still in use, {} unloaded, {} stuck; {} threads left behind; {} KiB of libraries stay mapped",
        retired["draining"],
        retired["unloaded"],
        retired["stuck"],
        retired["threads"],
        retired["mapped_bytes"].as_u64().unwrap_or(0) / 1024
    );
    let pool = &status["pool"];
    let _ = writeln!(
        shown,
        "threads for plugins that block: {} of {} in use, {} by calls past their time",
        pool["running"], pool["threads"], pool["stuck"]
    );
    for (plugin, threads) in pool["stuck_in"].as_object().into_iter().flatten() {
        let _ = writeln!(shown, "  stuck in {plugin}: {threads}");
    }
    shown
}

/// What became of a plugin's calls: failures only where there are any.
fn calls(counts: &Value) -> String {
    let mut shown = format!("calls: {}", counts["calls"]);
    for (key, name) in [
        ("errors", "errors"),
        ("panics", "panics"),
        ("missed_deadlines", "missed deadlines"),
        ("misuses", "misuses"),
        ("without_thread", "without a thread"),
        ("without_room", "without room"),
    ] {
        let count = counts[key].as_u64().unwrap_or(0);
        if count > 0 {
            let _ = write!(shown, ", {name}: {count}");
        }
    }
    shown
}

fn show_unblocked(answer: &Value) -> String {
    let names = answer["unblocked"].as_array().cloned().unwrap_or_default();
    if names.is_empty() {
        return "it had not been found to hold an event loop up\n".to_owned();
    }
    names.iter().fold(String::new(), |mut shown, name| {
        let name = name.as_str().unwrap_or_default();
        let _ = writeln!(shown, "{name} runs on the event loops again");
        shown
    })
}

fn show_workers(overview: &Value) -> String {
    let mut shown = String::new();
    for worker in overview["workers"].as_array().into_iter().flatten() {
        let _ = writeln!(
            shown,
            "worker {} (process {}, release {}) {}, for {} s",
            worker["worker"],
            worker["pid"],
            text(worker, "version"),
            text(worker, "phase"),
            worker["uptime_seconds"]
        );
    }
    let _ = writeln!(
        shown,
        "{} connections, {} idle, {} with an open call\n{} crashes, {} calls lost in them, {} connections cut; \
         {} planned replacements",
        overview["connections"],
        overview["idle_connections"],
        overview["open_calls"],
        overview["crashes"],
        overview["calls_lost"],
        overview["connections_cut"],
        overview["replacements"]
    );
    shown
}

fn show_reload(reloaded: &Value) -> String {
    let list = |key: &str| reloaded[key].as_array().cloned().unwrap_or_default();
    let mut shown = String::new();
    for loaded in list("loaded") {
        let _ = writeln!(shown, "{} serves", loaded.as_str().unwrap_or_default());
    }
    for problem in list("problems") {
        let _ = writeln!(shown, "problem: {}", problem.as_str().unwrap_or_default());
    }
    if shown.is_empty() {
        shown.push_str("nothing has changed\n");
    }
    shown
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("?")
}

/// Requirements have signs in them that a path must not have.
fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}
