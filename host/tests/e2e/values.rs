//! Values that plugins leave for one another: in one chain, and from the request phase to the
//! response phase.

use serde_json::{Value, json};

use crate::support::{Answer, Gateway, Host, get, response};

/// The calls of one request, as a gateway makes them: which chains it has in which phase.
struct Request {
    gateway: Gateway,
    before: u32,
    after: u32,
}

/// A request whose phases have these scripts.
fn request_of(host: &Host, before: &Value, after: &Value) -> Request {
    let mut gateway = host.gateway();
    let before = gateway.prepare("route#1#ext-plugin-pre-req#1", [("scripted", before)]);
    let after = gateway.prepare("route#1#ext-plugin-post-resp#1", [("scripted", after)]);
    Request {
        gateway,
        before,
        after,
    }
}

impl Request {
    /// Both phases of the request of this number; the answer to the second.
    fn run(&mut self, id: &str) -> Answer {
        self.gateway.set_variable("request_id", id);
        self.gateway.call(self.before, get("/"));
        self.end(id)
    }

    /// The second phase alone.
    fn end(&mut self, id: &str) -> Answer {
        self.gateway.set_variable("request_id", id);
        self.gateway.call(self.after, response(200))
    }
}

fn seen(value: &str) -> String {
    format!("answer 0 headers [x-seen='{value}'] body none")
}

fn check_chain(execution: &str) {
    let host = Host::builder()
        .plugin_json("scripted", json!({ "execution": execution }))
        .start();
    let mut gateway = host.gateway();
    let scripts = [
        json!([{ "set_value": ["a", "1"] }, { "set_value": ["b", "2"] }]),
        json!([
            { "report": ["x-a", { "value": "a" }] },
            { "remove_value": "a" },
            { "set_value": ["b", "3"] },
        ]),
        json!([{ "report": ["x-after", { "value": "a" }] }, { "report": ["x-b", { "value": "b" }] }]),
    ];
    let token = gateway.route(scripts.iter().map(|steps| ("scripted", steps)));
    for _ in 0..2 {
        assert_eq!(
            gateway.call(token, get("/")),
            "rewrite path none headers [x-a=''1'', x-after='(none)', x-b=''3''] args [] \
             response headers [] body none"
        );
    }
    assert!(
        gateway.asked().is_empty(),
        "a chain asks nobody for its values"
    );
}

#[test]
fn plugins_read_what_those_before_them_in_the_chain_have_left() {
    check_chain("async");
}

#[test]
fn blocking_plugins_read_what_those_before_them_have_left() {
    check_chain("blocking");
}

#[test]
fn the_response_phase_reads_what_the_request_phase_of_the_same_request_has_kept() {
    let host = Host::with("scripted");
    let mut request = request_of(
        &host,
        &json!([{ "keep": ["user", "ada"] }, { "set_value": ["local", "1"] }]),
        &json!([{ "report_kept": ["x-seen", "user"] }, { "report": ["x-local", { "value": "local" }] }]),
    );
    assert_eq!(
        request.run("one").to_string(),
        "answer 0 headers [x-seen=''ada'', x-local='(none)'] body none"
    );
    assert_eq!(request.gateway.asked(), ["request_id", "request_id"]);
    assert_eq!(
        request.end("one").to_string(),
        "answer 0 headers [x-seen='(none)', x-local='(none)'] body none",
        "the response phase was the request's last"
    );
}

#[test]
fn the_calls_of_a_request_may_come_on_any_connection_and_never_meet_those_of_another() {
    let host = Host::with("scripted");
    let after = json!([{ "report_kept": ["x-seen", "user"] }]);
    let mut requests: Vec<Request> = (0..20)
        .map(|number| {
            let keeps = json!([{ "keep": ["user", format!("user {number}")] }]);
            request_of(&host, &keeps, &after)
        })
        .collect();
    for (number, request) in requests.iter_mut().enumerate() {
        request
            .gateway
            .set_variable("request_id", &format!("id {number}"));
        request.gateway.call(request.before, get("/"));
    }
    // Each second phase comes on the connection of another's first one.
    for number in 0..20 {
        let answer = requests[(number + 7) % 20].end(&format!("id {number}"));
        assert_eq!(answer.to_string(), seen(&format!("'user {number}'")));
    }
}

#[test]
fn without_a_number_from_the_gateway_nothing_is_kept_and_the_plugin_hears_it() {
    let host = Host::builder()
        .plugin_json("scripted", json!({ "failure_policy": "open" }))
        .start();
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", json!([{ "keep": ["user", "ada"] }]))]);
    assert_eq!(gateway.call(token, get("/")), "unchanged");
    host.log_line(&["the gateway does not say which request this is", "scripted"]);
    let token = gateway.route([("scripted", json!([{ "report_kept": ["x-seen", "user"] }]))]);
    assert_eq!(
        gateway.call(token, get("/")),
        "rewrite path none headers [x-seen='(the gateway does not say which request this is)'] \
         args [] response headers [] body none"
    );
}

#[test]
fn a_plugin_that_fails_leaves_no_values() {
    let host = Host::builder()
        .plugin_json("scripted", json!({ "failure_policy": "open" }))
        .start();
    let keeps_and_fails = json!([
        { "set_value": ["a", "1"] },
        { "keep": ["user", "ada"] },
        { "fail": "no luck" },
    ]);
    let mut request = request_of(
        &host,
        &keeps_and_fails,
        &json!([{ "report_kept": ["x-seen", "user"] }]),
    );
    assert_eq!(request.run("one").to_string(), seen("(none)"));
    let looks = json!([{ "report": ["x-a", { "value": "a" }] }]);
    let token = request
        .gateway
        .route([("scripted", keeps_and_fails), ("scripted", looks)]);
    assert_eq!(
        request.gateway.call(token, get("/")),
        "rewrite path none headers [x-a='(none)'] args [] response headers [] body none"
    );
}

#[test]
fn a_plugin_that_sets_more_values_than_a_call_has_room_for_hears_it() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let sets_much = json!([
        { "set_long_value": ["a", 65_000] },
        { "set_long_value": ["b", 65_000] },
    ]);
    let token = gateway.route([("scripted", sets_much)]);
    assert_eq!(gateway.call(token, get("/")), "error 1");
    host.log_line(&["the request has too many values, or too long ones"]);
}

#[test]
fn values_of_one_call_are_gone_in_the_next_on_the_same_connection() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let sets = gateway.route([("scripted", json!([{ "set_value": ["a", "1"] }]))]);
    let looks = json!([{ "report": ["x-a", { "value": "a" }] }]);
    let looks = gateway.route([("scripted", looks)]);
    assert_eq!(gateway.call(sets, get("/")), "unchanged");
    assert_eq!(
        gateway.call(looks, get("/")),
        "rewrite path none headers [x-a='(none)'] args [] response headers [] body none"
    );
}
