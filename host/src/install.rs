//! Puts packages into a plugin directory and takes them out again, and keeps `plugins.lock` true to it.
//!
//! A package is judged as a host judges it, the operator's policy on signatures included, before anything
//! of it is in the directory under a name that hosts look at. It lands whole, after its signature, as
//! `NAME-VERSION.plg`; hosts that run there notice it by themselves. Nothing here loads a library.

pub mod declared;
mod error;
pub mod plan;
mod place;

use std::{path::PathBuf, sync::Arc};

use semver::{Version, VersionReq};

use crate::{
    plugin::{
        discovery::discover_one,
        lock::{Lock, Locked},
        metadata::{Digest, PluginName},
        package::{Package, Platform},
        signature::Trust,
    },
    sources::{Fetched, Pin, Resolved, Source, SourceError, Sources},
};

use declared::Wanted;
pub use error::InstallError;
use place::Place;

/// A plugin directory that is changed by this process alone.
pub struct Installer<'a> {
    place: Place,
    trust: Arc<Trust>,
    sources: Sources<'a>,
    lock: Lock,
}

/// What has become of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The plugin.
    pub name: PluginName,
    /// Its version.
    pub version: Version,
    /// Versions of it that have gone.
    pub replaced: Vec<Version>,
    /// Whether anything is different from before.
    pub changed: bool,
}

impl Installed {
    /// It was there already.
    fn unchanged(locked: &Locked) -> Self {
        Self {
            name: locked.name.clone(),
            version: locked.version.clone(),
            replaced: Vec::new(),
            changed: false,
        }
    }
}

/// What a source has for a plugin that is there.
#[derive(Debug)]
pub struct Outlook {
    /// The plugin as it is locked.
    pub locked: Locked,
    /// Which versions may take its place.
    pub version: VersionReq,
    /// What its source means now; none where it is pinned by its digest.
    pub now: Option<Result<Resolved, SourceError>>,
}

impl Outlook {
    /// Whether the source has something else than what is there.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        matches!(&self.now, Some(Ok(resolved)) if !resolved.pin.is_of(&self.locked))
    }
}

impl<'a> Installer<'a> {
    /// Takes a plugin directory, which is made where there is none, for this process alone.
    ///
    /// # Errors
    /// Somebody else changes it, or its lock file is none.
    pub fn new(
        directory: PathBuf,
        trust: &Arc<Trust>,
        sources: Sources<'a>,
    ) -> Result<Self, InstallError> {
        let place = Place::take(directory)?;
        let lock = place.read_lock()?;
        Ok(Self {
            place,
            trust: Arc::clone(trust),
            sources,
            lock,
        })
    }

    /// Installs what a source means now, in the place of other versions that were installed.
    ///
    /// # Errors
    /// It cannot be had, or is no good; the directory is as it was.
    pub fn install(
        &mut self,
        source: &Source,
        requirement: &VersionReq,
    ) -> Result<Installed, InstallError> {
        let resolved = self.sources.resolve(source, requirement)?;
        self.put(&resolved, requirement, None)
    }

    /// Makes the directory what `plugins.lock` says, byte by byte. Plugins that it does not name stay.
    ///
    /// # Errors
    /// What can be had now is something else than what is locked, or is no good.
    pub fn install_locked(&mut self) -> Result<Vec<Installed>, InstallError> {
        let all: Vec<_> = self.lock.plugins().cloned().collect();
        let mut installed = Vec::new();
        for locked in all {
            installed.push(match self.is_there(&locked) {
                true => Installed::unchanged(&locked),
                false => self.put_locked(&locked)?,
            });
        }
        Ok(installed)
    }

    /// Gets the very bytes that are locked.
    fn put_locked(&mut self, locked: &Locked) -> Result<Installed, InstallError> {
        let fetched = self.sources.fetch(&Resolved::of(locked)?)?;
        let judged = self.judge(&fetched)?;
        if (&judged.name, &judged.version) != (&locked.name, &locked.version) {
            return Err(InstallError::OtherPlugin {
                from: locked.source.clone(),
                wanted: format!("{} {}", locked.name, locked.version),
                found: format!("{} {}", judged.name, judged.version),
            });
        }
        self.place.put(&judged.name, &judged.version, &fetched)?;
        Ok(Installed {
            changed: true,
            ..Installed::unchanged(locked)
        })
    }

    /// What the sources of plugins have now: of all, or of one. Where a plugin is declared, what is
    /// declared of its version holds.
    ///
    /// # Errors
    /// There is no such plugin.
    pub fn outlook(
        &self,
        only: Option<&PluginName>,
        declared: &[Wanted],
    ) -> Result<Vec<Outlook>, InstallError> {
        let wanted = self.lock.plugins();
        let wanted: Vec<_> = wanted
            .filter(|locked| only.is_none_or(|name| *name == locked.name))
            .collect();
        if let (Some(name), []) = (only, &wanted[..]) {
            return Err(InstallError::NotInstalled(name.clone()));
        }
        let outlook = |locked: &Locked| {
            let declared = declared.iter().find(|wanted| wanted.name == locked.name);
            let version = declared.map_or(VersionReq::STAR, |wanted| wanted.version.clone());
            let now = match locked.source.parse::<Source>() {
                Ok(Source::Https(_)) => None,
                Ok(source) => Some(self.sources.resolve(&source.unpinned(), &version)),
                Err(error) => Some(Err(error.into())),
            };
            Outlook {
                locked: locked.clone(),
                version,
                now,
            }
        };
        Ok(wanted.into_iter().map(outlook).collect())
    }

