//! The plugin in a fake gateway.

use plugin_abi::testing::{Gateway, check_plugin_json, get, json, response};

use super::*;

#[test]
fn hello_is_answered_and_nothing_goes_upstream() {
    let gateway = Gateway::new();
    let route = gateway.load::<MyPlugin>().route(json!({ "name": "Ada" }));
    let outcome = route.request(get("/hello"));
    assert_eq!(outcome.client().status(), 200);
    assert_eq!(outcome.client().text(), "Hello, Ada!\n");
    assert_eq!(gateway.log()[0].field("name"), Some("Ada"));
}

#[test]
fn every_other_request_is_marked() {
    let route = Gateway::new().load::<MyPlugin>().route("");
    let outcome = route.request(get("/orders?id=7"));
    assert_eq!(outcome.upstream().uri(), "/orders?id=7");
    assert_eq!(outcome.upstream().header("x-greeted"), Some("everybody"));
}

#[test]
fn responses_say_who_served_them() {
    let route = Gateway::new().load::<MyPlugin>().route("");
    let outcome = route.response(response(404).header("X-Kept", "yes").body("not here"));
    assert_eq!(outcome.client().status(), 404);
    assert_eq!(outcome.client().text(), "not here");
    assert_eq!(outcome.client().header("x-kept"), Some("yes"));
    assert_eq!(outcome.client().header("x-served-by"), Some("my-plugin"));
}

#[test]
fn a_name_that_is_no_text_is_refused() {
    let plugin = Gateway::new().load::<MyPlugin>();
    let reason = plugin.refusal(json!({ "name": 7 }));
    assert!(reason.contains("invalid type: integer `7`"), "{reason}");
}

#[test]
fn plugin_json_is_true_about_this_crate() {
    check_plugin_json!(Config, include_str!("../plugin.json"));
}
