//! `response-rewrite` in a fake gateway.

use plugin_abi::testing::{
    Asked, Gateway, Loaded, UpstreamResponse, Value, check_plugin_json, json, response,
};

use super::*;

fn plugin() -> Loaded {
    Gateway::new().load::<ResponseRewrite>()
}

fn refusal(options: Value) -> String {
    plugin().refusal(options)
}

/// The body that the client gets of this one.
fn filtered(filters: Value, body: &str) -> String {
    let route = plugin().route(json!({ "filters": filters }));
    let outcome = route.response(response(200).body(body));
    outcome.client().text().to_owned()
}

fn page() -> UpstreamResponse {
    response(200)
        .header("Content-Type", "text/html")
        .header("X-Old", "1")
        .body("old")
}

#[test]
fn nothing_said_changes_nothing() {
    let outcome = plugin().route("").response(page());
    let client = outcome.client();
    assert_eq!((client.status(), client.text()), (200, "old"));
    assert_eq!(client.header("content-type"), Some("text/html"));
    assert_eq!(client.header("x-old"), Some("1"));
    assert!(outcome.questions().is_empty());
}

#[test]
fn status_headers_and_body_become_what_the_route_says() {
    let options = json!({
        "status": 404,
        "headers": { "x-old": "2", "X-New": "3" },
        "body": "new",
    });
    let outcome = plugin().route(options).response(page());
    let client = outcome.client();
    assert_eq!((client.status(), client.text()), (404, "new"));
    assert_eq!(client.headers("x-old"), ["2"]);
    assert_eq!(client.header("x-new"), Some("3"));
    assert_eq!(client.header("content-type"), Some("text/html"));
    // The body need not travel to be replaced.
    assert!(outcome.questions().is_empty());
}

#[test]
fn where_there_are_filters_the_body_of_the_route_is_ignored() {
    let options = json!({ "body": "new", "filters": [{ "regex": "o", "replace": "0" }] });
    let outcome = plugin().route(options).response(page());
    assert_eq!(outcome.client().text(), "0ld");
    assert_eq!(outcome.questions(), [Asked::ResponseBody]);
}

#[test]
fn a_filter_replaces_once_unless_it_says_global() {
    let body = "1\n2\n3\n2";
    assert_eq!(
        filtered(json!([{"regex": "2", "replace": "TWO"}]), body),
        "1\nTWO\n3\n2"
    );
    assert_eq!(
        filtered(
            json!([{"regex": "2", "scope": "once", "replace": "TWO"}]),
            body
        ),
        "1\nTWO\n3\n2"
    );
    assert_eq!(
        filtered(
            json!([{"regex": "2", "scope": "global", "replace": "TWO"}]),
            body
        ),
        "1\nTWO\n3\nTWO"
    );
}

#[test]
fn where_no_filter_matches_the_body_is_left_alone() {
    for body in ["body", ""] {
        let filters = json!([{"regex": "zzz", "replace": "y"}]);
        assert_eq!(filtered(filters, body), body);
    }
}

#[test]
fn each_filter_sees_what_the_one_before_it_left() {
    let filters = json!([
        {"regex": "a", "replace": "b"},
        {"regex": "nowhere", "replace": "x"},
        {"regex": "b+", "replace": "c"},
    ]);
    assert_eq!(filtered(filters, "ab"), "c");
}

#[test]
fn groups_can_be_used_in_the_replacement() {
    let filters = json!([{
        "regex": "(?<key>[a-z]+)=([0-9]+)", "scope": "global", "replace": "$2:${key}$$"
    }]);
    assert_eq!(filtered(filters, "a=1,b=2"), "1:a$,2:b$");
}

#[test]
fn empty_matches_are_replaced_between_all_bytes() {
    assert_eq!(
        filtered(
            json!([{"regex": "", "scope": "global", "replace": "-"}]),
            "ab"
        ),
        "-a-b-"
    );
}

#[test]
fn a_body_need_not_be_text() {
    let route = plugin().route(json!({
        "filters": [{"regex": "(?-u)\\xff", "scope": "global", "replace": "?"}]
    }));
    let outcome = route.response(response(200).body(b"\xff\x00\xfe\xff"));
    assert_eq!(outcome.client().body(), b"?\x00\xfe?");
}

#[test]
fn a_body_does_not_grow_without_bound() {
    let route = plugin().route(json!({
        "filters": [{"regex": ".", "scope": "global", "replace": "x".repeat(100_000)}]
    }));
    let outcome = route.response(response(200).body([b'a'; 1_000]));
    assert_eq!(outcome.client().status(), 503);
    let reason = outcome.failure();
    assert!(
        reason.starts_with("failed: filters[0]: ") && reason.contains("16777215"),
        "{reason}"
    );
}

#[test]
fn a_broken_expression_is_named_by_its_place() {
    let filters = json!([{"regex": "a", "replace": ""}, {"regex": "(", "replace": ""}]);
    let reason = refusal(json!({ "filters": filters }));
    assert!(reason.starts_with("filters[1]: regex: "), "{reason}");
    assert!(reason.contains("unclosed group"), "{reason}");
}

#[test]
fn an_expression_that_takes_too_much_memory_is_refused() {
    let reason = refusal(json!({ "filters": [{"regex": "\\w{1000}{100}", "replace": ""}] }));
    assert!(reason.starts_with("filters[0]: regex: "), "{reason}");
}

#[test]
fn too_many_filters_are_refused() {
    let filters = vec![json!({"regex": "a", "replace": ""}); MAX_FILTERS + 1];
    let reason = refusal(json!({ "filters": filters }));
    assert!(reason.starts_with("filters: 101"), "{reason}");
}

#[test]
fn a_scope_that_does_not_exist_is_refused() {
    let filters = json!([{"regex": "a", "replace": "", "scope": "twice"}]);
    assert!(refusal(json!({ "filters": filters })).contains("twice"));
}

#[test]
fn a_status_that_the_gateway_cannot_deliver_is_refused() {
    let allowed = plugin().route(json!({"status": 599}));
    assert_eq!(allowed.response(page()).client().status(), 599);
    for status in [0, 199, 600] {
        let reason = refusal(json!({ "status": status }));
        assert!(
            reason.starts_with(&format!("status is {status}")),
            "{reason}"
        );
    }
}

#[test]
fn a_header_that_cannot_be_is_refused() {
    let reason = refusal(json!({"headers": {"X-Good": "1", "X Bad": "2"}}));
    assert!(reason.starts_with("headers: \"X Bad\""), "{reason}");
}

#[test]
fn plugin_json_is_true_about_this_crate() {
    check_plugin_json!(Options, include_str!("../plugin.json"));
}
