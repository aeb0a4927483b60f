//! Replaces the body of every request by a text from the route's configuration.

#![forbid(unsafe_code)]

use plugin_abi::prelude::*;

/// What a route says about the body.
#[derive(Deserialize, JsonSchema)]
struct Config {
    /// The body that goes upstream instead of the client's.
    #[schemars(length(min = 1))]
    new_body: String,
}

#[derive(Default)]
struct RequestBodyRewrite;

impl Plugin for RequestBodyRewrite {
    type Config = Config;

    fn configure(&self, raw: &[u8]) -> Result<Config> {
        let config = Config::parse(raw)?;
        // Better said here than found out upstream, where the client's body would arrive.
        ensure!(
            !config.new_body.is_empty(),
            "new_body is empty: the gateway takes an empty body for no change, so it cannot be sent"
        );
        Ok(config)
    }

    async fn request_filter(&self, config: &Config, request: &mut Request) -> Result<Action> {
        request.set_body(config.new_body.as_str());
        Ok(Action::Continue)
    }
}

export_plugin!(RequestBodyRewrite);

#[cfg(test)]
mod tests;
