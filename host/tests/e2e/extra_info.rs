//! Questions to the gateway in the middle of a call: what plugins get for an answer, how often the
//! gateway is asked, and what happens where it cannot be, or answers late.

use serde_json::{Value, json};

use crate::{
    message::Message,
    support::{Answer, Gateway, Host, frame, get, request, response},
};

/// A body of this many bytes, no two parts of it alike.
fn body_of(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place % 251) as u8).collect()
}

/// How the scripted plugin reports a long body.
fn reported(body: &[u8]) -> String {
    let sum = body.iter().fold(0_u32, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u32::from(*byte))
    });
    format!("{} bytes, sum {sum:08x}", body.len())
}

/// A rewrite that sets these headers and nothing else.
fn rewrite(headers: &str) -> String {
    format!("rewrite path none headers [{headers}] args [] response headers [] body none")
}

/// A script that reports a body.
fn report_body() -> Value {
    json!([{ "report": ["x-body", "body"] }])
}

#[track_caller]
fn assert_rewrites(answer: Answer, headers: &str) {
    assert_eq!(answer, rewrite(headers).as_str());
}

#[test]
fn a_variable_is_set_or_unset_or_empty() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    gateway.set_variable("route_id", "7");
    gateway.set_variable("arg_x", "");
    let token = gateway.route([(
        "scripted",
        json!([
            { "report": ["x-set", { "var": "route_id" }] },
            { "report": ["x-empty", { "var": "arg_x" }] },
            { "report": ["x-unset", { "var": "nosuch" }] },
        ]),
    )]);
    assert_rewrites(
        gateway.call(token, get("/")),
        "x-set=''7'', x-empty='''', x-unset='(none)'",
    );
    assert_eq!(gateway.asked(), ["route_id", "arg_x", "nosuch"]);
}

#[test]
fn a_variable_can_be_asked_for_in_the_response_phase() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    gateway.set_variable("upstream_addr", "10.0.0.1:80");
    let steps = json!([{ "report": ["X-Upstream", { "var": "upstream_addr" }] }]);
    let token = gateway.route([("scripted", steps)]);
    assert_eq!(
        gateway.call(token, response(200)),
        "answer 0 headers [X-Upstream=''10.0.0.1:80''] body none"
    );
}

#[test]
fn a_request_without_a_body_has_none() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", report_body())]);
    assert_rewrites(gateway.call(token, get("/")), "x-body='(none)'");
    gateway.set_request_body(b"");
    assert_rewrites(gateway.call(token, request("POST", "/")), "x-body=''''");
}

#[test]
fn request_bodies_of_any_size_arrive_whole() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", report_body())]);
    for length in [300, 4095, 4096, 4097, 65_536, 1 << 20, 8 << 20] {
        let body = body_of(length);
        gateway.set_request_body(&body);
        let headers = format!("x-body='{}'", reported(&body));
        assert_rewrites(gateway.call(token, request("POST", "/")), &headers);
    }
}

#[test]
fn response_bodies_of_any_size_arrive_whole() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", json!([{ "report": ["X-Body", "body"] }]))]);
    for length in [300, 65_536, 8 << 20] {
        let body = body_of(length);
        gateway.set_response_body(&body);
        let expected = format!("answer 0 headers [X-Body='{}'] body none", reported(&body));
        assert_eq!(gateway.call(token, response(200)), expected.as_str());
    }
}

#[test]
fn a_body_of_8_mib_goes_out_whole_in_both_phases() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", json!([{ "set_long_body": 8 << 20 }]))]);
    let Message::Rewrite { body, .. } = gateway.call(token, get("/")).0 else {
        panic!("no rewrite");
    };
    assert!(body.unwrap().0 == [b'x'; 8 << 20]);
    let Message::ResponseAnswer { body, .. } = gateway.call(token, response(200)).0 else {
        panic!("no answer");
    };
    assert!(body.unwrap().0 == [b'x'; 8 << 20]);
}

