//! What plugins log: at which levels, which operators may change for each while the host runs, and
//! how often the same line.
//!
//! A process has one log, so these are the process's own. Nothing here writes a line.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tracing::{Level, level_filters::LevelFilter};
use utoipa::ToSchema;

/// Target of the lines of plugins, as far as `--log` lets them through. No module of the host has a
/// name that begins so.
pub const TARGET: &str = "plugins";

/// Target of the lines of plugins that have a level of their own.
pub const OWN_TARGET: &str = "plugins::own";

/// Plugins that have a level of their own, at most.
pub const MAX_OWN_LEVELS: usize = 256;

/// Lines of one text that a plugin may write in each second; beyond, they are counted.
pub const SAME_LINES: u32 = 10;

/// Texts that are recognised; another one in the same place makes its predecessor a new one.
const PLACES: usize = 256;

const SECOND: Duration = Duration::from_secs(1);

/// What is logged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLevels {
    /// Directives, as `--log` takes them.
    pub filter: String,
    /// Levels of single plugins, in place of what the directives say of them.
    #[serde(default)]
    pub plugins: BTreeMap<String, String>,
}

/// A line that is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// Whether it has [`OWN_TARGET`].
    pub own: bool,
    /// Lines of the same text that were left out since the last one.
    pub left_out: Option<u64>,
}

#[derive(Debug, Default)]
struct OwnLevels {
    /// Spares those who log the lock, mostly.
    any: AtomicBool,
    of: RwLock<BTreeMap<String, LevelFilter>>,
}

static OWN_LEVELS: LazyLock<OwnLevels> = LazyLock::new(OwnLevels::default);

static REPEATS: LazyLock<Repeats> = LazyLock::new(Repeats::default);

/// The level that a text names.
///
/// # Errors
/// It names none.
pub fn level(text: &str) -> Result<LevelFilter, String> {
    let known = ["off", "error", "warn", "info", "debug", "trace"];
    match known.contains(&text) {
        true => text.parse().map_err(|_| format!("`{text}` is no level")),
        false => Err(format!("`{text}` is no level: {}", known.join(", "))),
    }
}

/// Puts the levels of single plugins in force.
///
/// # Errors
/// One is no level, or there are too many; nothing has changed.
pub fn set_own(levels: &BTreeMap<String, String>) -> Result<(), String> {
    if levels.len() > MAX_OWN_LEVELS {
        return Err(format!(
            "more than {MAX_OWN_LEVELS} plugins with a level of their own"
        ));
    }
    let levels = levels.iter();
    let of = levels
        .map(|(plugin, text)| Ok((plugin.clone(), level(text)?)))
        .collect::<Result<BTreeMap<_, _>, String>>()?;
    OWN_LEVELS.any.store(!of.is_empty(), Ordering::Release);
    *OWN_LEVELS.of.write() = of;
    Ok(())
}

/// The level of a plugin that has one of its own.
pub fn own(plugin: &str) -> Option<LevelFilter> {
    if !OWN_LEVELS.any.load(Ordering::Acquire) {
        return None;
    }
    OWN_LEVELS.of.read().get(plugin).copied()
}

/// Whether a line of a plugin is to be written now, as far as its own level and its repetition go;
/// for plugins without a level of their own the log's filter has the last word.
pub fn admit(plugin: &str, level: Level, module: &str, message: &str) -> Option<Admitted> {
    let own = own(plugin);
    if own.is_some_and(|own| level > own) {
        return None;
    }
    let key = (plugin, level.as_str(), module, message);
    let left_out = REPEATS.admit(&key, Instant::now())?;
    Some(Admitted {
        own: own.is_some(),
        left_out: (left_out > 0).then_some(left_out),
    })
}

/// Recognises texts that repeat.
#[derive(Debug)]
struct Repeats {
    hasher: RandomState,
    places: Box<[Mutex<Place>]>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Place {
    text: u64,
    since: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl Default for Repeats {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            places: (0..PLACES).map(|_| Mutex::default()).collect(),
        }
    }
}

impl Repeats {
    /// How many of the same were left out before this one; none where it is left out too.
    fn admit(&self, key: &impl std::hash::Hash, now: Instant) -> Option<u64> {
        let text = self.hasher.hash_one(key);
        let index = usize::try_from(text % PLACES as u64).unwrap_or(0);
        let mut place = self.places[index].lock();
        let is_same = place.text == text;
        let is_over = |since: Instant| now.saturating_duration_since(since) >= SECOND;
        if !is_same || place.since.is_none_or(is_over) {
            let left_out = if is_same { place.left_out } else { 0 };
            *place = Place {
                text,
                since: Some(now),
                written: 1,
                left_out: 0,
            };
            return Some(left_out);
        }
        if place.written >= SAME_LINES {
            place.left_out += 1;
            return None;
        }
        place.written += 1;
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_line_is_written_so_often_in_a_second_and_then_counted_and_others_always() {
        let repeats = Repeats::default();
        let now = Instant::now();
        let same: Vec<_> = (0..25).map(|_| repeats.admit(&"same", now)).collect();
        assert_eq!(same.iter().flatten().count(), SAME_LINES as usize);
        assert_eq!(repeats.admit(&"same", now + SECOND), Some(15));
        for number in 0..10_000 {
            assert_eq!(repeats.admit(&("other", number), now), Some(0));
        }
    }

    #[test]
    fn a_level_is_one_of_six_words() {
        assert_eq!(level("debug"), Ok(LevelFilter::DEBUG));
        for wrong in ["", "5", "loud", "DEBUG"] {
            assert!(level(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn levels_of_more_plugins_than_the_bound_are_refused() {
        let levels = (0..=MAX_OWN_LEVELS).map(|number| (number.to_string(), "debug".to_owned()));
        assert!(set_own(&levels.collect()).is_err());
    }
}
