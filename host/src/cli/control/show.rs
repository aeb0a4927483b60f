//! What a host answers, in words and tables for people. What comes from plugins, files and routes is
//! shown with everything escaped that a terminal could obey.

use std::fmt::Write as _;

use comfy_table::{ContentArrangement, Table, presets::NOTHING};
use serde_json::Value;

use crate::cli::output::{self, Paint, columns};

/// Digits of a digest that a table shows.
const SHOWN_DIGITS: usize = 12;

pub(super) fn status(status: &Value, paint: Paint) -> String {
    let mut shown = String::new();
    let host = &status["host"];
    let _ = writeln!(
        shown,
        "host {} (process {}) on {}, {}",
        text(host, "release"),
        host["pid"],
        text(host, "listen"),
        match status["readiness"]["ready"].as_bool() {
            Some(true) => paint.good("ready"),
            _ => paint.bad(&not_ready(&status["readiness"])),
        }
    );
    let _ = writeln!(
        shown,
        "worker {} since {}; {} connections, {} open calls; {} crashes, {} calls lost in them, {} \
         planned replacements",
        host["worker"],
        text(host, "worker_since"),
        host["connections"],
        host["open_calls"],
        host["crashes"],
        host["calls_lost"],
        host["replacements"]
    );
    shown.push_str(&http_listener(status, paint));
    if let Some(reason) = status["unknown"].as_str() {
        let _ = writeln!(shown, "nothing is known of plugins: {}", escaped(reason));
        return shown;
    }
    shown.push_str(&plugins(status, paint));
    if list_of(status, "plugins").is_empty() {
        shown.push_str("no plugin has been loaded\n");
    }
    shown.push_str(&problems(status, paint));
    for build in list_of(status, "quarantined") {
        let instead = match build["serving_instead"].as_str() {
            Some(version) => format!("{} serves instead", escaped(version)),
            None => "its routes fail closed".to_owned(),
        };
        let _ = writeln!(
            shown,
            "{} {} is in {}, {instead}; digest {}",
            text(build, "name"),
            text(build, "version"),
            paint.bad("quarantine"),
            text(build, "digest")
        );
    }
    for plugin in list_of(status, "disabled") {
        let _ = writeln!(
            shown,
            "{} is {} since {}, by {}",
            text(plugin, "name"),
            paint.bad("disabled"),
            text(plugin, "since"),
            text(plugin, "by")
        );
    }
    for closed in list_of(status, "closed_routes") {
        let _ = writeln!(
            shown,
            "calls of {} {}: {}",
            text(closed, "route"),
            paint.bad("fail closed"),
            text(closed, "reason")
        );
    }
    if let Some(more @ 1..) = status["more_closed_routes"].as_u64() {
        let _ = writeln!(
            shown,
            "and those of {more} routes more: see `plugin-host chains`"
        );
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
        let _ = writeln!(shown, "  stuck in {}: {threads}", escaped(plugin));
    }
    shown
}

/// Where the HTTP routes of plugins are served; nothing where there is neither a listener nor a route.
fn http_listener(status: &Value, paint: Paint) -> String {
    let mut plugins = list_of(status, "plugins").iter();
    let has_routes = plugins.any(|plugin| !list_of(plugin, "http_routes").is_empty());
    match status["host"]["http_listen"].as_str() {
        Some(address) => format!("HTTP services on {}\n", escaped(address)),
        None if has_routes => format!(
            "HTTP services: {}; plugins have HTTP routes, and nobody can ask for them: start the host \
             with --http-listen\n",
            paint.bad("no listener")
        ),
        None => String::new(),
    }
}

/// Each plugin with all that is known of it.
pub(super) fn plugins(status: &Value, paint: Paint) -> String {
    list_of(status, "plugins")
        .iter()
        .fold(String::new(), |mut shown, it| {
            plugin(&mut shown, it, paint);
            shown
        })
}

