//! What the host counts of itself, as Prometheus sees it, and what is told of it in `docs`: the page, the
//! dashboard and the alert rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use regex::Regex;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Gateway, Host, asking, get, response, wait_for};

/// The exposition by series, with its values.
fn numbers(host: &Host) -> BTreeMap<String, f64> {
    let text = asking::get("/metrics").of(host).body;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        })
        .collect()
}

/// Waits until a series has a value: the last call is counted a moment after its answer.
fn becomes(host: &Host, series: &str, value: f64) {
    wait_for(series, || {
        (numbers(host).get(series) == Some(&value)).then_some(())
    });
}

fn call(gateway: &mut Gateway, plugins: &[(&str, Value)], call: crate::support::Call) -> String {
    let token = gateway.route(plugins.iter().map(|(name, conf)| (*name, conf.clone())));
    gateway.call(token, call).to_string()
}

/// A call of each outcome that a plugin can bring about, on a host that has seen nothing else.
fn calls_of_many_outcomes(host: &Host) {
    let mut gateway = host.gateway();
    gateway.set_variable("route_id", "1");
    for (steps, times) in [
        (json!([]), 2),
        (json!([{ "set_path": "/next" }]), 1),
        (json!([{ "stop": { "status": 202 } }]), 1),
        (json!([{ "fail": "no luck" }]), 1),
        (json!([{ "panic": "oh no" }]), 1),
        (json!([{ "look": { "var": "route_id" } }]), 1),
    ] {
        for _ in 0..times {
            call(&mut gateway, &[("scripted", steps.clone())], get("/"));
        }
    }
    call(&mut gateway, &[("nowhere", json!({}))], get("/"));
    call(&mut gateway, &[("scripted", json!([]))], response(200));
    assert_eq!(gateway.call(4_000_000, get("/")), "error 2");
}

