//! The plugins that serve now: an immutable snapshot that the control plane swaps as a whole.
//!
//! A generation is one loaded version of one plugin. Chains hold counted references to the
//! generations that they use; when the last one is gone, the plugin is dropped inside its library.
//! Nothing here loads anything, and nothing here knows a request.

mod failure;
mod label;
mod tally;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use plugin_abi::abi::{
    CallObject, ConfiguredObject, ContextObject, ExecuteFailure, Failure, FfiFuture, Outcome,
    PluginObject, ROption, RResult, StateBlob,
};
use semver::{Version, VersionReq};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::{
    disabled::DisabledPlugin,
    discovery::Origin,
    metadata::{Build, Execution, FailurePolicy, Metadata, Needs, PluginName},
    private_copy::PrivateCopy,
    schema::{ConfigError, Schema},
    services::Services,
    settings::PluginSettings,
    tasks::ENDING_TIME,
};
use crate::shared_memory::{
    held::{Held, HeldFuture},
    threads::{Activity, enter},
};

pub use failure::LastFailure;
pub(crate) use failure::cut;
pub use label::{How, Stall};
pub use tally::{CallCounts, CallDurations};

use label::Label;

/// How a generation is run: its metadata, with the operator's settings over it.
#[derive(Debug, Clone)]
pub struct Rules {
    /// What a failure on a call means.
    pub failure_policy: FailurePolicy,
    /// Bound on its part of one call.
    pub timeout: Option<Duration>,
    /// Where its calls run.
    pub execution: Execution,
    /// What the gateway is asked for before it runs.
    pub needs: Needs,
    /// What a route's configuration has to look like.
    pub config_schema: Option<Schema>,
}

impl Rules {
    /// What the metadata says, where the operator says nothing else.
    pub fn new(metadata: &Metadata, said: &PluginSettings) -> Self {
        Self {
            failure_policy: said.failure_policy.unwrap_or(metadata.failure_policy),
            timeout: said.timeout.or(metadata.timeout),
            execution: said.execution.unwrap_or(metadata.execution),
            needs: metadata.needs.clone(),
            config_schema: metadata.config_schema.clone(),
        }
    }
}

/// Configurations that one generation parses at the same time. One that never ends keeps its thread.
const PARSED_AT_ONCE: usize = 4;

/// Of these, configurations that no call waits for.
const PARSED_AHEAD_AT_ONCE: usize = PARSED_AT_ONCE - 1;

/// A place to parse a configuration; dropping it makes room.
#[derive(Debug)]
pub struct PlaceToParse {
    _place: OwnedSemaphorePermit,
    _ahead: Option<OwnedSemaphorePermit>,
}

async fn acquire(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(places)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed")
}

/// One loaded version of one plugin.
pub struct Generation {
    origin: Arc<Origin>,
    rules: Rules,
    plugin: Held<PluginObject>,
    places_to_parse: Arc<Semaphore>,
    places_to_parse_ahead: Arc<Semaphore>,
    /// The bytes that it was loaded from: what a roll-back needs.
    copy: Arc<PrivateCopy>,
    loaded: SystemTime,
    label: Label,
    panics_in_parsing: AtomicU64,
    services: Services,
    last_failure: Mutex<Option<Arc<LastFailure>>>,
}

/// A route's configuration is no configuration for this plugin: the operator's fault, or the
/// plugin's where it panicked.
#[derive(Debug, thiserror::Error)]
pub enum RefusedConfiguration {
    /// The plugin's schema refuses it.
    #[error("the configuration does not fit the plugin's schema: {0}")]
    Schema(#[from] ConfigError),
    /// The plugin itself refuses it.
    #[error("the plugin refuses the configuration: {0}")]
    Plugin(Failure),
}

impl Generation {
    /// A number that no generation of this process has had; never 0. It is taken before the library
    /// is opened, whose constructors may be the last that the process does.
    pub fn next_number() -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    /// A generation that is ready to serve.
    pub fn new(
        origin: Arc<Origin>,
        rules: Rules,
        plugin: Held<PluginObject>,
        copy: Arc<PrivateCopy>,
        services: Services,
    ) -> Self {
        Self {
            origin,
            rules,
            plugin,
            places_to_parse: Arc::new(Semaphore::new(PARSED_AT_ONCE)),
            places_to_parse_ahead: Arc::new(Semaphore::new(PARSED_AHEAD_AT_ONCE)),
            copy,
            loaded: SystemTime::now(),
            label: Label::default(),
            panics_in_parsing: AtomicU64::new(0),
            services,
            last_failure: Mutex::default(),
        }
    }

    /// What names it in shared memory ([`threads`](crate::shared_memory::threads)), as
    /// [`Generation::next_number`] gave it.
    pub fn number(&self) -> u64 {
        self.plugin.plugin()
    }

