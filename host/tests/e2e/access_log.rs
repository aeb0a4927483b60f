//! The access log: a line for each call.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::support::{Host, get, response, wait_for};

fn host(access_log: &Path, flags: &[(&str, &str)]) -> Host {
    let mut builder = Host::builder()
        .plugin_json("scripted", json!({ "failure_policy": "open" }))
        .plugin("say")
        .flag("--access-log", access_log.to_str().unwrap());
    for (flag, value) in flags {
        builder = builder.flag(flag, value);
    }
    builder.start()
}

fn lines(file: &Path, count: usize) -> Vec<String> {
    wait_for("lines of the access log", || {
        let text = fs::read_to_string(file).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (lines.len() >= count).then_some(lines)
    })
}

#[test]
fn each_call_leaves_an_object_with_what_each_plugin_made_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("access.log");
    let host = host(&file, &[("--log-format", "json")]);
    let mut gateway = host.gateway();
    let token = gateway.route([
        ("scripted", json!([{ "set_path": "/next" }])),
        ("say", json!({ "body": "hi" })),
    ]);
    gateway.next_id(17);
    gateway.call(token, get("/a\"b\nc"));
    let closed = gateway.route([("nowhere", json!({}))]);
    gateway.call(closed, get("/f"));
    gateway.call(token, response(404));
    let lines: Vec<Value> = lines(&file, 3)
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let first = &lines[0];
    assert_eq!(first["request_id"], 17);
    assert_eq!(first["phase"], "request");
    assert_eq!(first["method"], "GET");
    assert_eq!(first["path"], "/a\"b\nc");
    assert_eq!(first["outcome"], "stopped");
    assert_eq!(first["status"], 200);
    let plugins = first["plugins"].as_array().unwrap();
    let told: Vec<_> = plugins
        .iter()
        .map(|part| {
            (
                part["plugin"].as_str().unwrap(),
                part["outcome"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(told, [("scripted", "passed"), ("say", "stopped")]);
    let parts: f64 = plugins
        .iter()
        .map(|part| part["microseconds"].as_f64().unwrap())
        .sum();
    assert!(first["microseconds"].as_f64().unwrap() >= parts);
    assert_eq!(lines[1]["outcome"], "chain_refused");
    assert_eq!(lines[1]["plugins"], json!([]));
    assert_eq!(lines[2]["phase"], "response");
    assert_eq!(lines[2]["status"], 404);
    assert!(
        !host.log().contains("microseconds"),
        "none of it is in the log"
    );
}

#[test]
fn a_line_of_text_cannot_be_forged_by_a_client_and_tells_of_a_skipped_plugin() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("access.log");
    let host = host(&file, &[]);
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", json!([{ "fail": "no luck" }]))]);
    gateway.call(token, get("/x\n2026-01-01 forged"));
    let lines = lines(&file, 1);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].contains(r#"path="/x\n2026-01-01 forged""#),
        "{lines:?}"
    );
    assert!(
        lines[0].contains("scripted@0.1.0:error(skipped):"),
        "{lines:?}"
    );
}

#[test]
fn an_access_log_is_rotated_goes_on_with_the_next_worker_and_long_paths_are_cut() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("access.log");
    let flags = [("--log-rotation", "2KiB"), ("--log-keep-files", "2")];
    let host = host(&file, &flags);
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", json!([]))]);
    let long = format!("/{}", "x".repeat(3_000));
    for _ in 0..6 {
        gateway.call(token, get(&long));
    }
    wait_for("a second file", || {
        directory.path().join("access.log.1").exists().then_some(())
    });
    let (code, _, error) = host.ask(&["replace-worker"]);
    assert_eq!(code, 0, "{error}");
    gateway.call(token, get("/after"));
    wait_for("the next worker's line", || {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.lines().all(|line| line.len() < 1_000), "{text}");
        text.contains("/after").then_some(())
    });
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
}