#[test]
fn calls_are_counted_by_phase_outcome_and_plugin_with_the_time_that_they_took() {
    let host = Host::with("scripted");
    calls_of_many_outcomes(&host);
    let of =
        |outcome: &str| format!(r#"pluginhost_calls_total{{phase="request",outcome="{outcome}"}}"#);
    becomes(&host, &of("token_not_found"), 1.0);
    let numbers = numbers(&host);
    for (outcome, count) in [
        ("passed", 3.0),
        ("changed", 1.0),
        ("stopped", 1.0),
        ("plugin_failed", 2.0),
        ("chain_refused", 1.0),
        ("aborted", 0.0),
    ] {
        assert_eq!(numbers[&of(outcome)], count, "{outcome}");
    }
    let of = r#"plugin="scripted",version="0.1.0",phase="request""#;
    for (outcome, count) in [
        ("passed", 4.0),
        ("stopped", 1.0),
        ("error", 1.0),
        ("panic", 1.0),
        ("deadline", 0.0),
    ] {
        let series = format!(r#"pluginhost_plugin_calls_total{{{of},outcome="{outcome}"}}"#);
        assert_eq!(numbers[&series], count, "{outcome}");
    }
    for (series, count) in [
        (
            format!("pluginhost_plugin_duration_seconds_count{{{of}}}"),
            7.0,
        ),
        (
            r#"pluginhost_call_duration_seconds_count{phase="request"}"#.to_owned(),
            9.0,
        ),
        (
            r#"pluginhost_call_duration_seconds_count{phase="response"}"#.to_owned(),
            1.0,
        ),
        (
            r#"pluginhost_gateway_wait_seconds_count{question="variable"}"#.to_owned(),
            1.0,
        ),
        (r#"pluginhost_tokens{chain="refused"}"#.to_owned(), 1.0),
        (r#"pluginhost_plugins{state="serving"}"#.to_owned(), 1.0),
        (
            r#"pluginhost_changes_total{outcome="loaded"}"#.to_owned(),
            1.0,
        ),
        ("pluginhost_closed_routes".to_owned(), 1.0),
        ("pluginhost_ready".to_owned(), 1.0),
    ] {
        assert_eq!(numbers.get(&series), Some(&count), "{series}");
    }
    assert!(numbers[r#"pluginhost_connections_made_total{outcome="served"}"#] >= 1.0);
    assert!(numbers[r#"pluginhost_bytes_total{direction="received"}"#] > 500.0);
    let status = asking::get("/v1/plugins/scripted").of(&host).json();
    let duration = &status["plugins"][0]["duration"];
    assert_eq!(duration["count"], 8, "{duration}");
    assert!(
        duration["p99_seconds"].as_f64().unwrap() > 0.0,
        "{duration}"
    );
}

#[test]
fn what_a_plugin_waited_for_the_gateway_is_not_its_own_time() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    gateway.set_variable("route_id", "1");
    let token = gateway.route([("scripted", json!([{ "look": { "var": "route_id" } }]))]);
    // Its plugins are loaded then.
    gateway.call(token, get("/"));
    gateway.begin(token, get("/"));
    // Its question lies there meanwhile.
    std::thread::sleep(Duration::from_millis(300));
    gateway.finish();
    let of = r#"plugin="scripted",version="0.1.0",phase="request""#;
    becomes(
        &host,
        &format!("pluginhost_plugin_duration_seconds_count{{{of}}}"),
        2.0,
    );
    let numbers = numbers(&host);
    let own = numbers[&format!("pluginhost_plugin_duration_seconds_sum{{{of}}}")];
    let whole = numbers[r#"pluginhost_call_duration_seconds_sum{phase="request"}"#];
    let waited = numbers[r#"pluginhost_gateway_wait_seconds_sum{question="variable"}"#];
    assert!(
        waited >= 0.3 && whole >= 0.3,
        "waited {waited}, whole {whole}"
    );
    assert!(own < 0.25, "its own time is {own} s");
}

#[test]
fn a_death_is_counted_by_its_cause_and_the_host_tells_its_own_numbers_while_no_worker_answers() {
    let host = Host::with("scripted");
    // Its worker serves then.
    call(&mut host.gateway(), &[], get("/"));
    host.pause();
    let alone = numbers(&host);
    assert_eq!(alone["pluginhost_worker_answers"], 0.0);
    assert!(
        !alone
            .keys()
            .any(|series| series.starts_with("pluginhost_plugins"))
    );
    host.signal_worker(Signal::KILL);
    becomes(
        &host,
        r#"pluginhost_worker_restarts_total{cause="crash"}"#,
        1.0,
    );
    becomes(&host, "pluginhost_worker_answers", 1.0);
}

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(name)
}

/// A host that shows everything that it can.
fn showing_all() -> (Host, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let access_log = directory.path().join("access.log");
    let host = Host::builder()
        .plugin("scripted")
        .flag("--access-log", access_log.to_str().unwrap())
        .flag("--hook-crash", "true")
        .start();
    fs::create_dir(host.plugins().join("broken")).unwrap();
    fs::write(host.plugins().join("broken/plugin.json"), "{}").unwrap();
    calls_of_many_outcomes(&host);
    host.ask(&["disable", "scripted"]);
    (host, directory)
}

/// Names of metrics, and of a histogram's series.
fn shown_names(host: &Host) -> BTreeSet<String> {
    let text = asking::get("/metrics").of(host).body;
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .flat_map(|line| {
            let (name, kind) = line.split_once(' ').unwrap();
            let suffixes: &[&str] = match kind {
                "histogram" => &["", "_bucket", "_count", "_sum"],
                _ => &[""],
            };
            suffixes.iter().map(move |suffix| format!("{name}{suffix}"))
        })
        .collect()
}

fn names_in(text: &str) -> BTreeSet<String> {
    let names = Regex::new(r"\bpluginhost_[a-z_]+").unwrap();
    names
        .find_iter(text)
        .map(|name| name.as_str().to_owned())
        .collect()
}

#[test]
fn the_page_the_dashboard_and_the_rules_name_what_a_host_really_shows() {
    let (host, _directory) = showing_all();
    let shown = shown_names(&host);
    for file in [
        "monitoring/dashboard.json",
        "monitoring/alerts.yml",
        "monitoring.md",
    ] {
        let named = names_in(&fs::read_to_string(docs(file)).unwrap());
        let unknown: Vec<_> = named.difference(&shown).collect();
        assert!(
            unknown.is_empty(),
            "{file} names {unknown:?}, which no host shows"
        );
    }
    let page = names_in(&fs::read_to_string(docs("monitoring.md")).unwrap());
    let own = shown.iter().filter(|name| name.starts_with("pluginhost_"));
    let untold: Vec<_> = own
        .filter(|name| {
            !["_bucket", "_count", "_sum"]
                .iter()
                .any(|end| name.ends_with(end))
        })
        .filter(|name| !page.contains(*name))
        .collect();
    assert!(
        untold.is_empty(),
        "docs/monitoring.md does not tell of {untold:?}"
    );
}

/// Labels that the dashboard and the rules select by, with the metric: all have to be there.
#[test]
fn the_dashboard_and_the_rules_select_by_labels_and_values_that_are_there() {
    let (host, _directory) = showing_all();
    let text = asking::get("/metrics").of(&host).body;
    let selector = Regex::new(r#"(pluginhost_[a-z_]+)\{([^}]*)\}"#).unwrap();
    let matcher = Regex::new(r#"([a-z_]+)(=~|!~|!=|=)"([^"]*)""#).unwrap();
    let mut looked_at = 0;
    for file in ["monitoring/dashboard.json", "monitoring/alerts.yml"] {
        let source = fs::read_to_string(docs(file))
            .unwrap()
            .replace("\\\"", "\"");
        for found in selector.captures_iter(&source) {
            for matched in matcher.captures_iter(&found[2]) {
                let (label, values) = (&matched[1], &matched[3]);
                if label == "instance" || values.starts_with('$') {
                    continue;
                }
                for value in values.split('|') {
                    let pair = format!(r#"{label}="{value}""#);
                    // What no plugin of this host is in at the moment is told by the page's list.
                    let is_state = label == "state" && ["failed", "quarantined"].contains(&value);
                    assert!(
                        is_state || text.contains(&pair),
                        "{file}: {} by {pair}",
                        &found[1]
                    );
                    looked_at += 1;
                }
            }
        }
    }
    assert!(looked_at > 10, "only {looked_at} selections found");
}

#[test]
fn every_query_of_the_dashboard_is_one_for_prometheus() {
    let dashboard = fs::read_to_string(docs("monitoring/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut rules = String::from("groups:\n  - name: queries\n    rules:\n");
    let mut queries = 0;
    for target in panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array())
        .flatten()
    {
        let query = target["expr"].as_str().unwrap();
        let query = query.replace("$__rate_interval", "1m");
        rules += &format!(
            "      - record: q{queries}\n        expr: {}\n",
            json!(query)
        );
        queries += 1;
    }
    assert!(queries >= 20);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("queries.yml");
    fs::write(&file, rules).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()], "");
}

#[test]
fn promtool_accepts_the_rules_what_they_do_and_the_exposition() {
    promtool(
        &[
            "check",
            "rules",
            docs("monitoring/alerts.yml").to_str().unwrap(),
        ],
        "",
    );
    promtool(
        &[
            "test",
            "rules",
            docs("monitoring/alerts_test.yml").to_str().unwrap(),
        ],
        "",
    );
    let (host, _directory) = showing_all();
    let text = asking::get("/metrics").of(&host).body;
    promtool(&["check", "metrics"], &text);
}

fn promtool(arguments: &[&str], input: &str) {
    use std::{io::Write, process::Stdio};
    let mut promtool = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("scripts/install-tools --tests installs promtool");
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&said)
    );
}
