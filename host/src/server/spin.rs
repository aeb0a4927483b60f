//! A short wait of an event loop with its eyes open, before it sleeps: a call that comes in that time finds
//! the loop awake, and is answered without the tens of microseconds that waking a thread takes.
//!
//! It costs processor time, so it goes by what it brings: a wait in which a call came is followed by another
//! one, and where none came it is left out for some calls, twice as many each time. Where traffic is thin that
//! is next to nothing. It never holds anything up: a loop that has work does it first.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// Calls that are left out at most, after waits in which no call came.
const LEFT_OUT_AT_MOST: u32 = 256;

/// The pace of one loop's calls. Written by that loop alone.
#[derive(Debug)]
pub(super) struct Pace {
    /// How long to wait after the last call; nothing for never.
    longest: Duration,
    answered: AtomicU64,
    /// Whether nobody waits with open eyes.
    asleep: AtomicBool,
    /// Calls until somebody does so again.
    left_out: AtomicU32,
    begin: Notify,
}

impl Pace {
    pub(super) fn new(longest: Duration) -> Arc<Self> {
        Arc::new(Self {
            longest,
            answered: AtomicU64::new(0),
            asleep: AtomicBool::new(!longest.is_zero()),
            left_out: AtomicU32::new(0),
            begin: Notify::new(),
        })
    }

    /// A call has been answered.
    pub(super) fn answered(&self) {
        let answered = self.answered.load(Ordering::Relaxed) + 1;
        self.answered.store(answered, Ordering::Relaxed);
        if !self.asleep.load(Ordering::Relaxed) {
            return;
        }
        match self.left_out.load(Ordering::Relaxed) {
            0 => {
                self.asleep.store(false, Ordering::Relaxed);
                self.begin.notify_one();
            }
            left => self.left_out.store(left - 1, Ordering::Relaxed),
        }
    }

    /// Keeps the loop awake after its calls, for as long as this is polled. It never ends.
    pub(super) async fn keep_awake(self: Arc<Self>) {
        let mut leave_out = 0;
        loop {
            self.begin.notified().await;
            leave_out = if self.wait().await {
                0
            } else {
                (2 * leave_out).clamp(1, LEFT_OUT_AT_MOST)
            };
            self.left_out.store(leave_out, Ordering::Relaxed);
            self.asleep.store(true, Ordering::Relaxed);
        }
    }

    /// Waits until no call has come for the longest time; whether any came.
    async fn wait(&self) -> bool {
        let mut worth_it = false;
        let mut seen = self.answered.load(Ordering::Relaxed);
        let mut until = Instant::now() + self.longest;
        loop {
            // Everything that is ready runs first, and the loop looks for more without sleeping.
            tokio::task::yield_now().await;
            let answered = self.answered.load(Ordering::Relaxed);
            if answered != seen {
                seen = answered;
                worth_it = true;
                until = Instant::now() + self.longest;
            } else if Instant::now() >= until {
                return worth_it;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of a number of calls, each so long after the one before, find the loop waiting.
    async fn awake_for(calls: u32, apart: Duration, longest: Duration) -> u32 {
        let pace = Pace::new(longest);
        let waiting = tokio::spawn(Arc::clone(&pace).keep_awake());
        let mut found = 0;
        for _ in 0..calls {
            tokio::time::sleep(apart).await;
            found += u32::from(!pace.asleep.load(Ordering::Relaxed));
            pace.answered();
            // It begins.
            tokio::task::yield_now().await;
        }
        waiting.abort();
        found
    }

    #[tokio::test]
    async fn calls_that_come_soon_find_the_loop_awake() {
        let found = awake_for(20, Duration::from_millis(1), Duration::from_secs(60)).await;
        assert_eq!(found, 19, "all but the first");
    }

    #[tokio::test]
    async fn where_calls_are_rare_waiting_for_them_is_left_out() {
        let pace = Pace::new(Duration::from_nanos(1));
        let waiting = tokio::spawn(Arc::clone(&pace).keep_awake());
        let mut begun = 0;
        for _ in 0..1_000 {
            let asleep = pace.asleep.load(Ordering::Relaxed);
            pace.answered();
            begun += u32::from(asleep && !pace.asleep.load(Ordering::Relaxed));
            // The next call comes when the wait for it is over, however busy the machine is.
            while !pace.asleep.load(Ordering::Relaxed) {
                tokio::task::yield_now().await;
            }
        }
        waiting.abort();
        assert!((2..20).contains(&begun), "{begun} waits for 1,000 calls");
    }

    #[tokio::test]
    async fn a_loop_that_is_not_to_wait_is_never_woken_for_it() {
        let pace = Pace::new(Duration::ZERO);
        (0..5).for_each(|_| pace.answered());
        let begin = tokio::time::timeout(Duration::from_millis(5), pace.begin.notified());
        assert!(begin.await.is_err());
    }
}
