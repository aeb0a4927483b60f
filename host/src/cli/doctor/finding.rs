//! What `plugin-host doctor` finds: each thing with what it means and what to do next.

use serde_json::{Value, json};

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// As it should be.
    Good,
    /// Requests are answered, and something should be looked at.
    Warning,
    /// Requests are, or will be, answered with 503.
    Problem,
}

/// What was looked at, in the order in which it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Area {
    Gateway,
    Socket,
    Host,
    Plugins,
    Routes,
    Machine,
}

/// One thing that was found.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) area: Area,
    /// Its stable name, for scripts.
    pub(super) check: &'static str,
    pub(super) level: Level,
    pub(super) found: String,
    /// Empty where it is good.
    pub(super) means: String,
    /// Empty where it is good.
    pub(super) next: String,
}

/// Everything that was found.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) findings: Vec<Finding>,
}

impl Level {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

impl Area {
    pub(super) const ALL: [Self; 6] = [
        Self::Gateway,
        Self::Socket,
        Self::Host,
        Self::Plugins,
        Self::Routes,
        Self::Machine,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Socket => "socket",
            Self::Host => "host",
            Self::Plugins => "plugins",
            Self::Routes => "routes",
            Self::Machine => "machine",
        }
    }
}

impl Report {
    pub(super) fn good(&mut self, area: Area, check: &'static str, found: impl Into<String>) {
        self.add(area, check, Level::Good, found.into(), ["", ""]);
    }

    /// Something to look at: what was found, what that means, and the next step.
    pub(super) fn warning(
        &mut self,
        area: Area,
        check: &'static str,
        found: impl Into<String>,
        explained: [&str; 2],
    ) {
        self.add(area, check, Level::Warning, found.into(), explained);
    }

    /// Something that closes routes: what was found, what that means, and the next step.
    pub(super) fn problem(
        &mut self,
        area: Area,
        check: &'static str,
        found: impl Into<String>,
        explained: [&str; 2],
    ) {
        self.add(area, check, Level::Problem, found.into(), explained);
    }

    pub(super) fn add(
        &mut self,
        area: Area,
        check: &'static str,
        level: Level,
        found: String,
        [means, next]: [&str; 2],
    ) {
        self.findings.push(Finding {
            area,
            check,
            level,
            found,
            means: means.to_owned(),
            next: next.to_owned(),
        });
    }

    pub(super) fn count(&self, level: Level) -> usize {
        let at = self.findings.iter().filter(|one| one.level == level);
        at.count()
    }

    pub(super) fn as_json(&self) -> Value {
        let findings: Vec<_> = self
            .findings
            .iter()
            .map(|finding| {
                json!({
                    "area": finding.area.name(),
                    "check": finding.check,
                    "level": finding.level.name(),
                    "found": finding.found,
                    "means": finding.means,
                    "next": finding.next,
                })
            })
            .collect();
        json!({
            "good": self.count(Level::Problem) == 0,
            "problems": self.count(Level::Problem),
            "warnings": self.count(Level::Warning),
            "findings": findings,
        })
    }
}
