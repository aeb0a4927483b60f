//! `execute`: asked for with a command and over the control interface, and contained as every call is.

use std::{io::Read, os::unix::net::UnixStream, time::Duration};

use serde_json::{Value, json};

use crate::support::{
    Host,
    asking::{Ask, Reply, get, post},
    serving::{answer, answer_of, serving},
    wait_for,
};

const SCRIPTED: &str = "/v1/plugins/scripted/execute";

fn execute(path: &str, body: Value) -> Ask {
    post(path).body(body)
}

fn asked(host: &Host, label: &str, values: Value) -> Reply {
    let body = json!({ "label": label, "values": values });
    execute(SCRIPTED, body).of(host)
}

/// The detail of a refusal with this status, which says that it is this one's fault.
fn refusal(reply: &Reply, status: u16, fault: &str) -> String {
    let detail = reply.problem(status);
    assert_eq!(reply.json()["fault"], fault, "{reply:?}");
    detail
}

/// Sends a request and does not wait for the answer.
fn begin(host: &Host, label: &str, values: Value) -> UnixStream {
    let body = json!({ "label": label, "values": values });
    execute(SCRIPTED, body).begin(host)
}

fn counts(host: &Host, plugin: &str) -> Value {
    let path = format!("/v1/plugins/{plugin}");
    get(&path).of(host).json()["plugins"][0]["calls"].take()
}

#[test]
fn what_is_asked_for_is_executed_and_what_was_set_comes_back() {
    let host = Host::with("scripted");
    host.log_line(&["plugin loaded", "scripted"]);
    let reply = asked(&host, "report", json!({ "b": [1], "a": "x" }));
    assert_eq!(reply.status, 200, "{reply:?}");
    let executed = reply.json();
    assert_eq!(executed["plugin"], "scripted 0.1.0");
    let expected = json!({ "names": "a,b", "seconds": 10.0, "thread": "executions" });
    assert_eq!(executed["values"], expected);

    let exec = |more: &[&str]| {
        let arguments = [&["exec", "scripted@^0.1", "--label", "report"], more].concat();
        host.ask(&arguments)
    };
    let typed = [
        "--set",
        "a=text",
        "--set",
        "b={\"c\": 1}",
        "--timeout",
        "20s",
    ];
    let (code, said, complaint) = exec(&typed);
    let expected = "names=a,b\nseconds=20.0\nthread=executions\n";
    assert_eq!((code, said.as_str()), (0, expected), "{complaint}");
    let (code, said, _) = exec(&["--set", "deeds=[{\"sleep\": 20}]", "--json"]);
    let shown: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &shown["values"]["names"]), (0, &json!("deeds")));
    assert!(shown["milliseconds"].as_u64().unwrap() >= 20, "{shown}");
    let (code, said, _) = host.ask(&["exec", "scripted"]);
    let expected = "scripted 0.1.0 has executed it, and set no values\n";
    assert_eq!((code, said.as_str()), (0, expected));
    // With the name of the plugin, as every command of an operator's.
    host.log_line(&["an operator's action", "/v1/plugins/scripted/execute"]);
}

#[test]
fn whoever_asks_for_what_is_not_there_is_told_so() {
    let host = Host::builder().plugin("scripted").plugin("stub").start();
    host.log_line(&["plugin loaded", "stub"]);
    let ask = |plugin: &str, body: Value| {
        execute(&format!("/v1/plugins/{plugin}/execute"), body).of(&host)
    };
    let detail = refusal(&ask("stub", json!({})), 501, "asker");
    assert_eq!(
        detail,
        "plugin stub 0.1.0 has no `execute`: there is nothing in it that could be asked for"
    );
    assert_eq!(counts(&host, "stub")["calls"], 0, "it was not called");
    let (code, _, complaint) = host.ask(&["exec", "stub"]);
    assert_eq!(code, 1);
    assert!(complaint.contains("has no `execute`"), "{complaint}");
    let detail = ask("nobody", json!({})).problem(404);
    assert!(detail.contains("`nobody`"), "{detail}");
    assert_eq!(ask("a b", json!({})).status, 400);
    let detail = ask("scripted", json!({ "lable": "" })).problem(400);
    assert!(detail.contains("lable"), "{detail}");
    for timeout in [0, 30_001] {
        let reply = ask("scripted", json!({ "timeout_ms": timeout }));
        let detail = refusal(&reply, 400, "asker");
        assert_eq!(detail, "timeout_ms is from 1 to 30000");
    }
    let (code, _, complaint) = host.ask(&["exec", "scripted", "--set", "=1"]);
    assert_eq!(code, 2, "{complaint}");
}

