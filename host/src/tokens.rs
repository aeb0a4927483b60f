//! Configuration tokens: which raw configuration a token names, and which chain it means now.
//!
//! A token names raw configuration, so it stays good however often the plugins behind it change:
//! the chain is compiled anew in place. A prepare is answered at once, also for a chain that cannot
//! run; what is wrong with it shows when it is called. Tokens start at a random point and are never
//! given twice, since the gateway keeps those of an earlier life of this process.
//!
//! Below a supervisor a token outlives its worker: it is in a journal before the gateway hears of
//! it. While one worker takes over from another, each knows the other's tokens too: the gateway uses
//! a token on any of its connections.
//!
//! Nothing here runs a plugin on a call. A call never waits for a prepare, but for one with a token
//! that is unknown while another worker's journal is followed.

pub mod compile;
pub mod journal;
mod keeping;
mod meaning;
mod numbers;
mod parsers;
mod table;

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    pipeline::{PluginFailure, chain::Chain},
    shared_memory::connections::ConnectionSlots,
};
use compile::Refused;
use journal::{Journal, Reader};
use keeping::Keeping;
use meaning::Meaning;
use numbers::Numbers;
use table::Table;

pub use keeping::{JOURNAL_BYTES, JOURNAL_GROWTH};
pub use numbers::first_number;

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

    /// Bytes of configuration.
    pub fn bytes(&self) -> usize {
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
    /// Counts the tokens of this table: numbers go round.
    order: u64,
    prepared: Arc<Prepared>,
    /// Milliseconds since the table was made.
    last_used: AtomicU64,
    /// Whether other workers get to know it.
    outlives: bool,
    meaning: Meaning,
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
        self.meaning.state()
    }

    /// Has the plugin that failed on a call remember it.
    pub fn remember_failure(&self, request_id: u32, failure: &PluginFailure) {
        let ChainState::Ready(chain) = self.chain() else {
            return;
        };
        let generations = chain.links.iter().map(|link| link.configured.generation());
        for generation in generations {
            if generation.name().as_str() == failure.plugin
                && *generation.version() == failure.version
            {
                generation.remember_failure(&self.key(), request_id, &failure.reason);
            }
        }
    }

    /// Waits until it is known what it means; it is compiled before those that nobody waits for.
    pub async fn compiled(&self) -> ChainState {
        self.meaning.known().await
    }

    /// Waits until it is known what it means, without hurrying it.
    pub async fn compiled_in_turn(&self) {
        self.meaning.known_in_turn().await;
    }
}

/// Where a token comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The gateway has prepared it, and is about to use it.
    Gateway,
    /// This host itself has, for calls of its own.
    Ourselves,
    /// Another worker gave it, who knows when: it may be used at any time, or never.
    Worker,
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

/// What tokens need that outlive their worker.
#[derive(Debug)]
pub struct Outliving {
    /// Counts the numbers of all workers.
    pub numbers: ConnectionSlots,
    /// The worker's own journal.
    pub journal: Journal,
    /// Gets a duplicate of the journal's new file each time that it has been written anew. The one
    /// before is written as well, until [`Tokens::journal_is_passed_on`].
    pub renewed: mpsc::UnboundedSender<OwnedFd>,
}

/// All live tokens.
#[derive(Debug)]
pub struct Tokens {
    bounds: Bounds,
    made: Instant,
    table: RwLock<Table>,
    /// Held by whoever makes a token, until it is in the journal: nobody else is given it before.
    making: Mutex<Making>,
    /// Whether another worker may know tokens that are unknown here.
    follows: AtomicBool,
    to_compile: mpsc::UnboundedSender<Arc<Token>>,
}

/// What it takes to make a token.
#[derive(Debug)]
struct Making {
    numbers: Numbers,
    made: u64,
    keeping: Option<Keeping>,
    /// Journals of workers that still give tokens.
    others: Vec<Reader>,
}

impl Tokens {
    /// An empty table of this process alone. Tokens whose chain has to be compiled go to
    /// `to_compile`.
    pub fn new(bounds: Bounds, to_compile: mpsc::UnboundedSender<Arc<Token>>) -> Self {
        let numbers = Numbers::own(first_number());
        Self::with(numbers, None, bounds, to_compile)
    }

