//! Answers every request with a text from the route's configuration.

#![forbid(unsafe_code)]

use plugin_abi::prelude::*;

/// What a route says about it.
#[derive(Deserialize, JsonSchema)]
struct Config {
    /// The answer's body. An empty one lets the request pass.
    body: String,
}

#[derive(Default)]
struct Say;

impl Plugin for Say {
    type Config = Config;

    async fn request_filter(&self, config: &Config, _request: &mut Request) -> Result<Action> {
        if config.body.is_empty() {
            return Ok(Action::Continue);
        }
        let reply = Reply::new(200).header("X-Resp-A6-Runner", "Rust");
        Ok(Action::stop(reply.body(&config.body)))
    }
}

export_plugin!(Say);

#[cfg(test)]
mod tests;
