//! A running host, as it answers over its control socket: whether it is ready, what its plugins do, and
//! which routes it keeps closed.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use hyper::Method;
use serde_json::Value;

use super::{
    super::{hosts::Running, output},
    finding::{Area, Level, Report},
    identity::{Identity, Wish},
    processes::is_alive,
};
use crate::control::client::{self, Target};

/// What has happened within this time may be why a request was answered with 503 just now.
const RECENT: Duration = Duration::from_secs(10 * 60);

/// Crashes are worth a look for so long.
const LATELY: Duration = Duration::from_secs(24 * 3_600);

/// Parts of a bound that are in use from which on it is told, in hundredths.
const NEARLY: u64 = 90;

/// Looks at a host; gives what it is set to, where it says so.
pub(super) async fn look(host: &Running, report: &mut Report) -> Option<Value> {
    let facts = &host.facts;
    report.good(
        Area::Host,
        "running",
        format!(
            "{} is process {}, release {}, with plugins in {}",
            text(&facts["listen"]),
            facts["pid"],
            text(&facts["release"]),
            text(&facts["plugin_dir"])
        ),
    );
    release(facts, report);
    others(host, report);
    let status = match get(&host.target, "/v1/status").await {
        Ok(status) => status,
        Err(error) => {
            report.problem(
                Area::Host,
                "control",
                error,
                [
                    "the host does not tell how it is",
                    "look into its log; where it does not answer at all, end it, and the gateway starts it anew",
                ],
            );
            return None;
        }
    };
    readiness(&status, report);
    plugins(&status, report);
    http_routes(&status, report);
    plugin_directory(&status["host"], report);
    routes(&status, report);
    crashes(&host.target, report).await;
    let settings = get(&host.target, "/v1/settings").await.ok()?;
    let tokens = get(&host.target, "/v1/tokens?limit=1").await.ok();
    bounds(&settings, &status["host"], tokens.as_ref(), report);
    Some(settings)
}

async fn get(target: &Target, path: &str) -> Result<Value, String> {
    client::ask(target, Method::GET, path, None)
        .await
        .map_err(|error| error.to_string())
}

/// Other hosts that live on the same address. The lock of the address keeps their directories apart.
fn others(host: &Running, report: &mut Report) {
    let Target::Socket(socket) = &host.target else {
        return;
    };
    let own = host.facts["pid"].as_u64();
    let entries = socket
        .parent()
        .and_then(|place| std::fs::read_dir(place).ok());
    let alive = entries.into_iter().flatten().flatten().filter_map(|entry| {
        let name = entry.file_name();
        let process = name.to_str()?.split('-').next()?.parse::<u32>().ok()?;
        let is_other = Some(u64::from(process)) != own && is_alive(process);
        is_other.then(|| process.to_string())
    });
    let alive: Vec<_> = alive.collect();
    if !alive.is_empty() {
        report.warning(
            Area::Host,
            "several",
            format!("another host lives on this address: process {}", alive.join(", ")),
            [
                "during a gateway's reload for a moment; otherwise two of them take turns, and each time the gateway's tokens are unknown",
                "where it stays, end the one that nobody wants: a gateway with ext-plugin.cmd needs no other host",
            ],
        );
    }
}

fn release(facts: &Value, report: &mut Report) {
    let own = env!("CARGO_PKG_VERSION");
    let running = text(&facts["release"]);
    let program = std::fs::read_link(format!("/proc/{}/exe", facts["pid"]));
    let is_replaced = program.is_ok_and(|path| path.to_string_lossy().ends_with(" (deleted)"));
    if running != own || is_replaced {
        report.warning(
            Area::Host,
            "release",
            match is_replaced {
                true => format!(
                    "the host runs a program that has been replaced on disk (release {running})"
                ),
                false => format!("the host is release {running}, and this command is {own}"),
            },
            [
                "a release that was installed serves only when the host goes on as it",
                "plugin-host upgrade-host, or reload the gateway",
            ],
        );
    }
}

fn readiness(status: &Value, report: &mut Report) {
    if let Some(reason) = status["unknown"].as_str() {
        report.problem(
            Area::Host,
            "worker",
            format!("no worker answers: {reason}"),
            [
                "nothing is served at this moment; a next worker is started at once, or within 5 s where several have died young",
                "plugin-host crashes, and plugin-host logs --level error",
            ],
        );
    }
    let readiness = &status["readiness"];
    if readiness["ready"] == true {
        report.good(Area::Host, "ready", "it is ready");
    }
    for reason in list(&readiness["reasons"]) {
        report.problem(
            Area::Host,
            "ready",
            format!("it is not ready: {}", text(reason)),
            [
                "calls wait, and end with 503 when their time is over",
                "a plugin that --require names has to serve; a first scan that does not end waits for a plugin that is loading: plugin-host status names it",
            ],
        );
    }
}

