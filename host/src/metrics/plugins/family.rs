//! One metric of one generation with its series, and how those of several generations are shown as
//! one.

use std::{collections::BTreeMap, fmt, sync::atomic::Ordering};

use plugin_abi::{
    abi::{MetricArguments, MetricCells, MetricKind, MetricSeries, RArc},
    metrics::MAX_LABEL_VALUE_BYTES,
};
use prometheus_client::encoding::{MetricEncoder, NoLabelSet};

use super::{
    MAX_BUCKETS, MAX_HELP_BYTES, MAX_LABELS, MAX_SERIES, OVERFLOW, RefusedMetric, is_name,
};

/// Labels that are not for plugins.
const OF_THE_HOST: [&str; 3] = ["plugin", "version", "le"];

/// One metric.
#[derive(Debug)]
pub(super) struct Family {
    kind: MetricKind,
    help: String,
    labels: Vec<String>,
    bounds: Vec<f64>,
    /// By the values of the labels.
    series: BTreeMap<Vec<String>, RArc<MetricCells>>,
    overflow: Option<RArc<MetricCells>>,
    /// How often a series was wanted beyond the bound.
    wanted: u64,
}

impl Family {
    /// A metric without series.
    pub(super) fn new(metric: &MetricArguments<'_>) -> Result<Self, RefusedMetric> {
        if metric.kind.0 > MetricKind::HISTOGRAM.0 {
            return Err(RefusedMetric::Kind(metric.kind.0));
        }
        if metric.labels.len() > MAX_LABELS {
            return Err(RefusedMetric::Labels(metric.labels.len()));
        }
        let mut labels = Vec::with_capacity(metric.labels.len());
        for label in metric.labels {
            let name = label.name.as_str();
            if !is_name(name) {
                return Err(RefusedMetric::Name(name.to_owned()));
            }
            let is_ours = OF_THE_HOST.contains(&name) || name.starts_with("__");
            if is_ours || labels.iter().any(|other| other == name) {
                return Err(RefusedMetric::Label(name.to_owned()));
            }
            labels.push(name.to_owned());
        }
        let bounds = metric.bounds.as_slice();
        let rising = bounds.windows(2).all(|pair| pair[0] < pair[1]);
        if bounds.len() > MAX_BUCKETS || !rising || bounds.iter().any(|bound| !bound.is_finite()) {
            return Err(RefusedMetric::Bounds);
        }
        Ok(Self {
            kind: metric.kind,
            help: one_line(metric.help.as_str()),
            labels,
            bounds: bounds.to_vec(),
            series: BTreeMap::new(),
            overflow: None,
            wanted: 0,
        })
    }

    /// Whether it is the metric that is asked for.
    pub(super) fn is_for(&self, metric: &MetricArguments<'_>) -> bool {
        let labels = metric.labels.iter().map(|label| label.name.as_str());
        self.kind == metric.kind
            && self.bounds == metric.bounds.as_slice()
            && self.labels.iter().map(String::as_str).eq(labels)
    }

    /// The series with these labels, or the one beyond the bound.
    pub(super) fn series(&mut self, metric: &MetricArguments<'_>) -> MetricSeries {
        let values = metric.labels.iter().map(|label| label.value.as_str());
        let values: Vec<String> = values
            .map(|value| cut(value, MAX_LABEL_VALUE_BYTES).to_owned())
            .collect();
        if let Some(known) = self.series.get(&values) {
            return MetricSeries {
                cells: known.clone(),
                is_overflow: false,
            };
        }
        let new = || RArc::new(cells(self.bounds.len()));
        if self.series.len() < MAX_SERIES {
            let cells = new();
            self.series.insert(values, cells.clone());
            return MetricSeries {
                cells,
                is_overflow: false,
            };
        }
        self.wanted += 1;
        MetricSeries {
            cells: self.overflow.get_or_insert_with(new).clone(),
            is_overflow: true,
        }
    }

    /// Whether the log is to say that there are too many: at the first, and fewer and fewer times
    /// after it.
    pub(super) fn is_time_to_tell(&self) -> bool {
        self.wanted.is_power_of_two()
    }

