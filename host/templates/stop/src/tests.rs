//! The plugin in a fake gateway.

use plugin_abi::testing::{Gateway, Route, check_plugin_json, get, json};

use super::*;

fn route() -> Route {
    let config =
        json!({ "closed": ["/shop", "/news/"], "message": "back soon", "retry_after": 60 });
    Gateway::new().load::<MyPlugin>().route(config)
}

#[test]
fn what_is_closed_is_answered_with_all_below_it() {
    for path in ["/shop", "/shop/", "/shop/cart?id=7", "/news", "/news/today"] {
        let outcome = route().request(get(path));
        assert_eq!(outcome.client().status(), 503, "{path}");
        assert_eq!(outcome.client().text(), "back soon");
        assert_eq!(outcome.client().header("retry-after"), Some("60"));
    }
}

#[test]
fn everything_else_passes() {
    for path in ["/", "/shopping", "/about/shop"] {
        assert!(route().request(get(path)).went_upstream(), "{path}");
    }
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused_with_the_place() {
    let plugin = Gateway::new().load::<MyPlugin>();
    let reason = plugin.refusal(json!({ "closed": ["/a", "b"] }));
    assert_eq!(reason, "closed[1] is \"b\": a path begins with /");
    let reason = plugin.refusal(json!({ "closed": [], "message": "" }));
    assert_eq!(reason, "message is empty");
}

#[test]
fn plugin_json_is_true_about_this_crate() {
    check_plugin_json!(Config, include_str!("../plugin.json"));
}