    /// An empty table whose tokens outlive this process, otherwise as [`Tokens::new`].
    pub fn outliving(
        outliving: Outliving,
        bounds: Bounds,
        to_compile: mpsc::UnboundedSender<Arc<Token>>,
    ) -> Self {
        let Outliving {
            numbers,
            journal,
            renewed,
        } = outliving;
        let keeping = Keeping::new(journal, renewed);
        Self::with(Numbers::Shared(numbers), Some(keeping), bounds, to_compile)
    }

    fn with(
        numbers: Numbers,
        keeping: Option<Keeping>,
        bounds: Bounds,
        to_compile: mpsc::UnboundedSender<Arc<Token>>,
    ) -> Self {
        Self {
            bounds,
            made: Instant::now(),
            table: RwLock::default(),
            making: Mutex::new(Making {
                numbers,
                made: 0,
                keeping,
                others: Vec::new(),
            }),
            follows: AtomicBool::new(false),
            to_compile,
        }
    }

    /// Takes over the tokens of workers that are gone, the oldest worker first; returns how many.
    /// They are compiled like new ones, count as used now, and are in the own journal when this
    /// returns: nobody needs the others any more. No token is made meanwhile: to be done before the
    /// worker serves.
    pub fn restore(&self, journals: Vec<Reader>, now: Instant) -> usize {
        let mut making = self.making.lock();
        let mut taken_over = 0;
        for mut journal in journals {
            self.read(&mut making, &mut journal, now, &mut taken_over);
        }
        if let Some(keeping) = &mut making.keeping {
            keeping.all_are_alive();
        }
        taken_over
    }

    /// Takes over the tokens of a worker that lives, as [`Tokens::restore`] does, and from then on
    /// looks there for what is unknown here. For both workers of a hand-over, while it lasts.
    pub fn follow(&self, mut journal: Reader, now: Instant) -> usize {
        let mut making = self.making.lock();
        let mut taken_over = 0;
        if self.read(&mut making, &mut journal, now, &mut taken_over) {
            making.others.push(journal);
            self.follows.store(true, Ordering::Release);
        }
        taken_over
    }

    /// Reads to their ends the journals that are followed, and follows them no more: their workers
    /// give no token any more.
    pub fn follow_nobody(&self, now: Instant) {
        let mut making = self.making.lock();
        self.catch_up(&mut making, now);
        making.others.clear();
        self.follows.store(false, Ordering::Release);
    }

    /// Tells that whoever has to know has the descriptor of the journal that was renewed last. Not
    /// to be told while another worker follows the journal before.
    pub fn journal_is_passed_on(&self) {
        if let Some(keeping) = &mut self.making.lock().keeping {
            keeping.let_go_of_the_one_before();
        }
    }

    /// The token for a configuration: the one that it has already, or a new one. None where every
    /// number has been given: four billion configurations in one life.
    pub fn prepare(&self, prepared: Prepared, now: Instant) -> Option<u32> {
        let mut making = self.making.lock();
        if let Some(number) = self.known(&prepared, now) {
            return Some(number);
        }
        if self.catch_up(&mut making, now) > 0
            && let Some(number) = self.known(&prepared, now)
        {
            return Some(number);
        }
        let number = self.free_number(&mut making)?;
        self.add(&mut making, number, prepared, Source::Gateway, now);
        if let Some(keeping) = &mut making.keeping {
            self.renew_overgrown(keeping);
        }
        Some(number)
    }

    /// A new token that no other worker gets to know: for calls of this host's own, which end with
    /// their worker at the latest. Otherwise as [`Tokens::prepare`].
    pub fn lend(&self, prepared: Prepared, now: Instant) -> Option<u32> {
        let mut making = self.making.lock();
        let number = self.free_number(&mut making)?;
        self.add(&mut making, number, prepared, Source::Ourselves, now);
        Some(number)
    }

    fn free_number(&self, making: &mut Making) -> Option<u32> {
        loop {
            let number = making.numbers.next()?;
            // After four billion of them, one may still be alive.
            if self.table.read().get(number).is_none() {
                return Some(number);
            }
        }
    }

    fn known(&self, prepared: &Prepared, now: Instant) -> Option<u32> {
        let table = self.table.read();
        let token = table.of(prepared)?;
        token.last_used.store(self.millis(now), Ordering::Relaxed);
        Some(token.number)
    }