fn plugin(shown: &mut String, plugin: &Value, paint: Paint) {
    let name = text(plugin, "name");
    let _ = match plugin["serving"].as_str() {
        Some(version) => writeln!(
            shown,
            "{name} {} {}, from {}",
            escaped(version),
            paint.good("serves"),
            text(plugin, "place")
        ),
        None => writeln!(
            shown,
            "{name} {} ({}), {}",
            paint.bad("does not serve"),
            text(plugin, "state"),
            text(plugin, "place")
        ),
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
        let _ = writeln!(
            shown,
            "  since {}, {} live configurations, {}, fails {}, ABI {}, {}",
            text(plugin, "since"),
            plugin["configurations"],
            text(plugin, "execution"),
            text(plugin, "failure_policy"),
            text(&plugin["build"], "abi"),
            text(&plugin["build"], "compiler"),
        );
        let _ = writeln!(shown, "  digest {}", text(plugin, "digest"));
    }
    shown.push_str(&signature(&plugin["signature"], paint));
    for route in list_of(plugin, "http_routes") {
        shown.push_str(&http_route(route, paint));
    }
    let failure = &plugin["last_failure"];
    if failure.is_object() {
        let _ = writeln!(
            shown,
            "  last failed call: {}, request {} of {}: {}",
            text(failure, "at"),
            failure["request_id"],
            text(failure, "route"),
            text(failure, "reason")
        );
    }
    if let Some(previous) = plugin["previous"].as_str() {
        let _ = writeln!(shown, "  before: {}", escaped(previous));
    }
    if let Some(error) = plugin["last_error"].as_str() {
        let _ = writeln!(
            shown,
            "  {}: {}",
            paint.bad("last try failed"),
            escaped(error)
        );
    }
}

/// A route of its HTTP services.
fn http_route(route: &Value, paint: Paint) -> String {
    let mut shown = match route["method"].as_str() {
        Some(method) => format!("  HTTP {}", escaped(method)),
        None => "  HTTP, any method,".to_owned(),
    };
    let _ = write!(shown, " {}", text(route, "route"));
    if let Some(label) = route["label"].as_str().filter(|label| !label.is_empty()) {
        let _ = write!(shown, " (label {})", escaped(label));
    }
    let _ = match (text(route, "state").as_str(), route["reason"].as_str()) {
        ("served", _) => write!(
            shown,
            ": {} by generation {}",
            paint.good("served"),
            route["generation"]
        ),
        (state, reason) => write!(
            shown,
            ": {} ({}){}",
            paint.bad(&state.replace('_', " ")),
            text(route, "version"),
            reason.map_or(String::new(), |reason| format!(", {}", escaped(reason)))
        ),
    };
    shown + "\n"
}

/// Who vouches for it; nothing where the host does not look.
fn signature(signature: &Value, paint: Paint) -> String {
    let Some(state) = signature["state"].as_str() else {
        return String::new();
    };
    let state = match state {
        "signed" => paint.good(state),
        _ => paint.bad(state),
    };
    let mut shown = format!("  {state}");
    if let Some(signer) = signature["signer"].as_str() {
        let _ = write!(
            shown,
            " by {} (key {})",
            escaped(signer),
            text(signature, "key_id")
        );
    }
    if let Some(expires) = signature["expires"].as_str() {
        let _ = write!(shown, ", expires {}", escaped(expires));
    }
    if let Some(reason) = signature["reason"].as_str() {
        let _ = write!(shown, ": {}", escaped(reason));
    }
    shown + "\n"
}

/// A table with a line for each place.
pub(super) fn list(status: &Value, paint: Paint) -> String {
    let mut header = vec![
        "NAME", "VERSION", "STATE", "SINCE", "CALLS", "FAILED", "ROUTES", "BEFORE", "DIGEST",
    ];
    // Where the host looks at signatures.
    let are_judged = list_of(status, "plugins")
        .iter()
        .any(|plugin| plugin["signature"].is_object());
    if are_judged {
        header.push("SIGNATURE");
    }
    let have_routes = list_of(status, "plugins")
        .iter()
        .any(|plugin| !list_of(plugin, "http_routes").is_empty());
    if have_routes {
        header.push("HTTP");
    }
    let mut table = table(&header);
    for plugin in list_of(status, "plugins") {
        let digest = text(plugin, "digest");
        let state = text(plugin, "state");
        let mut row = vec![
            text(plugin, "name"),
            text(plugin, "version"),
            match state.as_str() {
                "serving" => paint.good(&state),
                "loading" => state,
                _ => paint.bad(&state),
            },
            text(plugin, "since"),
            plugin["calls"]["calls"].to_string(),
            failed(&plugin["calls"]).to_string(),
            plugin["configurations"].to_string(),
            text(plugin, "previous"),
            digest.chars().take(SHOWN_DIGITS).collect(),
        ];
        if are_judged {
            row.push(match plugin["signature"]["state"].as_str() {
                Some("signed") => paint.good("signed"),
                _ => paint.bad(&text(&plugin["signature"], "state")),
            });
        }
        if have_routes {
            row.push(http_routes(list_of(plugin, "http_routes"), paint));
        }
        table.add_row(row);
    }
    let mut shown = match list_of(status, "plugins").is_empty() {
        true => "no plugin has been loaded\n".to_owned(),
        false => lines(&table),
    };
    for plugin in list_of(status, "plugins") {
        if let Some(error) = plugin["last_error"].as_str() {
            let _ = writeln!(
                shown,
                "{} {}: {}",
                text(plugin, "name"),
                paint.bad("last try failed"),
                escaped(error)
            );
        }
    }
    shown.push_str(&problems(status, paint));
    shown
}

