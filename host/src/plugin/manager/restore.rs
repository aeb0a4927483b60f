//! What one worker leaves to the next, seen from the manager: what served serves again at once, what
//! was refused is not tried again, and what worker processes have died in is not loaded.
//!
//! A generation that is restored has served before, so that it is neither rehearsed nor tried on
//! configurations. Where it cannot be restored, the one before it serves, and else the operator's
//! files are loaded like new ones. Nothing here looks into the plugin directory.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, sync::Mutex};

use super::{
    Manager,
    construct::on_a_thread_of_its_own,
    error::NotQuarantined,
    slot::{Given, Slot, Stored},
};
use crate::plugin::{
    disabled::DisabledPlugin,
    discovery::{Candidate, Cause, Files},
    kept::{Kept, KeptBuild, KeptError, KeptPlace, Ledger, Writer},
    metadata::{Build, Digest, PluginName},
    private_copy::{CopyError, PrivateCopy},
    registry::Generation,
};

/// How often it is looked whether another worker still writes.
const CLAIM_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// What is kept, and by whom.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// Builds that worker processes have died in.
    quarantined: parking_lot::Mutex<Arc<[Build]>>,
    /// Plugins that an operator has taken out of service.
    disabled: parking_lot::Mutex<Arc<[DisabledPlugin]>>,
    /// Plugins whose first loading an earlier worker began.
    awaited: parking_lot::Mutex<Vec<PluginName>>,
    /// How often it was asked to write the ledger: one writing may do for several.
    asked: AtomicU64,
    writing: Mutex<Writing>,
}

#[derive(Debug, Default)]
struct Writing {
    /// The right to write, where this worker has it.
    writer: Option<Arc<Writer>>,
    /// Which asking was answered last.
    written: u64,
}

/// What came of restoring what an earlier worker has left.
#[derive(Debug, Default)]
pub struct Restored {
    /// Generations that serve again.
    pub serving: Vec<Arc<Generation>>,
    /// The operator's files that were tried last, by place: only others are to be tried.
    pub tried: Vec<(PathBuf, Files)>,
    /// Places where that failed.
    pub failed: Vec<PathBuf>,
}

/// What must not be loaded.
#[derive(Debug, Default)]
pub struct KeptOut {
    /// Builds that worker processes have died in, or that an operator has put aside.
    pub quarantined: Vec<Build>,
    /// Plugins that an operator has taken out of service.
    pub disabled: Vec<DisabledPlugin>,
}

/// What came of lifting a quarantine.
#[derive(Debug)]
pub struct Lifted {
    /// Builds that may be loaded again.
    pub builds: Vec<Build>,
    /// Places whose files are to be tried again.
    pub places: Vec<PathBuf>,
}

