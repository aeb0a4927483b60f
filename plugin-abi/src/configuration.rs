//! How the text that a route gives a plugin becomes the plugin's own type.

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

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
pub trait Configuration: Sized + Send + Sync + 'static {
    /// Parses what the route says, byte for byte.
    ///
    /// # Errors
    /// What is wrong and where, for the operator who wrote the route.
    fn parse(raw: &[u8]) -> Result<Self>;
}

impl<T: DeserializeOwned + Send + Sync + 'static> Configuration for T {
    fn parse(raw: &[u8]) -> Result<Self> {
        let (text, context) = if raw.trim_ascii().is_empty() {
            let context = "the route gives no configuration, which stands for {}";
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
