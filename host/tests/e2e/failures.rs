//! Plugins that fail on a call, panic, take too long, are missing or refuse their configuration:
//! what the gateway is told, and what the log says.

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{Gateway, Host, get, request, response};

const ERROR: &str = "error 1";

/// Everything that a plugin can change on a request.
fn changes() -> Vec<Value> {
    vec![
        json!({ "set_path": "/changed" }),
        json!({ "set_header": ["x-a", "changed"] }),
        json!({ "remove_header": "x-b" }),
        json!({ "set_arg": ["q", "changed"] }),
        json!({ "set_response_header": ["x-c", "changed"] }),
        json!({ "set_body": "changed" }),
    ]
}

/// The ways in which a plugin fails on a call, and what the log says of each.
fn mishaps() -> [(Value, &'static str); 5] {
    [
        (json!({ "fail": "no luck" }), "failed: no luck"),
        (json!({ "panic": "oh no" }), "panicked: oh no at "),
        (json!({ "sleep": 60_000 }), "had not answered after 200 ms"),
        (
            json!({ "set_header": ["a b", "1"] }),
            r#"a header named "a b""#,
        ),
        (json!({ "stop": { "status": 99 } }), "status 99"),
    ]
}

/// A host whose scripted plugin has this policy and 200 ms for a call.
fn host_with_policy(policy: &str) -> Host {
    Host::builder()
        .plugin_json(
            "scripted",
            json!({ "failure_policy": policy, "timeout_ms": 200 }),
        )
        .start()
}

/// A request that a plugin may find much to change on.
fn call(gateway: &mut Gateway, token: u32) -> String {
    let call = request("POST", "/old").header("x-b", "1").arg("q", "1");
    gateway.call(token, call).to_string()
}

#[test]
fn a_plugin_that_fails_closes_the_call_whatever_it_did_before() {
    let host = host_with_policy("closed");
    let mut gateway = host.gateway();
    for (mishap, reason) in mishaps() {
        let mut steps = changes();
        steps.push(mishap);
        let token = gateway.route([("scripted", json!(steps))]);
        assert_eq!(call(&mut gateway, token), ERROR, "{reason}");
        host.log_line(&["a call failed closed", "scripted", "0.1.0", reason]);
    }
}

#[test]
fn a_plugin_that_fails_openly_leaves_no_trace() {
    let host = host_with_policy("open");
    let mut gateway = host.gateway();
    for (mishap, reason) in mishaps() {
        let mut fails = changes();
        fails.push(mishap);
        let before = json!([{ "set_header": ["x-before", "1"] }, { "set_body": "before" }]);
        let after =
            json!([{ "report": ["x-path", "path"] }, { "report": ["x-headers", "headers"] }]);
        let token = gateway.route([
            ("scripted", &before),
            ("scripted", &json!(fails)),
            ("scripted", &after),
        ]);
        assert_eq!(
            call(&mut gateway, token),
            "rewrite path none headers [x-before='1', x-path='/old', \
             x-headers='x-b=1, x-before=1, x-path=/old'] args [] response headers [] body 'before'",
            "{reason}"
        );
        host.log_line(&["was skipped", "scripted", "0.1.0", reason]);
    }
}

#[test]
fn a_plugin_that_fails_openly_on_a_response_leaves_no_trace() {
    let host = host_with_policy("open");
    let mut gateway = host.gateway();
    let steps = json!([
        { "set_status": 500 },
        { "set_header": ["X-A", "changed"] },
        { "set_body": "changed" },
        { "fail": "no luck" },
    ]);
    let token = gateway.route([("scripted", steps)]);
    assert_eq!(
        gateway.call(token, response(200).header("X-A", "1")),
        "answer 0 headers [X-A='1'] body none"
    );
}

#[test]
fn the_operators_failure_policy_wins_over_the_plugins() {
    for (own, operators, expected) in [("open", "closed", ERROR), ("closed", "open", "unchanged")] {
        let host = Host::builder()
            .plugin_json("scripted", json!({ "failure_policy": own }))
            .config(&format!(
                "[plugins.scripted]\nfailure_policy = \"{operators}\"\n"
            ))
            .start();
        let mut gateway = host.gateway();
        let token = gateway.route([("scripted", json!([{ "fail": "no luck" }]))]);
        assert_eq!(
            gateway.call(token, get("/")),
            expected,
            "{own}, {operators}"
        );
    }
}

#[test]
fn the_operators_time_limit_wins_over_the_plugins() {
    let host = Host::builder()
        .plugin_json("scripted", json!({ "timeout_ms": 60_000 }))
        .config("[plugins.scripted]\ntimeout_ms = 50\n")
        .start();
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", json!([{ "sleep": 60_000 }]))]);
    assert_eq!(gateway.call(token, get("/")), ERROR);
    host.log_line(&["had not answered after 50 ms"]);
}

#[test]
fn a_call_has_a_budget_whatever_its_plugins_may_take() {
    let host = Host::builder()
        .plugin_json("scripted", json!({ "timeout_ms": 60_000 }))
        .flag("--call-budget", "300ms")
        .start();
    let mut gateway = host.gateway();
    let naps = json!([{ "sleep": 200 }]);
    let token = gateway.route([("scripted", &naps), ("scripted", &naps)]);
    assert_eq!(gateway.call(token, get("/")), ERROR);
    assert_eq!(
        gateway
            .call(token, response(200))
            .to_string()
            .split(' ')
            .nth(1),
        Some("503")
    );
}

#[test]
fn a_question_that_the_gateway_does_not_answer_counts_against_the_plugins_time() {
    let host = host_with_policy("closed");
    let mut gateway = host.gateway();
    let steps = json!([{ "report": ["x-id", { "var": "route_id" }] }]);
    let token = gateway.route([("scripted", steps)]);
    gateway.begin(token, get("/"));
    assert_eq!(gateway.receive().to_string(), "ask 'route_id'");
    assert_eq!(gateway.finish(), ERROR);
}

#[test]
fn a_plugin_that_blocks_past_its_time_on_the_pool_is_answered_for() {
    let host = Host::builder()
        .plugin_json(
            "scripted",
            json!({ "execution": "blocking", "timeout_ms": 100 }),
        )
        .start();
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", json!([{ "block": 15_000 }]))]);
    let began = Instant::now();
    assert_eq!(gateway.call(token, get("/")), ERROR);
    assert!(
        began.elapsed().as_secs() < 15,
        "nobody waited for the plugin"
    );
    let quick = gateway.route([("scripted", json!([{ "set_path": "/next" }]))]);
    assert_eq!(
        gateway.call(quick, get("/")),
        "rewrite path '/next' headers [] args [] response headers [] body none"
    );
}

#[test]
fn a_plugin_that_asks_when_its_call_is_over_is_told_so() {
    let host = Host::builder()
        .plugin_json(
            "scripted",
            json!({ "execution": "blocking", "timeout_ms": 50 }),
        )
        .start();
    let mut gateway = host.gateway();
    let late = json!([{ "block": 400 }, { "look": { "var": "route_id" } }]);
    let token = gateway.route([("scripted", late)]);
    assert_eq!(gateway.call(token, get("/")), ERROR);
    // Nothing of the call that is over reaches the one that comes next on the connection.
    let next = gateway.route([("scripted", json!([{ "look": { "var": "next" } }]))]);
    assert_eq!(gateway.call(next, get("/")), "unchanged");
    host.log_line(&["saw (CallOver)"]);
    assert_eq!(gateway.call(next, get("/")), "unchanged");
    assert_eq!(gateway.asked(), ["next", "next"]);
}

#[test]
fn a_plugin_that_says_that_it_blocks_holds_nobody_else_up() {
    let host = Host::builder()
        .plugin_json("scripted", json!({ "execution": "blocking" }))
        .plugin("say")
        .flag("--event-loops", "1")
        .start();
    let mut blocked = host.gateway();
    let token = blocked.route([(
        "scripted",
        json!([{ "log": ["info", "blocks now"] }, { "block": 15_000 }]),
    )]);
    blocked.begin(token, get("/"));
    host.log_line(&["blocks now"]);
    let mut other = host.gateway();
    let say = other.route([("say", json!({ "body": "hi" }))]);
    assert_eq!(
        other.call(say, get("/")),
        "stop 200 headers [X-Resp-A6-Runner='Rust'] body 'hi'"
    );
    assert!(blocked.is_silent(), "the blocking plugin has not ended yet");
}

#[test]
fn the_operator_can_say_that_a_plugin_blocks() {
    let host = Host::builder()
        .plugin("scripted")
        .config("[plugins.scripted]\nexecution = \"blocking\"\n")
        .flag("--event-loops", "1")
        .start();
    let mut blocked = host.gateway();
    let token = blocked.route([(
        "scripted",
        json!([{ "log": ["info", "blocks now"] }, { "block": 15_000 }]),
    )]);
    blocked.begin(token, get("/"));
    host.log_line(&["blocks now"]);
    let mut other = host.gateway();
    let quick = other.route([("scripted", json!([]))]);
    assert_eq!(other.call(quick, get("/")), "unchanged");
    assert!(blocked.is_silent(), "the blocking plugin has not ended yet");
}

#[test]
fn plugins_that_wait_hold_nobody_up() {
    let host = Host::builder()
        .plugin("scripted")
        .flag("--event-loops", "1")
        .start();
    let mut waiting: Vec<Gateway> = (0..50).map(|_| host.gateway()).collect();
    let token = waiting[0].route([("scripted", json!([{ "sleep": 15_000 }]))]);
    for gateway in &mut waiting {
        gateway.begin(token, get("/"));
    }
    let mut other = host.gateway();
    let quick = other.route([("scripted", json!([]))]);
    assert_eq!(other.call(quick, get("/")), "unchanged");
    assert!(waiting.iter_mut().all(Gateway::is_silent));
}

#[test]
fn a_panic_harms_one_call_and_nothing_else() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let panics = gateway.route([("scripted", json!([{ "panic": "oh no" }]))]);
    let counts = gateway.route([("scripted", json!([{ "report": ["x-calls", "calls"] }]))]);
    for calls in 1..=3 {
        assert_eq!(gateway.call(panics, get("/")), ERROR);
        assert_eq!(
            gateway.call(counts, get("/")),
            format!("rewrite path none headers [x-calls='{calls}'] args [] response headers [] body none")
                .as_str()
        );
    }
}

