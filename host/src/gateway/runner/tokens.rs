//! What the gateway remembers of prepared configurations: a few of each worker's own, and a table
//! that all workers share and that outlives a reload.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Configurations that one worker remembers.
const REMEMBERED: usize = 8;

/// How long a worker remembers one.
const REMEMBERED_TIME: Duration = Duration::from_secs(3_600);

/// Tokens in the shared table, at most; the one that expires first makes room.
const MAX_SHARED: usize = 10_000;

/// The tokens of one worker, and the table that it would share with others.
#[derive(Debug)]
pub(super) struct Tokens {
    shared_time: Duration,
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    /// The one used last comes first.
    remembered: VecDeque<(String, u32, Instant)>,
    /// With the moment of expiry.
    shared: HashMap<String, (u32, Instant)>,
}

impl Tokens {
    /// `expiry` is what the host is told as `APISIX_CONF_EXPIRE_TIME`.
    pub(super) fn new(expiry: Duration) -> Self {
        Self {
            // Early, so that the host still knows what is found here.
            shared_time: expiry.mul_f64(0.9),
            tables: Mutex::default(),
        }
    }

    /// The token that this worker remembers.
    pub(super) fn remembered(&self, key: &str) -> Option<u32> {
        let remembered = &mut self.tables.lock().remembered;
        let at = remembered.iter().position(|(other, ..)| other == key)?;
        let entry = remembered.remove(at)?;
        if entry.2.elapsed() >= REMEMBERED_TIME {
            return None;
        }
        let token = entry.1;
        remembered.push_front(entry);
        Some(token)
    }

    /// Remembers a token in this worker; the one that was not used for longest is forgotten.
    pub(super) fn remember(&self, key: &str, token: u32) {
        let remembered = &mut self.tables.lock().remembered;
        remembered.retain(|(other, ..)| other != key);
        remembered.push_front((key.to_owned(), token, Instant::now()));
        remembered.truncate(REMEMBERED);
    }

    /// The token in the shared table.
    pub(super) fn shared(&self, key: &str) -> Option<u32> {
        let tables = self.tables.lock();
        let (token, expires) = tables.shared.get(key)?;
        (*expires > Instant::now()).then_some(*token)
    }

    /// Puts a token into the shared table.
    pub(super) fn share(&self, key: &str, token: u32) {
        let shared = &mut self.tables.lock().shared;
        let now = Instant::now();
        if shared.len() >= MAX_SHARED {
            shared.retain(|_, (_, expires)| *expires > now);
        }
        if shared.len() >= MAX_SHARED {
            let first = shared.iter().min_by_key(|(_, (_, expires))| *expires);
            if let Some(key) = first.map(|(key, _)| key.clone()) {
                shared.remove(&key);
            }
        }
        shared.insert(key.to_owned(), (token, now + self.shared_time));
    }

    /// Forgets everything.
    pub(super) fn forget(&self) {
        *self.tables.lock() = Tables::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn a_worker_remembers_eight_configurations_and_the_shared_table_all() {
        let tokens = Tokens::new(HOUR);
        for token in 0..9 {
            tokens.share(&token.to_string(), token);
            tokens.remember(&token.to_string(), token);
        }
        assert_eq!(tokens.remembered("0"), None);
        assert_eq!(tokens.shared("0"), Some(0));
        assert_eq!(tokens.remembered("1"), Some(1), "and is now the last used");
        tokens.remember("9", 9);
        assert_eq!(tokens.remembered("1"), Some(1));
        assert_eq!(tokens.remembered("2"), None);
    }

    #[test]
    fn nothing_is_left_after_forgetting() {
        let tokens = Tokens::new(HOUR);
        tokens.share("key", 1);
        tokens.remember("key", 1);
        tokens.forget();
        assert_eq!(
            (tokens.remembered("key"), tokens.shared("key")),
            (None, None)
        );
    }

    #[test]
    fn a_shared_token_expires() {
        let tokens = Tokens::new(Duration::ZERO);
        tokens.share("key", 1);
        assert_eq!(tokens.shared("key"), None);
    }

    #[test]
    fn the_shared_table_is_bounded() {
        let tokens = Tokens::new(HOUR);
        for token in 0..=u32::try_from(MAX_SHARED).unwrap_or(u32::MAX) {
            tokens.share(&token.to_string(), token);
        }
        assert_eq!(tokens.shared("0"), None);
        assert_eq!(tokens.shared("1"), Some(1));
        assert_eq!(tokens.tables.lock().shared.len(), MAX_SHARED);
    }
}
