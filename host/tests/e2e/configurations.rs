//! Tokens and the parsed configurations behind them: which calls share an instance, what a plugin is
//! told when it is loaded, and calls that come before their plugins are there.

use std::{sync::Barrier, thread};

use serde_json::{Value, json};

use crate::support::{Call, Gateway, Host, get, response, wait_for};

/// A script that reports how many calls its configuration's instance has seen.
fn count() -> Value {
    json!([{ "report": ["x-calls", "calls"] }])
}

/// How many calls the instance behind a token has seen, with this one.
fn calls(gateway: &mut Gateway, token: u32) -> String {
    let answer = gateway.call(token, get("/")).to_string();
    let calls = answer
        .strip_prefix("rewrite path none headers [x-calls='")
        .and_then(|rest| rest.split('\'').next());
    calls.unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[test]
fn the_same_key_and_configuration_give_every_worker_the_same_token_and_instance() {
    let host = Host::with("scripted");
    let mut one = host.gateway();
    let mut other = host.gateway();
    let token = one.prepare("route#1#pre#1", [("scripted", count())]);
    assert_eq!(calls(&mut one, token), "1");
    assert_eq!(
        other.prepare("route#1#pre#1", [("scripted", count())]),
        token
    );
    assert_eq!(calls(&mut other, token), "2");
    assert_eq!(calls(&mut one, token), "3");
}

#[test]
fn a_new_version_of_a_route_with_the_same_bytes_keeps_the_instance() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let old = gateway.prepare("route#1#pre#1", [("scripted", count())]);
    assert_eq!(calls(&mut gateway, old), "1");
    let new = gateway.prepare("route#1#pre#2", [("scripted", count())]);
    assert_ne!(new, old, "another key is another token");
    assert_eq!(calls(&mut gateway, new), "2");
    assert_eq!(calls(&mut gateway, old), "3", "the old token is still good");
}

#[test]
fn a_new_version_of_a_route_with_other_bytes_gets_an_instance_of_its_own() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let old = gateway.prepare("route#1#pre#1", [("scripted", count().to_string())]);
    assert_eq!(calls(&mut gateway, old), "1");
    let spaced = format!(" {}", count());
    let new = gateway.prepare("route#1#pre#2", [("scripted", spaced)]);
    assert_eq!(calls(&mut gateway, new), "1");
    assert_eq!(calls(&mut gateway, old), "2");
}

#[test]
fn two_routes_with_the_same_bytes_have_an_instance_each() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let one = gateway.prepare("route#1#pre#1", [("scripted", count())]);
    let other = gateway.prepare("route#2#pre#1", [("scripted", count())]);
    let hook = gateway.prepare("route#1#post#1", [("scripted", count())]);
    for token in [one, other, hook] {
        assert_eq!(calls(&mut gateway, token), "1");
    }
}

#[test]
fn the_same_key_prepared_at_once_from_many_connections_is_one_token_and_one_instance() {
    const CONNECTIONS: usize = 32;
    let host = Host::with("scripted");
    let all_there = Barrier::new(CONNECTIONS);
    let mut seen: Vec<(u32, u32)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                scope.spawn(|| {
                    let mut gateway = host.gateway();
                    all_there.wait();
                    let token = gateway.prepare("route#1#pre#1", [("scripted", count())]);
                    let calls = calls(&mut gateway, token);
                    (calls.parse().unwrap(), token)
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .collect()
    });
    seen.sort_unstable();
    let token = seen[0].1;
    let expected: Vec<_> = (1..=32).map(|calls| (calls, token)).collect();
    assert_eq!(seen, expected);
}

#[test]
fn fifty_routes_are_prepared_on_connections_of_their_own_while_others_stand_idle() {
    let host = Host::with("say");
    // The gateway opens the call's connection first, and some on which no frame ever comes.
    let mut idle: Vec<Gateway> = (0..50).map(|_| host.gateway()).collect();
    let mut routes: Vec<(Gateway, u32)> = (0..50)
        .map(|number| {
            let waits = host.gateway();
            let mut prepares = host.gateway();
            let key = format!("route#{number}#pre#1");
            let body = json!({ "body": format!("route {number}") });
            (waits, prepares.prepare(&key, [("say", body)]))
        })
        .collect();
    for (number, (gateway, token)) in routes.iter_mut().enumerate() {
        assert_eq!(
            gateway.call(*token, get("/")),
            format!("stop 200 headers [X-Resp-A6-Runner='Rust'] body 'route {number}'").as_str()
        );
    }
    assert!(
        idle.iter_mut().all(Gateway::is_silent),
        "they are left open"
    );
}

