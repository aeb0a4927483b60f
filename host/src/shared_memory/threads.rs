//! Which plugin runs on which thread: one slot of shared memory for each thread of a worker that
//! enters plugin code, so that a death, or a thread that does not come back, has a name.
//!
//! A worker has one such table of its own. A thread takes a slot when it enters a plugin for the
//! first time and gives it back when it ends. Entering and leaving are two stores each.

use std::{
    cell::Cell,
    io,
    marker::PhantomData,
    os::fd::{BorrowedFd, OwnedFd},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use super::SharedMemory;

/// Words of a slot: a cache line, so that two threads never write to the same one.
const SLOT_WORDS: usize = 8;

const THREAD: usize = 0;
const PLUGIN: usize = 1;
const ACTIVITY: usize = 2;
/// Counts entries: the same number at two looks means that the thread has not come back.
const ENTRIES: usize = 3;
/// 1 for an event loop's thread.
const LOOP: usize = 4;

/// Threads that are followed; further ones run plugins all the same, without a name when they die.
pub const MAX_THREADS: usize = 2_048;

/// Words in front of the slots, for whoever records a crash.
pub const CRASH_WORDS: usize = 512;

/// What a thread does in a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Activity {
    /// Opens its library: constructors run.
    Open = 1,
    /// Constructs it, `on_load` included.
    Load = 2,
    /// Parses a configuration.
    Configure = 3,
    /// Runs one of its filters.
    Filter = 4,
    /// Drops something of it.
    Drop = 5,
    /// Runs its `on_unload`.
    Unload = 6,
    /// Runs one of its background tasks.
    Task = 7,
    /// Saves its state, or takes that of another generation.
    State = 8,
    /// Executes what was asked of it by name.
    Execute = 9,
}

impl Activity {
    /// The activity of this number, where there is one.
    pub fn from_word(word: u64) -> Option<Self> {
        Some(match word {
            1 => Self::Open,
            2 => Self::Load,
            3 => Self::Configure,
            4 => Self::Filter,
            5 => Self::Drop,
            6 => Self::Unload,
            7 => Self::Task,
            8 => Self::State,
            9 => Self::Execute,
            _ => return None,
        })
    }

    /// As reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "opening its library",
            Self::Load => "loading",
            Self::Configure => "parsing a configuration",
            Self::Filter => "running a filter",
            Self::Drop => "being dropped",
            Self::Unload => "unloading",
            Self::Task => "running a background task",
            Self::State => "handing its state over",
            Self::Execute => "executing",
        }
    }
}

/// What a thread was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inside {
    /// The thread, as the kernel numbers it.
    pub thread: u32,
    /// The number of the plugin generation.
    pub plugin: u64,
    /// What it did there.
    pub activity: Activity,
    /// How often the thread has entered a plugin, this time included.
    pub entries: u64,
    /// Whether it is an event loop's thread.
    pub is_loop: bool,
}

/// The threads of one worker.
#[derive(Debug, Clone)]
pub struct ThreadSlots {
    memory: Arc<SharedMemory>,
}

impl ThreadSlots {
    /// A table without threads.
    ///
    /// # Errors
    /// As for [`SharedMemory::create`].
    pub fn create() -> io::Result<Self> {
        let words = CRASH_WORDS + MAX_THREADS * SLOT_WORDS;
        Ok(Self {
            memory: Arc::new(SharedMemory::create("threads", words)?),
        })
    }

