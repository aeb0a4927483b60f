//! Compiles a token's configuration into a chain against the plugins that are loaded now, and again
//! whenever those change.
//!
//! Parsing runs the plugins' code and may take its time, or for ever: always on threads of its own,
//! few for each plugin, so that it holds up no event loop and no other plugin. A parsed
//! configuration is kept as long as its route, its bytes and the generation stay the same, so that
//! a limiter keeps its bucket when something else of the chain changes.

use std::{
    collections::HashMap,
    fmt, io,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior},
};

use super::{ChainState, Prepared, Token, Tokens, parsers::Parsers};
use crate::{
    pipeline::chain::{Chain, Link},
    plugin::{
        registry::{
            Configured, Generation, Missing, PlaceToParse, RefusedConfiguration, Registry,
            Requested, Snapshot,
        },
        state::{ConfigurationPlace, Configurations},
    },
};

/// How long a configuration may be parsed before the log asks what keeps the plugin.
const SLOW: Duration = Duration::from_secs(10);

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
    /// There is no thread to parse its configuration on: the machine's fault.
    #[error("its configuration cannot be parsed: {0}")]
    NoThread(#[source] io::Error),
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
    parsers: Parsers,
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
    pub reason: RefusedPlugin,
}

/// One parsed configuration: of one place of one route, for one generation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct InstanceKey {
    place: ConfigurationPlace,
    /// Address of the generation, which an instance keeps alive.
    generation: usize,
}

impl InstanceKey {
    fn new(prepared: &Prepared, index: usize, generation: &Arc<Generation>) -> Self {
        let plugin = &prepared.plugins[index];
        let earlier = prepared.plugins[..index].iter();
        Self {
            place: ConfigurationPlace {
                route: prepared.route().into(),
                plugin: Arc::clone(&plugin.name),
                occurrence: earlier.filter(|earlier| *earlier == plugin).count(),
                value: Arc::clone(&plugin.value),
            },
            generation: Arc::as_ptr(generation).addr(),
        }
    }
}

impl Compiler {
    /// A compiler of these tokens against the plugins of this registry.
    pub fn new(registry: Arc<Registry>, tokens: Arc<Tokens>) -> Self {
        Self {
            registry,
            tokens,
            instances: Mutex::default(),
            parsers: Parsers::new(),
        }
    }

    /// The registry whose plugins it compiles against.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The tokens that it compiles.
    pub fn tokens(&self) -> &Arc<Tokens> {
        &self.tokens
    }

