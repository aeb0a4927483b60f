//! What the tests share: a running host, and a client that plays the gateway's side.

pub(crate) mod asking;
pub(crate) mod browser;
pub(crate) mod builds;
pub(crate) mod bystanders;
pub(crate) mod crates;
mod gateway;
pub(crate) mod guarded;
mod host;
pub(crate) mod http;
mod libraries;
pub(crate) mod packages;
mod program;
pub(crate) mod registry;
pub(crate) mod repository;
pub(crate) mod resident;
pub(crate) mod runner;
pub(crate) mod service;
pub(crate) mod service_client;
pub(crate) mod serving;
pub(crate) mod tokens;
pub(crate) mod upstream;
pub(crate) mod versions;
pub(crate) mod web;
pub(crate) mod workers;

pub(crate) use gateway::{Answer, Call, Gateway, frame, get, request, response};
pub(crate) use host::{Builder, Host, PATIENCE, install_with, is_alive, send, wait_for};
pub(crate) use program::{Ended, PluginDir, plugin_host, with_environment};