    /// The table of another process.
    ///
    /// # Errors
    /// As for [`SharedMemory::open`].
    pub fn open(file: OwnedFd) -> io::Result<Self> {
        let memory = SharedMemory::open(file)?;
        if memory.words().len() < CRASH_WORDS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "shared memory that is too small for a table of threads",
            ));
        }
        Ok(Self {
            memory: Arc::new(memory),
        })
    }

    /// The memory file, to be passed to another process.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.memory.file()
    }

    /// The words in front of the slots.
    pub fn crash_words(&self) -> &[AtomicU64] {
        &self.memory.words()[..CRASH_WORDS]
    }

    /// Every thread that is inside a plugin.
    pub fn inside(&self) -> impl Iterator<Item = Inside> + '_ {
        self.slots().filter_map(inside_of)
    }

    /// The slot and the thread of every event loop.
    pub fn loops(&self) -> impl Iterator<Item = (usize, u32)> + '_ {
        self.slots().enumerate().filter_map(|(index, slot)| {
            let is_loop = slot[LOOP].load(Ordering::Relaxed) != 0;
            let thread = u32::try_from(slot[THREAD].load(Ordering::Acquire)).ok()?;
            (is_loop && thread != 0).then_some((index, thread))
        })
    }

    /// What the thread of a slot does, if it is inside a plugin.
    pub fn inside_at(&self, slot: usize) -> Option<Inside> {
        inside_of(self.slot(slot))
    }

    /// How often the thread of a slot has entered a plugin.
    pub fn entries_at(&self, slot: usize) -> u64 {
        self.slot(slot)[ENTRIES].load(Ordering::Relaxed)
    }

    fn slots(&self) -> impl Iterator<Item = &[AtomicU64]> {
        self.memory.words()[CRASH_WORDS..].chunks_exact(SLOT_WORDS)
    }

    fn claim(&self, thread: u32) -> Option<usize> {
        self.slots().position(|slot| {
            // A failed exchange would take the cache line away from a thread that is at work.
            slot[THREAD].load(Ordering::Relaxed) == 0
                && slot[THREAD]
                    .compare_exchange(0, u64::from(thread), Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
        })
    }

    fn slot(&self, index: usize) -> &[AtomicU64] {
        let start = CRASH_WORDS + index * SLOT_WORDS;
        &self.memory.words()[start..start + SLOT_WORDS]
    }
}

fn inside_of(slot: &[AtomicU64]) -> Option<Inside> {
    let thread = u32::try_from(slot[THREAD].load(Ordering::Acquire)).ok()?;
    let plugin = slot[PLUGIN].load(Ordering::Acquire);
    if thread == 0 || plugin == 0 {
        return None;
    }
    Some(Inside {
        thread,
        plugin,
        activity: Activity::from_word(slot[ACTIVITY].load(Ordering::Relaxed))?,
        entries: slot[ENTRIES].load(Ordering::Relaxed),
        is_loop: slot[LOOP].load(Ordering::Relaxed) != 0,
    })
}

/// The table of this process; set once, by a worker that has a supervisor.
static OF_THIS_PROCESS: OnceLock<ThreadSlots> = OnceLock::new();

/// Where a thread's slot is.
#[derive(Clone, Copy)]
enum Place {
    Unknown,
    /// There is no table, or it is full, or the thread is ending.
    Nowhere,
    /// The thread is ending inside of a plugin: it called `exit`, or ended its thread.
    EndedInside(u64, Activity),
    At(&'static [AtomicU64]),
}

thread_local! {
    /// Without a destructor, so that a look at it is one load.
    static PLACE: Cell<Place> = const { Cell::new(Place::Unknown) };
    static GIVE_BACK: GiveBack = const { GiveBack };
}

/// Gives the thread's slot back when the thread ends.
struct GiveBack;

impl Drop for GiveBack {
    fn drop(&mut self) {
        if let Place::At(slot) = PLACE.replace(Place::Nowhere) {
            if let Some(inside) = inside_of(slot) {
                PLACE.set(Place::EndedInside(inside.plugin, inside.activity));
            }
            slot[PLUGIN].store(0, Ordering::Relaxed);
            slot[LOOP].store(0, Ordering::Relaxed);
            slot[THREAD].store(0, Ordering::Release);
        }
    }
}

/// Follows the threads of this process in a table from now on. The first call counts.
pub fn follow_in(slots: ThreadSlots) {
    let _ = OF_THIS_PROCESS.set(slots);
}

/// The table of this process, where it has one.
pub fn of_this_process() -> Option<&'static ThreadSlots> {
    OF_THIS_PROCESS.get()
}

/// Says that this thread is an event loop's.
pub fn is_a_loop() {
    if let Some(slot) = slot_of_this_thread() {
        slot[LOOP].store(1, Ordering::Relaxed);
    }
}

