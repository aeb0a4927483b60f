//! The control interface: HTTP with JSON, for operators, scripts, probes and the console.
//!
//! What a request means is decided in two places: `worker` answers for plugins and routes, in the
//! process that runs them; [`crate::supervisor::api`] answers for everything else and passes on what
//! is the worker's. Here is what both share: who asks and whether they may (`access`, `caller`), how
//! requests come in (`listener`, `extract`), how they are refused (`problem`), and the client's side
//! (`client`). `console` is the page for browsers. Nothing of a call is ever touched; a `trial` makes
//! calls of its own, and `execute` has a plugin do something beside them.
//!
//! `docs/control-api.md` tells of every resource; the host serves an OpenAPI description of them,
//! which a test compares with what it really answers.

pub mod access;
pub mod caller;
pub mod client;
pub mod console;
pub mod execute;
pub mod extract;
pub mod listener;
pub mod problem;
pub mod routes;
pub mod trial;
pub mod worker;

use std::path::{Path, PathBuf};

/// Name of the socket in the runtime directory of a listen address.
pub const SOCKET_NAME: &str = "control.sock";

/// Permissions of the socket: its owner alone.
pub const SOCKET_MODE: u32 = 0o600;

/// Connections that may wait to be accepted.
pub const BACKLOG: u32 = 16;

/// Where the control socket of a host lies.
pub fn socket_path(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join(SOCKET_NAME)
}
