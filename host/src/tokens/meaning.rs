//! What a token means now: put in place by whoever compiles it, read by calls without a lock, and
//! waited for by those that come before it is known.
//!
//! Compiling may be begun anew at any time, when another snapshot serves; only the last one that was
//! begun counts. Nothing here knows how a chain is compiled. There may be a hundred thousand of
//! these, so one is a few words, and all who wait share one list.

use std::{pin::pin, sync::Arc};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::ChainState;

#[derive(Debug)]
pub(super) struct Meaning {
    state: ArcSwap<ChainState>,
    compiling: Mutex<Compiling>,
    /// Any of the above.
    changed: Notify,
}

/// How often compiling was begun, and which of these times has come to an end last.
#[derive(Debug, Default)]
struct Compiling {
    begun: u64,
    finished: u64,
    /// Whether somebody waits for it, or is about to.
    wanted: bool,
}

impl Meaning {
    /// Not known yet; `wanted` is whether somebody is about to wait for it.
    pub(super) fn new(wanted: bool) -> Self {
        Self {
            state: ArcSwap::from_pointee(ChainState::Compiling),
            compiling: Mutex::new(Compiling {
                wanted,
                ..Compiling::default()
            }),
            changed: Notify::new(),
        }
    }

    pub(super) fn state(&self) -> ChainState {
        ChainState::clone(&self.state.load())
    }

    /// Waits until it is known, and wants it to be soon.
    pub(super) async fn known(&self) -> ChainState {
        if let Some(known) = self.if_known() {
            return known;
        }
        self.compiling.lock().wanted = true;
        self.changed.notify_waiters();
        self.wait_for(|| self.if_known()).await
    }

    /// Waits until it is known.
    pub(super) async fn known_in_turn(&self) {
        self.wait_for(|| self.if_known()).await;
    }

    fn if_known(&self) -> Option<ChainState> {
        Some(self.state()).filter(|state| !matches!(state, ChainState::Compiling))
    }

    /// Waits until somebody wants it to be known soon.
    pub(super) async fn wanted(&self) {
        self.wait_for(|| self.compiling.lock().wanted.then_some(()))
            .await;
    }

    /// Compiling begins; returns which time this is.
    pub(super) fn begin(&self) -> u64 {
        let number = {
            let mut compiling = self.compiling.lock();
            compiling.begun += 1;
            compiling.begun
        };
        self.changed.notify_waiters();
        number
    }

    /// Waits until compiling has begun after this time.
    pub(super) async fn overtaken(&self, number: u64) {
        self.wait_for(|| (self.compiling.lock().begun != number).then_some(()))
            .await;
    }

    /// Ends this time of compiling, with a new state if `compiled` gives one. Does nothing where it was
    /// begun anew, so that an older snapshot never comes last.
    pub(super) fn finish(
        &self,
        number: u64,
        compiled: impl FnOnce(&ChainState) -> Option<ChainState>,
    ) {
        {
            let mut compiling = self.compiling.lock();
            if compiling.begun != number {
                return;
            }
            if let Some(state) = compiled(&self.state.load()) {
                self.state.store(Arc::new(state));
                compiling.wanted = false;
            }
            compiling.finished = number;
        }
        self.changed.notify_waiters();
    }

    /// Waits until compiling it this time, or a later one, has come to an end.
    pub(super) async fn finished_up_to(&self, number: u64) {
        self.wait_for(|| (self.compiling.lock().finished >= number).then_some(()))
            .await;
    }

    async fn wait_for<T>(&self, look: impl Fn() -> Option<T>) -> T {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Before the look, so that no change gets lost in between.
            changed.as_mut().enable();
            if let Some(found) = look() {
                return found;
            }
            changed.await;
        }
    }
}