/// A build cannot be restored.
#[derive(Debug, thiserror::Error)]
enum RestoreError {
    #[error("its library cannot be read: {0}")]
    Read(#[from] std::io::Error),
    #[error("its library is not what was kept")]
    OtherBytes,
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Judged(Vec<Cause>),
    #[error(transparent)]
    Copy(#[from] CopyError),
    #[error("{0}")]
    Ended(String),
}

/// A build out of the directory, with a copy of this process's own.
struct Found {
    candidate: Candidate,
    copy: PrivateCopy,
}

/// One place, restored.
struct RestoredPlace {
    place: PathBuf,
    given: Given,
}

impl Keeping {
    pub(super) fn quarantined(&self) -> Arc<[Build]> {
        Arc::clone(&self.quarantined.lock())
    }

    pub(super) fn set_quarantined(&self, quarantined: Vec<Build>) {
        *self.quarantined.lock() = quarantined.into();
    }

    pub(super) fn disabled(&self) -> Arc<[DisabledPlugin]> {
        Arc::clone(&self.disabled.lock())
    }

    pub(super) fn set_disabled(&self, disabled: Vec<DisabledPlugin>) {
        *self.disabled.lock() = disabled.into();
    }
}

impl Manager {
    /// Puts in service again what served in the last worker, all at the same time and without a
    /// rehearsal. Nothing of `kept_out` is loaded, neither now nor later: what served before a build in
    /// quarantine serves in its place, or nothing. To be called once, before anything is loaded.
    ///
    /// The way of what comes back leads on to [`Keeper::resume`](crate::keeper::Keeper::resume).
    pub async fn restore(&self, kept_out: KeptOut) -> Restored {
        let began = Instant::now();
        self.keeping.set_quarantined(kept_out.quarantined);
        self.keeping.set_disabled(kept_out.disabled);
        let Some((kept, ledger)) = self.read_ledger().await else {
            return Restored::default();
        };
        let places = ledger.places.into_iter();
        let places = places.map(|place| self.restore_place(&kept, place));
        let places = futures_util::future::join_all(places).await;

        let mut restored = Restored::default();
        for RestoredPlace { place, given } in places {
            restored.serving.extend(given.serving.clone());
            if let Some(files) = given.tried {
                restored.tried.push((place.clone(), files));
            }
            if given.last().is_some_and(|last| last.failed.is_some()) {
                restored.failed.push(place.clone());
            }
            *self.slot(&place).given.lock() = given;
        }
        self.swap(|snapshot| {
            let serving = restored.serving.iter().cloned();
            let next = serving.fold(snapshot.clone(), |next, generation| {
                next.with(generation, None)
            });
            let awaited = ledger.awaited.iter().filter(|name| !next.serves(name));
            awaited.fold(next.clone(), |next, name| next.with_loading(name))
        })
        .await;
        *self.keeping.awaited.lock() = self.registry.current().loading().cloned().collect();
        tracing::info!(
            serving = restored.serving.len(),
            milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "what the last worker served is restored"
        );
        restored
    }

    async fn read_ledger(&self) -> Option<(Kept, Ledger)> {
        let kept = Kept::at(self.options.kept_dir.as_deref()?);
        let read = Handle::current()
            .spawn_blocking(move || {
                let ledger = kept.read();
                (kept, ledger)
            })
            .await;
        let (kept, ledger) = read
            .expect("reading a file does not panic, and its runtime lives as long as its caller");
        match ledger {
            Ok(ledger) => Some((kept, ledger?)),
            Err(error) => {
                tracing::error!(%error, "what the last worker served is loaded anew");
                None
            }
        }
    }

    /// Tells that everything that the plugin directory holds has been tried: nobody waits any more
    /// for what an earlier worker was loading when it died.
    pub async fn all_has_been_tried(&self) {
        let awaited = std::mem::take(&mut *self.keeping.awaited.lock());
        if !awaited.is_empty() {
            self.swap(|snapshot| {
                let awaited = awaited.iter();
                awaited.fold(snapshot.clone(), |next, name| next.without_loading(name))
            })
            .await;
            self.keep().await;
        }
    }

    async fn restore_place(&self, directory: &Kept, kept: KeptPlace) -> RestoredPlace {
        let place = self.options.plugin_dir.join(&kept.place);
        let mut given = Given {
            tried: kept.tried,
            has_changed: kept.has_changed,
            history: kept.history.into(),
            ..Given::default()
        };
        let is_disabled = |build: &KeptBuild| self.is_disabled(&build.build.name);
        // It served when the last worker died, or when it was disabled.
        let set_aside = kept.set_aside.or(kept.serving.clone().filter(is_disabled));
        let serving = kept.serving.filter(|build| !is_disabled(build));
        if let Some(build) = set_aside {
            match self.find_kept(directory, &place, build, false).await {
                Ok(found) => given.set_aside = Some(Stored::found(found)),
                Err(error) => {
                    tracing::error!(%error, "a build that was kept is lost");
                    given.tried = None;
                }
            }
        }
        let mut should_serve = serving.is_some();
        for build in serving.into_iter().chain(kept.previous) {
            let is_quarantined = self.is_quarantined(&build.build.digest);
            let found = match self
                .find_kept(
                    directory,
                    &place,
                    build.clone(),
                    should_serve && !is_quarantined,
                )
                .await
            {
                Ok(found) => found,
                Err(error) => {
                    tracing::error!(build = %build.build, %error, "a build that was kept is lost");
                    given.tried = given.tried.filter(|_| !should_serve);
                    continue;
                }
            };
            if is_quarantined {
                tracing::error!(
                    plugin = %build.build.name,
                    version = %build.build.version,
                    digest = %build.build.digest,
                    "in quarantine, because worker processes have died in it, or an operator said so: what served before \
                     serves in its place, or its routes fail closed"
                );
                given.quarantine(Stored::found(found));
            } else if should_serve {
                match self.construct(found.candidate, Some(found.copy)).await {
                    Ok(generation) => {
                        given.serving = Some(generation);
                        should_serve = false;
                    }
                    Err(error) => {
                        tracing::error!(%error, "a plugin that has served does not load again");
                        given.tried = None;
                    }
                }
            } else {
                given.previous = Some(Stored::found(found));
            }
        }
        for build in kept.quarantined {
            if !self.is_quarantined(&build.build.digest) {
                // Lifted meanwhile: its files are to be tried.
                given.tried = None;
            } else if let Ok(found) = self.find_kept(directory, &place, build, false).await {
                given.quarantine(Stored::found(found));
            }
        }
        RestoredPlace { place, given }
    }

    /// Reads a build out of the directory, away from the event loops, and links it. What is not
    /// loaded now is not checked: a roll-back does that.
    async fn find_kept(
        &self,
        directory: &Kept,
        place: &Path,
        build: KeptBuild,
        is_loaded: bool,
    ) -> Result<Found, RestoreError> {
        let KeptBuild {
            build,
            library,
            document,
            signature,
        } = build;
        let left = directory.library(&build.digest);
        let (options, place) = (Arc::clone(&self.options), place.to_owned());
        let finding = on_a_thread_of_its_own("restore", move || {
            let bytes = fs::read(&left)?;
            if is_loaded && Digest::of(&bytes) != build.digest {
                return Err(RestoreError::OtherBytes);
            }
            let copy = PrivateCopy::link(
                &left,
                &options.private_dir,
                &build.name,
                &build.version,
                &build.digest,
                &bytes,
            )?;
            let library = options.plugin_dir.join(library);
            let document = document.map(String::into_bytes);
            let digest = build.digest;
            let candidate = Candidate::again(place, library, document, bytes, digest, signature)
                .map_err(RestoreError::Judged)?;
            Ok(Found { candidate, copy })
        });
        finding
            .await
            .unwrap_or_else(|ended| Err(RestoreError::Ended(ended)))
    }

    pub(super) fn is_quarantined(&self, digest: &Digest) -> bool {
        let quarantined = self.keeping.quarantined();
        quarantined.iter().any(|build| build.digest == *digest)
    }

    /// Lets every version of a plugin be loaded again that is in quarantine. What the plugin directory
    /// holds of it is to be tried like a new file; what served meanwhile goes on until that serves.
    ///
    /// # Errors
    /// None is in quarantine.
    pub async fn lift(&self, name: &str) -> Result<Lifted, NotQuarantined> {
        let (builds, left): (Vec<Build>, Vec<Build>) = self
            .keeping
            .quarantined()
            .iter()
            .cloned()
            .partition(|build| build.name.as_str() == name);
        if builds.is_empty() {
            return Err(NotQuarantined(name.to_owned()));
        }
        self.keeping.set_quarantined(left);
        let slots = self.slots.lock().clone();
        let is_lifted = |digest: &Digest| builds.iter().any(|build| build.digest == *digest);
        let places = slots
            .into_iter()
            .filter(|(_, slot)| slot.give_back(&is_lifted))
            .map(|(place, _)| place)
            .collect();
        // Chains that wait for it are told another reason now.
        self.swap(Clone::clone).await;
        self.keep().await;
        Ok(Lifted { builds, places })
    }

    /// Writes from now on what the next worker has to know, in place of what is there: not before
    /// [`Manager::restore`] has returned. Waits while another worker writes.
    pub async fn begin_keeping(&self) {
        let Some(kept_dir) = &self.options.kept_dir else {
            return;
        };
        let writer = loop {
            match Kept::at(kept_dir).writer() {
                Ok(Some(writer)) => break writer,
                Ok(None) => tokio::time::sleep(CLAIM_AGAIN_AFTER).await,
                Err(error) => return cannot_keep(&error),
            }
        };
        self.keeping.writing.lock().await.writer = Some(Arc::new(writer));
        self.keep().await;
    }

    /// Writes nothing any more: when this returns, another worker may.
    pub async fn stop_keeping(&self) {
        self.keeping.writing.lock().await.writer = None;
    }

    /// Writes what the next worker has to know, where it is ours to write.
    pub(super) async fn keep(&self) {
        let asked = self.keeping.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut writing = self.keeping.writing.lock().await;
        // Before anybody knows what there is, the next worker must not take that for nothing.
        let Some(writer) = writing.writer.clone().filter(|_| self.registry.is_known()) else {
            return;
        };
        if writing.written >= asked {
            return;
        }
        writing.written = self.keeping.asked.load(Ordering::Acquire);
        let (ledger, copies) = self.to_keep();
        let written = Handle::current()
            .spawn_blocking(move || {
                let libraries: Vec<(Digest, PathBuf)> = copies
                    .iter()
                    .map(|(digest, copy)| (*digest, copy.path().to_owned()))
                    .collect();
                writer.write(&ledger, &libraries)
            })
            .await
            .expect("writing files does not panic, and its runtime lives as long as its caller");
        if let Err(error) = written {
            cannot_keep(&error);
        }
    }

    fn to_keep(&self) -> (Ledger, BTreeMap<Digest, Arc<PrivateCopy>>) {
        let slots = self.slots.lock();
        let mut ledger = Ledger {
            awaited: self.registry.current().loading().cloned().collect(),
            ..Ledger::default()
        };
        let mut copies = BTreeMap::new();
        for (place, slot) in &*slots {
            let given = slot.given.lock();
            ledger
                .places
                .push(given.to_keep(place, &self.options.plugin_dir));
            copies.extend(given.copies());
        }
        (ledger, copies)
    }
}

impl Slot {
    /// Lets what is lifted be rolled back to; whether any of it came from here.
    fn give_back(&self, is_lifted: &impl Fn(&Digest) -> bool) -> bool {
        let mut given = self.given.lock();
        let (lifted, left) = std::mem::take(&mut given.quarantined)
            .into_iter()
            .partition(|stored| is_lifted(&stored.origin.digest));
        given.quarantined = left;
        let lifted: Vec<Stored> = lifted;
        let was_refused = given.last().is_some_and(|last| is_lifted(&last.digest));
        let was_ours = was_refused || !lifted.is_empty();
        if was_ours {
            given.tried = None;
        }
        if given.previous.is_none() {
            given.previous = lifted.into_iter().next();
        }
        was_ours
    }
}

fn cannot_keep(error: &KeptError) {
    tracing::error!(
        %error,
        "what the next worker has to know cannot be kept: it will load the plugin directory anew"
    );
}

impl Stored {
    fn found(found: Found) -> Self {
        Self {
            origin: Arc::new(found.candidate.into_origin()),
            copy: Arc::new(found.copy),
        }
    }
}
