//! Says when the plugin directory may have changed.
//!
//! File events are hints: some get lost, network file systems have none, and one copied file is
//! many of them. So events are waited out until it is quiet, and a look is due now and then without
//! any. What has changed is the scanner's question: this module never reads a plugin's files and
//! never decides anything about them.

mod events;
mod trace;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{ErrorKind, RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::scan::SETTLE;
use events::{Burst, Events, Interest};
use trace::trace;

/// Events are over when there was none for this long.
pub const QUIET: Duration = Duration::from_millis(100);

/// Where events do not end, a look is due this long after the first of them.
pub const MAX_DELAY: Duration = Duration::from_secs(1);

/// Directories that are watched, at most; changes in those beyond it are seen by rescans.
pub const MAX_WATCHED: usize = 4_096;

/// What was closed or renamed into place before the quiet has stood still long enough after it.
const _: () = assert!(SETTLE.as_nanos() <= QUIET.as_nanos());

/// Watches the plugin directory and everything that it is made of.
#[derive(Debug)]
pub struct Watch {
    directory: PathBuf,
    rescan_every: Duration,
    /// None where the system does not give us any events.
    watcher: Option<RecommendedWatcher>,
    shared: Arc<Shared>,
    /// Directories that are watched, by their real paths.
    watched: BTreeMap<PathBuf, Identity>,
    look_again: Option<Instant>,
    /// None where it lies beyond what a clock can say.
    next_rescan: Option<Instant>,
    /// It was said that not everything can be watched.
    warned: bool,
}

/// Why the directory should be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Something happened to its files.
    Events,
    /// It has not been looked at for a while.
    Rescan,
    /// It was asked for.
    LookAgain,
}

#[derive(Debug, Default)]
struct Shared {
    events: Mutex<Events>,
    woken: Notify,
}