#[test]
fn an_execution_has_so_many_values_and_bytes_and_its_request_no_more() {
    let host = Host::with("scripted");
    host.log_line(&["plugin loaded", "scripted"]);
    let many: serde_json::Map<_, _> = (0..257).map(|n| (n.to_string(), json!(n))).collect();
    let detail = refusal(&asked(&host, "", Value::Object(many)), 413, "asker");
    assert!(detail.contains("257 values"), "{detail}");
    let long = json!({ "a": "x".repeat(1 << 20) });
    let detail = refusal(&asked(&host, "", long), 413, "asker");
    assert!(detail.contains("at most 256 of 1048576 bytes"), "{detail}");
    let longer = json!({ "a": "x".repeat((1 << 20) + (64 << 10)) });
    let detail = refusal(&asked(&host, "", longer), 413, "asker");
    assert!(detail.contains("longer than 1114112 bytes"), "{detail}");
    let reply = asked(&host, "many", json!({}));
    let detail = refusal(&reply, 502, "plugin");
    assert!(detail.contains("too many values"), "{detail}");
}

#[test]
fn an_error_a_panic_and_a_missed_deadline_are_the_plugins_fault_and_are_counted() {
    let host = Host::builder()
        .plugin_json("scripted", json!({ "timeout_ms": 200 }))
        .start();
    host.log_line(&["plugin loaded", "scripted"]);
    let fails = |deed: Value, status: u16| {
        let reply = asked(&host, "", json!({ "deeds": [deed] }));
        refusal(&reply, status, "plugin")
    };
    let detail = fails(json!({ "fail": "no luck" }), 502);
    assert_eq!(detail, "plugin scripted 0.1.0 failed: no luck");
    let detail = fails(json!({ "panic": "oh" }), 502);
    assert!(detail.contains("panicked: oh at "), "{detail}");
    let detail = fails(json!({ "sleep": 60_000 }), 504);
    assert!(detail.contains("had not answered after 200 ms"), "{detail}");
    host.log_line(&["WARN", "an execution failed", "no luck"]);
    let (code, _, complaint) = host.ask(&["exec", "scripted", "--label", "no such thing"]);
    assert_eq!(code, 1);
    assert!(
        complaint.contains("labelled `no such thing`"),
        "{complaint}"
    );
    // The asker's own bound wins.
    let longer = json!({ "timeout_ms": 5_000, "values": { "deeds": [{ "sleep": 300 }] } });
    assert_eq!(execute(SCRIPTED, longer).of(&host).status, 200);

    let counts = counts(&host, "scripted");
    for (what, count) in [
        ("calls", 5),
        ("errors", 2),
        ("panics", 1),
        ("missed_deadlines", 1),
    ] {
        assert_eq!(counts[what], count, "{what}: {counts}");
    }
    let metrics = get("/metrics").of(&host).body;
    for (outcome, count) in [("passed", 1), ("error", 2), ("panic", 1), ("deadline", 1)] {
        let series = format!(
            "pluginhost_plugin_calls_total{{plugin=\"scripted\",version=\"0.1.0\",phase=\"execute\",outcome=\"{outcome}\"}} {count}\n"
        );
        assert!(metrics.contains(&series), "{series}{metrics}");
    }
}

#[test]
fn whoever_asks_and_goes_away_cancels_what_runs() {
    let host = Host::with("scripted");
    host.log_line(&["plugin loaded", "scripted"]);
    let asking = begin(&host, "until cancelled", json!({}));
    host.log_line(&["the execution waits"]);
    drop(asking);
    host.log_line(&["the execution is cancelled: true"]);
    wait_for("it is counted", || {
        let metrics = get("/metrics").of(&host).body;
        metrics.contains("outcome=\"abandoned\"} 1\n").then_some(())
    });
}

#[test]
fn what_does_not_end_is_dropped_a_moment_after_its_time() {
    let host = Host::builder()
        .plugin_json("scripted", json!({ "timeout_ms": 100 }))
        .start();
    host.log_line(&["plugin loaded", "scripted"]);
    assert_eq!(asked(&host, "for ever", json!({})).status, 504);
    assert!(!host.log().contains("the execution is dropped"));
    host.log_line(&["the execution is dropped"]);
    // And what listens hears of it.
    assert_eq!(asked(&host, "until cancelled", json!({})).status, 504);
    host.log_line(&["the execution is cancelled: true"]);
}