fn plugins(status: &Value, report: &mut Report) {
    let plugins = list(&status["plugins"]);
    if plugins.is_empty() && status["unknown"].is_null() {
        report.problem(
            Area::Plugins,
            "none",
            format!("nothing is loaded from {}", text(&status["host"]["plugin_dir"])),
            [
                "every route that names a plugin fails closed",
                "put a plugin there, each in a directory of its own, or give the right --plugin-dir",
            ],
        );
    }
    for problem in list(&status["problems"]) {
        report.problem(
            Area::Plugins,
            "files",
            format!("{}: {}", text(&problem["path"]), text(&problem["problem"])),
            [
                "these files are no plugin, and nothing of them is loaded",
                "do what it says; the host sees the change by itself",
            ],
        );
    }
    for plugin in plugins {
        state(plugin, report);
    }
    for build in list(&status["quarantined"]) {
        let instead = build["serving_instead"].as_str();
        let found = format!(
            "{} {} is in quarantine",
            text(&build["name"]),
            text(&build["version"])
        );
        let (level, means) = match instead {
            Some(instead) => (
                Level::Warning,
                format!("workers have died in it, or an operator has put it there; {instead} serves in its place"),
            ),
            None => (
                Level::Problem,
                "workers have died in it, or an operator has put it there; nothing serves in its place, and its routes fail closed".to_owned(),
            ),
        };
        let next =
            "plugin-host crashes says of what; another file ends it, or plugin-host lift NAME";
        report.add(Area::Plugins, "quarantine", level, found, [&means, next]);
    }
    threads(status, report);
}

/// How it stands with one place of the plugin directory.
fn state(plugin: &Value, report: &mut Report) {
    let place = text(&plugin["place"]);
    let name = plugin["name"]
        .as_str()
        .map_or_else(|| place.clone(), output_of);
    let version = text(&plugin["version"]);
    let failed = plugin["last_error"].as_str();
    match text(&plugin["state"]).as_str() {
        "serving" => serving(&name, &version, plugin, failed, report),
        "loading" => report.warning(
            Area::Plugins,
            "loading",
            format!("{name} {version} is still being loaded"),
            [
                "its routes wait for it, within each call's time",
                "wait; loading may take 10 s",
            ],
        ),
        "failed" => report.problem(
            Area::Plugins,
            "failed",
            format!("{name} {version} did not load: {}", failed.unwrap_or("?")),
            [
                "nothing of it serves: its routes fail closed",
                &format!("mend what it says, then plugin-host upgrade {name}; plugin-host check {place} tries it without a host"),
            ],
        ),
        "disabled" => report.problem(
            Area::Plugins,
            "disabled",
            format!("{name} is disabled"),
            [
                "an operator has taken it out of service: its routes fail closed, also in the next host on the address",
                &format!("plugin-host enable {name}"),
            ],
        ),
        // The build is told below.
        "quarantined" => {}
        _ => report.warning(
            Area::Plugins,
            "unloaded",
            format!("{name} {version} is not loaded any more: its files have gone from {place}"),
            [
                "its routes, where there still are some, fail closed",
                "put its files back, or take it out of the routes",
            ],
        ),
    }
}

fn serving(name: &str, version: &str, plugin: &Value, failed: Option<&str>, report: &mut Report) {
    report.good(Area::Plugins, "serving", format!("{name} {version} serves"));
    if let Some(reason) = failed {
        let tried = text(&plugin["last_tried"]);
        report.problem(
            Area::Plugins,
            "upgrade-refused",
            format!("the upgrade of {name} to {tried} was refused: {reason}"),
            [
                &format!("{version} serves on as before"),
                &format!("mend what it says and put the files there again; plugin-host upgrade {name} --force overrules configurations that refuse"),
            ],
        );
    }
    let last = &plugin["last_failure"];
    if age(&last["at"]).is_some_and(|age| age < RECENT) {
        report.problem(
            Area::Plugins,
            "calls-fail",
            format!(
                "{name} {version} failed on a call at {}, route {}, request {}: {}",
                text(&last["at"]),
                text(&last["route"]),
                last["request_id"],
                text(&last["reason"])
            ),
            [
                "with the failure policy `closed` such a request is answered with 503",
                &format!("plugin-host logs {name}; it is the plugin's to answer: what it says of itself, or a service that it asks"),
            ],
        );
    }
    let calls = &plugin["calls"];
    if calls["missed_deadlines"].as_u64().unwrap_or(0) > 0 {
        report.warning(
            Area::Plugins,
            "too-slow",
            format!(
                "{name} {version} has missed the deadline of {} of {} calls",
                calls["missed_deadlines"], calls["calls"]
            ),
            [
                "each was answered for by its failure policy when its time was over",
                "raise timeout_ms of [plugins.NAME], or --call-budget, or look why the plugin waits",
            ],
        );
    }
    if !plugin["found_blocking"].is_null() {
        report.warning(
            Area::Plugins,
            "found-blocking",
            format!("{name} {version} held an event loop up; its calls run on the pool now"),
            [
                "it sleeps, waits or computes without saying so; the stall held every connection of its loop up, once",
                "write \"execution\": \"blocking\" into its plugin.json; plugin-host unblock NAME takes the label back",
            ],
        );
    }
}