    /// The name that routes use.
    pub fn name(&self) -> &PluginName {
        &self.origin.metadata.name
    }

    /// The version.
    pub fn version(&self) -> &Version {
        &self.origin.metadata.version
    }

    /// What it was made of.
    pub fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// The private copy of its library.
    pub fn copy(&self) -> &Arc<PrivateCopy> {
        &self.copy
    }

    /// When it was loaded.
    pub fn loaded(&self) -> SystemTime {
        self.loaded
    }

    /// How it is run.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Waits for one of few places, to be held while [`Generation::configure`] runs, so that a plugin
    /// that takes its time, or never ends, takes few threads. Whoever is `wanted`, now or while it
    /// waits, passes all others: after a worker's death there may be a hundred thousand of those.
    pub async fn place_to_parse(&self, wanted: impl Future<Output = ()>) -> PlaceToParse {
        let ahead = tokio::select! {
            biased;
            () = wanted => None,
            ahead = acquire(&self.places_to_parse_ahead) => Some(ahead),
        };
        PlaceToParse {
            _place: acquire(&self.places_to_parse).await,
            _ahead: ahead,
        }
    }

    /// Parses a route's configuration. May take its time: never on an event loop.
    ///
    /// # Errors
    /// The schema or the plugin refuses it.
    pub fn configure(self: &Arc<Self>, raw: &[u8]) -> Result<Configured, RefusedConfiguration> {
        if let Some(schema) = &self.rules.config_schema {
            schema.check_raw(raw)?;
        }
        let _stay = enter(self.number(), Activity::Configure);
        match self.plugin.configure(raw.into()) {
            RResult::ROk(object) => Ok(Configured {
                object: Held::new(object, self.number()),
                generation: Arc::clone(self),
            }),
            RResult::RErr(failure) => {
                if failure.panicked {
                    self.count_refusing_panic();
                }
                Err(RefusedConfiguration::Plugin(failure))
            }
        }
    }

    /// What it leaves to the next generation. May take its time: never on an event loop.
    ///
    /// # Errors
    /// What the plugin says.
    pub fn save_state(&self) -> Result<Option<StateBlob>, Failure> {
        let _stay = enter(self.number(), Activity::State);
        let saved = self.plugin.save_state().into_result();
        saved.map(ROption::into_option)
    }

    /// Takes what an earlier generation has left, as [`Generation::save_state`] gave it.
    ///
    /// # Errors
    /// What the plugin says.
    pub fn restore_state(&self, state: StateBlob) -> Result<(), Failure> {
        let _stay = enter(self.number(), Activity::State);
        self.plugin.restore_state(state).into_result()
    }

    /// Executes what is asked for by name. For the one who bounds and counts executions.
    pub fn execute(
        &self,
        context: ContextObject,
    ) -> HeldFuture<FfiFuture<RResult<ContextObject, ExecuteFailure>>> {
        let _stay = enter(self.number(), Activity::Execute);
        let future = self.plugin.execute(context);
        HeldFuture::new(future, self.number(), Activity::Execute)
    }

    /// Has its background tasks end, and waits until they have; whether that was in [`ENDING_TIME`].
    /// They end in any case when it is dropped.
    pub async fn tasks_ended(&self) -> bool {
        self.services.tasks().ended(ENDING_TIME).await
    }

    /// Runs the plugin's `on_unload`. For the one who takes the generation out of service, once.
    pub fn unload(&self) -> HeldFuture<FfiFuture<()>> {
        let _stay = enter(self.number(), Activity::Unload);
        HeldFuture::new(self.plugin.unload(), self.number(), Activity::Unload)
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.services.end();
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name(), self.version())
    }
}

/// A plugin with one parsed configuration.
pub struct Configured {
    // Dropped before the generation, whose library has the code that drops it.
    object: Held<ConfiguredObject>,
    generation: Arc<Generation>,
}

impl Configured {
    /// The generation that runs it.
    pub fn generation(&self) -> &Arc<Generation> {
        &self.generation
    }

    /// What it leaves to the same configuration of the next generation, as
    /// [`Generation::save_state`].
    ///
    /// # Errors
    /// What the plugin says.
    pub fn save_state(&self) -> Result<Option<StateBlob>, Failure> {
        let _stay = enter(self.generation.number(), Activity::State);
        let saved = self.object.save_state().into_result();
        saved.map(ROption::into_option)
    }

    /// Takes what it was in an earlier generation, as [`Generation::restore_state`].
    ///
    /// # Errors
    /// What the plugin says.
    pub fn restore_state(&self, state: StateBlob) -> Result<(), Failure> {
        let _stay = enter(self.generation.number(), Activity::State);
        self.object.restore_state(state).into_result()
    }

