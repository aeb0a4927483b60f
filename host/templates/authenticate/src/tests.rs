//! The plugin in a fake gateway, and the service that it asks.

use plugin_abi::testing::{Gateway, Route, Service, check_plugin_json, get, json, response};

use super::*;

const SERVICE: &str = "https://users.example/whoami";

fn route(gateway: &Gateway) -> (Route, Service) {
    let service = gateway.service(SERVICE, response(200).json(json!({ "name": "ada" })));
    let plugin = gateway.load::<MyPlugin>();
    (plugin.route(json!({ "service": SERVICE })), service)
}

#[test]
fn the_upstream_learns_who_it_is_and_not_from_the_client() {
    let (route, service) = route(&Gateway::new());
    let sent = get("/orders").header("Authorization", "Bearer t");
    let outcome = route.request(sent.header("X-User", "root"));
    assert_eq!(outcome.upstream().headers("x-user"), ["ada"]);
    let asked = service.requests();
    assert_eq!(asked[0].header("authorization"), Some("Bearer t"));
}

#[test]
fn who_has_no_token_or_a_wrong_one_is_kept_out() {
    let (route, service) = route(&Gateway::new());
    assert_eq!(route.request(get("/")).client().status(), 401);
    assert_eq!(service.requests().len(), 0);
    service.answers(response(401));
    let sent = get("/").header("Authorization", "Bearer t");
    assert_eq!(route.request(sent).client().status(), 401);
}

#[test]
fn a_service_that_is_broken_gone_or_slow_lets_nobody_in() {
    let (route, service) = route(&Gateway::new());
    let sent = || get("/").header("Authorization", "Bearer t");
    service.answers(response(500));
    assert_eq!(route.request(sent()).client().status(), 503);
    service.fails(HttpErrorKind::Connect);
    assert_eq!(route.request(sent()).client().status(), 503);
    service.answers(response(200).json(json!({ "name": "ada" })));
    service.takes(Duration::from_secs(1));
    let outcome = route.request(sent());
    assert_eq!(outcome.client().status(), 503);
    assert_eq!(outcome.took(), Duration::from_millis(500));
}

#[test]
fn what_is_no_url_is_refused() {
    let plugin = Gateway::new().load::<MyPlugin>();
    let reason = plugin.refusal(json!({ "service": "users:80" }));
    assert!(reason.starts_with("service is \"users:80\""), "{reason}");
}

#[test]
fn plugin_json_is_true_about_this_crate() {
    check_plugin_json!(Config, include_str!("../plugin.json"));
}
