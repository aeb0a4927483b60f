//! What the host sends for each thing that a plugin can do to a response: the rows of the second
//! table "effect of the answer" in `docs/protocol.md`, seen from the host's side.

use serde_json::{Value, json};

use crate::support::{Call, Host, response};

/// What the client gets in place of a response that a plugin failed on.
const FAILED: &str = "answer 503 headers [Content-Type='text/plain; charset=utf-8'] \
                      body '503 Service Unavailable: this response could not be processed.\\n'";

/// An upstream's response with about all that can be special.
fn usual(status: u16) -> Call {
    response(status)
        .header("Content-Type", "text/plain")
        .header("Content-Length", "10")
        .header("Location", "/elsewhere")
        .header("X-Multi", "1")
        .header("X-Multi", "2")
        .header("Connection", "keep-alive")
        .header("Transfer-Encoding", "chunked")
}

/// Runs a script on a response and compares the answer.
fn check(steps: Value, call: Call, expected: &str) {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", steps)]);
    assert_eq!(gateway.call(token, call), expected);
}

#[test]
fn an_unchanged_response_goes_out_with_all_its_headers_but_those_that_the_gateway_writes() {
    check(
        json!([]),
        usual(200),
        "answer 0 headers [Content-Type='text/plain', Location='/elsewhere', X-Multi='1', X-Multi='2'] body none",
    );
}

#[test]
fn a_route_without_plugins_keeps_the_headers_too() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let token = gateway.route::<String>([]);
    assert_eq!(
        gateway.call(token, response(200).header("Content-Type", "text/html")),
        "answer 0 headers [Content-Type='text/html'] body none"
    );
}

#[test]
fn changed_headers_go_out_in_the_whole_list() {
    check(
        json!([
            { "set_header": ["location", "/here"] },
            { "append_header": ["X-Multi", "3"] },
            { "remove_header": "content-type" },
            { "set_header": ["X-New", ""] },
        ]),
        usual(200),
        "answer 0 headers [location='/here', X-Multi='1', X-Multi='2', X-Multi='3', X-New=''] body none",
    );
}

#[test]
fn headers_that_only_the_gateway_may_write_are_left_out_when_a_plugin_sets_them() {
    check(
        json!([
            { "set_header": ["Content-Length", "1"] },
            { "set_header": ["connection", "close"] },
            { "set_header": ["TRANSFER-ENCODING", "gzip"] },
        ]),
        response(200).header("X-A", "1"),
        "answer 0 headers [X-A='1'] body none",
    );
}

#[test]
fn a_status_alone_leaves_the_upstreams_body() {
    check(
        json!([{ "set_status": 404 }]),
        response(200).header("X-A", "1"),
        "answer 404 headers [X-A='1'] body none",
    );
}

#[test]
fn a_body_goes_out_with_the_upstreams_status_left_as_it_is() {
    check(
        json!([{ "set_body": "new" }]),
        usual(500),
        "answer 0 headers [Content-Type='text/plain', Location='/elsewhere', X-Multi='1', X-Multi='2'] body 'new'",
    );
}

#[test]
fn status_headers_and_body_go_out_together() {
    check(
        json!([{ "set_status": 201 }, { "set_body": "new" }, { "set_header": ["X-A", "2"] }]),
        response(200).header("x-a", "1"),
        "answer 201 headers [X-A='2'] body 'new'",
    );
}

#[test]
fn a_response_without_a_body_gets_one_byte_so_that_the_upstream_is_not_called_again() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", json!([]))]);
    for status in [204, 304] {
        assert_eq!(
            gateway.call(token, response(status).header("ETag", "x")),
            format!("answer {status} headers [ETag='x'] body ' '").as_str()
        );
    }
}

#[test]
fn a_plugin_that_sets_a_status_without_a_body_gets_one_byte_too() {
    check(
        json!([{ "set_status": 204 }, { "set_body": "never seen" }]),
        response(200).header("X-A", "1"),
        "answer 204 headers [X-A='1'] body ' '",
    );
}