    /// Installs what a source has in the place of what is there.
    ///
    /// # Errors
    /// As for [`Installer::install`]; or it is another plugin.
    pub fn update(&mut self, outlook: Outlook) -> Result<Installed, InstallError> {
        let locked = outlook.locked;
        let unchanged = Installed::unchanged(&locked);
        match outlook.now {
            None => Ok(unchanged),
            Some(now) => {
                let resolved = now?;
                match resolved.pin.is_of(&locked) && self.is_there(&locked) {
                    true => Ok(unchanged),
                    false => self.put(&resolved, &outlook.version, Some(&locked.name)),
                }
            }
        }
    }

    /// Removes every version of a plugin that was installed; gives which.
    ///
    /// # Errors
    /// None was, or the files cannot be removed.
    pub fn remove(&mut self, name: &PluginName) -> Result<Vec<Version>, InstallError> {
        let versions = self.versions(name);
        if versions.is_empty() {
            return Err(InstallError::NotInstalled(name.clone()));
        }
        for version in &versions {
            self.place.remove(name, version)?;
            self.lock.remove(name, version);
        }
        self.place.write_lock(&self.lock)?;
        Ok(versions)
    }

    fn put(
        &mut self,
        resolved: &Resolved,
        requirement: &VersionReq,
        expected: Option<&PluginName>,
    ) -> Result<Installed, InstallError> {
        let known = self.lock.plugins().find(|locked| {
            resolved.pin.is_of(locked)
                && locked.source == resolved.source.to_string()
                && self.is_there(locked)
        });
        if let Some(known) = known {
            return Ok(Installed::unchanged(known));
        }
        let fetched = self.sources.fetch(resolved)?;
        let mut locked = self.judge(&fetched)?;
        let (name, version) = (locked.name.clone(), locked.version.clone());
        if let Some(expected) = expected.filter(|expected| **expected != name) {
            return Err(InstallError::OtherPlugin {
                from: locked.source,
                wanted: expected.to_string(),
                found: format!("{name} {version}"),
            });
        }
        if !requirement.matches(&version) {
            return Err(InstallError::OtherVersion {
                plugin: name,
                version,
                requirement: requirement.clone(),
            });
        }
        match self.lock.get(&name, &version) {
            None => self.place.is_free(&name, &version)?,
            // What the same commit has become on other platforms holds.
            Some(known) if known.commit.is_some() && known.commit == locked.commit => {
                for (platform, digest) in &known.libraries {
                    locked.libraries.entry(platform.clone()).or_insert(*digest);
                }
            }
            Some(_) => {}
        }
        let before = self.versions(&name);
        let replaced: Vec<_> = before.into_iter().filter(|old| *old != version).collect();
        self.place.put(&name, &version, &fetched)?;
        self.lock.put(locked);
        for old in &replaced {
            self.place.remove(&name, old)?;
            self.lock.remove(&name, old);
        }
        self.place.write_lock(&self.lock)?;
        Ok(Installed {
            name,
            version,
            replaced,
            changed: true,
        })
    }

    fn versions(&self, name: &PluginName) -> Vec<Version> {
        let all = self.lock.plugins().filter(|locked| locked.name == *name);
        all.map(|locked| locked.version.clone()).collect()
    }

    /// Whether these very bytes are installed.
    fn is_there(&self, locked: &Locked) -> bool {
        let Some(bytes) = self.place.read(&locked.name, &locked.version) else {
            return false;
        };
        match locked.package {
            Some(package) => Digest::of(&bytes) == package,
            None => {
                let library = Package::read(&bytes, &Platform::of_this_host())
                    .and_then(|mut package| package.take_library());
                let wanted = locked.libraries.get(&Platform::of_this_host());
                library.is_ok_and(|library| Some(&library.digest) == wanted)
            }
        }
    }

    /// What a host would say of it: all of it, before a host can see it. What nobody vouches for is not
    /// even taken apart where signatures are required.
    fn judge(&self, fetched: &Fetched) -> Result<Locked, InstallError> {
        let source = fetched.source.to_string();
        let signature = self
            .trust
            .judge(&fetched.package, fetched.signature.as_deref());
        if self.trust.is_on() {
            self.trust
                .admit(&signature)
                .map_err(|refused| InstallError::Refused {
                    from: source.clone(),
                    next_step: refused.next_step(),
                    refused: Box::new(refused),
                })?;
        }
        let platform = Platform::of_this_host();
        let package = Package::read(&fetched.package, &platform).map_err(SourceError::Package)?;
        let (name, version) = (package.manifest.name, package.manifest.version);
        let staged = self.place.stage(&name, &version, fetched)?;
        let discovery = discover_one(staged.package(), &self.trust);
        let Some(found) = discovery.found.into_iter().next() else {
            let problems = discovery.problems.iter();
            let problems = problems.map(|it| format!("{} ({})", it.cause, it.next_step()));
            return Err(InstallError::NoGood {
                from: source,
                reason: problems.collect::<Vec<_>>().join("; "),
            });
        };
        let built = fetched.commit.is_some();
        Ok(Locked {
            name,
            version,
            source,
            commit: fetched.commit.clone(),
            signer: found
                .signature
                .as_ref()
                .and_then(|signature| signature.signer())
                .map(|signer| signer.key_id.clone()),
            package: (!built).then(|| Digest::of(&fetched.package)),
            libraries: [(platform, found.digest)].into(),
        })
    }
}

impl Resolved {
    /// The digest or commit in short, for people.
    #[must_use]
    pub fn short(&self) -> String {
        const DIGITS: usize = 12;
        let mut text = match &self.pin {
            Pin::Package(digest) => digest.to_string(),
            Pin::Commit(commit, _) => commit.clone(),
        };
        text.truncate(DIGITS);
        text
    }
}
