//! How the text that a route gives a plugin becomes the plugin's own type, and what that type says
//! about texts that do.

use std::marker::PhantomData;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

pub use schemars::Schema;

/// A route's configuration for a plugin.
///
/// Every type that `serde` can deserialize is one: JSON, and where the route says nothing at all,
/// `{}`. To compile something while parsing (a regular expression, a table), let `serde` do it with
/// `#[serde(try_from = "...")]`. A type that is not read from JSON implements this trait itself.
///
/// ```
/// use plugin_abi::prelude::*;
///
/// #[derive(Deserialize)]
/// struct Limits { #[serde(default)] per_second: u32 }
/// assert_eq!(Limits::parse(b"")?.per_second, 0);
///
/// struct Lines(Vec<String>);
/// impl Configuration for Lines {
///     fn parse(raw: &[u8]) -> Result<Self> {
///         Ok(Self(std::str::from_utf8(raw)?.lines().map(str::to_owned).collect()))
///     }
/// }
/// assert_eq!(Lines::parse(b"a\nb")?.0, ["a", "b"]);
/// # Ok::<(), Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "a route's configuration cannot be read as `{Self}`",
    label = "neither `Deserialize` nor `Configuration`",
    note = "write `#[derive(Deserialize)]` above the type, or implement `plugin_abi::Configuration` for it"
)]
pub trait Configuration: Sized + Send + Sync + 'static {
    /// Parses what the route says, byte for byte.
    ///
    /// # Errors
    /// What is wrong and where, for the operator who wrote the route.
    fn parse(raw: &[u8]) -> Result<Self>;

    /// The JSON Schema that the host checks a route's configuration with before this type sees it.
    ///
    /// A type that derives `JsonSchema` has one without this method. It is for types that are
    /// parsed from another one:
    ///
    /// ```
    /// use plugin_abi::prelude::*;
    ///
    /// #[derive(Deserialize, JsonSchema)]
    /// struct Options { per_second: u32 }
    ///
    /// struct Bucket { tokens: std::sync::atomic::AtomicU32 }
    ///
    /// impl Configuration for Bucket {
    ///     fn parse(raw: &[u8]) -> Result<Self> {
    ///         let options = Options::parse(raw)?;
    ///         Ok(Self { tokens: options.per_second.into() })
    ///     }
    ///
    ///     fn schema() -> Option<Schema> {
    ///         Some(schema_for!(Options))
    ///     }
    /// }
    /// assert!(Bucket::schema().is_some());
    /// ```
    fn schema() -> Option<Schema> {
        None
    }
}

/// What a library says about its plugin's configurations: `export_plugin!` implements it.
#[doc(hidden)]
pub trait ConfigSchema: 'static {
    /// The JSON Schema of a route's configuration, where there is one.
    fn config_schema() -> Option<Schema>;
}

/// No schema: for the test kit, which makes modules without the macro.
impl ConfigSchema for () {
    fn config_schema() -> Option<Schema> {
        None
    }
}

/// Asks a type that may or may not have a JSON Schema: of the two traits below the compiler takes the
/// one that needs one reference less, where it applies. This works where the type is known, which
/// is in the macro.
#[doc(hidden)]
pub struct Probe<T>(PhantomData<T>);

impl<T> Probe<T> {
    #[doc(hidden)]
    pub const NEW: Self = Self(PhantomData);
}

/// Types with a JSON Schema.
#[doc(hidden)]
pub trait OfJsonSchema {
    #[doc(hidden)]
    fn config_schema(&self) -> Option<Schema>;
}

impl<T: Configuration + JsonSchema> OfJsonSchema for Probe<T> {
    fn config_schema(&self) -> Option<Schema> {
        Some(T::schema().unwrap_or_else(|| schema_of::<T>()))
    }
}

/// All the others.
#[doc(hidden)]
pub trait OfAnyType {
    #[doc(hidden)]
    fn config_schema(&self) -> Option<Schema>;
}

impl<T: Configuration> OfAnyType for &Probe<T> {
    fn config_schema(&self) -> Option<Schema> {
        T::schema()
    }
}

fn schema_of<T: JsonSchema>() -> Schema {
    let schema = schemars::schema_for!(T);
    if schema.get("type").is_some_and(|kind| kind == "null") {
        // A plugin without options: a route says nothing to it, which stands for `{}`.
        return schemars::json_schema!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": ["object", "null"],
            "maxProperties": 0,
        });
    }
    schema
}

impl<T: DeserializeOwned + Send + Sync + 'static> Configuration for T {
    fn parse(raw: &[u8]) -> Result<Self> {
        let (text, context) = if raw.trim_ascii().is_empty() {
            let context = "the route gives no configuration, which stands for {}; give it a `value` with \
                           what is missing, or give the plugin's type a default (`#[serde(default)]`)";
            (&b"{}"[..], context)
        } else {
            (raw, "the configuration does not fit")
        };
        serde_json::from_slice(text)
            .or_else(|error| {
                // A plugin without options is `()`, which `serde` does not read from `{}`.
                let nothing = serde_json::from_slice::<serde_json::Map<_, _>>(text)
                    .is_ok_and(|fields| fields.is_empty());
                let unit = nothing.then(|| serde_json::from_slice(b"null").ok());
                unit.flatten().ok_or(error)
            })
            .context(context)
    }
}
