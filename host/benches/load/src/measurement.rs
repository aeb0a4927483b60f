//! Numbers: one run of a load on a server, and several such runs as their median and spread.

use std::cell::RefCell;

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets::NOTHING};
use serde::Serialize;

use crate::{
    load::{Load, Pace, drive},
    servers::Server,
};

/// One run. Times are in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Sample {
    pub(crate) per_second: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
    /// Processor time of the server for one call.
    pub(crate) processor: f64,
    /// Resident memory of the server at the end, in MiB.
    pub(crate) resident: f64,
    /// Bodies that the server has got, in GiB in a second.
    pub(crate) body_rate: f64,
}

/// The same load on the same server, round by round.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measurement {
    pub(crate) server: String,
    pub(crate) connections: usize,
    /// Calls in a second, where they were paced.
    pub(crate) rate: Option<u32>,
    pub(crate) samples: Vec<Sample>,
}

/// Several values of one thing.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) && middle > 0 {
            f64::midpoint(at(middle - 1), at(middle))
        } else {
            at(middle)
        };
        Self {
            median,
            least: at(0),
            most: at(values.len().saturating_sub(1)),
        }
    }

    /// The median, and how far the others are from it.
    pub(crate) fn text(self, digits: usize) -> String {
        let Self {
            median,
            least,
            most,
        } = self;
        if least.to_bits() == most.to_bits() {
            return format!("{median:.digits$}");
        }
        format!("{median:.digits$} ({least:.digits$}-{most:.digits$})")
    }
}

impl Measurement {
    pub(crate) fn new(server: &str, load: &Load<'_>) -> Self {
        Self {
            server: server.to_owned(),
            connections: load.connections,
            rate: match load.pace {
                Pace::Closed => None,
                Pace::PerSecond(rate) => Some(rate),
            },
            samples: Vec::new(),
        }
    }

    pub(crate) fn spread(&self, value: impl Fn(&Sample) -> f64) -> Spread {
        Spread::of(self.samples.iter().map(value))
    }

    /// Round by round against another measurement: what is busy in one round is so for both.
    pub(crate) fn ratio(&self, other: &Self, value: impl Fn(&Sample) -> f64) -> Spread {
        let pairs = self.samples.iter().zip(&other.samples);
        Spread::of(pairs.map(|(own, floor)| value(own) / value(floor)))
    }
}

/// Runs a load on a server.
pub(crate) fn measure(server: &Server, load: &Load<'_>) -> Result<Sample> {
    let edges = RefCell::new(Vec::with_capacity(2));
    let seen = drive(&server.socket, load, || {
        edges.borrow_mut().push(server.tree.processor_nanos()?);
        Ok(())
    })?;
    let edges = edges.into_inner();
    let used = edges[1].saturating_sub(edges[0]) as f64;
    let micros = |quantile| seen.latency.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Sample {
        per_second: seen.per_second(),
        p50: micros(0.5),
        p99: micros(0.99),
        p999: micros(0.999),
        max: seen.latency.max() as f64 / 1e3,
        processor: used / 1e3 / seen.latency.len() as f64,
        resident: server.tree.resident_bytes()? as f64 / f64::from(1 << 20),
        body_rate: seen.body_bytes as f64 / f64::from(1 << 30) / seen.elapsed.as_secs_f64(),
    })
}

/// Something of a sample.
pub(crate) type Value = fn(&Sample) -> f64;

/// What each column of a table shows, and with how many digits.
const COLUMNS: &[(&str, usize, Value)] = &[
    ("calls/s", 0, |sample| sample.per_second),
    ("p50 us", 1, |sample| sample.p50),
    ("p99 us", 0, |sample| sample.p99),
    ("p99.9 us", 0, |sample| sample.p999),
    ("max us", 0, |sample| sample.max),
    ("processor us/call", 2, |sample| sample.processor),
    ("resident MiB", 1, |sample| sample.resident),
];

/// Medians and, in brackets, the least and the most.
pub(crate) fn table(title: &str, measurements: &[Measurement]) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    let heads = COLUMNS.iter().map(|(head, ..)| (*head).to_owned());
    table.set_header(
        ["server", "connections"]
            .map(str::to_owned)
            .into_iter()
            .chain(heads),
    );
    for measurement in measurements {
        table.add_row(cells(measurement));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{title}\n{table}\n")
}

fn cells(measurement: &Measurement) -> Vec<String> {
    let shown = COLUMNS
        .iter()
        .map(|(_, digits, value)| measurement.spread(value).text(*digits));
    [
        measurement.server.clone(),
        measurement.connections.to_string(),
    ]
    .into_iter()
    .chain(shown)
    .collect()
}

/// The same for a document.
pub(crate) fn markdown(measurements: &[Measurement]) -> String {
    let heads: Vec<_> = COLUMNS.iter().map(|(head, ..)| *head).collect();
    let mut text = format!(
        "| server | connections | {} |\n|---|--:|{}\n",
        heads.join(" | "),
        "--:|".repeat(heads.len())
    );
    for measurement in measurements {
        text += &format!("| {} |\n", cells(measurement).join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_knows_its_middle_and_its_ends() {
        let spread = Spread::of([3.0, 1.0, 2.0]);
        assert_eq!(spread.text(1), "2.0 (1.0-3.0)");
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).text(1), "2.5 (1.0-4.0)");
        assert_eq!(Spread::of([2.5]).text(1), "2.5");
    }
}
