//! Keeps one repeated failure from filling the log: so many lines per key and interval, and then
//! one that says how many were left out.
//!
//! For lines that traffic can cause, one per request. Decides only; never writes a line itself.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Most keys that are told apart at a time. Any further ones share one allowance.
pub const MAX_KEYS: usize = 1_024;

/// Decides which repeated lines are written. Shared by all threads; a refusal costs a short lock
/// and no allocation.
#[derive(Debug)]
pub struct Throttle {
    lines: u32,
    interval: Duration,
    hasher: RandomState,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Keys by their hash. Two keys of one hash would share an allowance: among a thousand that
    /// does not happen, and would harm nobody.
    windows: HashMap<u64, Window>,
    /// For the keys beyond [`MAX_KEYS`].
    overflow: Option<Window>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    start: Instant,
    written: u32,
    left_out: u64,
}

impl Throttle {
    /// Allows `lines` lines per key in each `interval`.
    pub fn new(lines: u32, interval: Duration) -> Self {
        Self {
            lines,
            interval,
            hasher: RandomState::new(),
            state: Mutex::new(State {
                windows: HashMap::new(),
                overflow: None,
            }),
        }
    }

    /// Whether a line about `key` is to be written now: `Some` with the number of lines about it
    /// that were left out since the last one, or `None` to leave this one out as well.
    ///
    /// ```
    /// use plugin_host::throttle::Throttle;
    /// use std::time::{Duration, Instant};
    ///
    /// let throttle = Throttle::new(1, Duration::from_secs(10));
    /// let now = Instant::now();
    /// assert_eq!(throttle.allow(&("say", "panicked"), now), Some(0));
    /// assert_eq!(throttle.allow(&("say", "panicked"), now), None);
    /// let later = now + Duration::from_secs(10);
    /// assert_eq!(throttle.allow(&("say", "panicked"), later), Some(1));
    /// ```
    pub fn allow<K: Hash + ?Sized>(&self, key: &K, now: Instant) -> Option<u64> {
        let key = self.hasher.hash_one(key);
        let mut state = self.state.lock();
        if !state.windows.contains_key(&key) && state.windows.len() >= MAX_KEYS {
            self.forget_finished(&mut state, now);
        }
        let State { windows, overflow } = &mut *state;
        let window = if windows.len() < MAX_KEYS || windows.contains_key(&key) {
            windows.entry(key).or_insert_with(|| Window::new(now))
        } else {
            overflow.get_or_insert_with(|| Window::new(now))
        };
        window.allow(self.lines, self.interval, now)
    }

    /// Makes room, at most once per interval so that a flood of keys does not pay for it each
    /// time: keys whose interval is over lose nothing but their count of left-out lines.
    fn forget_finished(&self, state: &mut State, now: Instant) {
        if let Some(overflow) = state.overflow
            && now.saturating_duration_since(overflow.start) < self.interval
        {
            return;
        }
        state
            .windows
            .retain(|_, window| now.saturating_duration_since(window.start) < self.interval);
    }
}

impl Window {
    fn new(now: Instant) -> Self {
        Self {
            start: now,
            written: 0,
            left_out: 0,
        }
    }

    fn allow(&mut self, lines: u32, interval: Duration, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.start) >= interval {
            self.start = now;
            self.written = 0;
        }
        if self.written >= lines {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    #[test]
    fn so_many_lines_pass_and_the_next_one_says_how_many_did_not() {
        let throttle = Throttle::new(2, INTERVAL);
        let now = Instant::now();
        let at = |seconds| throttle.allow("key", now + Duration::from_secs(seconds));
        assert_eq!(at(0), Some(0));
        assert_eq!(at(1), Some(0));
        assert_eq!(at(2), None);
        assert_eq!(at(9), None);
        assert_eq!(at(10), Some(2));
        assert_eq!(at(11), Some(0));
        assert_eq!(at(12), None);
    }

    #[test]
    fn keys_do_not_disturb_each_other() {
        let throttle = Throttle::new(1, INTERVAL);
        let now = Instant::now();
        assert_eq!(throttle.allow(&("say", 1), now), Some(0));
        assert_eq!(throttle.allow(&("say", 2), now), Some(0));
        assert_eq!(throttle.allow(&("say", 1), now), None);
    }

    #[test]
    fn keys_beyond_the_bound_share_one_allowance_until_there_is_room() {
        let throttle = Throttle::new(1, INTERVAL);
        let now = Instant::now();
        for key in 0..MAX_KEYS {
            assert_eq!(throttle.allow(&key, now), Some(0));
        }
        assert_eq!(throttle.allow(&"first too many", now), Some(0));
        assert_eq!(throttle.allow(&"second too many", now), None);
        assert_eq!(throttle.allow(&7, now), None, "a known key is still known");
        assert!(throttle.state.lock().windows.len() <= MAX_KEYS);

        let later = now + INTERVAL;
        assert_eq!(throttle.allow(&"a new one", later), Some(0));
        assert_eq!(throttle.allow(&"another new one", later), Some(0));
    }

    #[test]
    fn threads_together_write_no_more_than_is_allowed() {
        let throttle = Throttle::new(5, INTERVAL);
        let now = Instant::now();
        let written: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..100)
                            .filter(|_| throttle.allow("key", now).is_some())
                            .count()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("the thread does not panic"))
                .sum()
        });
        assert_eq!(written, 5);
        assert_eq!(throttle.allow("key", now + INTERVAL), Some(395));
    }
}
