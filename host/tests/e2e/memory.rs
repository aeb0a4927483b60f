//! What frames and bodies may hold, for one connection and for all: what the plugin and the gateway
//! are told beyond it, that it is free again afterwards, and that nobody else notices.

use serde_json::{Value, json};

use crate::{
    message::Message,
    support::{Answer, Builder, Host, frame, get, request, wait_for},
};

const ERROR: &str = "error 1";

/// A host whose frames have at most so many bytes, and as many for each connection.
fn host_with(memory: &str) -> Builder {
    Host::builder()
        .plugin("scripted")
        .flag("--max-frame-bytes", memory)
        .flag("--max-connection-memory", memory)
}

/// Whether a request's answer has a body of so many bytes.
fn expect_body(answer: &Answer, bytes: usize) {
    let answer = answer.to_string();
    let body = format!("body {bytes} bytes like 'xxxxxxxx'");
    assert!(answer.ends_with(&body), "{answer}");
}

#[test]
fn a_body_that_a_plugin_makes_counts_beside_the_one_that_came() {
    let host = host_with("400KiB").start();
    let mut gateway = host.gateway();
    gateway.set_request_body(&vec![b'a'; 300_000]);
    let steps = json!([{ "look": "headers" }, { "report": ["x-body", "body"] }, { "set_long_body": 200_000 }]);
    let both = gateway.route([("scripted", steps)]);
    assert_eq!(gateway.call(both, request("POST", "/")), ERROR);
    host.log_line(&[
        "a call failed closed",
        "scripted 0.1.0 wants more than the host can keep",
        "a body of 200000 bytes does not fit",
        "one connection may hold 409600 bytes (--max-connection-memory)",
    ]);
    // The connection goes on, and holds nothing any more.
    let one = gateway.route([("scripted", json!([{ "set_long_body": 190_000 }]))]);
    expect_body(&gateway.call(one, get("/")), 190_000);
}

#[test]
fn an_answer_counts_until_it_is_sent() {
    let host = host_with("400KiB").start();
    let mut gateway = host.gateway();
    // It fits once, as a body, and not twice, as a body and in a frame.
    let long = gateway.route([("scripted", json!([{ "set_long_body": 250_000 }]))]);
    for _ in 0..2 {
        assert_eq!(gateway.call(long, get("/")), ERROR);
    }
    host.log_line(&[
        "the answer cannot be sent: a frame of 250",
        "one connection may hold 409600 bytes",
    ]);
    let shorter = gateway.route([("scripted", json!([{ "set_long_body": 190_000 }]))]);
    for _ in 0..2 {
        expect_body(&gateway.call(shorter, get("/")), 190_000);
    }
}

#[test]
fn a_reply_of_a_plugin_counts_as_well() {
    let host = host_with("400KiB").start();
    let mut gateway = host.gateway();
    gateway.set_request_body(&vec![b'a'; 300_000]);
    let reply = json!({ "stop": { "status": 200, "body": "b".repeat(150_000) } });
    let beside_a_body = json!([{ "look": "body" }, &reply]);
    let token = gateway.route([("scripted", beside_a_body)]);
    assert_eq!(gateway.call(token, request("POST", "/")), ERROR);
    host.log_line(&["a reply of 150000 bytes does not fit"]);
    let token = gateway.route([("scripted", json!([&reply]))]);
    let answer = gateway.call(token, request("POST", "/")).to_string();
    assert!(answer.starts_with("stop 200"), "{:.100}", answer);
}

#[test]
fn answers_of_the_gateway_that_are_kept_for_a_call_count_however_short_they_are() {
    let host = host_with("64KiB").start();
    let mut gateway = host.gateway();
    for length in [4_000, 7_000] {
        let names: Vec<String> = (0..20).map(|number| format!("v{number}")).collect();
        for name in &names {
            gateway.set_variable(name, &"x".repeat(length));
        }
        let asks = names.iter().map(|name| json!({ "look": { "var": name } }));
        let last = json!({ "report": ["x-last", { "var": "v19" }] });
        let steps: Vec<Value> = asks.chain([last]).collect();
        let token = gateway.route([("scripted", json!(steps))]);
        for _ in 0..2 {
            assert_eq!(
                gateway.call(token, get("/")),
                "rewrite path none headers [x-last='(OutOfMemory)'] args [] response headers [] \
                 body none",
                "{length}"
            );
        }
    }
}

