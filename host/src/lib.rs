//! Runs shared-library plugins for an Apache APISIX gateway and upgrades them in place.

pub mod cli;
pub mod config;
pub mod lifecycle;
pub mod listen;
pub mod logging;
pub mod runtime_dir;
pub mod worker;
