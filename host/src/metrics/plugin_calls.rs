//! What became of the calls that came to plugins, and how long each took: counted for each generation,
//! shown for each version of a plugin.
//!
//! Clients can bring most failures about, so nothing follows from these numbers: they never put a
//! plugin into quarantine. They begin at zero in each worker.

use std::{
    array,
    collections::BTreeMap,
    fmt,
    ops::AddAssign,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use prometheus_client::encoding::DescriptorEncoder;

use super::{
    durations::{Durations, Recorded},
    plugins::OVERFLOW,
    shards::Shards,
    writing::{Kind, durations, series},
};

/// Versions of plugins that have series of their own; those beyond share one.
pub const MAX_SHOWN: usize = 512;

/// What of a plugin is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Its part of a request.
    Request,
    /// Its part of a response.
    Response,
    /// What was asked of it by name.
    Execute,
}

impl Entry {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Request, Self::Response, Self::Execute];

    /// As the label `phase` has it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
            Self::Execute => "execute",
        }
    }
}

/// How a plugin's part of a call has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The call goes on.
    Passed,
    /// It answered in the upstream's place.
    Stopped,
    /// It returned an error.
    Error,
    /// It panicked.
    Panic,
    /// It had not answered when its time was over.
    Deadline,
    /// It asked for what the gateway cannot do, or kept the call.
    Misuse,
    /// It blocks, and no thread was free for it in its time.
    NoThread,
    /// It made more than the host keeps.
    NoRoom,
    /// The gateway, or whoever asked, hung up meanwhile.
    Abandoned,
}

impl Outcome {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Passed,
        Self::Stopped,
        Self::Error,
        Self::Panic,
        Self::Deadline,
        Self::Misuse,
        Self::NoThread,
        Self::NoRoom,
        Self::Abandoned,
    ];

    /// As the label `outcome` has it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Stopped => "stopped",
            Self::Error => "error",
            Self::Panic => "panic",
            Self::Deadline => "deadline",
            Self::Misuse => "misuse",
            Self::NoThread => "no_thread",
            Self::NoRoom => "no_room",
            Self::Abandoned => "abandoned",
        }
    }
}

/// The counters of one generation.
#[derive(Debug, Default)]
pub struct PluginCalls {
    shards: Shards<[OfEntry; Entry::ALL.len()]>,
}

#[derive(Debug, Default)]
struct OfEntry {
    begun: AtomicU64,
    /// By number; nothing is counted for [`Outcome::Passed`], which is what is left.
    outcomes: [AtomicU64; Outcome::ALL.len()],
    durations: Durations,
}

impl PluginCalls {
    /// A call has come to the plugin.
    pub fn begin(&self, entry: Entry) {
        let of_entry = &self.shards.mine()[entry as usize];
        of_entry.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// Its part of a call has ended, after so long; what it waited for the gateway is not in it.
    pub fn end(&self, entry: Entry, outcome: Outcome, took: Duration) {
        let of_entry = &self.shards.mine()[entry as usize];
        of_entry.durations.record(took);
        if outcome != Outcome::Passed {
            of_entry.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All of it, now. Numbers are read one after the other, so that those of a call that ends
    /// meanwhile may be a part of it.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for shard in self.shards.iter() {
            for (total, of_entry) in totals.of.iter_mut().zip(shard) {
                total.add(of_entry);
            }
        }
        totals
    }
}

/// Calls of a plugin by entry, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    of: [TotalsOfEntry; Entry::ALL.len()],
}

/// Calls of one entry of a plugin, at one moment.
#[derive(Debug, Clone, Default)]
pub struct TotalsOfEntry {
    /// Calls that came to it, those that are open included.
    pub begun: u64,
    /// How long those took that have ended.
    pub durations: Recorded,
    others: [u64; Outcome::ALL.len()],
}

impl Totals {
    /// Those of one entry.
    pub fn of(&self, entry: Entry) -> &TotalsOfEntry {
        &self.of[entry as usize]
    }

    /// How many have ended so, of whatever entry.
    pub fn ended(&self, outcome: Outcome) -> u64 {
        self.of.iter().map(|of| of.ended(outcome)).sum()
    }

