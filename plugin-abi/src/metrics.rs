//! Numbers of a plugin's own in the host's metrics: counters, gauges and histograms.
//!
//! A metric named `hits` of the plugin `page-cache` is shown as `plugin_page_cache_hits_total`, with
//! the labels `plugin` and `version` before its own. Make a metric once, when the plugin is loaded,
//! and keep it: counting is then one addition in memory that host and plugin share, without a call.
//!
//! ```
//! use plugin_abi::{metrics::{self, Counter, Counters, Histogram}, prelude::*};
//!
//! #[derive(Default)]
//! struct PageCache {
//!     hits: Counter,
//!     answers: Counters<1>,
//!     sizes: Histogram,
//! }
//!
//! impl Plugin for PageCache {
//!     type Config = ();
//!
//!     async fn on_load(&mut self, _: &Load) -> Result<()> {
//!         self.hits = metrics::counter("hits", "Pages that were answered from memory")?;
//!         self.answers = metrics::counters("answers", "Pages by their kind", ["kind"])?;
//!         self.sizes = metrics::histogram("bytes", "Length of pages", &[1e3, 1e4, 1e5, 1e6])?;
//!         Ok(())
//!     }
//!
//!     async fn response_filter(&self, _: &(), response: &mut Response) -> Result<()> {
//!         self.hits.inc();
//!         self.answers.with([response.header_str("content-type").unwrap_or("none")]).inc();
//!         self.sizes.observe(response.body().await?.unwrap_or_default().len() as f64);
//!         Ok(())
//!     }
//! }
//!
//! export_plugin!(PageCache);
//! ```
//!
//! **Labels are bounded.** A metric has at most 512 series; what comes beyond counts in one whose
//! labels all say `overflow`, and the log says so. So never label by what a client chooses freely.
//!
//! Without a host, as in a plugin's own tests, metrics count for themselves and nobody sees them.

mod family;
mod series;

use std::fmt;

pub use family::Family;
pub use series::{Counter, Gauge, Histogram};

/// Counters that differ in the values of `N` labels.
pub type Counters<const N: usize> = Family<Counter, N>;

/// Gauges that differ in the values of `N` labels.
pub type Gauges<const N: usize> = Family<Gauge, N>;

/// Histograms that differ in the values of `N` labels.
pub type Histograms<const N: usize> = Family<Histogram, N>;

/// Bounds for times in seconds, from half a millisecond to ten seconds.
pub const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Bytes of a label's value; what is longer is cut.
pub const MAX_LABEL_VALUE_BYTES: usize = 128;

/// Why there is no such metric: the plugin's fault, told by the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricError {
    name: String,
    reason: String,
}

impl fmt::Display for MetricError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the metric {:?}: {}", self.name, self.reason)
    }
}

impl std::error::Error for MetricError {}

/// A number that only grows, like the number of requests that were refused.
///
/// The name has letters, digits and `_`; `_total` is put behind it.
///
/// # Errors
/// The name is no name, or another metric of the plugin has it.
pub fn counter(name: &str, help: &str) -> Result<Counter, MetricError> {
    counters(name, help, []).map(Family::into_only)
}

/// A number that grows and falls, like the number of entries of a cache.
///
/// ```
/// use plugin_abi::metrics;
///
/// # fn main() -> Result<(), metrics::MetricError> {
/// let entries = metrics::gauge("entries", "Pages in memory")?;
/// entries.set(17.0);
/// entries.sub(1.0);
/// assert_eq!(entries.get(), 16.0);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`counter`].
pub fn gauge(name: &str, help: &str) -> Result<Gauge, MetricError> {
    gauges(name, help, []).map(Family::into_only)
}

/// How often values lay between which of at most 64 bounds: like the time that a backend took.
///
/// ```
/// use plugin_abi::metrics;
///
/// # fn main() -> Result<(), metrics::MetricError> {
/// let took = metrics::histogram("backend_seconds", "Time of the backend", metrics::SECONDS)?;
/// took.observe(0.004);
/// assert_eq!(took.count(), 1);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`counter`], or the bounds do not rise.
pub fn histogram(name: &str, help: &str, bounds: &[f64]) -> Result<Histogram, MetricError> {
    histograms(name, help, bounds, []).map(Family::into_only)
}

/// Counters that differ in these labels.
///
/// # Errors
/// As [`counter`], or a label is no name or one of the host's: `plugin`, `version`, `le`.
pub fn counters<const N: usize>(
    name: &str,
    help: &str,
    labels: [&str; N],
) -> Result<Counters<N>, MetricError> {
    Family::new(name, help, labels, &[])
}

/// Gauges that differ in these labels.
///
/// # Errors
/// As [`counters`].
pub fn gauges<const N: usize>(
    name: &str,
    help: &str,
    labels: [&str; N],
) -> Result<Gauges<N>, MetricError> {
    Family::new(name, help, labels, &[])
}

/// Histograms that differ in these labels.
///
/// # Errors
/// As [`counters`] and [`histogram`].
pub fn histograms<const N: usize>(
    name: &str,
    help: &str,
    bounds: &[f64],
    labels: [&str; N],
) -> Result<Histograms<N>, MetricError> {
    Family::new(name, help, labels, bounds)
}

#[cfg(test)]
mod tests;
