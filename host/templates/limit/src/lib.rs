//! Lets each client make so many requests in a window of time, and refuses the rest.
//!
//! Clients are told apart by a header (an API key) or by their address. Each route counts for
//! itself, in this process: gateways that run a host each count each for itself.

#![forbid(unsafe_code)]

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use plugin_abi::prelude::*;

/// Clients that are counted at the same time, at most: whoever invents new ones must not fill the
/// memory.
const MAX_CLIENTS: usize = 100_000;

/// What a route says about it.
#[derive(Deserialize, JsonSchema)]
struct Options {
    /// Requests of one client in one window.
    #[schemars(range(min = 1))]
    requests: u32,
    /// Length of the window in seconds.
    #[serde(default = "a_minute")]
    #[schemars(range(min = 1))]
    seconds: u64,
    /// Header that names the client; without one, its address does.
    header: Option<String>,
}

fn a_minute() -> u64 {
    60
}

/// A route's limit, and what each client has used of it.
struct Limit {
    options: Options,
    used: Mutex<HashMap<Vec<u8>, Window>>,
}

/// The window that a client is in.
struct Window {
    ends: Instant,
    requests: u32,
}

impl Configuration for Limit {
    fn parse(raw: &[u8]) -> Result<Self> {
        let options = Options::parse(raw)?;
        ensure!(options.requests > 0, "requests is 0: nobody could call");
        ensure!(options.seconds > 0, "seconds is 0: a window takes time");
        Ok(Self {
            options,
            used: Mutex::default(),
        })
    }

    fn schema() -> Option<Schema> {
        Some(schema_for!(Options))
    }
}

impl Limit {
    /// Counts a request; says how long the client has to wait where it has made too many.
    fn count(&self, client: &[u8]) -> Option<Duration> {
        let now = time::now();
        // Nothing panics while it is held, and no lock is held over an `.await`.
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= MAX_CLIENTS && !used.contains_key(client) {
            used.retain(|_, window| window.ends > now);
            if used.len() >= MAX_CLIENTS {
                // Better to let somebody through than to keep everybody out.
                return None;
            }
        }
        let length = Duration::from_secs(self.options.seconds);
        let window = used.entry(client.to_vec()).or_insert(Window {
            ends: now + length,
            requests: 0,
        });
        if window.ends <= now {
            window.ends = now + length;
            window.requests = 0;
        }
        if window.requests == self.options.requests {
            return Some(window.ends - now);
        }
        window.requests += 1;
        None
    }
}

#[derive(Default)]
struct MyPlugin;

impl Plugin for MyPlugin {
    type Config = Limit;

    async fn request_filter(&self, limit: &Limit, request: &mut Request) -> Result<Action> {
        let client = match &limit.options.header {
            Some(header) => request.header(header).unwrap_or_default().to_vec(),
            None => format!("{:?}", request.client_ip()).into_bytes(),
        };
        match limit.count(&client) {
            None => Ok(Action::Continue),
            Some(wait) => {
                let seconds = wait.as_secs_f64().ceil();
                let reply = Reply::from(StatusCode::TOO_MANY_REQUESTS)
                    .header("Retry-After", seconds.to_string())
                    .body("Too many requests.\n");
                Ok(Action::stop(reply))
            }
        }
    }
}

export_plugin!(MyPlugin);

#[cfg(test)]
mod tests;
