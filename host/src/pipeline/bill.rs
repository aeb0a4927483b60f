//! What a call holds of the host's memory: its frame, and what plugins have put into it. Counted
//! until the call is over for everyone, the plugin included that has not returned yet.
//!
//! It counts and refuses. What a plugin allocates for itself is the plugin's own.

use std::sync::Arc;

use plugin_abi::abi::{RVec, ReplyParts};

use super::fields::Field;
use crate::memory::{Account, Full, Reserved};

/// Bytes of changes that are not counted: most calls have fewer.
const UNCOUNTED_CHANGES: usize = 16 * 1024;

/// Bytes that a change takes beside its name and value: its places in two lists.
const CHANGE_BYTES: usize = 2 * size_of::<Field>();

/// The memory of one call; a copy of the call shares it.
#[derive(Debug, Clone, Default)]
pub(super) struct Bill {
    /// Whose memory it is; nobody's where the call came over no connection.
    account: Option<Account>,
    frame: Option<Arc<Reserved>>,
    reply: Option<Arc<Reserved>>,
    changes: Option<Arc<Reserved>>,
    /// Bytes that are counted in `changes`.
    counted_changes: usize,
    number_of_changes: usize,
}

/// Something that a plugin wants kept does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} of {bytes} bytes does not fit: {full}")]
pub struct NoRoom {
    /// What it is.
    pub what: &'static str,
    /// How long it is.
    pub bytes: usize,
    /// Which bound is reached.
    pub full: Full,
}

/// A body that a plugin made.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) bytes: RVec<u8>,
    _memory: Reserved,
}

impl Bill {
    /// From now on it is this connection's memory.
    pub(super) fn open(&mut self, account: &Account) {
        if self.account.is_none() {
            self.account = Some(account.clone());
        }
    }

    /// The call is over: nothing is held any more.
    pub(super) fn close(&mut self) {
        *self = Self {
            account: self.account.take(),
            ..Self::default()
        };
    }

    /// Counts the frame that brought the call.
    pub(super) fn frame(&mut self, memory: Reserved) {
        self.frame = Some(Arc::new(memory));
    }

    /// Counts a body.
    pub(super) fn body(&self, bytes: RVec<u8>) -> Result<Body, NoRoom> {
        let memory = self.reserve("a body", bytes.capacity())?;
        Ok(Body {
            bytes,
            _memory: memory,
        })
    }

    /// Counts a plugin's reply to the client, until the call is over.
    pub(super) fn reply(&mut self, reply: &ReplyParts) -> Result<(), NoRoom> {
        let headers: usize = reply
            .headers
            .iter()
            .map(|header| header.name.len() + header.value.len() + CHANGE_BYTES)
            .sum();
        self.reply = Some(Arc::new(
            self.reserve("a reply", reply.body.capacity() + headers)?,
        ));
        Ok(())
    }

    /// One more change, with which all of them together have so many bytes of names and values.
    pub(super) fn change(&mut self, written: usize) -> Result<(), NoRoom> {
        self.number_of_changes += 1;
        let bytes = written + self.number_of_changes * CHANGE_BYTES;
        if bytes > self.counted_changes.max(UNCOUNTED_CHANGES) {
            // In steps, as the memory itself grows.
            let counted = bytes.next_power_of_two();
            self.changes = Some(Arc::new(self.reserve("a list of changes", counted)?));
            self.counted_changes = counted;
        }
        Ok(())
    }

    fn reserve(&self, what: &'static str, bytes: usize) -> Result<Reserved, NoRoom> {
        match &self.account {
            Some(account) => account
                .reserve(bytes)
                .map_err(|full| NoRoom { what, bytes, full }),
            None => Ok(Reserved::default()),
        }
    }
}