#[test]
fn each_question_travels_once_per_call_however_many_plugins_ask_it() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    gateway.set_variable("route_id", "7");
    gateway.set_request_body(b"hello");
    let steps = json!([
        { "report": ["x-one", { "var": "route_id" }] },
        { "report": ["x-two", { "var": "route_id" }] },
        { "report": ["x-body", "body"] },
        { "report": ["x-none", { "var": "nosuch" }] },
        { "report": ["x-none", { "var": "nosuch" }] },
    ]);
    let token = gateway.route([("scripted", &steps), ("scripted", &steps)]);
    let once = ["route_id", "request body", "nosuch"];
    for value in ["7", "8"] {
        gateway.set_variable("route_id", value);
        assert_rewrites(
            gateway.call(token, request("POST", "/")),
            &format!("x-one=''{value}'', x-two=''{value}'', x-body=''hello'', x-none='(none)'"),
        );
        assert_eq!(gateway.asked(), once, "the next call asks anew");
    }
}

#[test]
fn two_questions_asked_at_the_same_time_get_their_own_answers() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    gateway.set_variable("one", "1");
    gateway.set_request_body(b"body");
    let steps = json!([{ "report_both": [["x-one", { "var": "one" }], ["x-body", "body"]] }]);
    let token = gateway.route([("scripted", steps)]);
    assert_rewrites(
        gateway.call(token, request("POST", "/")),
        "x-one=''1'', x-body=''body''",
    );
    assert_eq!(gateway.asked(), ["one", "request body"]);
}

#[test]
fn the_same_question_asked_twice_at_the_same_time_travels_once() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    gateway.set_variable("v", "1");
    let steps = json!([{ "report_both": [["x-a", { "var": "v" }], ["x-b", { "var": "v" }]] }]);
    let token = gateway.route([("scripted", steps)]);
    assert_rewrites(gateway.call(token, get("/")), "x-a=''1'', x-b=''1''");
    assert_eq!(gateway.asked(), ["v"]);
}

#[test]
fn what_the_metadata_needs_is_asked_for_before_the_plugin_runs() {
    let host = Host::builder()
        .plugin_json(
            "scripted",
            json!({ "needs": { "variables": ["route_id", "nosuch"], "request_body": true, "response_body": true } }),
        )
        .start();
    let mut gateway = host.gateway();
    let nothing = gateway.route([("scripted", json!([]))]);
    assert_eq!(gateway.call(nothing, get("/")), "unchanged");
    assert_eq!(gateway.asked(), ["route_id", "nosuch", "request body"]);
    gateway.call(nothing, response(200));
    assert_eq!(gateway.asked(), ["route_id", "nosuch", "response body"]);

    gateway.set_variable("route_id", "7");
    let steps =
        json!([{ "report": ["x-id", { "var": "route_id" }] }, { "report": ["x-body", "body"] }]);
    let reads = gateway.route([("scripted", &steps), ("scripted", &steps)]);
    gateway.set_request_body(b"hello");
    assert_rewrites(
        gateway.call(reads, request("POST", "/")),
        "x-id=''7'', x-body=''hello''",
    );
    assert_eq!(gateway.asked(), ["route_id", "nosuch", "request body"]);
}

#[test]
fn a_body_that_no_frame_can_carry_is_not_asked_for_and_the_call_lives_on() {
    for needs in [
        json!({}),
        json!({ "needs": { "request_body": true, "response_body": true } }),
    ] {
        let host = Host::builder().plugin_json("scripted", needs).start();
        let mut gateway = host.gateway();
        let token = gateway.route([("scripted", report_body())]);
        for length in ["16777216", "18446744073709551615"] {
            let call = request("POST", "/").header("content-length", length);
            assert_rewrites(gateway.call(token, call), "x-body='(BodyTooLarge)'");
            let call = response(200).header("Content-Length", length);
            assert_eq!(
                gateway.call(token, call),
                "answer 0 headers [x-body='(BodyTooLarge)'] body none"
            );
        }
        assert!(gateway.asked().is_empty());
    }
}

#[test]
fn a_body_longer_than_the_operators_bound_on_frames_is_not_asked_for() {
    let host = Host::builder()
        .plugin("scripted")
        .flag("--max-frame-bytes", "1MiB")
        .start();
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", report_body())]);
    let call = |length: &str| request("POST", "/").header("content-length", length);
    assert_rewrites(
        gateway.call(token, call("1048576")),
        "x-body='(BodyTooLarge)'",
    );
    let body = body_of(1_000_000);
    gateway.set_request_body(&body);
    let headers = format!("x-body='{}'", reported(&body));
    assert_rewrites(gateway.call(token, call("1000000")), &headers);
}

