//! `request-body-rewrite` in a fake gateway.

use plugin_abi::testing::{Gateway, Loaded, check_plugin_json, get, json, post};

use super::*;

fn plugin() -> Loaded {
    Gateway::new().load::<RequestBodyRewrite>()
}

#[test]
fn the_upstream_gets_the_routes_body_and_its_length() {
    let route = plugin().route(json!({ "new_body": "NEW" }));
    for request in [post("/").body("a longer old one"), get("/")] {
        let outcome = route.request(request);
        assert_eq!(outcome.upstream().text(), "NEW");
        assert_eq!(outcome.upstream().header("content-length"), Some("3"));
        // The old one need not travel for that.
        assert!(outcome.questions().is_empty());
    }
}

#[test]
fn an_empty_body_is_refused_since_the_gateway_would_send_the_old_one() {
    let reason = plugin().refusal(json!({ "new_body": "" }));
    assert!(reason.starts_with("new_body is empty"), "{reason}");
}

#[test]
fn a_route_that_forgets_the_body_is_told_so() {
    let reason = plugin().refusal("{}");
    assert!(reason.contains("missing field `new_body`"), "{reason}");
}

#[test]
fn plugin_json_is_true_about_this_crate() {
    check_plugin_json!(Config, include_str!("../plugin.json"));
}
