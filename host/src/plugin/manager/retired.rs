//! Generations that serve no new call: dropped when their last call has ended, and counted, since
//! their libraries stay mapped for the rest of the process's life.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::ToSchema;

use super::status::utc;
use crate::plugin::registry::Generation;

/// Time that a retired generation's calls may take to end; one that is in use for longer is
/// counted as stuck, and its `on_unload` is not run.
pub const RETIRE_TIME: Duration = Duration::from_secs(70);

/// Time that `on_unload` may take.
pub const UNLOAD_TIME: Duration = Duration::from_secs(5);

/// How often it is looked whether a generation is still in use.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Counts retired generations.
#[derive(Debug)]
pub(super) struct Retired {
    unloaded: AtomicUsize,
    stuck: AtomicUsize,
    threads: Arc<AtomicUsize>,
    mappings: AtomicUsize,
    mapped_bytes: watch::Sender<u64>,
    /// Those that are still in use, by their numbers.
    in_use: Mutex<BTreeMap<u64, DrainingGeneration>>,
}

/// A generation that serves no new call, and that calls still use.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DrainingGeneration {
    /// The plugin.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Number of the generation.
    pub generation: u64,
    /// Since when it serves no new call, in UTC.
    pub since: String,
}

/// How many generations serve no more, in this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RetiredCounts {
    /// Still in use by calls that began with them.
    pub draining: usize,
    /// Dropped; each keeps a mapping of its library.
    pub unloaded: usize,
    /// In use for longer than any call may take: the plugin keeps what it should give back.
    pub stuck: usize,
    /// Threads of runtimes of their own that did not end with them.
    pub threads: usize,
    /// What the mapped libraries of all of them occupy, and those of versions that were opened and
    /// did not come into service.
    pub mapped_bytes: u64,
}

impl Default for Retired {
    fn default() -> Self {
        Self {
            unloaded: AtomicUsize::new(0),
            stuck: AtomicUsize::new(0),
            threads: Arc::default(),
            mappings: AtomicUsize::new(0),
            mapped_bytes: watch::Sender::new(0),
            in_use: Mutex::default(),
        }
    }
}

impl Retired {
    /// Drops a generation, after its `on_unload`, when nobody else holds it.
    pub(super) fn retire(self: &Arc<Self>, generation: Arc<Generation>) {
        self.stays_mapped(generation.origin().mapped_bytes);
        let retired = Arc::clone(self);
        let number = generation.number();
        let draining = DrainingGeneration {
            name: generation.name().to_string(),
            version: generation.version().to_string(),
            generation: number,
            since: utc(SystemTime::now()),
        };
        retired.in_use.lock().insert(number, draining);
        tokio::spawn(async move {
            let ended = drain(generation).await;
            retired.in_use.lock().remove(&number);
            let count = if ended {
                &retired.unloaded
            } else {
                &retired.stuck
            };
            count.fetch_add(1, Ordering::Relaxed);
        });
    }

    /// Counts a library that stays mapped and does not serve.
    pub(super) fn stays_mapped(&self, bytes: u64) {
        self.mappings.fetch_add(1, Ordering::Relaxed);
        self.mapped_bytes
            .send_modify(|mapped| *mapped = mapped.saturating_add(bytes));
    }

    /// Libraries that stay mapped and do not serve.
    pub(super) fn mappings(&self) -> usize {
        self.mappings.load(Ordering::Relaxed)
    }

    /// Follows what they occupy.
    pub(super) fn mapped_bytes(&self) -> watch::Receiver<u64> {
        self.mapped_bytes.subscribe()
    }

    pub(super) fn more_than(&self, budget: u64) -> impl Future<Output = ()> + Send + use<> {
        let mut mapped_bytes = self.mapped_bytes.subscribe();
        async move {
            let over = mapped_bytes.wait_for(|mapped| *mapped > budget);
            if over.await.is_err() {
                // The manager is gone, and nobody is to be told anything.
                std::future::pending::<()>().await;
            }
        }
    }

    /// For those that will be retired, to count the threads that they leave.
    pub(super) fn threads_left(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.threads)
    }

    pub(super) fn draining(&self) -> Vec<DrainingGeneration> {
        self.in_use.lock().values().cloned().collect()
    }

    pub(super) fn counts(&self) -> RetiredCounts {
        RetiredCounts {
            draining: self.in_use.lock().len(),
            unloaded: self.unloaded.load(Ordering::Relaxed),
            stuck: self.stuck.load(Ordering::Relaxed),
            threads: self.threads.load(Ordering::Relaxed),
            mapped_bytes: *self.mapped_bytes.borrow(),
        }
    }
}

/// Waits until nobody else uses a generation; whether that came to pass.
async fn drain(generation: Arc<Generation>) -> bool {
    let (plugin, version) = (generation.name().clone(), generation.version().clone());
    let began = Instant::now();
    while Arc::strong_count(&generation) > 1 {
        if began.elapsed() > RETIRE_TIME {
            tracing::error!(
                %plugin,
                %version,
                "still in use long after it was retired: its on_unload is not run"
            );
            generation.tasks_ended().await;
            return false;
        }
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
    let unloading = tokio::time::timeout(UNLOAD_TIME, generation.unload()).await;
    if unloading.is_err() {
        tracing::error!(%plugin, %version, "on_unload did not end in time");
    }
    if !generation.tasks_ended().await {
        tracing::error!(%plugin, %version, "a background task does not end: its thread stays");
    }
    drop(generation);
    tracing::info!(%plugin, %version, "plugin unloaded");
    true
}
