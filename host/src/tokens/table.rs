//! The live tokens, by number, by configuration and by route, within their bounds.
//!
//! It gives no numbers, writes no journal and knows no clock but the milliseconds that it is told.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use rustc_hash::FxHashMap;

use super::{Bounds, Prepared, Token};

#[derive(Debug, Default)]
pub(super) struct Table {
    /// By number. Numbers are ours, so nobody can choose ones that collide.
    live: FxHashMap<u32, Arc<Token>>,
    by_conf: HashMap<Arc<Prepared>, u32>,
    /// Newest token of each route; the others are superseded.
    newest: HashMap<Box<[u8]>, u32>,
    /// Of configuration.
    bytes: usize,
}

impl Table {
    pub(super) fn get(&self, number: u32) -> Option<&Arc<Token>> {
        self.live.get(&number)
    }

    /// The token that a configuration has already.
    pub(super) fn of(&self, prepared: &Prepared) -> Option<&Arc<Token>> {
        self.live.get(self.by_conf.get(prepared)?)
    }

    pub(super) fn live(&self) -> impl Iterator<Item = &Arc<Token>> {
        self.live.values()
    }

    pub(super) fn is_newest(&self, token: &Token) -> bool {
        self.newest.get(token.prepared.route()) == Some(&token.number)
    }

    /// Adds a token whose number is not live, the newest of its route, and makes room for it.
    pub(super) fn add(&mut self, token: Arc<Token>, bounds: Bounds) {
        let bytes = token.prepared.bytes();
        if !self.has_room_for(1, bytes, bounds) {
            self.make_room(bounds, bytes);
        }
        let prepared = &token.prepared;
        self.newest.insert(prepared.route().into(), token.number);
        self.by_conf.insert(Arc::clone(prepared), token.number);
        self.bytes += bytes;
        self.live.insert(token.number, token);
    }

    pub(super) fn has_room_for(&self, tokens: usize, bytes: usize, bounds: Bounds) -> bool {
        self.live.len().saturating_add(tokens) <= bounds.max_tokens
            && self.bytes.saturating_add(bytes) <= bounds.max_bytes
    }

    pub(super) fn remove(&mut self, number: u32) {
        let Some(token) = self.live.remove(&number) else {
            return;
        };
        self.bytes -= token.prepared.bytes();
        // Two workers may have given a number each to the same configuration.
        if self.by_conf.get(&token.prepared) == Some(&number) {
            self.by_conf.remove(&token.prepared);
        }
        if self.newest.get(token.prepared.route()) == Some(&number) {
            self.newest.remove(token.prepared.route());
        }
    }

    /// Drops the longest unused tokens: first those that a newer version of their route has
    /// superseded, then, loudly, live ones. A part of the table at once, so that a full one is not
    /// searched for each new token.
    fn make_room(&mut self, bounds: Bounds, bytes: usize) {
        let max_tokens = bounds.max_tokens;
        let mut oldest: Vec<(bool, u64, u64, u32)> = self
            .live
            .values()
            .map(|token| {
                let superseded = self
                    .newest
                    .get(token.prepared.route())
                    .is_some_and(|newest| *newest != token.number);
                let last_used = token.last_used.load(Ordering::Relaxed);
                (!superseded, last_used, token.order, token.number)
            })
            .collect();
        oldest.sort_unstable();
        let enough = max_tokens.saturating_sub(max_tokens / 64 + 1);
        let mut live_dropped = 0_usize;
        for (live, _, _, number) in oldest {
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
