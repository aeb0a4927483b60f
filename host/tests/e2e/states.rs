//! What one generation of a plugin leaves to the next: over an upgrade, a roll-back and another
//! worker; and what goes wrong with that, which costs nothing.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    message::Message,
    support::{Gateway, Host, get, versions::upgrade, wait_for},
};

/// What an inheriting `scripted` says of the calls it has counted.
fn counted(gateway: &mut Gateway, token: u32) -> (u64, u64) {
    let answer = gateway.call(token, get("/")).to_string();
    let number = |header: &str| {
        let (_, after) = answer.split_once(&format!("{header}='")).unwrap();
        after.split('\'').next().unwrap().parse().unwrap()
    };
    (number("x-calls"), number("x-all"))
}

/// A script that says how often it and its plugin were called.
fn says_calls() -> Value {
    json!([{ "report": ["x-calls", "calls"] }, { "report": ["x-all", "all_calls"] }])
}

/// Settings of a `scripted` that leaves and takes state in this format.
fn inheriting(format: u32, more: Value) -> Value {
    let mut state = json!({ "format": format });
    if let Value::Object(more) = more {
        state.as_object_mut().unwrap().extend(more);
    }
    json!({ "settings": { "state": state } })
}

/// A host whose `scripted` 0.1.0 has counted five calls: three of one route, two of another.
fn with_five_calls(fields: Value) -> (Host, Gateway, [u32; 2]) {
    let host = Host::builder().plugin_json("scripted", fields).start();
    host.log_line(&["plugin loaded"]);
    let mut gateway = host.gateway();
    let tokens = [1, 2].map(|route| {
        gateway.prepare(
            &format!("route#{route}#pre#1"),
            [("scripted", says_calls())],
        )
    });
    for (token, calls) in [(tokens[0], 3), (tokens[1], 2)] {
        (0..calls).for_each(|_| _ = counted(&mut gateway, token));
    }
    (host, gateway, tokens)
}

/// Upgrades to 0.2.0 with these fields and waits until that serves, and is told so.
fn upgrade_to(host: &Host, fields: &Value) {
    upgrade(&host.plugins(), "scripted", "0.2.0", fields);
    host.log_line(&["plugin unloaded", "version=0.1.0"]);
}

#[test]
fn an_upgrade_takes_over_the_state_of_the_plugin_and_of_each_configuration() {
    let (host, mut gateway, tokens) = with_five_calls(inheriting(1, json!({})));
    upgrade_to(&host, &inheriting(1, json!({})));
    host.log_line(&[
        "state of the generation before taken over",
        "from=0.1.0",
        "version=0.2.0",
    ]);
    assert_eq!(counted(&mut gateway, tokens[0]), (4, 6));
    assert_eq!(counted(&mut gateway, tokens[1]), (3, 7));
}

#[test]
fn a_roll_back_takes_over_the_state_of_the_newer_version() {
    let (host, mut gateway, tokens) = with_five_calls(inheriting(1, json!({})));
    upgrade_to(&host, &inheriting(1, json!({})));
    assert_eq!(counted(&mut gateway, tokens[0]), (4, 6));
    let (code, _, stderr) = host.ask(&["rollback", "scripted"]);
    assert_eq!(code, 0, "{stderr}");
    host.log_line(&[
        "state of the generation before taken over",
        "from=0.2.0",
        "version=0.1.0",
    ]);
    assert_eq!(counted(&mut gateway, tokens[0]), (5, 7));
}

#[test]
fn a_state_that_the_new_version_cannot_read_costs_nothing_but_the_state() {
    let (host, mut gateway, tokens) = with_five_calls(inheriting(1, json!({})));
    upgrade_to(&host, &inheriting(2, json!({})));
    let line = host.log_line(&["is refused: it begins anew", "version=0.2.0"]);
    assert!(line.contains("the state is of format 1"), "{line}");
    assert!(line.contains("count=3"), "one line for all: {line}");
    assert_eq!(counted(&mut gateway, tokens[0]), (1, 1));
}

