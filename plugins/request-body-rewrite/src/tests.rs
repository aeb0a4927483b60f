//! What can be said about `request-body-rewrite` without a host.

#![allow(clippy::unwrap_used, reason = "a failed test says where it failed")]

use serde_json::Value;

use super::*;

fn refusal(raw: &str) -> String {
    let refused = RequestBodyRewrite.configure(raw.as_bytes()).map(|_| ());
    format!("{:#}", refused.unwrap_err())
}

#[test]
fn a_route_says_the_new_body() {
    let config = RequestBodyRewrite
        .configure(br#"{"new_body": "NEW"}"#)
        .unwrap();
    assert_eq!(config.new_body, "NEW");
}

#[test]
fn an_empty_body_is_refused_since_the_gateway_would_send_the_old_one() {
    let reason = refusal(r#"{"new_body": ""}"#);
    assert!(reason.starts_with("new_body is empty"), "{reason}");
}

#[test]
fn a_route_that_forgets_the_body_is_told_so() {
    assert!(refusal("{}").contains("missing field `new_body`"));
}

#[test]
fn plugin_json_is_true_about_this_crate() {
    let metadata: Value = serde_json::from_str(include_str!("../plugin.json")).unwrap();
    assert_eq!(metadata["name"], env!("CARGO_PKG_NAME"));
    assert_eq!(metadata["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(metadata["description"], env!("CARGO_PKG_DESCRIPTION"));
    let schema = Value::from(schemars::schema_for!(Config));
    assert!(
        metadata["config_schema"] == schema,
        "Config has changed: `config_schema` in plugin.json becomes\n{schema:#}"
    );
}