fn threads(status: &Value, report: &mut Report) {
    let pool = &status["pool"];
    let stuck = pool["stuck"].as_u64().unwrap_or(0);
    if stuck > 0 {
        report.warning(
            Area::Plugins,
            "stuck-threads",
            format!("{stuck} of {} threads for plugins that block are past their time: {}", pool["threads"], pool["stuck_in"]),
            [
                "where there are too many, calls find no thread in their time, and the worker is replaced",
                "look why these plugins do not return; plugin-host replace-worker gives the threads back",
            ],
        );
    }
    let kept = status["retired"]["stuck"].as_u64().unwrap_or(0);
    if kept > 0 {
        report.warning(
            Area::Plugins,
            "still-in-use",
            format!("{kept} versions are still in use long after they were retired"),
            [
                "a plugin keeps something of a call for ever, or a call does not end: the old version stays in memory",
                "plugin-host status names them; plugin-host replace-worker frees them",
            ],
        );
    }
}

/// HTTP routes of plugins that nobody can ask for. Why a version was refused for a route is told with it.
fn http_routes(status: &Value, report: &mut Report) {
    let listen = status["host"]["http_listen"].as_str();
    let routes: Vec<(&Value, &Value)> = list(&status["plugins"])
        .iter()
        .flat_map(|plugin| {
            let routes = list(&plugin["http_routes"]).iter();
            routes.map(move |route| (plugin, route))
        })
        .collect();
    let silent: Vec<String> = routes
        .iter()
        .filter(|(_, route)| route["state"] == "not_listening")
        .map(|(plugin, route)| {
            let method = route["method"].as_str().unwrap_or("any method");
            let (name, route) = (text(&plugin["name"]), text(&route["route"]));
            format!("{method} {route} of {name}")
        })
        .collect();
    if !silent.is_empty() {
        report.warning(
            Area::Plugins,
            "http-listener",
            format!(
                "plugins have HTTP routes, and the host has no listener for them: {}",
                shortened(&silent)
            ),
            [
                "nobody can ask for them; the plugins' other work goes on",
                "start the host with --http-listen IP:PORT or unix:/PATH, where they are wanted",
            ],
        );
    }
    for (plugin, route) in &routes {
        let is_of_serving = route["version"] == plugin["serving"];
        if route["state"] == "refused" && is_of_serving {
            report.problem(
                Area::Plugins,
                "http-route",
                format!(
                    "{} {}: {}",
                    text(&plugin["name"]),
                    text(&route["version"]),
                    text(&route["reason"])
                ),
                [
                    "requests for it reach the other plugin",
                    "change what is claimed twice in one plugin.json, or unload one of the plugins",
                ],
            );
        }
    }
    if let (Some(address), false) = (listen, routes.is_empty()) {
        let served = routes
            .iter()
            .filter(|(_, route)| route["state"] == "served");
        let found = format!(
            "{} HTTP routes are served on {}",
            served.count(),
            output_of(address)
        );
        report.good(Area::Plugins, "http-listener", found);
    }
}

/// The first few of many.
fn shortened(all: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut shown = all[..all.len().min(SHOWN)].join(", ");
    if all.len() > SHOWN {
        shown += &format!(" and {} more", all.len() - SHOWN);
    }
    shown
}

/// Whether whoever runs the plugins may read their directory.
fn plugin_directory(facts: &Value, report: &mut Report) {
    let worker = facts["worker"].as_u64().and_then(|pid| pid.try_into().ok());
    let Some(worker) = worker.and_then(Identity::of_process) else {
        return;
    };
    let directory = text(&facts["plugin_dir"]);
    readable(Path::new(&directory), &worker, report);
}

