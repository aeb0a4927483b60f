//! Workers that die or are replaced: what the gateway sees of it, which is next to nothing.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Host, get, is_alive, send, wait_for};

/// Connections that call without a pause.
const CALLERS: usize = 8;

/// Hand-overs, where the environment does not say how many.
const HAND_OVERS: u64 = 12;

/// What the host says about its workers.
fn overview(host: &Host) -> Value {
    let (code, said, complaint) = host.ask(&["workers", "--json"]);
    assert_eq!(code, 0, "{complaint}");
    serde_json::from_str(&said).unwrap()
}

fn replace(host: &Host) {
    let (code, _, complaint) = host.ask(&["replace-worker"]);
    assert_eq!(code, 0, "{complaint}");
}

/// Waits until the supervisor knows so many connections, and none of them does anything: a worker
/// that has just answered still has to say so.
fn until_idle(host: &Host, connections: usize) {
    wait_for("every connection is known and idle", || {
        let overview = overview(host);
        let idle = overview["idle_connections"] == connections;
        (idle && overview["connections"] == connections).then_some(())
    });
}

/// Waits until another worker serves, and the dead one is buried.
fn until_buried(host: &Host, dead: u32) {
    wait_for("another worker serves", || {
        let workers = host.workers();
        (!workers.is_empty() && !workers.contains(&dead)).then_some(())
    });
}

#[test]
fn a_killed_worker_costs_no_idle_connection_and_no_token() {
    let host = Host::with("scripted");
    let mut gateways: Vec<_> = (0..20).map(|_| host.gateway()).collect();
    let tokens: Vec<u32> = gateways
        .iter_mut()
        .map(|gateway| gateway.route([("scripted", "[]")]))
        .collect();
    for round in 0..3 {
        until_idle(&host, 20);
        let dead = host.signal_worker(Signal::KILL);
        until_buried(&host, dead);
        for (gateway, token) in gateways.iter_mut().zip(&tokens) {
            assert_eq!(gateway.call(*token, get("/")), "unchanged", "round {round}");
        }
    }
    let overview = overview(&host);
    assert_eq!(overview["crashes"], 3);
    assert_eq!(overview["calls_lost"], 0);
    assert_eq!(overview["connections"], 20);
}

#[test]
fn what_is_sent_to_a_dead_worker_is_answered_by_the_next_one() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", "[]")]);
    until_idle(&host, 1);
    host.pause();
    gateway.begin(token, get("/"));
    let mut early = host.gateway();
    early.begin(token, get("/"));
    host.signal_worker(Signal::KILL);
    assert_eq!(gateway.finish(), "unchanged");
    assert_eq!(early.finish(), "unchanged", "it connected to nobody");
}

#[test]
fn a_call_inside_of_a_dead_worker_is_answered_for_at_once_and_no_other_is() {
    let host = Host::with("scripted");
    let mut other = host.gateway();
    let quick = other.route([("scripted", "[]")]);
    let mut inside = host.gateway();
    let slow = inside.route([("scripted", json!([{ "sleep": 60_000 }]))]);
    // Registered are connections that have had an answer.
    assert_eq!(inside.call(quick, get("/")), "unchanged");
    let mut asked = host.gateway();
    assert_eq!(asked.call(quick, get("/")), "unchanged");
    until_idle(&host, 3);
    inside.begin(slow, get("/"));
    asked.begin(slow, crate::support::response(200).header("A", "b"));
    wait_for("both calls are inside", || {
        let calls = overview(&host)["open_calls"].as_u64().unwrap();
        (calls == 2).then_some(())
    });
    host.signal_worker(Signal::KILL);
    assert_eq!(inside.finish(), "error 1");
    // An error frame would let the upstream's body through.
    let answer = asked.finish().to_string();
    assert!(answer.starts_with("answer 503 "), "{answer}");
    assert_eq!(other.call(quick, get("/")), "unchanged");
    assert_eq!(overview(&host)["calls_lost"], 2);
}

#[test]
fn no_process_of_a_host_outlives_a_kill() {
    let mut host = Host::with("scripted");
    replace(&host);
    let workers = host.workers();
    assert!(!workers.is_empty());
    host.signal(Signal::KILL);
    host.end();
    for worker in workers {
        wait_for("the worker ends with its host", || {
            (!is_alive(worker)).then_some(())
        });
    }
}

#[test]
fn a_call_that_is_open_keeps_its_worker_until_it_has_ended() {
    let host = Host::with("scripted");
    let mut asking = host.gateway();
    let token = asking.route([("scripted", json!([{ "sleep": 700 }]))]);
    asking.begin(token, get("/"));
    let mut other = host.gateway();
    let quick = other.route([("scripted", "[]")]);
    let before = host.workers();
    replace(&host);
    assert_eq!(other.call(quick, get("/")), "unchanged");
    assert!(before.iter().all(|worker| is_alive(*worker)));
    assert_eq!(asking.finish(), "unchanged");
    wait_for("the old worker ends", || {
        before.iter().all(|worker| !is_alive(*worker)).then_some(())
    });
    assert_eq!(asking.call(quick, get("/")), "unchanged");
    assert_eq!(overview(&host)["crashes"], 0);
}

