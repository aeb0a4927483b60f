//! What has to happen so that a plugin directory has what `plugins.toml` declares: found out first, done
//! step by step then.
//!
//! What is there and fits stays, however new its source's version is: `update` is for that. What was not
//! installed by these commands is left alone.

use semver::{Version, VersionReq};

use super::{Installed, Installer, error::InstallError};
use crate::{
    install::declared::Wanted,
    plugin::{lock::Locked, metadata::PluginName},
    sources::{Resolved, Source},
};

/// Something that has to happen, or not.
#[derive(Debug)]
pub enum Step {
    /// It is there, and fits.
    Keep(Locked),
    /// It is locked, and its bytes have to come.
    Restore(Locked),
    /// What its source has now has to come, in the place of these versions.
    Install {
        /// What its source has.
        resolved: Box<Resolved>,
        /// Which versions will do.
        version: VersionReq,
        /// What is there.
        from: Vec<Version>,
    },
    /// It is declared no more.
    Remove(Vec<Version>),
}

/// What has to happen with one plugin, or why nobody knows.
#[derive(Debug)]
pub struct Planned {
    /// The plugin.
    pub name: PluginName,
    /// The step.
    pub step: Result<Step, InstallError>,
}

/// What was done.
#[derive(Debug, PartialEq, Eq)]
pub enum Done {
    /// It is there now.
    Installed(Installed),
    /// These versions have gone.
    Removed(PluginName, Vec<Version>),
}

impl Installer<'_> {
    /// What has to happen so that the directory has what is declared, and of what these commands have
    /// installed nothing else. With `exactly`, only what is locked may come.
    #[must_use]
    pub fn plan(&self, declared: &[Wanted], exactly: bool) -> Vec<Planned> {
        let wanted = declared.iter().map(|wanted| Planned {
            name: wanted.name.clone(),
            step: self.step(wanted, exactly),
        });
        let mut gone: Vec<PluginName> = self.lock.plugins().map(|it| it.name.clone()).collect();
        gone.dedup();
        gone.retain(|name| declared.iter().all(|wanted| wanted.name != *name));
        let gone = gone.into_iter().map(|name| Planned {
            step: Ok(Step::Remove(self.versions(&name))),
            name,
        });
        wanted.chain(gone).collect()
    }

    fn step(&self, wanted: &Wanted, exactly: bool) -> Result<Step, InstallError> {
        let locked = self.lock.plugins().find(|locked| {
            locked.name == wanted.name
                && wanted.version.matches(&locked.version)
                && is_from(locked, &wanted.source)
        });
        match locked {
            Some(locked) if self.is_there(locked) => return Ok(Step::Keep(locked.clone())),
            Some(locked) => return Ok(Step::Restore(locked.clone())),
            None if exactly => {
                return Err(InstallError::NotLocked {
                    plugin: wanted.name.clone(),
                    source_of: wanted.source.to_string(),
                    requirement: wanted.version.clone(),
                });
            }
            None => {}
        }
        let resolved = self.sources.resolve(&wanted.source, &wanted.version)?;
        let same = self.lock.plugins().find(|locked| {
            locked.name == wanted.name
                && wanted.version.matches(&locked.version)
                && locked.source == resolved.source.to_string()
                && resolved.pin.is_of(locked)
                && self.is_there(locked)
        });
        Ok(match same {
            Some(locked) => Step::Keep(locked.clone()),
            None => Step::Install {
                resolved: Box::new(resolved),
                version: wanted.version.clone(),
                from: self.versions(&wanted.name),
            },
        })
    }

    /// Does what was planned for one plugin.
    ///
    /// # Errors
    /// Nobody knows what to do, or it cannot be done; the directory is as it was.
    pub fn carry_out(&mut self, planned: Planned) -> Result<Done, InstallError> {
        let name = planned.name;
        let installed = match planned.step? {
            Step::Keep(locked) => Installed::unchanged(&locked),
            Step::Restore(locked) => self.put_locked(&locked)?,
            Step::Install {
                resolved, version, ..
            } => self.put(&resolved, &version, Some(&name))?,
            Step::Remove(_) => {
                let versions = self.remove(&name)?;
                return Ok(Done::Removed(name, versions));
            }
        };
        Ok(Done::Installed(installed))
    }
}

/// Whether what is locked is from a source, as far as that can be told without asking it.
fn is_from(locked: &Locked, source: &Source) -> bool {
    match source {
        // What is in the file now is known at once.
        Source::File(_) => false,
        source if locked.source == source.to_string() => true,
        // A version of it was chosen when it was locked.
        Source::Git(_) | Source::Oci(_) if source.clone().unpinned() == *source => locked
            .source
            .parse::<Source>()
            .is_ok_and(|of_lock| of_lock.unpinned() == *source),
        _ => false,
    }
}
