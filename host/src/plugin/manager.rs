//! Discovers, loads, upgrades, finds, calls, rolls back and unloads plugins, by name or all of them:
//! the control plane's hands, and a type that other programs could embed.
//!
//! Every change is a transaction (`docs/upgrades.md`): whatever fails before the swap leaves
//! traffic as it is. What serves changes by swapping the [`Registry`]'s snapshot; nothing else of
//! the data plane is touched. The manager never watches files and never decides when to act.

mod construct;
mod error;
mod retired;
mod status;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use serde_json::Value;
use tokio::{
    runtime::Handle,
    sync::{Mutex, mpsc, oneshot},
};

use super::{
    discovery::{Candidate, Discovery, Origin, Problem, discover},
    metadata::{Metadata, PluginName},
    permissions::Permissions,
    private_copy::PrivateCopy,
    registry::{Generation, Missing, Registry, Requested, Snapshot},
    settings::{Operator, PluginSettings},
};
use crate::{
    crash::KnownGeneration,
    pipeline::{
        self, End, Pipeline,
        call::CallBox,
        chain::{Chain, Link},
        gateway::Gateway,
    },
    tokens::compile::{Compiler, TriedOut},
};

pub use construct::LOAD_TIME;
pub use error::{CallError, LoadError, LoadErrorCause, RollbackError};
pub use retired::{RETIRE_TIME, UNLOAD_TIME};
pub use status::{Attempt, PluginStatus, Status};

use retired::Retired;

/// Where plugins come from and what the operator says about them.
#[derive(Debug)]
pub struct Options {
    /// The directory that is searched.
    pub plugin_dir: PathBuf,
    /// A directory of this process alone, for copies of libraries.
    pub private_dir: PathBuf,
    /// The operator's word on single plugins.
    pub operator: Operator,
    /// The program that tries a version out in a throw-away process before this one loads it, as
    /// [`Rehearsal::program`](super::rehearsal::Rehearsal::program); none to load it right away.
    pub rehearse_with: Option<PathBuf>,
    /// What is thought of files that others could change.
    pub permissions: Permissions,
    /// Who hears of each library before it is opened, and is waited for.
    pub announce: Option<mpsc::UnboundedSender<Announcement>>,
}

/// A library is about to be opened: should that, or anything later, end the process, it has a name.
#[derive(Debug)]
pub struct Announcement {
    /// What it is.
    pub generation: KnownGeneration,
    /// To be told when whoever survives the process knows.
    pub heard: oneshot::Sender<()>,
}

/// Manages the plugins of one registry.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::{sync::Arc, time::Duration};
/// use plugin_host::{
///     plugin::{
///         manager::{Manager, Options}, permissions::Permissions, registry::Registry,
///         settings::Operator,
///     },
///     tokens::{Bounds, Tokens, compile::Compiler},
/// };
///
/// let registry = Arc::new(Registry::new());
/// let (to_compile, _new_tokens) = tokio::sync::mpsc::unbounded_channel();
/// let tokens = Tokens::new(Bounds::new(1_000, Duration::from_secs(3600)), to_compile);
/// let manager = Manager::new(
///     Options {
///         plugin_dir: "/etc/plugin-host/plugins".into(),
///         private_dir: "/run/plugin-host/private".into(),
///         operator: Operator::default(),
///         rehearse_with: None,
///         permissions: Permissions::new(false),
///         announce: None,
///     },
///     Arc::new(Compiler::new(registry, Arc::new(tokens))),
/// );
/// let loaded = manager.load_all().await;
/// for problem in &loaded.problems {
///     eprintln!("{problem}");
/// }
/// println!("{:?} serves", manager.get("say@^1.2")?);
/// manager.unload("say").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Manager {
    options: Arc<Options>,
    registry: Arc<Registry>,
    compiler: Arc<Compiler>,
    /// By place: the plugin's directory, or its library where that lies bare.
    slots: parking_lot::Mutex<BTreeMap<PathBuf, Arc<Slot>>>,
    /// Held while a snapshot is made from the last one, so that none is lost.
    swapping: Mutex<()>,
    retired: Arc<Retired>,
}

/// One place of the plugin directory.
#[derive(Debug, Default)]
struct Slot {
    /// Held by whoever loads or unloads there. Telling what is there needs no turn: loading takes
    /// its time.
    turn: Mutex<()>,
    given: parking_lot::Mutex<Given>,
}

