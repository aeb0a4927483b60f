//! Misdeeds that kill the process: only the calls that were inside are lost, each of them is answered
//! for at once, and everybody else goes on with the next worker.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Gateway, Host, bystanders::Bystanders, get, is_alive, response, wait_for};

/// Bystanders that call, and as many idle ones.
const BYSTANDERS: usize = 4;

const CLOSED: &str = "error 1";

/// A host with `say` and the plugin of misdeeds, and people who call `say` meanwhile.
fn scene() -> (Host, Bystanders) {
    let host = Host::builder().plugin("say").plugin("misdeeds").start();
    let bystanders = Bystanders::around(&host.socket(), BYSTANDERS);
    (host, bystanders)
}

/// A route to the plugin of misdeeds which says this.
fn route(gateway: &mut Gateway, conf: Value) -> u32 {
    gateway.route([("misdeeds", conf)])
}

/// After one death: nobody has lost more than the call that was inside, the plugin itself serves
/// again, and nothing of the old worker is left.
fn expect_one_death(host: &Host, bystanders: Bystanders, worker: u32) {
    bystanders.end().expect_deaths(1, BYSTANDERS as u64);
    assert_ne!(host.worker(), worker);
    assert!(!is_alive(worker));
    assert_eq!(host.overview().count("crashes"), 1);
    let mut gateway = host.gateway();
    let token = route(&mut gateway, json!({}));
    assert_eq!(gateway.call(token, get("/")), "unchanged");
}

/// A call that does this kills its worker: it is answered for at once, and the others go on.
fn kills(deeds: Value) {
    let (host, bystanders) = scene();
    let worker = host.worker();
    let mut culprit = host.gateway();
    let token = route(&mut culprit, json!({ "request": deeds }));
    assert_eq!(culprit.call(token, get("/")), CLOSED);
    culprit.expect_end();
    expect_one_death(&host, bystanders, worker);
}

#[test]
fn a_fault_costs_the_call_inside_alone() {
    kills(json!(["fault"]));
}

#[test]
fn a_fault_in_a_thread_of_the_plugin_costs_the_call_inside_alone() {
    kills(json!(["fault_in_thread"]));
}

#[test]
fn an_abort_costs_the_call_inside_alone() {
    kills(json!(["abort"]));
}

#[test]
fn an_exit_with_any_code_and_in_any_way_costs_the_call_inside_alone() {
    kills(json!([{ "exit": 0 }]));
    kills(json!([{ "exit": 3 }]));
    kills(json!([{ "exit_at_once": 0 }]));
}

#[test]
fn a_stack_without_end_costs_the_call_inside_alone() {
    kills(json!(["overflow_stack"]));
}

#[test]
fn memory_that_is_given_back_twice_costs_the_call_inside_alone() {
    kills(json!(["double_free"]));
}

#[test]
fn a_sigkill_costs_the_call_inside_alone() {
    kills(json!(["kill"]));
}

#[test]
fn memory_that_runs_out_costs_the_call_inside_alone() {
    // 1 GiB, so that the machine is spared.
    kills(json!([{ "limit_memory": 1 << 30 }, { "fill": 10_u64 << 30 }]));
}

#[test]
fn ten_gigabytes_that_nobody_touches_cost_the_call_inside_at_most() {
    let (host, bystanders) = scene();
    let mut gateway = host.gateway();
    let token = route(
        &mut gateway,
        json!({ "request": [{ "allocate": 10_u64 << 30 }] }),
    );
    // It depends on the machine whether they can be had.
    let answer = gateway.call(token, get("/")).to_string();
    assert!(["unchanged", CLOSED].contains(&answer.as_str()), "{answer}");
    bystanders.end().expect_deaths(1, BYSTANDERS as u64);
}

#[test]
fn descriptors_that_a_plugin_closes_cost_the_calls_of_one_worker() {
    let (host, bystanders) = scene();
    let worker = host.worker();
    let mut culprit = host.gateway();
    let token = route(
        &mut culprit,
        json!({ "request": [{ "close": [3, 1_024] }] }),
    );
    // Its own connection is among them: it may be answered for, or just end.
    let answer = culprit.try_call(token, get("/"));
    assert!(answer.is_none_or(|answer| answer == CLOSED));
    wait_for("the worker ends", || (!is_alive(worker)).then_some(()));
    bystanders.end().expect_deaths(1, BYSTANDERS as u64);
}