#[test]
fn a_version_that_leaves_state_is_replaced_by_one_that_knows_of_none() {
    let (host, mut gateway, tokens) = with_five_calls(inheriting(1, json!({})));
    upgrade_to(&host, &json!({ "settings": {} }));
    assert_eq!(counted(&mut gateway, tokens[0]), (1, 1));
}

/// What goes wrong with the plugin's own state leaves those of its configurations as they are, and
/// the log says it.
fn check_trouble(before: Value, after: Value, says: &[&str]) {
    let (host, mut gateway, tokens) = with_five_calls(inheriting(1, before));
    upgrade_to(&host, &inheriting(1, after));
    host.log_line(says);
    assert_eq!(counted(&mut gateway, tokens[0]), (4, 1));
}

#[test]
fn an_error_while_state_is_saved_is_logged_and_costs_that_state_alone() {
    let fails = json!({ "on_save": [{ "fail": "no pen" }] });
    check_trouble(
        fails,
        json!({}),
        &["what is not saved begins anew", "no pen", "version=0.1.0"],
    );
}

#[test]
fn a_panic_while_state_is_saved_is_logged_and_costs_that_state_alone() {
    let panics = json!({ "on_save": [{ "panic": "no paper" }] });
    check_trouble(
        panics,
        json!({}),
        &["what is not saved begins anew", "panicked: no paper"],
    );
}

#[test]
fn an_error_while_state_is_taken_is_logged_and_costs_that_state_alone() {
    let fails = json!({ "on_restore": [{ "fail": "cannot read" }] });
    check_trouble(
        json!({}),
        fails,
        &["is refused: it begins anew", "cannot read", "version=0.2.0"],
    );
}

#[test]
fn a_panic_while_state_is_taken_is_logged_and_costs_that_state_alone() {
    let panics = json!({ "on_restore": [{ "panic": "bad hand" }] });
    check_trouble(
        json!({}),
        panics,
        &["is refused: it begins anew", "panicked: bad hand"],
    );
}

#[test]
fn a_state_that_is_too_long_is_not_handed_over_and_the_others_are() {
    let long = json!({ "ballast": 4 << 20 });
    check_trouble(
        long,
        json!({}),
        &["what is not saved begins anew", "4194304 are the most"],
    );
}

#[test]
fn states_beyond_what_a_plugin_may_leave_in_all_are_left_out() {
    let fields = inheriting(1, json!({ "ballast_of_each": 3 << 20 }));
    let host = Host::builder().plugin_json("scripted", fields).start();
    host.log_line(&["plugin loaded"]);
    let mut gateway = host.gateway();
    let tokens: Vec<u32> = (0..6)
        .map(|_| gateway.route([("scripted", says_calls())]))
        .collect();
    for token in &tokens {
        counted(&mut gateway, *token);
    }
    upgrade_to(&host, &inheriting(1, json!({})));
    host.log_line(&[
        "what is not saved begins anew",
        "16777216 bytes in all",
        "count=1",
    ]);
    let handed_over = tokens
        .iter()
        .filter(|token| counted(&mut gateway, **token).0 == 2);
    assert_eq!(handed_over.count(), 5);
}

#[test]
fn a_plugin_that_takes_too_long_to_save_its_state_keeps_nothing_from_serving() {
    let blocks = json!({ "on_save": [{ "log": ["info", "saves"] }, { "block": 8_000 }] });
    let (host, mut gateway, tokens) = with_five_calls(inheriting(1, blocks));
    upgrade(
        &host.plugins(),
        "scripted",
        "0.2.0",
        &inheriting(1, json!({})),
    );
    host.log_line(&["plugins: saves"]);
    assert_eq!(
        counted(&mut gateway, tokens[0]),
        (1, 1),
        "the new one serves meanwhile"
    );
    host.log_line(&["has not saved its state in time", "version=0.1.0"]);
    host.log_line(&["plugin unloaded", "version=0.1.0"]);
}

