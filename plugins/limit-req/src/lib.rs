//! Lets so many requests per second of a route through, delays a few more, and refuses the rest.
//!
//! Every route configuration has a bucket of its own (`bucket.rs`), in this process: gateways that
//! run a host each count each for itself. An upgrade of the plugin, and another worker process, take
//! the bucket over.

#![forbid(unsafe_code)]

mod bucket;

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use plugin_abi::prelude::*;

use crate::bucket::Bucket;

/// What a route says about its limit.
#[derive(Deserialize, JsonSchema)]
struct Options {
    /// Requests per second, fractions included. They pass evenly spaced.
    #[schemars(extend("exclusiveMinimum" = 0))]
    rate: f64,
    /// How many requests above the rate may wait for their turn at the same time.
    #[serde(default)]
    burst: u32,
    /// The status that a refused request gets.
    #[serde(default = "service_unavailable")]
    #[schemars(range(min = 200, max = 599))]
    rejected_code: u16,
}

fn service_unavailable() -> u16 {
    503
}

/// A route's limit and what it has let through so far.
struct Limiter {
    bucket: Mutex<Bucket>,
    /// Where the bucket's clock began.
    since: Instant,
    rejected_code: u16,
}

impl Configuration for Limiter {
    fn parse(raw: &[u8]) -> Result<Self> {
        let options = Options::parse(raw)?;
        ensure!(
            options.rate.is_finite() && options.rate > 0.0,
            "rate is {}: it must be more than 0 requests per second",
            options.rate
        );
        ensure!(
            (200..=599).contains(&options.rejected_code),
            "rejected_code is {}: the gateway can deliver 200 to 599",
            options.rejected_code
        );
        Ok(Self {
            bucket: Mutex::new(Bucket::new(options.rate, options.burst)),
            since: time::now(),
            rejected_code: options.rejected_code,
        })
    }

    fn schema() -> Option<Schema> {
        Some(schema_for!(Options))
    }
}

impl Limiter {
    /// How long a request that comes now has to wait; none where it is refused.
    fn take(&self, patience: Duration) -> Option<Duration> {
        // Nothing panics while the lock is held; if it ever did, the bucket would still be whole.
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.take(time::now() - self.since, patience)
    }
}

/// What a limiter leaves to the one that takes its place.
#[derive(Serialize, Deserialize)]
struct Left {
    /// Nanoseconds until the next token falls that nobody has taken.
    pending: u64,
}

impl Left {
    /// Number of this format.
    const FORMAT: u32 = 1;
}

impl Limiter {
    fn leave(&self) -> Left {
        let bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let pending = bucket.pending(self.since.elapsed()).as_nanos();
        Left {
            pending: u64::try_from(pending).unwrap_or(u64::MAX),
        }
    }

    /// Requests may have been let through here already: those before them come on top.
    fn inherit(&self, left: &Left) {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.put_off(self.since.elapsed(), Duration::from_nanos(left.pending));
    }
}

#[derive(Default)]
struct LimitReq;

impl Plugin for LimitReq {
    type Config = Limiter;

    async fn request_filter(&self, limiter: &Limiter, request: &mut Request) -> Result<Action> {
        match limiter.take(request.time_left()) {
            Some(Duration::ZERO) => Ok(Action::Continue),
            Some(wait) => {
                time::sleep(wait).await;
                Ok(Action::Continue)
            }
            None => Ok(Action::stop(Reply::new(limiter.rejected_code))),
        }
    }

    fn save_config_state(&self, limiter: &Limiter) -> Result<Option<State>> {
        State::json(Left::FORMAT, &limiter.leave()).map(Some)
    }

    fn restore_config_state(&self, limiter: &Limiter, state: &State) -> Result<()> {
        limiter.inherit(&state.read(Left::FORMAT)?);
        Ok(())
    }
}

export_plugin!(LimitReq);

#[cfg(test)]
mod tests;
