//! What operators decided about plugins outlives the workers that knew it: real workers, killed.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Host, asking, get,
    serving::{CLOSED, answer, answer_of, serving, serving_with, until, word},
    versions::{named, version},
    wait_for,
};

/// Kills the worker, when it has said that every answer is written, and waits until the next one
/// serves.
fn kill(host: &Host) {
    wait_for("every connection is idle", || {
        let (code, said, _) = host.ask(&["workers", "--json"]);
        let overview: Value = serde_json::from_str(&said).ok()?;
        (code == 0 && overview["idle_connections"] == overview["connections"]).then_some(())
    });
    let dead = host.signal_worker(Signal::KILL);
    wait_for("another worker serves", || {
        let workers = host.workers();
        (!workers.is_empty() && !workers.contains(&dead)).then_some(())
    });
}

/// What the worker says of its plugins, as soon as there is one that can be asked.
fn status(host: &Host) -> Value {
    wait_for("a worker tells its status", || {
        let (code, said, _) = host.ask(&["status", "--json"]);
        (code == 0).then(|| serde_json::from_str(&said).unwrap())
    })
}

#[test]
fn a_roll_back_holds_in_the_next_workers_until_the_files_change() {
    let (host, directory, mut gateway, token) = serving();
    version("0.2.0").swap_in(&directory);
    until(&mut gateway, token, "0.2.0", "hello");
    let (code, _, complaint) = host.ask(&["rollback", "versioned"]);
    assert_eq!(code, 0, "{complaint}");
    assert_eq!(answer(&mut gateway, token), answer_of("0.1.0", "hello"));

    kill(&host);
    assert_eq!(answer(&mut gateway, token), answer_of("0.1.0", "hello"));
    let (code, _, complaint) = host.ask(&["replace-worker"]);
    assert_eq!(code, 0, "{complaint}");
    assert_eq!(answer(&mut gateway, token), answer_of("0.1.0", "hello"));
    assert_eq!(status(&host)["plugins"][0]["previous"], "0.2.0");

    version("0.3.0").swap_in(&directory);
    until(&mut gateway, token, "0.3.0", "hello");
}

#[test]
fn what_served_serves_after_a_death_without_being_rehearsed_again_whatever_became_of_its_files() {
    let (host, directory, mut gateway, token) = serving();
    fs::write(directory.join("plugin.json"), "{").unwrap();
    fs::write(directory.join("libversioned.so"), "no library").unwrap();
    kill(&host);
    assert_eq!(answer(&mut gateway, token), answer_of("0.1.0", "hello"));
    kill(&host);
    assert_eq!(answer(&mut gateway, token), answer_of("0.1.0", "hello"));
    version("0.2.0").swap_in(&directory);
    until(&mut gateway, token, "0.2.0", "hello");
}

#[test]
fn a_version_that_ends_workers_while_it_loads_is_kept_out_and_what_served_goes_on() {
    let told = Host::builder()
        .flag("--rehearse", "false")
        .flag("--quarantine-crashes", "2");
    let (host, directory, mut gateway, token) = serving_with(told);
    version("0.2.0")
        .settings(json!({ "load": "abort" }))
        .swap_in(&directory);
    let quarantined = wait_for("the version is in quarantine", || {
        status(&host)["quarantined"].as_array()?.first().cloned()
    });
    assert_eq!(quarantined["name"], "versioned");
    assert_eq!(quarantined["version"], "0.2.0");
    assert_eq!(quarantined["serving_instead"], "0.1.0");
    until(&mut gateway, token, "0.1.0", "hello");
    kill(&host);
    assert_eq!(answer(&mut gateway, token), answer_of("0.1.0", "hello"));
    assert_eq!(status(&host)["quarantined"][0]["version"], "0.2.0");

    version("0.3.0").swap_in(&directory);
    until(&mut gateway, token, "0.3.0", "hello");
}

#[test]
fn a_plugin_without_an_earlier_version_fails_closed_in_quarantine_and_its_neighbours_serve() {
    let told = Host::builder()
        .flag("--rehearse", "false")
        .flag("--quarantine-crashes", "2");
    let (host, _, mut gateway, token) = serving_with(told);
    named("dangerous", "0.1.0")
        .settings(json!({ "load": "abort" }))
        .swap_in(&host.plugins().join("dangerous"));
    wait_for("the plugin is in quarantine", || {
        status(&host)["quarantined"].as_array()?.first().cloned()
    });
    let mut other = host.gateway();
    let closed = other.prepare("route#2#pre#1", [("dangerous", word("hello"))]);
    assert_eq!(answer(&mut other, closed), CLOSED);
    host.log_line(&[
        "ERROR",
        "dangerous",
        "quarantine",
        "plugin-host lift dangerous",
    ]);
    until(&mut gateway, token, "0.1.0", "hello");

    let directory = host.plugins().join("dangerous");
    let metadata = fs::read_to_string(directory.join("plugin.json")).unwrap();
    let harmless = metadata.replace("abort", "");
    fs::write(directory.join("plugin.json"), harmless).unwrap();
    host.log_line(&["ERROR", "dangerous", "in quarantine", "was not loaded"]);
    let (code, said, complaint) = host.ask(&["lift", "dangerous"]);
    assert_eq!(code, 0, "{complaint}");
    assert!(said.contains("dangerous 0.1.0 serves"), "{said}");
    until(&mut other, closed, "0.1.0", "hello");
}

#[test]
fn after_a_death_configurations_that_calls_wait_for_are_parsed_before_all_others() {
    const ROUTES: usize = 400;
    let host = Host::with("misdeeds");
    let mut gateway = host.gateway();
    let slow = json!({ "configure": [{ "block": 300 }] });
    let tokens: Vec<_> = (0..ROUTES)
        .map(|number| gateway.prepare(&format!("route#{number}#pre#1"), [("misdeeds", &slow)]))
        .collect();
    host.signal_worker(Signal::KILL);

    // All of them take 30 s and more, and these stand anywhere among them.
    let mut gateway = host.gateway();
    let new = gateway.prepare("route#new#pre#1", [("misdeeds", &slow)]);
    for token in tokens.into_iter().step_by(50).chain([new]) {
        assert_eq!(gateway.call(token, get("/")), "unchanged");
    }
    let waiting = asking::get("/v1/chains?state=waiting").of(&host).json();
    let waiting = waiting["total"].as_u64().unwrap();
    assert!(waiting > ROUTES as u64 / 2, "{waiting} still wait");
}
