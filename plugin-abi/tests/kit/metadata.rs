//! That a `plugin.json` is compared with its crate.

use std::panic::catch_unwind;

use plugin_abi::{
    prelude::*,
    testing::{check_plugin_json, json},
};

#[derive(Deserialize, JsonSchema)]
#[allow(dead_code, reason = "only its schema is looked at")]
struct Config {
    /// A word.
    word: String,
}

fn check(
    change: impl FnOnce(&mut serde_json::Value) + std::panic::UnwindSafe,
) -> Result<(), String> {
    catch_unwind(|| {
        let mut metadata = json!({
            "name": env!("CARGO_PKG_NAME"),
            "version": env!("CARGO_PKG_VERSION"),
            "description": env!("CARGO_PKG_DESCRIPTION"),
            "config_schema": schemars::schema_for!(Config),
        });
        change(&mut metadata);
        check_plugin_json!(Config, &metadata.to_string());
    })
    .map_err(|panic| panic.downcast_ref::<String>().unwrap().clone())
}

#[test]
fn a_plugin_json_that_fits_its_crate_passes_with_or_without_a_schema() {
    check(|_| {}).unwrap();
    check(|metadata| drop(metadata.as_object_mut().unwrap().remove("config_schema"))).unwrap();
}

#[test]
fn a_plugin_json_that_says_something_else_is_told_what_to_say() {
    let said = check(|metadata| metadata["version"] = json!("9.9.9")).unwrap_err();
    assert!(
        said.contains("plugin.json says version \"9.9.9\", and Cargo.toml"),
        "{said}"
    );
    let said = check(|metadata| metadata["config_schema"]["title"] = json!("x")).unwrap_err();
    assert!(
        said.contains("`config_schema` in plugin.json becomes\n{"),
        "{said}"
    );
}
