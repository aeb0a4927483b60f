//! The plugin in a fake gateway, on a clock of the test's own.

use plugin_abi::testing::{Gateway, Route, check_plugin_json, get, json};

use super::*;

fn is_let_through(route: &Route, client: &str) -> bool {
    route.request(get("/").client_ip(client)).went_upstream()
}

#[test]
fn a_client_gets_so_many_requests_per_window_and_no_more() {
    let gateway = Gateway::new();
    let route = gateway
        .load::<MyPlugin>()
        .route(json!({ "requests": 2, "seconds": 10 }));
    assert!(is_let_through(&route, "192.0.2.1"));
    gateway.advance(Duration::from_millis(8_500));
    assert!(is_let_through(&route, "192.0.2.1"));
    let outcome = route.request(get("/").client_ip("192.0.2.1"));
    assert_eq!(outcome.client().status(), 429);
    assert_eq!(outcome.client().header("retry-after"), Some("2"));
    gateway.advance(Duration::from_millis(1_500));
    assert!(is_let_through(&route, "192.0.2.1"));
}

#[test]
fn clients_and_routes_do_not_use_up_what_is_the_others() {
    let plugin = Gateway::new().load::<MyPlugin>();
    let (one, other) = (
        plugin.route(json!({ "requests": 1 })),
        plugin.route(json!({ "requests": 1 })),
    );
    assert!(is_let_through(&one, "192.0.2.1") && !is_let_through(&one, "192.0.2.1"));
    assert!(is_let_through(&one, "192.0.2.2"));
    assert!(is_let_through(&other, "192.0.2.1"));
}

#[test]
fn a_header_can_name_the_client() {
    let plugin = Gateway::new().load::<MyPlugin>();
    let route = plugin.route(json!({ "requests": 1, "header": "x-api-key" }));
    let with_key = |key| {
        route
            .request(get("/").header("X-API-Key", key))
            .went_upstream()
    };
    assert!(with_key("a") && with_key("b") && !with_key("a"));
}

#[test]
fn clients_beyond_the_bound_are_let_through_and_not_kept() {
    let limit = Limit::parse(br#"{"requests": 1}"#).unwrap();
    for number in 0..MAX_CLIENTS + 10 {
        assert_eq!(limit.count(&number.to_ne_bytes()), None);
    }
    assert_eq!(limit.used.lock().unwrap().len(), MAX_CLIENTS);
}

#[test]
fn a_limit_of_nothing_is_refused() {
    let plugin = Gateway::new().load::<MyPlugin>();
    assert!(
        plugin
            .refusal(json!({ "requests": 0 }))
            .starts_with("requests is 0")
    );
    assert!(
        plugin
            .refusal(json!({ "requests": 1, "seconds": 0 }))
            .starts_with("seconds is 0")
    );
}

#[test]
fn plugin_json_is_true_about_this_crate() {
    check_plugin_json!(Options, include_str!("../plugin.json"));
}
