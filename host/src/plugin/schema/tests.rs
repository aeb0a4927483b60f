//! Configurations that schemas take and refuse.

#![allow(
    clippy::unwrap_used,
    reason = "a test may end at what it did not expect"
)]

use serde_json::json;

use super::*;

/// Checks a raw configuration against a schema; an empty expectation means that it fits.
fn check(schema: &Value, raw: &[u8], expected: &str) {
    let refused = Schema::compile(schema).unwrap().check_raw(raw).err();
    let found = refused.map(|error| error.to_string()).unwrap_or_default();
    assert_eq!(found, expected, "{}", String::from_utf8_lossy(raw));
}

/// Compiles what is no usable schema; the expectation is how the refusal begins.
fn check_schema(schema: &Value, expected: &str) {
    let refused = Schema::compile(schema).unwrap_err().to_string();
    assert!(refused.starts_with(expected), "{refused}");
}

#[test]
fn a_schema_of_a_library_is_bounded_and_has_to_be_json() {
    let refused = |text: &str| Schema::from_text(text).unwrap_err().to_string();
    let long = format!("{{\"title\": \"{}\"}}", "x".repeat(MAX_SOURCE_BYTES));
    assert!(refused(&long).contains("more than 262144"));
    assert!(refused("{").starts_with("it is not JSON: "));
    assert!(refused(r#"{"type": "text"}"#).starts_with("it is not a JSON Schema: /type"));
    let schema = Schema::from_text(r#"{"required": ["a"]}"#).unwrap();
    assert_eq!(schema.source()["required"][0], "a");
}

#[test]
fn an_error_names_the_place_of_the_mistake() {
    let schema = json!({
        "type": "object",
        "properties": {
            "rate": {"type": "number", "exclusiveMinimum": 0},
            "filters": {"items": {"properties": {"regex": {"type": "string"}}}},
        },
        "required": ["rate"],
    });
    check(&schema, br#"{"rate": 1, "filters": [{"regex": "a"}]}"#, "");
    check(
        &schema,
        br#"{"rate": 1, "filters": [{"regex": 7}]}"#,
        r#"/filters/0/regex: value is not of type "string""#,
    );
    check(
        &schema,
        br#"{"rate": 0}"#,
        "/rate: value is less than or equal to the minimum of 0",
    );
    check(&schema, b"[]", r#"/: value is not of type "object""#);
}

#[test]
fn an_empty_configuration_counts_as_an_empty_object() {
    check(&json!({"type": "object"}), b"", "");
    let missing = r#"/: "rate" is a required property"#;
    check(&json!({"required": ["rate"]}), b"{}", missing);
    let told = format!(
        "the route gives no configuration, which stands for {{}}, and that does not fit: {missing}; \
         give the route a `value` with what is missing"
    );
    check(&json!({"required": ["rate"]}), b"", &told);
    check(&json!({"required": ["rate"]}), b" \n", &told);
}

#[test]
fn a_configuration_that_is_not_json_is_refused_with_its_position() {
    check(
        &json!({}),
        b"rate: 10",
        "it is not JSON: expected value at line 1, column 1",
    );
    check(
        &json!({}),
        b"{\n \"rate\": }",
        "it is not JSON: expected value at line 2, column 10",
    );
    check(
        &json!({}),
        b"{} {}",
        "it is not JSON: trailing characters at line 1, column 4",
    );
    check(
        &json!({}),
        b"\xff",
        "it is not JSON: expected value at line 1, column 1",
    );
}

#[test]
fn a_message_never_repeats_the_value() {
    let schema =
        json!({"properties": {"token": {"type": "string", "maxLength": 3, "pattern": "^[a-c]*$"}}});
    let schema = Schema::compile(&schema).unwrap();
    let refused = schema
        .check_raw(br#"{"token": "hunter2"}"#)
        .unwrap_err()
        .to_string();
    assert!(
        refused.starts_with("/token: ") && !refused.contains("hunter2"),
        "{refused}"
    );
}

#[test]
fn the_number_of_reported_mistakes_is_bounded() {
    let schema = Schema::compile(&json!({"items": {"type": "string"}})).unwrap();
    let violations = schema.check(&json!(vec![0; 100])).unwrap_err();
    assert_eq!(
        (violations.shown.len(), violations.more),
        (MAX_VIOLATIONS, 100 - MAX_VIOLATIONS)
    );
    assert!(violations.to_string().ends_with("; and 92 more"));
}

#[test]
fn the_length_of_a_reported_mistake_is_bounded() {
    let schema = Schema::compile(&json!({"additionalProperties": false})).unwrap();
    let violations = schema.check(&json!({"ü".repeat(1000): 1})).unwrap_err();
    assert!(violations.shown[0].message.len() <= MAX_MESSAGE_BYTES + '…'.len_utf8());
}

#[test]
fn a_reference_that_leads_out_of_the_schema_is_refused() {
    for outside in [
        "file:///etc/passwd",
        "https://example.com/schema.json",
        "other.json",
        "#/$defs/missing",
    ] {
        check_schema(
            &json!({"$ref": outside}),
            "a `$ref` leads out of the schema or nowhere",
        );
    }
}

#[test]
fn a_reference_inside_the_schema_is_followed() {
    let schema = json!({"$defs": {"rate": {"type": "number"}}, "properties": {"rate": {"$ref": "#/$defs/rate"}}});
    check(
        &schema,
        br#"{"rate": "ten"}"#,
        r#"/rate: value is not of type "number""#,
    );
}

#[test]
fn references_that_lead_back_to_themselves_come_to_an_end() {
    check(&json!({"$ref": "#"}), b"{}", "");
    check(&json!({"$dynamicRef": "#"}), b"{}", "");
    check(
        &json!({"$ref": "#", "type": "string"}),
        b"{}",
        r#"/: value is not of type "string""#,
    );
    check(
        &json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
        b"{}",
        "",
    );
}

#[test]
fn what_is_no_schema_is_refused() {
    check_schema(&json!(3), "it is not a JSON Schema: /: ");
    check_schema(&json!({"type": "text"}), "it is not a JSON Schema: /type: ");
    check_schema(
        &json!({"properties": {"a": {"pattern": "("}}}),
        "it is not a JSON Schema: /properties/a/pattern: ",
    );
}

#[test]
fn a_schema_of_another_dialect_is_refused() {
    check_schema(
        &json!({"$schema": "http://json-schema.org/draft-07/schema#"}),
        "`$schema` is `http://json-schema.org/draft-07/schema#`",
    );
    check_schema(&json!({"$schema": 7}), "`$schema` is `7`");
    check(&json!({"$schema": DIALECT, "type": "object"}), b"", "");
}

#[test]
fn a_pattern_that_turns_back_too_often_is_given_up() {
    let schema =
        Schema::compile(&json!({"properties": {"a": {"pattern": r"^(a|a)*\1$"}}})).unwrap();
    let text = format!(r#"{{"a": "{}b"}}"#, "a".repeat(40));
    let refused = schema.check_raw(text.as_bytes()).unwrap_err().to_string();
    assert!(
        refused.starts_with("/a: ") && refused.contains("acktrack"),
        "{refused}"
    );
}
