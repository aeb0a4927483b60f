//! Counts the deaths of workers by whose doing they were, and says when a plugin has to stay out.
//!
//! What counts is exactly one build of a plugin: its name, version and digest. A new file is another
//! one, with a clean record. Only deaths come here. Nothing here acts on what it finds.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{autopsy::KnownGeneration, report::now};

/// Builds of plugins that are counted at a time; the one whose last death lies furthest back makes
/// room.
pub const MAX_CULPRITS: usize = 256;

/// Builds in quarantine at a time; beyond, the one that has been there longest is let go.
pub(super) const MAX_QUARANTINED: usize = 1_024;

/// One build of one plugin.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Culprit {
    /// The plugin's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The SHA-256 of its library, in hexadecimal digits.
    pub digest: String,
}

impl From<&KnownGeneration> for Culprit {
    fn from(generation: &KnownGeneration) -> Self {
        Self {
            name: generation.name.clone(),
            version: generation.version.clone(),
            digest: generation.digest.clone(),
        }
    }
}

/// A build that must not be loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Quarantined {
    /// Which.
    #[serde(flatten)]
    pub culprit: Culprit,
    /// Since when, in UTC.
    pub since: String,
    /// How many deaths brought it here; none where an operator did.
    pub crashes: usize,
    /// The operator who did.
    #[serde(default)]
    pub by: Option<String>,
}

/// What a death meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// It is one of so many within the window.
    Crashes(usize),
    /// It is in quarantine from now on.
    Quarantined,
    /// It was already: it had not been taken out of service yet.
    Already,
}

/// Deaths within a window, and who is in quarantine. Held by the supervisor, so that it outlives
/// workers.
#[derive(Debug)]
pub struct Quarantine {
    crashes: usize,
    window: Duration,
    deaths: BTreeMap<Culprit, VecDeque<Instant>>,
    quarantined: Vec<Quarantined>,
}

impl Quarantine {
    /// Nobody is in quarantine yet; so many deaths within a window bring a build there.
    pub fn new(crashes: usize, window: Duration) -> Self {
        Self {
            crashes: crashes.max(1),
            window,
            deaths: BTreeMap::new(),
            quarantined: Vec::new(),
        }
    }

    /// Takes over what the release before had in quarantine.
    pub fn inherit(&mut self, quarantined: Vec<Quarantined>) {
        self.quarantined = quarantined;
    }

    /// Counts a death that is blamed on a build.
    pub fn count(&mut self, culprit: &Culprit, at: Instant) -> Counted {
        if self.holds(culprit) {
            return Counted::Already;
        }
        self.make_room(culprit);
        let deaths = self.deaths.entry(culprit.clone()).or_default();
        deaths.push_back(at);
        let window = self.window;
        deaths.retain(|death| at.saturating_duration_since(*death) <= window);
        let crashes = deaths.len();
        if crashes < self.crashes {
            return Counted::Crashes(crashes);
        }
        self.hold(culprit.clone(), crashes, None);
        Counted::Quarantined
    }

    /// Puts a build there because an operator says so.
    pub fn put(&mut self, culprit: Culprit, by: String) {
        if !self.holds(&culprit) {
            self.hold(culprit, 0, Some(by));
        }
    }

    fn hold(&mut self, culprit: Culprit, crashes: usize, by: Option<String>) {
        self.deaths.remove(&culprit);
        if self.quarantined.len() >= MAX_QUARANTINED {
            self.quarantined.remove(0);
        }
        self.quarantined.push(Quarantined {
            culprit,
            since: now(),
            crashes,
            by,
        });
    }

    fn make_room(&mut self, coming: &Culprit) {
        if self.deaths.len() < MAX_CULPRITS || self.deaths.contains_key(coming) {
            return;
        }
        let oldest = self.deaths.iter().min_by_key(|(_, deaths)| deaths.back());
        if let Some(oldest) = oldest.map(|(culprit, _)| culprit.clone()) {
            self.deaths.remove(&oldest);
        }
    }

    /// Whether a build must not be loaded.
    pub fn holds(&self, culprit: &Culprit) -> bool {
        let mut held = self.quarantined.iter();
        held.any(|quarantined| quarantined.culprit == *culprit)
    }

    /// Everything that must not be loaded, the oldest first.
    pub fn list(&self) -> &[Quarantined] {
        &self.quarantined
    }

