//! `fault-injection` in a fake gateway.

use plugin_abi::testing::{Gateway, Loaded, Value, check_plugin_json, execution, get, json};

use super::*;

fn plugin() -> Loaded {
    Gateway::new().load::<FaultInjection>()
}

/// How many of a thousand requests are answered by the plugin.
fn hit(config: Value) -> usize {
    let route = plugin().route(config);
    let requests = (0..1_000).map(|_| get("/"));
    let outcomes = route.requests(requests);
    outcomes
        .iter()
        .filter(|outcome| !outcome.went_upstream())
        .count()
}

#[test]
fn without_a_percentage_every_request_is_hit() {
    let config = json!({ "http_status": 403, "body": "injected" });
    let outcome = plugin().route(config.clone()).request(get("/"));
    assert_eq!(outcome.client().status(), 403);
    assert_eq!(outcome.client().text(), "injected");
    assert_eq!(hit(config), 1_000);
}

#[test]
fn without_a_body_an_error_is_the_gateways_own_page() {
    let outcome = plugin()
        .route(json!({ "http_status": 502 }))
        .request(get("/"));
    assert!(outcome.client().is_error_page());
}

#[test]
fn a_percentage_of_the_requests_is_hit_and_the_rest_passes() {
    assert_eq!(hit(json!({ "http_status": 200, "percentage": 0 })), 0);
    assert_eq!(hit(json!({ "http_status": 599, "percentage": 100 })), 1_000);
    // Less likely to fail than the machine that runs it.
    let half = hit(json!({ "http_status": 500, "percentage": 50 }));
    assert!((250..750).contains(&half), "{half}");
}

#[test]
fn an_operator_switches_it_off_and_on_and_is_told_how_many_were_hit() {
    let plugin = plugin();
    let route = plugin.route(json!({ "http_status": 503 }));
    assert!(!route.request(get("/")).went_upstream());
    let switched = plugin.execute(execution("switch").set("on", false));
    assert_eq!(switched.value("on"), false);
    assert!(route.request(get("/")).went_upstream());
    let asked = plugin.execute(execution("status").request(get("/fault-injection")));
    let status = json!({ "injected": 1, "on": false });
    assert_eq!(asked.reply().json(), status);
    plugin.execute(execution("switch").set("on", true));
    assert!(!route.request(get("/")).went_upstream());
    let mistaken = plugin.execute(execution("switch"));
    assert_eq!(mistaken.failure(), "set `on` to true or false");
}

#[test]
fn a_status_that_the_gateway_cannot_deliver_is_refused() {
    for status in [0, 199, 600, 65_535] {
        let reason = plugin().refusal(json!({ "http_status": status }));
        assert!(
            reason.contains("http_status") && reason.contains("200 to 599"),
            "{reason}"
        );
    }
    let reason = plugin().refusal("{}");
    assert!(reason.contains("missing field `http_status`"), "{reason}");
}

#[test]
fn more_than_every_request_is_refused() {
    let reason = plugin().refusal(json!({ "http_status": 500, "percentage": 101 }));
    assert!(reason.contains("percentage is 101"), "{reason}");
}

#[test]
fn plugin_json_is_true_about_this_crate() {
    check_plugin_json!(Config, include_str!("../plugin.json"));
}
