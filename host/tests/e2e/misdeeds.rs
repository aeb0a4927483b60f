//! Misdeeds that leave the process alive: what they cost whoever did them, and that connections
//! beside them see nothing of it.

use std::{fs, thread, time::Duration};

use serde_json::{Value, json};

use crate::support::{
    Gateway, Host,
    bystanders::{Bystanders, HELLO, SAY},
    get, install_with, is_alive, response, versions, wait_for,
};

/// Bystanders that call, and as many idle ones.
const BYSTANDERS: usize = 4;

const CLOSED: &str = "error 1";

/// A host with `say` and the plugin of misdeeds, which has half a second for a call; and people who
/// call `say` meanwhile.
fn scene(settings: Value) -> (Host, Bystanders) {
    let host = Host::builder()
        .plugin("say")
        .plugin_json(
            "misdeeds",
            json!({ "settings": settings, "timeout_ms": 500 }),
        )
        .start();
    let bystanders = Bystanders::around(&host.socket(), BYSTANDERS);
    (host, bystanders)
}

/// The answer to a request whose route says this.
fn request_with(gateway: &mut Gateway, conf: Value) -> String {
    let token = gateway.route([("misdeeds", conf)]);
    gateway.call(token, get("/")).to_string()
}

/// The answer to a response call whose route says this.
fn response_with(gateway: &mut Gateway, conf: Value) -> String {
    let token = gateway.route([("misdeeds", conf)]);
    gateway.call(token, response(200)).to_string()
}

#[test]
fn a_panic_in_any_entry_of_a_call_ends_that_call_alone() {
    let (host, bystanders) = scene(json!({}));
    let mut gateway = host.gateway();
    for entry in ["request", "later", "configure", "drop_future"] {
        let answer = request_with(&mut gateway, json!({ entry: ["panic"] }));
        assert_eq!(answer, CLOSED, "{entry}");
    }
    for entry in ["response", "later", "configure"] {
        let answer = response_with(&mut gateway, json!({ entry: ["panic"] }));
        assert!(answer.starts_with("answer 503"), "{entry}: {answer}");
    }
    host.log_line(&["misdeeds 0.1.0", "panicked: told to panic"]);
    assert_eq!(request_with(&mut gateway, json!({})), "unchanged");
    bystanders.end().expect_nothing();
}

#[test]
fn an_error_in_any_entry_of_a_call_ends_that_call_alone() {
    let (host, bystanders) = scene(json!({}));
    let mut gateway = host.gateway();
    for entry in ["request", "later", "configure"] {
        let answer = request_with(&mut gateway, json!({ entry: ["fail"] }));
        assert_eq!(answer, CLOSED, "{entry}");
    }
    host.log_line(&["misdeeds 0.1.0", "told to fail"]);
    bystanders.end().expect_nothing();
}

#[test]
fn panics_at_the_end_of_a_plugin_keep_nothing_from_ending() {
    let (host, bystanders) = scene(json!({ "on_unload": ["panic"], "drop": ["panic"] }));
    let mut gateway = host.gateway();
    let token = gateway.route([("misdeeds", json!({ "drop": ["panic"] }))]);
    assert_eq!(gateway.call(token, get("/")), "unchanged");

    fs::remove_dir_all(host.plugins().join("misdeeds")).unwrap();
    host.log_line(&["plugin unloaded", "plugin=misdeeds"]);
    assert_eq!(gateway.call(token, get("/")), CLOSED);
    bystanders.end().expect_nothing();
}

#[test]
fn a_plugin_that_panics_while_it_is_made_is_not_loaded_with_and_without_a_rehearsal() {
    for rehearse in ["true", "false"] {
        let host = Host::builder()
            .plugin("say")
            .flag("--rehearse", rehearse)
            .start();
        let bystanders = Bystanders::around(&host.socket(), BYSTANDERS);
        install_with(&host.plugins(), "misdeeds", &Value::Null, |library| {
            versions::replace(library, "constructor=peaceful", "constructor=panicked");
        });
        host.log_line(&["ERROR", "misdeeds", "the constructor panics"]);
        let loading = json!({ "settings": { "on_load": ["panic"] } });
        install_with(&host.plugins(), "misdeeds", &loading, |_| {});
        host.log_line(&["ERROR", "misdeeds", "told to panic"]);
        bystanders.end().expect_nothing();
    }
}

#[test]
fn a_plugin_that_leaks_and_takes_memory_disturbs_nobody() {
    let (host, bystanders) = scene(json!({}));
    let mut gateway = host.gateway();
    let conf = json!({ "request": [{ "leak": 1 << 20 }, { "fill": 64 << 20 }] });
    let token = gateway.route([("misdeeds", conf)]);
    for _ in 0..100 {
        assert_eq!(gateway.call(token, get("/")), "unchanged");
    }
    bystanders.end().expect_nothing();
}

#[test]
fn threads_that_outlive_their_plugin_go_on_in_its_library() {
    let (host, bystanders) = scene(json!({}));
    let mut gateway = host.gateway();
    assert_eq!(
        request_with(&mut gateway, json!({ "request": [{ "threads": 8 }] })),
        "unchanged"
    );
    fs::remove_dir_all(host.plugins().join("misdeeds")).unwrap();
    host.log_line(&["plugin unloaded", "plugin=misdeeds"]);
    let seen = host.log().matches("is still here").count();
    wait_for("its threads go on", || {
        (host.log().matches("is still here").count() > seen + 8).then_some(())
    });
    bystanders.end().expect_nothing();
}