#[test]
fn one_missing_plugin_closes_the_whole_chain_even_if_the_others_are_open() {
    let host = host_with_policy("open");
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", "[]"), ("missing", "{}")]);
    assert_eq!(gateway.call(token, get("/")), ERROR);
    assert_eq!(
        gateway.call(token, response(200)).to_string(),
        "answer 503 headers [Content-Type='text/plain; charset=utf-8'] \
         body '503 Service Unavailable: this response could not be processed.\\n'"
    );
    host.log_line(&["no plugin `missing` is loaded"]);
}

#[test]
fn a_refused_configuration_closes_the_call_even_if_the_plugin_is_open() {
    let host = host_with_policy("open");
    let mut gateway = host.gateway();
    for (conf, reason) in [
        (
            json!("not json at all"),
            "scripted: version 0.1.0: the plugin refuses",
        ),
        (
            json!([{ "when_configured": { "fail": "not today" } }]),
            "not today",
        ),
        (
            json!([{ "when_configured": { "panic": "oh no" } }]),
            "panicked: oh no",
        ),
    ] {
        let token = gateway.route([("scripted", conf)]);
        assert_eq!(gateway.call(token, get("/")), ERROR, "{reason}");
        host.log_line(&[
            "this route's chain cannot run",
            "#ext-plugin-pre-req#1",
            reason,
        ]);
    }
}