/// What a place has given.
#[derive(Debug, Default)]
struct Given {
    serving: Option<Arc<Generation>>,
    /// What served before: its library's bytes are kept for a roll-back.
    previous: Option<Stored>,
    last: Option<Attempt>,
}

/// A generation that can be loaded again without the operator's file.
#[derive(Debug, Clone)]
struct Stored {
    origin: Arc<Origin>,
    copy: Arc<PrivateCopy>,
}

/// Whether live configurations that a version refuses keep it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vetoes {
    /// They do.
    Count,
    /// The operator knows and wants it all the same.
    Overruled,
}

/// What came of loading everything.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Generations that serve now.
    pub serving: Vec<Arc<Generation>>,
    /// What was wrong before anything was loaded.
    pub problems: Vec<Problem>,
    /// What could not be loaded.
    pub failures: Vec<LoadError>,
}

/// What the operator says about a plugin, and the settings that it gets.
///
/// # Errors
/// They cannot be used, or do not fit the plugin's schema.
pub fn settings_of<'a>(
    metadata: &Metadata,
    operator: &'a Operator,
) -> Result<(&'a PluginSettings, Value), LoadErrorCause> {
    let said = operator
        .of(metadata.name.as_str())
        .map_err(|reason| LoadErrorCause::Settings(reason.to_owned()))?;
    let settings = said.merged_with(&metadata.settings);
    if let Some(schema) = &metadata.settings_schema {
        schema
            .check(&settings)
            .map_err(LoadErrorCause::SettingsSchema)?;
    }
    Ok((said, settings))
}

impl Manager {
    /// A manager of the registry that this compiler reads; nothing is loaded yet.
    pub fn new(options: Options, compiler: Arc<Compiler>) -> Self {
        Self {
            options: Arc::new(options),
            registry: Arc::clone(compiler.registry()),
            compiler,
            slots: parking_lot::Mutex::default(),
            swapping: Mutex::default(),
            retired: Arc::default(),
        }
    }

    /// The registry that this manager publishes to.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Looks at the plugin directory, without loading anything.
    pub async fn discover(&self) -> Discovery {
        let options = Arc::clone(&self.options);
        Handle::current()
            .spawn_blocking(move || discover(&options.plugin_dir))
            .await
            .expect("discovery does not panic, and its runtime lives as long as its caller")
    }

    /// Loads everything that the plugin directory holds.
    pub async fn load_all(&self) -> Loaded {
        let discovery = self.discover().await;
        let mut loaded = Loaded {
            problems: discovery.problems,
            ..Loaded::default()
        };
        for (_, result) in self.load_found(discovery.found).await {
            match result {
                Ok(generation) => loaded.serving.push(generation),
                Err(error) => loaded.failures.push(error),
            }
        }
        loaded
    }

    /// Loads what was found, all at the same time. Routes of a plugin that no version serves yet
    /// wait for it; one that takes its time holds up its own routes and no others. Each result comes
    /// with its place.
    pub async fn load_found(
        &self,
        found: Vec<Candidate>,
    ) -> Vec<(PathBuf, Result<Arc<Generation>, LoadError>)> {
        let names: Vec<PluginName> = found
            .iter()
            .map(|candidate| candidate.metadata.name.clone())
            .collect();
        let awaited = &self.announce(&names).await;
        let mut loading: FuturesUnordered<_> = found
            .into_iter()
            .zip(names)
            .map(|(candidate, name)| async move {
                let place = candidate.place.clone();
                let awaited = awaited.contains(&name).then_some(&name);
                (
                    place,
                    self.load_awaited(candidate, Vetoes::Count, awaited).await,
                )
            })
            .collect();
        let mut results = Vec::with_capacity(loading.len());
        while let Some(result) = loading.next().await {
            results.push(result);
        }
        results
    }

    /// Makes the routes of plugins wait that are about to be loaded for the first time; returns
    /// which those are.
    async fn announce(&self, names: &[PluginName]) -> BTreeSet<PluginName> {
        let mut awaited = BTreeSet::new();
        self.swap(|snapshot| {
            let first = names.iter().filter(|name| !snapshot.serves(name));
            first.fold(snapshot.clone(), |next, name| {
                awaited.insert(name.clone());
                next.with_loading(name)
            })
        })
        .await;
        awaited
    }