    /// Begins the plugin's part of a request call. The future keeps what it runs in the library
    /// alive by itself; nothing of it needs this value any more.
    pub fn request(&self, call: CallObject) -> HeldFuture<FfiFuture<Outcome>> {
        let _stay = enter(self.generation.number(), Activity::Filter);
        self.running(self.object.request(call))
    }

    /// Begins the plugin's part of a response call, as [`Configured::request`] does.
    pub fn response(&self, call: CallObject) -> HeldFuture<FfiFuture<Outcome>> {
        let _stay = enter(self.generation.number(), Activity::Filter);
        self.running(self.object.response(call))
    }

    fn running(&self, future: FfiFuture<Outcome>) -> HeldFuture<FfiFuture<Outcome>> {
        HeldFuture::new(future, self.generation.number(), Activity::Filter)
    }
}

impl fmt::Debug for Configured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} configured", self.generation)
    }
}

/// A plugin as a route names it: `say` or `say@^1.2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requested {
    /// The plugin's name.
    pub name: PluginName,
    /// Which versions will do; any release where there is none.
    pub requirement: Option<VersionReq>,
}

impl Requested {
    /// Whether a version of a plugin is what is meant.
    pub fn fits(&self, name: &PluginName, version: &Version) -> bool {
        self.name == *name
            && self
                .requirement
                .as_ref()
                .is_none_or(|requirement| requirement.matches(version))
    }
}

/// A route names no plugin that could serve: the operator's fault, but for [`Missing::Loading`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// Not the name of a plugin.
    #[error("`{0}` is no plugin name: write `name` or `name@requirement`, like `say@^1.2`")]
    Malformed(String),
    /// It was found and is being loaded: what serves will be known soon.
    #[error("plugin `{0}` is still being loaded")]
    Loading(PluginName),
    /// No such plugin is loaded.
    #[error("no plugin `{0}` is loaded: is it in the plugin directory, and does it load?")]
    Unknown(PluginName),
    /// An operator has taken it out of service.
    #[error("an operator has disabled plugin `{0}`: `plugin-host enable {0}` lets it serve")]
    Disabled(PluginName),
    /// Every version that would do is in quarantine.
    #[error(
        "plugin `{name}` {version} is in quarantine, because worker processes have died in it, or an operator said so: put \
         another build into the plugin directory, or let it try again with `plugin-host lift {name}`"
    )]
    Quarantined {
        /// The plugin.
        name: PluginName,
        /// Its version.
        version: Version,
    },
    /// It is loaded, but in no version that will do.
    #[error("plugin `{name}` is loaded as {loaded}, of which none satisfies `{requirement}`")]
    NoVersion {
        /// The plugin.
        name: PluginName,
        /// Its loaded versions.
        loaded: String,
        /// What the route asks for.
        requirement: String,
    },
}

impl Requested {
    /// Reads a name as routes write it.
    ///
    /// # Errors
    /// [`Missing::Malformed`] with the name.
    pub fn parse(text: &str) -> Result<Self, Missing> {
        let malformed = || Missing::Malformed(text.chars().take(160).collect());
        let (name, requirement) = match text.split_once('@') {
            Some((name, requirement)) => (name, Some(requirement)),
            None => (text, None),
        };
        Ok(Self {
            name: PluginName::new(name).map_err(|_| malformed())?,
            requirement: requirement
                .map(VersionReq::parse)
                .transpose()
                .map_err(|_| malformed())?,
        })
    }
}

/// The plugins that serve, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Versions of each plugin, the highest first.
    plugins: BTreeMap<PluginName, Vec<Arc<Generation>>>,
    /// How many versions of a plugin are being loaded for the first time.
    loading: BTreeMap<PluginName, usize>,
    /// Builds that worker processes have died in.
    quarantined: Arc<[Build]>,
    /// Plugins that an operator has taken out of service.
    disabled: Arc<[DisabledPlugin]>,
}

impl Snapshot {
    /// This snapshot with a generation added, and without the one whose place it takes.
    #[must_use]
    pub fn with(&self, generation: Arc<Generation>, instead_of: Option<&Arc<Generation>>) -> Self {
        let mut next = match instead_of {
            Some(old) => self.without(old),
            None => self.clone(),
        };
        let versions = next.plugins.entry(generation.name().clone()).or_default();
        versions.push(generation);
        versions.sort_by(|one, other| other.version().cmp(one.version()));
        next
    }

    /// This snapshot without a generation.
    #[must_use]
    pub fn without(&self, generation: &Arc<Generation>) -> Self {
        let mut next = self.clone();
        if let Some(versions) = next.plugins.get_mut(generation.name()) {
            versions.retain(|other| !Arc::ptr_eq(other, generation));
            if versions.is_empty() {
                next.plugins.remove(generation.name());
            }
        }
        next
    }

