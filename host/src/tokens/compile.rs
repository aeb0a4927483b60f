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

use super::{ChainState, PluginConf, Prepared, Token, Tokens};
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
    instances: Mutex<HashMap<InstanceKey, Weak<Configured>>>,
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
    /// A compiler against the plugins of this registry.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            instances: Mutex::default(),
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
            let occurrence = prepared.plugins[..index]
                .iter()
                .filter(|earlier| *earlier == plugin)
                .count();
            match self.configured(prepared.route(), plugin, occurrence, snapshot) {
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
        route: &[u8],
        plugin: &PluginConf,
        occurrence: usize,
        snapshot: &Snapshot,
    ) -> Result<Arc<Configured>, RefusedPlugin> {
        let requested = Requested::parse(&String::from_utf8_lossy(&plugin.name))?;
        let generation = snapshot.resolve(&requested)?;
        let key = InstanceKey {
            route: route.into(),
            plugin: Arc::clone(&plugin.name),
            occurrence,
            value: Arc::clone(&plugin.value),
            generation: address(generation),
        };
        // Two tokens of one route may be compiled at once; the second one must find the first's.
        if let Some(kept) = self.instances.lock().get(&key).and_then(Weak::upgrade) {
            return Ok(kept);
        }
        let configured = Arc::new(configure(generation, &plugin.value)?);
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

fn configure(generation: &Arc<Generation>, raw: &[u8]) -> Result<Configured, RefusedPlugin> {
    generation
        .configure(raw)
        .map_err(|reason| RefusedPlugin::Configuration {
            version: generation.version().clone(),
            reason,
        })
}

fn address(generation: &Arc<Generation>) -> usize {
    Arc::as_ptr(generation) as usize
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
    tokens: Arc<Tokens>,
    compiler: Arc<Compiler>,
    mut new: mpsc::UnboundedReceiver<Arc<Token>>,
    mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
) {
    if snapshots.wait_for(Option::is_some).await.is_err() {
        return;
    }
    snapshots.mark_unchanged();
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
