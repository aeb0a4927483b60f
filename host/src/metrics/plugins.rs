//! The metrics that plugins make: who may have which, and how they are shown.
//!
//! Each generation has its own, labelled with the plugin's name and version. They are shown while it
//! lives and for a while longer, so that whoever reads them now and then sees where they ended.
//! Counting is an addition in memory that host and plugin share; only making a series takes a lock.
//! Every number of things is bounded: what a plugin labels by may come from a client.
//!
//! Beside them stands what the host itself counts of each generation, its calls, for the same time.

mod family;

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use plugin_abi::abi::{MetricArguments, MetricKind, MetricSeries, RArc};
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, metrics::MetricType};

use super::plugin_calls::{self, PluginCalls, Totals};
use family::{Family, Shown, cells};

/// Metrics of one generation.
pub const MAX_METRICS: usize = 64;

/// Series of one metric; the one for what comes beyond is not counted.
pub const MAX_SERIES: usize = 512;

/// Labels of one metric, without those of the host.
pub const MAX_LABELS: usize = 8;

/// Buckets of one histogram, without the last, which has no bound.
pub const MAX_BUCKETS: usize = 64;

/// Bytes of a name.
pub const MAX_NAME_BYTES: usize = 100;

/// Bytes of the sentence that says what a metric is; what is longer is cut.
pub const MAX_HELP_BYTES: usize = 500;

/// How long the numbers of a generation are shown that is gone.
pub const SHOWN_FOR: Duration = Duration::from_secs(120);

/// What every label says of the series that stands for all beyond [`MAX_SERIES`].
pub const OVERFLOW: &str = "overflow";

/// The metrics of all plugins.
#[derive(Debug, Default)]
pub struct PluginMetrics {
    /// The oldest first.
    generations: Mutex<Vec<Arc<GenerationMetrics>>>,
}

/// The metrics of one generation of a plugin.
#[derive(Debug)]
pub struct GenerationMetrics {
    plugin: String,
    version: String,
    families: Mutex<BTreeMap<String, Family>>,
    calls: PluginCalls,
    /// Calls of earlier generations of the same version, which are shown no more: a counter never
    /// goes back.
    inherited: Mutex<Totals>,
    ended: Mutex<Option<Instant>>,
}

/// Why a plugin cannot have a metric: its own fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusedMetric {
    /// No name of a metric or label.
    #[error(
        "{0:?} is no name: write up to {MAX_NAME_BYTES} letters, digits and `_`, not beginning with a digit"
    )]
    Name(String),
    /// A name that means something to whoever reads metrics.
    #[error("{0:?} must not end in `{1}`, which is what other metrics' series are called")]
    Suffix(String, &'static str),
    /// A label that the host itself sets, or that is named twice.
    #[error("the label {0:?} is the host's, or there twice")]
    Label(String),
    /// Too many labels.
    #[error("{0} labels, where {MAX_LABELS} are allowed")]
    Labels(usize),
    /// Bounds that are none.
    #[error("the bounds of a histogram are up to {MAX_BUCKETS} rising numbers")]
    Bounds,
    /// Another metric has the name.
    #[error(
        "there is a metric of that name already, with another kind, other labels or other bounds"
    )]
    Taken,
    /// Too many metrics.
    #[error("the plugin has {MAX_METRICS} metrics already, and no more are allowed")]
    TooMany,
    /// Newer than this host.
    #[error("this host knows no metric of kind {0}")]
    Kind(u8),
}

impl PluginMetrics {
    /// Metrics of another generation, none yet.
    pub fn begin(&self, plugin: &str, version: &str) -> Arc<GenerationMetrics> {
        let generation = Arc::new(GenerationMetrics {
            plugin: plugin.to_owned(),
            version: version.to_owned(),
            families: Mutex::default(),
            calls: PluginCalls::default(),
            inherited: Mutex::default(),
            ended: Mutex::default(),
        });
        let mut generations = self.generations.lock();
        generations.push(Arc::clone(&generation));
        forget_ended(&mut generations);
        generation
    }

    /// Those that are shown, the oldest first.
    fn shown(&self) -> Vec<Arc<GenerationMetrics>> {
        let mut generations = self.generations.lock();
        forget_ended(&mut generations);
        generations.clone()
    }
}

