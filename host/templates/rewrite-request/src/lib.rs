//! Rewrites requests on their way to the upstream: path, headers and arguments.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use plugin_abi::prelude::*;

/// What a route says about it.
#[derive(Deserialize, JsonSchema)]
#[serde(default)]
#[derive(Default)]
struct Config {
    /// What is taken off the beginning of the path.
    strip_prefix: String,
    /// Headers to set; an empty value removes one.
    headers: BTreeMap<String, String>,
    /// Query arguments that the upstream does not get.
    remove_args: Vec<String>,
}

#[derive(Default)]
struct MyPlugin;

impl Plugin for MyPlugin {
    type Config = Config;

    fn configure(&self, raw: &[u8]) -> Result<Config> {
        let config = Config::parse(raw)?;
        for name in config.headers.keys() {
            HeaderName::from_bytes(name.as_bytes())
                .with_context(|| format!("headers: {name:?} cannot be the name of a header"))?;
        }
        Ok(config)
    }

    async fn request_filter(&self, config: &Config, request: &mut Request) -> Result<Action> {
        if let Some(path) = without_prefix(request.path(), &config.strip_prefix) {
            request.set_path(path);
        }
        for (name, value) in &config.headers {
            request.set_header(name, value);
        }
        for name in &config.remove_args {
            request.remove_arg(name);
        }
        Ok(Action::Continue)
    }
}

/// The path that is left, which begins with a slash again; none where nothing is to be done.
fn without_prefix(path: &[u8], prefix: &str) -> Option<Vec<u8>> {
    let prefix = prefix.trim_end_matches('/').as_bytes();
    match path.strip_prefix(prefix)? {
        _ if prefix.is_empty() => None,
        [] => Some(b"/".to_vec()),
        rest if rest.starts_with(b"/") => Some(rest.to_vec()),
        _ => None,
    }
}

export_plugin!(MyPlugin);

#[cfg(test)]
mod tests;
