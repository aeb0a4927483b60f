//! Answers a share of the requests itself, mostly with an error, so that one sees how clients
//! bear it.

#![forbid(unsafe_code)]

use plugin_abi::prelude::*;

/// What a route says about the fault.
#[derive(Deserialize, JsonSchema)]
struct Config {
    /// The status of the answer.
    #[schemars(range(min = 200, max = 599))]
    http_status: u16,
    /// The answer's body. From status 400 on, an empty one shows the gateway's own error page.
    #[serde(default)]
    body: String,
    /// How many of a hundred requests get the answer; the others pass.
    #[serde(default = "every_request")]
    #[schemars(range(min = 0, max = 100))]
    percentage: u8,
}

fn every_request() -> u8 {
    100
}

#[derive(Default)]
struct FaultInjection;

impl Plugin for FaultInjection {
    type Config = Config;

    fn configure(&self, raw: &[u8]) -> Result<Config> {
        let config = Config::parse(raw)?;
        ensure!(
            (200..=599).contains(&config.http_status),
            "http_status is {}: the gateway can deliver 200 to 599",
            config.http_status
        );
        ensure!(
            config.percentage <= 100,
            "percentage is {}: it goes from 0 to 100",
            config.percentage
        );
        Ok(config)
    }

    async fn request_filter(&self, config: &Config, _request: &mut Request) -> Result<Action> {
        // The draw is one of 0 to 99: never below 0 percent, always below 100.
        if fastrand::u8(0..100) >= config.percentage {
            return Ok(Action::Continue);
        }
        Ok(Action::stop(
            Reply::new(config.http_status).body(&config.body),
        ))
    }
}

export_plugin!(FaultInjection);

#[cfg(test)]
mod tests;
