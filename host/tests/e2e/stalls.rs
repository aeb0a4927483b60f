//! Plugins that hold an event loop up without having said that they block: how they are found out,
//! what that means for their calls and everybody else's, and how the label goes again.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    Gateway, Host, get,
    serving::{serving_with, until, word},
    versions::version,
};

/// A host with one event loop and the scripted plugin, which does not say that it blocks, and may
/// hold the loop for as long as a test likes.
fn host() -> Host {
    let host = Host::builder()
        .plugin("scripted")
        .flag("--event-loops", "1")
        .flag("--loop-stall-limit", "60s")
        .start();
    host.log_line(&["the plugin directory has been read"]);
    host
}

/// What the host says of its only plugin.
fn status(host: &Host) -> Value {
    let (code, shown, error) = host.ask(&["status", "--json"]);
    assert_eq!(code, 0, "{error}");
    let mut status: Value = serde_json::from_str(&shown).unwrap();
    status["plugins"][0].take()
}

/// Calls a plugin that blocks for long, and shows that it holds nobody up.
fn expect_the_pool(host: &Host) {
    let mut blocked = host.gateway();
    let steps = json!([{ "log": ["info", "blocks for long"] }, { "block": 15_000 }]);
    let token = blocked.route([("scripted", steps)]);
    blocked.begin(token, get("/"));
    host.log_line(&["blocks for long"]);
    let mut other = host.gateway();
    let quick = other.route([("scripted", json!([]))]);
    assert_eq!(other.call(quick, get("/")), "unchanged");
    assert!(blocked.is_silent(), "the blocking plugin has not ended yet");
}

/// Has the plugin do something long on the event loop, and gives the line of the log about it.
fn stall(host: &Host, deed: Value) -> String {
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", json!([deed]))]);
    assert_eq!(gateway.call(token, get("/")), "unchanged");
    host.log_line(&["WARN", "holds an event loop up", "scripted", "0.1.0"])
}

