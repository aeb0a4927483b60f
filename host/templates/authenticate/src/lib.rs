//! Asks another service who a token belongs to, and tells the upstream; who has none is kept out.

#![forbid(unsafe_code)]

use std::time::Duration;

use plugin_abi::prelude::*;

/// What a route says about it.
#[derive(Deserialize, JsonSchema)]
struct Config {
    /// URL that is asked, with the client's `Authorization` header. It answers 200 and
    /// `{"name": "..."}`, or 401.
    service: String,
    /// How long it may take, in milliseconds.
    #[serde(default = "half_a_second")]
    timeout_ms: u64,
}

fn half_a_second() -> u64 {
    500
}

/// What the service says of a user.
#[derive(Deserialize)]
struct User {
    name: String,
}

#[derive(Default)]
struct MyPlugin;

impl Plugin for MyPlugin {
    type Config = Config;

    fn configure(&self, raw: &[u8]) -> Result<Config> {
        let config = Config::parse(raw)?;
        let is_url = ["http://", "https://"]
            .iter()
            .any(|scheme| config.service.starts_with(scheme));
        ensure!(
            is_url,
            "service is {:?}: it begins with http:// or https://",
            config.service
        );
        Ok(config)
    }

    async fn request_filter(&self, config: &Config, request: &mut Request) -> Result<Action> {
        // Whatever happens: nobody says for himself who he is.
        request.remove_header("x-user");
        let Some(token) = request.header("authorization") else {
            return Ok(unauthorized());
        };
        let answer = request
            .http()
            .get(&config.service)
            .header("authorization", token)
            .timeout(Duration::from_millis(config.timeout_ms))
            .send()
            .await?;
        match answer.status() {
            StatusCode::OK => {
                let user: User = answer.json().await?;
                request.set_header("x-user", user.name);
                Ok(Action::Continue)
            }
            StatusCode::UNAUTHORIZED => Ok(unauthorized()),
            // An error closes the route: a service that is broken lets nobody in.
            status => bail!("the service answered {status}"),
        }
    }
}

fn unauthorized() -> Action {
    let reply = Reply::from(StatusCode::UNAUTHORIZED)
        .header("WWW-Authenticate", "Bearer")
        .body("Who are you?\n");
    Action::stop(reply)
}

export_plugin!(MyPlugin);

#[cfg(test)]
mod tests;
