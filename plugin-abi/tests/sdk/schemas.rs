//! What a library says about its configuration type, for every kind of such a type.

use plugin_abi::{
    configuration::{OfAnyType as _, OfJsonSchema as _, Probe},
    prelude::*,
};
use serde_json::{Value, json};

/// As `export_plugin!` asks a type, which has to be known where it is asked.
macro_rules! schema_of {
    ($config:ty) => {
        (&Probe::<$config>::NEW)
            .config_schema()
            .map(Schema::to_value)
    };
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "only its schema is looked at")]
struct Derived {
    word: String,
    #[serde(default)]
    often: u8,
}

#[derive(Deserialize)]
struct Plain {}

struct ByHand;

impl Configuration for ByHand {
    fn parse(_raw: &[u8]) -> Result<Self> {
        Ok(Self)
    }
}

struct FromDerived;

impl Configuration for FromDerived {
    fn parse(raw: &[u8]) -> Result<Self> {
        Derived::parse(raw).map(|_| Self)
    }

    fn schema() -> Option<Schema> {
        Some(schema_for!(Derived))
    }
}

#[test]
fn a_type_that_derives_a_schema_has_it() {
    let schema = schema_of!(Derived).unwrap();
    assert_eq!(schema["required"], json!(["word"]));
    assert_eq!(schema["properties"]["often"]["maximum"], 255);
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(
        schema["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
}

#[test]
fn a_type_that_is_parsed_from_another_one_gives_that_ones() {
    assert_eq!(schema_of!(FromDerived), schema_of!(Derived));
}

#[test]
fn a_type_without_one_compiles_and_has_none() {
    assert_eq!(schema_of!(Plain), None);
    assert_eq!(schema_of!(ByHand), None);
}

#[test]
fn a_plugin_without_options_takes_nothing_and_an_empty_object() {
    let schema: Value = schema_of!(()).unwrap();
    assert_eq!(schema["type"], json!(["object", "null"]));
    assert_eq!(schema["maxProperties"], 0);
    for nothing in ["", "{}", "null"] {
        <()>::parse(nothing.as_bytes()).unwrap();
    }
}
