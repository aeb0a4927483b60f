//! What became of a generation's calls, for operators.
//!
//! The counters are [`metrics::plugin_calls`](crate::metrics::plugin_calls); they begin at zero with
//! each generation, so with each worker too.

use std::{sync::atomic::Ordering, time::Duration};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Generation;
use crate::metrics::plugin_calls::{Entry, Outcome, Totals};

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

/// How long the calls of one generation took in one worker process, without what they waited for the
/// gateway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CallDurations {
    /// Calls that have ended.
    pub count: u64,
    /// Seconds of all of them together.
    pub sum_seconds: f64,
    /// What half of them did not exceed, guessed from a histogram; absent where there were none.
    pub p50_seconds: Option<f64>,
    /// What 99 of 100 did not exceed, guessed from a histogram; absent where there were none.
    pub p99_seconds: Option<f64>,
}

impl From<&Totals> for CallDurations {
    fn from(totals: &Totals) -> Self {
        let durations = totals.durations();
        Self {
            count: durations.count(),
            sum_seconds: durations.seconds(),
            p50_seconds: durations.quantile(0.5),
            p99_seconds: durations.quantile(0.99),
        }
    }
}

impl Generation {
    /// A call has come to it.
    pub fn count_call(&self, entry: Entry) {
        self.services.calls().begin(entry);
    }

    /// Its part of a call has ended, after so long without what it waited for the gateway.
    pub fn count_end(&self, entry: Entry, outcome: Outcome, took: Duration) {
        self.services.calls().end(entry, outcome, took);
    }

    /// It panicked while it parsed a configuration.
    pub(super) fn count_refusing_panic(&self) {
        self.panics_in_parsing.fetch_add(1, Ordering::Relaxed);
    }

    /// What became of its calls so far, and how long they took.
    pub fn calls(&self) -> (CallCounts, CallDurations) {
        let totals = self.services.calls().totals();
        let ended = |outcome| totals.ended(outcome);
        let counts = CallCounts {
            calls: totals.begun(),
            errors: ended(Outcome::Error),
            panics: ended(Outcome::Panic) + self.panics_in_parsing.load(Ordering::Relaxed),
            missed_deadlines: ended(Outcome::Deadline),
            misuses: ended(Outcome::Misuse),
            without_thread: ended(Outcome::NoThread),
            without_room: ended(Outcome::NoRoom),
        };
        (counts, CallDurations::from(&totals))
    }
}
