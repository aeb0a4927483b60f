//! What operators ask the keeper for, one thing after the other.

use tokio::sync::oneshot;

use super::Keeper;
use crate::plugin::{
    disabled::DisabledPlugin,
    discovery::Candidate,
    manager::{NotDisabled, NotQuarantined, QuarantineError, RollbackError, SetAside, Vetoes},
    metadata::PluginName,
    registry::{Missing, Requested},
    scan::{Scan, Seen},
};

/// What an operator asks for.
#[derive(Debug)]
pub enum Request {
    /// Look at the plugin directory now, and try again what failed.
    Reload {
        /// Whether live configurations may be lost.
        vetoes: Vetoes,
        /// Answered when everything that was found has been tried.
        done: oneshot::Sender<Reloaded>,
    },
    /// Go back to what served before.
    Rollback {
        /// `name` or `name@requirement`.
        plugin: String,
        /// Whether live configurations may be lost.
        vetoes: Vetoes,
        /// Who asked.
        by: String,
        /// The version that serves now, or why not.
        done: oneshot::Sender<Result<String, RollbackError>>,
    },
    /// Trust a plugin with the event loops again that was found to hold them up.
    Unblock {
        /// `name` or `name@requirement`.
        plugin: String,
        /// The generations that this was done to, or why it was not.
        done: oneshot::Sender<Result<Vec<String>, Missing>>,
    },
    /// Let versions be loaded again that are in quarantine, and try them.
    Lift {
        /// The plugin's name.
        plugin: String,
        /// Answered when its files have been tried.
        done: oneshot::Sender<Result<Reloaded, NotQuarantined>>,
    },
    /// Look at the plugin directory now, and try again what failed of one plugin.
    Upgrade {
        /// `name` or `name@requirement`.
        plugin: String,
        /// Whether live configurations may be lost.
        vetoes: Vetoes,
        /// Answered when what was found of it has been tried; an error where there is none.
        done: oneshot::Sender<Result<Reloaded, Missing>>,
    },
    /// Take a plugin out of service.
    Disable {
        /// The plugin, and who asked for it.
        plugin: DisabledPlugin,
        /// Name and version of what served.
        done: oneshot::Sender<Vec<String>>,
    },
    /// Let a plugin serve again that is disabled.
    Enable {
        /// Its name.
        plugin: PluginName,
        /// Answered when it serves, or has been tried.
        done: oneshot::Sender<Result<Reloaded, NotDisabled>>,
    },
    /// Put the build of a plugin that serves into quarantine.
    Quarantine {
        /// `name` or `name@requirement`.
        plugin: String,
        /// What that did, or why it was not done.
        done: oneshot::Sender<Result<SetAside, QuarantineError>>,
    },
}

/// What came of a reload.
#[derive(Debug, Default, Clone, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Reloaded {
    /// Plugins that serve anew, each with its version.
    pub loaded: Vec<String>,
    /// What is wrong, each with the next step.
    pub problems: Vec<String>,
}

impl Keeper {
    /// Tries what the directory holds of one plugin, also where that failed before. What else has
    /// changed is tried as ever, and not told of.
    async fn upgrade(&mut self, plugin: &str, vetoes: Vetoes) -> Result<Reloaded, Missing> {
        let wanted = Requested::parse(plugin)?;
        for status in self.manager.status().plugins {
            if status.name.as_deref() == Some(wanted.name.as_str())
                && self.failed.remove(&status.place)
            {
                self.eyes().scanner.forget(&status.place);
            }
        }
        let scan = self.scan_settled().await;
        let mut is_known = self.manager.get(plugin).is_ok();
        let is_meant = |candidate: &Candidate| {
            wanted.fits(&candidate.metadata.name, &candidate.metadata.version)
        };
        let mut others = Scan {
            plugins: Vec::new(),
            ..scan
        };
        for seen in scan.plugins {
            match seen {
                Seen::Changed(candidate) if is_meant(&candidate) => {
                    is_known = true;
                    self.gone.remove(&candidate.place);
                    self.start(*candidate, vetoes);
                }
                Seen::Unchanged(place) if wanted.fits(&place.name, &place.version) => {
                    is_known = true;
                    others.plugins.push(Seen::Unchanged(place));
                }
                seen => others.plugins.push(seen),
            }
        }
        let problems = self.take_in(others, Vetoes::Count).await;
        let mut upgraded = Reloaded::default();
        while let Some(tried) = self.loading.join_next().await {
            match self.finish(tried) {
                Some((name, result)) if name == wanted.name => match result {
                    Ok(loaded) => upgraded.loaded.push(loaded),
                    Err(problem) => upgraded.problems.push(problem),
                },
                _ => {}
            }
        }
        if !is_known && upgraded.loaded.is_empty() && upgraded.problems.is_empty() {
            // What cannot be read has no name: whoever asks for a plugin by name may mean that.
            if problems.is_empty() {
                return Err(Missing::Unknown(wanted.name));
            }
            upgraded.problems = problems;
        }
        Ok(upgraded)
    }

    async fn enable(&mut self, plugin: &PluginName) -> Result<Reloaded, NotDisabled> {
        let enabled = self.manager.enable(plugin).await;
        let enabled = enabled.ok_or_else(|| NotDisabled(plugin.to_string()))?;
        for place in &enabled.places {
            self.eyes().scanner.forget(place);
        }
        let mut reloaded = match enabled.places.is_empty() {
            true => Reloaded::default(),
            false => self.reload(Vetoes::Count).await,
        };
        reloaded.loaded.splice(0..0, enabled.serving);
        reloaded.problems.extend(enabled.problems);
        Ok(reloaded)
    }

    pub(super) async fn serve(&mut self, request: Request) {
        match request {
            Request::Reload { vetoes, done } => {
                for place in std::mem::take(&mut self.failed) {
                    self.eyes().scanner.forget(&place);
                }
                self.eyes().scanner.tell_again();
                // Who asked may have gone away meanwhile.
                let _ = done.send(self.reload(vetoes).await);
            }
            Request::Lift { plugin, done } => {
                let lifted = match self.manager.lift(&plugin).await {
                    Ok(lifted) => {
                        for place in &lifted.places {
                            self.eyes().scanner.forget(place);
                        }
                        Ok(self.reload(Vetoes::Count).await)
                    }
                    Err(error) => Err(error),
                };
                let _ = done.send(lifted);
            }
            Request::Rollback {
                plugin,
                vetoes,
                by,
                done,
            } => {
                let rolled_back = self.manager.rollback(&plugin, vetoes, Some(by)).await;
                let _ = done.send(rolled_back.map(|generation| format!("{generation:?}")));
            }
            Request::Unblock { plugin, done } => {
                let _ = done.send(self.manager.lift_label(&plugin));
            }
            Request::Upgrade {
                plugin,
                vetoes,
                done,
            } => {
                let _ = done.send(self.upgrade(&plugin, vetoes).await);
            }
            Request::Disable { plugin, done } => {
                let _ = done.send(self.manager.disable(plugin).await);
            }
            Request::Enable { plugin, done } => {
                let _ = done.send(self.enable(&plugin).await);
            }
            Request::Quarantine { plugin, done } => {
                let _ = done.send(self.manager.quarantine(&plugin).await);
            }
        }
    }
}
