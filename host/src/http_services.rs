//! HTTP services of plugins: requests that come on a listener of the host's own and are executed by the
//! plugin whose route they match.
//!
//! `table`: which request leads to which plugin, made of the registry's snapshot; `answering`: one
//! request to its answer; `connection`: one client, until it goes, or another worker takes it over;
//! `stream`: its bytes. Nothing here owns the listener's address: the supervisor does.

pub mod answering;
pub mod connection;
pub mod stream;
pub mod table;

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{pipeline::execute::Executor, server::access_log::AccessLog, throttle::Throttle};
use table::Table;

/// Bytes of a request's head, at most.
pub const MAX_HEAD_BYTES: usize = 16 << 10;

/// Headers of a request, at most.
pub const MAX_HEADERS: usize = 100;

/// Time for the head of a request, and until the next one on the same connection.
pub const HEAD_TIME: Duration = Duration::from_secs(10);

/// Bounds that operators may set.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Connections at a time.
    pub max_connections: usize,
    /// Bytes of a request's body.
    pub max_body_bytes: u64,
    /// Time of one request, from its head to the end of the answer.
    pub request_time: Duration,
}

/// What all connections share.
#[derive(Debug)]
pub struct Services {
    /// Runs what requests ask for.
    pub executor: Executor,
    /// Which request leads to which plugin; none before that is known.
    pub tables: watch::Receiver<Option<Arc<Table>>>,
    /// Bounds.
    pub bounds: Bounds,
    /// Keeps failures from filling the log.
    pub throttle: Throttle,
    /// Where one is kept.
    pub access_log: Option<AccessLog>,
}