    fn all(&self) -> impl Iterator<Item = (Vec<String>, &RArc<MetricCells>)> {
        let overflow = self.overflow.iter().map(|cells| {
            let values = vec![OVERFLOW.to_owned(); self.labels.len()];
            (values, cells)
        });
        let series = self.series.iter();
        series
            .map(|(values, cells)| (values.clone(), cells))
            .chain(overflow)
    }
}

/// The cells of a series with so many bounds.
pub(super) fn cells(bounds: usize) -> MetricCells {
    MetricCells {
        buckets: (0..=bounds).map(|_| Default::default()).collect(),
        ..MetricCells::default()
    }
}

/// The beginning of a text that has so many bytes at most.
fn cut(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A sentence as the formats can carry it, which the encoder leaves to whoever gives it.
fn one_line(help: &str) -> String {
    let replaced = cut(help, MAX_HELP_BYTES).chars().map(|char| match char {
        '\\' => '/',
        '"' => '\'',
        control if control.is_control() => ' ',
        char => char,
    });
    replaced.collect()
}

/// Numbers of a series.
#[derive(Debug, Clone, PartialEq)]
struct Numbers {
    value: u64,
    buckets: Vec<u64>,
}

impl Numbers {
    fn of(cells: &MetricCells) -> Self {
        let buckets = cells.buckets.iter();
        Self {
            value: cells.value.load(Ordering::Relaxed),
            buckets: buckets
                .map(|bucket| bucket.load(Ordering::Relaxed))
                .collect(),
        }
    }

    fn add(&mut self, kind: MetricKind, older: &Self) {
        match kind {
            MetricKind::COUNTER => self.value = self.value.wrapping_add(older.value),
            MetricKind::HISTOGRAM => {
                let sum = f64::from_bits(self.value) + f64::from_bits(older.value);
                self.value = sum.to_bits();
                for (bucket, older) in self.buckets.iter_mut().zip(&older.buckets) {
                    *bucket += older;
                }
            }
            // What a gauge says now is what the newest one says.
            _ => {}
        }
    }
}

/// One metric of the exposition: that of one plugin, or of several with the same name for it.
#[derive(Debug)]
pub(super) struct Shown {
    kind: MetricKind,
    help: String,
    bounds: Vec<f64>,
    /// By names and values of the labels: what has the same is added up.
    series: BTreeMap<Vec<(String, String)>, Numbers>,
}

impl Shown {
    /// Without series.
    pub(super) fn like(family: &Family) -> Self {
        Self {
            kind: family.kind,
            help: family.help.clone(),
            bounds: family.bounds.clone(),
            series: BTreeMap::new(),
        }
    }

    pub(super) fn kind(&self) -> MetricKind {
        self.kind
    }

    pub(super) fn help(&self) -> &str {
        &self.help
    }

    /// Adds the series of an older generation, if they can stand beside those of the newest.
    pub(super) fn add(&mut self, family: &Family, plugin: &str, version: &str) {
        if family.kind != self.kind || family.bounds != self.bounds {
            return;
        }
        for (values, cells) in family.all() {
            let own = family.labels.iter().cloned().zip(values);
            let host = [("plugin", plugin), ("version", version)];
            let labels = host.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let labels = labels.into_iter().chain(own).collect();
            let numbers = Numbers::of(cells);
            self.series
                .entry(labels)
                .and_modify(|newer| newer.add(self.kind, &numbers))
                .or_insert(numbers);
        }
    }

    pub(super) fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (labels, numbers) in &self.series {
            let mut series = encoder.encode_family(labels)?;
            match self.kind {
                MetricKind::COUNTER => {
                    series.encode_counter::<NoLabelSet, _, f64>(&numbers.value, None)?;
                }
                MetricKind::GAUGE => series.encode_gauge(&f64::from_bits(numbers.value))?,
                _ => {
                    let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
                    let buckets: Vec<(f64, u64)> =
                        bounds.zip(numbers.buckets.iter().copied()).collect();
                    let count = numbers.buckets.iter().sum();
                    let sum = f64::from_bits(numbers.value);
                    series.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
                }
            }
        }
        Ok(())
    }
}