#[test]
fn a_call_asks_no_more_often_than_the_operator_allows() {
    let host = Host::builder()
        .plugin("scripted")
        .flag("--max-extra-info-rounds", "2")
        .start();
    let mut gateway = host.gateway();
    let steps = json!([
        { "report": ["x-1", { "var": "a" }] },
        { "report": ["x-2", { "var": "b" }] },
        { "report": ["x-3", { "var": "c" }] },
        { "report": ["x-4", { "var": "a" }] },
    ]);
    let token = gateway.route([("scripted", steps)]);
    for _ in 0..2 {
        assert_rewrites(
            gateway.call(token, get("/")),
            "x-1='(none)', x-2='(none)', x-3='(TooManyQuestions)', x-4='(none)'",
        );
        assert_eq!(gateway.asked(), ["a", "b"]);
    }
}

#[test]
fn a_body_beyond_the_memory_for_bodies_is_refused_and_the_connection_goes_on() {
    let host = Host::builder()
        .plugin("scripted")
        .flag("--max-frame-bytes", "400KiB")
        .flag("--max-body-memory", "400KiB")
        .start();
    let steps = json!([
        { "report": ["x-body", "body"] },
        { "report": ["x-after", { "var": "after" }] },
    ]);
    let body = body_of(300_000);
    let mut holds = host.gateway();
    let token = holds.route([("scripted", steps)]);
    let mut wants = host.gateway();
    wants.set_variable("after", "1");
    wants.set_request_body(&body);

    // A call that goes on holds its body.
    holds.begin(token, request("POST", "/"));
    assert_eq!(holds.receive().to_string(), "ask for the request body");
    holds.send(&Message::Info {
        result: Some(body.as_slice().into()),
    });
    assert_eq!(holds.receive().to_string(), "ask 'after'");
    for _ in 0..2 {
        assert_rewrites(
            wants.call(token, request("POST", "/")),
            "x-body='(OutOfMemory)', x-after=''1''",
        );
    }

    // Once it is over, there is room again.
    let whole = format!("x-body='{}', x-after=''1''", reported(&body));
    answer(&mut holds, "1");
    assert_rewrites(holds.finish(), &whole);
    for _ in 0..3 {
        assert_rewrites(wants.call(token, request("POST", "/")), &whole);
    }
}

#[test]
fn a_gateway_that_hangs_up_in_the_middle_of_a_call_harms_nobody_else() {
    let host = Host::with("scripted");
    let mut other = host.gateway();
    let steps = json!([{ "report": ["x-id", { "var": "route_id" }] }]);
    let token = other.route([("scripted", steps)]);
    let mut gateway = host.gateway();
    gateway.begin(token, get("/"));
    assert_eq!(gateway.receive().to_string(), "ask 'route_id'");
    drop(gateway);
    assert_rewrites(other.call(token, get("/")), "x-id='(none)'");
    assert!(!host.log().contains("failed closed"), "nobody failed");
}

/// A host whose scripted plugin has little time and does no harm when it runs out of it.
fn hasty_host() -> Host {
    Host::builder()
        .plugin_json(
            "scripted",
            json!({ "timeout_ms": 100, "failure_policy": "open" }),
        )
        .start()
}

/// Answers a question.
fn answer(gateway: &mut Gateway, result: &str) {
    gateway.send(&Message::Info {
        result: Some(result.into()),
    });
}

#[test]
fn an_answer_that_comes_after_the_plugins_deadline_is_swallowed_and_the_connection_goes_on() {
    let host = hasty_host();
    let mut gateway = host.gateway();
    let asks = |name: &str| json!([{ "report": ["x-seen", { "var": name }] }]);
    let token = gateway.route([("scripted", asks("slow"))]);
    let next = gateway.route([("scripted", asks("next"))]);

    gateway.begin(token, get("/"));
    assert_eq!(gateway.receive().to_string(), "ask 'slow'");
    assert_eq!(gateway.finish(), "unchanged", "the plugin was skipped");
    answer(&mut gateway, "late");

    gateway.begin(next, get("/"));
    assert_eq!(gateway.receive().to_string(), "ask 'next'");
    answer(&mut gateway, "in time");
    assert_rewrites(gateway.finish(), "x-seen=''in time''");
}