#[test]
fn a_death_in_a_later_poll_costs_the_calls_that_wait_there() {
    let (host, bystanders) = scene();
    let worker = host.worker();
    let mut waiting: Vec<Gateway> = (0..4).map(|_| host.gateway()).collect();
    let quiet = route(&mut waiting[0], json!({}));
    let token = route(&mut waiting[0], json!({ "later": [{ "sleep": 60_000 }] }));
    for gateway in &mut waiting {
        assert_eq!(gateway.call(quiet, get("/")), "unchanged");
        gateway.begin(token, get("/"));
    }
    let mut first_call = host.gateway();
    first_call.begin(token, get("/"));
    let mut culprit = host.gateway();
    let fatal = route(&mut culprit, json!({ "later": ["abort"] }));
    assert_eq!(culprit.call(fatal, get("/")), CLOSED);
    // Their plugin was asleep: they are answered for at once, not after their time.
    for gateway in &mut waiting {
        assert_eq!(gateway.finish(), CLOSED);
        gateway.expect_end();
    }
    // The first call of a connection ends with the connection, which says the same to a gateway.
    assert!(first_call.try_finish().is_none());
    expect_one_death(&host, bystanders, worker);
}

#[test]
fn a_death_in_the_response_phase_is_answered_for_with_a_503_of_the_hosts() {
    let (host, bystanders) = scene();
    let worker = host.worker();
    let mut culprit = host.gateway();
    let token = route(&mut culprit, json!({ "response": ["abort"] }));
    let answer = culprit.call(token, response(200)).to_string();
    assert!(answer.starts_with("answer 503"), "{answer}");
    expect_one_death(&host, bystanders, worker);
}

#[test]
fn a_death_while_the_gateway_is_asked_costs_that_call() {
    let (host, bystanders) = scene();
    let worker = host.worker();
    let mut culprit = host.gateway();
    let mut asking = host.gateway();
    let token = asking.route([("misdeeds", json!({ "ask": "route_id" }))]);
    asking.set_variable("route_id", "7");
    asking.begin(token, get("/"));
    assert_eq!(asking.receive().to_string(), "ask 'route_id'");
    let fatal = route(&mut culprit, json!({ "request": ["kill"] }));
    assert_eq!(culprit.call(fatal, get("/")), CLOSED);
    // The gateway's answer to the question finds the error, or the end.
    assert_eq!(asking.finish(), CLOSED);
    expect_one_death(&host, bystanders, worker);
}

#[test]
fn a_death_at_the_end_of_a_plugin_costs_no_call_of_others() {
    for entry in ["on_unload", "drop"] {
        let host = Host::builder()
            .plugin("say")
            .plugin_json("misdeeds", json!({ "settings": { entry: ["abort"] } }))
            .flag("--rehearse", "false")
            .start();
        let bystanders = Bystanders::around(&host.socket(), BYSTANDERS);
        let mut gateway = host.gateway();
        let token = route(&mut gateway, json!({}));
        assert_eq!(gateway.call(token, get("/")), "unchanged");
        let worker = host.worker();
        fs::remove_dir_all(host.plugins().join("misdeeds")).unwrap();
        wait_for("the worker dies of it", || {
            (!is_alive(worker)).then_some(())
        });
        bystanders.end().expect_deaths(1, BYSTANDERS as u64);
        assert_eq!(gateway.call(token, get("/")), CLOSED);
    }
}

#[test]
fn deaths_one_after_the_other_lose_no_token_and_refuse_no_connection() {
    const DEATHS: u64 = 5;
    let (host, bystanders) = scene();
    let mut gateway = host.gateway();
    let quiet = route(&mut gateway, json!({}));
    assert_eq!(gateway.call(quiet, get("/")), "unchanged");
    for death in 1..=DEATHS {
        host.signal_worker(Signal::KILL);
        wait_for("the next worker", || {
            (host.overview().count("crashes") == death).then_some(())
        });
        // On the old connection, with the old token.
        assert_eq!(gateway.call(quiet, get("/")), "unchanged");
        // A worker that dies just after an answer may not have noted yet that it is complete.
        bystanders.go_on();
    }
    bystanders.end().expect_deaths(DEATHS, BYSTANDERS as u64);
}
