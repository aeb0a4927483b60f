//! Misdeeds that kill the process: only the calls that were inside are lost, each of them is answered
//! for at once, and everybody else goes on with the next worker.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Builder, Gateway, Host, bystanders::Bystanders, get, install_with, is_alive, response,
    versions, wait_for, workers,
};

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

/// Waits until the supervisor knows every bystander, and so many connections more: what it does not
/// know ends with its worker, which says to a gateway what an error frame says.
fn until_known(host: &Host, more: usize) {
    let all = (2 * BYSTANDERS + more) as u64;
    wait_for("every connection is known", || {
        (host.overview().count("connections") == all).then_some(())
    });
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

/// The number that the gateway gives the call that kills.
const REQUEST_ID: u32 = 4_711;

/// A call that does this kills its worker: it is answered for at once, the others go on, and a line
/// of the log and a file tell whose doing it was. Gives what the file says.
fn kills(deeds: Value) -> Value {
    let (host, bystanders) = scene();
    let worker = host.worker();
    let mut culprit = host.gateway();
    let token = route(&mut culprit, json!({ "request": deeds }));
    culprit.next_id(REQUEST_ID);
    until_known(&host, 1);
    assert_eq!(culprit.call(token, get("/")), CLOSED);
    culprit.expect_end();

    let report = report(&host);
    assert_eq!(report["pid"], worker);
    let calls = report["open_calls"].as_array().unwrap();
    let call = calls.iter().find(|call| call["request_id"] == REQUEST_ID);
    let call = call.unwrap_or_else(|| panic!("the call is not in {report:#}"));
    assert_eq!(call["phase"], "request");
    assert_eq!(call["plugin"]["known"]["name"], "misdeeds");
    assert_eq!(call["plugin"]["known"]["version"], "0.1.0");
    host.log_line(&["ERROR", &format!("worker {worker}"), "4711 (request)"]);
    expect_one_death(&host, bystanders, worker);
    report
}

/// The same where it is certain that the plugin of misdeeds did it.
fn kills_and_is_blamed(deeds: Value, rule: &str) -> Value {
    let report = kills(deeds);
    assert_eq!(report["blamed"]["known"]["name"], "misdeeds", "{report:#}");
    assert_eq!(report["blamed"]["rule"], rule, "{report:#}");
    report["cause"].clone()
}

/// The report of the host's only crash.
fn report(host: &Host) -> Value {
    wait_for("a report", || {
        let reports = reports(host);
        // The file is there before all of it is written.
        let text = fs::read_to_string(reports.first()?).ok()?;
        serde_json::from_str(&text).ok()
    })
}

fn reports(host: &Host) -> Vec<std::path::PathBuf> {
    let socket = workers::control_socket(host.directory());
    let directory = socket.map(|socket| socket.with_file_name("crashes"));
    let entries = directory.and_then(|directory| fs::read_dir(directory).ok());
    let entries = entries.into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_fault_costs_the_call_inside_alone() {
    let cause = kills_and_is_blamed(json!(["fault"]), "thread_inside");
    assert_eq!(
        (&cause["kind"], &cause["name"]),
        (&json!("fault"), &json!("SIGSEGV"))
    );
    assert_eq!(cause["address"], "0x0");
}

#[test]
fn a_fault_in_a_thread_of_the_plugin_costs_the_call_inside_alone() {
    // A moment after it was loaded the supervisor knows where its code lies.
    let deeds = json!([{ "sleep": 1_500 }, "fault_in_thread"]);
    let cause = kills_and_is_blamed(deeds, "frame_in_library");
    assert_eq!(cause["name"], "SIGSEGV");
}

#[test]
fn an_abort_costs_the_call_inside_alone() {
    let cause = kills_and_is_blamed(json!(["abort"]), "thread_inside");
    assert_eq!(cause["name"], "SIGABRT");
}

#[test]
fn an_exit_with_any_code_and_in_any_way_costs_the_call_inside_alone() {
    let exit = |deed: Value, code: i32, rule: &str| {
        let cause = kills_and_is_blamed(json!([deed]), rule);
        assert_eq!(cause, json!({ "kind": "exit", "code": code }));
    };
    exit(json!({ "exit": 0 }), 0, "thread_inside");
    exit(json!({ "exit": 3 }), 3, "thread_inside");
    exit(json!({ "exit_at_once": 0 }), 0, "only_one_inside");
}

#[test]
fn a_stack_without_end_costs_the_call_inside_alone() {
    let cause = kills_and_is_blamed(json!(["overflow_stack"]), "thread_inside");
    assert_eq!(cause["stack_overflow"], true, "{cause}");
}

#[test]
fn memory_that_is_given_back_twice_costs_the_call_inside_alone() {
    let cause = kills_and_is_blamed(json!(["double_free"]), "thread_inside");
    assert_eq!(cause["name"], "SIGABRT");
}

#[test]
fn a_sigkill_costs_the_call_inside_alone() {
    // Nobody knows who sent it.
    let cause = kills(json!(["kill"]))["cause"].clone();
    assert_eq!(
        (&cause["kind"], &cause["name"]),
        (&json!("killed"), &json!("SIGKILL"))
    );
}

#[test]
fn memory_that_runs_out_costs_the_call_inside_alone() {
    // 1 GiB, so that the machine is spared.
    let deeds = json!([{ "limit_memory": 1 << 30 }, { "fill": 10_u64 << 30 }]);
    let cause = kills_and_is_blamed(deeds, "thread_inside");
    assert_eq!(cause["name"], "SIGABRT");
}

#[test]
fn an_event_loop_that_a_plugin_never_gives_back_costs_the_call_inside_alone() {
    let cause = kills_and_is_blamed(json!(["spin"]), "stuck_loop");
    assert_eq!(cause, json!({ "kind": "stuck_loop" }));
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
    until_known(&host, waiting.len() + 1);
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
    until_known(&host, 1);
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
    until_known(&host, 2);
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
    // A worker that dies just after an answer may not have noted yet that it is complete.
    bystanders.go_on();
    for death in 1..=DEATHS {
        host.signal_worker(Signal::KILL);
        wait_for("the next worker", || {
            (host.overview().count("crashes") == death).then_some(())
        });
        // On the old connection, with the old token.
        assert_eq!(gateway.call(quiet, get("/")), "unchanged");
        bystanders.go_on();
    }
    bystanders.end().expect_deaths(DEATHS, BYSTANDERS as u64);
}

/// A host that puts a plugin into quarantine after two crashes.
fn strict() -> Builder {
    Host::builder()
        .plugin("say")
        .flag("--quarantine-crashes", "2")
}

/// Waits until nobody serves the plugin of misdeeds any more because of what it did.
fn until_quarantined(host: &Host) {
    host.log_line(&["ERROR", "in quarantine", "misdeeds"]);
}

#[test]
fn a_plugin_that_kills_again_and_again_is_quarantined_until_a_new_file_comes() {
    let host = strict().plugin("misdeeds").start();
    let bystanders = Bystanders::around(&host.socket(), BYSTANDERS);
    let mut peaceful = host.gateway();
    let innocent = route(&mut peaceful, json!({}));
    for _ in 0..2 {
        let mut culprit = host.gateway();
        let token = route(&mut culprit, json!({ "request": ["abort"] }));
        until_known(&host, 2);
        assert_eq!(culprit.call(token, get("/")), CLOSED);
    }
    until_quarantined(&host);
    let mut culprit = host.gateway();
    let token = route(&mut culprit, json!({ "request": ["abort"] }));
    assert_eq!(culprit.call(token, get("/")), CLOSED);
    assert_eq!(
        peaceful.call(innocent, get("/")),
        CLOSED,
        "nothing served before it"
    );
    assert_eq!(
        host.overview().count("crashes"),
        2,
        "it does not run any more"
    );

    install_with(&host.plugins(), "misdeeds", &Value::Null, |library| {
        versions::replace(library, "told to panic", "told to PANIC");
    });
    wait_for("the new file serves", || {
        (peaceful.call(innocent, get("/")) == "unchanged").then_some(())
    });
    bystanders.end().expect_deaths(2, BYSTANDERS as u64);
}

#[test]
fn when_a_plugin_is_quarantined_what_served_before_it_serves_again() {
    let host = strict().start();
    let bystanders = Bystanders::around(&host.socket(), BYSTANDERS);
    install_with(&host.plugins(), "misdeeds", &Value::Null, |library| {
        versions::replace(library, "calls=wicked", "calls=gentle");
    });
    host.log_line(&["plugin loaded", "misdeeds"]);
    let mut gateway = host.gateway();
    let token = route(&mut gateway, json!({ "request": ["abort"] }));
    assert_eq!(gateway.call(token, get("/")), "unchanged");

    install_with(&host.plugins(), "misdeeds", &Value::Null, |_| {});
    // Each call until then is answered, or lost to one of two deaths.
    let mut lost = 0;
    wait_for("two deaths", || {
        match gateway.try_call(token, get("/")) {
            Some(answer) if answer == "unchanged" => {}
            _ => {
                lost += 1;
                gateway = host.gateway();
            }
        }
        (lost == 2).then_some(())
    });
    until_quarantined(&host);
    assert_eq!(gateway.call(token, get("/")), "unchanged");
    assert_eq!(host.overview().count("crashes"), 2);
    bystanders.end().expect_deaths(2, BYSTANDERS as u64);
}

#[test]
fn panics_errors_and_missed_deadlines_bring_nobody_into_quarantine() {
    let host = strict()
        .plugin_json("misdeeds", json!({ "timeout_ms": 50 }))
        .start();
    let mut gateway = host.gateway();
    for deed in [json!("panic"), json!("fail"), json!({ "sleep": 10_000 })] {
        let token = route(&mut gateway, json!({ "request": [deed] }));
        for _ in 0..10 {
            assert_eq!(gateway.call(token, get("/")), CLOSED);
        }
    }
    let token = route(&mut gateway, json!({}));
    assert_eq!(gateway.call(token, get("/")), "unchanged");
    assert_eq!(host.overview().count("crashes"), 0);
}

#[test]
fn a_configuration_that_kills_whoever_parses_it_ends_in_quarantine_and_in_no_loop_of_crashes() {
    let host = strict().plugin("misdeeds").start();
    let bystanders = Bystanders::around(&host.socket(), BYSTANDERS);
    let mut gateway = host.gateway();
    // Every worker inherits the token, and parses its configuration again.
    let token = route(&mut gateway, json!({ "configure": ["abort"] }));
    until_quarantined(&host);
    bystanders.go_on();
    assert_eq!(host.overview().count("crashes"), 2);
    let mut gateway = host.gateway();
    assert_eq!(gateway.call(token, get("/")), CLOSED);
    bystanders.end().expect_deaths(2, BYSTANDERS as u64);
}

#[test]
fn a_plugin_that_kills_whoever_loads_it_ends_in_quarantine_and_in_no_loop_of_crashes() {
    let host = strict().flag("--rehearse", "false").start();
    let bystanders = Bystanders::around(&host.socket(), BYSTANDERS);
    let fatal = json!({ "settings": { "on_load": ["abort"] } });
    install_with(&host.plugins(), "misdeeds", &fatal, |_| {});
    until_quarantined(&host);
    bystanders.go_on();
    assert_eq!(host.overview().count("crashes"), 2);
    bystanders.end().expect_deaths(2, BYSTANDERS as u64);
}