#[test]
fn a_token_that_nobody_uses_expires_and_one_in_use_lives_on() {
    let host = Host::builder()
        .plugin("scripted")
        .flag("--conf-expire-time", "1")
        .start();
    let mut gateway = host.gateway();
    let unused = gateway.prepare("route#1#pre#1", [("scripted", "[]")]);
    let used = gateway.prepare("route#2#pre#1", [("scripted", "[]")]);
    wait_for("a token has expired", || {
        assert_eq!(gateway.call(used, get("/")), "unchanged");
        host.log().contains("expired=1").then_some(())
    });
    assert_eq!(gateway.call(unused, get("/")), "error 2");
    let again = gateway.prepare("route#1#pre#1", [("scripted", "[]")]);
    assert_ne!(again, unused, "no number is given twice");
    assert_eq!(gateway.call(again, get("/")), "unchanged");
}

#[test]
fn beyond_the_bound_on_tokens_superseded_ones_go_first_and_live_ones_loudly() {
    let host = Host::builder()
        .plugin("scripted")
        .flag("--max-tokens", "16")
        .start();
    let mut gateway = host.gateway();
    let prepare = |key: &str| host.gateway().prepare(key, [("scripted", "[]")]);
    let superseded = prepare("route#0#pre#1");
    let kept: Vec<u32> = (0..16)
        .map(|route| prepare(&format!("route#{route}#pre#2")))
        .collect();
    for token in &kept {
        assert_eq!(gateway.call(*token, get("/")), "unchanged");
    }
    assert_eq!(gateway.call(superseded, get("/")), "error 2");
    assert!(!host.log().contains("too many live configurations"));

    prepare("route#16#pre#2");
    host.log_line(&["ERROR", "too many live configurations", "--max-tokens"]);
    let lost = kept
        .into_iter()
        .filter(|token| gateway.call(*token, get("/")) == "error 2");
    assert_eq!(lost.count(), 1);
}

#[test]
fn a_host_that_starts_where_another_was_killed_honours_none_of_its_tokens() {
    let killed = Host::with("scripted");
    let token = killed.gateway().route([("scripted", "[]")]);
    // Its directory stays, and in it the socket that nobody listens on any more.
    let next = Host::builder().beside(&killed);
    drop(killed);
    let next = next.start();
    let mut gateway = next.gateway();
    assert_eq!(gateway.call(token, get("/")), "error 2");
    let again = gateway.route([("scripted", "[]")]);
    assert_eq!(gateway.call(again, get("/")), "unchanged");
}

#[test]
fn a_limiter_keeps_its_bucket_when_its_route_is_edited_elsewhere() {
    let host = Host::with("limit-req");
    let mut gateway = host.gateway();
    // One request in a thousand seconds.
    let conf = json!({ "rate": 0.001, "rejected_code": 429 });
    let old = gateway.prepare("route#1#pre#1", [("limit-req", &conf)]);
    assert_eq!(gateway.call(old, get("/")), "unchanged");
    let new = gateway.prepare("route#1#pre#2", [("limit-req", &conf)]);
    let mut second_worker = host.gateway();
    let same = second_worker.prepare("route#1#pre#2", [("limit-req", &conf)]);
    for (gateway, token) in [(&mut gateway, new), (&mut second_worker, same)] {
        assert_eq!(gateway.call(token, get("/")), "stop 429 headers [] body ''");
    }
    let other_route = gateway.prepare("route#2#pre#1", [("limit-req", &conf)]);
    assert_eq!(gateway.call(other_route, get("/")), "unchanged");
}

#[test]
fn a_configuration_that_takes_long_to_parse_holds_no_prepare_and_no_other_call_up() {
    let host = Host::builder()
        .plugin("scripted")
        .flag("--event-loops", "1")
        .start();
    let mut slow = host.gateway();
    let steps = json!([
        { "when_configured": { "log": ["info", "parsing"] } },
        { "when_configured": { "block": 2000 } },
    ]);
    let token = slow.route([("scripted", steps)]);
    slow.begin(token, get("/"));
    host.log_line(&["parsing"]);
    let mut other = host.gateway();
    let quick = other.prepare("route#2#pre#1", [("scripted", "[]")]);
    assert_eq!(other.call(quick, get("/")), "unchanged");
    assert!(slow.is_silent(), "the first call waits for its chain");
    assert_eq!(slow.finish(), "unchanged");
}