#[test]
fn answers_that_no_gateway_could_take_fail_the_call_and_the_connection_goes_on() {
    let (host, bystanders) = scene(json!({}));
    let mut gateway = host.gateway();
    let impossible = [
        json!({ "status": 0 }),
        json!({ "status": 99 }),
        json!({ "status": 101 }),
        json!({ "status": 65_535 }),
        json!({ "huge_header": 17 << 20 }),
        json!({ "body": 17 << 20 }),
        json!("bytes"),
    ];
    for bad in &impossible {
        let conf = json!({ "answer": [bad] });
        assert_eq!(request_with(&mut gateway, conf.clone()), CLOSED, "{bad}");
        let answer = response_with(&mut gateway, conf);
        assert!(answer.starts_with("answer 503"), "{bad}: {answer}");
    }
    // Large, but no larger than a frame.
    for large in [
        json!({ "headers": 1_000 }),
        json!({ "huge_header": 1 << 20 }),
    ] {
        let answer = request_with(&mut gateway, json!({ "answer": [large] }));
        assert!(answer.starts_with("rewrite"), "{large}");
    }
    bystanders.end().expect_nothing();
}

#[test]
fn a_panic_hook_of_the_plugin_is_its_own() {
    let (host, bystanders) = scene(json!({}));
    let mut gateway = host.gateway();
    let conf = json!({ "request": [{ "change_panic_hook": 1 }, "panic"] });
    for _ in 0..3 {
        assert_eq!(request_with(&mut gateway, conf.clone()), CLOSED);
    }
    host.log_line(&["the plugin's own panic hook"]);
    // The host's log tells of the failure all the same.
    host.log_line(&["a call failed closed", "misdeeds"]);
    bystanders.end().expect_nothing();
}

#[test]
fn what_a_plugin_prints_is_in_the_log_and_however_much_it_is_nobody_waits() {
    let (host, bystanders) = scene(json!({}));
    let mut gateway = host.gateway();
    let conf = json!({ "request": [{ "print": "a word" }] });
    assert_eq!(request_with(&mut gateway, conf), "unchanged");
    host.log_line(&["a word on standard output"]);
    host.log_line(&["a word on standard error"]);
    let conf = json!({ "request": [{ "flood": 4_096 }] });
    assert_eq!(request_with(&mut gateway, conf), "unchanged");
    bystanders.end().expect_nothing();
}

#[test]
fn blocked_signals_keep_no_host_from_leaving() {
    let (mut host, bystanders) = scene(json!({}));
    let mut gateway = host.gateway();
    let conf = json!({ "request": ["block_signals"] });
    assert_eq!(request_with(&mut gateway, conf), "unchanged");
    bystanders.end().expect_nothing();
    let worker = host.worker();
    assert_eq!(host.stop().code(), Some(0));
    assert!(!is_alive(worker));
}

#[test]
fn another_working_directory_and_umask_change_nothing_for_the_host() {
    let (host, bystanders) = scene(json!({}));
    let mut gateway = host.gateway();
    let conf = json!({ "request": ["change_directory", "change_umask"] });
    assert_eq!(request_with(&mut gateway, conf), "unchanged");

    install_with(&host.plugins(), "scripted", &Value::Null, |_| {});
    host.log_line(&["plugin loaded", "plugin=scripted"]);
    let token = gateway.route([("scripted", json!([{ "set_header": ["x-a", "1"] }]))]);
    assert!(
        gateway
            .call(token, get("/"))
            .to_string()
            .starts_with("rewrite")
    );
    bystanders.end().expect_nothing();
}

#[test]
fn a_plugin_that_lets_the_process_open_nothing_more_harms_new_connections_until_it_is_replaced() {
    let (host, mut bystanders) = scene(json!({}));
    let mut gateway = host.gateway();
    let conf = json!({ "request": ["limit_files"] });
    let token = gateway.route([("misdeeds", conf)]);
    assert_eq!(gateway.call(token, get("/")), "unchanged");
    let mut waiting = host.gateway();
    host.log_line(&["cannot accept a connection"]);
    bystanders.idle_ones_call();

    host.replace_worker();
    let token = waiting.route([("say", SAY)]);
    assert_eq!(waiting.call(token, get("/")), HELLO);
    // The worker may have ended of it, where it was given a descriptor that it could not take.
    bystanders.end().expect_deaths(1, BYSTANDERS as u64);
}

#[test]
fn a_forked_child_of_a_plugin_ends_with_its_worker() {
    let (mut host, bystanders) = scene(json!({}));
    let mut gateway = host.gateway();
    assert_eq!(
        request_with(&mut gateway, json!({ "request": ["fork"] })),
        "unchanged"
    );
    let line = host.log_line(&["forked "]);
    let number = line.split("forked ").nth(1).unwrap();
    let number = number.split(|c: char| !c.is_ascii_digit()).next().unwrap();
    let child = number.parse().unwrap();
    assert!(is_alive(child));
    bystanders.end().expect_nothing();
    assert_eq!(host.stop().code(), Some(0));
    wait_for("the forked child ends", || (!is_alive(child)).then_some(()));
}

#[test]
fn plugins_that_sleep_for_long_cost_their_own_calls_and_no_others() {
    let (host, bystanders) = scene(json!({}));
    let sleepers: Vec<_> = (0..8)
        .map(|_| {
            let mut gateway = host.gateway();
            thread::spawn(move || {
                request_with(&mut gateway, json!({ "request": [{ "sleep": 60_000 }] }))
            })
        })
        .collect();
    for sleeper in sleepers {
        assert_eq!(sleeper.join().unwrap(), CLOSED);
    }
    let seen = bystanders.end();
    seen.expect_nothing();
    assert!(seen.slowest < Duration::from_millis(500), "{seen:?}");
}
