//! Runs shared-library plugins for an Apache APISIX gateway and upgrades them in place.
//!
//! Modules in reading order; each uses only those that come after it. `docs/architecture.md` tells
//! how a request flows through them, and what they never do.

pub mod cli;
pub mod config;
pub mod lifecycle;
pub mod listen;
pub mod client;
pub mod logging;
pub mod runtime_dir;
pub mod server;
pub mod throttle;
pub mod tokens;
pub mod worker;

pub mod pipeline;
pub mod plugin;

pub mod memory;
