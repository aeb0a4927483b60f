//! What each place of the plugin directory has given, and what the next worker has to know of it.

use std::{collections::VecDeque, path::Path, sync::Arc};

use tokio::sync::Mutex;

use crate::plugin::{
    discovery::{Candidate, Files, Origin},
    kept::{Attempt, KeptBuild, KeptPlace, within},
    metadata::{Digest, PluginName},
    private_copy::PrivateCopy,
    registry::Generation,
};

/// Builds of one place that are kept for the day when their quarantine is lifted, at most: what
/// served, and what served before.
const MAX_QUARANTINED: usize = 2;

/// Tries to load something that are remembered of each place.
pub const MAX_HISTORY: usize = 16;

/// One place of the plugin directory.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// Held by whoever loads or unloads there. Telling what is there needs no turn: loading takes
    /// its time.
    pub(super) turn: Mutex<()>,
    pub(super) given: parking_lot::Mutex<Given>,
}

/// What a place has given.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) serving: Option<Arc<Generation>>,
    /// What served before: its library's bytes are kept for a roll-back.
    pub(super) previous: Option<Stored>,
    /// What would serve, or have served before, were it not known to kill workers.
    pub(super) quarantined: Vec<Stored>,
    /// The operator's files that were tried last; none where they have gone since.
    pub(super) tried: Option<Files>,
    /// What would serve, had no operator disabled it.
    pub(super) set_aside: Option<Stored>,
    /// Whether the operator's files have changed while it was disabled.
    pub(super) has_changed: bool,
    /// The last tries to load something, oldest first.
    pub(super) history: VecDeque<Attempt>,
}

/// A generation that can be loaded again without the operator's file.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) origin: Arc<Origin>,
    pub(super) copy: Arc<PrivateCopy>,
}

impl Given {
    /// Of what serves, or else of what served before.
    pub(super) fn origin(&self) -> Option<&Arc<Origin>> {
        let serving = self.serving.as_ref().map(|serving| serving.origin());
        serving.or(self.previous.as_ref().map(|previous| &previous.origin))
    }

    /// The name of what it has given, or was tried to give.
    pub(super) fn name(&self) -> Option<&PluginName> {
        let known = self
            .origin()
            .or(self.set_aside.as_ref().map(|it| &it.origin));
        known
            .map(|origin| &origin.metadata.name)
            .or(self.last().map(|last| &last.name))
    }

    /// The last try to load something.
    pub(super) fn last(&self) -> Option<&Attempt> {
        self.history.back()
    }

    pub(super) fn remember(&mut self, attempt: Attempt) {
        if self.history.len() == MAX_HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(attempt);
    }

    pub(super) fn quarantine(&mut self, stored: Stored) {
        if self.quarantined.len() < MAX_QUARANTINED {
            self.quarantined.push(stored);
        }
    }

    /// What the next worker has to know.
    pub(super) fn to_keep(&self, place: &Path, plugin_dir: &Path) -> KeptPlace {
        let keep = |origin: &Arc<Origin>| KeptBuild::of(origin, plugin_dir);
        KeptPlace {
            place: within(plugin_dir, place),
            tried: self.tried,
            serving: self.serving.as_ref().map(|serving| keep(serving.origin())),
            previous: self
                .previous
                .as_ref()
                .map(|previous| keep(&previous.origin)),
            quarantined: self
                .quarantined
                .iter()
                .map(|stored| keep(&stored.origin))
                .collect(),
            set_aside: self.set_aside.as_ref().map(|stored| keep(&stored.origin)),
            has_changed: self.has_changed,
            history: self.history.iter().cloned().collect(),
        }
    }

    /// The private copies of all that is kept.
    pub(super) fn copies(&self) -> Vec<(Digest, Arc<PrivateCopy>)> {
        let serving = self.serving.iter().map(|serving| Stored::of(serving));
        let others = self.previous.iter().chain(&self.set_aside);
        let others = others.chain(&self.quarantined).cloned();
        serving
            .chain(others)
            .map(|stored| (stored.origin.digest, stored.copy))
            .collect()
    }
}

impl Stored {
    pub(super) fn of(generation: &Generation) -> Self {
        Self {
            origin: Arc::clone(generation.origin()),
            copy: Arc::clone(generation.copy()),
        }
    }

    pub(super) fn candidate(&self) -> Result<Candidate, String> {
        let bytes = std::fs::read(self.copy.path()).map_err(|error| error.to_string())?;
        Candidate::from_copy(&self.origin, bytes).ok_or_else(|| "its digest has changed".to_owned())
    }
}
