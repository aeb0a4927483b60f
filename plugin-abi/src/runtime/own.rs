//! One tokio runtime per plugin: started before the plugin is constructed, entered around its code,
//! stopped after it was dropped.

use std::{
    cell::Cell,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use tokio::runtime::{Builder, Handle};

use super::Runtime;
use crate::export::host;

/// Threads beside the one for tasks, at most: for `spawn_blocking`, files and names.
const MAX_BLOCKING_THREADS: usize = 16;

/// How long the end of the runtime's threads is waited for; nobody else waits for it.
const STOP_TIME: Duration = Duration::from_secs(1);

/// Bytes of a thread's name, which is what the system shows of it.
const MAX_THREAD_NAME: usize = 15;

thread_local! {
    static OF_RUNTIME: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread belongs to a runtime of this library.
pub(crate) fn is_own_thread() -> bool {
    OF_RUNTIME.try_with(Cell::get).unwrap_or(false)
}

/// The runtime of one plugin, if it wants one. It ends after this is dropped.
pub(crate) struct Kept(Option<Own>);

struct Own {
    runtime: tokio::runtime::Runtime,
    /// Those that live.
    threads: Arc<AtomicUsize>,
}

/// What a plugin's code runs in.
#[derive(Clone)]
pub(crate) struct Context(Option<Handle>);

impl Kept {
    pub(crate) fn start(runtime: Runtime, plugin: &str) -> anyhow::Result<Self> {
        if runtime == Runtime::Host {
            return Ok(Self(None));
        }
        let threads = Arc::new(AtomicUsize::new(0));
        let (starting, stopping) = (Arc::clone(&threads), Arc::clone(&threads));
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(MAX_BLOCKING_THREADS)
            .thread_name(thread_name(plugin))
            .on_thread_start(move || {
                starting.fetch_add(1, Ordering::Relaxed);
                let _ = OF_RUNTIME.try_with(|own| own.set(true));
            })
            .on_thread_stop(move || {
                stopping.fetch_sub(1, Ordering::Relaxed);
            })
            .enable_all()
            .build()
            .context("its tokio runtime cannot start")?;
        Ok(Self(Some(Own { runtime, threads })))
    }

    pub(crate) fn context(&self) -> Context {
        Context(self.0.as_ref().map(|own| own.runtime.handle().clone()))
    }
}

impl Context {
    /// What the code that calls this runs in.
    pub(crate) fn of_caller() -> Self {
        Self(Handle::try_current().ok())
    }

    pub(crate) fn run<R>(&self, code: impl FnOnce() -> R) -> R {
        let _entered = self.0.as_ref().map(Handle::enter);
        code()
    }
}

fn thread_name(plugin: &str) -> String {
    let mut name = format!("rt-{plugin}");
    // Names of plugins are ASCII.
    name.truncate(MAX_THREAD_NAME);
    name
}

impl Drop for Kept {
    fn drop(&mut self) {
        let Some(own) = self.0.take() else { return };
        // Whoever drops the plugin may be an event loop, which waits for nobody.
        let stopping = Arc::new(Mutex::new(Some(own)));
        let to_stop = Arc::clone(&stopping);
        let started = thread::Builder::new()
            .name("rt-stop".to_owned())
            .spawn(move || {
                if let Some(own) = take(&to_stop) {
                    own.stop();
                }
            });
        if started.is_err()
            && let Some(own) = take(&stopping)
        {
            own.runtime.shutdown_background();
        }
    }
}

fn take(own: &Mutex<Option<Own>>) -> Option<Own> {
    own.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl Own {
    /// Ends the runtime: tasks at the `.await` they stand at, threads when they are free.
    fn stop(self) {
        self.runtime.shutdown_timeout(STOP_TIME);
        let left = self.threads.load(Ordering::Relaxed);
        if left > 0
            && let Some(host) = host()
        {
            host.threads_left(left);
        }
    }
}
