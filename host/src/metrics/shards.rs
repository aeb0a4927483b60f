//! Counters that many threads write and few read: each thread has its own copy, so that none waits for
//! the cache line of another. Whoever reads adds the copies up.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Copies of each counter. With more threads than that, some share one, which is right all the same.
pub const SHARDS: usize = 4;

/// Copies of something, one for each thread that writes.
#[derive(Debug, Default)]
pub struct Shards<T>([Shard<T>; SHARDS]);

/// Two cache lines apart from its neighbours: processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard<T>(T);

impl<T> Shards<T> {
    /// This thread's.
    pub fn mine(&self) -> &T {
        &self.0[number_of_thread()].0
    }

    /// All of them, to be added up.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|shard| &shard.0)
    }
}

fn number_of_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
    }
    NUMBER.with(|number| *number)
}
