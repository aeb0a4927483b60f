//! Runs calls to their end on the test's thread, and lets the test's clock pass while all of them
//! wait.
//!
//! Time jumps from timer to timer, so that a plugin's second takes no second. Where somebody outside
//! holds a waker (a thread or a runtime of the plugin's), that one lives in the system's time: then
//! it is waited for, as long as the next timer is away.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use super::world::World;

/// A call on its way.
pub(super) type Running<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Tells the test's thread to go on.
#[derive(Default)]
struct Signal {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        *self.woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }
}

impl Signal {
    fn take(&self) -> bool {
        std::mem::take(&mut self.woken.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits in the system's time, and says whether somebody has woken.
    fn wait(&self, patience: Duration) -> bool {
        let deadline = Instant::now().checked_add(patience);
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        while !*woken {
            let left = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => Duration::MAX,
            };
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(woken, left);
            woken = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::take(&mut woken)
    }
}

/// Runs calls side by side; their results are in the order of the calls.
///
/// # Panics
/// One of them waits, and nobody is left who could wake it.
pub(super) fn together<'a, T>(
    world: &Arc<World>,
    calls: impl IntoIterator<Item = Running<'a, T>>,
) -> Vec<T> {
    let mut calls: Vec<_> = calls.into_iter().map(|call| (call, None)).collect();
    let signal = Arc::new(Signal::default());
    let waker = Waker::from(Arc::clone(&signal));
    loop {
        world.poll_tasks();
        let mut context = Context::from_waker(&waker);
        for (call, result) in &mut calls {
            if result.is_none()
                && let Poll::Ready(value) = call.as_mut().poll(&mut context)
            {
                *result = Some(value);
            }
        }
        if calls.iter().all(|(_, result)| result.is_some()) {
            return calls.into_iter().filter_map(|(_, result)| result).collect();
        }
        if signal.take() {
            continue;
        }
        let (next, timers) = world.timers();
        // Beside the clones of the timers, the waker is held here, twice.
        let outsiders = Arc::strong_count(&signal).saturating_sub(2 + timers);
        let next = next.expect("a call waits for nothing that could ever come");
        if outsiders > 0 && signal.wait(next.saturating_sub(world.now())) {
            continue;
        }
        world.pass_to(next);
    }
}