/// How many HTTP routes are served, and how many are not.
fn http_routes(routes: &[Value], paint: Paint) -> String {
    let served = |route: &&Value| route["state"] == "served";
    let served = routes.iter().filter(served).count();
    match (served, routes.len() - served) {
        (0, 0) => "-".to_owned(),
        (served, 0) => served.to_string(),
        (0, not) => paint.bad(&format!("{not} not served")),
        (served, not) => format!("{served}, {}", paint.bad(&format!("{not} not served"))),
    }
}

fn problems(status: &Value, paint: Paint) -> String {
    list_of(status, "problems")
        .iter()
        .fold(String::new(), |mut shown, problem| {
            let _ = writeln!(
                shown,
                "{}: {}",
                paint.bad("problem"),
                text(problem, "problem")
            );
            shown
        })
}

/// What became of a plugin's calls: failures only where there are any.
fn calls(counts: &Value) -> String {
    let mut shown = format!("calls: {}", counts["calls"]);
    for (key, name) in KINDS {
        let count = counts[key].as_u64().unwrap_or(0);
        if count > 0 {
            let _ = write!(shown, ", {name}: {count}");
        }
    }
    shown
}

/// How calls fail.
const KINDS: [(&str, &str); 6] = [
    ("errors", "errors"),
    ("panics", "panics"),
    ("missed_deadlines", "missed deadlines"),
    ("misuses", "misuses"),
    ("without_thread", "without a thread"),
    ("without_room", "without room"),
];

fn failed(counts: &Value) -> u64 {
    KINDS
        .iter()
        .map(|(key, _)| counts[key].as_u64().unwrap_or(0))
        .sum()
}

pub(super) fn chains(answer: &Value, paint: Paint) -> String {
    let mut shown = String::new();
    for chain in list_of(answer, "chains") {
        let state = text(chain, "state");
        let state = match state.as_str() {
            "ready" => paint.good(&state),
            "refused" => paint.bad(&state),
            _ => state,
        };
        let _ = writeln!(shown, "{} {state}", text(chain, "key"));
        for plugin in list_of(chain, "plugins") {
            let _ = match (plugin["version"].as_str(), plugin["refused"].as_str()) {
                (Some(version), _) => {
                    writeln!(
                        shown,
                        "  {} runs {}",
                        text(plugin, "name"),
                        escaped(version)
                    )
                }
                (None, Some(reason)) => {
                    writeln!(shown, "  {}: {}", text(plugin, "name"), escaped(reason))
                }
                (None, None) => writeln!(shown, "  {}", text(plugin, "name")),
            };
        }
    }
    shown + &left_out(answer, "chains")
}

pub(super) fn tokens(answer: &Value) -> String {
    let mut table = table(&[
        "TOKEN", "KEY", "STATE", "PLUGINS", "BYTES", "IDLE", "EXPIRES",
    ]);
    for token in list_of(answer, "tokens") {
        let plugins: Vec<String> = list_of(token, "plugins")
            .iter()
            .map(|name| escaped(name.as_str().unwrap_or("?")))
            .collect();
        let newest = match token["newest"].as_bool() {
            Some(false) => " (superseded)",
            _ => "",
        };
        table.add_row([
            token["token"].to_string(),
            text(token, "key"),
            text(token, "state") + newest,
            plugins.join(" "),
            token["bytes"].to_string(),
            format!("{} s", token["idle_seconds"]),
            format!("in {} s", token["expires_in_seconds"]),
        ]);
    }
    lines(&table) + &left_out(answer, "tokens")
}

fn left_out(answer: &Value, key: &str) -> String {
    let total = answer["total"].as_u64().unwrap_or(0);
    let shown = list_of(answer, key).len() as u64;
    match total.saturating_sub(shown) {
        0 if total == 0 => format!("no {key}\n"),
        0 => String::new(),
        more => format!("{more} more: see --limit\n"),
    }
}

pub(super) fn reloaded(reloaded: &Value) -> String {
    let mut shown = String::new();
    for loaded in list_of(reloaded, "loaded") {
        let _ = writeln!(shown, "{} serves", escaped(loaded.as_str().unwrap_or("?")));
    }
    for problem in list_of(reloaded, "problems") {
        let _ = writeln!(
            shown,
            "problem: {}",
            escaped(problem.as_str().unwrap_or("?"))
        );
    }
    if shown.is_empty() {
        shown.push_str("nothing has changed\n");
    }
    shown
}

