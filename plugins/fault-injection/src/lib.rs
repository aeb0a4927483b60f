//! Answers a share of the requests itself, mostly with an error, so that one sees how clients
//! bear it. An operator switches all of it off and on without touching a route.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
struct FaultInjection {
    /// An operator has switched it off: every request passes.
    is_off: AtomicBool,
    /// Requests that got the answer.
    injected: AtomicU64,
}

/// The format of what is left to the next version.
const STATE: u32 = 1;

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
        if self.is_off.load(Ordering::Relaxed) || fastrand::u8(0..100) >= config.percentage {
            return Ok(Action::Continue);
        }
        self.injected.fetch_add(1, Ordering::Relaxed);
        Ok(Action::stop(
            Reply::new(config.http_status).body(&config.body),
        ))
    }

    async fn execute(&self, context: &mut Context) -> Result<()> {
        match context.label() {
            "status" => {}
            "switch" => {
                let on: bool = context.get("on")?.context("set `on` to true or false")?;
                self.is_off.store(!on, Ordering::Relaxed);
            }
            other => bail!("there is no `{other}`, only `status` and `switch`"),
        }
        context.set("on", &!self.is_off.load(Ordering::Relaxed))?;
        context.set("injected", &self.injected.load(Ordering::Relaxed))?;
        Ok(())
    }

    fn save_state(&self) -> Result<Option<State>> {
        let state = (
            self.is_off.load(Ordering::Relaxed),
            self.injected.load(Ordering::Relaxed),
        );
        State::json(STATE, &state).map(Some)
    }

    fn restore_state(&self, state: &State) -> Result<()> {
        let (is_off, injected): (bool, u64) = state.read(STATE)?;
        self.is_off.fetch_or(is_off, Ordering::Relaxed);
        self.injected.fetch_add(injected, Ordering::Relaxed);
        Ok(())
    }
}

export_plugin!(FaultInjection);

#[cfg(test)]
mod tests;
