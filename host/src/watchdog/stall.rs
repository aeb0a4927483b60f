//! One visit of an event loop to a plugin, from samples of its thread to a verdict.
//!
//! Pure: it is given the time and what was seen. Only what two samples frame counts, and between two
//! samples no more than a few times the usual distance: whoever keeps the watchdog from looking (a
//! busy machine, a stopped process) also keeps the plugin from returning.

use std::time::{Duration, Instant};

use super::LOOK_CLOSELY;
use crate::{plugin::registry::How, shared_memory::threads::Inside};

/// Sleep inside one poll that shows that a plugin blocks.
pub(super) const SLEEPS: Duration = Duration::from_millis(20);

/// Samples that have to show it asleep, so that one long gap between two of them proves nothing.
const ASLEEP_SAMPLES: u32 = 4;

/// Processor time inside one poll that shows that a plugin computes for too long.
pub(super) const COMPUTES: Duration = Duration::from_millis(50);

/// Most time that counts between two samples.
const LONGEST_GAP: Duration = Duration::from_millis(4 * LOOK_CLOSELY.as_millis() as u64);

/// What the kernel says of the thread at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) at: Instant,
    /// Whether it sleeps or waits for something, as opposed to running or waiting for a core.
    pub(super) asleep: bool,
    /// Processor time that the thread has used in its life.
    pub(super) processor: Duration,
}

/// What a visit has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The plugin holds the loop up; said once in a visit.
    Holds(How, Duration),
    /// It has for longer than any may; said once in a visit.
    Stuck,
}

/// One entry of a thread into a plugin that has not ended yet.
#[derive(Debug)]
pub(super) struct Visit {
    inside: Inside,
    since: Instant,
    first: Option<Sample>,
    last: Option<Sample>,
    slept: Duration,
    asleep_samples: u32,
    holds: bool,
    stuck: bool,
}

impl Visit {
    pub(super) fn begin(inside: Inside, since: Instant) -> Self {
        Self {
            inside,
            since,
            first: None,
            last: None,
            slept: Duration::ZERO,
            asleep_samples: 0,
            holds: false,
            stuck: false,
        }
    }

    /// Whether a thread is still inside for the same time.
    pub(super) fn is(&self, inside: &Inside) -> bool {
        (self.inside.plugin, self.inside.entries) == (inside.plugin, inside.entries)
    }

    pub(super) fn inside(&self) -> &Inside {
        &self.inside
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn was_a_stall(&self) -> bool {
        self.holds
    }

    /// Takes a sample that is certain to be of this visit.
    pub(super) fn take(&mut self, sample: Sample) {
        if sample.asleep {
            self.asleep_samples += 1;
        }
        if let Some(last) = self.last.replace(sample)
            && last.asleep
            && sample.asleep
        {
            let ran = sample.processor.saturating_sub(last.processor);
            let gap = (sample.at - last.at).min(LONGEST_GAP);
            self.slept += gap.saturating_sub(ran);
        }
        self.first.get_or_insert(sample);
    }

    /// What is to be said now, once each; a limit of zero is none.
    pub(super) fn judge(&mut self, stall_limit: Duration) -> Option<Verdict> {
        let computed = self.computed();
        if !self.holds {
            if self.slept >= SLEEPS && self.asleep_samples >= ASLEEP_SAMPLES {
                self.holds = true;
                return Some(Verdict::Holds(How::Asleep, self.slept + computed));
            }
            if computed >= COMPUTES {
                self.holds = true;
                return Some(Verdict::Holds(How::Computing, self.slept + computed));
            }
        }
        if !self.stuck && !stall_limit.is_zero() && self.slept + computed >= stall_limit {
            self.stuck = true;
            return Some(Verdict::Stuck);
        }
        None
    }

    fn computed(&self) -> Duration {
        match (self.first, self.last) {
            (Some(first), Some(last)) => last.processor.saturating_sub(first.processor),
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use crate::shared_memory::threads::Activity;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    fn milliseconds(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    /// What is said of a visit whose samples are so far apart, each with whether the thread sleeps
    /// and the processor time used since the last one, all in milliseconds.
    fn said(samples: impl IntoIterator<Item = (u64, bool, u64)>) -> Vec<Verdict> {
        let began = Instant::now();
        let inside = Inside {
            thread: 1,
            plugin: 2,
            activity: Activity::Filter,
            entries: 3,
            is_loop: true,
        };
        let mut visit = Visit::begin(inside, began);
        let (mut at, mut processor) = (began, milliseconds(500));
        let mut said = Vec::new();
        for (later, asleep, ran) in samples {
            at += milliseconds(later);
            processor += milliseconds(ran);
            visit.take(Sample {
                at,
                asleep,
                processor,
            });
            said.extend(visit.judge(LIMIT));
        }
        said
    }

    #[test]
    fn a_plugin_that_sleeps_is_found_once() {
        let found = said(std::iter::repeat_n((2, true, 0), 100));
        assert_eq!(found, [Verdict::Holds(How::Asleep, SLEEPS)]);
    }

    #[test]
    fn a_plugin_that_computes_is_found_by_the_processor_time_that_it_used() {
        let found = said(std::iter::repeat_n((2, false, 2), 100));
        assert_eq!(found, [Verdict::Holds(How::Computing, COMPUTES)]);
    }

    #[test]
    fn waiting_for_a_core_is_nobodys_fault() {
        assert_eq!(said(std::iter::repeat_n((2, false, 0), 10_000)), []);
        // On a busy machine the watchdog waits as well.
        assert_eq!(said(std::iter::repeat_n((300, false, 1), 40)), []);
    }

    #[test]
    fn a_short_sleep_and_a_process_that_was_stopped_in_one_are_no_stall() {
        assert_eq!(said(std::iter::repeat_n((2, true, 0), 10)), []);
        assert_eq!(said([(2, true, 0), (60_000, true, 0), (2, true, 0)]), []);
    }

    #[test]
    fn a_plugin_that_does_not_come_back_is_stuck_whatever_it_does_there() {
        let held = Verdict::Holds(How::Asleep, SLEEPS);
        let found = said(std::iter::repeat_n((2, true, 0), 1_000));
        assert_eq!(found, [held, Verdict::Stuck]);
        let held = Verdict::Holds(How::Computing, COMPUTES);
        // With half of a core it takes twice as long.
        let found = said(std::iter::repeat_n((2, false, 1), 990));
        assert_eq!(found, [held]);
        let found = said(std::iter::repeat_n((2, false, 1), 1_010));
        assert_eq!(found, [held, Verdict::Stuck]);
    }
}
