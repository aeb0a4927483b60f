//! Configuration tokens: which raw configuration a token names, and which chain it means now.
//!
//! A token names raw configuration, so it stays good however often the plugins behind it change:
//! the chain is compiled anew in place. A prepare is answered at once, also for a chain that cannot
//! run; what is wrong with it shows when it is called. Tokens start at a random point and are never
//! given twice, since the gateway keeps those of an earlier life of this process.
//!
//! Nothing here runs a plugin on a call, and nothing here waits while a lock is held.

pub mod compile;

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::RwLock;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use crate::pipeline::chain::Chain;
use compile::Refused;

/// Bytes of configuration that all live tokens may hold together.
pub const MAX_CONFIGURATION_BYTES: usize = 512 << 20;

/// One plugin of a configuration, as the gateway names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PluginConf {
    /// `name` or `name@requirement`; any bytes.
    pub name: Arc<[u8]>,
    /// What the route says; any bytes.
    pub value: Arc<[u8]>,
}

/// What a token names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Prepared {
    /// The gateway's name of the configuration; empty from very old gateways.
    pub key: Box<[u8]>,
    /// The plugins in order.
    pub plugins: Box<[PluginConf]>,
}

impl Prepared {
    /// The key without its version: the same route, before and after an edit of it.
    pub fn route(&self) -> &[u8] {
        match self.key.iter().rposition(|byte| *byte == b'#') {
            Some(end) => &self.key[..end],
            None => &self.key,
        }
    }

    fn bytes(&self) -> usize {
        let plugins = self.plugins.iter();
        self.key.len()
            + plugins
                .map(|plugin| plugin.name.len() + plugin.value.len())
                .sum::<usize>()
    }
}

/// What a token means now.
#[derive(Debug, Clone)]
pub enum ChainState {
    /// Not yet known: the first call waits for it.
    Compiling,
    /// The chain.
    Ready(Arc<Chain>),
    /// It cannot run, and why; calls fail closed.
    Refused(Arc<Refused>),
}

/// A live token.
#[derive(Debug)]
pub struct Token {
    number: u32,
    prepared: Arc<Prepared>,
    /// Milliseconds since the table was made.
    last_used: AtomicU64,
    chain: watch::Sender<ChainState>,
    /// How often compiling it was begun: only the last one counts.
    begun: watch::Sender<u64>,
    /// The last one that came to an end.
    finished: watch::Sender<u64>,
}

impl Token {
    /// The number that the gateway knows.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The configuration that it names.
    pub fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    /// The gateway's key, for logs.
    pub fn key(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.prepared.key)
    }

    /// What it means now.
    pub fn chain(&self) -> ChainState {
        self.chain.borrow().clone()
    }

    fn begin_compiling(&self) -> u64 {
        let mut number = 0;
        self.begun.send_modify(|begun| {
            *begun += 1;
            number = *begun;
        });
        number
    }

    /// Waits until compiling it this time, or a later one, has come to an end.
    async fn compiled_up_to(&self, number: u64) {
        let mut finished = self.finished.subscribe();
        // The sender is part of the token, which the caller holds.
        let _ = finished.wait_for(|finished| *finished >= number).await;
    }

    /// Waits until it is known what it means.
    pub async fn compiled(&self) -> ChainState {
        let mut chain = self.chain.subscribe();
        let known = chain
            .wait_for(|state| !matches!(state, ChainState::Compiling))
            .await;
        match known {
            Ok(state) => state.clone(),
            // The sender is part of the token, which the caller holds.
            Err(_) => ChainState::Compiling,
        }
    }
}

/// Bounds of the table.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Live tokens, at most.
    pub max_tokens: usize,
    /// Bytes of configuration that they hold together, at most.
    pub max_bytes: usize,
    /// How long a token lives after its last use.
    pub time_to_live: Duration,
}

