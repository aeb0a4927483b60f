//! Logs each response with its request: one line, with fields, into the host's log.

#![forbid(unsafe_code)]

use plugin_abi::prelude::*;

/// What a route says about it.
#[derive(Deserialize, JsonSchema)]
#[serde(default)]
#[derive(Default)]
struct Config {
    /// Responses with a status below this one are not logged.
    from_status: u16,
    /// A header of the response to log beside the rest.
    header: Option<String>,
}

#[derive(Default)]
struct MyPlugin;

impl Plugin for MyPlugin {
    type Config = Config;

    async fn response_filter(&self, config: &Config, response: &mut Response) -> Result<()> {
        if response.status() < config.from_status {
            return Ok(());
        }
        // `plugin.json` names these variables under `needs`, so that they are there already: the
        // gateway is asked for them before the plugin runs.
        let method = text(response.var("request_method").await?);
        let uri = text(response.var("request_uri").await?);
        let client = text(response.var("remote_addr").await?);
        let header = config.header.as_ref();
        let header = text(header.and_then(|name| response.header(name)));
        log::info!(
            method = method.as_str(),
            uri = uri.as_str(),
            client = client.as_str(),
            status = response.status(),
            header = header.as_str();
            "served"
        );
        Ok(())
    }
}

/// For the log: bytes that are no text are shown as such, and what is not there is `-`.
fn text(value: Option<&[u8]>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.escape_ascii().to_string())
}

export_plugin!(MyPlugin);

#[cfg(test)]
mod tests;