/// This thread is inside a plugin until the value is dropped.
#[derive(Debug)]
#[must_use = "it is over when this is dropped"]
pub struct Stay {
    slot: Option<&'static [AtomicU64]>,
    outer: (u64, u64),
    /// It belongs to its thread.
    _not_send: PhantomData<*const ()>,
}

/// Says that this thread enters a plugin generation. Stays may be nested.
pub fn enter(plugin: u64, activity: Activity) -> Stay {
    let slot = slot_of_this_thread();
    let mut outer = (0, 0);
    if let Some(slot) = slot {
        outer = (
            slot[PLUGIN].load(Ordering::Relaxed),
            slot[ACTIVITY].load(Ordering::Relaxed),
        );
        let entries = slot[ENTRIES].load(Ordering::Relaxed);
        slot[ENTRIES].store(entries + 1, Ordering::Relaxed);
        slot[ACTIVITY].store(activity as u64, Ordering::Relaxed);
        slot[PLUGIN].store(plugin, Ordering::Release);
    }
    Stay {
        slot,
        outer,
        _not_send: PhantomData,
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            slot[ACTIVITY].store(self.outer.1, Ordering::Relaxed);
            slot[PLUGIN].store(self.outer.0, Ordering::Release);
        }
    }
}

/// The plugin that this thread is inside of, and what it does there; also where the thread is ending
/// and has given its slot back, as before the hooks of `exit` run.
pub fn last_inside_of_this_thread() -> Option<(u64, Activity)> {
    match PLACE.get() {
        Place::At(slot) => inside_of(slot).map(|inside| (inside.plugin, inside.activity)),
        Place::EndedInside(plugin, activity) => Some((plugin, activity)),
        Place::Nowhere | Place::Unknown => None,
    }
}

fn slot_of_this_thread() -> Option<&'static [AtomicU64]> {
    match PLACE.get() {
        Place::At(slot) => Some(slot),
        Place::Nowhere | Place::EndedInside(..) => None,
        Place::Unknown => find_place(),
    }
}

fn find_place() -> Option<&'static [AtomicU64]> {
    PLACE.set(Place::Nowhere);
    let slots = of_this_process()?;
    let thread = rustix::thread::gettid().as_raw_nonzero().get();
    // An error means that the thread is ending: nobody would give its slot back.
    GIVE_BACK.try_with(|_| ()).ok()?;
    let slot = slots.slot(slots.claim(u32::try_from(thread).ok()?)?);
    PLACE.set(Place::At(slot));
    Some(slot)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::*;

    #[test]
    fn another_process_sees_who_is_inside_of_what() {
        follow_in(ThreadSlots::create().unwrap());
        let ours = of_this_process().unwrap();
        let theirs = ThreadSlots::open(ours.file().try_clone_to_owned().unwrap()).unwrap();
        let mine = |slots: &ThreadSlots| {
            let thread = u32::try_from(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            slots.inside().find(|inside| inside.thread == thread)
        };
        is_a_loop();
        assert_eq!(mine(&theirs), None);
        {
            let _outer = enter(7, Activity::Filter);
            let seen = mine(&theirs).unwrap();
            assert_eq!((seen.plugin, seen.activity), (7, Activity::Filter));
            assert!(seen.is_loop);
            {
                let _inner = enter(8, Activity::Drop);
                let inner = mine(&theirs).unwrap();
                assert_eq!((inner.plugin, inner.activity), (8, Activity::Drop));
                assert_eq!(inner.entries, seen.entries + 1);
            }
            assert_eq!(mine(&theirs).unwrap().plugin, 7);
        }
        assert_eq!(mine(&theirs), None);
    }

    #[test]
    fn a_thread_that_ends_gives_its_slot_back() {
        follow_in(ThreadSlots::create().unwrap());
        let slots = of_this_process().unwrap();
        let thread = std::thread::spawn(|| {
            let _stay = enter(9, Activity::Configure);
            std::mem::forget(_stay);
            u64::try_from(rustix::thread::gettid().as_raw_nonzero().get()).unwrap()
        })
        .join()
        .unwrap();
        assert!(
            slots
                .slots()
                .all(|slot| slot[THREAD].load(Ordering::Relaxed) != thread)
        );
    }
}
