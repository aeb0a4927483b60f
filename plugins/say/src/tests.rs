//! `say` in a fake gateway.

use plugin_abi::testing::{Gateway, check_plugin_json, get, json};

use super::*;

#[test]
fn a_route_says_what_the_client_reads() {
    let route = Gateway::new()
        .load::<Say>()
        .route(json!({ "body": "hello" }));
    let outcome = route.request(get("/anything"));
    assert_eq!(outcome.client().status(), 200);
    assert_eq!(outcome.client().text(), "hello");
    assert_eq!(outcome.client().header("x-resp-a6-runner"), Some("Rust"));
}

#[test]
fn an_empty_body_lets_the_request_pass() {
    let route = Gateway::new().load::<Say>().route(json!({ "body": "" }));
    assert!(route.request(get("/")).went_upstream());
}

#[test]
fn a_route_that_forgets_the_body_is_told_so() {
    let reason = Gateway::new().load::<Say>().refusal("");
    assert!(reason.contains("missing field `body`"), "{reason}");
}

#[test]
fn fields_that_it_does_not_know_are_ignored() {
    let config = json!({ "body": "hello", "loud": true });
    let route = Gateway::new().load::<Say>().route(config);
    assert_eq!(route.request(get("/")).client().text(), "hello");
}

#[test]
fn the_whole_plugin_is_at_most_25_lines() {
    let lines = include_str!("lib.rs")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("use "))
        .count();
    assert!(lines <= 25, "{lines} lines");
}

#[test]
fn plugin_json_is_true_about_this_crate() {
    check_plugin_json!(Config, include_str!("../plugin.json"));
}