    /// Lets every build of this name go, with a clean record; returns what was in quarantine.
    pub fn lift(&mut self, name: &str) -> Vec<Quarantined> {
        self.deaths.retain(|culprit, _| culprit.name != name);
        let is_meant = |held: &mut Quarantined| held.culprit.name == name;
        self.quarantined.extract_if(.., is_meant).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn culprit(name: &str, digest: &str) -> Culprit {
        Culprit {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            digest: digest.to_owned(),
        }
    }

    #[test]
    fn beyond_so_many_builds_the_one_that_was_there_longest_is_let_go() {
        let mut quarantine = Quarantine::new(3, 10 * MINUTE);
        for number in 0..=MAX_QUARANTINED {
            quarantine.put(culprit("say", &number.to_string()), "root".to_owned());
        }
        assert_eq!(quarantine.list().len(), MAX_QUARANTINED);
        assert!(!quarantine.holds(&culprit("say", "0")));
        assert!(quarantine.holds(&culprit("say", "1")));
    }

    #[test]
    fn so_many_deaths_within_the_window_bring_exactly_that_build_into_quarantine() {
        let mut quarantine = Quarantine::new(3, 10 * MINUTE);
        let start = Instant::now();
        let (bad, mended) = (culprit("say", "aa"), culprit("say", "bb"));
        assert_eq!(quarantine.count(&bad, start), Counted::Crashes(1));
        assert_eq!(quarantine.count(&mended, start), Counted::Crashes(1));
        let later = start + 9 * MINUTE;
        assert_eq!(quarantine.count(&bad, later), Counted::Crashes(2));
        assert!(quarantine.list().is_empty());
        assert_eq!(quarantine.count(&bad, later), Counted::Quarantined);
        assert!(quarantine.holds(&bad) && !quarantine.holds(&mended));
        assert_eq!(quarantine.count(&bad, later), Counted::Already);
        let listed: Vec<_> = quarantine.list().iter().map(|it| it.crashes).collect();
        assert_eq!(listed, [3]);
    }

    #[test]
    fn deaths_that_lie_further_apart_than_the_window_bring_nobody_into_quarantine() {
        let mut quarantine = Quarantine::new(3, 10 * MINUTE);
        let start = Instant::now();
        for number in 0..20 {
            let counted = quarantine.count(&culprit("say", "aa"), start + number * 6 * MINUTE);
            assert!(matches!(counted, Counted::Crashes(1 | 2)), "{counted:?}");
        }
    }

    #[test]
    fn lifting_a_quarantine_by_name_gives_a_clean_record() {
        let mut quarantine = Quarantine::new(2, MINUTE);
        let start = Instant::now();
        for name in ["say", "say", "auth", "auth"] {
            quarantine.count(&culprit(name, "aa"), start);
        }
        let lifted = quarantine.lift("say");
        assert_eq!(lifted.len(), 1);
        assert_eq!(lifted[0].culprit, culprit("say", "aa"));
        assert!(quarantine.holds(&culprit("auth", "aa")));
        assert!(quarantine.lift("say").is_empty());
        let again = quarantine.count(&culprit("say", "aa"), start);
        assert_eq!(again, Counted::Crashes(1));
    }

    #[test]
    fn builds_beyond_the_bound_take_the_place_of_the_one_that_was_quiet_for_longest() {
        let mut quarantine = Quarantine::new(2, 60 * MINUTE);
        let start = Instant::now();
        for number in 0..=MAX_CULPRITS {
            let at = start + Duration::from_millis(number as u64);
            quarantine.count(&culprit("say", &number.to_string()), at);
        }
        let later = start + MINUTE;
        let first = quarantine.count(&culprit("say", "0"), later);
        assert_eq!(first, Counted::Crashes(1), "it was forgotten");
        let last = quarantine.count(&culprit("say", &MAX_CULPRITS.to_string()), later);
        assert_eq!(last, Counted::Quarantined);
    }

    #[test]
    fn the_list_can_be_told_to_a_worker() {
        let mut quarantine = Quarantine::new(1, MINUTE);
        quarantine.count(&culprit("say", "aa"), Instant::now());
        let told = serde_json::to_string(quarantine.list());
        let heard = told.and_then(|told| serde_json::from_str::<Vec<Quarantined>>(&told));
        assert_eq!(heard.ok().as_deref(), Some(quarantine.list()));
    }
}
