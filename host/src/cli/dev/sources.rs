//! Watches the sources of a crate: everything in it and in the crates that it depends on by path,
//! but for what is built, and what is hidden.
//!
//! Events are hints: a change that means nothing costs a build that does nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use notify::event::{EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

/// Changes are over when there was none for this long: editors and version control write many
/// files.
const QUIET: Duration = Duration::from_millis(100);

/// Where they do not end, a build is due this long after the first.
const MAX_DELAY: Duration = Duration::from_secs(2);

/// Directories that are watched, at most.
const MAX_WATCHED: usize = 4_096;

/// Something to go on for.
enum Message {
    Changed(Vec<PathBuf>),
    Stop,
}

/// The sources of one crate.
pub(super) struct Sources {
    watcher: RecommendedWatcher,
    messages: mpsc::Receiver<Message>,
    /// What is built, which is never looked into.
    target: PathBuf,
    watched: BTreeSet<PathBuf>,
    warned: bool,
}

/// Ends the wait for changes.
#[derive(Clone)]
pub(super) struct Stop(mpsc::Sender<Message>);

impl Stop {
    pub(super) fn stop(&self) {
        // There may be nobody left to stop.
        let _ = self.0.send(Message::Stop);
    }
}

impl Sources {
    /// Watches these directories.
    ///
    /// # Errors
    /// The system gives no file events.
    pub(super) fn watch(roots: &[PathBuf], target: &Path) -> notify::Result<(Self, Stop)> {
        let (sender, messages) = mpsc::channel();
        let stop = Stop(sender.clone());
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if let Ok(event) = event
                && is_a_change(event.kind)
            {
                let _ = sender.send(Message::Changed(event.paths));
            }
        })?;
        let mut sources = Self {
            watcher,
            messages,
            target: target.to_owned(),
            watched: BTreeSet::new(),
            warned: false,
        };
        for root in roots {
            sources.follow(root);
        }
        Ok((sources, stop))
    }

    /// Waits for a change, and until it is over. False when it is time to stop.
    pub(super) fn changed(&mut self) -> bool {
        let mut first = None;
        loop {
            let message = match first {
                None => self
                    .messages
                    .recv()
                    .map_err(|_| mpsc::RecvTimeoutError::Disconnected),
                Some(first) => {
                    let end: Instant = first + MAX_DELAY;
                    let left = end.saturating_duration_since(Instant::now());
                    self.messages.recv_timeout(QUIET.min(left))
                }
            };
            match message {
                Ok(Message::Changed(paths)) => {
                    if self.take_in(paths) {
                        first = first.or_else(|| Some(Instant::now()));
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => return true,
                Ok(Message::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    /// Whether any of these is a source; new directories are followed.
    fn take_in(&mut self, paths: Vec<PathBuf>) -> bool {
        let mut any = false;
        for path in paths {
            if self.is_source(&path) {
                any = true;
                self.follow(&path);
            }
        }
        any
    }

    fn is_source(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default();
        let hidden = name.as_encoded_bytes().starts_with(b".");
        !hidden && !path.starts_with(&self.target)
    }

    /// Watches a directory with all below it; a file is none.
    fn follow(&mut self, path: &Path) {
        let mut found = vec![path.to_owned()];
        while let Some(directory) = found.pop() {
            let is_directory = fs::symlink_metadata(&directory).is_ok_and(|found| found.is_dir());
            if !is_directory || !self.is_source(&directory) {
                continue;
            }
            if self.watched.len() >= MAX_WATCHED {
                self.warn(&format!("there are more than {MAX_WATCHED} directories"));
                return;
            }
            // One that has been replaced is watched anew.
            if let Err(error) = self.watcher.watch(&directory, RecursiveMode::NonRecursive) {
                self.warn(&error.to_string());
                return;
            }
            let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
            found.extend(entries.map(|entry| entry.path()));
            self.watched.insert(directory);
        }
    }

    fn warn(&mut self, reason: &str) {
        if !self.warned {
            tracing::warn!("not all sources are watched: {reason}");
        }
        self.warned = true;
    }
}

/// Reading a file is none.
fn is_a_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Create(_) | EventKind::Remove(_) | EventKind::Any => true,
        EventKind::Modify(kind) => !matches!(kind, ModifyKind::Metadata(_)),
        EventKind::Access(_) | EventKind::Other => false,
    }
}
