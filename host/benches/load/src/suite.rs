//! Everything that is measured in one go, part by part; within a part, round by round over all servers.

mod bodies;
mod outgoing;
mod scale;
mod sweep;
mod upgrades;

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::{
    machine::Machine,
    measurement::{Measurement, Spread, table},
    servers::Built,
};

pub(crate) use bodies::Body;
pub(crate) use scale::Scale;
pub(crate) use upgrades::Disturbed;

/// The host that sleeps as soon as it has nothing to do.
const NO_SPIN: &str = "without spin";

/// Parts of the suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Only {
    /// Calls one after the other on 1 to 1,024 connections
    Sweep,
    /// 1,000 calls in a second
    Rate,
    /// Bodies of 1 and 8 MiB
    Bodies,
    /// A plugin that computes, on one and on two event loops
    Loops,
    /// Plugins that ask another service
    Outgoing,
    /// Calls while plugins are upgraded and workers replaced
    Upgrades,
    /// 1,000 plugins and 100,000 tokens
    Scale,
}

/// What is measured, how often and for how long.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) only: Vec<Only>,
    pub(crate) rounds: usize,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    /// Of the parts in which something happens now and then.
    pub(crate) long_duration: Duration,
    pub(crate) connections: Vec<usize>,
    pub(crate) runners: Vec<(String, String)>,
    pub(crate) sockets: Vec<(String, String)>,
    pub(crate) variants: Vec<(String, String)>,
}

impl Plan {
    /// Some seven minutes.
    pub(crate) fn whole() -> Self {
        Self {
            only: vec![
                Only::Sweep,
                Only::Rate,
                Only::Bodies,
                Only::Loops,
                Only::Outgoing,
                Only::Upgrades,
                Only::Scale,
            ],
            rounds: 5,
            warm_up: Duration::from_millis(200),
            duration: Duration::from_secs(1),
            long_duration: Duration::from_secs(5),
            connections: vec![1, 8, 64, 256, 1024],
            runners: Vec::new(),
            sockets: Vec::new(),
            // As the echo servers wait.
            variants: vec![(NO_SPIN.to_owned(), "--spin=0us".to_owned())],
        }
    }

    /// One minute: without the thousand plugins, which take longer than that to load.
    pub(crate) fn quick() -> Self {
        let mut whole = Self::whole();
        whole.only.retain(|part| *part != Only::Scale);
        Self {
            rounds: 3,
            warm_up: Duration::from_millis(100),
            duration: Duration::from_millis(300),
            long_duration: Duration::from_secs(2),
            connections: vec![1, 8, 64, 1024],
            ..whole
        }
    }

    fn includes(&self, part: Only) -> bool {
        self.only.contains(&part)
    }
}

/// Something that the project wants to be true, and how far it is.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Target {
    pub(crate) what: String,
    pub(crate) wanted: String,
    pub(crate) found: String,
    pub(crate) met: bool,
}

impl Target {
    pub(crate) fn at_most(what: &str, bound: f64, found: Spread, unit: &str) -> Self {
        Self::new(
            what,
            format!("at most {bound}{unit}"),
            found,
            unit,
            found.median <= bound,
        )
    }

    pub(crate) fn at_least(what: &str, bound: f64, found: Spread, unit: &str) -> Self {
        Self::new(
            what,
            format!("at least {bound}{unit}"),
            found,
            unit,
            found.median >= bound,
        )
    }

    fn new(what: &str, wanted: String, found: Spread, unit: &str, met: bool) -> Self {
        Self {
            what: what.to_owned(),
            wanted,
            found: format!("{}{unit}", found.text(2)),
            met,
        }
    }
}

