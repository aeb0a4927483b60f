//! The plugin in a fake gateway.

use plugin_abi::testing::{Gateway, check_plugin_json, get, json};

use super::*;

#[test]
fn the_upstream_gets_path_headers_and_arguments_as_the_route_says() {
    let route = Gateway::new().load::<MyPlugin>().route(json!({
        "strip_prefix": "/api",
        "headers": { "x-team": "blue", "x-internal": "" },
        "remove_args": ["token"],
    }));
    let sent = get("/api/a%20b?token=secret&q=1").header("X-Internal", "1");
    let outcome = route.request(sent);
    let upstream = outcome.upstream();
    assert_eq!(upstream.uri(), "/a%20b?q=1");
    assert_eq!(upstream.header("x-team"), Some("blue"));
    assert_eq!(upstream.header("x-internal"), None);
}

#[test]
fn a_prefix_is_taken_off_between_slashes_only() {
    let route = Gateway::new()
        .load::<MyPlugin>()
        .route(json!({ "strip_prefix": "/api/" }));
    for (path, expected) in [
        ("/api", "/"),
        ("/api/x", "/x"),
        ("/apis", "/apis"),
        ("/x/api", "/x/api"),
    ] {
        assert_eq!(route.request(get(path)).upstream().uri(), expected);
    }
}

#[test]
fn without_a_word_of_the_route_nothing_changes() {
    let route = Gateway::new().load::<MyPlugin>().route("");
    assert_eq!(route.request(get("/a%2Bb?c")).upstream().uri(), "/a%2Bb?c");
}

#[test]
fn a_header_that_cannot_be_is_refused() {
    let plugin = Gateway::new().load::<MyPlugin>();
    let reason = plugin.refusal(json!({ "headers": { "not a name": "1" } }));
    assert!(reason.starts_with("headers: \"not a name\""), "{reason}");
}

#[test]
fn plugin_json_is_true_about_this_crate() {
    check_plugin_json!(Config, include_str!("../plugin.json"));
}
