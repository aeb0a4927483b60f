//! One scan while it lasts: its clock, who writes, and what it has come to so far.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{SETTLE, Scan, Seen, fingerprint::Fingerprint, look::Look};
use crate::plugin::signature::Trust;

/// One scan while it lasts.
pub(super) struct Pass<'a> {
    pub(super) scan: Scan,
    pub(super) being_written: &'a dyn Fn(&Path) -> bool,
    /// Whose signatures count.
    pub(super) trust: &'a Arc<Trust>,
    pub(super) now: Instant,
    pub(super) is_first: bool,
}

impl Pass<'_> {
    pub(super) fn since(&self, then: Instant) -> Duration {
        self.now.saturating_duration_since(then)
    }

    /// The file system knows when the files last changed, also before anybody looked. Its clock may
    /// be another machine's: believed at the first scan, which must not wait, and for as much as
    /// settling takes.
    pub(super) fn stands_still_since(&self, fingerprint: &Fingerprint) -> Instant {
        let age = fingerprint.age(SystemTime::now());
        let believed = if self.is_first { age } else { age.min(SETTLE) };
        self.now.checked_sub(believed).unwrap_or(self.now)
    }

    pub(super) fn is_open(&self, fingerprint: &Fingerprint) -> bool {
        fingerprint.files().any(|file| {
            file.canonicalize()
                .is_ok_and(|real| (self.being_written)(&real))
        })
    }

    pub(super) fn wait(&mut self, place: PathBuf, delay: Duration) {
        self.scan.unsettled.push(place);
        self.look_again(delay);
    }

    pub(super) fn look_again(&mut self, delay: Duration) {
        let soonest = self.scan.look_again.map_or(delay, |known| known.min(delay));
        self.scan.look_again = Some(soonest);
    }

    pub(super) fn follow(&mut self, path: &Path, look: &Look) {
        self.scan.follow.push(path.to_owned());
        let ends = look.fingerprint.loose_ends();
        let elsewhere = look.elsewhere.iter().map(PathBuf::as_path);
        let outside = |file: &&Path| *file != path && file.parent() != Some(path);
        self.scan
            .follow
            .extend(ends.chain(elsewhere.filter(outside)).map(Path::to_owned));
    }

    pub(super) fn finish(mut self) -> Scan {
        let key = |seen: &Seen| match seen {
            Seen::Unchanged(place) => (place.name.clone(), place.version.clone()),
            Seen::Changed(candidate) => (
                candidate.metadata.name.clone(),
                candidate.metadata.version.clone(),
            ),
        };
        self.scan.plugins.sort_by_cached_key(key);
        self.scan.problems.sort_by(|a, b| a.path.cmp(&b.path));
        for paths in [
            &mut self.scan.unsettled,
            &mut self.scan.unfit,
            &mut self.scan.follow,
        ] {
            paths.sort();
            paths.dedup();
        }
        self.scan
    }
}
