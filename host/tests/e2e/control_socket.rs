//! What operators see of a running host over its control socket, and whose the socket is.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use serde_json::{Value, json};

use crate::support::{
    Host, plugin_host,
    serving::{serving, until_without_a_failure},
    versions::version,
    wait_for,
};

/// The control socket of the host on this address, below its runtime directory.
fn control_socket(host: &Host) -> PathBuf {
    wait_for("the control socket", || {
        let addresses = fs::read_dir(host.directory().join("plugin-host")).ok()?;
        let mut sockets = addresses.map(|address| address.unwrap().path().join("control.sock"));
        sockets.find(|socket| socket.exists())
    })
}

#[test]
fn status_tells_what_serves_what_did_before_and_what_failed() {
    let (host, directory, mut gateway, token) = serving();
    version("0.2.0").swap_in(&directory);
    until_without_a_failure(&mut gateway, token, "0.1.0", "0.2.0");
    host.log_line(&["plugin unloaded", "version=0.1.0"]);
    version("0.3.0")
        .settings(json!({ "load": "fail" }))
        .swap_in(&directory);
    host.log_line(&["ERROR", "0.3.0", "told to fail"]);

    let (code, shown, _) = host.ask(&["status", "--json"]);
    assert_eq!(code, 0);
    let status: Value = serde_json::from_str(&shown).unwrap();
    let plugin = &status["plugins"][0];
    let digest = &plugin["digest"];
    assert_eq!(digest.as_str().unwrap().len(), 64, "a SHA-256: {digest}");
    let since = plugin["since"].as_str().unwrap();
    assert!(since.starts_with("20") && since.ends_with('Z'), "{since}");
    assert!(plugin["calls"]["calls"].as_u64().unwrap() > 0, "{plugin}");
    assert_eq!(plugin["calls"]["errors"], 0);
    let error = plugin["last_error"].as_str().unwrap();
    assert!(error.contains("told to fail"), "{error}");
    for (field, value) in [
        ("place", json!(directory)),
        ("name", json!("versioned")),
        ("state", json!("serving")),
        ("serving", json!("0.2.0")),
        ("previous", json!("0.1.0")),
        ("last_tried", json!("0.3.0")),
        ("execution", json!("async")),
        ("failure_policy", json!("closed")),
        ("found_blocking", Value::Null),
        ("stalls", json!(0)),
        ("configurations", json!(1)),
        ("last_failure", Value::Null),
    ] {
        assert_eq!(plugin[field], value, "{field}");
    }
    let retired = &status["retired"];
    let mapped = retired["mapped_bytes"].as_u64().unwrap();
    assert!(mapped > 64 << 10, "bytes: {mapped}");
    for (field, count) in [("draining", 0), ("unloaded", 1), ("stuck", 0)] {
        assert_eq!(retired[field], count, "{field}");
    }
    assert_eq!(status["quarantined"], json!([]));
    assert_eq!(
        status["pool"],
        json!({ "threads": 32, "running": 0, "stuck": 0, "stuck_in": {} })
    );
}

#[test]
fn status_names_a_plugin_that_has_never_loaded() {
    let host = Host::builder().start();
    version("0.1.0")
        .settings(json!({ "load": "fail" }))
        .swap_in(&host.plugins().join("versioned"));
    host.log_line(&["ERROR", "0.1.0", "told to fail"]);
    let (_, status, _) = host.ask(&["status"]);
    assert!(status.contains("versioned does not serve"), "{status}");
    assert!(status.contains("told to fail"), "{status}");
}

#[test]
fn a_roll_back_among_versions_side_by_side_has_to_say_which() {
    let host = Host::builder().start();
    for number in ["1.2.0", "2.0.0"] {
        version(number).swap_in(&host.plugins().join(format!("versioned@{number}")));
        host.log_line(&["plugin loaded", &format!("version={number}")]);
    }
    let (code, _, error) = host.ask(&["rollback", "versioned"]);
    assert_eq!(code, 1);
    assert!(error.contains("1.2.0, 2.0.0"), "{error}");
    assert!(error.contains("versioned@=VERSION"), "{error}");

    version("1.2.9").swap_in(&host.plugins().join("versioned@1.2.9"));
    host.log_line(&["plugin loaded", "version=1.2.9"]);
    let (code, _, error) = host.ask(&["rollback", "versioned@=2.0.0"]);
    assert_eq!(code, 1);
    assert!(error.contains("no earlier version"), "{error}");
}

#[test]
fn only_its_owner_may_use_the_control_socket() {
    let host = Host::builder().start();
    let mode = fs::metadata(control_socket(&host)).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
}

#[test]
fn where_no_host_runs_the_error_says_where_it_was_looked_for() {
    let nowhere = tempfile::tempdir().unwrap();
    let runtime_dir = nowhere.path().to_str().unwrap();
    for command in [&["status"][..], &["reload"], &["rollback", "say"]] {
        let rest = ["--listen", "/tmp/nobody.sock", "--runtime-dir", runtime_dir];
        let ended = plugin_host(&[command, &rest].concat());
        assert_eq!(ended.code, 1, "{ended:?}");
        for part in [runtime_dir, "control.sock", "is it running", "--listen"] {
            assert!(ended.stderr.contains(part), "{ended:?}");
        }
    }
}