    /// How many calls there were, those that are open included.
    pub fn begun(&self) -> u64 {
        self.of.iter().map(|of| of.begun).sum()
    }

    /// How long those of all entries took that have ended.
    pub fn durations(&self) -> Recorded {
        let mut all = Recorded::default();
        for of in &self.of {
            all += of.durations;
        }
        all
    }
}

impl TotalsOfEntry {
    /// How many have ended so.
    pub fn ended(&self, outcome: Outcome) -> u64 {
        match outcome {
            Outcome::Passed => {
                let others = self.others.iter().sum();
                self.durations.count().saturating_sub(others)
            }
            outcome => self.others[outcome as usize],
        }
    }

    fn add(&mut self, of_entry: &OfEntry) {
        let outcomes: [u64; Outcome::ALL.len()] =
            array::from_fn(|at| of_entry.outcomes[at].load(Ordering::Relaxed));
        self.durations += &of_entry.durations;
        self.begun += of_entry.begun.load(Ordering::Relaxed);
        for (total, other) in self.others.iter_mut().zip(outcomes) {
            *total += other;
        }
    }
}

impl AddAssign<&Self> for Totals {
    fn add_assign(&mut self, other: &Self) {
        for (own, other) in self.of.iter_mut().zip(&other.of) {
            own.begun += other.begun;
            own.durations += other.durations;
            for (own, other) in own.others.iter_mut().zip(other.others) {
                *own += other;
            }
        }
    }
}

/// Writes down what became of the calls of plugins: each by name, version and totals. What has the
/// same name and version is one series.
///
/// # Errors
/// There is no room to write to.
pub(super) fn encode<'a>(
    calls: impl Iterator<Item = (&'a str, &'a str, Totals)>,
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let mut shown = BTreeMap::<(&str, &str), Totals>::new();
    for (plugin, version, totals) in calls {
        let has_room = shown.len() < MAX_SHOWN || shown.contains_key(&(plugin, version));
        let key = match has_room {
            true => (plugin, version),
            false => (OVERFLOW, OVERFLOW),
        };
        *shown.entry(key).or_default() += &totals;
    }
    let of_entries = || {
        shown.iter().flat_map(|((plugin, version), totals)| {
            let entries = Entry::ALL.into_iter();
            let called = entries.filter(|entry| totals.of(*entry).begun > 0);
            called.map(move |entry| {
                let labels = [
                    ("plugin", *plugin),
                    ("version", *version),
                    ("phase", entry.label()),
                ];
                (labels, totals.of(entry))
            })
        })
    };
    let about = (
        "pluginhost_plugin_calls",
        "Calls that came to a plugin, by what became of its part of them",
    );
    let counts = of_entries().flat_map(|([plugin, version, phase], of_entry)| {
        Outcome::ALL.into_iter().map(move |outcome| {
            let labels = [plugin, version, phase, ("outcome", outcome.label())];
            (labels, of_entry.ended(outcome))
        })
    });
    series(encoder, Kind::Counter, about, counts)?;
    let about = (
        "pluginhost_plugin_duration",
        "Time that a plugin's part of a call took, without what it waited for the gateway",
    );
    let ended = of_entries().map(|(labels, of_entry)| (labels, of_entry.durations));
    durations(encoder, about, ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_end_otherwise_has_passed() {
        let calls = PluginCalls::default();
        for outcome in [Outcome::Passed, Outcome::Passed, Outcome::Panic] {
            calls.begin(Entry::Request);
            calls.end(Entry::Request, outcome, Duration::from_micros(3));
        }
        calls.begin(Entry::Response);
        let totals = calls.totals();
        assert_eq!(totals.begun(), 4, "the open one included");
        let request = totals.of(Entry::Request);
        assert_eq!(request.ended(Outcome::Passed), 2);
        assert_eq!(request.ended(Outcome::Panic), 1);
        assert_eq!(totals.of(Entry::Response).ended(Outcome::Passed), 0);
        assert_eq!(totals.durations().count(), 3);
    }

    #[test]
    fn numbers_of_outcomes_and_entries_are_their_places() {
        for (at, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, at);
        }
        for (at, entry) in Entry::ALL.into_iter().enumerate() {
            assert_eq!(entry as usize, at);
        }
    }
}
