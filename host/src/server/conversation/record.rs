//! What is told of a call when it is over: numbers, and a line where an access log is kept.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    metrics::{
        plugin_calls::{Entry, Outcome},
        traffic::CallOutcome,
    },
    pipeline::{Observer, PluginFailure, call::CallBox},
    plugin::registry::Generation,
    server::{
        Shared,
        access_log::{Line, Part},
    },
    tokens::Token,
};

use super::{OpenCall, answers::log_skipped};

/// What is known of a call so far.
pub(super) struct Record {
    entry: Entry,
    started: Instant,
    /// What has become of it: [`CallOutcome::Aborted`] until it is answered.
    pub(super) outcome: CallOutcome,
    /// Absent where no access log is kept.
    line: Option<Box<Line>>,
}

impl Record {
    /// A call has come in.
    pub(super) fn begin(entry: Entry, started: Instant) -> Self {
        Self {
            entry,
            started,
            outcome: CallOutcome::Aborted,
            line: None,
        }
    }

    /// The call's token is known; an access log is kept.
    pub(super) fn keep_line(&mut self, token: &Arc<Token>, call: &CallBox) {
        self.line = Some(Box::new(Line::new(self.entry, Arc::clone(token), call)));
    }

    /// A plugin, or the host in its place, answers with this status.
    pub(super) fn answered_with(&mut self, status: u16) {
        if let Some(line) = &mut self.line {
            line.status = Some(status);
        }
    }

    /// The call is over.
    pub(super) fn end(mut self, shared: &Shared) {
        let took = self.started.elapsed();
        shared.traffic.count_call(self.entry, self.outcome, took);
        if let (Some(line), Some(log)) = (self.line.take(), &shared.access_log) {
            log.write(&line, self.outcome, took);
        }
    }
}

/// Hears what becomes of the plugins of an open call.
pub(super) struct Listening<'c> {
    pub(super) shared: &'c Shared,
    pub(super) open: &'c OpenCall,
    pub(super) record: Option<&'c mut Record>,
}

impl Observer for Listening<'_> {
    fn skipped(&mut self, failure: &PluginFailure) {
        log_skipped(self.shared, self.open, failure);
        if let Some(line) = self.line() {
            line.last_was_skipped();
        }
    }

    fn part_ended(&mut self, generation: &Generation, outcome: Outcome, took: Duration) {
        if let Some(line) = self.line() {
            line.push(Part::new(generation, outcome, took));
        }
    }
}

impl Listening<'_> {
    fn line(&mut self) -> Option<&mut Line> {
        self.record.as_mut()?.line.as_deref_mut()
    }
}
