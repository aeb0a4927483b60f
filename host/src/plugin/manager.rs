//! Discovers, loads, finds, calls and unloads plugins, by name or all of them: the control plane's
//! hands, and a type that other programs could embed.
//!
//! What serves changes by swapping the [`Registry`]'s snapshot; nothing else of the data plane is
//! touched. The manager never watches files and never decides when to act.

use std::{
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use serde_json::Value;
use tokio::{
    runtime::Handle,
    sync::{Mutex, oneshot},
};

use super::{
    discovery::{Candidate, Discovery, Problem, discover},
    library::{Library, LibraryError, Services},
    metadata::{Metadata, PluginName},
    private_copy::{CopyError, PrivateCopy},
    registry::{Generation, Missing, RefusedConfiguration, Registry, Requested, Rules, Snapshot},
    schema::Violations,
    settings::{Operator, PluginSettings},
};
use crate::pipeline::{
    self, End, Pipeline,
    call::CallBox,
    chain::{Chain, Link},
    gateway::Gateway,
};

/// Time that a plugin may take to open, construct and run its `on_load`.
pub const LOAD_TIME: Duration = Duration::from_secs(10);

/// Time that an unloaded generation's calls may take to end; after it, `on_unload` is not run.
pub const RETIRE_TIME: Duration = Duration::from_secs(70);

/// Time that `on_unload` may take.
pub const UNLOAD_TIME: Duration = Duration::from_secs(5);

/// Where plugins come from and what the operator says about them.
#[derive(Debug)]
pub struct Options {
    /// The directory that is searched.
    pub plugin_dir: PathBuf,
    /// A directory of this process alone, for copies of libraries.
    pub private_dir: PathBuf,
    /// The operator's word on single plugins.
    pub operator: Operator,
}

/// Manages the plugins of one registry.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use plugin_host::plugin::{manager::{Manager, Options}, registry::Registry, settings::Operator};
///
/// let manager = Manager::new(
///     Options {
///         plugin_dir: "/etc/plugin-host/plugins".into(),
///         private_dir: "/run/plugin-host/private".into(),
///         operator: Operator::default(),
///     },
///     Arc::new(Registry::new()),
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
    /// Held while a snapshot is made from the last one, so that none is lost.
    swapping: Mutex<()>,
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

/// A plugin could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("plugin {plugin} {version} ({}) was not loaded: {cause}", library.display())]
pub struct LoadError {
    /// Its name.
    pub plugin: PluginName,
    /// The version that was to be loaded.
    pub version: semver::Version,
    /// The operator's file.
    pub library: PathBuf,
    /// Why not.
    #[source]
    pub cause: LoadErrorCause,
}

/// Why a plugin could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadErrorCause {
    /// The operator's settings for it cannot be used: the operator's fault.
    #[error("its settings cannot be used: {0}")]
    Settings(String),
    /// The operator's settings do not fit its schema: the operator's fault.
    #[error("its settings do not fit its `settings_schema`: {0}")]
    SettingsSchema(Violations),
    /// There is no place for a copy: the machine's fault.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The thread that loaded it ended: the host's fault.
    #[error("the host gave up on it: {0}")]
    Ended(String),
    /// The library or the plugin in it refuses: the plugin's fault.
    #[error(transparent)]
    Library(#[from] LibraryError),
}

/// A plugin could not be called.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nothing that is loaded answers to the name.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// It refuses the configuration.
    #[error(transparent)]
    Configuration(#[from] RefusedConfiguration),
}

impl Manager {
    /// A manager of a registry's plugins; nothing is loaded yet.
    pub fn new(options: Options, registry: Arc<Registry>) -> Self {
        Self {
            options: Arc::new(options),
            registry,
            swapping: Mutex::default(),
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

    /// Loads everything that the plugin directory holds. Each plugin serves as soon as all its
    /// versions are there; one that takes its time holds up its own routes and no others.
    pub async fn load_all(&self) -> Loaded {
        let discovery = self.discover().await;
        self.swap(|snapshot| {
            let found = discovery.found.iter();
            found.fold(snapshot.clone(), |next, candidate| {
                next.with_loading(&candidate.metadata.name)
            })
        })
        .await;
        let mut loading: FuturesUnordered<_> = discovery
            .found
            .into_iter()
            .map(|candidate| async move {
                let name = candidate.metadata.name.clone();
                (name, self.construct(candidate).await)
            })
            .collect();
        let mut loaded = Loaded {
            problems: discovery.problems,
            ..Loaded::default()
        };
        while let Some((name, constructed)) = loading.next().await {
            let generation = constructed.map(Arc::new);
            self.swap(|snapshot| {
                let next = snapshot.without_loading(&name);
                match &generation {
                    Ok(generation) => next.with(Arc::clone(generation)),
                    Err(_) => next,
                }
            })
            .await;
            match generation {
                Ok(generation) => loaded.serving.push(generation),
                Err(error) => loaded.failures.push(error),
            }
        }
        loaded
    }

    /// Loads one plugin and publishes it, in place of its version if that is loaded.
    ///
    /// # Errors
    /// It cannot be loaded; nothing has changed.
    pub async fn load(&self, candidate: Candidate) -> Result<Arc<Generation>, LoadError> {
        let generation = Arc::new(self.construct(candidate).await?);
        self.swap(|snapshot| snapshot.with(Arc::clone(&generation)))
            .await;
        Ok(generation)
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
        let chain = Chain {
            links: vec![Link::new(Arc::new(generation.configure(configuration)?))],
        };
        let now = tokio::time::Instant::now();
        let skipped = |failure: &pipeline::PluginFailure| {
            tracing::warn!(plugin = failure.plugin, version = %failure.version, reason = %failure.reason, "skipped");
        };
        Ok(pipeline::run(pipeline, &chain, call, gateway, now, skipped).await)
    }

    /// Takes every version of a plugin out of service; its routes fail closed. Calls that have begun
    /// end with it; then `on_unload` runs, and the plugin is dropped. Returns at once.
    ///
    /// # Errors
    /// No such plugin is loaded.
    pub async fn unload(&self, name: &str) -> Result<(), Missing> {
        let requested = Requested::parse(name)?;
        let mut retired = Vec::new();
        self.swap(|snapshot| {
            retired = snapshot
                .generations()
                .filter(|generation| *generation.name() == requested.name)
                .cloned()
                .collect();
            snapshot.without(&requested.name)
        })
        .await;
        if retired.is_empty() {
            return Err(Missing::Unknown(requested.name));
        }
        retired.into_iter().for_each(retire);
        Ok(())
    }

    /// Takes every plugin out of service, as [`Manager::unload`] does.
    pub async fn unload_all(&self) {
        let mut retired = Vec::new();
        self.swap(|snapshot| {
            retired = snapshot.generations().cloned().collect();
            Snapshot::default()
        })
        .await;
        retired.into_iter().for_each(retire);
    }

    /// Runs every plugin's `on_unload` because the process ends; calls may still be open, and how
    /// long this may take is the caller's to bound.
    pub async fn say_goodbye(&self) {
        let snapshot = self.registry.current();
        join_all(snapshot.generations().map(|generation| generation.unload())).await;
    }

    async fn swap(&self, next: impl FnOnce(&Snapshot) -> Snapshot) {
        let _swapping = self.swapping.lock().await;
        let next = next(&self.registry.current());
        self.registry.publish(next);
    }

    /// Everything from verified bytes to a plugin that is ready to serve.
    async fn construct(&self, candidate: Candidate) -> Result<Generation, LoadError> {
        let began = Instant::now();
        let plugin = candidate.metadata.name.clone();
        let version = candidate.metadata.version.clone();
        let library = candidate.library_path.clone();
        for warning in &candidate.warnings {
            tracing::warn!(%plugin, %version, file = %candidate.directory.display(), "{warning}");
        }
        let options = Arc::clone(&self.options);
        let runtime = Handle::current();
        // A plugin that blocks or spins while it loads keeps one thread, which nobody else needs.
        let (say, constructing) = oneshot::channel();
        let started = thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || {
                // Nobody listens any more where it took too long.
                let _ = say.send(runtime.block_on(construct(candidate, &options)));
            });
        let constructed = match started {
            Ok(_) => match tokio::time::timeout(LOAD_TIME, constructing).await {
                Ok(Ok(constructed)) => constructed,
                Ok(Err(ended)) => Err(LoadErrorCause::Ended(ended.to_string())),
                Err(_) => Err(LibraryError::Slow(LOAD_TIME.as_secs()).into()),
            },
            Err(error) => Err(LoadErrorCause::Ended(error.to_string())),
        };
        match constructed {
            Ok(generation) => {
                tracing::info!(
                    %plugin,
                    %version,
                    library = %library.display(),
                    digest = %generation.digest(),
                    milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
                    "plugin loaded"
                );
                Ok(generation)
            }
            Err(cause) => Err(LoadError {
                plugin,
                version,
                library,
                cause,
            }),
        }
    }
}

async fn construct(candidate: Candidate, options: &Options) -> Result<Generation, LoadErrorCause> {
    let metadata = candidate.metadata;
    let (said, settings) = settings_of(&metadata, &options.operator)?;
    let copy = PrivateCopy::write(
        &options.private_dir,
        &metadata.name,
        &metadata.version,
        &candidate.digest,
        &candidate.bytes,
    )?;
    drop(candidate.bytes);
    let version = Arc::new(metadata.version);
    let services = Services {
        plugin: metadata.name.clone(),
        version: Arc::clone(&version),
        clock: Handle::current(),
    };
    let plugin = Library::open(copy.path())?
        .create(services, &settings)
        .await?;
    let rules = Rules {
        failure_policy: said.failure_policy.unwrap_or(metadata.failure_policy),
        timeout: said.timeout.or(metadata.timeout),
        execution: said.execution.unwrap_or(metadata.execution),
        needs: metadata.needs,
        config_schema: metadata.config_schema,
    };
    Ok(Generation::new(
        metadata.name,
        version,
        candidate.digest,
        rules,
        plugin,
        copy,
    ))
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

/// Waits until nobody uses a generation any more, then runs its `on_unload` and drops it.
fn retire(generation: Arc<Generation>) {
    const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);
    tokio::spawn(async move {
        let (plugin, version) = (generation.name().clone(), generation.version().clone());
        let began = Instant::now();
        while Arc::strong_count(&generation) > 1 {
            if began.elapsed() > RETIRE_TIME {
                tracing::error!(%plugin, %version, "still in use long after it was unloaded: its on_unload is not run");
                return;
            }
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
        if tokio::time::timeout(UNLOAD_TIME, generation.unload())
            .await
            .is_err()
        {
            tracing::error!(%plugin, %version, "on_unload did not end in time");
        }
        drop(generation);
        tracing::info!(%plugin, %version, "plugin unloaded");
    });
}
