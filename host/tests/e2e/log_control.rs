//! The log while the host runs: its last lines, those that come, levels of single plugins, lines that
//! repeat, and files that begin anew at a size.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::support::{
    Gateway, Host, PluginDir,
    asking::{get, post, read_until},
    get as call, wait_for,
    workers::control_socket,
};

/// Calls a plugin that logs at this level.
fn log(gateway: &mut Gateway, plugin: &str, level: &str, text: &str) {
    let token = gateway.route([(plugin, json!([{ "log": [level, text] }]))]);
    assert_eq!(gateway.call(token, call("/")), "unchanged");
}

fn host() -> Host {
    let host = Host::builder()
        .plugin("scripted")
        .plugin("say")
        .flag("--log", "info")
        .start();
    host.log_line(&["the plugin directory has been read"]);
    host
}

fn lines(host: &Host, query: &str) -> Vec<Value> {
    let mut answer = get(&format!("/v1/log/lines{query}")).of(host).json();
    match answer["lines"].take() {
        Value::Array(lines) => lines,
        other => panic!("{other}"),
    }
}

#[test]
fn the_last_lines_are_told_of_all_processes_by_plugin_and_by_level() {
    let host = host();
    let mut gateway = host.gateway();
    log(&mut gateway, "scripted", "warn", "a warning of its own");
    host.log_line(&["a warning of its own"]);
    let all = lines(&host, "");
    let has = |part: &str| {
        all.iter()
            .any(|line| line["line"].as_str().unwrap().contains(part))
    };
    assert!(has("listening"), "the supervisor's: {all:?}");
    assert!(
        has("the plugin directory has been read"),
        "the worker's: {all:?}"
    );
    let numbers: Vec<u64> = all
        .iter()
        .map(|line| line["number"].as_u64().unwrap())
        .collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    let of_plugin = lines(&host, "?plugin=scripted");
    assert!(of_plugin.len() >= 2, "loaded, and its own: {of_plugin:?}");
    assert!(of_plugin.iter().all(|line| line["plugin"] == "scripted"));
    let warnings = lines(&host, "?plugin=scripted&level=warn");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0]["level"], "warn");
    assert_eq!(lines(&host, "?tail=1").len(), 1);
    let (code, said, _) = host.ask(&["logs", "scripted", "--level", "warn"]);
    assert_eq!(code, 0);
    assert!(
        said.contains("a warning of its own plugin=scripted"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    let (code, _, error) = host.ask(&["logs", "--level", "loud"]);
    assert_eq!(code, 1);
    assert!(error.contains("no level"), "{error}");
}

struct Following(Child, BufReader<std::process::ChildStdout>);

impl Following {
    fn of(host: &Host, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_plugin-host"))
            .args(["logs", "-f"])
            .args(arguments)
            .arg("--listen")
            .arg(host.socket())
            .arg("--runtime-dir")
            .arg(host.directory())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self(child, lines)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn who_follows_the_log_of_a_plugin_gets_its_lines_over_workers_until_the_host_ends() {
    let mut host = host();
    let mut gateway = host.gateway();
    let mut following = Following::of(&host, &["scripted"]);
    let mut as_json = Following::of(&host, &["scripted", "--json"]);
    // What is there already shows that they follow.
    assert!(following.line().contains("plugin loaded"));
    let line: Value = serde_json::from_str(&as_json.line()).unwrap();
    assert_eq!(line["plugin"], "scripted");
    log(&mut gateway, "scripted", "info", "the next one");
    assert!(following.line().contains("the next one"));
    host.replace_worker();
    let mut gateway = host.gateway();
    log(&mut gateway, "scripted", "info", "the last one");
    while !following.line().contains("the last one") {}
    drop(gateway);
    host.stop();
    wait_for("who follows hears that the host has ended", || {
        following.0.try_wait().unwrap()
    });
}

#[test]
fn no_more_than_so_many_follow_the_log() {
    let host = Host::builder().start();
    let socket = wait_for("the control socket", || control_socket(host.directory()));
    let follow = || {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        stream
            .set_read_timeout(Some(crate::support::PATIENCE))
            .unwrap();
        let asked = b"GET /v1/log/follow HTTP/1.1\r\nHost: localhost\r\n\r\n";
        std::io::Write::write_all(&mut stream, asked).unwrap();
        let head = read_until(&mut stream, "\r\n\r\n");
        (stream, head)
    };
    let mut streams: Vec<_> = (0..16).map(|_| follow()).collect();
    assert!(streams.iter().all(|(_, head)| head.contains(" 200 ")));
    assert!(follow().1.contains(" 503 "));
    streams.pop();
    wait_for("there is room again", || {
        follow().1.contains(" 200 ").then_some(())
    });
}

#[test]
fn a_plugin_has_a_level_of_its_own_while_the_others_log_what_is_configured() {
    let host = host();
    let mut gateway = host.gateway();
    log(&mut gateway, "scripted", "debug", "not yet");
    let (code, said, _) = host.ask(&["log-level", "--plugin", "scripted", "debug"]);
    assert_eq!((code, said.as_str()), (0, "info\nplugin scripted: debug\n"));
    log(&mut gateway, "scripted", "debug", "in detail");
    let line = host.log_line(&["DEBUG", "in detail", "plugin=scripted"]);
    assert!(
        !host.log().contains("not yet") && !host.log().contains("DEBUG plugin_host"),
        "{line}"
    );
    // The next worker keeps to it.
    host.replace_worker();
    let mut gateway = host.gateway();
    log(&mut gateway, "scripted", "debug", "still in detail");
    host.log_line(&["DEBUG", "still in detail"]);
    assert_eq!(
        post("/v1/log")
            .body(json!({ "plugin": "scripted", "level": "error" }))
            .of(&host)
            .status,
        200
    );
    log(&mut gateway, "scripted", "warn", "less of it");
    let (_, said, _) = host.ask(&["log-level", "--plugin", "scripted", "--reset"]);
    assert_eq!(said, "info\n");
    log(&mut gateway, "scripted", "warn", "as configured");
    host.log_line(&["WARN", "as configured"]);
    assert!(!host.log().contains("less of it"));
    let refusal = post("/v1/log")
        .body(json!({ "level": "debug" }))
        .of(&host)
        .problem(400);
    assert!(refusal.contains("`plugin`"), "{refusal}");
}

#[test]
fn a_filter_on_plugins_means_their_lines_and_not_the_hosts() {
    let host = Host::builder()
        .plugin("scripted")
        .flag("--log", "info,plugins=debug")
        .start();
    host.log_line(&["the plugin directory has been read"]);
    log(&mut host.gateway(), "scripted", "debug", "in detail");
    host.log_line(&["DEBUG plugins: in detail"]);
    assert!(!host.log().contains("DEBUG plugin_host"));
}

#[test]
fn a_line_that_a_plugin_repeats_is_sampled_and_others_are_not() {
    let host = host();
    let mut gateway = host.gateway();
    let steps = json!([{ "log": ["warn", "again"] }]);
    let token = gateway.route([("scripted", steps)]);
    for _ in 0..200 {
        gateway.call(token, call("/"));
    }
    for number in 0..50 {
        log(
            &mut gateway,
            "scripted",
            "warn",
            &format!("another {number}"),
        );
    }
    host.log_line(&["another 49"]);
    let again = host.log().matches(" again ").count();
    assert!((10..100).contains(&again), "{again} lines for 200");
    assert_eq!(host.log().matches("another ").count(), 50);
    wait_for("the next one says how many were left out", || {
        gateway.call(token, call("/"));
        host.log().contains("left_out=").then_some(())
    });
}

#[test]
fn a_log_file_begins_anew_at_its_size_and_so_many_stay() {
    let files = PluginDir::new();
    let file = files.path("host.log");
    let host = Host::builder()
        .plugin("scripted")
        .flag("--log", "info")
        .flag("--log-file", &file)
        .flag("--log-rotation", "2KiB")
        .flag("--log-keep-files", "3")
        .start();
    let mut gateway = host.gateway();
    for number in 0..100 {
        log(
            &mut gateway,
            "scripted",
            "info",
            &format!("line {number} of many"),
        );
    }
    let size = |name: &str| fs::metadata(files.path(name)).map(|file| file.len());
    wait_for("the last line is written", || {
        fs::read_to_string(&file)
            .ok()?
            .contains("line 99 of many")
            .then_some(())
    });
    for name in ["host.log", "host.log.1", "host.log.2"] {
        assert!(size(name).unwrap() <= 2_048, "{name}");
    }
    assert!(size("host.log.3").is_err());
    let before = fs::read_to_string(files.path("host.log.1")).unwrap();
    assert!(
        before.ends_with('\n') && before.contains(" of many"),
        "whole lines: {before}"
    );
}
