//! What metrics are without a host, as in a plugin's own tests.

#![allow(clippy::unwrap_used, reason = "a failed test says where it failed")]

use super::*;

#[test]
fn counters_and_gauges_count() {
    let counter = counter("n", "help").unwrap();
    counter.inc();
    counter.clone().inc_by(4);
    assert_eq!(counter.get(), 5);
    let gauge = gauge("g", "help").unwrap();
    gauge.set(2.5);
    gauge.add(1.0);
    gauge.sub(0.5);
    assert_eq!(gauge.get(), 3.0);
}

#[test]
fn a_value_is_counted_in_the_first_bucket_whose_bound_it_does_not_exceed() {
    let histogram = histogram("h", "help", &[1.0, 10.0]).unwrap();
    for value in [-1.0, 1.0, 1.5, 10.0, 11.0, f64::INFINITY, f64::NAN] {
        histogram.observe(value);
    }
    let counts: Vec<u64> = histogram.buckets().collect();
    assert_eq!(counts, [2, 2, 3]);
    assert_eq!(histogram.count(), 7);
    assert_eq!(histogram.sum(), f64::INFINITY);
    histogram.observe_time(std::time::Duration::from_millis(1_500));
    assert_eq!(histogram.buckets().collect::<Vec<_>>(), [2, 3, 3]);
}

#[test]
fn a_histogram_that_nobody_has_made_yet_can_be_used() {
    let histogram = Histogram::default();
    histogram.observe(3.0);
    assert_eq!((histogram.count(), histogram.sum()), (1, 3.0));
    Counters::<2>::default().with(["a", "b"]).inc();
}

#[test]
fn a_label_value_is_cut_between_two_characters() {
    let family = counters("n", "help", ["a"]).unwrap();
    // 127 bytes, then one of two.
    family.with([&format!("{}ä", "x".repeat(127))]).inc();
}
