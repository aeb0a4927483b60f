//! What each connection is doing: one slot of shared memory for each, written by the worker that
//! serves it, read by the supervisor when that worker has died.
//!
//! A slot is free, or belongs to one connection. The worker that owns it says *reading* before it
//! takes the first byte and *idle* again when there was none, so that no death can make a call that
//! was taken look like none. The first cache line tells about the table as a whole.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::SharedMemory;

/// Words of a slot: a cache line, so that two loops never write to the same one.
const SLOT_WORDS: usize = 8;

const STATE: usize = 0;
const OWNER: usize = 1;
const NUMBER: usize = 2;
const CALL: usize = 3;
const PLUGIN: usize = 4;

/// Words of the table's own cache line.
const NEXT_TOKEN: usize = 0;
const NEXT_NUMBER: usize = 1;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// There is none.
    Free,
    /// It waits for the gateway's next call; nothing of one has been taken.
    Idle,
    /// A frame is being taken, or a part of one has been.
    Reading,
    /// A call is open, and the gateway waits for a frame of which no byte has been written.
    InCall,
    /// A frame is being written, or a part of one has been.
    Writing,
}

impl State {
    fn from_word(word: u64) -> Self {
        match word {
            1 => Self::Idle,
            2 => Self::Reading,
            3 => Self::InCall,
            4 => Self::Writing,
            _ => Self::Free,
        }
    }
}

/// Which kind of call is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// A configuration is prepared.
    Prepare,
    /// A request goes through a chain.
    Request,
    /// A response goes through a chain.
    Response,
}

/// An open call as its slot tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenCall {
    /// Its kind.
    pub kind: CallKind,
    /// The gateway's id of the request.
    pub request: u32,
    /// The number of the plugin generation that has the call; 0 where none has.
    pub plugin: u64,
}

/// One slot for each connection.
#[derive(Debug, Clone)]
pub struct ConnectionSlots {
    memory: Arc<SharedMemory>,
}

impl ConnectionSlots {
    /// A table of so many slots, all free; tokens are counted from `first_token`.
    ///
    /// # Errors
    /// As for [`SharedMemory::create`].
    pub fn create(slots: usize, first_token: u32) -> io::Result<Self> {
        let memory = SharedMemory::create("connections", (slots + 1) * SLOT_WORDS)?;
        memory.words()[NEXT_TOKEN].store(u64::from(first_token), Ordering::Release);
        Ok(Self {
            memory: Arc::new(memory),
        })
    }

    /// The table of another process.
    ///
    /// # Errors
    /// As for [`SharedMemory::open`].
    pub fn open(file: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            memory: Arc::new(SharedMemory::open(file)?),
        })
    }

    /// The memory file, to be passed to another process.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.memory.file()
    }

    /// How many slots there are.
    pub fn len(&self) -> usize {
        (self.memory.words().len() / SLOT_WORDS).saturating_sub(1)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a free slot for a new connection of a worker; None where every slot is taken.
    pub fn claim(&self, owner: u32) -> Option<Slot> {
        let slots = self.len();
        let number = self.memory.words()[NEXT_NUMBER].fetch_add(1, Ordering::Relaxed) + 1;
        // Numbers go round, so that the slot of a number is most likely free.
        let start = usize::try_from(number % (slots.max(1) as u64)).unwrap_or(0);
        (0..slots)
            .map(|offset| (start + offset) % slots)
            .find(|index| {
                let claimed = self.word(*index, STATE).compare_exchange(
                    State::Free as u64,
                    State::Idle as u64,
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                );
                claimed.is_ok()
            })
            .map(|index| {
                self.word(index, PLUGIN).store(0, Ordering::Relaxed);
                self.word(index, NUMBER).store(number, Ordering::Relaxed);
                self.word(index, OWNER)
                    .store(u64::from(owner), Ordering::Release);
                Slot {
                    slots: self.clone(),
                    index,
                }
            })
    }

    /// The slot of an index, where there is one.
    pub fn slot(&self, index: usize) -> Option<Slot> {
        (index < self.len()).then(|| Slot {
            slots: self.clone(),
            index,
        })
    }

    /// The next number for a token. It goes round after 2^32 of them and is never 0.
    pub fn next_token(&self) -> u32 {
        loop {
            let word = self.memory.words()[NEXT_TOKEN].fetch_add(1, Ordering::Relaxed);
            let number = u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0);
            if number != 0 {
                return number;
            }
        }
    }

    fn word(&self, index: usize, word: usize) -> &AtomicU64 {
        &self.memory.words()[(index + 1) * SLOT_WORDS + word]
    }
}

