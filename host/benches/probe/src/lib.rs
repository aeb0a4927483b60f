//! The plugin that benchmarks run: what a small real one does with a request, and what a route adds to it.

#![forbid(unsafe_code)]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use plugin_abi::prelude::*;

/// What a route says.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Value of the header that is set; none sets no header.
    header: Option<String>,
    /// Asks the gateway for the body, and looks at its ends.
    body: bool,
    /// Computes for so many microseconds.
    compute_us: u64,
}

#[derive(Default)]
struct Probe;

impl Plugin for Probe {
    type Config = Config;

    async fn request_filter(&self, config: &Config, request: &mut Request) -> Result<Action> {
        for name in ["host", "user-agent", "cookie"] {
            black_box(request.header(name));
        }
        if config.body {
            black_box(ends(request.body().await?.unwrap_or_default()));
        }
        compute(config);
        if let Some(value) = &config.header {
            request.set_header("x-probe", value);
        }
        Ok(Action::Continue)
    }

    async fn response_filter(&self, config: &Config, response: &mut Response) -> Result<()> {
        if config.body {
            black_box(ends(response.body().await?.unwrap_or_default()));
        }
        compute(config);
        if let Some(value) = &config.header {
            response.set_header("x-probe", value);
        }
        Ok(())
    }
}

/// The ends only: reading all of a body would measure this plugin.
fn ends(body: &[u8]) -> Option<(u8, u8)> {
    Some((*body.first()?, *body.last()?))
}

fn compute(config: &Config) {
    if config.compute_us > 0 {
        let until = Instant::now() + Duration::from_micros(config.compute_us);
        while Instant::now() < until {
            black_box(());
        }
    }
}

export_plugin!(Probe);