#[test]
fn a_late_answer_is_not_taken_for_the_answer_to_the_next_plugins_question() {
    let host = hasty_host();
    let mut gateway = host.gateway();
    let asks = |name: &str| json!([{ "report": ["x-seen", { "var": name }] }]);
    let token = gateway.route([("scripted", asks("slow")), ("scripted", asks("next"))]);
    gateway.begin(token, get("/"));
    assert_eq!(gateway.receive().to_string(), "ask 'slow'");
    assert_eq!(gateway.receive().to_string(), "ask 'next'");
    answer(&mut gateway, "late");
    answer(&mut gateway, "in time");
    assert_rewrites(gateway.finish(), "x-seen=''in time''");
}

#[test]
fn an_answer_that_there_is_no_memory_for_may_still_be_arriving_when_the_plugins_time_is_up() {
    let host = Host::builder()
        .plugin_json(
            "scripted",
            json!({ "timeout_ms": 500, "failure_policy": "open" }),
        )
        .plugin("stub")
        .flag("--max-frame-bytes", "400KiB")
        .flag("--max-body-memory", "400KiB")
        .start();
    let body = Message::Info {
        result: Some(body_of(300_000).as_slice().into()),
    };
    // A call of another plugin's takes the memory, and keeps it for the rest of the test.
    let mut holds = host.gateway();
    let asks = json!({ "req": { "ask": [["reqbody"], ["var", "after"]] } });
    let token = holds.route([("stub", asks)]);
    holds.begin(token, request("POST", "/"));
    assert_eq!(holds.receive().to_string(), "ask for the request body");
    holds.send(&body);
    assert_eq!(holds.receive().to_string(), "ask 'after'");

    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", report_body())]);
    let next = gateway.route([("scripted", json!([{ "set_path": "/next" }]))]);
    gateway.begin(token, request("POST", "/"));
    assert_eq!(gateway.receive().to_string(), "ask for the request body");
    let answer = frame(&body);
    let (arrives, comes_late) = answer.split_at(100_000);
    gateway.send_bytes(arrives);
    assert_eq!(gateway.finish(), "unchanged", "the plugin was skipped");
    gateway.send_bytes(comes_late);
    assert_eq!(
        gateway.call(next, get("/")),
        "rewrite path '/next' headers [] args [] response headers [] body none"
    );
    assert_rewrites(gateway.call(token, get("/")), "x-body='(none)'");
}

#[test]
fn a_plugin_may_give_a_question_up_and_go_on() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let steps = json!([
        { "report_within": [20, "x-slow", { "var": "slow" }] },
        { "log": ["info", "given up"] },
        { "report": ["x-next", { "var": "next" }] },
    ]);
    let token = gateway.route([("scripted", steps)]);
    gateway.begin(token, get("/"));
    assert_eq!(gateway.receive().to_string(), "ask 'slow'");
    host.log_line(&["given up"]);
    answer(&mut gateway, "late");
    assert_eq!(gateway.receive().to_string(), "ask 'next'");
    answer(&mut gateway, "in time");
    assert_rewrites(gateway.finish(), "x-slow='(given up)', x-next=''in time''");
}

#[test]
fn a_plugin_that_gives_a_question_up_may_end_the_call_without_its_answer() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let steps = json!([
        { "report_within": [20, "x-slow", { "var": "slow" }] },
        { "stop": { "status": 200, "body": "done" } },
    ]);
    let token = gateway.route([("scripted", steps)]);
    for _ in 0..2 {
        gateway.begin(token, get("/"));
        assert_eq!(gateway.receive().to_string(), "ask 'slow'");
        assert_eq!(gateway.finish(), "stop 200 headers [] body 'done'");
        answer(&mut gateway, "late");
    }
}

#[test]
fn a_plugin_that_runs_on_the_pool_can_ask_too() {
    let host = Host::builder()
        .plugin_json("scripted", json!({ "execution": "blocking" }))
        .start();
    let mut gateway = host.gateway();
    gateway.set_variable("route_id", "7");
    gateway.set_request_body(b"hello");
    let steps = json!([
        { "report": ["x-id", { "var": "route_id" }] },
        { "block": 1 },
        { "report": ["x-body", "body"] },
    ]);
    let token = gateway.route([("scripted", steps)]);
    assert_rewrites(
        gateway.call(token, request("POST", "/")),
        "x-id=''7'', x-body=''hello''",
    );
    assert_eq!(gateway.asked(), ["route_id", "request body"]);
}
