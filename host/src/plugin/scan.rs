//! Remembers what the plugin directory held, and concludes only from what is settled.
//!
//! A file that is still being copied looks like a broken one, and `plugin.json` and library cannot
//! be replaced in the same instant. So nothing is read before its files have stood still, and what
//! looks like half of something is waited for; only then it is a [`Problem`], told once. Files that
//! look the same from outside are not read again.
//!
//! What bytes are worth is `discovery`'s judgement. Nothing here waits, watches or loads.

mod fingerprint;
mod look;
mod pass;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use semver::Version;

use super::{
    discovery::{
        Candidate, Cause, Files, MAX_ENTRIES, Problem, Spot, SpotKind, claim, is_spoken_for, spots,
    },
    metadata::{Digest, FILE_NAME, LibraryPath, PluginName},
    signature::{Signature, Trust},
};
use look::{Contents, Fit, Look, Outcome, Verdict};
use pass::Pass;

/// Files that have stood still for this long are settled, unless somebody is known to write them.
/// Not longer than the quiet that follows events, so that a file that was closed or renamed into
/// place is taken at the first look after it.
pub const SETTLE: Duration = Duration::from_millis(100);

/// What looks like half of something is waited for this long after its bytes last changed.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A file that was written to and, as far as is known, not closed is believed to be still open for
/// this long after its bytes last changed: that it was closed may have been missed.
pub const WRITER_PATIENCE: Duration = Duration::from_secs(30);

/// How soon to look again at something that is waited for: its end may come without an event.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Looks at one plugin directory, again and again.
#[derive(Debug)]
pub struct Scanner {
    directory: PathBuf,
    looks: BTreeMap<PathBuf, Look>,
    /// What was handed out last, by place; also of places that have gone, until they are forgotten.
    handed_out: BTreeMap<PathBuf, HandedOut>,
    /// Why the directory as a whole cannot be looked at.
    trouble: Option<Trouble>,
    is_first: bool,
    trust: Arc<Trust>,
}

/// Something that was wrong at the last scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The file or directory that it is about.
    pub path: PathBuf,
    /// What was told of it.
    pub problem: String,
    /// What is known of who vouches for it, where that is what is wrong.
    pub signature: Option<Signature>,
}

/// What a look at the directory gave.
#[derive(Debug, Default)]
pub struct Scan {
    /// Every plugin that is settled and fit to be loaded, by name and then by version.
    pub plugins: Vec<Seen>,
    /// Settled problems that are new since the last look: each is told once per state of the bytes.
    pub problems: Vec<Problem>,
    /// Places whose files still change, or do not fit each other yet: nothing is concluded, and
    /// whatever serves from there goes on.
    pub unsettled: Vec<PathBuf>,
    /// Places that hold something unfit; the problem is told in this scan or was in an earlier one.
    /// Whatever serves from there goes on.
    pub unfit: Vec<PathBuf>,
    /// The plugin directory is not there.
    pub directory_missing: bool,
    /// When to look again, at the latest, for the sake of what is unsettled.
    pub look_again: Option<Duration>,
    /// What to follow, for [`Watch::follow`](super::watch::Watch::follow): plugins' directories,
    /// and links and files that lie elsewhere.
    pub follow: Vec<PathBuf>,
    /// How many places had files that were read.
    pub read: usize,
}

/// A plugin that is settled and fit to be loaded.
#[derive(Debug)]
pub enum Seen {
    /// What was handed out for its place still is what is there.
    Unchanged(Place),
    /// Its bytes (library or `plugin.json`) are not those that were last handed out for its place.
    Changed(Box<Candidate>),
}

/// A plugin, by where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its directory, or its library where that lies bare in the plugin directory.
    pub path: PathBuf,
    /// Its name.
    pub name: PluginName,
    /// Its version.
    pub version: Version,
    /// Digest of its library.
    pub digest: Digest,
}

