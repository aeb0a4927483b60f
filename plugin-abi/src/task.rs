//! Work beside the calls: background tasks, which the host polls and ends.
//!
//! Every plugin that spawns something has one thread for all its tasks, apart from those that serve
//! calls: a task may wait as long as it likes, and one that blocks or computes holds up the other
//! tasks of its own plugin and nothing else.
//!
//! A task ends by itself, when it is [cancelled](Task::cancel), or with its plugin. The order there:
//! the last call ends; `on_unload` runs, while the tasks still do, so that it can tell them to finish
//! and wait for them; then those that are left are dropped, each at the `.await` it stands at; then
//! the plugin is. Where the whole process ends, tasks are not waited for. While one version or worker
//! takes over from another, the tasks of both run.
//!
//! ```
//! use plugin_abi::prelude::*;
//! use std::{sync::{Arc, Mutex}, time::Duration};
//!
//! #[derive(Default)]
//! struct Blocklist {
//!     addresses: Arc<Mutex<Vec<String>>>,
//! }
//!
//! impl Plugin for Blocklist {
//!     type Config = ();
//!
//!     async fn on_load(&mut self, _: &Load) -> Result<()> {
//!         let addresses = Arc::clone(&self.addresses);
//!         task::spawn(async move {
//!             let mut interval = time::interval(Duration::from_secs(30));
//!             loop {
//!                 interval.tick().await;
//!                 match std::fs::read_to_string("/etc/blocklist") {
//!                     Ok(text) => {
//!                         let lines = text.lines().map(str::to_owned).collect();
//!                         *addresses.lock().unwrap_or_else(|error| error.into_inner()) = lines;
//!                     }
//!                     Err(error) => log::warn!("the list stays as it is: {error}"),
//!                 }
//!             }
//!         })?;
//!         Ok(())
//!     }
//! }
//!
//! export_plugin!(Blocklist);
//! ```

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

use crate::{
    abi::SpawnStatus,
    export::{self, host, task_of},
};

/// Why a task was not spawned; its future was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpawnError {
    /// The plugin has as many tasks as the host allows: 1,024.
    TooMany,
    /// The plugin is being unloaded.
    Unloading,
    /// The system has no thread left for the plugin's tasks.
    NoThread,
    /// This is no plugin that `plugin-host` has loaded.
    NoHost,
    /// The host gave a reason that this version of `plugin-abi` does not know.
    Other(u8),
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => f.write_str("the plugin has too many background tasks"),
            Self::Unloading => f.write_str("the plugin is being unloaded"),
            Self::NoThread => f.write_str("there is no thread for background tasks"),
            Self::NoHost => f.write_str("only a plugin that plugin-host has loaded has tasks"),
            Self::Other(code) => write!(f, "the host refused the task with code {code}"),
        }
    }
}

impl std::error::Error for SpawnError {}

/// Has the host poll a future beside the calls, from now on: see the [module](self).
///
/// A panic in it ends the task and is logged. What it logs names the plugin and its version, and no
/// request.
///
/// # Errors
/// See [`SpawnError`].
pub fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Result<Task, SpawnError> {
    export::needs_tasks();
    let host = host().ok_or(SpawnError::NoHost)?;
    let life = Arc::new(Life::default());
    match host.spawn(task_of(run(future, Arc::clone(&life)))) {
        SpawnStatus::SPAWNED => Ok(Task(life)),
        SpawnStatus::TOO_MANY => Err(SpawnError::TooMany),
        SpawnStatus::UNLOADING => Err(SpawnError::Unloading),
        SpawnStatus::NO_THREAD => Err(SpawnError::NoThread),
        SpawnStatus(code) => Err(SpawnError::Other(code)),
    }
}

/// A background task. Dropping this lets the task go on.
#[derive(Debug, Clone)]
pub struct Task(Arc<Life>);

impl Task {
    /// Ends the task: its future is dropped at the `.await` it stands at.
    ///
    /// ```
    /// # use plugin_abi::prelude::*;
    /// async fn end(task: &Task) {
    ///     task.cancel();
    ///     task.finished().await;
    /// }
    /// ```
    pub fn cancel(&self) {
        let runner = {
            let mut state = self.0.lock();
            state.is_cancelled = true;
            state.runner.take()
        };
        if let Some(runner) = runner {
            runner.wake();
        }
    }

    /// Whether it has ended, in whatever way, and its future is dropped.
    pub fn is_finished(&self) -> bool {
        self.0.lock().is_finished
    }

    /// Waits until it has ended, in whatever way, and its future is dropped.
    pub async fn finished(&self) {
        poll_fn(|context| {
            let mut state = self.0.lock();
            if state.is_finished {
                return Poll::Ready(());
            }
            let waiting = &mut state.waiting;
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

/// What a task and those who hold it know of each other.
#[derive(Debug, Default)]
struct Life(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    is_cancelled: bool,
    is_finished: bool,
    /// Polls the task.
    runner: Option<Waker>,
    /// Wait for its end.
    waiting: Vec<Waker>,
}

impl Life {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing of an author's runs while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells of the task's end when it is dropped: after the author's future.
struct Ends(Arc<Life>);

impl Drop for Ends {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.0.lock();
            state.is_finished = true;
            state.runner = None;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

async fn run(future: impl Future<Output = ()>, life: Arc<Life>) {
    let ends = Ends(life);
    let mut future = pin!(future);
    poll_fn(|context| {
        {
            let mut state = ends.0.lock();
            if state.is_cancelled {
                return Poll::Ready(());
            }
            state.runner = Some(context.waker().clone());
        }
        future.as_mut().poll(context)
    })
    .await;
}
