//! The log and the commands that only tell: formats, files, levels, `--check-config`, `version`.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Host, PluginDir, get, plugin_host, wait_for, with_environment};

/// Puts a call to a route without plugins.
fn put_a_call(host: &Host) {
    let mut gateway = host.gateway();
    let token = gateway.route::<String>([]);
    assert_eq!(gateway.call(token, get("/")), "unchanged");
}

#[test]
fn json_lines_are_objects_with_the_fields_of_a_plugins_line() {
    let loads = json!({"settings": {"on_load": [{"log": ["warn", "a \"quoted\"\nline"]}]}});
    let host = Host::builder()
        .plugin_json("scripted", loads)
        .flag("--log-format", "json")
        .start();
    host.log_line(&["quoted"]);
    put_a_call(&host);
    let lines: Vec<Value> = host
        .log()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect();
    let line = lines
        .iter()
        .find(|line| line["target"] == "plugins")
        .expect("the plugin's line");
    assert_eq!(line["level"], "WARN");
    assert_eq!(line["fields"]["message"], "a \"quoted\"\nline");
    assert_eq!(line["fields"]["plugin"], "scripted");
    assert_eq!(line["fields"]["version"], "0.1.0");
}

#[test]
fn a_plugin_cannot_forge_a_line_of_text() {
    let loads = json!({"settings": {"on_load": [{"log": ["warn", "one\n2026-01-01 ERROR two"]}]}});
    let host = Host::builder().plugin_json("scripted", loads).start();
    let line = host.log_line(&["one"]);
    assert!(line.contains("two"), "{line}");
}

#[test]
fn a_log_file_takes_every_line_and_standard_error_none() {
    let files = PluginDir::new();
    let file = files.path("host.log");
    let mut host = Host::builder().flag("--log-file", &file).start();
    put_a_call(&host);
    assert!(host.stop().success());
    let log = fs::read_to_string(&file).unwrap();
    assert!(
        log.contains("listening") && log.contains("stopped"),
        "{log}"
    );
    assert_eq!(host.log(), "");
}

#[test]
fn a_rotated_file_has_its_hour_in_its_name_and_old_ones_go() {
    let files = PluginDir::new();
    for hour in ["2020-01-01-00", "2020-01-01-01", "2020-01-01-02"] {
        fs::write(files.path(&format!("host.log.{hour}")), "old").unwrap();
    }
    let host = Host::builder()
        .flag("--log-file", &files.path("host.log"))
        .flag("--log-rotation", "hourly")
        .flag("--log-keep-files", "2")
        .start();
    put_a_call(&host);
    let names = wait_for("two files are left", || {
        let entries = fs::read_dir(files.path(".")).unwrap();
        let names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        (names.len() == 2).then_some(names)
    });
    assert!(
        names.iter().all(|name| name.starts_with("host.log.20")),
        "{names:?}"
    );
    let new = names
        .iter()
        .find(|name| !name.contains("2020-"))
        .expect("a new file");
    let log = fs::read_to_string(files.path(new)).unwrap();
    assert!(log.contains("listening"), "{log}");
}

#[test]
fn a_log_file_that_cannot_be_written_ends_the_host() {
    let mut host = Host::builder()
        .flag("--log-file", "/dev/null/host.log")
        .spawn();
    assert_eq!(host.end().code(), Some(1));
    host.log_line(&["/dev/null/host.log"]);
}

#[test]
fn calls_write_nothing_above_debug() {
    let host = Host::builder().plugin("say").flag("--log", "info").start();
    host.log_line(&["the plugin directory has been read"]);
    let mut gateway = host.gateway();
    let token = gateway.route([("say", json!({"body": "x"}))]);
    gateway.call(token, get("/"));
    let before = host.log();
    for _ in 0..50 {
        gateway.call(token, get("/"));
    }
    assert_eq!(host.log(), before);
}

#[test]
fn the_level_is_the_operators() {
    let mut host = Host::builder().flag("--log", "error").start();
    put_a_call(&host);
    assert!(host.stop().success());
    assert_eq!(host.log(), "");
}

#[test]
fn reasons_of_failures_are_told_with_route_and_number_and_do_not_flood() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let token = gateway.prepare(
        "route#77#ext-plugin-pre-req#3",
        [("scripted", r#"[{"fail":"no luck"}]"#)],
    );
    for number in 0..200 {
        gateway.next_id(number + 1_000);
        gateway.call(token, get("/"));
        // The gateway closes the connection after an error, the host does not have to.
    }
    host.log_line(&[
        "WARN",
        "route#77#ext-plugin-pre-req#3",
        "request_id=1000",
        "no luck",
    ]);
    let lines = host.log().matches("no luck").count();
    assert!(lines < 100, "{lines} lines for 200 failures");
}

#[test]
fn check_config_shows_what_is_in_force_and_no_secret() {
    let files = PluginDir::new().file(
        "host.toml",
        "listen = \"/run/x.sock\"\n[limits]\nmax_connections = 7\n\
         [plugins.say.settings]\npassword = \"${env:PASSWORD}\"\nplain = \"in the file\"\n",
    );
    let arguments = [
        "run",
        "--check-config",
        "--config",
        &files.path("host.toml"),
        "--log=warn",
    ];
    let ended = with_environment(&arguments, &[("PASSWORD", "hunter2")], "");
    assert_eq!(ended.code, 0, "{ended:?}");
    for line in ["max_connections = 7 # ", "filter = \"warn\" # --log"] {
        assert!(
            ended.stdout.contains(line),
            "{line} is not in\n{}",
            ended.stdout
        );
    }
    let all = format!("{ended:?}");
    assert!(
        !all.contains("hunter2") && !all.contains("in the file"),
        "{all}"
    );

    // A plugin's reference leads nowhere: the host would run, without that plugin.
    let ended = plugin_host(&arguments);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.contains("PASSWORD"), "{ended:?}");
}

