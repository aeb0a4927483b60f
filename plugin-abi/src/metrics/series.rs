//! One series: the numbers that host and plugin count in together.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::abi::{MetricCells, MetricKind, RArc};

/// A kind of metric.
pub trait Metric: Clone + Send + Sync + sealed::Sealed {}

/// What the SDK needs to know of a kind; no affair of authors.
pub(super) mod sealed {
    use super::{Arc, MetricCells, MetricKind, RArc};

    /// Implemented by [`Counter`](super::Counter), [`Gauge`](super::Gauge) and
    /// [`Histogram`](super::Histogram) only.
    pub trait Sealed {
        /// What the cells mean.
        const KIND: MetricKind;

        /// A series that counts in these cells.
        fn on(cells: RArc<MetricCells>, bounds: &Arc<[f64]>) -> Self;
    }
}

/// Cells that nobody else counts in.
pub(super) fn detached(bounds: &[f64]) -> RArc<MetricCells> {
    RArc::new(MetricCells {
        buckets: (0..=bounds.len()).map(|_| Default::default()).collect(),
        ..MetricCells::default()
    })
}

/// A number that only grows. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Counter(RArc<MetricCells>);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.inc_by(1);
    }

    /// So many more.
    pub fn inc_by(&self, more: u64) {
        self.0.value.fetch_add(more, Ordering::Relaxed);
    }

    /// How many there are.
    pub fn get(&self) -> u64 {
        self.0.value.load(Ordering::Relaxed)
    }
}

impl Metric for Counter {}

impl sealed::Sealed for Counter {
    const KIND: MetricKind = MetricKind::COUNTER;

    fn on(cells: RArc<MetricCells>, _bounds: &Arc<[f64]>) -> Self {
        Self(cells)
    }
}

/// A number that grows and falls. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Gauge(RArc<MetricCells>);

impl Gauge {
    /// Makes it this number.
    pub fn set(&self, value: f64) {
        self.0.value.store(value.to_bits(), Ordering::Relaxed);
    }

    /// Makes it larger.
    pub fn add(&self, more: f64) {
        add_f64(&self.0, more);
    }

    /// Makes it smaller.
    pub fn sub(&self, less: f64) {
        add_f64(&self.0, -less);
    }

    /// What it is.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.value.load(Ordering::Relaxed))
    }
}

impl Metric for Gauge {}

impl sealed::Sealed for Gauge {
    const KIND: MetricKind = MetricKind::GAUGE;

    fn on(cells: RArc<MetricCells>, _bounds: &Arc<[f64]>) -> Self {
        Self(cells)
    }
}

/// How often values lay between which bounds. Clones count together.
#[derive(Debug, Clone)]
pub struct Histogram {
    cells: RArc<MetricCells>,
    bounds: Arc<[f64]>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            cells: detached(&[]),
            bounds: Arc::default(),
        }
    }
}

impl Histogram {
    /// Counts a value. One that is no number lies above all bounds and is not in the sum.
    pub fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        let bucket = if value.is_nan() {
            self.bounds.len()
        } else {
            add_f64(&self.cells, value);
            bucket
        };
        if let Some(bucket) = self.cells.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a time in seconds.
    pub fn observe_time(&self, time: Duration) {
        self.observe(time.as_secs_f64());
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.buckets().sum()
    }

    /// How many of them lay between each bound and the one before it; the last ones above all.
    pub fn buckets(&self) -> impl Iterator<Item = u64> {
        let buckets = self.cells.buckets.iter();
        buckets.map(|bucket| bucket.load(Ordering::Relaxed))
    }

    /// Their sum.
    pub fn sum(&self) -> f64 {
        f64::from_bits(self.cells.value.load(Ordering::Relaxed))
    }
}

impl Metric for Histogram {}

impl sealed::Sealed for Histogram {
    const KIND: MetricKind = MetricKind::HISTOGRAM;

    fn on(cells: RArc<MetricCells>, bounds: &Arc<[f64]>) -> Self {
        Self {
            cells,
            bounds: Arc::clone(bounds),
        }
    }
}

fn add_f64(cells: &MetricCells, more: f64) {
    let mut bits = cells.value.load(Ordering::Relaxed);
    loop {
        let sum = (f64::from_bits(bits) + more).to_bits();
        let exchanged =
            cells
                .value
                .compare_exchange_weak(bits, sum, Ordering::Relaxed, Ordering::Relaxed);
        match exchanged {
            Ok(_) => return,
            Err(now) => bits = now,
        }
    }
}
