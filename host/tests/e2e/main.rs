//! The real `plugin-host` with really built plugins, driven over real sockets by a client that plays
//! the gateway.
//!
//! One binary, one module per story; `support` has what they share. Each test starts a host of its
//! own in a directory of its own. Nothing here knows the inside of the host, but
//! for `embedding`, which uses its plugin manager as other programs may.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

// The protocol crate's tests have these two: the recordings, and a language for expectations.
#[allow(dead_code, reason = "only a part of it is used here")]
#[path = "../../../proto/tests/proto/capture.rs"]
mod capture;
#[allow(dead_code, reason = "only a part of it is used here")]
#[path = "../../../proto/tests/proto/message.rs"]
mod message;

mod access_log;
mod bad_upgrades;
mod bounds;
mod call_command;
mod chains;
mod check_command;
mod compatibility;
mod configurations;
mod connections;
mod console;
mod control_actions;
mod control_commands;
mod control_description;
mod control_network;
mod control_socket;
mod control_try;
mod counts;
mod deadlines;
mod deadly_misdeeds;
mod declared_state;
mod deployment;
mod dev_command;
mod doctor_command;
mod does_not_load;
mod embedding;
mod errors;
mod executing;
mod extra_info;
mod failures;
mod fetching;
mod five_plugins;
mod gateway_bounds;
mod gateway_command;
mod gateway_effects;
mod gateway_recordings;
mod gateway_routes;
mod git_over_https;
mod health;
mod host_metrics;
mod hooks;
mod http_client;
mod http_client_bounds;
mod http_services;
mod http_services_changing;
mod http_services_shown;
mod installs;
mod kept;
mod kept_by_workers;
mod kit;
mod lifecycle;
mod loading;
mod log_control;
mod logs;
mod memory;
mod misdeeds;
mod new_command;
mod plugin_metrics;
mod packages;
mod privileges;
mod redis_session;
mod registries;
mod registry_access;
mod replacing_files;
mod replay;
mod request_effects;
mod response_effects;
mod schemas;
mod signatures;
mod soak;
mod stalls;
mod states;
mod tasks;
mod tokio_inside;
mod tutorial;
mod upgrades;
mod upgrades_under_load;
mod values;
mod workers;
