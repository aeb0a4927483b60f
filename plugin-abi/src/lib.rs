//! Write plugins for `plugin-host`: shared libraries that an Apache APISIX gateway runs on its
//! requests and responses, and that are replaced while it runs.
//!
//! A plugin is a type that implements [`Plugin`], exported with [`export_plugin!`]:
//!
//! ```
//! use plugin_abi::prelude::*;
//!
//! /// What a route says about it.
//! #[derive(Deserialize, JsonSchema)]
//! struct Config {
//!     /// The team that every request is marked with.
//!     team: String,
//! }
//!
//! #[derive(Default)]
//! struct MarkTeam;
//!
//! impl Plugin for MarkTeam {
//!     type Config = Config;
//!
//!     async fn request_filter(&self, config: &Config, request: &mut Request) -> Result<Action> {
//!         request.set_header("x-team", &config.team);
//!         Ok(Action::Continue)
//!     }
//! }
//!
//! export_plugin!(MarkTeam);
//! ```
//!
//! Modules in reading order: [`plugin`] (the trait), [`request`], [`response`] and [`action`] (what
//! its methods see and decide), [`execute`] and [`service`] (what is asked for beside them), [`values`] (what plugins leave for one another), [`configuration`],
//! [`state`] (what one generation leaves to the next), [`time`], [`task`], [`http_client`], [`metrics`]
//! and [`logging`] (what the host does for a plugin), [`runtime`] (what a plugin's library may bring),
//! and with the feature `testing` [`testing`] (a gateway for a plugin's tests). Behind them stand
//! [`export`] (the wrapper that keeps panics inside the library),
//! [`abi`] (the binary contract, which no author needs) and [`build_info`] (what a library says
//! about itself before it is loaded).
//!
//! This crate never knows the gateway's wire protocol.

pub mod action;
pub mod ask;
pub mod configuration;
pub mod execute;
pub mod http_client;
pub mod logging;
pub mod metrics;
pub mod plugin;
pub mod request;
pub mod response;
pub mod runtime;
pub mod service;
pub mod state;
pub mod task;
pub mod time;
pub mod values;

#[allow(
    unsafe_code,
    reason = "exporting symbols and pinning a guarded future; each block says why it is sound"
)]
pub mod export;

#[allow(
    unsafe_code,
    non_local_definitions,
    reason = "abi_stable's derives expand to unsafe code; the one hand-written block says why it is sound"
)]
pub mod abi;
pub mod build_info;

mod fields;

#[cfg(any(feature = "testing", doc))]
pub mod testing;

pub use action::{Action, Reply};
pub use anyhow::{Error, Result};
pub use ask::AskError;
pub use configuration::Configuration;
pub use execute::Context;
pub use fields::Values;
pub use http_client::{HttpClient, HttpError, HttpErrorKind};
pub use plugin::{Load, Plugin};
pub use request::Request;
pub use response::Response;
pub use runtime::Runtime;
pub use state::State;
pub use values::{RequestValues, RequestValuesMut, ValueError};

/// Everything that a plugin's source needs: `use plugin_abi::prelude::*;`.
///
/// The derives of [`serde`] and [`schemars`] name their own crates, so a plugin's `Cargo.toml`
/// lists these two beside `plugin-abi`.
pub mod prelude {
    pub use crate::{
        Action, AskError, Configuration, Context, HttpClient, HttpError, HttpErrorKind, Load,
        Plugin, Reply, Request, Response, Runtime, State, export_plugin,
        metrics::{self, Counter, Counters, Gauge, Gauges, Histogram, Histograms},
        task::{self, Task},
        time,
    };
    pub use anyhow::{Context as _, Error, Result, anyhow, bail, ensure};
    pub use http::{HeaderName, Method, StatusCode};
    pub use log;
    pub use schemars::{JsonSchema, Schema, schema_for};
    pub use serde::{Deserialize, Serialize};
}

/// The examples of the guides compile as tests of this crate.
#[cfg(doctest)]
mod guides {
    #[doc = include_str!("../../docs/authoring.md")]
    struct Authoring;

    #[doc = include_str!("../../docs/cookbook.md")]
    struct Cookbook;

    #[doc = include_str!("../../docs/coming-from.md")]
    struct ComingFrom;

    #[doc = include_str!("../../docs/abi.md")]
    struct Abi;
}
