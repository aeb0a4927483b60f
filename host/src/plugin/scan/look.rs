//! One spot of the plugin directory over time: what it looks like, since when, and what it is worth.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    LOOK_AGAIN, PATIENCE, Place, SETTLE, Standing, WRITER_PATIENCE, fingerprint::Fingerprint,
    pass::Pass,
};
use crate::plugin::{
    discovery::{Candidate, Cause, Discovery, Files, Problem, Spot},
    metadata::{Digest, FILE_NAME, LibraryPath},
    package::is_package,
};

/// What one spot looked like.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) fingerprint: Fingerprint,
    /// Since when it looks like this.
    pub(super) since: Instant,
    /// Files that the plugin is made of and that do not lie where they usually do.
    pub(super) elsewhere: Vec<PathBuf>,
    /// The library that a `plugin.json` beside bare libraries speaks for.
    pub(super) spoken_for: Option<LibraryPath>,
    pub(super) verdict: Verdict,
    /// What was read while somebody seemed to be writing, and when.
    doubtful: Option<(Instant, Contents)>,
    /// The problems that were told last.
    told: Option<(Contents, Vec<Standing>)>,
    /// The twins that were told last.
    pub(super) told_twins: Vec<PathBuf>,
}

/// What the files are worth, as long as they look the same.
#[derive(Debug)]
pub(super) enum Verdict {
    Unread,
    Fit(Fit),
    /// It may be half of something.
    Waiting(Contents, Vec<Problem>),
    Unfit,
}

/// A plugin that is fit to be loaded, without its bytes.
#[derive(Debug, Clone)]
pub(super) struct Fit {
    pub(super) place: Place,
    pub(super) library_path: PathBuf,
    pub(super) contents: Contents,
}

/// The digests of everything that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) with_metadata: bool,
    digests: Vec<Digest>,
}

/// What one look at a spot came to.
pub(super) enum Outcome {
    Fit(Fit, Option<Box<Candidate>>),
    /// Not yet; look again after this time.
    Wait(Duration),
    Unfit(Vec<Problem>),
}

impl Look {
    pub(super) fn first(spot: &Spot, pass: &Pass<'_>) -> Self {
        let fingerprint = Fingerprint::take(spot, &[]);
        Self {
            since: pass.stands_still_since(&fingerprint),
            fingerprint,
            elsewhere: Vec::new(),
            spoken_for: None,
            verdict: Verdict::Unread,
            doubtful: None,
            told: None,
            told_twins: Vec::new(),
        }
    }

    pub(super) fn at(&mut self, directory: &Path, spot: &Spot, pass: &mut Pass<'_>) -> Outcome {
        let fingerprint = Fingerprint::take(spot, &self.elsewhere);
        self.compare(fingerprint, pass);
        // The second time, if its library proves to lie elsewhere.
        for _ in 0..2 {
            match &self.verdict {
                Verdict::Fit(fit) => return Outcome::Fit(fit.clone(), None),
                Verdict::Unfit => return Outcome::Unfit(Vec::new()),
                Verdict::Waiting(..) => return self.wait_or_tell(pass),
                Verdict::Unread => {}
            }
            let still = pass.since(self.since);
            let is_open = pass.is_open(&self.fingerprint);
            if is_open && still < WRITER_PATIENCE {
                return Outcome::Wait(LOOK_AGAIN);
            }
            if still < SETTLE {
                return Outcome::Wait(SETTLE - still);
            }
            if let Some(outcome) = self.examine(directory, spot, is_open, pass) {
                return outcome;
            }
        }
        Outcome::Wait(SETTLE)
    }

    /// Reads and judges; nothing comes of it where the files changed meanwhile.
    fn examine(
        &mut self,
        directory: &Path,
        spot: &Spot,
        is_doubtful: bool,
        pass: &mut Pass<'_>,
    ) -> Option<Outcome> {
        let mut discovery = Discovery::trusting(pass.trust);
        self.spoken_for = discovery.examine(directory, spot);
        pass.scan.read += usize::from(!discovery.read.is_empty());
        let contents = Contents::of(&discovery);
        self.elsewhere = touched(&discovery);
        let fingerprint = Fingerprint::take(spot, &self.elsewhere);
        if self.compare(fingerprint, pass) {
            return None;
        }
        if is_doubtful && !self.read_twice(&contents, pass.now) {
            return Some(Outcome::Wait(SETTLE));
        }
        if discovery.waits_for_a_signature() && pass.since(self.since) < PATIENCE {
            return Some(Outcome::Wait(LOOK_AGAIN));
        }
        Some(match discovery.found.pop() {
            Some(candidate) => {
                let fit = Fit {
                    place: candidate.to_place(),
                    library_path: candidate.library_path.clone(),
                    contents,
                };
                self.verdict = Verdict::Fit(fit.clone());
                self.told = None;
                Outcome::Fit(fit, Some(Box::new(candidate)))
            }
            None => {
                self.verdict = Verdict::Waiting(contents, discovery.problems);
                self.wait_or_tell(pass)
            }
        })
    }

