//! The background tasks of one generation: one thread polls them, apart from those that serve calls.
//!
//! The thread is there from the first task on, and ends with the generation; the futures that are
//! left are dropped on it. A task that blocks holds up the other tasks of its own plugin. Nothing
//! here knows what a task does, and panics are caught inside the library.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use plugin_abi::abi::{FfiFuture, SpawnStatus};
use tokio::{
    runtime::Builder,
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::shared_memory::{held::HeldFuture, threads::Activity};

/// Tasks of one generation at the same time.
pub const MAX_TASKS: usize = 1_024;

/// Time that tasks have to come to an `.await` at the end of their generation, where they are dropped.
pub const ENDING_TIME: Duration = Duration::from_secs(5);

/// The tasks of one generation. Clones are the same tasks.
#[derive(Debug, Clone)]
pub struct Tasks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The generation's number.
    plugin: u64,
    running: Arc<AtomicUsize>,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// There has been no task yet.
    Unused,
    /// The thread polls what comes. It ends when the sender is gone, and says so.
    Running {
        tasks: mpsc::UnboundedSender<Counted>,
        ended: watch::Receiver<bool>,
    },
    /// No task begins any more.
    Ended {
        /// Whether the thread is gone; none where there was none.
        ended: Option<watch::Receiver<bool>>,
    },
}

/// A task that counts as long as it is there.
struct Counted {
    task: HeldFuture<FfiFuture<()>>,
    place: Place,
}

/// One of the places for tasks.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Tasks {
    /// No tasks yet, of the generation of this number.
    pub fn new(plugin: u64) -> Self {
        Self(Arc::new(Inner {
            plugin,
            running: Arc::default(),
            state: Mutex::new(State::Unused),
        }))
    }

    /// Polls a future from now on, until it or the generation ends.
    pub fn spawn(&self, task: FfiFuture<()>) -> SpawnStatus {
        // From here on, dropping it says whose code that is.
        let task = HeldFuture::new(task, self.0.plugin, Activity::Task);
        let Some(place) = self.place() else {
            return SpawnStatus::TOO_MANY;
        };
        let thread = match self.thread() {
            Ok(thread) => thread,
            Err(status) => return status,
        };
        // Outside of the lock, since a task that is dropped may spawn another one. The thread ends
        // before its sender only where a task has ended it.
        match thread.send(Counted { task, place }) {
            Ok(()) => SpawnStatus::SPAWNED,
            Err(_) => SpawnStatus::NO_THREAD,
        }
    }

    /// The way to the thread, which begins here.
    fn thread(&self) -> Result<mpsc::UnboundedSender<Counted>, SpawnStatus> {
        let mut state = self.0.state.lock();
        if matches!(*state, State::Unused) {
            *state = start().ok_or(SpawnStatus::NO_THREAD)?;
        }
        match &*state {
            State::Running { tasks, .. } => Ok(tasks.clone()),
            State::Unused | State::Ended { .. } => Err(SpawnStatus::UNLOADING),
        }
    }

    fn place(&self) -> Option<Place> {
        let running = &self.0.running;
        let one_more = |count: usize| (count < MAX_TASKS).then_some(count + 1);
        running
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more)
            .ok()?;
        Some(Place(Arc::clone(running)))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.running.load(Ordering::Acquire)
    }

    /// Has every task that is left dropped, and lets none begin any more. Does not wait.
    pub fn end(&self) {
        let mut state = self.0.state.lock();
        let ended = match &mut *state {
            State::Unused => None,
            State::Running { ended, .. } => Some(ended.clone()),
            State::Ended { .. } => return,
        };
        *state = State::Ended { ended };
    }

    /// The same, and waits until it is done; whether it was in this time.
    pub async fn ended(&self, patience: Duration) -> bool {
        self.end();
        let ended = match &*self.0.state.lock() {
            State::Ended { ended: Some(ended) } => ended.clone(),
            _ => return true,
        };
        let mut ended = ended;
        let waiting = ended.wait_for(|ended| *ended);
        // Without its sender the thread is gone, too.
        tokio::time::timeout(patience, waiting).await.is_ok()
    }
}

