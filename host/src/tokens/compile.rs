//! Compiles a token's configuration into a chain against the plugins that are loaded now, and again
//! whenever those change.
//!
//! Parsing runs the plugins' code and may take its time: always on blocking threads, never on an
//! event loop. A parsed configuration is kept as long as its route, its bytes and the generation
//! stay the same, so that a limiter keeps its bucket when something else of the chain changes.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc, watch},
    time::{Instant, MissedTickBehavior},
};

use super::{ChainState, Prepared, Token, Tokens};
use crate::{
    pipeline::chain::{Chain, Link},
    plugin::registry::{
        Configured, Generation, Missing, RefusedConfiguration, Registry, Requested, Snapshot,
    },
};

/// Chains that are compiled at the same time.
const COMPILING_AT_ONCE: usize = 8;

/// Why a chain cannot run: every plugin of it that is missing or refuses its configuration.
#[derive(Debug)]
pub struct Refused {
    /// Each with the name that the route gives it.
    pub plugins: Vec<(String, RefusedPlugin)>,
}

/// Why one plugin of a chain cannot run: the operator's fault.
#[derive(Debug, thiserror::Error)]
pub enum RefusedPlugin {
    /// No loaded plugin answers to the name.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// It is loaded and refuses its configuration.
    #[error("version {version}: {reason}")]
    Configuration {
        /// The version that would serve.
        version: semver::Version,
        /// Why it refuses.
        reason: RefusedConfiguration,
    },
}

impl Refused {
    /// Whether a plugin is only not there yet: the next snapshot knows more.
    fn is_early(&self) -> bool {
        self.plugins
            .iter()
            .any(|(_, refused)| matches!(refused, RefusedPlugin::Missing(Missing::Loading(_))))
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, refused)) in self.plugins.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{name}: {refused}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}

/// Compiles chains.
#[derive(Debug)]
pub struct Compiler {
    registry: Arc<Registry>,
    tokens: Arc<Tokens>,
    instances: Mutex<HashMap<InstanceKey, Weak<Configured>>>,
}

/// What the live configurations of a plugin's routes are to a generation that does not serve yet.
#[derive(Debug, Default)]
pub struct TriedOut {
    /// Parsed, and kept here so that the chains find them when the generation serves.
    pub accepted: Vec<Arc<Configured>>,
    /// Refused, and worked until now on the newest version of their route: reasons not to upgrade.
    pub vetoes: Vec<RefusedRoute>,
    /// Refused as well, but by routes that nobody may use any more, or that did not work before.
    pub ignored: Vec<RefusedRoute>,
}

/// A live configuration that a generation refuses.
#[derive(Debug, thiserror::Error)]
#[error("{route}: {reason}")]
pub struct RefusedRoute {
    /// The gateway's key of the configuration.
    pub route: String,
    /// Why.
    pub reason: RefusedConfiguration,
}

/// One parsed configuration: of one place of one route, for one generation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct InstanceKey {
    route: Box<[u8]>,
    plugin: Arc<[u8]>,
    /// Which of several entries of the same plugin in the chain.
    occurrence: usize,
    value: Arc<[u8]>,
    /// Address of the generation, which an instance keeps alive.
    generation: usize,
}

impl Compiler {
    /// A compiler of these tokens against the plugins of this registry.
    pub fn new(registry: Arc<Registry>, tokens: Arc<Tokens>) -> Self {
        Self {
            registry,
            tokens,
            instances: Mutex::default(),
        }
    }

    /// The registry whose plugins it compiles against.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Parses every live configuration that `generation` would serve in the snapshot `next`. May
    /// take its time: never on an event loop.
    pub fn try_out(&self, next: &Snapshot, generation: &Arc<Generation>) -> TriedOut {
        let mut tried = TriedOut::default();
        for token in self.tokens.live() {
            let prepared = &token.prepared;
            for (index, plugin) in prepared.plugins.iter().enumerate() {
                let serves = Requested::parse(&String::from_utf8_lossy(&plugin.name))
                    .and_then(|requested| next.resolve(&requested).cloned())
                    .is_ok_and(|serving| Arc::ptr_eq(&serving, generation));
                if !serves {
                    continue;
                }
                let key = instance_key(prepared, index, generation);
                match self.instance(key, generation) {
                    Ok(configured) => tried.accepted.push(configured),
                    Err(reason) => {
                        let refused = RefusedRoute {
                            route: token.key().into_owned(),
                            reason,
                        };
                        let worked = matches!(token.chain(), ChainState::Ready(_));
                        if worked && self.tokens.is_newest(&token) {
                            tried.vetoes.push(refused);
                        } else {
                            tried.ignored.push(refused);
                        }
                    }
                }
            }
        }
        tried
    }

    /// Compiles every live token again, one after the other. Never on an event loop.
    pub fn compile_all(&self) {
        for token in self.tokens.live() {
            self.compile(&token);
        }
    }