impl Bounds {
    /// A token outlives the gateway's own memory of it: 1.2 times the expiry, from its last use.
    pub fn new(max_tokens: usize, conf_expire_time: Duration) -> Self {
        Self {
            max_tokens,
            max_bytes: MAX_CONFIGURATION_BYTES,
            time_to_live: conf_expire_time.mul_f64(1.2),
        }
    }
}

/// A random point to count tokens from; never 0.
pub fn random_number() -> u32 {
    // The standard library's hash keys are random per process: a seed without another crate.
    let seed = RandomState::new().hash_one(std::process::id());
    u32::try_from(seed & u64::from(u32::MAX))
        .unwrap_or(1)
        .max(1)
}

/// All live tokens.
#[derive(Debug)]
pub struct Tokens {
    bounds: Bounds,
    made: Instant,
    table: RwLock<Table>,
    to_compile: mpsc::UnboundedSender<Arc<Token>>,
}

#[derive(Debug)]
struct Table {
    live: HashMap<u32, Arc<Token>>,
    by_conf: HashMap<Arc<Prepared>, u32>,
    /// Newest token of each route; the others are superseded.
    newest: HashMap<Box<[u8]>, u32>,
    bytes: usize,
    first: u32,
    next: u32,
    /// How many numbers are left in this life.
    unused: u32,
}

impl Tokens {
    /// An empty table. Tokens whose chain has to be compiled go to `to_compile`.
    pub fn new(bounds: Bounds, to_compile: mpsc::UnboundedSender<Arc<Token>>) -> Self {
        Self::starting_at(random_number(), bounds, to_compile)
    }

    fn starting_at(
        first: u32,
        bounds: Bounds,
        to_compile: mpsc::UnboundedSender<Arc<Token>>,
    ) -> Self {
        Self {
            bounds,
            made: Instant::now(),
            table: RwLock::new(Table {
                live: HashMap::new(),
                by_conf: HashMap::new(),
                newest: HashMap::new(),
                bytes: 0,
                first,
                next: first,
                unused: u32::MAX,
            }),
            to_compile,
        }
    }

    /// The token for a configuration: the one that it has already, or a new one. None where every
    /// number has been given: four billion configurations in one life.
    pub fn prepare(&self, prepared: Prepared, now: Instant) -> Option<u32> {
        let mut table = self.table.write();
        if let Some(token) = table
            .by_conf
            .get(&prepared)
            .and_then(|number| table.live.get(number))
        {
            token.last_used.store(self.millis(now), Ordering::Relaxed);
            return Some(token.number);
        }
        let bytes = prepared.bytes();
        if table.live.len() >= self.bounds.max_tokens
            || table.bytes.saturating_add(bytes) > self.bounds.max_bytes
        {
            table.make_room(self.bounds, bytes);
        }
        let number = table.next_number()?;
        let prepared = Arc::new(prepared);
        let token = Arc::new(Token {
            number,
            prepared: Arc::clone(&prepared),
            last_used: AtomicU64::new(self.millis(now)),
            chain: watch::Sender::new(ChainState::Compiling),
            begun: watch::Sender::new(0),
            finished: watch::Sender::new(0),
        });
        table.newest.insert(prepared.route().into(), number);
        table.by_conf.insert(prepared, number);
        table.live.insert(number, Arc::clone(&token));
        table.bytes += bytes;
        drop(table);
        // Fails only while the host is stopping; then nobody compiles any more.
        let _ = self.to_compile.send(token);
        Some(number)
    }

    /// A live token, which counts as used now.
    pub fn find(&self, number: u32, now: Instant) -> Option<Arc<Token>> {
        let token = Arc::clone(self.table.read().live.get(&number)?);
        let now = self.millis(now);
        let idle = now.saturating_sub(token.last_used.load(Ordering::Relaxed));
        if idle > self.time_to_live_millis() {
            return None;
        }
        token.last_used.store(now, Ordering::Relaxed);
        Some(token)
    }