    /// Loads one plugin in place of what serves from its place: rehearse, construct, parse the live
    /// configurations, swap; the old generation ends with its last call.
    ///
    /// # Errors
    /// It cannot be loaded, or live configurations veto it; nothing has changed.
    pub async fn load(
        &self,
        candidate: Candidate,
        vetoes: Vetoes,
    ) -> Result<Arc<Generation>, LoadError> {
        self.load_awaited(candidate, vetoes, None).await
    }

    /// Loads one plugin; where its routes wait for it under a name, they no longer do when what
    /// serves is decided.
    async fn load_awaited(
        &self,
        candidate: Candidate,
        vetoes: Vetoes,
        awaited: Option<&PluginName>,
    ) -> Result<Arc<Generation>, LoadError> {
        let slot = Arc::clone(
            self.slots
                .lock()
                .entry(candidate.place.clone())
                .or_default(),
        );
        let _turn = slot.turn.lock().await;
        let old = slot.given.lock().serving.clone();
        let metadata = &candidate.metadata;
        let attempted = (
            metadata.name.clone(),
            metadata.version.clone(),
            candidate.digest,
        );
        let loaded = self
            .transact(candidate, old.as_ref(), vetoes, awaited)
            .await;
        if let (Err(_), Some(name)) = (&loaded, awaited) {
            self.swap(|snapshot| snapshot.without_loading(name)).await;
        }
        let mut given = slot.given.lock();
        given.last = Some(Attempt {
            at: SystemTime::now(),
            name: attempted.0,
            version: attempted.1,
            digest: attempted.2,
            failed: loaded.as_ref().err().map(ToString::to_string),
        });
        let generation = loaded?;
        given.serving = Some(Arc::clone(&generation));
        if let Some(old) = old {
            given.previous = Some(Stored::of(&old));
            self.retired.retire(old);
        }
        Ok(generation)
    }

    async fn transact(
        &self,
        candidate: Candidate,
        old: Option<&Arc<Generation>>,
        vetoes: Vetoes,
        awaited: Option<&PluginName>,
    ) -> Result<Arc<Generation>, LoadError> {
        let subject = construct::Subject::of(&candidate);
        let candidate = match construct::rehearse(candidate, &self.options).await {
            Ok(candidate) => candidate,
            Err(cause) => return Err(subject.refused(cause)),
        };
        let generation = Arc::new(construct::construct(candidate, &self.options).await?);
        if !self.registry.current().serves(generation.name()) {
            // Nothing works yet that it could break; its routes are compiled when it serves.
            self.put_in_service(&generation, old, awaited).await;
            return Ok(generation);
        }
        let tried = match self.try_out(&generation, old, vetoes).await {
            Ok(tried) => tried,
            Err(cause) => {
                self.retired.retire(generation);
                return Err(subject.refused(cause));
            }
        };
        self.put_in_service(&generation, old, awaited).await;
        self.compile_all().await;
        // The chains hold what they need of it now.
        drop(tried);
        Ok(generation)
    }

    async fn put_in_service(
        &self,
        generation: &Arc<Generation>,
        old: Option<&Arc<Generation>>,
        awaited: Option<&PluginName>,
    ) {
        self.swap(|snapshot| {
            let next = snapshot.with(Arc::clone(generation), old);
            match awaited {
                Some(name) => next.without_loading(name),
                None => next,
            }
        })
        .await;
    }

    /// Parses the live configurations with a generation that does not serve yet.
    async fn try_out(
        &self,
        generation: &Arc<Generation>,
        old: Option<&Arc<Generation>>,
        vetoes: Vetoes,
    ) -> Result<TriedOut, LoadErrorCause> {
        let next = self.registry.current().with(Arc::clone(generation), old);
        let trying = self.compiler.try_out(&next, generation);
        let Ok(mut tried) = tokio::time::timeout(LOAD_TIME, trying).await else {
            return Err(LoadErrorCause::SlowConfiguration(LOAD_TIME.as_secs()));
        };
        for refused in &tried.ignored {
            tracing::warn!(
                plugin = %generation.name(),
                version = %generation.version(),
                route = refused.route,
                reason = %refused.reason,
                "the new version refuses a configuration that is superseded or did not work before"
            );
        }
        if !tried.vetoes.is_empty() && vetoes == Vetoes::Count {
            return Err(LoadErrorCause::Vetoed(std::mem::take(&mut tried.vetoes)));
        }
        Ok(tried)
    }

