//! What can be said about `fault-injection` without a host.

#![allow(clippy::unwrap_used, reason = "a failed test says where it failed")]

use serde_json::Value;

use super::*;

fn refusal(raw: &str) -> String {
    let refused = FaultInjection.configure(raw.as_bytes()).map(|_| ());
    format!("{:#}", refused.unwrap_err())
}

#[test]
fn without_a_percentage_every_request_is_hit() {
    let config = FaultInjection
        .configure(br#"{"http_status": 403, "body": "injected"}"#)
        .unwrap();
    assert_eq!(
        (config.http_status, config.body.as_str(), config.percentage),
        (403, "injected", 100)
    );
}

#[test]
fn the_whole_range_of_both_numbers_is_allowed() {
    for (status, percentage) in [(200, 0), (599, 100)] {
        let raw = format!(r#"{{"http_status": {status}, "percentage": {percentage}}}"#);
        let config = FaultInjection.configure(raw.as_bytes()).unwrap();
        assert_eq!(
            (config.http_status, config.percentage),
            (status, percentage)
        );
    }
}

#[test]
fn a_status_that_the_gateway_cannot_deliver_is_refused() {
    for status in [0, 199, 600, 65_535] {
        let reason = refusal(&format!(r#"{{"http_status": {status}}}"#));
        assert!(
            reason.contains("http_status") && reason.contains("200 to 599"),
            "{reason}"
        );
    }
    assert!(refusal("{}").contains("missing field `http_status`"));
}

#[test]
fn more_than_every_request_is_refused() {
    let reason = refusal(r#"{"http_status": 500, "percentage": 101}"#);
    assert!(reason.contains("percentage is 101"), "{reason}");
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
