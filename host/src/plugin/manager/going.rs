//! Plugins taken out of service, and roll-backs to what served before.

use std::{path::Path, sync::Arc};

use super::{
    Manager, Vetoes,
    changes::{Change, Told},
    error::RollbackError,
    slot::{Slot, Stored},
};
use crate::plugin::{
    event::EventKind,
    registry::{Generation, Missing, Requested},
};

impl Manager {
    /// Takes every version of a plugin out of service; its routes fail closed. Calls that have begun
    /// end with it; then `on_unload` runs, and the plugin is dropped. Returns before that.
    ///
    /// # Errors
    /// No such plugin is loaded.
    pub async fn unload(&self, name: &str) -> Result<(), Missing> {
        let requested = Requested::parse(name)?;
        let unloaded = self
            .unload_from(self.slots(), |generation| {
                *generation.name() == requested.name
            })
            .await;
        if unloaded == 0 {
            return Err(Missing::Unknown(requested.name));
        }
        Ok(())
    }

    /// Takes every plugin out of service, as [`Manager::unload`] does.
    pub async fn unload_all(&self) {
        self.unload_from(self.slots(), |_| true).await;
    }

    /// Takes what serves from one place out of service, as [`Manager::unload`] does. Returns
    /// whether anything served from there.
    pub async fn unload_place(&self, place: &Path) -> bool {
        let slot = self.slots.lock().get(place).cloned();
        if let Some(slot) = &slot {
            // Its files are new when they come back.
            slot.given.lock().tried = None;
        }
        let serving = slot.as_ref();
        let serving = serving.and_then(|slot| slot.given.lock().serving.clone());
        let is_unloaded = self.unload_from(slot, |_| true).await > 0;
        if let (true, Some(gone)) = (is_unloaded, serving) {
            self.tell(EventKind::Remove, gone.origin().build(), Told::default());
        }
        is_unloaded
    }

    pub(super) fn slots(&self) -> Vec<Arc<Slot>> {
        self.slots.lock().values().cloned().collect()
    }

    pub(super) async fn unload_from(
        &self,
        slots: impl IntoIterator<Item = Arc<Slot>>,
        chosen: impl Fn(&Generation) -> bool,
    ) -> usize {
        let mut unloaded = 0;
        for slot in slots {
            let _turn = slot.turn.lock().await;
            let serving = slot.given.lock().serving.clone();
            let Some(generation) = serving.filter(|generation| chosen(generation)) else {
                continue;
            };
            self.swap(|snapshot| snapshot.without(&generation)).await;
            let mut given = slot.given.lock();
            given.serving = None;
            given.previous = Some(Stored::of(&generation));
            self.retired.retire(generation);
            self.changes.count(Change::Unloaded);
            unloaded += 1;
        }
        if unloaded > 0 {
            self.keep().await;
            self.compile_all().await;
        }
        unloaded
    }

    /// Goes back to what served before from the same place. The operator's file is not needed, and
    /// is not loaded again until it changes.
    ///
    /// # Errors
    /// There is nothing to go back to, or it does not load; nothing has changed.
    pub async fn rollback(
        &self,
        requested: &str,
        vetoes: Vetoes,
        by: Option<String>,
    ) -> Result<Arc<Generation>, RollbackError> {
        let wanted = Requested::parse(requested)?;
        if self.is_disabled(&wanted.name) {
            return Err(RollbackError::Disabled(wanted.name.to_string()));
        }
        let mut known: Vec<(Arc<Slot>, semver::Version)> = Vec::new();
        for slot in self.slots() {
            let origin = slot.given.lock().origin().cloned();
            if let Some(origin) = origin
                && wanted.fits(&origin.metadata.name, &origin.metadata.version)
            {
                known.push((slot, origin.metadata.version.clone()));
            }
        }
        let slot = match &known[..] {
            [] => return Err(Missing::Unknown(wanted.name).into()),
            [(slot, _)] => slot,
            several => {
                let versions: Vec<String> = several
                    .iter()
                    .map(|(_, version)| version.to_string())
                    .collect();
                return Err(RollbackError::Several {
                    name: wanted.name.to_string(),
                    versions: versions.join(", "),
                });
            }
        };
        // What is being loaded there at the moment is what the operator wants to leave.
        drop(slot.turn.lock().await);
        let previous = slot.given.lock().previous.clone();
        let previous =
            previous.ok_or_else(|| RollbackError::NothingBefore(requested.to_owned()))?;
        let candidate = previous.candidate().map_err(RollbackError::Copy)?;
        let (before, build) = (slot.given.lock().serving.clone(), candidate.build());
        let loaded = self.replace(slot, candidate, vetoes, None).await;
        self.changes.count(match &loaded {
            Ok(_) => Change::RolledBack,
            Err(_) => Change::Refused,
        });
        let error = loaded.as_ref().err();
        let told = Told {
            before: before.as_deref(),
            refused: error,
            by,
        };
        self.tell(EventKind::Rollback, build, told);
        self.keep().await;
        Ok(loaded?)
    }
}