    fn add(
        &self,
        making: &mut Making,
        number: u32,
        prepared: Prepared,
        source: Source,
        now: Instant,
    ) {
        let outlives = source != Source::Ourselves;
        if let (Some(keeping), true) = (&mut making.keeping, outlives) {
            keeping.append(number, &prepared);
        }
        making.made += 1;
        let token = Arc::new(Token {
            number,
            order: making.made,
            prepared: Arc::new(prepared),
            last_used: AtomicU64::new(self.millis(now)),
            outlives,
            meaning: Meaning::new(source != Source::Worker),
        });
        self.table.write().add(Arc::clone(&token), self.bounds);
        // Fails only while the host is stopping; then nobody compiles any more.
        let _ = self.to_compile.send(token);
    }

    fn renew_overgrown(&self, keeping: &mut Keeping) {
        if keeping.is_overgrown() {
            let mut live = self.live();
            live.retain(|token| token.outlives);
            live.sort_unstable_by_key(|token| token.order);
            keeping.renew(&live);
        }
    }

    /// Takes over what another journal has and this table has not, and counts it; returns whether
    /// the journal can be read.
    fn read(
        &self,
        making: &mut Making,
        journal: &mut Reader,
        now: Instant,
        taken_over: &mut usize,
    ) -> bool {
        let read = journal.read(|number, prepared| {
            if self.table.read().get(number).is_none() {
                self.add(making, number, prepared, Source::Worker, now);
                *taken_over += 1;
            }
        });
        if let Err(error) = &read {
            tracing::error!(%error, "tokens that another worker has given are lost");
        }
        read.is_ok()
    }

    /// Takes over what the workers that are followed have given since the last time; returns how
    /// many. Where that is nothing it costs a look at each journal's size.
    fn catch_up(&self, making: &mut Making, now: Instant) -> usize {
        let mut taken_over = 0;
        let mut others = std::mem::take(&mut making.others);
        others.retain_mut(|journal| self.read(making, journal, now, &mut taken_over));
        making.others = others;
        taken_over
    }

    /// A live token, which counts as used now.
    pub fn find(&self, number: u32, now: Instant) -> Option<Arc<Token>> {
        let known = self.table.read().get(number).cloned();
        let token = match known {
            Some(token) => token,
            None => self.find_elsewhere(number, now)?,
        };
        let now = self.millis(now);
        let idle = now.saturating_sub(token.last_used.load(Ordering::Relaxed));
        if idle > self.time_to_live_millis() {
            return None;
        }
        token.last_used.store(now, Ordering::Relaxed);
        Some(token)
    }

    /// A token that this table does not know may have been given by another worker just now.
    fn find_elsewhere(&self, number: u32, now: Instant) -> Option<Arc<Token>> {
        if !self.follows.load(Ordering::Acquire) {
            return None;
        }
        let mut making = self.making.lock();
        self.catch_up(&mut making, now);
        self.table.read().get(number).cloned()
    }

    /// The gateway's key of a live token, for logs. That does not count as a use of it.
    pub fn key_of(&self, number: u32) -> Option<String> {
        let table = self.table.read();
        table.get(number).map(|token| token.key().into_owned())
    }

    /// Every live token.
    pub fn live(&self) -> Vec<Arc<Token>> {
        self.table.read().live().cloned().collect()
    }

    /// Whether no newer configuration of its route has been prepared.
    pub fn is_newest(&self, token: &Token) -> bool {
        self.table.read().is_newest(token)
    }

    /// Drops the tokens that nobody has used for their time to live; returns how many.
    pub fn drop_expired(&self, now: Instant) -> usize {
        let now = self.millis(now);
        let mut table = self.table.write();
        let expired: Vec<u32> = table
            .live()
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

    /// Drops a token that is not used any more, where it still has this key; gives it.
    pub fn forget(&self, number: u32, key: &[u8]) -> Option<Arc<Token>> {
        let mut table = self.table.write();
        let token = table.get(number)?;
        if *token.prepared.key != *key {
            return None;
        }
        let token = Arc::clone(token);
        table.remove(number);
        Some(token)
    }

    /// Whether so many more tokens, of so many bytes together, drop no other one.
    pub fn has_room_for(&self, tokens: usize, bytes: usize) -> bool {
        self.table.read().has_room_for(tokens, bytes, self.bounds)
    }

    /// How long nobody has used a token.
    pub fn idle_time(&self, token: &Token, now: Instant) -> Duration {
        let last_used = token.last_used.load(Ordering::Relaxed);
        Duration::from_millis(self.millis(now).saturating_sub(last_used))
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

#[cfg(test)]
mod tests;
