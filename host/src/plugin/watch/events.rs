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

#[cfg(test)]
mod tests {
    use notify::event::{DataChange, Flag, RemoveKind};

    use super::*;

    const WRITTEN: EventKind = EventKind::Modify(ModifyKind::Data(DataChange::Any));
    const CLOSED: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));

    fn watching(directories: &[&str]) -> Events {
        let interest = directories.iter().map(|path| (path.into(), Interest::All));
        Events {
            interest: interest.collect(),
            ..Events::default()
        }
    }

    fn happens(events: &mut Events, kind: EventKind, path: &str) {
        assert!(events.take_in(Ok(Event::new(kind).add_path(path.into()))));
    }

    fn moves(events: &mut Events, from: &str, to: &str) {
        for (mode, path) in [(RenameMode::From, from), (RenameMode::To, to)] {
            let kind = EventKind::Modify(ModifyKind::Name(mode));
            let event = Event::new(kind).add_path(path.into()).set_tracker(7);
            assert!(events.take_in(Ok(event)));
        }
    }

    fn open(events: &Events, paths: &[&str]) {
        let expected: BTreeSet<PathBuf> = paths.iter().map(PathBuf::from).collect();
        assert_eq!(events.open, expected);
    }

    #[test]
    fn a_file_is_open_from_its_first_write_until_it_is_closed() {
        let mut events = watching(&["/p"]);
        happens(&mut events, WRITTEN, "/p/say.so");
        happens(&mut events, WRITTEN, "/p/say.so");
        open(&events, &["/p/say.so"]);
        happens(&mut events, CLOSED, "/p/say.so");
        open(&events, &[]);
    }

    #[test]
    fn a_file_that_is_renamed_while_it_is_written_stays_open_under_its_new_name() {
        let mut events = watching(&["/p"]);
        happens(&mut events, WRITTEN, "/p/.say.so.tmp");
        moves(&mut events, "/p/.say.so.tmp", "/p/say.so");
        open(&events, &["/p/say.so"]);
        happens(&mut events, CLOSED, "/p/say.so");
        // One that was closed replaces one that was not.
        happens(&mut events, WRITTEN, "/p/say.so");
        moves(&mut events, "/p/whole.so", "/p/say.so");
        open(&events, &[]);
    }

    #[test]
    fn what_is_removed_or_no_longer_watched_is_not_open() {
        let mut events = watching(&["/p", "/p/say", "/p/shout"]);
        for path in ["/p/a.so", "/p/say/b.so", "/p/shout/c.so"] {
            happens(&mut events, WRITTEN, path);
        }
        happens(&mut events, EventKind::Remove(RemoveKind::Folder), "/p/say");
        open(&events, &["/p/a.so", "/p/shout/c.so"]);
        assert_eq!(events.lost, [PathBuf::from("/p/say")]);
        events.follow(watching(&["/p"]).interest);
        open(&events, &["/p/a.so"]);
    }

    #[test]
    fn in_somebody_else_s_directory_only_the_given_names_matter() {
        let names = Interest::Names(BTreeSet::from(["plugins".into()]));
        let mut events = Events {
            interest: BTreeMap::from([("/etc".into(), names)]),
            ..Events::default()
        };
        let neighbour = Event::new(WRITTEN).add_path("/etc/passwd".into());
        assert!(!events.take_in(Ok(neighbour)));
        open(&events, &[]);
        assert!(events.burst.is_none());
        happens(&mut events, WRITTEN, "/etc/plugins");
        assert!(events.burst.is_some());
    }

    #[test]
    fn lost_events_call_for_a_look_and_for_new_watches() {
        let mut events = watching(&["/p"]);
        let overflow = Event::new(EventKind::Other).set_flag(Flag::Rescan);
        assert!(events.take_in(Ok(overflow)));
        assert!(events.overflowed && events.burst.is_some());
    }

    #[test]
    fn no_more_than_so_many_files_are_open() {
        let mut events = watching(&["/p"]);
        for index in 0..=MAX_OPEN {
            happens(&mut events, WRITTEN, &format!("/p/{index}"));
        }
        assert_eq!(events.open.len(), MAX_OPEN);
    }
}
