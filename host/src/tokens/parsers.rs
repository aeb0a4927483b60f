//! Threads on which plugins parse configurations: away from the event loops, and used again.
//!
//! A thread for each configuration would do as well, but for memory: what many short threads have allocated
//! and freed lies scattered, and a hundred thousand configurations held four times as much of it. A plugin
//! that never ends to parse keeps its thread. Nothing here knows a plugin.

use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
};

/// The threads; none until there is something to parse. How many there are at a time is bounded by what each
/// plugin may parse at once, and by the runtime's own bound on threads that block, which is 512.
#[derive(Debug)]
pub(super) struct Parsers {
    /// Runs no task, only its threads that may block. Taken when this is dropped.
    runtime: Option<Runtime>,
}

impl Parsers {
    pub(super) fn new() -> Self {
        let runtime = Builder::new_current_thread()
            .thread_name("configure")
            .build();
        Self {
            runtime: Some(runtime.expect("a runtime without drivers needs nothing of the system")),
        }
    }

    /// Does this on a thread, also where nobody waits for it any more.
    pub(super) fn run<T: Send + 'static>(
        &self,
        parse: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let runtime = self.runtime.as_ref().expect("taken only when dropped");
        runtime.spawn_blocking(parse)
    }
}

impl Drop for Parsers {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Without waiting for a plugin that never ends.
            runtime.shutdown_background();
        }
    }
}