/// Whether somebody may list a plugin directory.
pub(super) fn readable(directory: &Path, who: &Identity, report: &mut Report) {
    if let Err(error) = std::fs::metadata(directory) {
        report.problem(
            Area::Plugins,
            "directory",
            format!("{}: {error}", directory.display()),
            [
                "there is no plugin to load: every route that names one fails closed",
                "make the directory, or give the right --plugin-dir",
            ],
        );
        return;
    }
    match who.obstacle(directory, Wish::Read) {
        None => report.good(
            Area::Plugins,
            "directory",
            format!("{} may read {}", who.name(), directory.display()),
        ),
        Some(obstacle) => report.problem(
            Area::Plugins,
            "directory",
            format!(
                "{} may not read {}: {}",
                who.name(),
                directory.display(),
                obstacle.said()
            ),
            [
                "whoever runs the plugins, which --user says, loads nothing from there",
                &format!("chmod o+rX {}, or another --user", obstacle.path.display()),
            ],
        ),
    }
}

fn routes(status: &Value, report: &mut Report) {
    for route in list(&status["closed_routes"]) {
        report.problem(
            Area::Routes,
            "closed",
            format!("{} cannot run: {}", text(&route["route"]), text(&route["reason"])),
            [
                "every request of that route is answered with 503, unless it has allow_degradation",
                "install what is missing, or correct the route's conf at the place that is named; both are taken up by themselves",
            ],
        );
    }
    let more = status["more_closed_routes"].as_u64().unwrap_or(0);
    if more > 0 {
        report.problem(
            Area::Routes,
            "closed",
            format!("{more} more routes cannot run"),
            ["the same", "plugin-host chains lists them all"],
        );
    }
}

async fn crashes(target: &Target, report: &mut Report) {
    let Ok(crashes) = get(target, "/v1/crashes").await else {
        return;
    };
    let of = |within: Duration| {
        let crashes = list(&crashes["crashes"]).iter();
        crashes.filter(move |crash| age(&crash["at"]).is_some_and(|age| age < within))
    };
    let Some(last) = of(LATELY).next() else {
        report.good(Area::Host, "crashes", "no worker has died within 24 h");
        return;
    };
    let level = match of(RECENT).next() {
        Some(_) => Level::Problem,
        None => Level::Warning,
    };
    report.add(
        Area::Host,
        "crashes",
        level,
        format!(
            "{} workers have died within 24 h, the last at {}: {}",
            of(LATELY).count(),
            text(&last["at"]),
            text(&last["summary"])
        ),
        [
            "the calls inside it were answered with 503; the next worker serves",
            &format!(
                "plugin-host crashes {} has the whole report",
                text(&last["id"])
            ),
        ],
    );
}

fn bounds(settings: &Value, facts: &Value, tokens: Option<&Value>, report: &mut Report) {
    let kept = tokens.and_then(|tokens| tokens["total"].as_u64());
    let open = facts["connections"].as_u64();
    for (check, flag, used, what, means) in [
        (
            "tokens",
            "--max-tokens",
            kept,
            "configurations are kept",
            "beyond the bound live ones are dropped, and the gateway prepares everything again and again: calls are answered with `token not found`",
        ),
        (
            "connections",
            "--max-connections",
            open,
            "connections are open",
            "one more than the bound gets an error frame at once: 503",
        ),
    ] {
        let bound = number(settings, flag);
        let (Some(used), Some(bound)) = (used, bound) else {
            continue;
        };
        let found = format!("{used} of {bound} {what}");
        match used * 100 >= bound * NEARLY {
            true => report.warning(Area::Host, check, found, [means, &format!("raise {flag}")]),
            false => report.good(Area::Host, check, found),
        }
    }
    if kept == Some(0) {
        report.warning(
            Area::Routes,
            "unused",
            "the gateway has not prepared a configuration with this host",
            [
                "no route with an ext-plugin has been called yet, or the gateway looks for a host elsewhere",
                "call such a route; where it answers 503 and this stays, the gateway's error.log says to which socket it connects",
            ],
        );
    }
}

/// A setting in force that is a number.
pub(super) fn number(settings: &Value, flag: &str) -> Option<u64> {
    let all = list(&settings["settings"]);
    let setting = all.iter().find(|setting| setting["flag"] == flag)?;
    setting["value"].as_u64()
}

fn age(at: &Value) -> Option<Duration> {
    let at = humantime::parse_rfc3339(at.as_str()?).ok()?;
    // One that lies ahead of a clock that was set is of this moment.
    Some(SystemTime::now().duration_since(at).unwrap_or_default())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn output_of(text: &str) -> String {
    output::shown(text.as_bytes())
}

fn text(value: &Value) -> String {
    output_of(value.as_str().unwrap_or("?"))
}
