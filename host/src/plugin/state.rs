//! What one generation of a plugin leaves to the next: its own state, and that of each of its
//! configurations.
//!
//! It is saved when the old generation gets no new calls, and given to the new one while that serves
//! already, in one process or from one to another. All of it is a favour: what cannot be saved, is too
//! long, or is refused leaves the new generation as it began, with a line in the log. Saving and
//! restoring run the plugin's code, so both belong on a thread of their own, which may never come
//! back.

mod file;

use std::{collections::HashMap, fmt::Display, sync::Arc, time::Duration};

use plugin_abi::abi::{Failure, StateBlob};
use semver::Version;

use super::{
    metadata::{Digest, PluginName},
    registry::{Configured, Generation},
};

pub use file::{StateFileError, read, write};

/// Bytes of one state: a plugin's own, or that of one of its configurations.
pub const MAX_STATE_BYTES: usize = 4 << 20;

/// Bytes of all states of one generation.
pub const MAX_PLUGIN_STATE_BYTES: usize = 16 << 20;

/// Time that a plugin has to save all of its states, and again to take them.
pub const STATE_TIME: Duration = Duration::from_secs(2);

/// Names a configuration in every generation and every process.
pub type ConfigurationId = Digest;

/// Where a configuration stands: the same bytes for the same plugin at the same place of the same
/// route.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConfigurationPlace {
    /// The gateway's key, without its version.
    pub route: Box<[u8]>,
    /// The plugin as the route names it.
    pub plugin: Arc<[u8]>,
    /// Which of several entries of the same plugin in the chain.
    pub occurrence: usize,
    /// What the route says.
    pub value: Arc<[u8]>,
}

impl ConfigurationPlace {
    fn id(&self) -> ConfigurationId {
        let mut bytes = Vec::new();
        for part in [&*self.route, &*self.plugin, &*self.value] {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part);
        }
        bytes.extend_from_slice(&(self.occurrence as u64).to_le_bytes());
        Digest::of(&bytes)
    }
}

/// A generation's configurations, each with its place.
pub type Configurations = Vec<(ConfigurationPlace, Arc<Configured>)>;

/// What a generation has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftState {
    /// The plugin.
    pub plugin: PluginName,
    /// The version that has left it.
    pub version: Version,
    /// The plugin's own.
    pub own: Option<StateBlob>,
    /// Those of its configurations.
    pub configurations: Vec<(ConfigurationId, StateBlob)>,
}

/// Things that went wrong in the same way, of which the log names the first.
#[derive(Default)]
struct Troubles {
    first: Option<String>,
    count: usize,
}

impl Troubles {
    fn note(&mut self, trouble: impl Display) {
        self.count += 1;
        self.first.get_or_insert_with(|| trouble.to_string());
    }

    fn tell(self, generation: &Generation, what: &str) {
        if let Some(first) = self.first {
            tracing::warn!(
                plugin = %generation.name(),
                version = %generation.version(),
                reason = first,
                count = self.count,
                "{what}"
            );
        }
    }
}

impl LeftState {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.own.is_none() && self.configurations.is_empty()
    }

    fn bytes(&self) -> usize {
        let configurations = self.configurations.iter().map(|(_, state)| state);
        let states = self.own.iter().chain(configurations);
        states.map(|state| state.data.len()).sum()
    }

    /// What a generation leaves. Runs its code.
    pub fn save(generation: &Generation, configurations: &Configurations) -> Self {
        let mut left = Self {
            plugin: generation.name().clone(),
            version: generation.version().clone(),
            own: None,
            configurations: Vec::new(),
        };
        let mut troubles = Troubles::default();
        let mut room = MAX_PLUGIN_STATE_BYTES;
        left.own = within(generation.save_state(), &mut room, &mut troubles);
        for (place, configured) in configurations {
            let state = within(configured.save_state(), &mut room, &mut troubles);
            left.configurations
                .extend(state.map(|state| (place.id(), state)));
        }
        troubles.tell(
            generation,
            "what is not saved begins anew in the next generation",
        );
        if !left.is_empty() {
            tracing::debug!(
                plugin = %left.plugin,
                version = %left.version,
                configurations = left.configurations.len(),
                bytes = left.bytes(),
                "state saved for the next generation"
            );
        }
        left
    }

    /// Gives it to a generation, which may serve already. Runs its code.
    pub fn restore(self, generation: &Generation, configurations: &Configurations) {
        let mut troubles = Troubles::default();
        let mut taken = 0_usize;
        let mut take = |restored: Result<(), Failure>| match restored {
            Ok(()) => taken += 1,
            Err(failure) => troubles.note(failure),
        };
        if let Some(own) = self.own {
            take(generation.restore_state(own));
        }
        let mut left: HashMap<ConfigurationId, StateBlob> =
            self.configurations.into_iter().collect();
        for (place, configured) in configurations {
            if left.is_empty() {
                break;
            }
            if let Some(state) = left.remove(&place.id()) {
                take(configured.restore_state(state));
            }
        }
        troubles.tell(
            generation,
            "the state of the generation before is refused: it begins anew",
        );
        tracing::info!(
            plugin = %generation.name(),
            version = %generation.version(),
            from = %self.version,
            states = taken,
            without_a_configuration = left.len(),
            "state of the generation before taken over"
        );
    }
}

/// A state that fits; what does not, or could not be saved, is a trouble.
fn within(
    saved: Result<Option<StateBlob>, Failure>,
    room: &mut usize,
    troubles: &mut Troubles,
) -> Option<StateBlob> {
    let state = match saved {
        Ok(state) => state?,
        Err(failure) => {
            troubles.note(failure);
            return None;
        }
    };
    let bytes = state.data.len();
    if bytes > MAX_STATE_BYTES {
        troubles.note(format_args!(
            "a state of {bytes} bytes, where {MAX_STATE_BYTES} are the most"
        ));
        return None;
    }
    match room.checked_sub(bytes) {
        Some(left) => *room = left,
        None => {
            troubles.note(format_args!(
                "more than {MAX_PLUGIN_STATE_BYTES} bytes in all its states"
            ));
            return None;
        }
    }
    Some(state)
}