    /// Parses every live configuration that `generation` would serve in the snapshot `next`. May
    /// take as long as the plugin likes: the caller bounds it.
    pub async fn try_out(&self, next: &Snapshot, generation: &Arc<Generation>) -> TriedOut {
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
                match self.instance(&token, index, generation).await {
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

    /// Compiles every live token again; when it returns, each chain is that of the current snapshot
    /// or a newer one. May take as long as plugins like: the caller bounds it.
    pub async fn compile_all(&self) {
        for token in self.tokens.live() {
            let number = self.compile(&token).await;
            token.meaning.finished_up_to(number).await;
        }
    }

    /// Compiles a token's chain against the current snapshot and puts it in place; gives up as soon
    /// as somebody else begins to, with a snapshot that is newer or the same. Returns which time of
    /// compiling the token this was.
    async fn compile(&self, token: &Token) -> u64 {
        let number = token.meaning.begin();
        let snapshot = self.registry.current();
        let compiled = tokio::select! {
            compiled = self.chain(token, &snapshot) => compiled,
            () = token.meaning.overtaken(number) => return number,
        };
        token
            .meaning
            .finish(number, |current| new_state(token, current, compiled));
        number
    }

    async fn chain(&self, token: &Token, snapshot: &Snapshot) -> Result<Chain, Refused> {
        let plugins = &token.prepared.plugins;
        let mut links = Vec::with_capacity(plugins.len());
        let mut refused = Vec::new();
        for (index, plugin) in plugins.iter().enumerate() {
            match self.configured(token, index, snapshot).await {
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

    async fn configured(
        &self,
        token: &Token,
        index: usize,
        snapshot: &Snapshot,
    ) -> Result<Arc<Configured>, RefusedPlugin> {
        let name = String::from_utf8_lossy(&token.prepared.plugins[index].name);
        let requested = Requested::parse(&name)?;
        let generation = snapshot.resolve(&requested)?;
        self.instance(token, index, generation).await
    }

    /// The instance of one place of a chain that is there already, or a new one.
    async fn instance(
        &self,
        token: &Token,
        index: usize,
        generation: &Arc<Generation>,
    ) -> Result<Arc<Configured>, RefusedPlugin> {
        let key = InstanceKey::new(&token.prepared, index, generation);
        if let Some(kept) = self.kept(&key) {
            return Ok(kept);
        }
        let place = generation.place_to_parse(token.meaning.wanted()).await;
        // Two tokens of one route may be compiled at once; the second one must find the first's.
        if let Some(kept) = self.kept(&key) {
            return Ok(kept);
        }
        let configured = Arc::new(parse(&self.parsers, generation, &key.place.value, place).await?);
        let mut instances = self.instances.lock();
        if let Some(kept) = instances.get(&key).and_then(Weak::upgrade) {
            return Ok(kept);
        }
        instances.insert(key, Arc::downgrade(&configured));
        Ok(configured)
    }

    /// Every parsed configuration of a generation that is in use.
    pub fn configurations_of(&self, generation: &Arc<Generation>) -> Configurations {
        let address = Arc::as_ptr(generation).addr();
        let instances = self.instances.lock();
        let of_it = instances
            .iter()
            .filter(|(key, _)| key.generation == address);
        of_it
            .filter_map(|(key, instance)| Some((key.place.clone(), instance.upgrade()?)))
            .collect()
    }

    fn kept(&self, key: &InstanceKey) -> Option<Arc<Configured>> {
        self.instances.lock().get(key).and_then(Weak::upgrade)
    }

    /// Routes whose chain cannot run, by name: those that are the newest of their route, since nobody
    /// calls the others for long.
    pub fn refused(&self) -> Vec<(String, Arc<Refused>)> {
        let live = self.tokens.live();
        let mut refused: Vec<_> = live
            .iter()
            .filter(|token| self.tokens.is_newest(token))
            .filter_map(|token| match token.chain() {
                ChainState::Refused(refused) => Some((token.key().into_owned(), refused)),
                _ => None,
            })
            .collect();
        refused.sort_by(|(one, _), (other, _)| one.cmp(other));
        refused
    }

    /// Forgets instances that no chain uses any more.
    pub fn forget_unused(&self) {
        self.instances
            .lock()
            .retain(|_, instance| instance.strong_count() > 0);
    }
}

/// Parses a configuration on a thread, which keeps its place as long as it takes.
async fn parse(
    parsers: &Parsers,
    generation: &Arc<Generation>,
    raw: &Arc<[u8]>,
    place: PlaceToParse,
) -> Result<Configured, RefusedPlugin> {
    let (parser, raw) = (Arc::clone(generation), Arc::clone(raw));
    let mut parsed = parsers.run(move || {
        let configured = parser.configure(&raw);
        drop(place);
        configured
    });
    let parsed = match tokio::time::timeout(SLOW, &mut parsed).await {
        Ok(parsed) => parsed,
        Err(_) => {
            tracing::error!(
                plugin = %generation.name(),
                version = %generation.version(),
                seconds = SLOW.as_secs(),
                "the plugin has not parsed a configuration yet; its route's calls fail closed until it has"
            );
            parsed.await
        }
    };
    parsed
        .map_err(|ended| RefusedPlugin::NoThread(io::Error::other(ended)))?
        .map_err(|reason| RefusedPlugin::Configuration {
            version: generation.version().clone(),
            reason,
        })
}

/// What a token means from now on, where that is something else than before, and said in the log.
fn new_state(
    token: &Token,
    current: &ChainState,
    compiled: Result<Chain, Refused>,
) -> Option<ChainState> {
    match compiled {
        Ok(chain) => {
            if let ChainState::Ready(current) = current
                && same_links(current, &chain)
            {
                return None;
            }
            tracing::debug!(route = %token.key(), token = token.number, "chain ready");
            Some(ChainState::Ready(Arc::new(chain)))
        }
        Err(refused) if refused.is_early() => None,
        Err(refused) => {
            tracing::error!(
                route = %token.key(),
                reason = %refused,
                "this route's chain cannot run: its calls fail closed until that is mended"
            );
            Some(ChainState::Refused(Arc::new(refused)))
        }
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
    let mut sweep = tokio::time::interval(sweep_interval(tokens.time_to_live()));
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            token = new.recv() => match token {
                Some(token) => start(&compiler, token),
                None => return,
            },
            changed = snapshots.changed() => {
                if changed.is_err() {
                    return;
                }
                for token in tokens.live() {
                    start(&compiler, token);
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

fn start(compiler: &Arc<Compiler>, token: Arc<Token>) {
    let compiler = Arc::clone(compiler);
    tokio::spawn(async move {
        compiler.compile(&token).await;
    });
}

fn sweep_interval(time_to_live: Duration) -> Duration {
    (time_to_live / 4).clamp(Duration::from_millis(250), Duration::from_secs(60))
}