/// Which directory it is, whatever its path.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Watch {
    /// Watches a plugin directory, which need not exist yet. Where the system has no events to give
    /// (a warning tells), rescans still find what has changed.
    ///
    /// `rescan_every` is the time between looks that need no event; less than [`QUIET`] is as much.
    #[must_use]
    pub fn new(directory: &Path, rescan_every: Duration) -> Self {
        let shared = Arc::new(Shared::default());
        let watcher = notify::recommended_watcher({
            let shared = Arc::clone(&shared);
            move |event| {
                if shared.events.lock().take_in(event) {
                    shared.woken.notify_one();
                }
            }
        });
        let watcher = watcher
            .inspect_err(|error| {
                tracing::warn!(
                    %error,
                    rescan_seconds = rescan_every.as_secs(),
                    "no file events: changes of plugins are seen by rescans only \
                     (see the limits in /proc/sys/fs/inotify)"
                );
            })
            .ok();
        let rescan_every = rescan_every.max(QUIET);
        let mut watch = Self {
            directory: std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned()),
            rescan_every,
            watcher,
            shared,
            watched: BTreeMap::new(),
            look_again: None,
            next_rescan: Instant::now().checked_add(rescan_every),
            warned: false,
        };
        watch.follow(&[]);
        // Whoever makes a watch looks at the directory afterwards.
        watch.look_again = None;
        watch
    }

    /// Waits until the directory should be looked at. Nothing is lost when this is dropped before
    /// its end.
    pub async fn changed(&mut self) -> Reason {
        loop {
            let burst = self.shared.events.lock().burst;
            let quiet = burst.map(|Burst { first, last }| (last + QUIET).min(first + MAX_DELAY));
            let due = [
                (quiet, Reason::Events),
                (self.look_again, Reason::LookAgain),
                (self.next_rescan, Reason::Rescan),
            ];
            let soonest = due
                .into_iter()
                .filter_map(|(at, reason)| Some((at?, reason)))
                .min_by_key(|(at, _)| *at);
            let Some((at, reason)) = soonest else {
                self.shared.woken.notified().await;
                continue;
            };
            if at > Instant::now() {
                tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = self.shared.woken.notified() => {}
                }
                continue;
            }
            match reason {
                Reason::Events => self.shared.events.lock().burst = None,
                Reason::LookAgain => self.look_again = None,
                Reason::Rescan => {
                    self.next_rescan = Instant::now().checked_add(self.rescan_every);
                }
            }
            return reason;
        }
    }

    /// Makes a look due after some time, unless one is due earlier.
    pub fn look_again_in(&mut self, delay: Duration) {
        let Some(at) = Instant::now().checked_add(delay) else {
            return;
        };
        self.look_again = Some(self.look_again.map_or(at, |known| known.min(at)));
    }

    /// Whether a file was written to and not yet closed, as far as events tell. `path` is its real
    /// path, without links.
    #[must_use]
    pub fn open_for_writing(&self, path: &Path) -> bool {
        self.shared.events.lock().is_open(path)
    }

    /// Watches exactly what matters now: the plugin directory and whatever it really is (its
    /// parents, where it may be replaced or is missing), and the given paths: plugins' directories,
    /// links, and files elsewhere. For after each scan, with [`Scan::follow`](super::scan::Scan::follow).
    pub fn follow(&mut self, paths: &[PathBuf]) {
        if self.watcher.is_none() {
            return;
        }
        let interest = self.interest(paths);
        let (lost, overflowed) = {
            let mut events = self.shared.events.lock();
            // Before the watches, so that their first events are known to matter.
            events.follow(interest.clone());
            (
                std::mem::take(&mut events.lost),
                std::mem::take(&mut events.overflowed),
            )
        };
        // A watch is on what a path led to; where it now leads elsewhere, the watch must be made
        // anew.
        let stale: Vec<_> = self
            .watched
            .iter()
            .filter(|(directory, identity)| {
                overflowed
                    || lost.iter().any(|lost| directory.starts_with(lost))
                    || !interest.contains_key(*directory)
                    || Identity::of(directory).as_ref() != Some(*identity)
            })
            .map(|(directory, _)| directory.clone())
            .collect();
        for directory in stale {
            self.watched.remove(&directory);
            if let Some(watcher) = &mut self.watcher {
                // An error means that there is no such watch any more.
                let _ = watcher.unwatch(&directory);
            }
        }
        let mut is_new = false;
        for directory in interest.keys() {
            if !self.watched.contains_key(directory) {
                is_new |= self.watch(directory);
            }
        }
        if is_new {
            // What changed there since it was scanned made no event.
            self.look_again_in(QUIET);
        }
    }

    fn watch(&mut self, directory: &Path) -> bool {
        let (Some(watcher), Some(identity)) = (&mut self.watcher, Identity::of(directory)) else {
            return false;
        };
        match watcher.watch(directory, RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.watched.insert(directory.to_owned(), identity);
                true
            }
            // Gone meanwhile, of which its parent's watch tells.
            Err(error) if matches!(error.kind, ErrorKind::PathNotFound) => false,
            Err(error) => {
                self.warn(directory, &error.to_string());
                false
            }
        }
    }

    /// Which names in which directories matter. The plugin directory comes before the bound.
    fn interest(&mut self, paths: &[PathBuf]) -> BTreeMap<PathBuf, Interest> {
        let mut interest = BTreeMap::new();
        let own = self.directory.clone();
        for path in std::iter::once(&own).chain(paths) {
            let Ok(path) = std::path::absolute(path) else {
                continue;
            };
            let traced = trace(&path);
            for (directory, name) in traced.decided_by {
                let known = interest
                    .entry(directory)
                    .or_insert_with(|| Interest::Names(BTreeSet::new()));
                if let Interest::Names(names) = known {
                    names.insert(name);
                }
            }
            if let Some(end) = traced.end.filter(|end| end.is_dir()) {
                interest.insert(end, Interest::All);
            }
            if interest.len() >= MAX_WATCHED {
                self.warn(&path, "too many directories");
                break;
            }
        }
        interest
    }

    fn warn(&mut self, directory: &Path, reason: &str) {
        if !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(
                directory = %directory.display(),
                reason,
                rescan_seconds = self.rescan_every.as_secs(),
                "not everything can be watched: changes there are seen by rescans only \
                 (see the limits in /proc/sys/fs/inotify)"
            );
        }
    }
}

impl Identity {
    fn of(directory: &Path) -> Option<Self> {
        let metadata = fs::metadata(directory).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

#[cfg(test)]
mod tests;
