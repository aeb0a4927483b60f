//! How often what serves has changed in this process, and how, for metrics; and each change for those who
//! want to hear of it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{LoadError, Manager};
use crate::plugin::{
    event::{EventKind, PluginEvent},
    metadata::Build,
    registry::{Generation, cut},
};

/// Bytes of a reason that is told.
const MAX_REASON_BYTES: usize = 4_096;

/// How what serves can change, or fail to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Something serves where nothing of its place did.
    Loaded,
    /// Something serves in place of another build.
    Upgraded,
    /// Something did not load, or was kept out by a veto; nothing has changed.
    Refused,
    /// What served before serves again.
    RolledBack,
    /// Something serves no more, and nothing in its place.
    Unloaded,
}

impl Change {
    const ALL: [Self; 5] = [
        Self::Loaded,
        Self::Upgraded,
        Self::Refused,
        Self::RolledBack,
        Self::Unloaded,
    ];

    /// As the label `outcome` has it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Loaded => "loaded",
            Self::Upgraded => "upgraded",
            Self::Refused => "refused",
            Self::RolledBack => "rolled_back",
            Self::Unloaded => "unloaded",
        }
    }
}

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Changes([AtomicU64; Change::ALL.len()]);

/// What is told of a change beside the build.
#[derive(Debug, Default)]
pub(super) struct Told<'a> {
    /// What served before.
    pub(super) before: Option<&'a Generation>,
    /// Why nothing has changed.
    pub(super) refused: Option<&'a LoadError>,
    /// The operator whose word it was.
    pub(super) by: Option<String>,
}

impl Changes {
    pub(super) fn count(&self, change: Change) {
        self.0[change as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl Manager {
    /// Tells of a change: a build in place of what served, or none where it was refused.
    pub(super) fn tell(&self, kind: EventKind, build: Build, told: Told<'_>) {
        let Some(events) = &self.options.events else {
            return;
        };
        let Told {
            before,
            refused,
            by,
        } = told;
        // That it is disabled, or in quarantine, has been told.
        if refused.is_some_and(LoadError::is_kept_out) {
            return;
        }
        let event = PluginEvent::now(refused.map_or(kind, |_| EventKind::Refused));
        let event = PluginEvent {
            previous: before.map(|before| before.version().to_string()),
            reason: refused.map(|error| cut(error.to_string(), MAX_REASON_BYTES)),
            by,
            ..event.about(build.name, build.version, build.digest)
        };
        // Nobody hears it only where this process ends.
        let _ = events.send(event);
    }

    /// How often what serves has changed in each way.
    pub fn changes(&self) -> [(Change, u64); Change::ALL.len()] {
        Change::ALL.map(|change| {
            let count = &self.changes.0[change as usize];
            (change, count.load(Ordering::Relaxed))
        })
    }
}
