//! How a worker's last words lie in shared memory: a record of the fault that kills it, and one of
//! the call of `exit` that ends it.
//!
//! Writing is nothing but stores, so that it can be done in a signal handler. Reading believes
//! nothing: a plugin may have written anything there.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::shared_memory::threads::{Activity, CRASH_WORDS};

/// Addresses of calls that are kept, innermost first.
pub(super) const MAX_FRAMES: usize = 64;

/// Words of one record.
const RECORD_WORDS: usize = CRASH_WORDS / 2;

/// The thread that writes here, or wrote; 0 for nobody.
const THREAD: usize = 0;
/// 1 as soon as everything but the frames is there.
const WRITTEN: usize = 1;
const SIGNAL: usize = 2;
const CODE: usize = 3;
const ADDRESS: usize = 4;
const INSTRUCTION: usize = 5;
const STACK: usize = 6;
const SENDER: usize = 7;
const PLUGIN: usize = 8;
const ACTIVITY: usize = 9;
const FRAMES: usize = 10;
const FIRST_FRAME: usize = 16;

const _: () = assert!(FIRST_FRAME + MAX_FRAMES <= RECORD_WORDS);

/// What a handler knows at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Essentials {
    /// 0 for a call of `exit`.
    pub(super) signal: i32,
    /// Why the signal was sent, as the kernel says it.
    pub(super) code: i32,
    /// What could not be accessed, or executed.
    pub(super) address: u64,
    /// What was executed.
    pub(super) instruction: u64,
    /// Where the stack ended.
    pub(super) stack: u64,
    /// The process that sent the signal; 0 where the kernel did.
    pub(super) sender: u32,
    /// The number of the plugin generation that the thread was inside of; 0 for none.
    pub(super) plugin: u64,
    /// What it did there, as [`Activity`] numbers it.
    pub(super) activity: u64,
}

/// A record as it was found after a death.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) thread: u32,
    pub(super) essentials: Essentials,
    /// Return addresses, innermost first; the instruction itself is not among them.
    pub(super) frames: Vec<u64>,
}

impl Record {
    /// The plugin that the thread was inside of.
    pub(super) fn inside(&self) -> Option<(u64, Activity)> {
        let activity = Activity::from_word(self.essentials.activity)?;
        (self.essentials.plugin != 0).then_some((self.essentials.plugin, activity))
    }
}

/// The place of one record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a>(&'a [AtomicU64]);

/// Where faults are recorded.
pub(super) fn of_faults(crash_words: &[AtomicU64]) -> Place<'_> {
    Place(&crash_words[..RECORD_WORDS])
}

/// Where calls of `exit` are recorded.
pub(super) fn of_exits(crash_words: &[AtomicU64]) -> Place<'_> {
    Place(&crash_words[RECORD_WORDS..])
}

impl Place<'_> {
    /// Whether this thread is the first that wants to write here.
    pub(super) fn claim(self, thread: u32) -> bool {
        self.0[THREAD]
            .compare_exchange(0, u64::from(thread), Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    pub(super) fn write(self, essentials: &Essentials) {
        // Negative numbers come back the way that they go.
        let words = [
            (SIGNAL, u64::from(essentials.signal.cast_unsigned())),
            (CODE, u64::from(essentials.code.cast_unsigned())),
            (ADDRESS, essentials.address),
            (INSTRUCTION, essentials.instruction),
            (STACK, essentials.stack),
            (SENDER, u64::from(essentials.sender)),
            (PLUGIN, essentials.plugin),
            (ACTIVITY, essentials.activity),
        ];
        for (word, value) in words {
            self.0[word].store(value, Ordering::Relaxed);
        }
        self.0[WRITTEN].store(1, Ordering::Release);
    }

    /// Adds the frames, as many as fit.
    pub(super) fn write_frames(self, frames: impl Iterator<Item = u64>) {
        let places = self.0[FIRST_FRAME..].iter().take(MAX_FRAMES);
        let mut count = 0;
        for (place, frame) in places.zip(frames) {
            place.store(frame, Ordering::Relaxed);
            count += 1;
        }
        self.0[FRAMES].store(count, Ordering::Release);
    }

    /// What was written, if anything was.
    pub(super) fn read(self) -> Option<Record> {
        let word = |word: usize| self.0[word].load(Ordering::Acquire);
        let thread = u32::try_from(word(THREAD)).ok().filter(|it| *it != 0)?;
        if word(WRITTEN) != 1 {
            return None;
        }
        let signed = |word: u64| u32::try_from(word).unwrap_or(0).cast_signed();
        let count = usize::try_from(word(FRAMES)).map_or(MAX_FRAMES, |it| it.min(MAX_FRAMES));
        Some(Record {
            thread,
            essentials: Essentials {
                signal: signed(word(SIGNAL)),
                code: signed(word(CODE)),
                address: word(ADDRESS),
                instruction: word(INSTRUCTION),
                stack: word(STACK),
                sender: u32::try_from(word(SENDER)).unwrap_or(0),
                plugin: word(PLUGIN),
                activity: word(ACTIVITY),
            },
            frames: (FIRST_FRAME..FIRST_FRAME + count).map(word).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::*;

    fn words() -> Vec<AtomicU64> {
        (0..CRASH_WORDS).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn what_a_handler_writes_is_read_as_it_was_and_only_the_first_writes() {
        let words = words();
        let place = of_faults(&words);
        assert_eq!(place.read(), None);
        assert!(place.claim(17) && !place.claim(18));
        assert_eq!(place.read(), None, "nothing but who it is");
        let essentials = Essentials {
            signal: 11,
            code: -6,
            address: u64::MAX,
            instruction: 1,
            stack: 2,
            sender: 3,
            plugin: 4,
            activity: Activity::Filter as u64,
        };
        place.write(&essentials);
        place.write_frames(0..1_000);
        let record = place.read().unwrap();
        assert_eq!((record.thread, record.essentials), (17, essentials));
        assert_eq!(record.inside(), Some((4, Activity::Filter)));
        assert_eq!(record.frames, (0..64).collect::<Vec<_>>());
        assert_eq!(of_exits(&words).read(), None);
    }

    #[test]
    fn whatever_stands_there_can_be_read() {
        let words: Vec<AtomicU64> = words();
        for word in &words {
            word.store(u64::MAX, Ordering::Relaxed);
        }
        assert_eq!(
            of_faults(&words).read(),
            None,
            "no thread has such a number"
        );
        words[THREAD].store(1, Ordering::Relaxed);
        words[WRITTEN].store(1, Ordering::Relaxed);
        let record = of_faults(&words).read().unwrap();
        assert_eq!(record.inside(), None);
        assert_eq!(record.frames.len(), MAX_FRAMES);
    }
}
