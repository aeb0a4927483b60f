//! What the gateway and this worker say to each other, in numbers: calls by phase and outcome and how
//! long they took, questions, preparations, bytes, connections.
//!
//! A call is counted when its answer is written. Nothing here knows what a call is about.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};

use super::{
    durations::{Durations, Recorded},
    plugin_calls::Entry,
    shards::Shards,
    writing::{Kind, durations, series},
};

/// How a call has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// The request or response goes on.
    Passed,
    /// It goes on with changes.
    Changed,
    /// A plugin answered in the upstream's place.
    Stopped,
    /// A plugin failed whose policy is `closed`.
    PluginFailed,
    /// The route's chain cannot run.
    ChainRefused,
    /// The route's plugins were not ready in time.
    ChainNotReady,
    /// The answer was too large, or there was no memory for it.
    AnswerTooLarge,
    /// The token was not known; the gateway prepares again and asks anew.
    TokenNotFound,
    /// The gateway hung up, or what it sent could not be understood.
    Aborted,
}

impl CallOutcome {
    const ALL: [Self; 9] = [
        Self::Passed,
        Self::Changed,
        Self::Stopped,
        Self::PluginFailed,
        Self::ChainRefused,
        Self::ChainNotReady,
        Self::AnswerTooLarge,
        Self::TokenNotFound,
        Self::Aborted,
    ];

    /// As the label `outcome` has it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Changed => "changed",
            Self::Stopped => "stopped",
            Self::PluginFailed => "plugin_failed",
            Self::ChainRefused => "chain_refused",
            Self::ChainNotReady => "chain_not_ready",
            Self::AnswerTooLarge => "answer_too_large",
            Self::TokenNotFound => "token_not_found",
            Self::Aborted => "aborted",
        }
    }
}

/// What the gateway was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A variable.
    Variable,
    /// The request's body.
    RequestBody,
    /// The upstream's body.
    ResponseBody,
}

impl Wanted {
    const ALL: [Self; 3] = [Self::Variable, Self::RequestBody, Self::ResponseBody];

    fn label(self) -> &'static str {
        match self {
            Self::Variable => "variable",
            Self::RequestBody => "request_body",
            Self::ResponseBody => "response_body",
        }
    }
}

/// The counters of a worker.
#[derive(Debug, Default)]
pub struct Traffic {
    shards: Shards<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    calls: [OfEntry; Entry::ALL.len()],
    waits: [Durations; Wanted::ALL.len()],
    prepared: AtomicU64,
    not_prepared: AtomicU64,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct OfEntry {
    /// By number; nothing is counted for [`CallOutcome::Passed`], which is what is left.
    outcomes: [AtomicU64; CallOutcome::ALL.len()],
    durations: Durations,
}

fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

impl Traffic {
    /// A call is answered, so long after its frame was there.
    pub fn count_call(&self, entry: Entry, outcome: CallOutcome, took: Duration) {
        let of_entry = &self.shards.mine().calls[entry as usize];
        of_entry.durations.record(took);
        if outcome != CallOutcome::Passed {
            add(&of_entry.outcomes[outcome as usize], 1);
        }
    }

    /// So many bytes came and went.
    pub fn count_bytes(&self, received: u64, sent: u64) {
        let counters = self.shards.mine();
        add(&counters.received_bytes, received);
        add(&counters.sent_bytes, sent);
    }

    /// The gateway was asked for something, and it took so long, whatever came of it.
    pub fn count_wait(&self, wanted: Wanted, took: Duration) {
        self.shards.mine().waits[wanted as usize].record(took);
    }

    /// A configuration was prepared, or could not be.
    pub fn count_preparation(&self, prepared: bool) {
        let counters = self.shards.mine();
        match prepared {
            true => add(&counters.prepared, 1),
            false => add(&counters.not_prepared, 1),
        }
    }