#[test]
fn a_configuration_that_takes_longer_than_the_calls_budget_closes_the_call() {
    let host = Host::builder()
        .plugin("scripted")
        .flag("--call-budget", "200ms")
        .start();
    let mut gateway = host.gateway();
    let steps = json!([{ "when_configured": { "block": 1000 } }]);
    let token = gateway.route([("scripted", steps)]);
    assert_eq!(gateway.call(token, get("/")), "error 1");
    host.log_line(&["were not ready within the call's budget", "route#1"]);
}

#[test]
fn a_plugin_gets_its_settings_with_the_operators_over_them() {
    let host = Host::builder()
        .plugin_json(
            "scripted",
            json!({ "settings": { "on_load": [{ "log": ["info", "by default"] }], "on_configure": [{ "fail": "as always" }] } }),
        )
        .config(
            "[plugins.scripted.settings]\n\
             on_load = [{ log = [\"info\", \"${env:MESSAGE}\"] }]\n",
        )
        .env("MESSAGE", "by the operator")
        .start();
    host.log_line(&["by the operator", "plugin=scripted"]);
    assert!(
        !host.log().contains("by default"),
        "the operator's list replaces the plugin's"
    );
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", "[]")]);
    assert_eq!(gateway.call(token, get("/")), "error 1");
    host.log_line(&["scripted", "as always"]);
}

#[test]
fn a_plugin_that_fails_to_load_is_missing_and_the_others_serve() {
    for (mishap, reason) in [
        (json!({ "fail": "no backend" }), "no backend"),
        (json!({ "panic": "oh no" }), "panicked: oh no"),
    ] {
        let host = Host::builder()
            .plugin_json("scripted", json!({ "settings": { "on_load": [mishap] } }))
            .plugin("say")
            .start();
        let mut gateway = host.gateway();
        let failed = gateway.route([("scripted", "[]")]);
        assert_eq!(gateway.call(failed, get("/")), "error 1");
        host.log_line(&[
            "ERROR",
            "scripted",
            "0.1.0",
            "libscripted.so",
            "was not loaded",
            reason,
        ]);
        let say = gateway.prepare("route#2#pre#1", [("say", json!({ "body": "hi" }))]);
        assert_eq!(
            gateway.call(say, get("/")),
            "stop 200 headers [X-Resp-A6-Runner='Rust'] body 'hi'"
        );
    }
}

#[test]
fn calls_that_come_before_their_plugin_is_loaded_wait_for_it() {
    for deed in ["sleep", "block"] {
        let host = Host::builder()
            .plugin_json(
                "scripted",
                json!({ "settings": { "on_load": [{ "log": ["info", "loading"] }, { deed: 500 }] } }),
            )
            .start();
        let mut gateway = host.gateway();
        let token = gateway.route([("scripted", count())]);
        assert_eq!(calls(&mut gateway, token), "1");
        host.log_line(&["loading"]);
    }
}

#[test]
fn a_plugin_that_takes_long_to_load_does_not_hold_the_others_up() {
    let host = Host::builder()
        .plugin_json(
            "scripted",
            json!({ "settings": { "on_load": [{ "sleep": 8000 }] } }),
        )
        .plugin("say")
        .start();
    let mut gateway = host.gateway();
    let token = gateway.route([("say", json!({ "body": "hi" }))]);
    assert_eq!(
        gateway.call(token, get("/")),
        "stop 200 headers [X-Resp-A6-Runner='Rust'] body 'hi'"
    );
    assert!(!host.log().contains("plugin loaded plugin=scripted"));
}

#[test]
fn both_phases_of_a_route_can_be_served_by_one_token() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", count())]);
    let call = |gateway: &mut Gateway, call: Call| gateway.call(token, call).to_string();
    assert!(call(&mut gateway, get("/")).contains("x-calls='1'"));
    assert!(call(&mut gateway, response(200)).contains("x-calls='2'"));
}

#[test]
fn a_broken_plugin_hides_no_other_and_is_named_in_the_log() {
    let host = Host::builder()
        .plugin("say")
        .plugin_json("scripted", json!({ "version": "9.9.9" }))
        .plugin_json("stub", json!({ "abi": "^7" }))
        .start();
    host.log_line(&["ERROR", "scripted", "9.9.9", "0.1.0"]);
    host.log_line(&["ERROR", "stub", "^7"]);
    let mut gateway = host.gateway();
    let token = gateway.route([("say", json!({ "body": "hi" }))]);
    assert_eq!(
        gateway.call(token, get("/")),
        "stop 200 headers [X-Resp-A6-Runner='Rust'] body 'hi'"
    );
}
