//! Whether a generation was found to hold event loops up: then its calls run on the pool, as if its
//! metadata said that it blocks.
//!
//! Who finds that out is none of its business; it is told. The label is the generation's own: the
//! next version begins without one.

use std::{
    fmt,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;

use super::{Execution, Generation};

/// What a plugin did while an event loop waited for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Its thread slept, or waited for a lock, a file or an answer.
    Asleep,
    /// Its thread used the processor.
    Computing,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asleep => "asleep",
            Self::Computing => "computing",
        })
    }
}

/// One time that a plugin held an event loop up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stall {
    /// What it did.
    pub how: How,
    /// For how long, when it was found out.
    pub after: Duration,
    /// When it was found out.
    pub found: SystemTime,
}

/// The label of one generation.
#[derive(Debug, Default)]
pub(super) struct Label {
    /// Read by every call.
    blocking: AtomicBool,
    stalls: AtomicU64,
    last: Mutex<Option<Stall>>,
}

impl Generation {
    /// Where its calls run: on the pool where its rules or its label say so.
    pub fn execution(&self) -> Execution {
        if self.label.blocking.load(Ordering::Relaxed) {
            Execution::Blocking
        } else {
            self.rules.execution
        }
    }

    /// It has held an event loop up: its calls run on the pool from now on. Returns whether that is
    /// new.
    pub fn label_blocking(&self, stall: Stall) -> bool {
        self.label.stalls.fetch_add(1, Ordering::Relaxed);
        *self.label.last.lock() = Some(stall);
        !self.label.blocking.swap(true, Ordering::Relaxed)
    }

    /// Takes the label away until the next stall. Returns whether there was one.
    pub fn lift_label(&self) -> bool {
        self.label.blocking.swap(false, Ordering::Relaxed)
    }

    /// The stall that its label stands on; none where it has no label.
    pub fn labelled_for(&self) -> Option<Stall> {
        let labelled = self.label.blocking.load(Ordering::Relaxed);
        labelled.then(|| *self.label.last.lock()).flatten()
    }

    /// How often it has held an event loop up, a lifted label's stalls included.
    pub fn stalls(&self) -> u64 {
        self.label.stalls.load(Ordering::Relaxed)
    }
}