    /// Every live token.
    pub fn live(&self) -> Vec<Arc<Token>> {
        self.table.read().live.values().cloned().collect()
    }

    /// Whether no newer configuration of its route has been prepared.
    pub fn is_newest(&self, token: &Token) -> bool {
        let table = self.table.read();
        table.newest.get(token.prepared.route()) == Some(&token.number)
    }

    /// Drops the tokens that nobody has used for their time to live; returns how many.
    pub fn drop_expired(&self, now: Instant) -> usize {
        let now = self.millis(now);
        let mut table = self.table.write();
        let expired: Vec<u32> = table
            .live
            .values()
            .filter(|token| {
                now.saturating_sub(token.last_used.load(Ordering::Relaxed))
                    > self.time_to_live_millis()
            })
            .map(|token| token.number)
            .collect();
        for number in &expired {
            table.remove(*number);
        }
        expired.len()
    }

    /// How long a token lives after its last use.
    pub fn time_to_live(&self) -> Duration {
        self.bounds.time_to_live
    }

    fn time_to_live_millis(&self) -> u64 {
        u64::try_from(self.bounds.time_to_live.as_millis()).unwrap_or(u64::MAX)
    }

    fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.made);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Table {
    fn next_number(&mut self) -> Option<u32> {
        self.unused = self.unused.checked_sub(1)?;
        let number = self.next;
        // 0 is never a token.
        self.next = number.checked_add(1).unwrap_or(1);
        debug_assert!(
            self.next != self.first || self.unused == 0,
            "a number would be given twice"
        );
        Some(number)
    }

    fn remove(&mut self, number: u32) {
        let Some(token) = self.live.remove(&number) else {
            return;
        };
        self.bytes -= token.prepared.bytes();
        self.by_conf.remove(&token.prepared);
        if self.newest.get(token.prepared.route()) == Some(&number) {
            self.newest.remove(token.prepared.route());
        }
    }

    /// Drops the longest unused tokens: first those that a newer version of their route has
    /// superseded, then, loudly, live ones. A part of the table at once, so that a full one is not
    /// searched for each new token.
    fn make_room(&mut self, bounds: Bounds, bytes: usize) {
        let max_tokens = bounds.max_tokens;
        let mut oldest: Vec<(bool, u64, u32)> = self
            .live
            .values()
            .map(|token| {
                let superseded = self
                    .newest
                    .get(token.prepared.route())
                    .is_some_and(|newest| *newest != token.number);
                let last_used = token.last_used.load(Ordering::Relaxed);
                (!superseded, last_used, token.number)
            })
            .collect();
        oldest.sort_unstable();
        let enough = max_tokens.saturating_sub(max_tokens / 64 + 1);
        let mut live_dropped = 0_usize;
        for (live, _, number) in oldest {
            if self.live.len() <= enough && self.bytes + bytes <= bounds.max_bytes {
                break;
            }
            self.remove(number);
            live_dropped += usize::from(live);
        }
        if live_dropped > 0 {
            tracing::error!(
                dropped = live_dropped,
                max_tokens,
                max_bytes = bounds.max_bytes,
                "too many live configurations: the gateway will be told that it lost tokens and \
                 prepare all of them again; raise --max-tokens where their number is too low"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails where an unwrap does")]

    use super::*;

    fn tokens(first: u32, max_tokens: usize) -> (Tokens, mpsc::UnboundedReceiver<Arc<Token>>) {
        let (to_compile, compiling) = mpsc::unbounded_channel();
        let bounds = Bounds::new(max_tokens, Duration::from_secs(10));
        (Tokens::starting_at(first, bounds, to_compile), compiling)
    }

    fn conf(key: &str, value: &str) -> Prepared {
        Prepared {
            key: key.as_bytes().into(),
            plugins: [PluginConf {
                name: b"say"[..].into(),
                value: value.as_bytes().into(),
            }]
            .into(),
        }
    }

    #[test]
    fn the_same_key_and_configuration_get_the_same_token() {
        let (tokens, mut compiling) = tokens(7, 10);
        let now = Instant::now();
        let first = tokens.prepare(conf("route#1#pre#1", "a"), now).unwrap();
        assert_eq!(tokens.prepare(conf("route#1#pre#1", "a"), now), Some(first));
        assert_ne!(tokens.prepare(conf("route#1#pre#2", "a"), now), Some(first));
        assert_ne!(tokens.prepare(conf("route#1#pre#1", "b"), now), Some(first));
        assert_eq!(compiling.try_recv().unwrap().number(), first);
        assert_eq!(compiling.len(), 2, "each new token is compiled once");
    }

    #[test]
    fn numbers_pass_over_zero_where_they_wrap() {
        let (tokens, _compiling) = tokens(u32::MAX, 10);
        let now = Instant::now();
        assert_eq!(tokens.prepare(conf("a#1", ""), now), Some(u32::MAX));
        assert_eq!(tokens.prepare(conf("b#1", ""), now), Some(1));
    }

    #[test]
    fn a_token_lives_one_fifth_longer_than_the_gateways_memory_counted_from_its_last_use() {
        let (tokens, _compiling) = tokens(7, 10);
        let start = Instant::now();
        let number = tokens.prepare(conf("a#1", ""), start).unwrap();
        let later = start + Duration::from_secs(11);
        assert!(tokens.find(number, later).is_some());
        assert!(
            tokens
                .find(number, later + Duration::from_secs(11))
                .is_some()
        );
        let much_later = later + Duration::from_secs(11 + 13);
        assert!(tokens.find(number, much_later).is_none());
        assert_eq!(tokens.drop_expired(much_later), 1);
        assert!(tokens.live().is_empty());
    }

    #[test]
    fn a_full_table_drops_superseded_configurations_before_live_ones() {
        let (tokens, _compiling) = tokens(7, 3);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let oldest_but_live = tokens.prepare(conf("b#1", ""), at(0)).unwrap();
        let superseded = tokens.prepare(conf("a#1", ""), at(1)).unwrap();
        let newer = tokens.prepare(conf("a#2", ""), at(2)).unwrap();
        let newest = tokens.prepare(conf("c#1", ""), at(3)).unwrap();
        assert!(tokens.find(superseded, at(3)).is_none());
        for number in [oldest_but_live, newer, newest] {
            assert!(tokens.find(number, at(3)).is_some());
        }
    }

    #[test]
    fn configurations_are_bounded_in_bytes_too() {
        let (mut tokens, _compiling) = tokens(7, 10);
        tokens.bounds.max_bytes = 100;
        let now = Instant::now();
        let forty = "x".repeat(40);
        let first = tokens.prepare(conf("a#1", &forty), now).unwrap();
        let later = now + Duration::from_secs(1);
        let second = tokens.prepare(conf("b#1", &forty), later).unwrap();
        let third = tokens.prepare(conf("c#1", &forty), later).unwrap();
        assert!(tokens.find(first, later).is_none());
        assert!(tokens.find(second, later).is_some() && tokens.find(third, later).is_some());
    }

    #[test]
    fn a_number_is_never_given_twice() {
        let (tokens, _compiling) = tokens(7, 10);
        tokens.table.write().unused = 1;
        let now = Instant::now();
        assert!(tokens.prepare(conf("a#1", ""), now).is_some());
        assert_eq!(tokens.prepare(conf("b#1", ""), now), None);
    }

    #[test]
    fn two_processes_start_at_different_numbers() {
        let start = || {
            let (to_compile, _compiling) = mpsc::unbounded_channel();
            let bounds = Bounds::new(1, Duration::from_secs(1));
            Tokens::new(bounds, to_compile).table.read().next
        };
        let starts: std::collections::HashSet<u32> = (0..8).map(|_| start()).collect();
        assert!(starts.len() > 1 && !starts.contains(&0));
    }
}
