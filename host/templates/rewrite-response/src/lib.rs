//! Rewrites responses on their way to the client: headers, and text in the body.

#![forbid(unsafe_code)]

use plugin_abi::prelude::*;

/// What a route says about it.
#[derive(Deserialize, JsonSchema)]
#[serde(default)]
#[derive(Default)]
struct Config {
    /// Headers that the client does not get.
    remove_headers: Vec<String>,
    /// Texts to replace in bodies of type `text/...` and `application/json`.
    replace: Vec<Replace>,
}

/// One replacement.
#[derive(Deserialize, JsonSchema)]
struct Replace {
    /// The text to look for.
    from: String,
    /// What stands in its place then.
    to: String,
}

#[derive(Default)]
struct MyPlugin;

impl Plugin for MyPlugin {
    type Config = Config;

    fn configure(&self, raw: &[u8]) -> Result<Config> {
        let config = Config::parse(raw)?;
        for (index, replace) in config.replace.iter().enumerate() {
            ensure!(!replace.from.is_empty(), "replace[{index}]: from is empty");
        }
        Ok(config)
    }

    async fn response_filter(&self, config: &Config, response: &mut Response) -> Result<()> {
        for name in &config.remove_headers {
            response.remove_header(name);
        }
        if config.replace.is_empty() || !is_text(response) {
            return Ok(());
        }
        // The body travels from the gateway only where it is asked for.
        let body = match response.body().await {
            Ok(Some(body)) => String::from_utf8(body.to_vec()),
            Ok(None) => return Ok(()),
            // One that is too large for that goes to the client as it is.
            Err(AskError::BodyTooLarge) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if let Ok(mut body) = body {
            for Replace { from, to } in &config.replace {
                body = body.replace(from, to);
            }
            // A body cannot be emptied.
            if !body.is_empty() {
                response.set_body(body);
            }
        }
        Ok(())
    }
}

/// Whether the body is text, and not compressed.
fn is_text(response: &Response) -> bool {
    let kind = response.header_str("content-type").unwrap_or_default();
    let text = kind.starts_with("text/") || kind.starts_with("application/json");
    text && response.header("content-encoding").is_none()
}

export_plugin!(MyPlugin);

#[cfg(test)]
mod tests;
