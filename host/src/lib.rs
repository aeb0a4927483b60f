//! Runs shared-library plugins for an Apache APISIX gateway and upgrades them in place.

pub mod memory;
pub mod pipeline;
pub mod plugin;
pub mod tokens;