/// The slot of one connection.
#[derive(Debug, Clone)]
pub struct Slot {
    slots: ConnectionSlots,
    index: usize,
}

impl Slot {
    /// Its place in the table.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The connection's number: slots are used again, numbers are not.
    pub fn number(&self) -> u64 {
        self.word(NUMBER).load(Ordering::Relaxed)
    }

    /// The worker that serves it.
    pub fn owner(&self) -> u32 {
        u32::try_from(self.word(OWNER).load(Ordering::Acquire)).unwrap_or(0)
    }

    /// Passes it to another worker.
    pub fn set_owner(&self, owner: u32) {
        self.word(OWNER).store(u64::from(owner), Ordering::Release);
    }

    /// What the connection is doing.
    pub fn state(&self) -> State {
        State::from_word(self.word(STATE).load(Ordering::Acquire))
    }

    /// Says what the connection is doing from now on.
    pub fn set_state(&self, state: State) {
        self.word(STATE).store(state as u64, Ordering::Release);
    }

    /// Says that a call is open, and that no byte of the next frame has been written.
    pub fn open_call(&self, kind: CallKind, request: u32) {
        let kind = match kind {
            CallKind::Prepare => 0,
            CallKind::Request => 1,
            CallKind::Response => 2,
        };
        self.word(CALL)
            .store(kind << 32 | u64::from(request), Ordering::Relaxed);
        self.set_state(State::InCall);
    }

    /// Says which plugin generation has the call; 0 where none has.
    pub fn set_plugin(&self, number: u64) {
        self.word(PLUGIN).store(number, Ordering::Relaxed);
    }

    /// The call that was opened last.
    pub fn call(&self) -> OpenCall {
        let word = self.word(CALL).load(Ordering::Relaxed);
        OpenCall {
            kind: match word >> 32 {
                0 => CallKind::Prepare,
                1 => CallKind::Request,
                _ => CallKind::Response,
            },
            request: u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0),
            plugin: self.word(PLUGIN).load(Ordering::Relaxed),
        }
    }

    /// Gives the slot back. For whoever holds the connection's last descriptor.
    pub fn free(&self) {
        self.set_state(State::Free);
    }

    fn word(&self, word: usize) -> &AtomicU64 {
        self.slots.word(self.index, word)
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::*;

    #[test]
    fn a_slot_has_one_connection_at_a_time() {
        let slots = ConnectionSlots::create(2, 1).unwrap();
        let first = slots.claim(1).unwrap();
        let second = slots.claim(1).unwrap();
        assert_ne!(first.index(), second.index());
        assert!(slots.claim(1).is_none(), "all are taken");
        let number = first.number();
        first.free();
        let third = slots.claim(2).unwrap();
        assert_eq!(third.index(), first.index());
        assert_ne!(third.number(), number);
        assert_eq!((third.owner(), third.state()), (2, State::Idle));
    }

    #[test]
    fn another_process_reads_what_a_slot_says() {
        let slots = ConnectionSlots::create(3, 1).unwrap();
        let slot = slots.claim(5).unwrap();
        slot.open_call(CallKind::Response, u32::MAX);
        slot.set_plugin(9);
        let other = ConnectionSlots::open(slots.file().try_clone_to_owned().unwrap()).unwrap();
        let seen = other.slot(slot.index()).unwrap();
        assert_eq!((seen.state(), seen.owner()), (State::InCall, 5));
        let call = seen.call();
        assert_eq!((call.kind, call.request), (CallKind::Response, u32::MAX));
        assert_eq!(call.plugin, 9);
        assert!(other.slot(3).is_none());
    }

    #[test]
    fn token_numbers_pass_over_zero_where_they_wrap() {
        let slots = ConnectionSlots::create(1, u32::MAX).unwrap();
        assert_eq!(slots.next_token(), u32::MAX);
        assert_eq!(slots.next_token(), 1);
    }
}
