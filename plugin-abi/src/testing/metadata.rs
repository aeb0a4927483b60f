//! Whether a `plugin.json` says what its crate says.

use schemars::JsonSchema;
use serde_json::Value;

/// Checks that a `plugin.json` is true about the crate whose test this is: name, version and
/// description, and the schema of the configuration where the file has one.
///
/// ```
/// # use plugin_abi::prelude::*;
/// # use plugin_abi::testing::check_plugin_json;
/// # #[derive(Deserialize, JsonSchema)]
/// # struct Config {}
/// # macro_rules! include_str { ($path:expr) => { r#"{
/// #     "name": "plugin-abi",
/// #     "version": "VERSION",
/// #     "description": "Write plugins for plugin-host: what the host and a plugin's library share"
/// # }"#.replace("VERSION", env!("CARGO_PKG_VERSION")).as_str() } }
/// // In a test of the plugin's:
/// check_plugin_json!(Config, include_str!("../plugin.json"));
/// ```
///
/// # Panics
/// It is not; the message says what the file should say.
#[macro_export]
macro_rules! check_plugin_json {
    ($config:ty, $plugin_json:expr $(,)?) => {
        $crate::testing::compare_plugin_json::<$config>(
            $plugin_json,
            [
                ("name", ::core::env!("CARGO_PKG_NAME")),
                ("version", ::core::env!("CARGO_PKG_VERSION")),
                ("description", ::core::env!("CARGO_PKG_DESCRIPTION")),
            ],
        )
    };
}

#[doc(hidden)]
#[track_caller]
pub fn compare_plugin_json<C: JsonSchema>(plugin_json: &str, in_cargo: [(&str, &str); 3]) {
    let metadata: Value = match serde_json::from_str(plugin_json) {
        Ok(metadata) => metadata,
        Err(error) => panic!("plugin.json: {error}"),
    };
    for (field, in_cargo) in in_cargo {
        let written = &metadata[field];
        assert!(
            written == in_cargo,
            "plugin.json says {field} {written}, and Cargo.toml {in_cargo:?}: put one of them right"
        );
    }
    let schema = Value::from(schemars::schema_for!(C));
    if let Some(written) = metadata.get("config_schema") {
        assert!(
            *written == schema,
            "the configuration has changed: `config_schema` in plugin.json becomes\n{schema:#}"
        );
    }
}
