//! Runs shared-library plugins for an Apache APISIX gateway and upgrades them in place.

pub mod config;
pub mod listen;
pub mod logging;
pub mod runtime_dir;
