//! What became of a generation's calls, counted for operators.
//!
//! Clients can bring most failures about, so nothing follows from these numbers: they never put a
//! plugin into quarantine. They begin at zero with each generation, so with each worker too.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Generation;

/// How a plugin can fail without ending its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// It returned an error.
    Error,
    /// It panicked, on a call or while it parsed a configuration.
    Panic,
    /// It had not answered when its time was over.
    Deadline,
    /// It asked for what the gateway cannot do, or kept the call.
    Misuse,
    /// It blocks, and no thread was free for it in its time.
    NoThread,
    /// It made more than the host keeps.
    NoRoom,
}

/// How often each has happened to one generation in one worker process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CallCounts {
    /// Calls that came to it, whatever became of them; those that are open included.
    pub calls: u64,
    /// Calls on which it returned an error.
    pub errors: u64,
    /// Panics, on calls and while configurations were parsed.
    pub panics: u64,
    /// Calls that it had not answered when its time was over.
    pub missed_deadlines: u64,
    /// Calls on which it asked for what the gateway cannot do, or that it did not give back.
    pub misuses: u64,
    /// Calls for which no thread was free in its time.
    pub without_thread: u64,
    /// Calls on which it made more than the host keeps.
    pub without_room: u64,
}

impl CallCounts {
    /// Calls on which it has failed, in whatever way, and configurations on which it panicked.
    pub fn failed(&self) -> u64 {
        self.errors
            + self.panics
            + self.missed_deadlines
            + self.misuses
            + self.without_thread
            + self.without_room
    }
}

/// The counters of one generation.
// Each call writes here. Without a cache line of its own that would slow down the event loops
// that only read what stands beside it.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Tally {
    calls: AtomicU64,
    errors: AtomicU64,
    panics: AtomicU64,
    missed_deadlines: AtomicU64,
    misuses: AtomicU64,
    without_thread: AtomicU64,
    without_room: AtomicU64,
}

impl Generation {
    /// A call has come to it.
    pub fn count_call(&self) {
        self.tally.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// It has failed.
    pub fn count_failure(&self, failing: Failing) {
        let tally = &self.tally;
        let count = match failing {
            Failing::Error => &tally.errors,
            Failing::Panic => &tally.panics,
            Failing::Deadline => &tally.missed_deadlines,
            Failing::Misuse => &tally.misuses,
            Failing::NoThread => &tally.without_thread,
            Failing::NoRoom => &tally.without_room,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// What became of its calls so far. Numbers are read one after the other, so that those of a
    /// call that ends meanwhile may be a part of it.
    pub fn call_counts(&self) -> CallCounts {
        let tally = &self.tally;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        CallCounts {
            calls: read(&tally.calls),
            errors: read(&tally.errors),
            panics: read(&tally.panics),
            missed_deadlines: read(&tally.missed_deadlines),
            misuses: read(&tally.misuses),
            without_thread: read(&tally.without_thread),
            without_room: read(&tally.without_room),
        }
    }
}