/// All numbers of one go.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) rounds: usize,
    pub(crate) sweep: Vec<Measurement>,
    pub(crate) rate: Vec<Measurement>,
    pub(crate) bodies: Vec<Body>,
    pub(crate) loops: Vec<Measurement>,
    pub(crate) outgoing: Vec<Measurement>,
    pub(crate) upgrades: Vec<Disturbed>,
    pub(crate) scale: Option<Scale>,
    pub(crate) targets: Vec<Target>,
    /// Seconds that all of it took.
    pub(crate) took: u64,
}

impl Report {
    /// What the terminal shows.
    pub(crate) fn tables(&self) -> String {
        let mut text = String::new();
        for (title, measurements) in [
            ("As fast as they can", &self.sweep),
            ("1,000 calls a second", &self.rate),
            ("A plugin that computes for 50 us", &self.loops),
            ("A plugin that asks another service", &self.outgoing),
        ] {
            if !measurements.is_empty() {
                text += &table(title, measurements);
                text.push('\n');
            }
        }
        for lines in [
            bodies::lines(&self.bodies),
            upgrades::lines(&self.upgrades),
            self.scale.as_ref().map(scale::lines).unwrap_or_default(),
        ] {
            for (name, value) in lines {
                text += &format!("{name}: {value}\n");
            }
        }
        text.push('\n');
        for target in &self.targets {
            let met = if target.met { "met" } else { "NOT met" };
            text += &format!(
                "{met}: {}: {}, wanted {}\n",
                target.what, target.found, target.wanted
            );
        }
        text + &format!("took {} s\n", self.took)
    }
}

/// Names and values of the parts that are no table of loads.
pub(crate) type Lines = Vec<(String, String)>;

pub(crate) use bodies::lines as body_lines;
pub(crate) use scale::lines as scale_lines;
pub(crate) use upgrades::lines as upgrade_lines;

/// Measures.
pub(crate) fn run(plan: &Plan) -> Result<Report> {
    let began = std::time::Instant::now();
    let machine = Machine::this();
    let built = Built::beside_this_program()?;
    let mut report = Report {
        machine,
        rounds: plan.rounds,
        sweep: Vec::new(),
        rate: Vec::new(),
        bodies: Vec::new(),
        loops: Vec::new(),
        outgoing: Vec::new(),
        upgrades: Vec::new(),
        scale: None,
        targets: Vec::new(),
        took: 0,
    };
    if plan.includes(Only::Sweep) || plan.includes(Only::Rate) {
        let contestants = sweep::Contestants::start(plan, &built)?;
        if plan.includes(Only::Sweep) {
            report.sweep = contestants.sweep(plan)?;
        }
        if plan.includes(Only::Rate) {
            report.rate = contestants.at_a_rate(plan)?;
        }
    }
    if plan.includes(Only::Bodies) {
        report.bodies = bodies::run(plan, &built)?;
    }
    if plan.includes(Only::Loops) {
        report.loops = sweep::loops(plan, &built)?;
    }
    if plan.includes(Only::Outgoing) {
        report.outgoing = outgoing::run(plan, &built)?;
    }
    if plan.includes(Only::Upgrades) {
        report.upgrades = upgrades::run(plan, &built)?;
    }
    if plan.includes(Only::Scale) {
        // The last part, and the heaviest: where it fails, the others' numbers are not lost.
        match scale::run(plan, &built) {
            Ok(scale) => report.scale = Some(scale),
            Err(error) => eprintln!("1,000 plugins and 100,000 tokens: not measured: {error:#}"),
        }
    }
    report.targets = targets(&report);
    report.took = began.elapsed().as_secs();
    Ok(report)
}

fn targets(report: &Report) -> Vec<Target> {
    let mut targets = sweep::targets(&report.sweep);
    targets.extend(bodies::targets(&report.bodies));
    targets.extend(upgrades::targets(&report.upgrades));
    targets.extend(report.scale.iter().flat_map(scale::targets));
    targets
}

/// A line on standard error, so that whoever waits sees what for.
pub(crate) fn progress(what: &str) {
    eprintln!("{what} ...");
}
