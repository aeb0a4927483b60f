//! The event loop of executions, beside those of the gateway's connections: what an operator or an
//! HTTP client asks of a plugin holds up no call of the gateway's, and the watchdog looks at it as at
//! the others.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use tokio::{
    runtime::Builder,
    sync::{mpsc, watch},
};

use crate::{
    pipeline::execute::Executor,
    server::{Shared, Shutdown},
    shared_memory::threads,
};

/// How many event loops there are for executions.
pub(super) const LOOPS: usize = 1;

/// How often it is looked whether the last execution has ended.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// Starts the loop; it holds `running` until, after the worker was told to end, the last execution has.
///
/// # Errors
/// There is no thread, or no runtime, for it.
pub(super) fn start(
    shared: &Arc<Shared>,
    mut shutdown: watch::Receiver<Shutdown>,
    running: mpsc::Sender<()>,
) -> io::Result<Executor> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let executor = Executor::new(shared.pipeline.clone(), runtime.handle().clone());
    let open = executor.open();
    thread::Builder::new()
        .name("executions".to_owned())
        .spawn(move || {
            threads::is_a_loop();
            runtime.block_on(async {
                let stop =
                    |state: &Shutdown| matches!(state, Shutdown::Drain | Shutdown::HandedOver);
                // An error means that nobody can ask for a stop any more, which is one.
                let _ = shutdown.wait_for(stop).await;
                while open.load(Ordering::Acquire) > 0 {
                    tokio::time::sleep(LOOK_AGAIN_AFTER).await;
                }
            });
            drop(running);
        })?;
    Ok(executor)
}
