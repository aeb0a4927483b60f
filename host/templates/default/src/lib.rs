//! Greets whoever asks for `/hello`, and marks all other requests and responses.

#![forbid(unsafe_code)]

use plugin_abi::prelude::*;

/// What a route says about it.
#[derive(Deserialize, JsonSchema)]
struct Config {
    /// Who is greeted.
    #[serde(default = "everybody")]
    name: String,
}

fn everybody() -> String {
    "everybody".to_owned()
}

#[derive(Default)]
struct MyPlugin;

impl Plugin for MyPlugin {
    type Config = Config;

    /// Sees each request before it goes upstream.
    async fn request_filter(&self, config: &Config, request: &mut Request) -> Result<Action> {
        if request.path() == b"/hello" {
            log::info!(name = config.name.as_str(); "greeted");
            let reply = Reply::new(200).body(format!("Hello, {}!\n", config.name));
            return Ok(Action::stop(reply));
        }
        request.set_header("x-greeted", &config.name);
        Ok(Action::Continue)
    }

    /// Sees each response before it goes to the client.
    async fn response_filter(&self, _config: &Config, response: &mut Response) -> Result<()> {
        response.set_header("X-Served-By", "my-plugin");
        Ok(())
    }
}

export_plugin!(MyPlugin);

#[cfg(test)]
mod tests;
