//! Several plugins on one route: their order, what each sees of the others, and which version of a
//! plugin a route gets.

use serde_json::{Value, json};

use crate::{
    message::Message,
    support::{Call, Host, get, request, response},
};

/// Runs one script after the other on a call and compares the answer.
fn check(scripts: &[Value], call: Call, expected: &str) {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let token = gateway.route(scripts.iter().map(|steps| ("scripted", steps)));
    assert_eq!(gateway.call(token, call), expected);
    assert!(gateway.asked().is_empty());
}

#[test]
fn plugins_run_in_the_order_of_the_route() {
    let mark = |value: &str| json!([{ "append_response_header": ["X-Order", value] }]);
    check(
        &[mark("a"), mark("b"), mark("c")],
        get("/"),
        "rewrite path none headers [] args [] \
         response headers [X-Order='a', X-Order='b', X-Order='c'] body none",
    );
}

#[test]
fn a_plugin_that_stops_the_request_is_the_last_that_runs() {
    check(
        &[
            json!([{ "append_response_header": ["X-Order", "a"] }]),
            json!([{ "stop": { "status": 202 } }]),
            json!([{ "panic": "never reached" }]),
        ],
        get("/"),
        "stop 202 headers [X-Order='a'] body ''",
    );
}

#[test]
fn a_plugin_sees_what_those_before_it_changed_on_the_request() {
    check(
        &[
            json!([
                { "set_path": "/new" },
                { "set_header": ["x-a", "new"] },
                { "remove_header": "x-b" },
                { "append_arg": ["q", "3"] },
                { "remove_arg": "r" },
                { "set_body": "new body" },
            ]),
            json!([
                { "report": ["x-path", "path"] },
                { "report": ["x-headers", "headers"] },
                { "report": ["x-args", "args"] },
                { "report": ["x-body", "body"] },
            ]),
        ],
        request("POST", "/old")
            .header("x-a", "1")
            .header("x-b", "2")
            .header("x-a", "3")
            .header("x-c", "4")
            .arg("q", "1")
            .arg("r", "1")
            .arg("q", "2"),
        "rewrite path '/new' headers [x-a='new', x-b, x-path='/new', \
         x-headers='x-a=new, x-c=4, x-path=/new', x-args='q=1, q=2, q=3', x-body=''new body''] \
         args [q='1', q='2', q='3', r] response headers [] body 'new body'",
    );
}

#[test]
fn a_plugin_sees_what_those_before_it_changed_on_the_response() {
    check(
        &[
            json!([
                { "set_status": 404 },
                { "append_header": ["X-A", "2"] },
                { "remove_header": "X-B" },
                { "set_body": "new body" },
            ]),
            json!([
                { "report": ["X-Status", "status"] },
                { "report": ["X-Headers", "headers"] },
                { "report": ["X-Body", "body"] },
            ]),
        ],
        response(200).header("X-A", "1").header("X-B", "1"),
        "answer 404 headers [X-A='1', X-A='2', X-Status='404', \
         X-Headers='X-A=1, X-A=2, X-Status=404', X-Body=''new body''] body 'new body'",
    );
}

#[test]
fn reading_everything_changes_nothing() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    gateway.set_request_body(b"body");
    let looks = [
        json!({ "var": "v" }),
        json!("body"),
        json!({ "header": "x-a" }),
        json!({ "arg": "q" }),
        json!("headers"),
        json!("args"),
        json!("method"),
        json!("path"),
        json!("client_ip"),
    ];
    let steps: Vec<Value> = looks.iter().map(|seen| json!({ "look": seen })).collect();
    let token = gateway.route([("scripted", json!(steps))]);
    let call = request("POST", "/p")
        .header("x-a", "1")
        .header("x-a", "2")
        .arg("q", "1")
        .flag("z");
    assert_eq!(gateway.call(token, call), "unchanged");
    host.log_line(&["saw x-a=1, x-a=2"]);
    host.log_line(&["saw q=1, z"]);
}

#[test]
fn repeated_headers_stay_as_they_are_where_no_plugin_touches_them() {
    check(
        &[
            json!([{ "set_header": ["x-new", "1"] }]),
            json!([{ "report": ["x-seen", { "header": "X-A" }] }]),
        ],
        get("/").header("x-a", "1").header("x-a", "2"),
        "rewrite path none headers [x-new='1', x-seen='1, 2'] args [] response headers [] body none",
    );
}

#[test]
fn a_plugin_that_stands_twice_on_a_route_runs_twice_with_an_instance_each() {
    let count =
        json!([{ "report": ["X-Calls", "calls"] }, { "append_header": ["X-Seen", "once"] }]);
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", &count), ("scripted", &count)]);
    for calls in ["1", "2"] {
        assert_eq!(
            gateway.call(token, response(200)),
            format!("answer 0 headers [X-Calls='{calls}', X-Seen='once', X-Seen='once'] body none")
                .as_str()
        );
    }
}

#[test]
fn a_plugin_without_any_configuration_gets_an_empty_one() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    gateway.send(&Message::Prepare {
        conf: vec![("scripted".into(), None)],
        key: Some("route#1#ext-plugin-pre-req#1".into()),
    });
    let Message::Token { conf_token } = gateway.receive() else {
        panic!("no token");
    };
    assert_eq!(gateway.call(conf_token, get("/")), "unchanged");
}

#[test]
fn a_route_gets_a_version_that_it_requires_or_fails_closed() {
    let host = Host::with("say");
    let mut gateway = host.gateway();
    let conf = json!({ "body": "hi" });
    for name in ["say", "say@0.1.0", "say@^0.1", "say@>=0.1, <1", "say@*"] {
        let token = gateway.route([(name, &conf)]);
        assert_eq!(
            gateway.call(token, get("/")),
            "stop 200 headers [X-Resp-A6-Runner='Rust'] body 'hi'",
            "{name}"
        );
    }
    for (name, reason) in [
        (
            "say@^9",
            "plugin `say` is loaded as 0.1.0, of which none satisfies `^9`",
        ),
        ("say@", "`say@` is no plugin name"),
        ("say@new", "`say@new` is no plugin name"),
        ("other", "no plugin `other` is loaded"),
        ("", "`` is no plugin name"),
    ] {
        let token = gateway.route([(name, &conf)]);
        assert_eq!(gateway.call(token, get("/")), "error 1", "{name}");
        host.log_line(&["this route's chain cannot run", reason]);
    }
}

#[test]
fn plugins_of_two_libraries_share_a_chain() {
    let host = Host::builder().plugin("scripted").plugin("say").start();
    let mut gateway = host.gateway();
    let steps = json!([{ "append_response_header": ["X-First", "1"] }]);
    let token = gateway.route([("scripted", &steps), ("say", &json!({ "body": "hi" }))]);
    assert_eq!(
        gateway.call(token, get("/")),
        "stop 200 headers [X-Resp-A6-Runner='Rust', X-First='1'] body 'hi'"
    );
    let token = gateway.route([("say", &json!({ "body": "" })), ("scripted", &steps)]);
    assert_eq!(
        gateway.call(token, get("/")),
        "rewrite path none headers [] args [] response headers [X-First='1'] body none"
    );
}

#[test]
fn a_plugin_without_a_filter_for_a_phase_lets_it_pass() {
    let host = Host::with("say");
    let mut gateway = host.gateway();
    let token = gateway.route([("say", json!({ "body": "hi" }))]);
    assert_eq!(
        gateway.call(token, response(200).header("X-A", "1")),
        "answer 0 headers [X-A='1'] body none"
    );
}
