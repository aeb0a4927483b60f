//! The arithmetic of the limit: a token bucket that holds one token, with a bounded queue before
//! it.
//!
//! Tokens fall into it at the route's rate, and each request takes one: at once where it lies
//! there, else the first that nobody before it waits for. All of that is one point in time, that
//! of the next token which is not taken yet. Nothing here reads a clock or waits.

use std::time::Duration;

/// A bucket; times are counted from any fixed moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// From one token to the next. Rounded up, so that the rate is never exceeded: at more than
    /// ten million requests per second it falls visibly short of what was asked for.
    interval: Duration,
    /// The longest that a request may have to wait: as long as `burst` tokens take.
    longest_wait: Duration,
    /// When the next token falls that nobody has taken.
    next: Duration,
}

impl Bucket {
    /// A full bucket for so many requests per second, more than 0, before which so many may wait.
    pub(crate) fn new(rate: f64, burst: u32) -> Self {
        // The cast saturates: the slowest rate is one request in 584 years.
        let interval = Duration::from_nanos((1e9 / rate).ceil() as u64);
        Self {
            interval,
            longest_wait: interval.saturating_mul(burst),
            next: Duration::ZERO,
        }
    }

    /// Takes a token for a request that comes now, and says how long until it falls. None where
    /// the queue is full, or where the wait would use up the request's patience; nothing is taken
    /// then.
    pub(crate) fn take(&mut self, now: Duration, patience: Duration) -> Option<Duration> {
        let turn = self.next.max(now);
        let wait = turn - now;
        if wait > self.longest_wait || (wait > Duration::ZERO && wait >= patience) {
            return None;
        }
        self.next = turn.saturating_add(self.interval);
        Some(wait)
    }

    /// How long until the next token falls that nobody has taken.
    pub(crate) fn pending(&self, now: Duration) -> Duration {
        self.next.saturating_sub(now)
    }

    /// Takes as many tokens as fall in this time.
    pub(crate) fn put_off(&mut self, now: Duration, time: Duration) {
        self.next = self.next.max(now).saturating_add(time);
    }
}