pub(super) fn rolled_back(answer: &Value) -> String {
    format!("{} serves\n", text(answer, "serving"))
}

pub(super) fn disabled(answer: &Value) -> String {
    let served = list_of(answer, "served").iter();
    let served: Vec<String> = served
        .map(|served| escaped(served.as_str().unwrap_or("?")))
        .collect();
    match served.is_empty() {
        true => format!(
            "{} is disabled; nothing of it served\n",
            text(answer, "name")
        ),
        false => format!(
            "{} is disabled: {} no longer serves, its routes fail closed\n",
            text(answer, "name"),
            served.join(", ")
        ),
    }
}

pub(super) fn quarantined(answer: &Value) -> String {
    let instead = match answer["serving_instead"].as_str() {
        Some(instead) => format!("{} serves instead", escaped(instead)),
        None => "its routes fail closed".to_owned(),
    };
    format!(
        "{} {} is in quarantine: {instead}\n",
        text(answer, "name"),
        text(answer, "version")
    )
}

pub(super) fn unblocked(answer: &Value) -> String {
    let names = list_of(answer, "unblocked");
    if names.is_empty() {
        return "it had not been found to hold an event loop up\n".to_owned();
    }
    names.iter().fold(String::new(), |mut shown, name| {
        let name = escaped(name.as_str().unwrap_or_default());
        let _ = writeln!(shown, "{name} runs on the event loops again");
        shown
    })
}

pub(super) fn workers(overview: &Value) -> String {
    let mut shown = String::new();
    for worker in list_of(overview, "workers") {
        let _ = writeln!(
            shown,
            "worker {} (process {}, release {}) {}, for {} s; {} KiB in use, {} retired libraries with \
             {} KiB",
            worker["worker"],
            worker["pid"],
            text(worker, "version"),
            text(worker, "phase"),
            worker["uptime_seconds"],
            worker["memory_bytes"].as_u64().unwrap_or(0) / 1024,
            worker["retired_mappings"],
            worker["retired_bytes"].as_u64().unwrap_or(0) / 1024,
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

pub(super) fn crashes(answer: &Value) -> String {
    let crashes = list_of(answer, "crashes");
    if crashes.is_empty() {
        return "no worker has died\n".to_owned();
    }
    crashes.iter().fold(String::new(), |mut shown, crash| {
        let _ = writeln!(
            shown,
            "{} {}\n  report {}",
            text(crash, "at"),
            text(crash, "summary"),
            text(crash, "id")
        );
        shown
    })
}

pub(super) fn settings(answer: &Value) -> String {
    let mut table = table(&["SETTING", "VALUE", "FROM"]);
    for setting in list_of(answer, "settings") {
        table.add_row([
            text(setting, "flag"),
            match &setting["value"] {
                Value::Null => format!("({})", text(setting, "default")),
                Value::String(value) => escaped(value),
                value => value.to_string(),
            },
            text(setting, "origin"),
        ]);
    }
    let mut shown = lines(&table);
    for (key, name) in [("unusable", "not loaded"), ("warnings", "warning")] {
        for line in list_of(answer, key) {
            let _ = writeln!(shown, "{name}: {}", escaped(line.as_str().unwrap_or("?")));
        }
    }
    shown
}

pub(super) fn renewed(heir: &Value) -> String {
    format!("release {} serves, its worker too\n", text(heir, "release"))
}

pub(super) fn log_level(levels: &Value) -> String {
    let plugins = levels["plugins"].as_object();
    let plugins = plugins.into_iter().flatten();
    plugins.fold(
        format!("{}\n", text(levels, "filter")),
        |mut shown, (plugin, level)| {
            let level = level.as_str().unwrap_or("?");
            let _ = writeln!(shown, "plugin {}: {}", escaped(plugin), escaped(level));
            shown
        },
    )
}

pub(super) fn not_ready(readiness: &Value) -> String {
    let reasons: Vec<String> = list_of(readiness, "reasons")
        .iter()
        .map(|reason| escaped(reason.as_str().unwrap_or("?")))
        .collect();
    format!("not ready: {}", reasons.join("; "))
}

/// As wide as the terminal, or as its content where there is none.
fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(header);
    match columns() {
        Some(columns) => table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(columns),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    table
}

fn lines(table: &Table) -> String {
    table.lines().fold(String::new(), |mut shown, line| {
        let _ = writeln!(shown, "{}", line.trim());
        shown
    })
}

fn list_of<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value, key: &str) -> String {
    match &value[key] {
        Value::String(text) => escaped(text),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn escaped(text: &str) -> String {
    output::shown(text.as_bytes())
}
