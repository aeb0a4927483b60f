//! Where the numbers of new tokens come from. It starts at a random point, since the gateway keeps
//! the tokens of an earlier life of this program; 0 is never one.

use std::hash::{BuildHasher, RandomState};

use crate::shared_memory::connections::ConnectionSlots;

/// A source of numbers.
#[derive(Debug)]
pub(super) enum Numbers {
    /// This process alone gives them.
    Own {
        next: u32,
        /// How many are left in this life.
        unused: u32,
    },
    /// Every worker of a supervisor gives them.
    Shared(ConnectionSlots),
}

/// A random number to start at.
pub fn first_number() -> u32 {
    // The standard library's hash keys are random per process: a seed without another crate.
    let seed = RandomState::new().hash_one(std::process::id());
    u32::try_from(seed & u64::from(u32::MAX))
        .unwrap_or(1)
        .max(1)
}

impl Numbers {
    pub(super) fn own(first: u32) -> Self {
        Self::Own {
            next: first,
            unused: u32::MAX,
        }
    }

    /// The next one; none where this process has given each of them.
    pub(super) fn next(&mut self) -> Option<u32> {
        match self {
            Self::Own { next, unused } => {
                *unused = unused.checked_sub(1)?;
                let number = *next;
                *next = number.checked_add(1).unwrap_or(1);
                Some(number)
            }
            Self::Shared(slots) => Some(slots.next_token()),
        }
    }
}
