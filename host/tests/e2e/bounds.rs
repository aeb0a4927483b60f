//! Bounds that no other story has: threads for plugins that block, and the time for loading.

use serde_json::json;

use crate::support::{Host, get};

#[test]
fn a_call_of_a_blocking_plugin_waits_for_a_thread_where_all_are_busy_within_its_budget() {
    let host = Host::builder()
        .plugin_json("scripted", json!({ "execution": "blocking" }))
        .flag("--blocking-threads", "1")
        .flag("--call-budget", "2s")
        .start();
    let (mut first, mut second) = (host.gateway(), host.gateway());
    let short = first.route([(
        "scripted",
        json!([{ "block": 300 }, { "set_path": "/ran" }]),
    )]);
    let long = first.route([(
        "scripted",
        json!([{ "log": ["info", "holds the thread"] }, { "block": 15_000 }]),
    )]);
    first.begin(short, get("/"));
    second.begin(short, get("/"));
    for gateway in [&mut first, &mut second] {
        let answer = gateway.finish().to_string();
        assert!(answer.starts_with("rewrite path '/ran'"), "{answer}");
    }

    first.begin(long, get("/"));
    host.log_line(&["holds the thread"]);
    assert_eq!(second.call(short, get("/")), "error 1");
    host.log_line(&[
        "scripted",
        "found no free thread within 2000 ms: all 1 of the pool",
    ]);
}

#[test]
fn a_plugin_that_has_not_loaded_after_10_seconds_is_missing_and_the_others_serve() {
    let host = Host::builder()
        .plugin_json(
            "scripted",
            json!({ "settings": { "on_load": [{ "block": 30_000 }] } }),
        )
        .plugin("say")
        .flag("--rehearse", "false")
        .start();
    host.log_line(&["ERROR", "scripted", "had not loaded after 10 s"]);
    let mut gateway = host.gateway();
    let missing = gateway.route([("scripted", json!([]))]);
    assert_eq!(gateway.call(missing, get("/")), "error 1");
    let say = gateway.route([("say", json!({ "body": "hi" }))]);
    assert_eq!(
        gateway.call(say, get("/")),
        "stop 200 headers [X-Resp-A6-Runner='Rust'] body 'hi'"
    );
}
