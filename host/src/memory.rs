//! Bounds on the bytes that frames and bodies may hold: for one connection, and for all together.
//!
//! It counts; it never allocates, and never waits: who cannot be served is told at once.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;

/// Frames up to this many bytes are not counted, nor the first so many bytes that a connection holds
/// beside them in the count of all: the number of connections bounds both.
pub const UNCOUNTED_BYTES: usize = 64 * 1024;

/// There is no room: the host's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// For this connection.
    #[error("one connection may hold {0} bytes (--max-connection-memory)")]
    Connection(usize),
    /// For any.
    #[error("all connections together may hold {0} bytes (--max-body-memory)")]
    All(usize),
}

/// Bytes that all connections together may hold, and how many they do.
#[derive(Debug, Clone)]
pub struct MemoryBudget {
    all: Arc<All>,
}

#[derive(Debug)]
struct All {
    limit: usize,
    held: AtomicUsize,
}

/// What one connection holds. It lasts as long as anything that is counted in it, which may be longer
/// than the connection.
#[derive(Debug, Clone)]
pub struct Account {
    shared: Arc<OneAccount>,
}

#[derive(Debug)]
struct OneAccount {
    all: Arc<All>,
    limit: usize,
    held: Mutex<usize>,
}

impl MemoryBudget {
    /// A budget of this many bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            all: Arc::new(All {
                limit,
                held: AtomicUsize::new(0),
            }),
        }
    }

    /// A connection's part of the budget: at most so many bytes.
    pub fn account(&self, limit: usize) -> Account {
        Account {
            shared: Arc::new(OneAccount {
                all: Arc::clone(&self.all),
                limit,
                held: Mutex::new(0),
            }),
        }
    }

    /// Bytes held now, without the first [`UNCOUNTED_BYTES`] of each connection.
    pub fn held(&self) -> usize {
        self.all.held.load(Ordering::Relaxed)
    }
}

/// Of so many bytes of one connection, those that count for all.
fn counted_for_all(held: usize) -> usize {
    held.saturating_sub(UNCOUNTED_BYTES)
}

impl Account {
    /// Reserves bytes until the reservation is dropped.
    ///
    /// # Errors
    /// They do not fit into this connection's part, or into what is left for all.
    pub fn reserve(&self, bytes: usize) -> Result<Reserved, Full> {
        let OneAccount { all, limit, held } = &*self.shared;
        let mut held = held.lock();
        let after = held
            .checked_add(bytes)
            .filter(|after| after <= limit)
            .ok_or(Full::Connection(*limit))?;
        let more = counted_for_all(after) - counted_for_all(*held);
        if more > 0 {
            all.held
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                    held.checked_add(more).filter(|held| *held <= all.limit)
                })
                .map_err(|_| Full::All(all.limit))?;
        }
        *held = after;
        Ok(Reserved {
            counted: Some((self.clone(), bytes)),
        })
    }

    /// Bytes that this connection holds now.
    pub fn held(&self) -> usize {
        *self.shared.held.lock()
    }

    fn release(&self, bytes: usize) {
        let mut held = self.shared.held.lock();
        let after = *held - bytes;
        let less = counted_for_all(*held) - counted_for_all(after);
        self.shared.all.held.fetch_sub(less, Ordering::Relaxed);
        *held = after;
    }
}

/// Reserved bytes; dropped, they are free again.
#[derive(Debug, Default)]
pub struct Reserved {
    counted: Option<(Account, usize)>,
}

impl Reserved {
    /// Holds what another reservation of the same connection held.
    pub fn take_in(&mut self, mut other: Self) {
        match (&mut self.counted, other.counted.take()) {
            (Some((_, bytes)), Some((_, more))) => *bytes += more,
            (counted, other) => *counted = other,
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some((account, bytes)) = self.counted.take() {
            account.release(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_refused_beyond_its_limit_and_free_again_after_a_drop() {
        let budget = MemoryBudget::new(300_000);
        let (one, other) = (budget.account(usize::MAX), budget.account(usize::MAX));
        let first = one.reserve(200_000).expect("within the limit");
        let refused = other.reserve(300_000).map(|_| ());
        assert_eq!(refused, Err(Full::All(300_000)));
        assert_eq!(budget.held(), 200_000 - UNCOUNTED_BYTES);
        drop(first);
        assert!(other.reserve(300_000).is_ok());
        assert_eq!((budget.held(), one.held(), other.held()), (0, 0, 0));
    }

    #[test]
    fn one_connection_cannot_take_what_all_may_have() {
        let budget = MemoryBudget::new(1_000_000);
        let (one, other) = (budget.account(200_000), budget.account(200_000));
        let mut held = one.reserve(100_000).expect("within the limit");
        assert_eq!(
            one.reserve(100_001).map(|_| ()),
            Err(Full::Connection(200_000))
        );
        held.take_in(one.reserve(100_000).expect("within the limit"));
        assert_eq!(one.held(), 200_000);
        assert!(other.reserve(200_000).is_ok(), "it has its own part");
        drop(held);
        assert_eq!((one.held(), budget.held()), (0, 0));
    }

    #[test]
    fn what_a_connection_holds_counts_for_all_beyond_its_first_bytes_only() {
        let budget = MemoryBudget::new(0);
        let account = budget.account(usize::MAX);
        let first = account.reserve(UNCOUNTED_BYTES);
        assert!(first.is_ok());
        assert_eq!(account.reserve(1).map(|_| ()), Err(Full::All(0)));
    }
}
