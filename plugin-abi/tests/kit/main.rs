//! The test kit as an author uses it: what it says became of a request or a response is what a gateway
//! would do. That host and gateway agree is tested in the host (`host/tests/e2e/kit.rs`).

#![allow(clippy::unwrap_used, reason = "a failed test says where it failed")]

mod abilities;
mod asking;
mod executing;
mod failing;
mod messages;
mod metadata;
mod services;
mod time;
