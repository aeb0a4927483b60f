//! The plugin in a fake gateway.

use plugin_abi::testing::{Asked, Gateway, Route, check_plugin_json, json, response};

use super::*;

fn route() -> Route {
    Gateway::new().load::<MyPlugin>().route(json!({
        "remove_headers": ["x-powered-by"],
        "replace": [{ "from": "http://", "to": "https://" }, { "from": "internal", "to": "example" }],
    }))
}

#[test]
fn the_client_gets_other_text_and_fewer_headers() {
    let outcome = route().response(
        response(200)
            .header("Content-Type", "text/html; charset=utf-8")
            .header("X-Powered-By", "magic")
            .body("<a href=http://internal.org>"),
    );
    let client = outcome.client();
    assert_eq!(client.text(), "<a href=https://example.org>");
    assert_eq!(client.header("x-powered-by"), None);
    assert_eq!(
        client.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(outcome.questions(), [Asked::ResponseBody]);
}

#[test]
fn what_is_no_text_is_not_even_asked_for() {
    let image = response(200).header("Content-Type", "image/png");
    let packed = response(200)
        .header("Content-Type", "text/html")
        .header("Content-Encoding", "gzip");
    for sent in [image, packed] {
        let outcome = route().response(sent.body("http://"));
        assert_eq!(outcome.client().text(), "http://");
        assert!(outcome.questions().is_empty());
    }
}

#[test]
fn a_body_that_is_too_large_goes_to_the_client_as_it_is() {
    let large = response(200)
        .header("Content-Type", "text/plain")
        .body("http://")
        .announced_body(20_000_000);
    assert_eq!(route().response(large).client().text(), "http://");
}

#[test]
fn nothing_to_look_for_is_refused_with_the_place() {
    let plugin = Gateway::new().load::<MyPlugin>();
    let reason = plugin.refusal(json!({ "replace": [{ "from": "", "to": "x" }] }));
    assert_eq!(reason, "replace[0]: from is empty");
}

#[test]
fn plugin_json_is_true_about_this_crate() {
    check_plugin_json!(Config, include_str!("../plugin.json"));
}