#[test]
fn a_configuration_that_does_not_fit_the_schema_is_refused_with_the_place_in_the_log() {
    let host = Host::builder()
        .plugin("say")
        .plugin("response-rewrite")
        .start();
    let mut gateway = host.gateway();
    for (plugin, conf, place) in [
        ("say", json!({ "body": 7 }), "/body"),
        ("say", json!({}), "body"),
        (
            "response-rewrite",
            json!({ "filters": [{ "regex": "a", "replace": "b", "scope": "twice" }] }),
            "/filters/0/scope",
        ),
        ("say", json!([]), "object"),
    ] {
        let token = gateway.route([(plugin, conf)]);
        assert_eq!(gateway.call(token, get("/")), ERROR, "{place}");
        host.log_line(&[
            "this route's chain cannot run",
            plugin,
            "0.1.0",
            "schema",
            place,
        ]);
    }
    let token = gateway.route([("say", "{broken")]);
    assert_eq!(gateway.call(token, get("/")), ERROR);
    host.log_line(&["this route's chain cannot run", "say", "line 1, column 2"]);
}

#[test]
fn the_log_names_plugin_version_route_request_and_reason_of_a_failed_call() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let token = gateway.prepare(
        "route#42#ext-plugin-pre-req#7",
        [("scripted", json!([{ "fail": "no luck" }]))],
    );
    gateway.next_id(4711);
    assert_eq!(gateway.call(token, get("/")), ERROR);
    host.log_line(&[
        "WARN",
        "a call failed closed",
        "route#42#ext-plugin-pre-req#7",
        "request_id=4711",
        "scripted",
        "0.1.0",
        "no luck",
    ]);
}

#[test]
fn the_log_names_the_reason_at_most_once_a_second() {
    const CALLS: usize = 200;
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", json!([{ "fail": "no luck" }]))]);
    let began = Instant::now();
    for _ in 0..CALLS {
        assert_eq!(gateway.call(token, get("/")), ERROR);
    }
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    // A line that comes last shows that the log has no more to come.
    let last = gateway.route([("scripted", json!([{ "fail": "the last one" }]))]);
    gateway.call(last, get("/"));
    host.log_line(&["the last one"]);
    let lines = host.log().matches("no luck").count();
    assert!((1..=seconds + 1).contains(&lines), "{lines} lines");
}

#[test]
fn what_a_plugin_logs_names_it_and_its_version() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", json!([{ "log": ["warn", "look here"] }]))]);
    gateway.call(token, get("/"));
    host.log_line(&["WARN", "look here", "plugin=scripted", "version=0.1.0"]);
}
