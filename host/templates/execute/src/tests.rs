//! The plugin in a fake gateway, and an operator who asks it.

use plugin_abi::testing::{Gateway, check_plugin_json, execution, get, json};

use super::*;

#[test]
fn everybody_is_let_through_until_an_operator_says_otherwise_and_afterwards() {
    let plugin = Gateway::new().load::<MyPlugin>();
    let route = plugin.route(json!({ "message": "Back at noon." }));
    assert!(route.request(get("/")).went_upstream());
    let closing = execution("switch").set("closed", true);
    assert_eq!(plugin.execute(closing).value("was_closed"), false);
    let outcome = route.request(get("/"));
    assert_eq!(outcome.client().status(), 503);
    assert_eq!(outcome.client().text(), "Back at noon.\n");
    assert_eq!(outcome.client().header("retry-after"), Some("60"));
    assert_eq!(plugin.execute(execution("look")).value("closed"), true);
    let opening = execution("switch").set("closed", false);
    assert_eq!(plugin.execute(opening).value("was_closed"), true);
    assert!(route.request(get("/")).went_upstream());
}

#[test]
fn who_asks_for_something_else_learns_what_there_is() {
    let plugin = Gateway::new().load::<MyPlugin>();
    let unset = plugin.execute(execution("switch"));
    assert_eq!(unset.failure(), "set `closed` to true or false");
    let unknown = plugin.execute(execution("open"));
    assert!(unknown.failure().contains("only `look` and `switch`"));
}

#[test]
fn what_was_switched_stays_so_in_the_next_version() {
    let old = MyPlugin::default();
    old.is_closed.store(true, Ordering::Relaxed);
    let next = MyPlugin::default();
    let left = old.save_state().unwrap().unwrap();
    next.restore_state(&left).unwrap();
    assert!(next.is_closed.load(Ordering::Relaxed));
}

#[test]
fn plugin_json_is_true_about_this_crate() {
    check_plugin_json!(Config, include_str!("../plugin.json"));
}
