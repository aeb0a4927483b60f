//! What can be said about `response-rewrite` without a host: its options and its filters.

#![allow(clippy::unwrap_used, reason = "a failed test says where it failed")]

use serde_json::{Value, json};

use super::*;

fn parsed(options: Value) -> Result<Rewrite> {
    Rewrite::parse(options.to_string().as_bytes())
}

fn refusal(options: Value) -> String {
    format!("{:#}", parsed(options).map(|_| ()).unwrap_err())
}

/// What filters make of a body; none where they leave it alone.
fn filtered(filters: Value, body: &str) -> Option<String> {
    let rewrite = parsed(json!({ "filters": filters })).unwrap();
    filter::apply(&rewrite.filters, body.as_bytes())
        .unwrap()
        .map(|body| String::from_utf8(body).unwrap())
}

#[test]
fn nothing_said_changes_nothing() {
    let rewrite = Rewrite::parse(b"").unwrap();
    assert_eq!(rewrite.status, None);
    assert!(rewrite.headers.is_empty() && rewrite.body.is_empty() && rewrite.filters.is_empty());
}

#[test]
fn a_filter_replaces_once_unless_it_says_global() {
    let body = "1\n2\n3\n2";
    assert_eq!(
        filtered(json!([{"regex": "2", "replace": "TWO"}]), body).unwrap(),
        "1\nTWO\n3\n2"
    );
    assert_eq!(
        filtered(
            json!([{"regex": "2", "scope": "once", "replace": "TWO"}]),
            body
        )
        .unwrap(),
        "1\nTWO\n3\n2"
    );
    assert_eq!(
        filtered(
            json!([{"regex": "2", "scope": "global", "replace": "TWO"}]),
            body
        )
        .unwrap(),
        "1\nTWO\n3\nTWO"
    );
}

#[test]
fn where_no_filter_matches_the_body_is_left_alone() {
    assert_eq!(
        filtered(json!([{"regex": "zzz", "replace": "y"}]), "body"),
        None
    );
    assert_eq!(
        filtered(json!([{"regex": "zzz", "replace": "y"}]), ""),
        None
    );
}

#[test]
fn each_filter_sees_what_the_one_before_it_left() {
    let filters = json!([
        {"regex": "a", "replace": "b"},
        {"regex": "nowhere", "replace": "x"},
        {"regex": "b+", "replace": "c"},
    ]);
    assert_eq!(filtered(filters, "ab").unwrap(), "c");
}

#[test]
fn groups_can_be_used_in_the_replacement() {
    let filters = json!([{
        "regex": "(?<key>[a-z]+)=([0-9]+)", "scope": "global", "replace": "$2:${key}$$"
    }]);
    assert_eq!(filtered(filters, "a=1,b=2").unwrap(), "1:a$,2:b$");
}

#[test]
fn empty_matches_are_replaced_between_all_bytes() {
    assert_eq!(
        filtered(
            json!([{"regex": "", "scope": "global", "replace": "-"}]),
            "ab"
        )
        .unwrap(),
        "-a-b-"
    );
}

#[test]
fn a_body_need_not_be_text() {
    let rewrite = parsed(json!({
        "filters": [{"regex": "(?-u)\\xff", "scope": "global", "replace": "?"}]
    }))
    .unwrap();
    let changed = filter::apply(&rewrite.filters, b"\xff\x00\xfe\xff").unwrap();
    assert_eq!(changed.unwrap(), b"?\x00\xfe?");
}

#[test]
fn a_body_does_not_grow_without_bound() {
    let rewrite = parsed(json!({
        "filters": [{"regex": ".", "scope": "global", "replace": "x".repeat(100_000)}]
    }))
    .unwrap();
    let error = filter::apply(&rewrite.filters, &[b'a'; 1_000]).unwrap_err();
    let reason = format!("{error:#}");
    assert!(
        reason.starts_with("filters[0]: ") && reason.contains("16777215"),
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
    assert_eq!(parsed(json!({"status": 599})).unwrap().status, Some(599));
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
    let metadata: Value = serde_json::from_str(include_str!("../plugin.json")).unwrap();
    assert_eq!(metadata["name"], env!("CARGO_PKG_NAME"));
    assert_eq!(metadata["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(metadata["description"], env!("CARGO_PKG_DESCRIPTION"));
    let schema = Value::from(schemars::schema_for!(Options));
    assert!(
        metadata["config_schema"] == schema,
        "Options has changed: `config_schema` in plugin.json becomes\n{schema:#}"
    );
}