/// A fit plugin and the spot where it is.
struct Found {
    spot: Spot,
    fit: Fit,
    candidate: Option<Box<Candidate>>,
}

#[derive(Debug)]
struct HandedOut {
    contents: Contents,
    /// Since when its `plugin.json` is missing.
    without_metadata: Option<Instant>,
}

#[derive(Debug)]
struct Trouble {
    what: String,
    since: Instant,
    told: bool,
}

impl Candidate {
    /// Where it lies and what it is, without its bytes.
    #[must_use]
    pub fn to_place(&self) -> Place {
        Place {
            path: self.place.clone(),
            name: self.metadata.name.clone(),
            version: self.metadata.version.clone(),
            digest: self.digest,
        }
    }
}

impl Scanner {
    /// A scanner of a plugin directory that has seen nothing yet.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            looks: BTreeMap::new(),
            handed_out: BTreeMap::new(),
            trouble: None,
            is_first: true,
            trust: Arc::default(),
        }
    }

    /// The same, where the operator has something to say about who vouches for plugins.
    #[must_use]
    pub fn trusting(mut self, trust: &Arc<Trust>) -> Self {
        self.trust = Arc::clone(trust);
        self
    }

    /// Looks at everything. `being_written` tells of a file, by its real path, whether somebody is
    /// known to have written to it and not yet closed it.
    ///
    /// Blocks while it reads what has changed.
    pub fn scan(&mut self, being_written: impl Fn(&Path) -> bool, now: Instant) -> Scan {
        let trust = Arc::clone(&self.trust);
        let mut pass = Pass {
            scan: Scan::default(),
            trust: &trust,
            being_written: &being_written,
            now,
            is_first: std::mem::take(&mut self.is_first),
        };
        match spots(&self.directory) {
            Ok(spots) => {
                self.trouble = None;
                self.look_at(spots, &mut pass);
            }
            Err(cause) => self.report_trouble(cause, &mut pass),
        }
        pass.finish()
    }

    /// Takes what an earlier process handed out for a place as handed out: only other bytes are
    /// handed out there.
    pub fn has_handed_out(&mut self, place: &Path, files: &Files) {
        let handed_out = HandedOut {
            contents: Contents::handed_out(files),
            without_metadata: None,
        };
        self.handed_out.insert(place.to_owned(), handed_out);
    }

    /// Hands out again what a place holds, at the next scan, and tells its problems again.
    pub fn forget(&mut self, place: &Path) {
        self.handed_out.remove(place);
        for (path, look) in &mut self.looks {
            // Or the `plugin.json` that may speak for it.
            if path == place || path.ends_with(FILE_NAME) {
                look.tell_again();
            }
        }
    }

    /// What was wrong at the last scan: what was told, and is still so.
    #[must_use]
    pub fn standing_problems(&self) -> Vec<Standing> {
        let trouble = self.trouble.iter().filter(|trouble| trouble.told);
        trouble
            .map(|trouble| Standing {
                path: self.directory.clone(),
                problem: format!("{}: {}", self.directory.display(), trouble.what),
                signature: None,
            })
            .chain(self.looks.values().flat_map(Look::standing))
            .collect()
    }

    /// Tells at the next scan everything again that is unfit.
    pub fn tell_again(&mut self) {
        for look in self.looks.values_mut() {
            if matches!(look.verdict, Verdict::Unfit) || !look.told_twins.is_empty() {
                look.tell_again();
            }
        }
        if let Some(trouble) = &mut self.trouble {
            trouble.told = false;
        }
    }

    fn look_at(&mut self, spots: Vec<Spot>, pass: &mut Pass<'_>) {
        let mut before = std::mem::take(&mut self.looks);
        let mut beside = Beside::default();
        let mut found = Vec::new();
        for spot in spots {
            let mut look = before
                .remove(&spot.path)
                .unwrap_or_else(|| Look::first(&spot, pass));
            let is_spoken_for = is_spoken_for(&spot, &self.directory, beside.library.as_ref());
            let is_bare = matches!(spot.kind, SpotKind::Library);
            if is_spoken_for || is_bare && beside.holds_all {
                if beside.waits {
                    pass.scan.unsettled.push(spot.path.clone());
                } else if !beside.is_fit {
                    pass.scan.unfit.push(spot.path.clone());
                }
                // Kept, and its age with it, for when it speaks for itself again.
                self.looks.insert(spot.path, look);
                continue;
            }
            let outcome = look.at(&self.directory, &spot, pass);
            if matches!(spot.kind, SpotKind::Metadata) {
                beside = Beside::after(&outcome, &look);
            }
            let key = spot.path.clone();
            match outcome {
                Outcome::Fit(fit, candidate) => {
                    let is_unreadable = is_bare && beside.speaks_for_nobody();
                    if !self.waits_for_metadata(&fit, is_unreadable, pass) {
                        found.push(Found {
                            spot,
                            fit,
                            candidate,
                        });
                    }
                }
                Outcome::Wait(delay) => pass.wait(look.place(&self.directory, &spot), delay),
                Outcome::Unfit(problems) => {
                    let place = look.place(&self.directory, &spot);
                    pass.scan.unfit.push(place);
                    pass.scan.problems.extend(problems);
                }
            }
            self.looks.insert(key, look);
        }
        let found = self.without_twins(found, pass);
        for found in found {
            self.hand_out(found, pass);
        }
        for (path, look) in &self.looks {
            pass.follow(path, look);
        }
        self.forget_surplus();
    }

    /// A plugin whose `plugin.json` has just gone, or can no longer be read, is not one that never
    /// had any: its limits and its failure policy would be lost.
    fn waits_for_metadata(&mut self, fit: &Fit, is_unreadable: bool, pass: &mut Pass<'_>) -> bool {
        let Some(before) = self.handed_out.get_mut(&fit.place.path) else {
            return false;
        };
        if !before.contents.with_metadata || fit.contents.with_metadata {
            before.without_metadata = None;
            return false;
        }
        if is_unreadable {
            pass.scan.unfit.push(fit.place.path.clone());
            return true;
        }
        let since = *before.without_metadata.get_or_insert(pass.now);
        let left = PATIENCE.saturating_sub(pass.since(since));
        if left > Duration::ZERO {
            pass.wait(fit.place.path.clone(), left.min(LOOK_AGAIN));
        }
        left > Duration::ZERO
    }

    /// Of two with one name and equal precedence neither is handed out. That may be a moment of
    /// somebody's moving things, so it is waited for too.
    fn without_twins(&mut self, found: Vec<Found>, pass: &mut Pass<'_>) -> Vec<Found> {
        let mut claims: BTreeMap<_, Vec<Found>> = BTreeMap::new();
        for found in found {
            let place = &found.fit.place;
            claims
                .entry(claim(&place.name, &place.version))
                .or_default()
                .push(found);
        }
        let mut alone = Vec::new();
        for mut found in claims.into_values() {
            if found.len() == 1 {
                let single = found.remove(0);
                self.look_of(&single.spot).told_twins.clear();
                alone.push(single);
                continue;
            }
            let youngest = found
                .iter()
                .map(|found| self.looks[&found.spot.path].since)
                .max();
            let still = pass.since(youngest.unwrap_or(pass.now));
            let left = PATIENCE.saturating_sub(still);
            let paths: Vec<_> = found
                .iter()
                .map(|found| found.fit.library_path.clone())
                .collect();
            for Found { spot, fit, .. } in found {
                if left > Duration::ZERO {
                    pass.wait(fit.place.path, left.min(LOOK_AGAIN));
                    continue;
                }
                let mut others = paths.clone();
                others.retain(|path| *path != fit.library_path);
                pass.scan.unfit.push(fit.place.path);
                let look = self.look_of(&spot);
                if look.told_twins == others {
                    continue;
                }
                look.told_twins.clone_from(&others);
                pass.scan.problems.push(Problem {
                    path: fit.library_path,
                    plugin: Some(fit.place.name),
                    version: Some(fit.place.version),
                    cause: Cause::Twins { others },
                });
            }
        }
        alone
    }

    fn hand_out(&mut self, found: Found, pass: &mut Pass<'_>) {
        let Found {
            spot,
            fit,
            candidate,
        } = found;
        let path = fit.place.path.clone();
        let before = self.handed_out.get(&path);
        if before.is_some_and(|before| before.contents == fit.contents) {
            pass.scan.plugins.push(Seen::Unchanged(fit.place));
            return;
        }
        // Judged earlier, without keeping its bytes: it was not to be handed out then.
        let (fit, candidate) = match candidate {
            Some(candidate) => (fit, candidate),
            None => {
                let directory = self.directory.clone();
                let look = self.look_of(&spot);
                look.verdict = Verdict::Unread;
                match look.at(&directory, &spot, pass) {
                    Outcome::Fit(fit, Some(candidate)) => (fit, candidate),
                    _ => return pass.wait(path, SETTLE),
                }
            }
        };
        let handed_out = HandedOut {
            contents: fit.contents,
            without_metadata: None,
        };
        self.handed_out.insert(path, handed_out);
        pass.scan.plugins.push(Seen::Changed(candidate));
    }

    fn look_of(&mut self, spot: &Spot) -> &mut Look {
        self.looks
            .get_mut(&spot.path)
            .expect("a spot that was found was looked at")
    }

    fn report_trouble(&mut self, cause: Cause, pass: &mut Pass<'_>) {
        pass.scan.directory_missing = matches!(cause, Cause::NoDirectory);
        let may_pass = cause.may_pass() && !pass.is_first;
        let what = cause.to_string();
        if pass.scan.directory_missing {
            self.looks.clear();
        } else {
            // It cannot be seen, which does not mean that it is gone.
            pass.scan.unfit.extend(self.handed_out.keys().cloned());
        }
        if self.trouble.as_ref().is_none_or(|known| known.what != what) {
            self.trouble = Some(Trouble {
                what,
                since: pass.now,
                told: false,
            });
        }
        let Some(trouble) = self.trouble.as_mut().filter(|trouble| !trouble.told) else {
            return;
        };
        let left = PATIENCE.saturating_sub(pass.since(trouble.since));
        if may_pass && left > Duration::ZERO {
            pass.look_again(left);
            return;
        }
        trouble.told = true;
        pass.scan.problems.push(Problem {
            path: self.directory.clone(),
            plugin: None,
            version: None,
            cause,
        });
    }

    /// Places that have gone and that nobody asked to forget: remembered, within bounds.
    fn forget_surplus(&mut self) {
        if self.handed_out.len() > 2 * MAX_ENTRIES {
            let looks = &self.looks;
            self.handed_out.retain(|place, _| looks.contains_key(place));
        }
    }
}

/// What the `plugin.json` beside bare libraries means for them.
#[derive(Default)]
struct Beside {
    is_there: bool,
    is_fit: bool,
    /// It is not known yet what it says.
    waits: bool,
    /// Nor which library it speaks for.
    holds_all: bool,
    library: Option<LibraryPath>,
}

impl Beside {
    /// It is there, and does not even tell whose it is.
    fn speaks_for_nobody(&self) -> bool {
        self.is_there && self.library.is_none()
    }

    fn after(outcome: &Outcome, look: &Look) -> Self {
        let waits = matches!(outcome, Outcome::Wait(_));
        let unread = matches!(look.verdict, Verdict::Unread);
        Self {
            is_there: true,
            is_fit: matches!(outcome, Outcome::Fit(..)),
            waits,
            holds_all: waits && (unread || look.spoken_for.is_none()),
            library: look.spoken_for.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
