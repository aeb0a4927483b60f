//! Answers in place of the upstream while a part of it is closed.

#![forbid(unsafe_code)]

use plugin_abi::prelude::*;

/// What a route says about it.
#[derive(Deserialize, JsonSchema)]
struct Config {
    /// Paths that are closed, with all that is below them.
    closed: Vec<String>,
    /// What the client reads.
    #[serde(default = "closed")]
    message: String,
    /// After how many seconds the client may try again.
    #[serde(default = "an_hour")]
    retry_after: u32,
}

fn closed() -> String {
    "Closed for maintenance.\n".to_owned()
}

fn an_hour() -> u32 {
    3_600
}

#[derive(Default)]
struct MyPlugin;

impl Plugin for MyPlugin {
    type Config = Config;

    fn configure(&self, raw: &[u8]) -> Result<Config> {
        let config = Config::parse(raw)?;
        for (index, path) in config.closed.iter().enumerate() {
            ensure!(
                path.starts_with('/'),
                "closed[{index}] is {path:?}: a path begins with /"
            );
        }
        // From status 400 on, a reply without a body would be the gateway's own error page.
        ensure!(!config.message.is_empty(), "message is empty");
        Ok(config)
    }

    async fn request_filter(&self, config: &Config, request: &mut Request) -> Result<Action> {
        let path = request.path();
        if !config.closed.iter().any(|closed| is_below(path, closed)) {
            return Ok(Action::Continue);
        }
        let reply = Reply::from(StatusCode::SERVICE_UNAVAILABLE)
            .header("Retry-After", config.retry_after.to_string())
            .body(&config.message);
        Ok(Action::stop(reply))
    }
}

/// `/shop` and `/shop/cart` are below `/shop`; `/shopping` is not.
fn is_below(path: &[u8], closed: &str) -> bool {
    let closed = closed.trim_end_matches('/').as_bytes();
    match path.strip_prefix(closed) {
        Some(rest) => rest.is_empty() || rest.starts_with(b"/"),
        None => false,
    }
}

export_plugin!(MyPlugin);

#[cfg(test)]
mod tests;
