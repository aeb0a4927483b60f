//! What the host sends for each thing that a plugin can do to a request: the rows of the table
//! "effect of the answer" in `docs/protocol.md`, seen from the host's side.

use serde_json::{Value, json};

use crate::support::{Call, Gateway, Host, get, request};

const ERROR: &str = "error 1";

/// Runs a script on a request and compares the answer.
fn check(steps: Value, call: Call, expected: &str) {
    check_chain(&[steps], call, expected);
}

/// Runs one script after the other on a request and compares the answer.
fn check_chain(scripts: &[Value], call: Call, expected: &str) {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let token = gateway.route(scripts.iter().map(|steps| ("scripted", steps)));
    assert_eq!(gateway.call(token, call), expected);
}

/// A host and a connection on which scripts can be tried one by one.
fn try_scripts(tries: impl FnOnce(&mut dyn FnMut(Value) -> String)) {
    let host = Host::with("scripted");
    let mut gateway: Gateway = host.gateway();
    tries(&mut |steps| {
        let token = gateway.route([("scripted", steps)]);
        gateway.call(token, get("/")).to_string()
    });
}

#[test]
fn a_route_without_plugins_lets_the_request_pass_unchanged() {
    check_chain(&[], get("/").header("x-a", "1"), "unchanged");
}

#[test]
fn a_plugin_that_does_nothing_lets_the_request_pass_unchanged() {
    check(json!([]), get("/").header("x-a", "1"), "unchanged");
}

#[test]
fn a_stop_carries_status_headers_and_body() {
    check(
        json!([{ "stop": { "status": 401, "headers": [["WWW-Authenticate", "Bearer"]], "body": "who?" } }]),
        get("/"),
        "stop 401 headers [WWW-Authenticate='Bearer'] body 'who?'",
    );
}

#[test]
fn a_stop_without_a_body_has_an_empty_one() {
    check(
        json!([{ "stop": { "status": 403 } }]),
        get("/"),
        "stop 403 headers [] body ''",
    );
}

#[test]
fn a_stop_keeps_repeated_headers_in_their_order() {
    check(
        json!([{ "stop": { "status": 200, "headers": [["Set-Cookie", "a=1"], ["X-A", "1"], ["Set-Cookie", "b=2"]] } }]),
        get("/"),
        "stop 200 headers [Set-Cookie='a=1', X-A='1', Set-Cookie='b=2'] body ''",
    );
}

#[test]
fn a_stop_leaves_content_length_to_the_gateway() {
    check(
        json!([{ "stop": { "status": 200, "headers": [["Content-Length", "2"], ["content-length", "1"]], "body": "hello" } }]),
        get("/"),
        "stop 200 headers [] body 'hello'",
    );
}

#[test]
fn a_stop_brings_the_response_headers_that_earlier_plugins_recorded() {
    check_chain(
        &[
            json!([{ "set_response_header": ["X-First", "1"] }, { "append_response_header": ["Set-Cookie", "a=1"] }]),
            json!([
                { "append_response_header": ["Set-Cookie", "b=2"] },
                { "stop": { "status": 200, "headers": [["Set-Cookie", "c=3"]], "body": "x" } },
            ]),
        ],
        get("/"),
        "stop 200 headers [Set-Cookie='c=3', X-First='1', Set-Cookie='a=1', Set-Cookie='b=2'] body 'x'",
    );
}

#[test]
fn a_stop_drops_what_earlier_plugins_changed_on_the_request() {
    check_chain(
        &[
            json!([{ "set_header": ["x-a", "1"] }, { "set_path": "/other" }, { "set_body": "b" }]),
            json!([{ "stop": { "status": 200 } }]),
        ],
        get("/"),
        "stop 200 headers [] body ''",
    );
}

#[test]
fn a_stop_with_a_status_that_the_gateway_cannot_deliver_fails() {
    try_scripts(|answer_to| {
        for status in [0, 99, 101, 199, 600, 65535] {
            assert_eq!(answer_to(json!([{ "stop": { "status": status } }])), ERROR);
        }
        for status in [200, 599] {
            let expected = format!("stop {status} headers [] body ''");
            assert_eq!(
                answer_to(json!([{ "stop": { "status": status } }])),
                expected
            );
        }
    });
}

#[test]
fn a_stop_with_a_header_name_that_is_none_fails() {
    try_scripts(|answer_to| {
        for name in ["", "X A", "X-A:", "X\r\nY", "caf\u{e9}"] {
            let steps = json!([{ "stop": { "status": 200, "headers": [[name, "1"]] } }]);
            assert_eq!(answer_to(steps), ERROR, "{name:?}");
        }
    });
}

#[test]
fn a_stop_that_no_frame_can_carry_fails_and_the_connection_goes_on() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let too_large = gateway.route([("scripted", json!([{ "set_long_body": 16_777_215 }]))]);
    assert_eq!(gateway.call(too_large, get("/")), ERROR);
    host.log_line(&["the answer cannot be sent", "does not fit a frame"]);
    let next = gateway.route([("scripted", json!([{ "set_path": "/next" }]))]);
    assert_eq!(
        gateway.call(next, get("/")),
        "rewrite path '/next' headers [] args [] response headers [] body none"
    );
}

#[test]
fn a_path_goes_out_as_the_plugin_wrote_it() {
    check(
        json!([{ "set_path": "/a b?c%20d" }]),
        get("/old"),
        "rewrite path '/a b?c%20d' headers [] args [] response headers [] body none",
    );
}

#[test]
fn a_path_without_a_leading_slash_fails() {
    try_scripts(|answer_to| {
        assert_eq!(answer_to(json!([{ "set_path": "a" }])), ERROR);
        assert_eq!(answer_to(json!([{ "set_path": "" }])), ERROR);
    });
}