#[test]
fn a_plugin_that_takes_too_long_to_take_state_serves_meanwhile() {
    let blocks = json!({ "on_restore": [{ "log": ["info", "restores"] }, { "block": 3_000 }] });
    let (host, mut gateway, tokens) = with_five_calls(inheriting(1, json!({})));
    upgrade(&host.plugins(), "scripted", "0.2.0", &inheriting(1, blocks));
    host.log_line(&["plugins: restores"]);
    assert_eq!(counted(&mut gateway, tokens[0]), (1, 1));
    host.log_line(&["has not taken its state over yet", "version=0.2.0"]);
    host.log_line(&["state of the generation before taken over"]);
    assert_eq!(counted(&mut gateway, tokens[0]), (5, 7));
}

/// Has another worker take over and waits until it has what the one before has left.
fn replace_worker(host: &Host) {
    let taken = || {
        host.log()
            .matches("state of the generation before taken over")
            .count()
    };
    let before = taken();
    host.replace_worker();
    wait_for("the next worker has the state", || {
        (taken() > before).then_some(())
    });
}

#[test]
fn another_worker_takes_over_the_state_of_the_plugin_and_of_each_configuration() {
    let (host, mut gateway, tokens) = with_five_calls(inheriting(1, json!({})));
    replace_worker(&host);
    assert_eq!(counted(&mut gateway, tokens[0]), (4, 6));
    assert_eq!(counted(&mut gateway, tokens[1]), (3, 7));
    replace_worker(&host);
    assert_eq!(
        counted(&mut gateway, tokens[0]),
        (5, 8),
        "and so does the next one"
    );
}

#[test]
fn a_call_that_is_open_does_not_keep_states_from_being_handed_over() {
    let (host, mut gateway, tokens) = with_five_calls(inheriting(1, json!({})));
    let mut waiting = host.gateway();
    let asks = waiting.route([(
        "scripted",
        json!([{ "report": ["x-id", { "var": "route_id" }] }]),
    )]);
    waiting.begin(asks, get("/"));
    assert_eq!(waiting.receive().to_string(), "ask 'route_id'");
    replace_worker(&host);
    assert_eq!(counted(&mut gateway, tokens[0]), (4, 7));
    waiting.send(&Message::Info { result: None });
    assert_eq!(
        waiting.finish(),
        "rewrite path none headers [x-id='(none)'] args [] response headers [] body none"
    );
}

#[test]
fn a_plugin_that_does_not_save_its_state_does_not_keep_a_worker_from_going() {
    let blocks = json!({ "on_save": [{ "block": 60_000 }] });
    let (host, mut gateway, tokens) = with_five_calls(inheriting(1, blocks));
    let old = host.worker();
    host.replace_worker();
    host.log_line(&["has not saved its state in time"]);
    wait_for("the old worker is gone", || {
        (!host.workers().contains(&old)).then_some(())
    });
    assert_eq!(counted(&mut gateway, tokens[0]), (1, 1));
}

#[test]
fn after_a_crash_plugins_begin_anew() {
    let (host, gateway, tokens) = with_five_calls(inheriting(1, json!({})));
    host.signal_worker(Signal::KILL);
    // What the old connection was doing at that moment is not the point here.
    drop(gateway);
    assert_eq!(counted(&mut host.gateway(), tokens[0]), (1, 1));
}

#[test]
fn a_limiter_keeps_its_buckets_over_an_upgrade_and_another_worker() {
    let host = Host::with("limit-req");
    host.log_line(&["plugin loaded"]);
    let mut gateway = host.gateway();
    // One request in three hours.
    let limited = json!({ "rate": 0.0001 });
    let used_up = gateway.prepare("route#1#pre#1", [("limit-req", &limited)]);
    let other = gateway.prepare("route#2#pre#1", [("limit-req", &limited)]);
    assert_eq!(gateway.call(used_up, get("/")), "unchanged");
    let refused = "stop 503 headers [] body ''";
    assert_eq!(gateway.call(used_up, get("/")), refused);

    upgrade(&host.plugins(), "limit-req", "0.2.0", &Value::Null);
    host.log_line(&["plugin unloaded", "version=0.1.0"]);
    assert_eq!(gateway.call(used_up, get("/")), refused);

    replace_worker(&host);
    assert_eq!(gateway.call(used_up, get("/")), refused);
    assert_eq!(
        gateway.call(other, get("/")),
        "unchanged",
        "each route has its own"
    );
    assert_eq!(gateway.call(other, get("/")), refused);
}
