//! The five plugins as they are delivered: their own `plugin.json`, their library as cargo builds
//! it, and the configurations that routes give them.

use serde_json::{Value, json};

use crate::support::{Call, Host, get, request, response};

/// Gives a plugin a route's configuration and compares what comes of a call.
fn check(plugin: &str, conf: Value, call: Call, expected: &str) {
    let host = Host::with(plugin);
    let mut gateway = host.gateway();
    gateway.set_response_body(b"one two two");
    let token = gateway.route([(plugin, conf)]);
    assert_eq!(gateway.call(token, call), expected);
}

#[test]
fn say_answers_with_its_body() {
    check(
        "say",
        json!({ "body": "hello" }),
        get("/"),
        "stop 200 headers [X-Resp-A6-Runner='Rust'] body 'hello'",
    );
}

#[test]
fn say_lets_the_request_pass_where_its_body_is_empty() {
    check("say", json!({ "body": "" }), get("/"), "unchanged");
}

#[test]
fn fault_injection_answers_with_its_status_and_body() {
    check(
        "fault-injection",
        json!({ "http_status": 403, "body": "injected" }),
        get("/"),
        "stop 403 headers [] body 'injected'",
    );
}

#[test]
fn fault_injection_of_no_percent_lets_every_request_pass() {
    let host = Host::with("fault-injection");
    let mut gateway = host.gateway();
    let conf = json!({ "http_status": 403, "percentage": 0 });
    let token = gateway.route([("fault-injection", conf)]);
    for _ in 0..100 {
        assert_eq!(gateway.call(token, get("/")), "unchanged");
    }
}

#[test]
fn limit_req_refuses_what_is_above_rate_and_burst() {
    let host = Host::with("limit-req");
    let mut gateway = host.gateway();
    let conf = json!({ "rate": 0.001, "rejected_code": 429 });
    let token = gateway.route([("limit-req", conf)]);
    assert_eq!(gateway.call(token, get("/")), "unchanged");
    for _ in 0..3 {
        assert_eq!(gateway.call(token, get("/")), "stop 429 headers [] body ''");
    }
}

#[test]
fn limit_req_lets_the_burst_wait_without_holding_anybody_up() {
    let host = Host::builder()
        .plugin("limit-req")
        .plugin("say")
        .flag("--event-loops", "1")
        .start();
    let mut waits = host.gateway();
    // One request in two seconds.
    let limit = waits.prepare(
        "route#1#pre#1",
        [("limit-req", json!({ "rate": 0.5, "burst": 1 }))],
    );
    assert_eq!(waits.call(limit, get("/")), "unchanged");
    waits.begin(limit, get("/"));

    let mut other = host.gateway();
    let say = other.prepare("route#2#pre#1", [("say", json!({ "body": "hi" }))]);
    assert_eq!(
        other.call(say, get("/")),
        "stop 200 headers [X-Resp-A6-Runner='Rust'] body 'hi'"
    );
    assert!(waits.is_silent(), "its turn has not come yet");
    assert_eq!(waits.finish(), "unchanged");
}

#[test]
fn limit_req_refuses_a_wait_beyond_its_deadline() {
    let host = Host::builder()
        .plugin_json("limit-req", json!({ "timeout_ms": 200 }))
        .start();
    let mut gateway = host.gateway();
    let token = gateway.route([("limit-req", json!({ "rate": 0.01, "burst": 10 }))]);
    assert_eq!(gateway.call(token, get("/")), "unchanged");
    assert_eq!(gateway.call(token, get("/")), "stop 503 headers [] body ''");
}

#[test]
fn request_body_rewrite_replaces_the_body() {
    check(
        "request-body-rewrite",
        json!({ "new_body": "NEW" }),
        request("POST", "/"),
        "rewrite path none headers [] args [] response headers [] body 'NEW'",
    );
}

#[test]
fn request_body_rewrite_refuses_an_empty_body() {
    check(
        "request-body-rewrite",
        json!({ "new_body": "" }),
        request("POST", "/"),
        "error 1",
    );
}

#[test]
fn response_rewrite_changes_status_headers_and_body() {
    check(
        "response-rewrite",
        json!({ "status": 201, "headers": { "X-Server-Id": "9527" }, "body": "rewritten" }),
        response(200)
            .header("Content-Type", "text/plain")
            .header("x-server-id", "1"),
        "answer 201 headers [Content-Type='text/plain', X-Server-Id='9527'] body 'rewritten'",
    );
}

#[test]
fn response_rewrite_filters_the_upstreams_body() {
    check(
        "response-rewrite",
        json!({ "body": "ignored", "filters": [
            { "regex": "two", "scope": "once", "replace": "2" },
            { "regex": "(o)ne", "scope": "global", "replace": "${1}1" },
        ] }),
        response(200).header("Content-Type", "text/plain"),
        "answer 0 headers [Content-Type='text/plain'] body 'o1 2 two'",
    );
}

#[test]
fn response_rewrite_leaves_a_body_in_which_nothing_matches() {
    check(
        "response-rewrite",
        json!({ "filters": [{ "regex": "three", "scope": "global", "replace": "3" }] }),
        response(200).header("Content-Type", "text/plain"),
        "answer 0 headers [Content-Type='text/plain'] body none",
    );
}

#[test]
fn response_rewrite_refuses_a_regex_that_is_none() {
    let host = Host::with("response-rewrite");
    let mut gateway = host.gateway();
    let conf = json!({ "filters": [{ "regex": "(", "scope": "once", "replace": "" }] });
    let token = gateway.route([("response-rewrite", conf)]);
    assert!(
        gateway
            .call(token, response(200))
            .to_string()
            .starts_with("answer 503")
    );
    host.log_line(&["response-rewrite", "0.1.0", "filters[0]"]);
}

#[test]
fn the_five_serve_side_by_side() {
    let host = [
        "fault-injection",
        "limit-req",
        "request-body-rewrite",
        "response-rewrite",
        "say",
    ]
    .into_iter()
    .fold(Host::builder(), |builder, plugin| builder.plugin(plugin))
    .start();
    let mut gateway = host.gateway();
    let token = gateway.route([
        ("limit-req", json!({ "rate": 1000 })),
        (
            "fault-injection",
            json!({ "http_status": 500, "percentage": 0 }),
        ),
        ("response-rewrite", json!({ "status": 201 })),
        (
            "request-body-rewrite",
            json!({ "new_body": "lost, since say stops" }),
        ),
        ("say", json!({ "body": "hello" })),
    ]);
    assert_eq!(
        gateway.call(token, get("/")),
        "stop 200 headers [X-Resp-A6-Runner='Rust'] body 'hello'"
    );
    assert_eq!(
        gateway.call(token, response(200)),
        "answer 201 headers [] body none"
    );
    host.log_line(&[
        "the plugin directory has been read",
        "serving=5",
        "problems=0",
    ]);
}