#[test]
fn a_header_goes_out_once_with_its_last_value() {
    check(
        json!([
            { "set_header": ["X-New", "1"] },
            { "set_header": ["x-new", "2"] },
            { "set_header": ["x-old", "3"] },
        ]),
        get("/").header("x-old", "1").header("x-old", "2"),
        "rewrite path none headers [x-new='2', x-old='3'] args [] response headers [] body none",
    );
}

#[test]
fn a_removed_header_goes_out_without_a_value() {
    check(
        json!([{ "remove_header": "x-a" }, { "remove_header": "x-unknown" }]),
        get("/")
            .header("x-a", "1")
            .header("x-a", "2")
            .header("x-b", "3"),
        "rewrite path none headers [x-a, x-unknown] args [] response headers [] body none",
    );
}

#[test]
fn an_emptied_header_is_a_removed_one() {
    check(
        json!([{ "set_header": ["x-a", ""] }, { "report": ["x-seen", { "header": "x-a" }] }]),
        get("/").header("x-a", "1"),
        // The report of an empty list is empty, and so removes as well.
        "rewrite path none headers [x-a, x-seen] args [] response headers [] body none",
    );
}

#[test]
fn the_upstreams_host_is_a_header_like_any_other() {
    check(
        json!([{ "set_header": ["Host", "other.example"] }]),
        get("/").header("host", "gw.example"),
        "rewrite path none headers [Host='other.example'] args [] response headers [] body none",
    );
}

#[test]
fn a_request_header_name_that_is_none_fails() {
    try_scripts(|answer_to| {
        for name in ["", "a b", "a\nb"] {
            assert_eq!(answer_to(json!([{ "set_header": [name, "1"] }])), ERROR);
        }
    });
}

#[test]
fn an_argument_that_is_set_replaces_all_of_its_name() {
    check(
        json!([{ "set_arg": ["a", "9"] }, { "set_arg": ["empty", ""] }]),
        get("/").arg("a", "1").arg("b", "2").arg("a", "3"),
        "rewrite path none headers [] args [a='9', empty=''] response headers [] body none",
    );
}

#[test]
fn the_case_of_an_arguments_name_counts() {
    check(
        json!([{ "set_arg": ["A", "9"] }, { "report": ["x-args", "args"] }]),
        get("/").arg("a", "1"),
        "rewrite path none headers [x-args='a=1, A=9'] args [A='9'] response headers [] body none",
    );
}

#[test]
fn an_argument_that_is_added_goes_out_with_all_of_its_name() {
    check(
        json!([{ "append_arg": ["a", "4"] }]),
        get("/").arg("a", "1").arg("b", "2").arg("a", "3"),
        "rewrite path none headers [] args [a='1', a='3', a='4'] response headers [] body none",
    );
}

#[test]
fn an_argument_without_a_value_stays_as_an_empty_one_when_its_name_gets_another() {
    check(
        json!([{ "append_arg": ["flag", "1"] }]),
        get("/").flag("flag").flag("other"),
        "rewrite path none headers [] args [flag='', flag='1'] response headers [] body none",
    );
}

#[test]
fn a_removed_argument_goes_out_without_a_value() {
    check(
        json!([{ "remove_arg": "a" }]),
        get("/").arg("a", "1").arg("a", "2").arg("b", "3"),
        "rewrite path none headers [] args [a] response headers [] body none",
    );
}

#[test]
fn a_body_goes_out_for_any_method() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", json!([{ "set_body": "new" }]))]);
    for method in ["GET", "POST", "DELETE"] {
        assert_eq!(
            gateway.call(token, request(method, "/")),
            "rewrite path none headers [] args [] response headers [] body 'new'"
        );
    }
}

#[test]
fn an_empty_body_fails_since_the_gateway_would_take_it_for_no_change() {
    check(json!([{ "set_body": "" }]), get("/"), ERROR);
}

#[test]
fn response_headers_are_replaced_or_added_to_among_plugins() {
    check_chain(
        &[
            json!([
                { "set_response_header": ["X-A", "1"] },
                { "append_response_header": ["Set-Cookie", "a"] },
                { "append_response_header": ["Set-Cookie", "b"] },
            ]),
            json!([{ "set_response_header": ["x-a", "2"] }, { "append_response_header": ["X-B", ""] }]),
        ],
        get("/"),
        "rewrite path none headers [] args [] \
         response headers [x-a='2', Set-Cookie='a', Set-Cookie='b', X-B=''] body none",
    );
}

#[test]
fn all_kinds_of_changes_go_out_together() {
    check(
        json!([
            { "set_path": "/new" },
            { "set_header": ["x-a", "1"] },
            { "set_arg": ["b", "2"] },
            { "set_response_header": ["x-c", "3"] },
            { "set_body": "four" },
        ]),
        request("POST", "/old"),
        "rewrite path '/new' headers [x-a='1'] args [b='2'] response headers [x-c='3'] body 'four'",
    );
}

#[test]
fn a_plugin_sees_what_the_gateway_sent() {
    check(
        json!([
            { "report": ["x-method", "method"] },
            { "report": ["x-path", "path"] },
            { "report": ["x-client", "client_ip"] },
            { "report": ["x-args", "args"] },
            { "report": ["x-repeated", { "header": "X-A" }] },
        ]),
        request("PROPFIND", "/some/path")
            .arg("a", "1")
            .flag("z")
            .arg("q", "")
            .arg("a", "2")
            .header("x-a", "1")
            .header("x-a", "2"),
        "rewrite path none headers [x-method='PROPFIND', x-path='/some/path', \
         x-client='127.0.0.1', x-args='a=1, z, q=, a=2', x-repeated='1, 2'] \
         args [] response headers [] body none",
    );
}