    /// Whether any version of a plugin serves.
    pub fn serves(&self, name: &PluginName) -> bool {
        self.plugins.contains_key(name)
    }

    /// This snapshot with a version announced that is being loaded: its routes wait for it.
    #[must_use]
    pub fn with_loading(&self, name: &PluginName) -> Self {
        let mut next = self.clone();
        *next.loading.entry(name.clone()).or_default() += 1;
        next
    }

    /// This snapshot after loading a version has ended, well or not.
    #[must_use]
    pub fn without_loading(&self, name: &PluginName) -> Self {
        let mut next = self.clone();
        if let Some(left) = next.loading.get_mut(name) {
            *left -= 1;
            if *left == 0 {
                next.loading.remove(name);
            }
        }
        next
    }

    /// Plugins of which a version is being loaded for the first time.
    pub fn loading(&self) -> impl Iterator<Item = &PluginName> {
        self.loading.keys()
    }

    /// This snapshot with other builds in quarantine.
    #[must_use]
    pub fn with_quarantined(&self, quarantined: Arc<[Build]>) -> Self {
        Self {
            quarantined,
            ..self.clone()
        }
    }

    /// This snapshot with other plugins out of service by an operator's word.
    #[must_use]
    pub fn with_disabled(&self, disabled: Arc<[DisabledPlugin]>) -> Self {
        Self {
            disabled,
            ..self.clone()
        }
    }

    /// Whether an operator has taken a plugin out of service.
    pub fn is_disabled(&self, name: &PluginName) -> bool {
        self.disabled.iter().any(|disabled| disabled.name == *name)
    }

    /// Builds that worker processes have died in; none of them is loaded.
    pub fn quarantined(&self) -> &[Build] {
        &self.quarantined
    }

    /// Every generation, by name, the highest version first.
    pub fn generations(&self) -> impl Iterator<Item = &Arc<Generation>> {
        self.plugins.values().flatten()
    }

    /// The generation that serves a route: the highest version that will do. Pre-releases serve only
    /// where the requirement names one.
    ///
    /// # Errors
    /// Nothing that is loaded will do.
    pub fn resolve(&self, requested: &Requested) -> Result<&Arc<Generation>, Missing> {
        if self.is_disabled(&requested.name) {
            return Err(Missing::Disabled(requested.name.clone()));
        }
        if self.loading.contains_key(&requested.name) {
            return Err(Missing::Loading(requested.name.clone()));
        }
        let versions = self
            .plugins
            .get(&requested.name)
            .map_or(&[][..], Vec::as_slice);
        let any_release = VersionReq::STAR;
        let requirement = requested.requirement.as_ref().unwrap_or(&any_release);
        let will_do = |version: &Version| requirement.matches(version);
        if let Some(generation) = versions.iter().find(|found| will_do(found.version())) {
            return Ok(generation);
        }
        let in_quarantine = self
            .quarantined
            .iter()
            .find(|build| build.name == requested.name && will_do(&build.version));
        if let Some(build) = in_quarantine {
            return Err(Missing::Quarantined {
                name: build.name.clone(),
                version: build.version.clone(),
            });
        }
        if versions.is_empty() {
            return Err(Missing::Unknown(requested.name.clone()));
        }
        Err(Missing::NoVersion {
            name: requested.name.clone(),
            loaded: versions
                .iter()
                .map(|generation| generation.version().to_string())
                .collect::<Vec<_>>()
                .join(", "),
            requirement: requested.requirement.as_ref().map_or_else(
                || "any release (a pre-release needs a requirement that names it)".to_owned(),
                ToString::to_string,
            ),
        })
    }
}

/// Where the current snapshot stands. The control plane publishes, the data plane reads.
#[derive(Debug)]
pub struct Registry {
    current: watch::Sender<Option<Arc<Snapshot>>>,
    empty: OnceLock<Arc<Snapshot>>,
}

impl Registry {
    /// A registry before the first scan: nobody knows yet which plugins there are.
    pub fn new() -> Self {
        Self {
            current: watch::Sender::new(None),
            empty: OnceLock::new(),
        }
    }

    /// Swaps the snapshot; what has begun with the old one goes on with it.
    pub fn publish(&self, snapshot: Snapshot) {
        self.current.send_replace(Some(Arc::new(snapshot)));
    }

    /// Whether anybody knows which plugins there are: a scan, or an earlier worker.
    pub fn is_known(&self) -> bool {
        self.current.borrow().is_some()
    }

    /// The snapshot as it is now; empty before the first scan has ended.
    pub fn current(&self) -> Arc<Snapshot> {
        match &*self.current.borrow() {
            Some(snapshot) => Arc::clone(snapshot),
            None => Arc::clone(self.empty.get_or_init(Arc::default)),
        }
    }

    /// Follows the snapshots; none before the first scan has ended.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.current.subscribe()
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}
