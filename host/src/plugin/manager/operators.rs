//! What operators decide about a plugin against its files: out of service and back, and a build of it
//! into quarantine.

use std::path::PathBuf;

use super::{
    Manager, Vetoes,
    slot::{Slot, Stored},
};
use crate::plugin::{
    disabled::DisabledPlugin,
    metadata::{Build, PluginName},
    registry::{Missing, Requested},
};

/// What came of enabling a plugin.
#[derive(Debug, Default)]
pub struct Enabled {
    /// Name and version of what serves again.
    pub serving: Vec<String>,
    /// What does not, and why.
    pub problems: Vec<String>,
    /// Places whose files are to be tried: they have changed meanwhile, or never served.
    pub places: Vec<PathBuf>,
}

/// A build that an operator has put into quarantine.
#[derive(Debug)]
pub struct SetAside {
    /// Which.
    pub build: Build,
    /// Name and version of what serves in its place; none where its routes fail closed.
    pub serving_instead: Option<String>,
}

/// Nothing was put into quarantine: the operator's to say otherwise.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// No such plugin serves.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// Several versions stand side by side.
    #[error("plugin `{name}` has several versions ({versions}): say which, like `{name}@=VERSION`")]
    Several {
        /// The plugin.
        name: String,
        /// Its versions.
        versions: String,
    },
}

impl Manager {
    /// Plugins that an operator has taken out of service.
    pub fn disabled(&self) -> std::sync::Arc<[DisabledPlugin]> {
        self.keeping.disabled()
    }

    pub(super) fn is_disabled(&self, name: &PluginName) -> bool {
        self.disabled()
            .iter()
            .any(|disabled| disabled.name == *name)
    }

    /// Takes every version of a plugin out of service until it is enabled; its routes fail closed, and
    /// none of its files is loaded. Returns name and version of what served.
    pub async fn disable(&self, plugin: DisabledPlugin) -> Vec<String> {
        let mut disabled = self.disabled().to_vec();
        let name = plugin.name.clone();
        if !self.is_disabled(&name) {
            disabled.push(plugin);
            self.keeping.set_disabled(disabled);
        }
        let mut served = Vec::new();
        for slot in self.slots() {
            let _turn = slot.turn.lock().await;
            let serving = slot.given.lock().serving.clone();
            let Some(generation) = serving.filter(|serving| *serving.name() == name) else {
                continue;
            };
            self.swap(|snapshot| snapshot.without(&generation)).await;
            let mut given = slot.given.lock();
            given.serving = None;
            given.set_aside = Some(Stored::of(&generation));
            served.push(format!("{generation:?}"));
            self.retired.retire(generation);
        }
        // Also where nothing served: its routes are told another reason now.
        self.swap(Clone::clone).await;
        self.keep().await;
        self.compile_all().await;
        served
    }

    /// Lets a plugin serve again that was taken out of service: what served then, or, where its files
    /// have changed meanwhile, those. None where it was not disabled.
    pub async fn enable(&self, name: &PluginName) -> Option<Enabled> {
        if !self.is_disabled(name) {
            return None;
        }
        let mut disabled = self.disabled().to_vec();
        disabled.retain(|disabled| disabled.name != *name);
        self.keeping.set_disabled(disabled);
        let mut enabled = Enabled::default();
        let slots = self.slots.lock().clone();
        for (place, slot) in slots {
            if slot.given.lock().name() != Some(name) {
                continue;
            }
            if self.put_back(&slot, &mut enabled).await {
                continue;
            }
            slot.given.lock().tried = None;
            enabled.places.push(place);
        }
        self.swap(Clone::clone).await;
        self.keep().await;
        Some(enabled)
    }

    /// Lets what was set aside serve again; whether nothing else is to be tried there.
    async fn put_back(&self, slot: &Slot, enabled: &mut Enabled) -> bool {
        let (set_aside, has_changed) = {
            let mut given = slot.given.lock();
            let has_changed = std::mem::take(&mut given.has_changed);
            (given.set_aside.take(), has_changed)
        };
        let Some(set_aside) = set_aside else {
            return false;
        };
        if has_changed {
            // Its own files are newer; a roll-back leads to what served.
            slot.given.lock().previous = Some(set_aside);
            return false;
        }
        let candidate = match set_aside.candidate() {
            Ok(candidate) => candidate,
            Err(error) => {
                enabled.problems.push(error);
                return false;
            }
        };
        match self.replace(slot, candidate, Vetoes::Overruled, None).await {
            Ok(generation) => enabled.serving.push(format!("{generation:?}")),
            Err(error) => enabled.problems.push(error.to_string()),
        }
        true
    }

    /// Puts the build of a plugin that serves into quarantine: it is not loaded until that is lifted or
    /// another file comes. What served before it serves in its place, or its routes fail closed.
    ///
    /// # Errors
    /// No such plugin serves, or several versions do and it is not said which.
    pub async fn quarantine(&self, requested: &str) -> Result<SetAside, QuarantineError> {
        let wanted = Requested::parse(requested)?;
        let mut meant = Vec::new();
        for slot in self.slots() {
            let serving = slot.given.lock().serving.clone();
            if let Some(generation) = serving
                && wanted.fits(generation.name(), generation.version())
            {
                meant.push((slot, generation));
            }
        }
        let (slot, bad) = match &meant[..] {
            [] => return Err(Missing::Unknown(wanted.name).into()),
            [(slot, generation)] => (slot, generation),
            several => {
                let versions: Vec<String> = several
                    .iter()
                    .map(|(_, generation)| generation.version().to_string())
                    .collect();
                return Err(QuarantineError::Several {
                    name: wanted.name.to_string(),
                    versions: versions.join(", "),
                });
            }
        };
        let build = bad.origin().build();
        let mut quarantined = self.keeping.quarantined().to_vec();
        quarantined.push(build.clone());
        self.keeping.set_quarantined(quarantined);

        let before = slot.given.lock().previous.clone();
        let before = before.and_then(|before| before.candidate().ok());
        let instead = match before {
            Some(before) => self
                .replace(slot, before, Vetoes::Overruled, None)
                .await
                .ok(),
            None => None,
        };
        if instead.is_none() {
            self.unload_from([std::sync::Arc::clone(slot)], |generation| {
                generation.number() == bad.number()
            })
            .await;
        }
        {
            let mut given = slot.given.lock();
            // What was taken out is no version to go back to.
            if let Some(stored) = given
                .previous
                .take_if(|previous| previous.origin.digest == build.digest)
            {
                given.quarantine(stored);
            }
        }
        self.swap(Clone::clone).await;
        self.keep().await;
        self.compile_all().await;
        Ok(SetAside {
            build,
            serving_instead: instead.map(|generation| format!("{generation:?}")),
        })
    }
}
