//! States of plugins on their way from one generation to the next, within this process and to and
//! from another one.
//!
//! Nothing waits for a plugin longer than [`STATE_TIME`] at a time, and nothing that serves depends on
//! it.

use std::sync::Arc;

use futures_util::future::join_all;

use super::{Manager, construct::on_a_thread_of_its_own};
use crate::plugin::{
    registry::{Generation, Requested, Snapshot},
    state::{Configurations, LeftState, STATE_TIME},
};

/// A generation that is about to go, with its configurations, which would be gone before it.
pub(super) struct Leaving {
    generation: Arc<Generation>,
    configurations: Configurations,
}

impl Manager {
    /// What a generation has, before anything else takes its place.
    pub(super) fn leaving(&self, generation: &Arc<Generation>) -> Leaving {
        Leaving {
            generation: Arc::clone(generation),
            configurations: self.compiler.configurations_of(generation),
        }
    }

    /// Gives the state of a generation that gets no new calls to the one that serves in its place.
    pub(super) async fn hand_state_over(&self, leaving: Leaving, to: &Arc<Generation>) {
        if leaving.generation.name() == to.name()
            && let Some(left) = save(leaving).await
        {
            self.give_state(left, Arc::clone(to)).await;
        }
    }

    /// What all plugins leave to another process, when calls go there.
    pub async fn save_states(&self) -> Vec<LeftState> {
        let snapshot = self.registry.current();
        let leaving = snapshot
            .generations()
            .map(|generation| save(self.leaving(generation)));
        join_all(leaving).await.into_iter().flatten().collect()
    }

    /// Gives plugins what they have left in another process: each state to the same version, or else
    /// to what serves.
    pub async fn restore_states(&self, states: Vec<LeftState>) {
        let snapshot = self.registry.current();
        let restoring = states.into_iter().filter_map(|left| {
            let heir = heir_of(&left, &snapshot)?;
            Some(self.give_state(left, heir))
        });
        join_all(restoring).await;
    }

    async fn give_state(&self, left: LeftState, to: Arc<Generation>) {
        let configurations = self.compiler.configurations_of(&to);
        let (plugin, version) = (to.name().clone(), to.version().clone());
        let restoring = on_a_thread_of_its_own("state", move || left.restore(&to, &configurations));
        match tokio::time::timeout(STATE_TIME, restoring).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%plugin, %version, error, "the state cannot be taken over");
            }
            Err(_) => tracing::warn!(
                %plugin,
                %version,
                seconds = STATE_TIME.as_secs(),
                "the plugin has not taken its state over yet; it serves all the same"
            ),
        }
    }
}

/// What a generation leaves; nothing where it takes too long.
async fn save(leaving: Leaving) -> Option<LeftState> {
    let plugin = leaving.generation.name().clone();
    let version = leaving.generation.version().clone();
    let saving = on_a_thread_of_its_own("state", move || {
        LeftState::save(&leaving.generation, &leaving.configurations)
    });
    match tokio::time::timeout(STATE_TIME, saving).await {
        Ok(Ok(left)) => Some(left).filter(|left| !left.is_empty()),
        Ok(Err(error)) => {
            tracing::warn!(%plugin, %version, error, "the state cannot be saved");
            None
        }
        Err(_) => {
            tracing::warn!(
                %plugin,
                %version,
                seconds = STATE_TIME.as_secs(),
                "the plugin has not saved its state in time: the next generation begins anew"
            );
            None
        }
    }
}

fn heir_of(left: &LeftState, snapshot: &Snapshot) -> Option<Arc<Generation>> {
    let same = snapshot.generations().find(|generation| {
        *generation.name() == left.plugin && *generation.version() == left.version
    });
    let requested = Requested {
        name: left.plugin.clone(),
        requirement: None,
    };
    same.or_else(|| snapshot.resolve(&requested).ok()).cloned()
}