/// Starts a thread; none where the system has none left.
fn start() -> Option<State> {
    // Bounded by the places.
    let (tasks, coming) = mpsc::unbounded_channel();
    let (say, ended) = watch::channel(false);
    let runtime = Builder::new_current_thread().enable_all().build();
    let started = runtime.and_then(|runtime| {
        thread::Builder::new()
            .name("tasks".to_owned())
            .spawn(move || {
                runtime.block_on(run(coming));
                say.send_replace(true);
            })
    });
    match started {
        Ok(_) => Some(State::Running { tasks, ended }),
        Err(error) => {
            tracing::error!(%error, "there is no thread for the background tasks of a plugin");
            None
        }
    }
}

/// Polls tasks as they come, until nobody can send any; then drops what is left.
async fn run(mut coming: mpsc::UnboundedReceiver<Counted>) {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            task = coming.recv() => match task {
                Some(Counted { task, place }) => {
                    running.spawn(async move {
                        let _place = place;
                        task.await;
                    });
                }
                None => break,
            },
            Some(_) = running.join_next() => {}
        }
    }
    running.shutdown().await;
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use std::sync::atomic::AtomicBool;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn waits_for_ever() -> FfiFuture<()> {
        FfiFuture::new(std::future::pending())
    }

    struct SaysWhenDropped(Arc<AtomicBool>);

    impl Drop for SaysWhenDropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }

    #[tokio::test]
    async fn a_task_runs_and_its_place_is_free_again() {
        let tasks = Tasks::new(1);
        let (say, said) = tokio::sync::oneshot::channel();
        let task = FfiFuture::new(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            say.send(thread::current().name().map(str::to_owned))
                .unwrap();
        });
        assert_eq!(tasks.spawn(task), SpawnStatus::SPAWNED);
        assert_eq!(said.await.unwrap().as_deref(), Some("tasks"));
        while tasks.count() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn tasks_are_bounded_in_number() {
        let tasks = Tasks::new(1);
        for _ in 0..MAX_TASKS {
            assert_eq!(tasks.spawn(waits_for_ever()), SpawnStatus::SPAWNED);
        }
        assert_eq!(tasks.spawn(waits_for_ever()), SpawnStatus::TOO_MANY);
        assert!(tasks.ended(PATIENCE).await);
        assert_eq!(tasks.count(), 0);
    }

    #[tokio::test]
    async fn what_is_left_at_the_end_is_dropped_and_nothing_begins_any_more() {
        let tasks = Tasks::new(1);
        let dropped = Arc::new(AtomicBool::new(false));
        let says = SaysWhenDropped(Arc::clone(&dropped));
        let task = FfiFuture::new(async move {
            let _says = says;
            std::future::pending::<()>().await;
        });
        assert_eq!(tasks.spawn(task), SpawnStatus::SPAWNED);
        assert!(tasks.ended(PATIENCE).await);
        assert!(dropped.load(Ordering::Acquire));
        assert_eq!(tasks.spawn(waits_for_ever()), SpawnStatus::UNLOADING);
        assert!(tasks.ended(PATIENCE).await, "a second end is no news");
    }

    #[tokio::test]
    async fn a_task_that_blocks_is_waited_for_no_longer_than_one_is_patient() {
        let tasks = Tasks::new(1);
        let (go_on, stop) = std::sync::mpsc::channel::<()>();
        let (say, began) = tokio::sync::oneshot::channel();
        let task = FfiFuture::new(async move {
            say.send(()).unwrap();
            let _ = stop.recv();
        });
        assert_eq!(tasks.spawn(task), SpawnStatus::SPAWNED);
        began.await.unwrap();
        assert!(!tasks.ended(Duration::from_millis(50)).await);
        drop(go_on);
        assert!(tasks.ended(PATIENCE).await);
    }

    #[tokio::test]
    async fn without_tasks_there_is_no_thread_to_wait_for() {
        assert!(Tasks::new(1).ended(Duration::ZERO).await);
    }
}