#[test]
fn a_plugin_that_blocks_executes_on_the_pool_and_holds_nobody_up() {
    let host = Host::builder()
        .plugin_json("scripted", json!({ "execution": "blocking" }))
        .plugin("tokio-user")
        .start();
    host.log_line(&["plugin loaded", "scripted"]);
    host.log_line(&["plugin loaded", "tokio-user"]);
    let asking = begin(&host, "", json!({ "deeds": [{ "block": 1_500 }] }));
    // With a runtime of its own: beside the one that blocks.
    let reply = execute("/v1/plugins/tokio-user/execute", json!({})).of(&host);
    assert_eq!(
        reply.json()["values"]["thread"],
        "rt-tokio-user",
        "{reply:?}"
    );
    let thread = asked(&host, "report", json!({})).json()["values"]["thread"].take();
    assert_eq!(thread, "pool");
    let mut answer = String::new();
    (&asking).read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_plugin_that_blocks_without_saying_so_is_found_out_by_its_executions() {
    let host = Host::with("scripted");
    host.log_line(&["plugin loaded", "scripted"]);
    let blocks = json!({ "deeds": [{ "block": 200 }] });
    assert_eq!(asked(&host, "", blocks).status, 200);
    host.log_line(&["WARN", "holds an event loop up while executing"]);
    let thread = asked(&host, "report", json!({})).json()["values"]["thread"].take();
    assert_eq!(thread, "pool");
}

#[test]
fn a_worker_that_dies_in_an_execution_is_that_plugins_fault_and_the_answer_says_so() {
    let host = Host::builder().plugin("say").plugin("misdeeds").start();
    host.log_line(&["plugin loaded", "misdeeds"]);
    let mut gateway = host.gateway();
    let token = gateway.route([("say", json!({ "body": "hello" }))]);
    let call = || crate::support::get("/");
    let said = gateway.call(token, call()).to_string();
    let path = "/v1/plugins/misdeeds/execute";
    let dies = json!({ "values": { "deeds": ["fault"] } });
    for _ in 0..3 {
        let worker = host.worker();
        let detail = refusal(&execute(path, dies.clone()).of(&host), 502, "plugin");
        for part in [
            "the worker has ended while it executed `misdeeds`",
            "SIGSEGV",
            "misdeeds 0.1.0",
        ] {
            assert!(detail.contains(part), "{detail}");
        }
        wait_for("another worker serves", || {
            (host.worker() != worker).then_some(())
        });
        assert_eq!(gateway.call(token, call()).to_string(), said);
        // What has served serves in the next worker, until it is put aside.
        wait_for("the plugin is known", || {
            (get("/v1/plugins/misdeeds").of(&host).status == 200).then_some(())
        });
    }
    host.log_line(&["ERROR", "misdeeds", "is in quarantine"]);
    let detail = wait_for("it is out of service", || {
        let reply = execute(path, dies.clone()).of(&host);
        (reply.status == 404).then(|| reply.problem(404))
    });
    assert!(detail.contains("quarantine"), "{detail}");
}

#[test]
fn an_execution_keeps_its_worker_until_it_has_ended_and_others_go_to_the_next_one() {
    let host = Host::with("scripted");
    host.log_line(&["plugin loaded", "scripted"]);
    let before = host.worker();
    let asking = begin(&host, "report", json!({ "deeds": [{ "sleep": 2_000 }] }));
    // On its way, or the next worker would get it.
    wait_for("it runs", || {
        host.log().contains("plugin loaded").then_some(())
    });
    std::thread::sleep(Duration::from_millis(200));
    host.replace_worker();
    assert_ne!(host.worker(), before);
    assert_eq!(asked(&host, "report", json!({})).status, 200);
    let mut answer = String::new();
    (&asking).read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    wait_for("the worker before has ended", || {
        (host.workers().len() == 1).then_some(())
    });
}

#[test]
fn beyond_so_many_executions_further_ones_are_refused() {
    let host = Host::with("scripted");
    host.log_line(&["plugin loaded", "scripted"]);
    let waiting: Vec<UnixStream> = (0..32)
        .map(|_| begin(&host, "until cancelled", json!({})))
        .collect();
    let detail = wait_for("all of them run", || {
        let reply = asked(&host, "", json!({}));
        (reply.status == 503).then(|| refusal(&reply, 503, "host"))
    });
    assert!(detail.contains("32 executions run already"), "{detail}");
    drop(waiting);
    wait_for("there is room again", || {
        (asked(&host, "", json!({})).status == 200).then_some(())
    });
}

#[test]
fn an_upgrade_leaves_what_executes_with_the_version_that_began() {
    let (host, directory, mut gateway, token) = serving();
    assert_eq!(answer(&mut gateway, token), answer_of("0.1.0", "hello"));
    let executed = |wait: u64| {
        let body = json!({ "values": { "wait": wait } });
        execute("/v1/plugins/versioned/execute", body)
    };
    let slow = executed(1_500).begin(&host);
    std::thread::sleep(Duration::from_millis(200));
    crate::support::versions::version("0.2.0").swap_in(&directory);
    wait_for("the next version executes", || {
        let version = executed(0).of(&host).json()["values"]["version"].take();
        (version == "0.2.0").then_some(())
    });
    let mut answer = String::new();
    (&slow).read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\"version\":\"0.1.0\""), "{answer}");
}
