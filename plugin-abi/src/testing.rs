//! A gateway for a plugin's own tests: requests and responses as values, no socket, no library, no
//! host, and time that passes when a test says so.
//!
//! Switched on by the feature `testing`, as a dev-dependency:
//!
//! ```toml
//! [dev-dependencies]
//! plugin-abi = { version = "1", features = ["testing"] }
//! ```
//!
//! ```
//! use plugin_abi::prelude::*;
//! use plugin_abi::testing::{Gateway, get, json};
//!
//! /// What a route says about it.
//! #[derive(Deserialize)]
//! struct Config {
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
//!         if request.path() == b"/secret" {
//!             return Ok(Action::stop(Reply::new(403).body("not for you")));
//!         }
//!         request.set_header("x-team", &config.team);
//!         Ok(Action::Continue)
//!     }
//! }
//!
//! let gateway = Gateway::new();
//! let route = gateway.load::<MarkTeam>().route(json!({ "team": "blue" }));
//!
//! // What goes upstream ...
//! let outcome = route.request(get("/orders?id=7").header("x-user", "ada"));
//! assert_eq!(outcome.upstream().header("x-team"), Some("blue"));
//! assert_eq!(outcome.upstream().uri(), "/orders?id=7");
//!
//! // ... or what the client gets.
//! let outcome = route.request(get("/secret"));
//! assert_eq!(outcome.client().status(), 403);
//! assert_eq!(outcome.client().text(), "not for you");
//! ```
//!
//! A message is what it is at one of four places: [`ClientRequest`] -> plugins ->
//! [`UpstreamRequest`], and [`UpstreamResponse`] -> plugins -> [`ClientResponse`]. Between the first
//! and the second of a pair stands what a host and the gateway do with a plugin's changes: a body that cannot
//! be emptied, headers that cannot be set, a status that cannot be delivered. The plugin is called
//! through the same code as in its library, panics included. That all of it is as a real host and
//! the development gateway do it is tested in the host.
//!
//! What it does not have: the checks of `plugin.json` and of its schemas, limits of memory, threads
//! (a plugin that blocks, blocks its test). [`RealHost`] is for those: it starts the real program
//! with the built library.

mod answers;
mod call;
mod client_request;
mod encoding;
mod execution;
mod fields;
mod gateway;
mod http;
mod loading;
mod metadata;
mod outcome;
mod real_host;
mod response;
mod route;
mod rules;
mod run;
mod service;
mod upstream_request;
mod values;
mod world;

#[doc(inline)]
pub use crate::check_plugin_json;
pub use client_request::{ClientRequest, delete, get, post, put, request};
pub use execution::{Executed, Execution, execution};
pub use gateway::{Gateway, Loaded};
pub use loading::Loading;
pub use outcome::{Asked, Failed, Outcome};
pub use real_host::{Builder, RealHost};
pub use response::{ClientResponse, UpstreamResponse, response};
pub use route::Route;
pub use serde_json::{Value, json};
pub use service::Service;
pub use upstream_request::UpstreamRequest;
pub use world::Logged;

#[doc(hidden)]
pub use metadata::compare_plugin_json;

pub(crate) use world::now;
