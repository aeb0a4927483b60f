//! Plugins that are still at it when their time is over: their calls are answered for, what they may
//! still touch stays, and the threads that they keep are counted and never waited for.

use serde_json::{Value, json};

use crate::support::{
    Host, get,
    serving::{answer_of, serving_with, until, word},
    versions::version,
    wait_for,
};

const ERROR: &str = "error 1";

/// The pool as the host tells of it.
fn pool(host: &Host) -> Value {
    let (code, shown, error) = host.ask(&["status", "--json"]);
    assert_eq!(code, 0, "{error}");
    let mut status: Value = serde_json::from_str(&shown).unwrap();
    status["pool"].take()
}

#[test]
fn an_answer_that_comes_after_the_deadline_comes_too_late() {
    let host = Host::builder()
        .plugin_json("scripted", json!({ "timeout_ms": 100 }))
        .start();
    let mut gateway = host.gateway();
    let steps = json!([{ "block": 400 }, { "set_path": "/late" }]);
    let token = gateway.route([("scripted", steps)]);
    assert_eq!(gateway.call(token, get("/")), ERROR);
    host.log_line(&["had not answered after 100 ms"]);
}

#[test]
fn a_call_that_panics_while_it_is_dropped_at_its_deadline_harms_nobody() {
    for execution in ["async", "blocking"] {
        let host = Host::builder()
            .plugin_json(
                "scripted",
                json!({ "timeout_ms": 100, "execution": execution }),
            )
            .start();
        let mut gateway = host.gateway();
        let token = gateway.route([("scripted", json!([{ "panic_when_dropped": "not yet" }]))]);
        assert_eq!(gateway.call(token, get("/")), ERROR);
        host.log_line(&["the drop of a future panicked: not yet", "scripted"]);
        let next = gateway.route([("scripted", json!([]))]);
        assert_eq!(gateway.call(next, get("/")), "unchanged", "{execution}");
    }
}

#[test]
fn a_version_whose_call_does_not_return_is_unloaded_only_when_it_has() {
    let (host, directory, mut gateway, token) = serving_with(
        Host::builder().config("[plugins.versioned]\nexecution = \"blocking\"\ntimeout_ms = 100\n"),
    );
    let mut blocks = word("slow");
    blocks["block"] = json!(3_000);
    let mut blocked = host.gateway();
    let slow = blocked.prepare("route#2#pre#1", [("versioned", blocks)]);
    blocked.begin(slow, get("/"));
    host.log_line(&["blocks now"]);
    assert_eq!(blocked.finish(), ERROR);

    version("0.2.0").swap_in(&directory);
    until(&mut gateway, token, "0.2.0", "hello");
    let log = host.log();
    assert!(
        !log.contains("plugin unloaded"),
        "the old version is still inside of a call"
    );
    host.log_line(&["plugin unloaded", "version=0.1.0"]);
    assert_eq!(pool(&host)["running"], 0, "its thread has come back");
}

#[test]
fn where_too_many_threads_are_kept_past_their_time_the_worker_is_replaced() {
    let host = Host::builder()
        .plugin_json(
            "scripted",
            json!({ "execution": "blocking", "timeout_ms": 100 }),
        )
        .flag("--blocking-threads", "4")
        .flag("--stuck-threads", "2")
        .start();
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", json!([{ "block": 15_000 }]))]);
    assert_eq!(gateway.call(token, get("/")), ERROR);
    assert_eq!(
        pool(&host),
        json!({ "threads": 4, "running": 1, "stuck": 1, "stuck_in": { "scripted 0.1.0": 1 } })
    );
    assert!(!host.log().contains("should be replaced"));
    assert_eq!(gateway.call(token, get("/")), ERROR);
    host.log_line(&[
        "2 of 4 threads of the pool are inside plugins past their calls' deadlines",
        "(scripted 0.1.0: 2)",
        "the worker should be replaced",
    ]);
    // The next worker has threads, and the connection is its own.
    wait_for("the next worker serves", || {
        (pool(&host)["stuck"] == 0).then_some(())
    });
    let next = gateway.route([("scripted", json!([]))]);
    assert_eq!(gateway.call(next, get("/")), "unchanged");
}

#[test]
fn status_names_who_keeps_threads_past_their_time() {
    let host = Host::builder()
        .plugin_json(
            "scripted",
            json!({ "execution": "blocking", "timeout_ms": 100 }),
        )
        .start();
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", json!([{ "block": 15_000 }]))]);
    assert_eq!(gateway.call(token, get("/")), ERROR);
    let (_, said, _) = host.ask(&["status"]);
    assert!(
        said.contains("1 of 32 in use, 1 by calls past their time"),
        "{said}"
    );
    assert!(said.contains("stuck in scripted 0.1.0: 1"), "{said}");
}

#[test]
fn where_every_thread_is_stuck_calls_fail_in_their_time_and_plugins_can_still_be_changed() {
    let (host, directory, mut gateway, token) = serving_with(
        Host::builder()
            .config("[plugins.versioned]\nexecution = \"blocking\"\ntimeout_ms = 100\n")
            .flag("--blocking-threads", "1"),
    );
    let mut blocks = word("slow");
    blocks["block"] = json!(15_000);
    let slow = gateway.prepare("route#2#pre#1", [("versioned", blocks)]);
    assert_eq!(gateway.call(slow, get("/")), ERROR);
    assert_eq!(gateway.call(token, get("/")), ERROR);
    host.log_line(&[
        "found no free thread within 100 ms: all 1 of the pool are in use, 1 of them by calls past \
         their time",
    ]);
    version("0.2.0").swap_in(&directory);
    host.log_line(&["plugin loaded", "0.2.0"]);
}

#[test]
fn a_call_that_waits_on_the_pool_gives_its_thread_back_at_its_deadline() {
    let host = Host::builder()
        .plugin_json(
            "scripted",
            json!({ "execution": "blocking", "timeout_ms": 300 }),
        )
        .flag("--blocking-threads", "1")
        .start();
    let mut gateway = host.gateway();
    let waits = gateway.route([("scripted", json!([{ "sleep": 60_000 }]))]);
    assert_eq!(gateway.call(waits, get("/")), ERROR);
    wait_for("the thread comes back", || {
        (pool(&host)["running"] == 0).then_some(())
    });
    let next = gateway.route([("scripted", json!([]))]);
    assert_eq!(gateway.call(next, get("/")), "unchanged");
}

#[test]
fn a_plugin_without_a_free_thread_is_skipped_where_its_policy_is_open() {
    let host = Host::builder()
        .plugin_json(
            "scripted",
            json!({ "execution": "blocking", "timeout_ms": 100, "failure_policy": "open" }),
        )
        .plugin("versioned")
        .flag("--blocking-threads", "1")
        .start();
    let mut gateway = host.gateway();
    let steps = json!([{ "block": 15_000 }]);
    for _ in 0..2 {
        // Each on a route of its own, since the log does not tell the same twice in a second.
        let token = gateway.route([("scripted", &steps), ("versioned", &word("next"))]);
        assert_eq!(
            gateway.call(token, get("/").header("x-nonce", "n")),
            answer_of("0.1.0", "next").as_str()
        );
    }
    host.log_line(&["was skipped", "scripted", "found no free thread"]);
}
