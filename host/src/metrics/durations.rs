//! How long something took, again and again: a histogram with the same bounds for all of the host.
//!
//! The bounds go from what a plugin without work takes to the longest that a call may. Recording is two
//! additions, and nothing is allocated.

use std::{
    fmt,
    ops::AddAssign,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use prometheus_client::encoding::{MetricEncoder, NoLabelSet};

/// Upper bounds of the buckets, in nanoseconds; the last bucket, beyond them, has none.
const BOUNDS: [u64; 18] = [
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
    5_000_000_000,
    30_000_000_000,
];

const BUCKETS: usize = BOUNDS.len() + 1;

const NANOSECONDS: f64 = 1e9;

/// A histogram that any thread records in.
#[derive(Debug, Default)]
pub struct Durations {
    buckets: [AtomicU64; BUCKETS],
    nanoseconds: AtomicU64,
}

impl Durations {
    /// Something took so long.
    pub fn record(&self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        // Most are in the first buckets: from there, looking at one after the other is quick.
        let bucket = BOUNDS.iter().position(|bound| nanoseconds <= *bound);
        self.buckets[bucket.unwrap_or(BOUNDS.len())].fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

/// What was recorded, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recorded {
    buckets: [u64; BUCKETS],
    nanoseconds: u64,
}

impl Recorded {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Seconds of all of them together.
    pub fn seconds(&self) -> f64 {
        self.nanoseconds as f64 / NANOSECONDS
    }

    /// What a share of them, from 0 to 1, did not exceed, in seconds: the place between two bounds is
    /// guessed, as Prometheus does. None where nothing was recorded.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = share * count as f64;
        let (mut before, mut lower) = (0, 0.0);
        for (bound, in_bucket) in BOUNDS.iter().zip(self.buckets) {
            let upper = *bound as f64 / NANOSECONDS;
            let up_to_here = before + in_bucket;
            if in_bucket > 0 && up_to_here as f64 >= rank {
                let part = (rank - before as f64) / in_bucket as f64;
                return Some(lower + (upper - lower) * part.clamp(0.0, 1.0));
            }
            (before, lower) = (up_to_here, upper);
        }
        Some(lower)
    }

    /// Writes it down as one series of a metric.
    pub(super) fn encode(&self, mut series: MetricEncoder<'_>) -> fmt::Result {
        let bounds = BOUNDS.iter().map(|bound| *bound as f64 / NANOSECONDS);
        let bounds = bounds.chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(self.buckets).collect();
        series.encode_histogram::<NoLabelSet>(self.seconds(), self.count(), &buckets, None)
    }
}

impl AddAssign for Recorded {
    fn add_assign(&mut self, other: Self) {
        for (bucket, other) in self.buckets.iter_mut().zip(other.buckets) {
            *bucket += other;
        }
        self.nanoseconds = self.nanoseconds.saturating_add(other.nanoseconds);
    }
}

impl AddAssign<&Durations> for Recorded {
    fn add_assign(&mut self, other: &Durations) {
        *self += Self {
            buckets: std::array::from_fn(|at| other.buckets[at].load(Ordering::Relaxed)),
            nanoseconds: other.nanoseconds.load(Ordering::Relaxed),
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::*;

    fn recorded(microseconds: &[u64]) -> Recorded {
        let durations = Durations::default();
        for microseconds in microseconds {
            durations.record(Duration::from_micros(*microseconds));
        }
        let mut recorded = Recorded::default();
        recorded += &durations;
        recorded
    }

    #[test]
    fn a_duration_counts_in_the_bucket_whose_bound_it_does_not_exceed() {
        let recorded = recorded(&[1, 5, 6, 40_000_000]);
        assert_eq!(recorded.buckets[0], 2, "5 us belong to the bucket of 5 us");
        assert_eq!(recorded.buckets[1], 1);
        assert_eq!(
            recorded.buckets[BUCKETS - 1],
            1,
            "40 s are beyond all bounds"
        );
        assert_eq!(recorded.count(), 4);
        assert!((recorded.seconds() - 40.000_012).abs() < 1e-9);
    }

    #[test]
    fn a_quantile_lies_between_the_bounds_of_its_bucket() {
        assert_eq!(Recorded::default().quantile(0.5), None);
        let recorded = recorded(&[7, 8, 9, 9, 700, 700, 700, 900, 900, 40_000]);
        let p50 = recorded.quantile(0.5).unwrap();
        assert!((0.000_5..=0.001).contains(&p50), "{p50}");
        let p99 = recorded.quantile(0.99).unwrap();
        assert!((0.025..=0.05).contains(&p99), "{p99}");
    }

    #[test]
    fn the_bounds_rise() {
        assert!(BOUNDS.is_sorted_by(|one, next| one < next));
    }
}
