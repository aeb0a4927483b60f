//! Calls at a steady rate while plugins are upgraded, and while workers are replaced: what that adds to the
//! slowest of them.

use std::{
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::{Lines, Plan, Target, progress, sweep::HOST};
use crate::{
    calls::{Exchange, Phase, RecordedCall, Replies},
    load::{Load, Pace},
    measurement::{Sample, Spread, measure},
    servers::{Built, PluginCopy, Server},
};

/// Routes whose chains are compiled again with each upgrade.
const ROUTES: usize = 10_000;

/// Calls in a second: far from what the host can do, so that waiting is not for other calls.
const RATE: u32 = 10_000;

const CONNECTIONS: usize = 64;

/// Between two disturbances.
const PAUSE: Duration = Duration::from_millis(200);

/// What is done to the host meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disturbance {
    Nothing,
    Upgrade,
    Replacement,
}

impl Disturbance {
    fn text(self) -> &'static str {
        match self {
            Self::Nothing => "nothing happens",
            Self::Upgrade => "a plugin of 10,000 routes is upgraded again and again",
            Self::Replacement => "the worker is replaced again and again",
        }
    }
}

/// Latencies, in microseconds, under one disturbance.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Disturbed {
    pub(crate) by: &'static str,
    /// How often, over all rounds.
    pub(crate) times: usize,
    pub(crate) p50: Spread,
    pub(crate) p99: Spread,
    pub(crate) p999: Spread,
    pub(crate) max: Spread,
}

pub(super) fn run(plan: &Plan, built: &Built) -> Result<Vec<Disturbed>> {
    let host = Server::host(HOST, built, &[PluginCopy::probe(0)], &[])?;
    let calls = prepare_routes(&host)?;
    let replies = Replies::default();
    let load = Load {
        connections: CONNECTIONS,
        pace: Pace::PerSecond(RATE),
        warm_up: plan.warm_up,
        duration: plan.long_duration,
        calls: &calls,
        replies: &replies,
    };
    let mut kinds = vec![Disturbance::Nothing, Disturbance::Upgrade];
    if can_replace_workers(built)? {
        kinds.push(Disturbance::Replacement);
    }
    let mut samples: Vec<(Disturbance, usize, Vec<Sample>)> = kinds
        .into_iter()
        .map(|kind| (kind, 0, Vec::new()))
        .collect();
    let mut versions = 0;
    for round in 0..plan.rounds.min(3) {
        for (kind, times, samples) in &mut samples {
            progress(&format!("round {}: {}", round + 1, kind.text()));
            let (sample, more) =
                disturb(built, &host, &load, *kind, &mut versions).with_context(|| host.log())?;
            samples.push(sample);
            *times += more;
        }
    }
    Ok(samples
        .iter()
        .map(|(kind, times, samples)| disturbed(*kind, *times, samples))
        .collect())
}

fn disturbed(kind: Disturbance, times: usize, samples: &[Sample]) -> Disturbed {
    let spread = |value: fn(&Sample) -> f64| Spread::of(samples.iter().map(value));
    Disturbed {
        by: kind.text(),
        times,
        p50: spread(|sample| sample.p50),
        p99: spread(|sample| sample.p99),
        p999: spread(|sample| sample.p999),
        max: spread(|sample| sample.max),
    }
}

fn prepare_routes(host: &Server) -> Result<Vec<Vec<u8>>> {
    let recorded = RecordedCall::load("say-browser", Phase::Request)?;
    let mut exchange = Exchange::open(&host.socket)?;
    let mut calls = Vec::with_capacity(ROUTES);
    for route in 0..ROUTES {
        let key = format!("route#{route}#ext-plugin-pre-req#1");
        let token = exchange.prepare(&key, "probe-000", &format!(r#"{{"header":"{route}"}}"#))?;
        calls.push(recorded.with_token(token)?);
    }
    // Every chain is there before anything is measured.
    for call in &calls {
        exchange.call(call, &Replies::default())?;
    }
    Ok(calls)
}

/// Measures while another thread disturbs; gives how often it did.
fn disturb(
    built: &Built,
    host: &Server,
    load: &Load<'_>,
    kind: Disturbance,
    versions: &mut usize,
) -> Result<(Sample, usize)> {
    let directory = host.directory().context("the host was started here")?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let disturber = scope.spawn(|| -> Result<usize> {
            let mut times = 0;
            while kind != Disturbance::Nothing && !over.load(Ordering::Relaxed) {
                thread::sleep(PAUSE);
                match kind {
                    Disturbance::Upgrade => {
                        *versions += 1;
                        // As long as the version that it was built with.
                        let next = format!("0.{}.{}", 1 + *versions / 10, *versions % 10);
                        let copy = PluginCopy::probe(0).version(&next);
                        PluginCopy::write_all(&[copy], built, &directory.join("plugins"))?;
                        ask(built, directory, "reload")?;
                    }
                    _ => ask(built, directory, "replace-worker")?,
                }
                times += 1;
            }
            Ok(times)
        });
        let sample = measure(host, load);
        over.store(true, Ordering::Relaxed);
        let times = disturber
            .join()
            .map_err(|_| anyhow::anyhow!("the disturber panicked"))??;
        Ok((sample?, times))
    })
}

/// Runs a command of the host's program against the host in this directory.
fn ask(built: &Built, directory: &Path, command: &str) -> Result<()> {
    let output = built
        .host_command()
        .arg(command)
        .arg("--listen")
        .arg(directory.join("s"))
        .arg("--runtime-dir")
        .arg(directory)
        .output()?;
    ensure!(
        output.status.success(),
        "plugin-host {command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn can_replace_workers(built: &Built) -> Result<bool> {
    let mut help = built.host_command();
    help.args(["replace-worker", "--help"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Ok(help.status()?.success())
}

pub(crate) fn lines(upgrades: &[Disturbed]) -> Lines {
    let line = |d: &Disturbed| {
        let times = if d.times == 0 {
            String::new()
        } else {
            format!(" ({} times)", d.times)
        };
        (
            format!("while {}{times}", d.by),
            format!(
                "p50 {}, p99 {}, p99.9 {}, max {} us",
                d.p50.text(0),
                d.p99.text(0),
                d.p999.text(0),
                d.max.text(0)
            ),
        )
    };
    upgrades.iter().map(line).collect()
}

/// What a disturbance may add to the slowest of a thousand calls, in ms.
const MOST_ADDED: f64 = 1.0;

pub(super) fn targets(upgrades: &[Disturbed]) -> Vec<Target> {
    let Some((quiet, disturbed)) = upgrades.split_first() else {
        return Vec::new();
    };
    let added = |d: &Disturbed| {
        let millis = |micros: f64| (micros - quiet.p999.median) / 1e3;
        Spread {
            median: millis(d.p999.median),
            least: millis(d.p999.least),
            most: millis(d.p999.most),
        }
    };
    disturbed
        .iter()
        .map(|d| {
            Target::at_most(
                &format!("added to p99.9 while {}", d.by),
                MOST_ADDED,
                added(d),
                " ms",
            )
        })
        .collect()
}