#[test]
fn a_plugin_that_sleeps_on_a_loop_is_found_at_its_first_stall_and_runs_on_the_pool_from_then_on() {
    let host = host();
    assert_eq!(status(&host)["execution"], "async");
    let line = stall(&host, json!({ "block": 500 }));
    assert!(line.contains("(asleep)"), "{line}");
    assert!(line.contains(r#"write "execution": "blocking""#), "{line}");
    host.log_line(&["the event loop has come back"]);
    let status = status(&host);
    assert_eq!(status["execution"], "blocking");
    assert_eq!(status["found_blocking"]["how"], "asleep");
    assert_eq!(status["stalls"], 1);
    expect_the_pool(&host);
    assert_eq!(host.log().matches("holds an event loop up").count(), 1);
}

#[test]
fn a_plugin_that_computes_for_long_on_a_loop_is_found_as_well() {
    let host = host();
    // Long enough also where it gets a small part of a core.
    let line = stall(&host, json!({ "spin": 2_000 }));
    assert!(line.contains("(computing)"), "{line}");
    assert_eq!(status(&host)["found_blocking"]["how"], "computing");
    expect_the_pool(&host);
}

#[test]
fn a_busy_machine_does_not_make_an_innocent_plugin_a_blocking_one() {
    const SPINNING: usize = 8;
    const CALLS: usize = 40;
    let host = host();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..SPINNING {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let mut gateway = host.gateway();
        let token = gateway.route([("scripted", json!([{ "compute": 100_000 }]))]);
        for _ in 0..CALLS {
            assert_eq!(gateway.call(token, get("/")), "unchanged");
        }
        stop.store(true, Ordering::Relaxed);
    });
    let status = status(&host);
    assert_eq!(status["execution"], "async", "{status}");
    assert_eq!(status["stalls"], 0);
}

#[test]
fn a_plugin_that_waits_without_holding_its_thread_is_not_labelled() {
    let host = host();
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", json!([{ "sleep": 400 }]))]);
    assert_eq!(gateway.call(token, get("/")), "unchanged");
    assert_eq!(status(&host)["stalls"], 0);
}

#[test]
fn the_label_can_be_lifted_and_returns_with_the_next_stall() {
    let host = host();
    stall(&host, json!({ "block": 500 }));
    let (code, said, _) = host.ask(&["status"]);
    assert_eq!(code, 0);
    assert!(
        said.contains("held an event loop up (asleep): its calls run on the pool"),
        "{said}"
    );
    let (code, said, _) = host.ask(&["unblock", "scripted"]);
    assert_eq!(
        (code, said.as_str()),
        (0, "scripted 0.1.0 runs on the event loops again\n")
    );
    let lifted = status(&host);
    assert_eq!(lifted["execution"], "async");
    assert_eq!(lifted["found_blocking"], Value::Null);
    assert_eq!(lifted["stalls"], 1);
    let (code, said, _) = host.ask(&["unblock", "scripted@^0.1"]);
    assert_eq!(
        (code, said.as_str()),
        (0, "it had not been found to hold an event loop up\n")
    );

    stall(&host, json!({ "spin": 2_000 }));
    let again = status(&host);
    assert_eq!(again["execution"], "blocking");
    assert_eq!(again["stalls"], 2);
}

#[test]
fn a_plugin_that_does_not_serve_has_no_label_to_lift() {
    let host = host();
    let (code, _, error) = host.ask(&["unblock", "missing"]);
    assert_eq!(code, 1);
    assert!(error.contains("no plugin `missing` is loaded"), "{error}");
}

#[test]
fn the_next_version_begins_without_the_label() {
    let (host, directory, mut gateway, token) =
        serving_with(Host::builder().flag("--event-loops", "1"));
    let mut blocks = word("slow");
    blocks["block"] = json!(500);
    let slow = gateway.prepare("route#2#pre#1", [("versioned", blocks)]);
    gateway.call(slow, get("/"));
    host.log_line(&["holds an event loop up", "versioned", "0.1.0"]);
    assert_eq!(status(&host)["execution"], "blocking");
    version("0.2.0").swap_in(&directory);
    until(&mut gateway, token, "0.2.0", "hello");
    let status = status(&host);
    assert_eq!(status["execution"], "async");
    assert_eq!(status["stalls"], 0);
}

#[test]
fn a_loop_that_does_not_come_back_is_a_crash_and_its_other_connections_are_served_elsewhere() {
    const OTHERS: usize = 20;
    for deed in [json!({ "block": 60_000 }), json!({ "spin": 60_000 })] {
        let host = Host::builder()
            .plugin("scripted")
            .flag("--event-loops", "1")
            .flag("--loop-stall-limit", "500ms")
            .start();
        let mut stuck = host.gateway();
        let quick = stuck.route([("scripted", json!([]))]);
        let token = stuck.route([("scripted", json!([deed]))]);
        let mut others: Vec<Gateway> = (0..OTHERS).map(|_| host.gateway()).collect();
        for other in &mut others {
            assert_eq!(other.call(quick, get("/")), "unchanged");
        }
        stuck.begin(token, get("/"));
        // The supervisor's line: the worker may be killed before its own is written.
        host.log_line(&[
            "ERROR",
            "was killed because an event loop was stuck in plugin scripted 0.1.0",
        ]);
        for other in &mut others {
            assert_eq!(other.call(quick, get("/")), "unchanged");
        }
        let answer = stuck.try_receive().map(|message| message.to_string());
        assert_eq!(answer.as_deref(), Some("error 1"), "its own call is lost");
    }
}

#[test]
fn without_a_limit_a_loop_may_be_held_for_ever() {
    let host = Host::builder()
        .plugin("scripted")
        .flag("--event-loops", "1")
        .flag("--loop-stall-limit", "0ms")
        .start();
    stall(&host, json!({ "block": 1_500 }));
    assert!(!host.log().contains("is stuck"), "{}", host.log());
}

/// Calls over many connections at a time, again and again while `go_on` says so; gives the time that
/// each call took, the shortest first.
fn load(fast: &mut [Gateway], token: u32, mut go_on: impl FnMut(usize) -> bool) -> Vec<Duration> {
    let mut times = Vec::new();
    let mut round = 0;
    while go_on(round) {
        let begun: Vec<Instant> = fast
            .iter_mut()
            .map(|gateway| {
                let now = Instant::now();
                gateway.begin(token, get("/"));
                now
            })
            .collect();
        for (gateway, begun) in fast.iter_mut().zip(begun) {
            assert_eq!(
                gateway.finish(),
                "stop 200 headers [X-Resp-A6-Runner='Rust'] body 'hi'"
            );
            times.push(begun.elapsed());
        }
        round += 1;
    }
    times.sort_unstable();
    times
}

fn percentile(times: &[Duration], hundredths: usize) -> Duration {
    times[(times.len() - 1) * hundredths / 100]
}

/// With `--nocapture` it shows what the slow connections cost the fast ones.
#[test]
fn sixty_fast_connections_beside_four_slow_ones_are_held_up_by_one_stall() {
    const FAST: usize = 60;
    const SLOW: usize = 4;
    const ROUNDS: usize = 200;
    let host = Host::builder()
        .plugin("scripted")
        .plugin("say")
        .flag("--event-loops", "1")
        .start();
    let mut fast: Vec<Gateway> = (0..FAST).map(|_| host.gateway()).collect();
    let say = fast[0].prepare("route#1#pre#1", [("say", json!({ "body": "hi" }))]);
    let slow_steps = json!([{ "block": 100 }]);
    let sleeps = fast[0].prepare("route#2#pre#1", [("scripted", slow_steps)]);
    load(&mut fast, say, |round| round < ROUNDS / 10);
    let alone = load(&mut fast, say, |round| round < ROUNDS);

    let done = AtomicBool::new(false);
    let beside = thread::scope(|scope| {
        let slow: Vec<_> = (0..SLOW)
            .map(|_| {
                let (mut gateway, done) = (host.gateway(), &done);
                scope.spawn(move || {
                    let mut calls = 0;
                    while !done.load(Ordering::Relaxed) {
                        assert_eq!(gateway.call(sleeps, get("/")), "unchanged");
                        calls += 1;
                    }
                    calls
                })
            })
            .collect();
        host.log_line(&["holds an event loop up", "scripted"]);
        host.log_line(&["the event loop has come back"]);
        let beside = load(&mut fast, say, |round| round < ROUNDS);
        done.store(true, Ordering::Relaxed);
        for slow in slow {
            let calls: usize = slow.join().unwrap();
            assert!(calls > 0, "each of them was answered");
        }
        beside
    });
    for (what, times) in [("alone", &alone), ("beside slow ones", &beside)] {
        println!(
            "{what}: {} calls, p50 {:?}, p99 {:?}, slowest {:?}",
            times.len(),
            percentile(times, 50),
            percentile(times, 99),
            percentile(times, 100)
        );
    }
    assert_eq!(beside.len(), FAST * ROUNDS);

    let (_, shown, _) = host.ask(&["status", "--json"]);
    let status: Value = serde_json::from_str(&shown).unwrap();
    let plugins = status["plugins"].as_array().unwrap();
    let stalls: Vec<(&Value, &Value)> = plugins
        .iter()
        .map(|plugin| (&plugin["name"], &plugin["stalls"]))
        .collect();
    assert_eq!(
        stalls,
        [(&json!("say"), &json!(0)), (&json!("scripted"), &json!(1))]
    );
}