    /// Compiles a token's chain against the current snapshot and puts it in place.
    pub fn compile(&self, token: &Token) {
        let _compiling = token.compiling.lock();
        let snapshot = self.registry.current();
        match self.chain(&token.prepared, &snapshot) {
            Ok(chain) => {
                if let ChainState::Ready(current) = &*token.chain.borrow()
                    && same_links(current, &chain)
                {
                    return;
                }
                tracing::debug!(route = %token.key(), token = token.number, "chain ready");
                token.chain.send_replace(ChainState::Ready(Arc::new(chain)));
            }
            Err(refused) if refused.is_early() => {}
            Err(refused) => {
                tracing::error!(
                    route = %token.key(),
                    reason = %refused,
                    "this route's chain cannot run: its calls fail closed until that is mended"
                );
                token
                    .chain
                    .send_replace(ChainState::Refused(Arc::new(refused)));
            }
        }
    }

    fn chain(&self, prepared: &Prepared, snapshot: &Snapshot) -> Result<Chain, Refused> {
        let mut links = Vec::with_capacity(prepared.plugins.len());
        let mut refused = Vec::new();
        for (index, plugin) in prepared.plugins.iter().enumerate() {
            match self.configured(prepared, index, snapshot) {
                Ok(configured) => links.push(Link::new(configured)),
                Err(reason) => refused.push((shown(&plugin.name), reason)),
            }
        }
        if refused.is_empty() {
            Ok(Chain { links })
        } else {
            Err(Refused { plugins: refused })
        }
    }

    fn configured(
        &self,
        prepared: &Prepared,
        index: usize,
        snapshot: &Snapshot,
    ) -> Result<Arc<Configured>, RefusedPlugin> {
        let name = &prepared.plugins[index].name;
        let requested = Requested::parse(&String::from_utf8_lossy(name))?;
        let generation = snapshot.resolve(&requested)?;
        self.instance(instance_key(prepared, index, generation), generation)
            .map_err(|reason| RefusedPlugin::Configuration {
                version: generation.version().clone(),
                reason,
            })
    }

    /// The instance that is there already, or a new one.
    fn instance(
        &self,
        key: InstanceKey,
        generation: &Arc<Generation>,
    ) -> Result<Arc<Configured>, RefusedConfiguration> {
        // Two tokens of one route may be compiled at once; the second one must find the first's.
        if let Some(kept) = self.instances.lock().get(&key).and_then(Weak::upgrade) {
            return Ok(kept);
        }
        let configured = Arc::new(generation.configure(&key.value)?);
        let mut instances = self.instances.lock();
        if let Some(kept) = instances.get(&key).and_then(Weak::upgrade) {
            return Ok(kept);
        }
        instances.insert(key, Arc::downgrade(&configured));
        Ok(configured)
    }

    /// Forgets instances that no chain uses any more.
    pub fn forget_unused(&self) {
        self.instances
            .lock()
            .retain(|_, instance| instance.strong_count() > 0);
    }
}

fn instance_key(prepared: &Prepared, index: usize, generation: &Arc<Generation>) -> InstanceKey {
    let plugin = &prepared.plugins[index];
    let earlier = prepared.plugins[..index].iter();
    InstanceKey {
        route: prepared.route().into(),
        plugin: Arc::clone(&plugin.name),
        occurrence: earlier.filter(|earlier| *earlier == plugin).count(),
        value: Arc::clone(&plugin.value),
        generation: Arc::as_ptr(generation).addr(),
    }
}

fn same_links(one: &Chain, other: &Chain) -> bool {
    one.links.len() == other.links.len()
        && one
            .links
            .iter()
            .zip(&other.links)
            .all(|(one, other)| Arc::ptr_eq(&one.configured, &other.configured))
}

fn shown(name: &[u8]) -> String {
    const LONGEST: usize = 160;
    String::from_utf8_lossy(&name[..name.len().min(LONGEST)]).into_owned()
}

/// Compiles new tokens as they come and all of them when the plugins change, and drops expired
/// ones. Runs until the tokens' table is gone.
///
/// Before the plugin directory has been searched nothing is compiled, and before a plugin that was
/// found is loaded no chain with it: calls wait.
pub async fn keep_compiled(
    compiler: Arc<Compiler>,
    mut new: mpsc::UnboundedReceiver<Arc<Token>>,
    mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
) {
    if snapshots.wait_for(Option::is_some).await.is_err() {
        return;
    }
    snapshots.mark_unchanged();
    let tokens = Arc::clone(&compiler.tokens);
    let room = Arc::new(Semaphore::new(COMPILING_AT_ONCE));
    let mut sweep = tokio::time::interval(sweep_interval(tokens.time_to_live()));
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            token = new.recv() => match token {
                Some(token) => start(&compiler, &room, token).await,
                None => return,
            },
            changed = snapshots.changed() => {
                if changed.is_err() {
                    return;
                }
                for token in tokens.live() {
                    start(&compiler, &room, token).await;
                }
            }
            _ = sweep.tick() => {
                let expired = tokens.drop_expired(Instant::now());
                if expired > 0 {
                    tracing::debug!(expired, "tokens that nobody used any more");
                }
                compiler.forget_unused();
            }
        }
    }
}

async fn start(compiler: &Arc<Compiler>, room: &Arc<Semaphore>, token: Arc<Token>) {
    let permit = Arc::clone(room)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    let compiler = Arc::clone(compiler);
    Handle::current().spawn_blocking(move || {
        compiler.compile(&token);
        drop(permit);
    });
}

fn sweep_interval(time_to_live: Duration) -> Duration {
    (time_to_live / 4).clamp(Duration::from_millis(250), Duration::from_secs(60))
}
