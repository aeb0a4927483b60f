//! What can be said about `redis-session` without a host and without Redis.

#![allow(clippy::unwrap_used, reason = "a failed test says where it failed")]

use serde_json::{Value, json};

use super::*;

fn parse(raw: &str) -> Result<Sessions, String> {
    Sessions::parse(raw.as_bytes()).map_err(|error| format!("{error:#}"))
}

#[test]
fn a_route_without_options_looks_at_the_cookie_named_session_and_refuses_with_401() {
    let sessions = parse("").unwrap();
    assert_eq!(sessions.cookie, "session");
    assert!(sessions.headers.is_empty() && sessions.extend_seconds.is_none());
    assert!(matches!(sessions.rejected, Rejected::Status(401)));
}

#[test]
fn a_route_with_a_login_sends_there_instead() {
    let sessions = parse(r#"{"login": "/login"}"#).unwrap();
    assert!(matches!(&sessions.rejected, Rejected::Login(to) if to == "/login"));
}

#[test]
fn what_cannot_be_is_refused_with_the_name_of_the_field() {
    for (raw, field) in [
        (r#"{"headers": {"x user": "user"}}"#, r#"headers: "x user""#),
        (r#"{"rejected_code": 99}"#, "rejected_code is 99"),
        (r#"{"extend_seconds": 0}"#, "extend_seconds is 0"),
        (r#"{"cookie": 1}"#, "invalid type"),
    ] {
        let error = parse(raw).map(|_| ()).unwrap_err();
        assert!(error.contains(field), "{error}");
    }
}

#[test]
fn the_session_is_found_among_other_cookies_by_its_whole_name() {
    let cookies = "a=1; xsession=no; session=AbC-1_2.3~4+5/6=; session=later";
    assert_eq!(session_in(cookies, "session"), Some("AbC-1_2.3~4+5/6="));
    assert_eq!(session_in(cookies, "a"), Some("1"));
    assert_eq!(session_in(cookies, "Session"), None);
    assert_eq!(session_in("", "session"), None);
}

#[test]
fn what_cannot_be_an_identifier_is_none() {
    let long = "x".repeat(MAX_ID_BYTES);
    let cookies = |id: &str| format!("session={id}");
    assert_eq!(session_in(&cookies(&long), "session"), Some(&*long));
    for id in ["", "a b", "a\r\nb", "a:b", "ä", "*", &format!("{long}x")] {
        assert_eq!(session_in(&cookies(id), "session"), None, "{id:?}");
    }
}

#[test]
fn a_url_that_is_none_is_refused_without_being_repeated() {
    let error = Store::new(
        "http://hunter2@redis",
        String::new(),
        Duration::from_secs(1),
    );
    let error = format!("{:#}", error.map(|_| ()).unwrap_err());
    assert!(
        error.starts_with("settings: url: ") && !error.contains("hunter2"),
        "{error}"
    );
}

#[test]
fn plugin_json_is_true_about_this_crate() {
    let metadata: Value = serde_json::from_str(include_str!("../plugin.json")).unwrap();
    assert_eq!(metadata["name"], env!("CARGO_PKG_NAME"));
    assert_eq!(metadata["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(metadata["description"], env!("CARGO_PKG_DESCRIPTION"));
    for (field, schema) in [
        ("config_schema", Value::from(schemars::schema_for!(Options))),
        (
            "settings_schema",
            Value::from(schemars::schema_for!(Settings)),
        ),
    ] {
        assert!(
            metadata[field] == schema,
            "`{field}` in plugin.json becomes\n{schema:#}"
        );
    }
    let defaults =
        json!({ "url": "redis://127.0.0.1:6379", "prefix": "session:", "timeout_ms": 500 });
    assert_eq!(metadata["settings"], defaults);
}