    /// Whether the fingerprint is another one than before; then everything begins anew.
    fn compare(&mut self, fingerprint: Fingerprint, pass: &Pass<'_>) -> bool {
        if fingerprint == self.fingerprint {
            return false;
        }
        self.since = pass.stands_still_since(&fingerprint);
        self.fingerprint = fingerprint;
        self.verdict = Verdict::Unread;
        self.doubtful = None;
        true
    }

    /// Whether the same was read some time ago: enough where a writer is known but never seems to
    /// end.
    fn read_twice(&mut self, contents: &Contents, now: Instant) -> bool {
        match &self.doubtful {
            Some((at, before)) if before == contents => {
                now.saturating_duration_since(*at) >= SETTLE
            }
            _ => {
                self.doubtful = Some((now, contents.clone()));
                false
            }
        }
    }

    fn wait_or_tell(&mut self, pass: &Pass<'_>) -> Outcome {
        let Verdict::Waiting(contents, problems) = &mut self.verdict else {
            return Outcome::Unfit(Vec::new());
        };
        let left = PATIENCE.saturating_sub(pass.since(self.since));
        let may_pass = problems.iter().any(|problem| problem.cause.may_pass());
        if may_pass && left > Duration::ZERO {
            return Outcome::Wait(left.min(LOOK_AGAIN));
        }
        let words: Vec<_> = problems.iter().map(told).collect();
        let state = Some((contents.clone(), words));
        let problems = std::mem::take(problems);
        self.verdict = Verdict::Unfit;
        if self.told == state {
            return Outcome::Unfit(Vec::new());
        }
        self.told = state;
        Outcome::Unfit(problems)
    }

    /// What is wrong with what lies there now, as it was told.
    pub(super) fn standing(&self) -> Vec<Standing> {
        match (&self.verdict, &self.told) {
            (Verdict::Unfit, Some((_, told))) => told.clone(),
            (Verdict::Fit(fit), _) if !self.told_twins.is_empty() => {
                let twins = Problem {
                    path: fit.library_path.clone(),
                    plugin: Some(fit.place.name.clone()),
                    version: Some(fit.place.version.clone()),
                    cause: Cause::Twins {
                        others: self.told_twins.clone(),
                    },
                };
                vec![told(&twins)]
            }
            _ => Vec::new(),
        }
    }

    pub(super) fn tell_again(&mut self) {
        self.told = None;
        self.told_twins.clear();
        self.doubtful = None;
        self.verdict = Verdict::Unread;
    }

    /// What the spot is called outside.
    pub(super) fn place(&self, directory: &Path, spot: &Spot) -> PathBuf {
        match &self.spoken_for {
            Some(library) => directory.join(library.as_path()),
            None => spot.path.clone(),
        }
    }
}

impl Contents {
    /// Of a plugin that was handed out by another process.
    pub(super) fn handed_out(files: &Files) -> Self {
        let digests = files.document.iter().chain([&files.library]);
        let digests = digests.chain(&files.signature).copied();
        Self::new(files.document.is_some(), digests)
    }

    fn of(discovery: &Discovery) -> Self {
        let read = &discovery.read;
        let has_metadata = |path: &Path| path.ends_with(FILE_NAME) || is_package_at(path);
        Self::new(
            read.iter().any(|(path, _)| has_metadata(path)),
            read.iter().map(|(_, digest)| *digest),
        )
    }

    fn new(with_metadata: bool, digests: impl Iterator<Item = Digest>) -> Self {
        let mut digests: Vec<_> = digests.collect();
        digests.sort();
        Self {
            with_metadata,
            digests,
        }
    }
}

/// A problem as it was told.
fn told(problem: &Problem) -> Standing {
    Standing {
        path: problem.path.clone(),
        problem: problem.to_string(),
        signature: problem.cause.signature().cloned(),
    }
}

fn is_package_at(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| is_package(&name.to_string_lossy()))
}

/// Everything that a plugin's judgement depended on.
fn touched(discovery: &Discovery) -> Vec<PathBuf> {
    let read = discovery.read.iter().map(|(path, _)| path);
    let found = discovery.found.iter().map(|found| &found.library_path);
    let problems = discovery.problems.iter().map(|problem| &problem.path);
    let mut paths: Vec<_> = read.chain(found).chain(problems).cloned().collect();
    paths.sort();
    paths.dedup();
    paths
}