#[test]
fn a_list_of_changes_without_end_is_no_answer() {
    let host = host_with("1MiB").start();
    let mut gateway = host.gateway();
    let value = "x".repeat(8_000);
    let steps: Vec<Value> = (0..80)
        .map(|_| json!({ "set_header": ["x-again", value] }))
        .collect();
    let token = gateway.route([("scripted", json!(steps))]);
    assert_eq!(gateway.call(token, get("/")), ERROR);
    host.log_line(&["a list of changes of 1048576 bytes does not fit"]);
}

#[test]
fn what_plugins_make_counts_for_all_connections_together() {
    let host = Host::builder()
        .plugin("scripted")
        .flag("--max-frame-bytes", "400KiB")
        .flag("--max-body-memory", "400KiB")
        .start();
    let steps = json!([
        { "set_long_body": 300_000 },
        { "look": { "var": "after" } },
        { "stop": { "status": 200 } },
    ]);
    let (mut holds, mut wants) = (host.gateway(), host.gateway());
    let token = holds.route([("scripted", steps)]);
    holds.begin(token, get("/"));
    assert_eq!(holds.receive().to_string(), "ask 'after'");
    assert_eq!(wants.call(token, get("/")), ERROR);
    host.log_line(&[
        "a body of 300000 bytes does not fit",
        "all connections together may hold 409600 bytes (--max-body-memory)",
    ]);
    holds.send(&Message::Info { result: None });
    assert_eq!(holds.finish(), "stop 200 headers [] body ''");
    wait_for("there is room again", || {
        let answer = wants.call(token, get("/"));
        (answer == "stop 200 headers [] body ''").then_some(())
    });
}

#[test]
fn what_a_call_holds_counts_until_its_plugin_has_really_returned() {
    let host = Host::builder()
        .plugin_json(
            "scripted",
            json!({ "execution": "blocking", "timeout_ms": 100 }),
        )
        .flag("--max-frame-bytes", "400KiB")
        .flag("--max-body-memory", "400KiB")
        .start();
    let mut gateway = host.gateway();
    let blocks = gateway.route([("scripted", json!([{ "block": 3_000 }]))]);
    let passes = gateway.route([("scripted", json!([]))]);
    let long = format!("/{}", "x".repeat(300_000));
    assert_eq!(gateway.call(blocks, get(&long)), ERROR);
    let header = &frame(&Message::Info {
        result: Some(vec![b'x'; 300_000].as_slice().into()),
    })[..4];
    // Refused as soon as its length is known; otherwise the host waits for the rest.
    let refused = || {
        let mut other = host.gateway();
        other.send_bytes(header);
        other.end_sending();
        other.try_receive().is_some()
    };
    assert!(refused(), "the frame of the call that was answered is held");
    wait_for("the plugin returns", || (!refused()).then_some(()));
    assert_eq!(gateway.call(passes, get(&long)), "unchanged");
}

#[test]
fn one_connection_holds_no_more_than_its_part_whatever_is_left_for_all() {
    let host = host_with("400KiB").start();
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", json!([{ "look": "body" }]))]);
    gateway.set_request_body(&vec![b'a'; 300_000]);
    // The frame of the call and the body that it asks for are too much together.
    let long = format!("/{}", "x".repeat(200_000));
    assert_eq!(gateway.call(token, get(&long)), "unchanged");
    host.log_line(&["saw (OutOfMemory)"]);
    assert_eq!(gateway.call(token, get("/")), "unchanged");
    host.log_line(&["saw 300000 bytes"]);
}
