//! Connections that change hands between workers, as the event loops see it.
//!
//! A worker with a supervisor keeps a slot of shared memory for each connection, gives the
//! supervisor a duplicate of each that has come to stay, and hands connections over at their
//! boundaries when it is told to leave. Nothing here knows how the supervisor is reached.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use tokio::{net::UnixStream, sync::mpsc};

use super::{Counted, Shared};
use crate::shared_memory::connections::{ConnectionSlots, Slot};

/// Bytes already read of a frame that are handed over with its connection, at most; where more
/// have been, the frame's end is waited for.
pub const MAX_BYTES_ALONG: usize = 128 * 1024;

/// A connection that changes hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// Its slot.
    pub slot: usize,
    /// Its number.
    pub number: u64,
    /// Answers of the gateway to questions that nobody waits for any more, still to come.
    #[serde(default)]
    pub unread_answers: u32,
}

/// What happens to a connection that the supervisor has to know.
#[derive(Debug)]
pub enum Happened {
    /// It has come to stay. Here is a duplicate of it.
    Stays(Passed, OwnedFd),
    /// One that had come to stay has ended.
    Ended(Passed),
    /// Somebody else has to serve it. The connection is here where the supervisor has no duplicate;
    /// the bytes are those of a frame that has been read in part.
    HandedOver(Passed, Option<OwnedFd>, Vec<u8>),
}

/// A connection that this worker is to serve. It counts as open from the moment that this is made.
#[derive(Debug)]
pub struct Given {
    pub(super) passed: Passed,
    pub(super) socket: OwnedFd,
    pub(super) bytes: Vec<u8>,
    pub(super) count: Counted,
}

impl Given {
    /// A connection that was given, with what has been read of its frame.
    pub fn new(shared: &Arc<Shared>, passed: Passed, socket: OwnedFd, bytes: Vec<u8>) -> Self {
        Self {
            passed,
            socket,
            bytes,
            count: Counted::new(Arc::clone(shared)),
        }
    }
}

/// The supervisor, as connections see it.
#[derive(Debug)]
pub struct Supervised {
    /// One slot for each connection.
    pub slots: ConnectionSlots,
    /// The number of this worker.
    pub worker: u32,
    /// Where to say what happens. Bounded by the number of connections.
    pub events: mpsc::UnboundedSender<Happened>,
}

impl Supervised {
    /// A slot for a new connection; None where all are taken.
    pub(super) fn begin(&self) -> Option<Followed> {
        self.slots
            .claim(self.worker)
            .map(|slot| self.follow(slot, false))
    }

    /// The slot of a connection that was given; None where the supervisor names one that is not.
    pub(super) fn take_over(&self, passed: Passed) -> Option<Followed> {
        let slot = self.slots.slot(passed.slot)?;
        slot.set_owner(self.worker);
        Some(self.follow(slot, true))
    }

    fn follow(&self, slot: Slot, registered: bool) -> Followed {
        Followed {
            slot,
            registered,
            passed_on: false,
            events: self.events.clone(),
        }
    }
}

/// The slot of a connection that this worker serves. Dropped, the connection has ended.
#[derive(Debug)]
pub(super) struct Followed {
    slot: Slot,
    registered: bool,
    passed_on: bool,
    events: mpsc::UnboundedSender<Happened>,
}

impl Followed {
    pub(super) fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Gives the supervisor a duplicate, once.
    pub(super) fn register(&mut self, stream: &UnixStream) {
        if self.registered {
            return;
        }
        // Without a duplicate it is a connection that a death of this worker closes: no harm.
        if let Ok(duplicate) = stream.as_fd().try_clone_to_owned() {
            self.registered = true;
            self.say(Happened::Stays(self.passed(0), duplicate));
        }
    }

    /// Hands the connection over; `unread_answers` as in [`Passed`].
    pub(super) fn hand_over(mut self, stream: UnixStream, bytes: &[u8], unread_answers: u32) {
        // Converting it takes it off this loop; only then somebody else may watch it.
        let Ok(stream) = stream.into_std() else {
            return;
        };
        let socket = (!self.registered).then(|| OwnedFd::from(stream));
        self.passed_on = true;
        self.say(Happened::HandedOver(
            self.passed(unread_answers),
            socket,
            bytes.to_vec(),
        ));
    }

    fn passed(&self, unread_answers: u32) -> Passed {
        Passed {
            slot: self.slot.index(),
            number: self.slot.number(),
            unread_answers,
        }
    }

    fn say(&self, happened: Happened) {
        // Nobody listens only where this process is about to end.
        let _ = self.events.send(happened);
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        if self.passed_on {
            return;
        }
        if self.registered {
            // The supervisor frees the slot when it has closed its duplicate.
            self.say(Happened::Ended(self.passed(0)));
        } else {
            self.slot.free();
        }
    }
}
