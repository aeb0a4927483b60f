//! What events say: whether they matter, which files are being written, and which watches they
//! ended. Takes events as `notify` gives them; the only file attribute that it asks for is whether
//! a new file is a link.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use notify::{
    Event, EventKind,
    event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode},
};
use tokio::time::Instant;

/// Files that are believed to be open for writing, at most; those beyond it are settled by standing
/// still, like files whose events nobody sees.
const MAX_OPEN: usize = 1_024;

/// Which names matter in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Interest {
    /// All of them.
    All,
    /// These: it is somebody else's directory.
    Names(BTreeSet<OsString>),
}

/// What events have said so far.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// Watched directories, by their real paths.
    pub(super) interest: BTreeMap<PathBuf, Interest>,
    /// The first and the last event that mattered since somebody took them.
    pub(super) burst: Option<Burst>,
    /// Directories that were moved or removed: watches on them or below them are no more.
    pub(super) lost: Vec<PathBuf>,
    /// Events were lost: no watch can be relied on.
    pub(super) overflowed: bool,
    /// Files that were written to and not yet closed.
    open: BTreeSet<PathBuf>,
    /// Such a file that has just left its place, and the tracker of its rename.
    moving: Option<usize>,
}

/// Events that follow each other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Burst {
    pub(super) first: Instant,
    pub(super) last: Instant,
}

impl Events {
    /// Takes an event in; true where it matters.
    pub(super) fn take_in(&mut self, event: notify::Result<Event>) -> bool {
        let matters = match event {
            Ok(event) if !event.need_rescan() => self.take_in_event(&event),
            Ok(_) => {
                self.overflowed = true;
                true
            }
            Err(error) => {
                tracing::debug!(%error, "file events were lost");
                self.overflowed = true;
                true
            }
        };
        if matters {
            let now = Instant::now();
            let first = self.burst.map_or(now, |burst| burst.first);
            self.burst = Some(Burst { first, last: now });
        }
        matters
    }

    /// Whether a file, by its real path, was written to and not yet closed.
    pub(super) fn is_open(&self, path: &Path) -> bool {
        self.open.contains(path)
    }

    /// Watches other directories from now on; nothing more will be heard of files elsewhere.
    pub(super) fn follow(&mut self, interest: BTreeMap<PathBuf, Interest>) {
        self.interest = interest;
        let interest = &self.interest;
        self.open.retain(|file| {
            file.parent()
                .is_some_and(|parent| interest.contains_key(parent))
        });
    }

    fn take_in_event(&mut self, event: &Event) -> bool {
        let Some(path) = event.paths.first() else {
            return false;
        };
        if !self.concerns(path) {
            return false;
        }
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                self.open.remove(path);
            }
            // Reading, ours too.
            EventKind::Access(_) => return false,
            EventKind::Create(kind) if kind != CreateKind::Folder && is_new_file(path) => {
                self.opened(path);
            }
            EventKind::Modify(ModifyKind::Data(_)) => self.opened(path),
            EventKind::Modify(ModifyKind::Name(RenameMode::From)) => {
                self.moving = self.open.remove(path).then(|| event.tracker()).flatten();
                self.gone(path);
            }
            // A file may be renamed into place by somebody who still writes to it.
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
                self.open.remove(path);
                if event.tracker().is_some() && self.moving.take() == event.tracker() {
                    self.opened(path);
                }
            }
            EventKind::Remove(_) => self.gone(path),
            _ => {}
        }
        true
    }

    fn concerns(&self, path: &Path) -> bool {
        if self.interest.contains_key(path) {
            return true;
        }
        let directory = path.parent().and_then(|parent| self.interest.get(parent));
        match directory {
            Some(Interest::All) => true,
            Some(Interest::Names(names)) => {
                path.file_name().is_some_and(|name| names.contains(name))
            }
            None => false,
        }
    }

    fn opened(&mut self, path: &Path) {
        if self.open.len() < MAX_OPEN {
            self.open.insert(path.to_owned());
        }
    }

    fn gone(&mut self, path: &Path) {
        self.open.retain(|file| !file.starts_with(path));
        if self
            .interest
            .keys()
            .any(|directory| directory.starts_with(path))
        {
            self.lost.push(path.to_owned());
        }
    }
}

/// Whether what was created is a file that its creator is going to close: not a link, neither
/// symbolic nor hard.
fn is_new_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.nlink() == 1)
}