/// Those that have ended long ago leave the number of their calls to a later one of their version.
fn forget_ended(generations: &mut Vec<Arc<GenerationMetrics>>) {
    let (shown, gone) = std::mem::take(generations)
        .into_iter()
        .partition(|generation| generation.is_shown());
    *generations = shown;
    for gone in gone {
        let heir = generations.iter().rev().find(|generation| {
            (&generation.plugin, &generation.version) == (&gone.plugin, &gone.version)
        });
        if let Some(heir) = heir {
            *heir.inherited.lock() += &gone.all_calls();
        }
    }
}

impl GenerationMetrics {
    /// What became of its calls, counted by the host.
    pub fn calls(&self) -> &PluginCalls {
        &self.calls
    }

    /// Its calls, and those that it has inherited.
    fn all_calls(&self) -> Totals {
        let mut all = self.calls.totals();
        all += &self.inherited.lock();
        all
    }

    /// A series of one of its metrics: the one that is there, or a new one.
    ///
    /// # Errors
    /// See [`RefusedMetric`].
    pub fn series(&self, metric: &MetricArguments<'_>) -> Result<MetricSeries, RefusedMetric> {
        let name = name_of(metric)?;
        let mut families = self.families.lock();
        let is_full = families.len() >= MAX_METRICS;
        let family = match families.get_mut(&name) {
            Some(family) if family.is_for(metric) => family,
            Some(_) => return Err(RefusedMetric::Taken),
            None if is_full => return Err(RefusedMetric::TooMany),
            None => {
                let family = Family::new(metric)?;
                families.entry(name.clone()).or_insert(family)
            }
        };
        if metric.only_check {
            return Ok(MetricSeries {
                cells: RArc::new(cells(metric.bounds.len())),
                is_overflow: true,
            });
        }
        let series = family.series(metric);
        if series.is_overflow && family.is_time_to_tell() {
            tracing::warn!(
                plugin = self.plugin,
                version = self.version,
                metric = name,
                bound = MAX_SERIES,
                "a metric of the plugin has as many series as it may have: further ones count as one"
            );
        }
        Ok(series)
    }

    /// The generation is gone: its numbers stay as they are, for a while.
    pub fn end(&self) {
        self.ended.lock().get_or_insert_with(Instant::now);
    }

    fn is_shown(&self) -> bool {
        let ended = *self.ended.lock();
        ended.is_none_or(|ended| ended.elapsed() < SHOWN_FOR)
    }

    /// What its metric is called in the exposition.
    fn full_name(&self, name: &str) -> String {
        let plugin = self.plugin.chars();
        let plugin = plugin.map(|char| {
            if char.is_ascii_alphanumeric() {
                char
            } else {
                '_'
            }
        });
        format!("plugin_{}_{name}", plugin.collect::<String>())
    }
}

/// A metric's name without what a counter's ends in.
fn name_of(metric: &MetricArguments<'_>) -> Result<String, RefusedMetric> {
    let whole = metric.name.as_str();
    let name = match metric.kind {
        MetricKind::COUNTER => whole.strip_suffix("_total").unwrap_or(whole),
        _ => whole,
    };
    if !is_name(name) {
        return Err(RefusedMetric::Name(whole.to_owned()));
    }
    for suffix in ["_total", "_count", "_sum", "_bucket", "_created", "_info"] {
        if name.ends_with(suffix) {
            return Err(RefusedMetric::Suffix(whole.to_owned(), suffix));
        }
    }
    Ok(name.to_owned())
}

fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME_BYTES
        && name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl Collector for PluginMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let generations = self.shown();
        let calls = generations.iter().map(|generation| {
            let GenerationMetrics {
                plugin, version, ..
            } = &**generation;
            (plugin.as_str(), version.as_str(), generation.all_calls())
        });
        plugin_calls::encode(calls, &mut encoder)?;
        let mut shown = BTreeMap::<String, Shown>::new();
        // The newest first: what it says of a metric counts.
        for generation in generations.iter().rev() {
            for (name, family) in &*generation.families.lock() {
                let shown = shown
                    .entry(generation.full_name(name))
                    .or_insert_with(|| Shown::like(family));
                shown.add(family, &generation.plugin, &generation.version);
            }
        }
        for (name, shown) in &shown {
            let kind = match shown.kind() {
                MetricKind::COUNTER => MetricType::Counter,
                MetricKind::GAUGE => MetricType::Gauge,
                _ => MetricType::Histogram,
            };
            shown.encode(encoder.encode_descriptor(name, shown.help(), None, kind)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
