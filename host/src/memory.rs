//! A bound on the bytes that large frames and bodies may hold, for the whole process.
//!
//! It counts; it never allocates, and never waits: who cannot be served is told at once.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Frames up to this many bytes are not counted: the number of connections bounds them.
pub const UNCOUNTED_BYTES: usize = 64 * 1024;

/// Bytes that may be held, and how many are.
#[derive(Debug, Clone)]
pub struct MemoryBudget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit: usize,
    held: AtomicUsize,
}

impl MemoryBudget {
    /// A budget of this many bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                limit,
                held: AtomicUsize::new(0),
            }),
        }
    }

    /// Reserves bytes until the reservation is dropped; none where the budget is used up.
    pub fn reserve(&self, bytes: usize) -> Option<Reserved> {
        if bytes <= UNCOUNTED_BYTES {
            return Some(Reserved { counted: None });
        }
        self.shared
            .held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                held.checked_add(bytes)
                    .filter(|held| *held <= self.shared.limit)
            })
            .ok()?;
        Some(Reserved {
            counted: Some((Arc::clone(&self.shared), bytes)),
        })
    }

    /// Bytes held now.
    pub fn held(&self) -> usize {
        self.shared.held.load(Ordering::Relaxed)
    }
}

/// Reserved bytes; dropped, they are free again.
#[derive(Debug, Default)]
pub struct Reserved {
    counted: Option<(Arc<Shared>, usize)>,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some((shared, bytes)) = self.counted.take() {
            shared.held.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_refused_beyond_its_limit_and_free_again_after_a_drop() {
        let budget = MemoryBudget::new(300_000);
        let first = budget.reserve(200_000).expect("within the limit");
        assert!(budget.reserve(200_000).is_none());
        assert_eq!(budget.held(), 200_000);
        drop(first);
        assert!(budget.reserve(200_000).is_some());
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn small_frames_are_not_counted() {
        let budget = MemoryBudget::new(0);
        assert!(budget.reserve(UNCOUNTED_BYTES).is_some());
        assert!(budget.reserve(UNCOUNTED_BYTES + 1).is_none());
    }
}
