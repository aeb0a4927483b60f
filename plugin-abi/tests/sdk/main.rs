//! The SDK from both of its sides at once: plugins as authors write them, called as the host calls
//! them, through the ABI's objects, in one process.

#![allow(clippy::unwrap_used, reason = "a failed test says where it failed")]

mod support;

mod abilities;
mod api;
mod builds;
mod http_client;
mod panics;
mod schemas;
