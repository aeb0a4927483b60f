//! The plugin in a fake gateway.

use plugin_abi::testing::{Gateway, Loading, check_plugin_json, get, json, response};

use super::*;

#[test]
fn a_response_is_logged_with_its_request() {
    let gateway = Gateway::new();
    let loading = Loading::from_plugin_json(include_str!("../plugin.json"));
    let plugin = gateway.load_with::<MyPlugin>(loading);
    let route = plugin.route(json!({ "header": "x-cache" }));
    let request = get("/a%20b?c=1").client_ip("192.0.2.7");
    route.response(response(404).header("X-Cache", "miss").to(request));
    let log = gateway.log();
    assert_eq!(
        log[0].to_string(),
        "INFO my-plugin: served method=GET uri=/a%20b?c=1 client=192.0.2.7 status=404 header=miss"
    );
}

#[test]
fn what_is_below_the_status_is_not() {
    let gateway = Gateway::new();
    let route = gateway
        .load::<MyPlugin>()
        .route(json!({ "from_status": 500 }));
    for status in [200, 404, 499, 500, 503] {
        assert_eq!(route.response(response(status)).client().status(), status);
    }
    let logged: Vec<_> = gateway
        .log()
        .iter()
        .filter_map(|line| line.field("status").map(str::to_owned))
        .collect();
    assert_eq!(logged, ["500", "503"]);
}

#[test]
fn plugin_json_is_true_about_this_crate() {
    check_plugin_json!(Config, include_str!("../plugin.json"));
}