#[test]
fn a_plugin_that_gives_a_204_another_status_does_not_make_the_gateway_call_the_upstream_again() {
    check(
        json!([{ "set_status": 200 }]),
        response(204).header("X-A", "1"),
        "answer 200 headers [X-A='1'] body ' '",
    );
}

#[test]
fn a_plugin_can_give_a_204_a_body_with_another_status() {
    check(
        json!([{ "set_status": 200 }, { "set_body": "something" }]),
        response(204),
        "answer 200 headers [] body 'something'",
    );
}

#[test]
fn head_is_asked_for_where_the_operator_wants_and_keeps_the_length() {
    let host = Host::builder()
        .plugin("scripted")
        .flag("--ask-method-for-head", "true")
        .start();
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", json!([]))]);
    let call = || {
        response(200)
            .header("Content-Length", "10")
            .header("X-A", "1")
    };

    gateway.set_variable("request_method", "HEAD");
    assert_eq!(
        gateway.call(token, call()),
        "answer 200 headers [Content-Length='10', X-A='1'] body ' '"
    );
    gateway.set_variable("request_method", "GET");
    assert_eq!(
        gateway.call(token, call()),
        "answer 0 headers [X-A='1'] body none"
    );
    assert_eq!(gateway.asked(), ["request_method", "request_method"]);
}

#[test]
fn the_method_that_a_plugin_has_asked_for_is_not_asked_again() {
    let host = Host::builder()
        .plugin("scripted")
        .flag("--ask-method-for-head", "true")
        .start();
    let mut gateway = host.gateway();
    gateway.set_variable("request_method", "HEAD");
    let steps = json!([{ "report": ["X-Method", { "var": "request_method" }] }]);
    let token = gateway.route([("scripted", steps)]);
    assert_eq!(
        gateway.call(token, response(200)),
        "answer 200 headers [X-Method=''HEAD''] body ' '"
    );
    assert_eq!(gateway.asked(), ["request_method"]);
}

#[test]
fn the_method_is_not_asked_for_by_default_nor_where_the_answer_does_not_depend_on_it() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", json!([]))]);
    gateway.call(token, response(200));
    assert!(gateway.asked().is_empty());

    let host = Host::builder()
        .plugin("scripted")
        .flag("--ask-method-for-head", "true")
        .start();
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", json!([]))]);
    gateway.call(token, response(204));
    let with_body = gateway.route([("scripted", json!([{ "set_body": "x" }]))]);
    gateway.call(with_body, response(200));
    assert!(gateway.asked().is_empty());
}

#[test]
fn a_plugin_that_fails_on_a_response_is_answered_by_a_503_with_a_body_of_the_hosts() {
    check(
        json!([{ "set_header": ["X-Secret", "1"] }, { "fail": "no luck" }]),
        usual(200),
        FAILED,
    );
}

#[test]
fn a_plugin_that_fails_on_a_response_is_an_error_frame_where_the_operator_wants() {
    let host = Host::builder()
        .plugin("scripted")
        .flag("--response-failure", "error_frame")
        .start();
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", json!([{ "fail": "no luck" }]))]);
    assert_eq!(gateway.call(token, response(200)), "error 1");
}

#[test]
fn what_the_gateway_cannot_deliver_fails_on_a_response_too() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    for steps in [
        json!([{ "set_status": 99 }]),
        json!([{ "set_status": 600 }]),
        json!([{ "set_header": ["a b", "1"] }]),
        json!([{ "append_header": ["", "1"] }]),
        json!([{ "set_body": "" }]),
        json!([{ "set_long_body": 16_777_215 }]),
    ] {
        let token = gateway.route([("scripted", &steps)]);
        assert_eq!(gateway.call(token, response(200)), FAILED, "{steps}");
    }
}

#[test]
fn a_plugin_sees_what_the_upstream_sent() {
    check(
        json!([
            { "report": ["X-Status", "status"] },
            { "report": ["X-Headers", "headers"] },
        ]),
        response(418)
            .header("Set-Cookie", "a")
            .header("Set-Cookie", "b"),
        "answer 0 headers [Set-Cookie='a', Set-Cookie='b', X-Status='418', \
         X-Headers='Set-Cookie=a, Set-Cookie=b, X-Status=418'] body none",
    );
}
