//! How often what serves has changed in this process, and how: for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Manager;

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

impl Changes {
    pub(super) fn count(&self, change: Change) {
        self.0[change as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl Manager {
    /// How often what serves has changed in each way.
    pub fn changes(&self) -> [(Change, u64); Change::ALL.len()] {
        Change::ALL.map(|change| {
            let count = &self.changes.0[change as usize];
            (change, count.load(Ordering::Relaxed))
        })
    }
}
