//! Discovers, loads, upgrades, finds, calls, rolls back and unloads plugins, by name or all of them:
//! the control plane's hands, and a type that other programs could embed.
//!
//! Every change is a transaction (`docs/upgrades.md`): whatever fails before the swap leaves
//! traffic as it is. What serves changes by swapping the [`Registry`]'s snapshot; nothing else of
//! the data plane is touched. The manager never watches files and never decides when to act.

mod about;
mod changes;
mod construct;
mod error;
mod going;
mod inheritance;
mod label;
mod operators;
mod restore;
mod retired;
mod service_routes;
mod slot;
mod status;
mod transaction;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    runtime::Handle,
    sync::{Mutex, mpsc, oneshot, watch},
};

use super::{
    discovery::{Candidate, Discovery, Problem, discover_trusted},
    event::PluginEvent,
    metadata::PluginName,
    permissions::Permissions,
    registry::{Generation, Missing, Registry, Requested, Snapshot},
    settings::Operator,
    signature::Trust,
};
use crate::{
    crash::KnownGeneration,
    http_client::HttpClient,
    metrics::Metrics,
    pipeline::{
        self, End, Pipeline,
        call::CallBox,
        chain::{Chain, Link},
        gateway::Gateway,
    },
    tokens::compile::Compiler,
};

pub use super::kept::Attempt;
pub use about::About;
pub use changes::Change;
pub use construct::{LOAD_TIME, settings_of};
pub use error::{CallError, LoadError, LoadErrorCause, NotDisabled, NotQuarantined, RollbackError};
pub use operators::{Enabled, QuarantineError, SetAside};
pub use restore::{KeptOut, Lifted, Restored};
pub use retired::{DrainingGeneration, RETIRE_TIME, RetiredCounts, UNLOAD_TIME};
pub use service_routes::{ServiceRoute, ServiceRouteState};
pub use slot::MAX_HISTORY;
pub use status::{
    BuildFacts, ClosedRoute, FoundBlocking, PlaceProblem, PluginState, PluginStatus,
    QuarantinedBuild, SignatureState, SignatureStatus, Status, Upgrade, UpgradeOutcome, utc,
    utc_of,
};
pub use transaction::Vetoes;

use changes::Changes;
use restore::Keeping;
use retired::Retired;
use service_routes::LastStanding;
use slot::Slot;

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
    /// Who has to vouch for plugins.
    pub trust: Arc<Trust>,
    /// Who hears of each library before it is opened, and is waited for.
    pub announce: Option<mpsc::UnboundedSender<Announcement>>,
    /// Who hears of what happens to plugins.
    pub events: Option<mpsc::UnboundedSender<PluginEvent>>,
    /// A directory that outlives this process, for what the next one has to know; none where there
    /// is no next one.
    pub kept_dir: Option<PathBuf>,
    /// Bytes of retired libraries beyond which [`Manager::over_budget`] tells: they stay mapped.
    pub retired_memory: u64,
    /// Where the plugins' own metrics are shown.
    pub metrics: Arc<Metrics>,
    /// With which plugins call other services.
    pub http_client: HttpClient,
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
///     http_client::{HttpClient, Settings},
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
///         trust: Arc::default(),
///         announce: None,
///         events: None,
///         kept_dir: None,
///         retired_memory: u64::MAX,
///         metrics: Arc::default(),
///         http_client: HttpClient::new(Settings::default()),
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
    keeping: Keeping,
    standing: LastStanding,
    retired: Arc<Retired>,
    changes: Changes,
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

impl Manager {
    /// A manager of the registry that this compiler reads; nothing is loaded yet.
    pub fn new(options: Options, compiler: Arc<Compiler>) -> Self {
        Self {
            options: Arc::new(options),
            registry: Arc::clone(compiler.registry()),
            compiler,
            slots: parking_lot::Mutex::default(),
            swapping: Mutex::default(),
            keeping: Keeping::default(),
            standing: LastStanding::default(),
            retired: Arc::default(),
            changes: Changes::default(),
        }
    }

    /// Who has to vouch for plugins.
    pub fn trust(&self) -> &Arc<Trust> {
        &self.options.trust
    }

    /// The registry that this manager publishes to.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Looks at the plugin directory, without loading anything.
    pub async fn discover(&self) -> Discovery {
        let options = Arc::clone(&self.options);
        Handle::current()
            .spawn_blocking(move || discover_trusted(&options.plugin_dir, &options.trust))
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
        self.keep().await;
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
        let chain = Arc::new(Chain {
            links: vec![Link::new(Arc::new(configured))],
        });
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

    /// Ready as soon as the libraries of retired generations occupy more than
    /// [`Options::retired_memory`]: only another process gets that memory back.
    pub fn over_budget(&self) -> impl Future<Output = ()> + Send + use<> {
        self.retired.more_than(self.options.retired_memory)
    }

    /// Libraries that stay mapped and serve no more, and a way to follow what they occupy.
    pub fn retired_mappings(&self) -> (usize, watch::Receiver<u64>) {
        (self.retired.mappings(), self.retired.mapped_bytes())
    }

    /// Runs every plugin's `on_unload` because the process ends; calls may still be open, and how
    /// long this may take is the caller's to bound.
    pub async fn say_goodbye(&self) {
        let snapshot = self.registry.current();
        futures_util::future::join_all(snapshot.generations().map(|generation| async {
            generation.unload().await;
            generation.tasks_ended().await;
        }))
        .await;
    }

    async fn swap(&self, next: impl FnOnce(&Snapshot) -> Snapshot) {
        let _swapping = self.swapping.lock().await;
        let next = next(&self.registry.current());
        let next = next.with_quarantined(self.keeping.quarantined());
        self.registry
            .publish(next.with_disabled(self.keeping.disabled()));
    }

    fn slot(&self, place: &Path) -> Arc<Slot> {
        Arc::clone(self.slots.lock().entry(place.to_owned()).or_default())
    }
}