    /// Puts every chain in line with the snapshot. One that takes too long follows when it is ready.
    async fn compile_all(&self) {
        let compiling = self.compiler.compile_all();
        if tokio::time::timeout(LOAD_TIME, compiling).await.is_err() {
            tracing::warn!("chains are still being compiled: some plugin takes its time to parse");
        }
    }

    /// The generation that serves a route which names a plugin so: `say` or `say@^1.2`.
    ///
    /// # Errors
    /// Nothing that is loaded will do.
    pub fn get(&self, requested: &str) -> Result<Arc<Generation>, Missing> {
        let requested = Requested::parse(requested)?;
        self.registry.current().resolve(&requested).cloned()
    }

    /// Runs one plugin with one configuration on a call, without any route.
    ///
    /// # Errors
    /// There is no such plugin, or it refuses the configuration.
    pub async fn call<G: Gateway>(
        &self,
        requested: &str,
        configuration: &[u8],
        pipeline: &Pipeline,
        call: CallBox,
        gateway: &mut G,
    ) -> Result<End, CallError> {
        let generation = self.get(requested)?;
        let configuration = configuration.to_vec();
        // The caller's runtime goes on, however long the plugin takes to parse.
        let configured = Handle::current()
            .spawn_blocking(move || generation.configure(&configuration))
            .await
            .expect("a plugin's panics are caught inside its library")?;
        let chain = Chain {
            links: vec![Link::new(Arc::new(configured))],
        };
        let now = tokio::time::Instant::now();
        let skipped = |failure: &pipeline::PluginFailure| {
            tracing::warn!(
                plugin = %failure.plugin,
                version = %failure.version,
                reason = %failure.reason,
                "the plugin failed and was skipped, as its failure policy says"
            );
        };
        Ok(pipeline::run(pipeline, &chain, call, gateway, now, skipped).await)
    }

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
        self.unload_from(slot, |_| true).await > 0
    }

    fn slots(&self) -> Vec<Arc<Slot>> {
        self.slots.lock().values().cloned().collect()
    }

    async fn unload_from(
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
            unloaded += 1;
        }
        if unloaded > 0 {
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
    ) -> Result<Arc<Generation>, RollbackError> {
        let wanted = Requested::parse(requested)?;
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
        Ok(self.load(candidate, vetoes).await?)
    }

    /// What every place has given, and what is retired. Nothing that is being loaded is waited for.
    pub fn status(&self) -> Status {
        let slots = self.slots.lock();
        let plugins = slots
            .iter()
            .map(|(place, slot)| PluginStatus::of(place.clone(), &slot.given.lock()))
            .collect();
        Status {
            plugins,
            retired: self.retired.counts(),
        }
    }

    /// Runs every plugin's `on_unload` because the process ends; calls may still be open, and how
    /// long this may take is the caller's to bound.
    pub async fn say_goodbye(&self) {
        let snapshot = self.registry.current();
        futures_util::future::join_all(
            snapshot.generations().map(|generation| generation.unload()),
        )
        .await;
    }

    async fn swap(&self, next: impl FnOnce(&Snapshot) -> Snapshot) {
        let _swapping = self.swapping.lock().await;
        let next = next(&self.registry.current());
        self.registry.publish(next);
    }
}

impl Given {
    /// Of what serves, or else of what served before.
    fn origin(&self) -> Option<&Arc<Origin>> {
        let serving = self.serving.as_ref().map(|serving| serving.origin());
        serving.or(self.previous.as_ref().map(|previous| &previous.origin))
    }
}

impl Stored {
    fn of(generation: &Generation) -> Self {
        Self {
            origin: Arc::clone(generation.origin()),
            copy: Arc::clone(generation.copy()),
        }
    }

    fn candidate(&self) -> Result<Candidate, String> {
        let bytes = std::fs::read(self.copy.path()).map_err(|error| error.to_string())?;
        Candidate::from_copy(&self.origin, bytes).ok_or_else(|| "its digest has changed".to_owned())
    }
}
