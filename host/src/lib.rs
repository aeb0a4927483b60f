//! Runs shared-library plugins for an Apache APISIX gateway and upgrades them in place.
//!
//! Modules in reading order; each uses only those that come after it. Two stand elsewhere in it
//! than here: `plugin::check` and `plugin::manager` are read after `keeper`.
//! `docs/architecture.md` tells how a request flows through them, and what they never do.

pub mod cli;
pub mod gateway;
pub mod lifecycle;
pub mod supervisor;
pub mod worker;
pub mod control;
pub mod keeper;
pub mod watchdog;
pub mod listen;
pub mod logging;
pub mod config;
pub mod runtime_dir;
pub mod link;
pub mod client;
pub mod http_services;
pub mod server;
pub mod throttle;
pub mod tokens;
pub mod pipeline;
pub mod install;
pub mod sources;
pub mod plugin;
pub mod http_client;
pub mod metrics;
pub mod current_call;
pub mod memory;
pub mod crash;
pub mod shared_memory;
pub mod privileges;
