//! How plugins fail without ending their process: counted and shown for each, and never a reason for
//! quarantine, since a client could bring it about.

use serde_json::{Value, json};

use crate::support::{Gateway, Host, get, response};

const ERROR: &str = "error 1";

/// Times that each failure is provoked: more than crashes that bring a plugin into quarantine.
const TIMES: u64 = 3;

fn asked(host: &Host, command: &str) -> Value {
    let (code, said, complaint) = host.ask(&[command, "--json"]);
    assert_eq!(code, 0, "{complaint}");
    serde_json::from_str(&said).unwrap()
}

/// The numbers of the only plugin.
fn counts(host: &Host) -> Value {
    asked(host, "status")["plugins"][0]["calls"].take()
}

fn fail(gateway: &mut Gateway, step: Value) {
    let token = gateway.route([("scripted", json!([step]))]);
    for _ in 0..TIMES {
        assert_eq!(gateway.call(token, get("/")), ERROR, "{step}");
    }
}

/// The worker is the process that it was, and nothing is in quarantine.
fn expect_no_consequences(host: &Host, workers: &[u32]) {
    assert_eq!(host.workers(), workers, "no other worker has come");
    let overview = asked(host, "workers");
    assert_eq!(overview["crashes"], 0);
    assert_eq!(overview["replacements"], 0);
    assert_eq!(overview["quarantined"], json!([]));
    let status = asked(host, "status");
    assert_eq!(status["quarantined"], json!([]));
    assert_eq!(status["plugins"][0]["serving"], "0.1.0");
}

#[test]
fn failures_are_counted_by_their_kind_and_never_bring_a_plugin_into_quarantine() {
    let host = Host::builder()
        .plugin_json("scripted", json!({ "timeout_ms": 200 }))
        .flag("--quarantine-crashes", "1")
        .flag("--max-connection-memory", "400KiB")
        .flag("--max-frame-bytes", "400KiB")
        .start();
    let mut gateway = host.gateway();
    let well = gateway.route([("scripted", "[]")]);
    assert_eq!(gateway.call(well, get("/")), "unchanged");
    let workers = host.workers();
    let mut expected = json!({
        "calls": 1, "errors": 0, "panics": 0, "missed_deadlines": 0, "misuses": 0,
        "without_thread": 0, "without_room": 0,
    });
    assert_eq!(counts(&host), expected);

    for (count, step) in [
        ("errors", json!({ "fail": "no luck" })),
        ("panics", json!({ "panic": "oh no" })),
        ("missed_deadlines", json!({ "sleep": 60_000 })),
        ("misuses", json!({ "set_header": ["a b", "1"] })),
        ("misuses", json!({ "stop": { "status": 99 } })),
        ("without_room", json!({ "set_long_body": 500_000 })),
    ] {
        fail(&mut gateway, step);
        for key in ["calls", count] {
            expected[key] = json!(expected[key].as_u64().unwrap() + TIMES);
        }
        assert_eq!(counts(&host), expected, "after {count}");
    }

    // Responses count as requests do, and a refused configuration is no call.
    let fails = gateway.route([("scripted", json!([{ "fail": "no luck" }]))]);
    let answer = gateway.call(fails, response(200)).to_string();
    assert!(answer.starts_with("answer 503 "), "{answer}");
    let panics = gateway.route([(
        "scripted",
        json!([{ "when_configured": { "panic": "no" } }]),
    )]);
    assert_eq!(gateway.call(panics, get("/")), ERROR);
    expected["calls"] = json!(expected["calls"].as_u64().unwrap() + 1);
    expected["errors"] = json!(TIMES + 1);
    expected["panics"] = json!(TIMES + 1);
    assert_eq!(counts(&host), expected);

    let (_, shown, _) = host.ask(&["status"]);
    let line = "  calls: 20, errors: 4, panics: 4, missed deadlines: 3, misuses: 6, \
                without room: 3\n";
    assert!(shown.contains(line), "{shown}");
    assert_eq!(gateway.call(well, get("/")), "unchanged");
    expect_no_consequences(&host, &workers);
}

#[test]
fn calls_for_which_no_thread_is_free_are_counted_apart_from_missed_deadlines() {
    let host = Host::builder()
        .plugin_json(
            "scripted",
            json!({ "execution": "blocking", "timeout_ms": 100 }),
        )
        .flag("--quarantine-crashes", "1")
        .flag("--blocking-threads", "1")
        .flag("--stuck-threads", "0")
        .start();
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", json!([{ "block": 15_000 }]))]);
    assert_eq!(gateway.call(token, get("/")), ERROR);
    let workers = host.workers();
    for _ in 0..TIMES {
        assert_eq!(gateway.call(token, get("/")), ERROR);
    }
    let counts = counts(&host);
    assert_eq!(counts["calls"], 1 + TIMES);
    assert_eq!(counts["missed_deadlines"], 1);
    assert_eq!(counts["without_thread"], TIMES);
    let (_, shown, _) = host.ask(&["status"]);
    assert!(
        shown.contains("  calls: 4, missed deadlines: 1, without a thread: 3\n"),
        "{shown}"
    );
    expect_no_consequences(&host, &workers);
}
