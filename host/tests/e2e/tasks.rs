//! Background tasks of plugins: that they run, whom they hold up, and when they end.

use serde_json::{Value, json};

use crate::support::{Host, get, versions::upgrade, wait_for};

/// A host with `scripted`, whose settings are these.
fn with_settings(settings: &Value) -> Host {
    Host::builder()
        .plugin_json("scripted", json!({ "settings": settings }))
        .start()
}

/// Where these texts stand in the log for the last time.
fn places(host: &Host, texts: &[&str]) -> Vec<usize> {
    let log = host.log();
    let of = |text: &&str| {
        let found = log.rfind(text);
        found.unwrap_or_else(|| panic!("{text} is not there"))
    };
    texts.iter().map(of).collect()
}

#[test]
fn a_task_runs_beside_calls_and_what_it_logs_names_no_request() {
    let host = with_settings(&json!({ "tasks": [{ "repeat": "at work" }] }));
    let line = host.log_line(&["at work", "plugin=scripted", "version=0.1.0"]);
    assert!(
        !line.contains("request_id") && !line.contains("route="),
        "{line}"
    );
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", json!([]))]);
    assert_eq!(gateway.call(token, get("/")), "unchanged");
}

#[test]
fn a_panic_in_a_task_ends_that_task_and_is_logged() {
    let host = with_settings(&json!({
        "tasks": [
            { "deeds": [{ "sleep": 1 }, { "panic": "a task went off" }] },
            { "repeat": "still at work" },
        ],
    }));
    host.log_line(&["a background task panicked: a task went off", "scripted"]);
    let before = host.log().matches("still at work").count();
    wait_for("the other task goes on", || {
        (host.log().matches("still at work").count() > before).then_some(())
    });
}

#[test]
fn a_task_that_blocks_holds_up_no_call_and_no_task_of_another_plugin() {
    let host = Host::builder()
        .plugin_json(
            "scripted",
            json!({ "settings": { "tasks": [{ "deeds": [{ "log": ["info", "blocks now"] }, { "block": 60_000 }] }] } }),
        )
        .plugin("say")
        .start();
    host.log_line(&["blocks now"]);
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", json!([]))]);
    for _ in 0..10 {
        assert_eq!(gateway.call(token, get("/")), "unchanged");
    }
    assert!(!host.log().contains("held an event loop up"));
}

#[test]
fn tasks_end_after_on_unload_and_before_the_plugin_is_gone() {
    let host = with_settings(&json!({
        "tasks": [{ "repeat": "the task" }],
        "on_unload": [{ "sleep": 50 }, { "log": ["info", "on_unload is over"] }],
    }));
    host.log_line(&["plugins: the task"]);
    upgrade(&host.plugins(), "scripted", "0.2.0", &Value::Null);
    host.log_line(&["plugin unloaded", "version=0.1.0"]);
    let [over, dropped, unloaded] = places(
        &host,
        &[
            "on_unload is over",
            "the task is dropped",
            "plugin unloaded",
        ],
    )[..] else {
        unreachable!("three were asked for");
    };
    assert!(over < dropped && dropped < unloaded, "{}", host.log());
    let before = host.log().matches("plugins: the task ").count();
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(host.log().matches("plugins: the task ").count(), before);
}

#[test]
fn a_task_that_panics_while_it_is_dropped_at_its_plugins_end_keeps_nothing_from_ending() {
    let host = with_settings(&json!({
        "tasks": [{ "deeds": [{ "panic_when_dropped": "not yet" }] }],
    }));
    upgrade(&host.plugins(), "scripted", "0.2.0", &Value::Null);
    host.log_line(&["the drop of a future panicked: not yet"]);
    host.log_line(&["plugin unloaded", "version=0.1.0"]);
}

#[test]
fn a_plugin_that_spawned_tasks_and_then_does_not_load_leaves_none() {
    let host = Host::builder()
        .plugin_json(
            "scripted",
            json!({ "settings": { "on_load": [{ "spawn": [1_000, 60_000] }, { "spawn": [25, 60_000] }] } }),
        )
        .flag("--rehearse", "false")
        .start();
    host.log_line(&["the plugin has too many background tasks", "scripted"]);
    let worker = host.worker();
    wait_for("the thread of its tasks ends", || {
        let threads = std::fs::read_dir(format!("/proc/{worker}/task")).unwrap();
        let mut names = threads
            .flatten()
            .filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok());
        (!names.any(|name| name.trim() == "tasks")).then_some(())
    });
}

#[test]
fn a_call_may_spawn_tasks_up_to_the_bound_which_are_counted_until_they_end() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let many = gateway.route([("scripted", json!([{ "spawn": [1_024, 300] }]))]);
    let one = gateway.route([("scripted", json!([{ "spawn": [1, 1] }]))]);
    assert_eq!(gateway.call(many, get("/")), "unchanged");
    assert_eq!(host.gateway().call(one, get("/")), "error 1");
    host.log_line(&["the plugin has too many background tasks"]);
    wait_for("the tasks have ended", || {
        (host.gateway().call(one, get("/")) == "unchanged").then_some(())
    });
}

#[test]
fn a_host_with_tasks_ends_in_its_time() {
    let mut host = with_settings(&json!({
        "tasks": [{ "repeat": "at work" }, { "deeds": [{ "block": 60_000 }] }],
    }));
    host.log_line(&["plugin loaded"]);
    assert!(host.stop().success());
}

#[test]
fn a_wait_is_given_up_after_its_time() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let steps = json!([{ "wait_within": [60_000, 20] }, { "wait_within": [1, 60_000] }]);
    let token = gateway.route([("scripted", steps)]);
    assert_eq!(gateway.call(token, get("/")), "unchanged");
    host.log_line(&["it had not ended after 20ms"]);
    host.log_line(&["the wait is over"]);
}

#[test]
fn a_worker_that_dies_in_a_task_is_the_fault_of_that_plugin() {
    let host = with_settings(&json!({ "tasks": [{ "deeds": [{ "sleep": 1_500 }, "abort"] }] }));
    host.log_line(&["died of SIGABRT in plugin scripted 0.1.0 while running a background task"]);
}
