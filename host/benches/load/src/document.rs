//! Writes what was measured into `docs/performance.md`, with plots and all numbers beside it.
//!
//! What stands between two marks of that file is written anew; the prose around them is people's.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use crate::{
    measurement::{Measurement, Value, markdown},
    plot::{Line, chart},
    suite::{Lines, Report, body_lines, scale_lines, upgrade_lines},
};

const BEGIN: &str = "<!-- measured: begin -->\n";
const END: &str = "<!-- measured: end -->\n";

pub(crate) fn write(report: &Report) -> Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../docs");
    let document = docs.join("performance.md");
    let text = fs::read_to_string(&document).with_context(|| document.display().to_string())?;
    let (before, rest) = text
        .split_once(BEGIN)
        .context("docs/performance.md has no mark to begin at")?;
    let (_, after) = rest
        .split_once(END)
        .context("docs/performance.md has no mark to end at")?;
    fs::write(
        &document,
        format!("{before}{BEGIN}\n{}\n{END}{after}", measured(report)),
    )?;

    let beside = docs.join("performance");
    fs::create_dir_all(&beside)?;
    fs::write(
        beside.join("measured.json"),
        serde_json::to_string_pretty(report)? + "\n",
    )?;
    for (file, title, unit, value) in PLOTS {
        let lines = lines_of(&report.sweep, *value);
        fs::write(beside.join(file), chart(title, unit, &lines))?;
    }
    Ok(())
}

/// File, title, unit and what is plotted.
const PLOTS: &[(&str, &str, &str, Value)] = &[
    ("throughput.svg", "Throughput", "calls a second", |sample| {
        sample.per_second
    }),
    (
        "latency-p50.svg",
        "Latency, p50",
        "microseconds",
        |sample| sample.p50,
    ),
    (
        "latency-p99.svg",
        "Latency, p99",
        "microseconds",
        |sample| sample.p99,
    ),
    (
        "processor.svg",
        "Processor time of a call",
        "microseconds",
        |sample| sample.processor,
    ),
];

fn lines_of(sweep: &[Measurement], value: Value) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for measurement in sweep {
        let point = (
            measurement.connections as f64,
            measurement.spread(value).median,
        );
        match lines
            .iter_mut()
            .find(|line| line.name == measurement.server)
        {
            Some(line) => line.points.push(point),
            None => lines.push(Line {
                name: measurement.server.clone(),
                points: vec![point],
            }),
        }
    }
    lines
}

fn measured(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = format!(
        "Measured on {} cores of {}, Linux {}, load average {} as it began; {} rounds, {} s.\n",
        machine.cores,
        machine.processor,
        machine.kernel,
        machine.load_average,
        report.rounds,
        report.took
    );
    if !report.targets.is_empty() {
        text += "\n### Targets\n\n| | wanted | found | |\n|---|---|---|---|\n";
        for target in &report.targets {
            let met = if target.met { "met" } else { "**not met**" };
            text += &format!(
                "| {} | {} | {} | {met} |\n",
                target.what, target.wanted, target.found
            );
        }
    }
    if !report.sweep.is_empty() {
        text += "\n### As fast as they can\n\n";
        for (file, title, ..) in PLOTS {
            text += &format!("![{title}](performance/{file})\n");
        }
        text += &format!("\n{}", markdown(&report.sweep));
    }
    for (title, measurements) in [
        ("1,000 calls a second", &report.rate),
        ("A plugin that computes for 50 us", &report.loops),
        ("A plugin that asks another service", &report.outgoing),
    ] {
        if !measurements.is_empty() {
            text += &format!("\n### {title}\n\n{}", markdown(measurements));
        }
    }
    for (title, lines) in [
        ("Bodies", body_lines(&report.bodies)),
        ("While something happens", upgrade_lines(&report.upgrades)),
        (
            "1,000 plugins and 100,000 tokens",
            report.scale.as_ref().map(scale_lines).unwrap_or_default(),
        ),
    ] {
        if !lines.is_empty() {
            text += &format!("\n### {title}\n\n{}", list(&lines));
        }
    }
    text
}

fn list(lines: &Lines) -> String {
    let mut text = "| | |\n|---|---|\n".to_owned();
    for (name, value) in lines {
        text += &format!("| {name} | {value} |\n");
    }
    text
}
