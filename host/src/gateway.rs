//! A small HTTP gateway for development that speaks the real one's protocol with a host.
//!
//! One worker of the real gateway, on a laptop: routes from its route file, plugins through a
//! running host, requests on to an upstream or the built-in echo. It never loads a plugin, keeps
//! no secret, and is no gateway for production. Where it differs from the real one is in
//! `docs/gateway.md`.
//!
//! Modules in reading order; each uses only those that come after it.

pub mod server;
mod phases;
mod body;
pub mod child;
pub mod event;
mod runner;
mod exchange;
mod echo;
mod upstream;
mod answer;
mod encoding;
pub mod variables;
pub mod routes;
