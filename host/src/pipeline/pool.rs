//! The pool: a bounded number of threads on which plugins may block, and who has kept one past its
//! time.
//!
//! A thread belongs to a call until the plugin has really returned, however long ago the call was
//! answered for. Who finds no free thread waits for one no longer than for the plugin itself. It
//! never ends a thread: nobody can.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::{Either, select};
use parking_lot::Mutex;
use plugin_abi::abi::Failure;
use serde::{Deserialize, Serialize};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::JoinHandle,
    time::Instant,
};
use utoipa::ToSchema;

/// Threads for plugins that block.
#[derive(Debug, Clone)]
pub struct Pool {
    runtime: Handle,
    places: Arc<Semaphore>,
    turns: Arc<Turns>,
}

/// How the threads of a pool are used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolUse {
    /// Threads that it may have.
    pub threads: usize,
    /// Threads with a call on them.
    pub running: usize,
    /// Of these, the ones that are inside a plugin past their call's deadline.
    pub stuck: usize,
    /// Who keeps them: name and version, with the number of threads.
    pub stuck_in: BTreeMap<String, usize>,
}

#[derive(Debug)]
struct Turns {
    threads: usize,
    of: Mutex<BTreeMap<u64, Turn>>,
}

/// One call on a thread.
#[derive(Debug)]
struct Turn {
    /// Name and version of the plugin.
    plugin: String,
    deadline: Instant,
}

/// A free thread, reserved for the one who holds this.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pool: &'a Pool,
    permit: OwnedSemaphorePermit,
}

/// Gives a thread back, and forgets its turn, when the plugin has returned.
struct TurnEnds {
    turns: Arc<Turns>,
    number: u64,
    _permit: OwnedSemaphorePermit,
}

impl Drop for TurnEnds {
    fn drop(&mut self) {
        self.turns.of.lock().remove(&self.number);
    }
}

impl Pool {
    /// A pool of so many threads, which the runtime starts as they are needed. What else the
    /// runtime's blocking threads have to do needs threads beside these.
    pub fn new(runtime: Handle, threads: usize) -> Self {
        Self {
            runtime,
            places: Arc::new(Semaphore::new(threads)),
            turns: Arc::new(Turns {
                threads,
                of: Mutex::default(),
            }),
        }
    }

    /// How its threads are used now.
    pub fn in_use(&self) -> PoolUse {
        let now = Instant::now();
        let turns = self.turns.of.lock();
        let mut stuck_in = BTreeMap::new();
        for turn in turns.values().filter(|turn| turn.deadline < now) {
            *stuck_in.entry(turn.plugin.clone()).or_default() += 1;
        }
        PoolUse {
            threads: self.turns.threads,
            running: turns.len(),
            stuck: stuck_in.values().sum(),
            stuck_in,
        }
    }

    /// Waits for a free thread; none where the deadline comes first.
    pub(super) async fn place(&self, deadline: Instant) -> Option<Place<'_>> {
        let permit = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let free = Arc::clone(&self.places).acquire_owned();
                tokio::time::timeout_at(deadline, free).await.ok()?.ok()?
            }
        };
        Some(Place { pool: self, permit })
    }
}

impl Place<'_> {
    /// Runs a plugin's part of a call on the thread. What it returns can be dropped at any time: the
    /// plugin's future is then dropped on its thread, as soon as that is not inside of it.
    pub(super) fn run<F>(
        self,
        plugin: String,
        deadline: Instant,
        begin: impl FnOnce() -> F + Send + 'static,
    ) -> OnPool<F::Output>
    where
        F: Future<Output: Send + 'static>,
    {
        let turn = self.pool.turns.begin(plugin, deadline, self.permit);
        let (wanted, unwanted) = oneshot::channel::<()>();
        let running = self.pool.runtime.spawn_blocking(move || {
            // Dropped last, also where nobody wanted the call any more before it began.
            let _turn = turn;
            Handle::current().block_on(async {
                match select(pin!(begin()), unwanted).await {
                    Either::Left((outcome, _)) => Some(outcome),
                    // It is dropped here, on its thread.
                    Either::Right(_) => None,
                }
            })
        });
        OnPool {
            running,
            _wanted: wanted,
        }
    }
}

impl Turns {
    fn begin(
        self: &Arc<Self>,
        plugin: String,
        deadline: Instant,
        permit: OwnedSemaphorePermit,
    ) -> TurnEnds {
        let mut turns = self.of.lock();
        // Above all that last, so that no two of them have the same.
        let number = turns.last_key_value().map_or(0, |(last, _)| last + 1);
        turns.insert(number, Turn { plugin, deadline });
        TurnEnds {
            turns: Arc::clone(self),
            number,
            _permit: permit,
        }
    }
}

/// What comes of a plugin that runs on the pool.
pub(super) struct OnPool<T> {
    running: JoinHandle<Option<T>>,
    /// Dropped with the rest: the thread hears of it.
    _wanted: oneshot::Sender<()>,
}

impl<T> Future for OnPool<T> {
    type Output = Result<T, Failure>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.running).poll(context).map(|joined| {
            // Panics are caught inside the library, and nobody has given the call up who waits for
            // it, so this is a pool that is being shut down.
            Err(match joined {
                Ok(Some(outcome)) => return Ok(outcome),
                Ok(None) => Failure {
                    panicked: false,
                    message: "its call was given up".into(),
                },
                Err(error) => Failure {
                    panicked: error.is_panic(),
                    message: error.to_string().into(),
                },
            })
        })
    }
}

impl<T> Drop for OnPool<T> {
    fn drop(&mut self) {
        // Keeps a plugin whose turn has not come from running for nobody.
        self.running.abort();
    }
}
