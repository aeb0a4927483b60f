//! Runs shared-library plugins for an Apache APISIX gateway and upgrades them in place.

pub mod config;