#[test]
fn check_config_names_every_mistake_at_once() {
    let files = PluginDir::new().file(
        "host.toml",
        "[limits]\nmax_conections = 7\nmax_tokens = 1\n",
    );
    let ended = plugin_host(&[
        "run",
        "--check-config",
        "--config",
        &files.path("host.toml"),
    ]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("did you mean `limits.max_connections`?")
            && ended.stderr.contains("max_tokens"),
        "{ended:?}"
    );
}

#[test]
fn version_tells_what_bug_reports_need() {
    let short = plugin_host(&["version"]);
    assert_eq!(
        short.stdout,
        concat!("plugin-host ", env!("CARGO_PKG_VERSION"), "\n")
    );
    let long = plugin_host(&["version", "--long"]);
    assert_eq!(long.code, 0);
    for key in [
        "commit:",
        "compiler: rustc",
        "ABI:",
        "protocol: ext-plugin-proto",
    ] {
        assert!(long.stdout.contains(key), "{}", long.stdout);
    }
}

#[test]
fn every_command_has_a_help_that_stands_alone() {
    for command in ["run", "call", "check", "version"] {
        let help = plugin_host(&[command, "--help"]);
        assert_eq!(help.code, 0);
        assert!(
            help.stdout.contains("Usage: plugin-host") && help.stdout.contains("Exit codes:"),
            "{}",
            help.stdout
        );
    }
    let help = plugin_host(&["--help"]);
    assert!(!help.stdout.contains("rehearse"), "{}", help.stdout);
}

/// A script that logs before and after it has waited for a time and for the gateway.
fn logs_around_awaits() -> Value {
    json!([
        { "log": ["info", "first"] },
        { "sleep": 20 },
        { "log": ["info", "after a sleep"] },
        { "look": { "var": "route_id" } },
        { "log": ["info", "after a question"] },
    ])
}

fn check_lines_of_a_call(execution: &str) {
    let host = Host::builder()
        .plugin_json("scripted", json!({ "execution": execution }))
        .start();
    let mut gateway = host.gateway();
    gateway.next_id(4711);
    let token = gateway.prepare(
        "route#7#ext-plugin-pre-req#3",
        [("scripted", logs_around_awaits())],
    );
    gateway.next_id(4711);
    gateway.call(token, get("/"));
    for text in ["first", "after a sleep", "saw (none)", "after a question"] {
        host.log_line(&[
            text,
            "plugin=scripted",
            "route=\"route#7#ext-plugin-pre-req#3\"",
            "request_id=4711",
        ]);
    }
}

#[test]
fn what_a_plugin_logs_in_a_call_carries_the_requests_number_and_route_also_after_awaits() {
    check_lines_of_a_call("async");
}

#[test]
fn what_a_blocking_plugin_logs_in_a_call_carries_the_requests_number_and_route() {
    check_lines_of_a_call("blocking");
}

#[test]
fn lines_of_calls_that_wait_at_the_same_time_are_not_mixed_up() {
    let host = Host::builder()
        .plugin("scripted")
        .flag("--event-loops", "1")
        .start();
    let mut gateways: Vec<_> = (0..10)
        .map(|number| {
            let mut gateway = host.gateway();
            let steps =
                json!([{ "sleep": 20 }, { "log": ["info", format!("call {number} here")] }]);
            let token = gateway.prepare(&format!("route#{number}#pre#1"), [("scripted", steps)]);
            gateway.next_id(100 + number);
            (gateway, token)
        })
        .collect();
    for (gateway, token) in &mut gateways {
        gateway.begin(*token, get("/"));
    }
    for (number, (gateway, _)) in gateways.iter_mut().enumerate() {
        gateway.finish();
        host.log_line(&[
            &format!("call {number} here"),
            &format!("route=\"route#{number}#pre#1\""),
            &format!("request_id={}", 100 + number),
        ]);
    }
}

#[test]
fn what_a_plugin_logs_outside_of_calls_names_no_request() {
    let loads = json!({"settings": {"on_load": [{"log": ["info", "while it loads"]}]}});
    let host = Host::builder().plugin_json("scripted", loads).start();
    let line = host.log_line(&["while it loads"]);
    assert!(
        !line.contains("request_id") && !line.contains("route="),
        "{line}"
    );
    let mut gateway = host.gateway();
    let steps = json!([{ "when_configured": { "log": ["info", "while it is configured"] } }]);
    gateway.route([("scripted", steps)]);
    let line = host.log_line(&["while it is configured"]);
    assert!(
        !line.contains("request_id") && !line.contains("route="),
        "{line}"
    );
}