    /// A connection came, and was served or refused.
    pub fn count_connection(&self, served: bool) {
        let counters = self.shards.mine();
        match served {
            true => add(&counters.accepted, 1),
            false => add(&counters.refused, 1),
        }
    }

    fn sum(&self, counter: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        let of_shards = self.shards.iter().map(counter);
        of_shards
            .map(|counter| counter.load(Ordering::Relaxed))
            .sum()
    }

    fn recorded(&self, durations: impl Fn(&Counters) -> &Durations) -> Recorded {
        let mut recorded = Recorded::default();
        for counters in self.shards.iter() {
            recorded += durations(counters);
        }
        recorded
    }

    /// Calls of one entry by their outcome, and how long they took.
    fn calls(&self, entry: Entry) -> ([(CallOutcome, u64); CallOutcome::ALL.len()], Recorded) {
        let ended = self.recorded(|counters| &counters.calls[entry as usize].durations);
        let mut counts = CallOutcome::ALL.map(|outcome| {
            let counted =
                self.sum(|counters| &counters.calls[entry as usize].outcomes[outcome as usize]);
            (outcome, counted)
        });
        let others: u64 = counts.iter().map(|(_, count)| count).sum();
        counts[CallOutcome::Passed as usize].1 = ended.count().saturating_sub(others);
        (counts, ended)
    }
}

/// The traffic of a worker as a part of the exposition.
#[derive(Debug)]
pub struct ShownTraffic(pub Arc<Traffic>);

impl Collector for ShownTraffic {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (traffic, encoder) = (&self.0, &mut encoder);
        let calls = Entry::ALL.map(|entry| (entry, traffic.calls(entry)));
        let about = (
            "pluginhost_calls",
            "Calls of the gateway, by what became of them",
        );
        let counts = calls.iter().flat_map(|(entry, (counts, _))| {
            counts.iter().map(|(outcome, count)| {
                let labels = [("phase", entry.label()), ("outcome", outcome.label())];
                (labels, *count)
            })
        });
        series(encoder, Kind::Counter, about, counts)?;
        let about = (
            "pluginhost_call_duration",
            "Time from a call's frame to its answer",
        );
        let ended = calls
            .iter()
            .map(|(entry, (_, ended))| ([("phase", entry.label())], *ended));
        durations(encoder, about, ended)?;
        let about = (
            "pluginhost_gateway_wait",
            "Time that calls have waited for the gateway's answer to a question of a plugin",
        );
        let waits = Wanted::ALL.map(|wanted| {
            let waited = traffic.recorded(|counters| &counters.waits[wanted as usize]);
            ([("question", wanted.label())], waited)
        });
        durations(encoder, about, waits)?;
        let about = (
            "pluginhost_preparations",
            "Configurations that the gateway wanted to have prepared",
        );
        let prepared = [
            ([("outcome", "prepared")], traffic.sum(|of| &of.prepared)),
            ([("outcome", "no_room")], traffic.sum(|of| &of.not_prepared)),
        ];
        series(encoder, Kind::Counter, about, prepared)?;
        let about = (
            "pluginhost_bytes",
            "Bytes of frames, from the gateway and to it",
        );
        let bytes = [
            (
                [("direction", "received")],
                traffic.sum(|of| &of.received_bytes),
            ),
            ([("direction", "sent")], traffic.sum(|of| &of.sent_bytes)),
        ];
        series(encoder, Kind::Counter, about, bytes)?;
        let about = (
            "pluginhost_connections_made",
            "Connections that the gateway made to this worker",
        );
        let made = [
            ([("outcome", "served")], traffic.sum(|of| &of.accepted)),
            ([("outcome", "refused")], traffic.sum(|of| &of.refused)),
        ];
        series(encoder, Kind::Counter, about, made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_outcomes_and_questions_are_their_places() {
        for (at, outcome) in CallOutcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, at);
        }
        for (at, wanted) in Wanted::ALL.into_iter().enumerate() {
            assert_eq!(wanted as usize, at);
        }
    }
}
