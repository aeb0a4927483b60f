//! What can be said about `say` without a host.

#![allow(clippy::unwrap_used, reason = "a failed test says where it failed")]

use serde_json::Value;

use super::*;

#[test]
fn a_route_says_the_body() {
    let config = Config::parse(br#"{"body": "hello"}"#).unwrap();
    assert_eq!(config.body, "hello");
}

#[test]
fn a_route_that_forgets_the_body_is_told_so() {
    let error = Config::parse(b"").map(|_| ()).unwrap_err();
    assert!(format!("{error:#}").contains("missing field `body`"));
}

#[test]
fn fields_that_it_does_not_know_are_ignored() {
    assert!(Config::parse(br#"{"body": "hello", "loud": true}"#).is_ok());
}

#[test]
fn the_whole_plugin_is_at_most_25_lines() {
    let lines = include_str!("lib.rs")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("use "))
        .count();
    assert!(lines <= 25, "{lines} lines");
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
