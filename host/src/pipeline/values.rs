//! The values that plugins leave for one another on a request: those of one call, and those that are
//! kept between the calls of one request.
//!
//! What links two calls is the gateway's variable `request_id`: a random number of 128 bits that
//! nginx makes for each request and the gateway remembers for all its phases. No client chooses it, so
//! no two requests are ever taken for one. (The number in the frames is another one in each call.)
//! Nothing is asked and nothing is kept for calls whose plugins keep nothing. What is kept counts in
//! number, bytes and time; where it is too much, what was kept first goes first.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, LazyLock},
    time::Duration,
};

use parking_lot::Mutex;
use plugin_abi::abi::{self, ValueStatus};
use tokio::time::Instant;

use super::questions::Questions;

/// Values of one call.
pub const MAX_VALUES: usize = 64;

/// Bytes of all values of one call together, names included.
pub const MAX_VALUE_BYTES: usize = 64 << 10;

/// Requests of which values are kept at the same time.
pub const MAX_KEPT_REQUESTS: usize = 16_384;

/// Bytes of all values that are kept, names included.
pub const MAX_KEPT_BYTES: usize = 64 << 20;

/// How long values are kept for a request's next call.
pub const KEPT_FOR: Duration = Duration::from_secs(300);

/// The gateway's variable that links the calls of a request.
const REQUEST_ID: &[u8] = b"request_id";

/// Bytes that a `request_id` has at most; nginx makes 32.
const MAX_ID_BYTES: usize = 128;

/// What is counted beside names and values, for each of them.
const OVERHEAD: usize = 64;

#[derive(Debug, Clone)]
struct Value {
    name: Box<[u8]>,
    value: Arc<[u8]>,
    /// Whether later calls of the request get it.
    is_kept: bool,
}

impl Value {
    fn bytes(&self) -> usize {
        self.name.len() + self.value.len()
    }
}

/// The values of one call. Without any it takes no memory.
#[derive(Debug, Clone, Default)]
pub struct CallValues {
    values: Vec<Value>,
    bytes: usize,
    is_loaded: bool,
    /// Whether what is kept differs from what was loaded.
    is_changed: bool,
}

impl CallValues {
    /// A value.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let found = self.values.iter().find(|value| *value.name == *name);
        found.map(|found| &*found.value)
    }

    /// Does what a plugin wants of a value: one that is to be kept needs a request to be kept for.
    pub(super) fn change(
        &mut self,
        questions: &Questions,
        name: &[u8],
        value: Option<&[u8]>,
        keep: bool,
    ) -> ValueStatus {
        match value {
            Some(_) if keep && request_id(questions).is_none() => ValueStatus::NOT_LINKED,
            Some(value) => self.set(name, value, keep),
            None => {
                self.remove(name);
                ValueStatus::DONE
            }
        }
    }

    /// Adds what earlier calls of the same request have kept, if it is known which request it is.
    pub(super) fn load_for_call(&mut self, questions: &Questions) -> ValueStatus {
        match request_id(questions) {
            Some(id) => self.load(KeptValues::of_process(), id, Instant::now()),
            None => ValueStatus::NOT_LINKED,
        }
    }

    /// The call has ended well: leaves what is kept to the request's next call, if there is one.
    pub(super) fn leave_for_next_call(&self, questions: &Questions, is_last: bool) {
        if (self.is_changed || self.is_loaded)
            && let Some(id) = request_id(questions)
        {
            self.leave(KeptValues::of_process(), id, is_last, Instant::now());
        }
    }

    /// Sets a value, for later calls too where it is to be kept or was.
    fn set(&mut self, name: &[u8], value: &[u8], keep: bool) -> ValueStatus {
        let known = self.values.iter().position(|value| *value.name == *name);
        let before = known.map_or(0, |known| self.values[known].bytes());
        let bytes = self.bytes - before + name.len() + value.len();
        if bytes > MAX_VALUE_BYTES || (known.is_none() && self.values.len() >= MAX_VALUES) {
            return ValueStatus::FULL;
        }
        self.bytes = bytes;
        let is_kept = keep || known.is_some_and(|known| self.values[known].is_kept);
        self.is_changed |= is_kept;
        match known {
            Some(known) => {
                let known = &mut self.values[known];
                (known.value, known.is_kept) = (value.into(), is_kept);
            }
            None => self.values.push(Value {
                name: name.into(),
                value: value.into(),
                is_kept,
            }),
        }
        ValueStatus::DONE
    }

    fn remove(&mut self, name: &[u8]) {
        if let Some(known) = self.values.iter().position(|value| *value.name == *name) {
            let removed = self.values.swap_remove(known);
            self.bytes -= removed.bytes();
            self.is_changed |= removed.is_kept;
        }
    }

    /// What is there already stays.
    fn load(&mut self, kept: &KeptValues, id: &[u8], now: Instant) -> ValueStatus {
        if !std::mem::replace(&mut self.is_loaded, true) {
            for (name, value) in &*kept.get(id, now) {
                if self.get(name).is_none() {
                    let changed = self.is_changed;
                    // Both have the same bounds; what a plugin has set meanwhile comes first.
                    self.set(name, value, true);
                    self.is_changed = changed;
                }
            }
        }
        ValueStatus::DONE
    }

    fn leave(&self, kept: &KeptValues, id: &[u8], is_last: bool, now: Instant) {
        if is_last {
            kept.put(id, Arc::default(), now);
        } else if self.is_changed {
            let values = self.values.iter().filter(|value| value.is_kept);
            let values = values.map(|value| (value.name.clone(), Arc::clone(&value.value)));
            kept.put(id, values.collect(), now);
        }
    }

    /// Makes it ready for another call.
    pub fn clear(&mut self) {
        if self.bytes > 0 || self.is_loaded || self.is_changed || !self.values.is_empty() {
            *self = Self::default();
        }
    }
}