#[test]
fn a_standby_serves_at_once_where_a_worker_dies_and_another_one_follows() {
    let host = Host::builder()
        .flag("--standby", "true")
        .plugin("scripted")
        .start();
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", "[]")]);
    let ready = || {
        wait_for("a standby is ready", || {
            let workers = overview(&host)["workers"].as_array().unwrap().clone();
            let is_ready = |worker: &Value| worker["phase"] == "ready";
            workers.iter().find(|worker| is_ready(worker)).cloned()
        })
    };
    for _ in 0..2 {
        let standby = ready();
        let serving = host.workers()[0];
        let (code, _, _) = host.ask(&["reload"]);
        assert_eq!(code, 0);
        // What was asked of the worker is unknown to the standby: another one takes its place.
        wait_for("another standby", || {
            (ready()["pid"] != standby["pid"]).then_some(())
        });
        until_idle(&host, 1);
        send(serving, Signal::KILL);
        until_buried(&host, serving);
        assert_eq!(gateway.call(token, get("/")), "unchanged");
    }
    assert_eq!(overview(&host)["crashes"], 2);
    ready();
    replace(&host);
    assert_eq!(gateway.call(token, get("/")), "unchanged");
}

/// Puts a program where another one is, as package managers do.
fn put(program: &Path, bytes: &[u8]) {
    let next = program.with_extension("next");
    fs::write(&next, bytes).unwrap();
    fs::set_permissions(&next, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&next, program).unwrap();
}

#[test]
fn a_host_becomes_its_next_release_without_the_gateway_noticing() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("plugin-host");
    let release = fs::read(env!("CARGO_BIN_EXE_plugin-host")).unwrap();
    put(&program, &release);
    let host = Host::builder().program(&program).plugin("scripted").start();
    let mut gateways: Vec<_> = (0..300).map(|_| host.gateway()).collect();
    let token = gateways[0].route([("scripted", "[]")]);
    for gateway in &mut gateways {
        assert_eq!(gateway.call(token, get("/")), "unchanged");
    }
    let calling = Arc::new(AtomicBool::new(true));
    let caller = {
        let (mut gateway, calling) = (host.gateway(), Arc::clone(&calling));
        thread::spawn(move || {
            while calling.load(Ordering::SeqCst) {
                assert_eq!(gateway.call(token, get("/")), "unchanged");
            }
        })
    };
    for renewal in 1..=2 {
        // The next release is another file, and the same program with another digest.
        put(&program, &[&release[..], b"next"].concat());
        let (code, said, complaint) = host.ask(&["upgrade-host"]);
        assert_eq!(code, 0, "{complaint}");
        assert!(said.contains("serves, its worker too"), "{said}");
        assert_eq!(overview(&host)["renewals"], renewal);
        for gateway in &mut gateways {
            assert_eq!(gateway.call(token, get("/")), "unchanged");
        }
    }
    // It has kept what makes it the gateway's child: a signal stops it, and it ends its workers.
    calling.store(false, Ordering::SeqCst);
    caller.join().unwrap();
    assert_eq!(overview(&host)["crashes"], 0);
    let mut host = host;
    let workers = host.workers();
    host.signal(Signal::TERM);
    assert!(host.end().success());
    assert!(workers.iter().all(|worker| !is_alive(*worker)));
    assert!(!host.socket().exists());
}

#[test]
fn a_program_that_cannot_take_over_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("plugin-host");
    put(
        &program,
        &fs::read(env!("CARGO_BIN_EXE_plugin-host")).unwrap(),
    );
    let host = Host::builder().program(&program).plugin("scripted").start();
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", "[]")]);
    for (other, complaint) in [
        ("#!/bin/sh\necho no\n", "no release that can take over"),
        ("not a program", "cannot be run"),
        (
            "#!/bin/sh\necho '{\"release\":\"9.0.0\",\"estate\":9,\"link\":9}'\n",
            "too far from this one",
        ),
    ] {
        put(&program, other.as_bytes());
        let (code, _, complained) = host.ask(&["upgrade-host"]);
        assert_eq!(code, 1);
        assert!(complained.contains(complaint), "{complained}");
        assert_eq!(gateway.call(token, get("/")), "unchanged");
    }
    assert_eq!(overview(&host)["renewals"], 0);
}

#[test]
fn no_call_is_lost_while_workers_are_handed_over_again_and_again() {
    let hand_overs = std::env::var("PLUGIN_HOST_TEST_HAND_OVERS")
        .ok()
        .map_or(HAND_OVERS, |number| number.parse().unwrap());
    let host = Arc::new(
        Host::builder()
            .flag("--event-loops", "2")
            .plugin("scripted")
            .start(),
    );
    let over = Arc::new(AtomicBool::new(false));
    let total = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (host, over, total) = (Arc::clone(&host), Arc::clone(&over), Arc::clone(&total));
            thread::spawn(move || {
                let mut gateway = host.gateway();
                gateway.set_variable("route_id", &caller.to_string());
                // Every other caller is asked something during each call.
                let steps = match caller % 2 {
                    0 => json!([{ "set_header": ["x-caller", caller.to_string()] }]),
                    _ => json!([{ "report": ["x-caller", { "var": "route_id" }] }]),
                };
                let mut token = gateway.route([("scripted", &steps)]);
                let expected = gateway.call(token, get("/")).to_string();
                assert!(expected.contains(&caller.to_string()), "{expected}");
                let mut calls = 0_u64;
                while !over.load(Ordering::SeqCst) {
                    calls += 1;
                    if calls.is_multiple_of(50) {
                        token = gateway.route([("scripted", &steps)]);
                    }
                    assert_eq!(gateway.call(token, get("/")), expected.as_str());
                    total.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for _ in 0..hand_overs {
        let before = total.load(Ordering::SeqCst);
        replace(&host);
        wait_for("calls go on", || {
            (total.load(Ordering::SeqCst) > before + 20).then_some(())
        });
    }
    over.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.join().unwrap();
    }
    let overview = overview(&host);
    assert_eq!(overview["replacements"], hand_overs);
    assert_eq!(overview["crashes"], 0);
}