/// What the gateway calls the request in all its phases, where it was asked and is of use.
fn request_id(questions: &Questions) -> Option<&[u8]> {
    let asked = questions.answer_to(abi::Question::Variable(REQUEST_ID.into()));
    asked.filter(|id| !id.is_empty() && id.len() <= MAX_ID_BYTES)
}

/// Names and values, which a request's next call gets.
type Kept = Arc<[(Box<[u8]>, Arc<[u8]>)]>;

/// What is kept between the calls of a request.
#[derive(Debug, Default)]
pub struct KeptValues {
    requests: Mutex<Requests>,
}

#[derive(Debug, Default)]
struct Requests {
    by_id: HashMap<Arc<[u8]>, Entry>,
    /// In the order in which they were kept; some of them may be gone, or have been kept again.
    order: VecDeque<(Instant, Arc<[u8]>)>,
    bytes: usize,
    /// How many went before their time.
    dropped: u64,
}

#[derive(Debug)]
struct Entry {
    values: Kept,
    bytes: usize,
    kept: Instant,
}

impl KeptValues {
    /// Those of this process. Numbers of requests are never given twice, whichever gateway it is.
    pub fn of_process() -> &'static Self {
        static OF_PROCESS: LazyLock<KeptValues> = LazyLock::new(KeptValues::default);
        &OF_PROCESS
    }

    fn get(&self, id: &[u8], now: Instant) -> Kept {
        let requests = self.requests.lock();
        let found = requests.by_id.get(id);
        let found = found.filter(|entry| now.saturating_duration_since(entry.kept) < KEPT_FOR);
        found
            .map(|entry| Arc::clone(&entry.values))
            .unwrap_or_default()
    }

    fn put(&self, id: &[u8], values: Kept, now: Instant) {
        let mut requests = self.requests.lock();
        requests.remove(id);
        requests.make_room(now, 0, 0);
        if values.is_empty() {
            return;
        }
        let of_values = values
            .iter()
            .map(|(name, value)| name.len() + value.len() + OVERHEAD);
        let bytes = id.len() + OVERHEAD + of_values.sum::<usize>();
        requests.make_room(now, 1, bytes);
        let id: Arc<[u8]> = id.into();
        requests.order.push_back((now, Arc::clone(&id)));
        requests.bytes += bytes;
        let kept = now;
        requests.by_id.insert(
            id,
            Entry {
                values,
                bytes,
                kept,
            },
        );
    }

    /// How many requests have values here, and how many lost theirs before their time.
    pub fn counts(&self) -> (usize, u64) {
        let requests = self.requests.lock();
        (requests.by_id.len(), requests.dropped)
    }
}

impl Requests {
    fn remove(&mut self, id: &[u8]) {
        if let Some(removed) = self.by_id.remove(id) {
            self.bytes -= removed.bytes;
        }
    }

    /// Forgets what has been kept for long enough, and more where there is no room otherwise.
    fn make_room(&mut self, now: Instant, requests: usize, bytes: usize) {
        while let Some((kept, id)) = self.order.front() {
            let is_current = self.by_id.get(id).is_some_and(|entry| entry.kept == *kept);
            let is_old = now.saturating_duration_since(*kept) >= KEPT_FOR;
            let is_full = self.by_id.len() + requests > MAX_KEPT_REQUESTS
                || self.bytes + bytes > MAX_KEPT_BYTES
                || self.order.len() > 2 * MAX_KEPT_REQUESTS;
            if is_current && !is_old && !is_full {
                return;
            }
            if let Some((_, id)) = self.order.pop_front()
                && is_current
            {
                self.remove(&id);
                if !is_old {
                    self.dropped += 1;
                    self.tell_of_dropped();
                }
            }
        }
    }

    fn tell_of_dropped(&self) {
        // One line for the first, and fewer and fewer after it.
        if self.dropped.is_power_of_two() {
            tracing::warn!(
                dropped = self.dropped,
                "values that plugins keep for later phases of requests are dropped: too many \
                 requests are under way, or too many never come to their response phase"
            );
        }
    }
}

#[cfg(test)]
mod tests;
