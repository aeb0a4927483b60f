//! What plugins may count, and how it is shown.

use plugin_abi::abi::{MetricLabel, RSlice};

use super::{
    super::{
        Format, Metrics,
        plugin_calls::{Entry, MAX_SHOWN, Outcome},
    },
    *,
};

fn metric<'a>(
    kind: MetricKind,
    name: &'a str,
    labels: &'a [MetricLabel<'a>],
) -> MetricArguments<'a> {
    MetricArguments {
        kind,
        name: name.into(),
        help: "help".into(),
        labels: labels.into(),
        bounds: RSlice::EMPTY,
        only_check: false,
    }
}

fn label<'a>(name: &'a str, value: &'a str) -> MetricLabel<'a> {
    MetricLabel {
        name: name.into(),
        value: value.into(),
    }
}

fn add(generation: &GenerationMetrics, metric: &MetricArguments<'_>, more: u64) {
    let series = generation.series(metric).expect("a metric");
    series
        .cells
        .value
        .fetch_add(more, std::sync::atomic::Ordering::Relaxed);
}

/// Lines about what plugins count.
fn shown(metrics: &Metrics) -> Vec<String> {
    let mut lines = all_lines(metrics);
    lines.retain(|line| !line.contains("pluginhost_"));
    lines
}

fn all_lines(metrics: &Metrics) -> Vec<String> {
    let exposition = metrics.expose(Format::Text).expect("it can be written");
    exposition.lines().map(str::to_owned).collect()
}

fn call(generation: &GenerationMetrics, times: u64) {
    for _ in 0..times {
        generation.calls().begin(Entry::Request);
        let took = Duration::from_micros(20);
        generation
            .calls()
            .end(Entry::Request, Outcome::Passed, took);
    }
}

/// Calls that went on, of each plugin and version.
fn passed(metrics: &Metrics) -> Vec<String> {
    let mut lines = all_lines(metrics);
    let is_passed = |line: &str| line.contains(r#"outcome="passed""#);
    lines.retain(|line| line.starts_with("pluginhost_plugin_calls_total") && is_passed(line));
    lines
}

#[test]
fn calls_of_a_version_never_go_back_when_an_earlier_generation_of_it_is_forgotten() {
    let metrics = Metrics::new();
    let first = metrics.plugins().begin("say", "1.0.0");
    call(&first, 5);
    let second = metrics.plugins().begin("say", "1.0.0");
    call(&second, 2);
    let labels = r#"plugin="say",version="1.0.0",phase="request",outcome="passed""#;
    let all = format!("pluginhost_plugin_calls_total{{{labels}}} 7");
    assert_eq!(passed(&metrics), [all.as_str()]);
    let long_ago = Instant::now().checked_sub(SHOWN_FOR);
    *first.ended.lock() = long_ago;
    assert_eq!(passed(&metrics), [all.as_str()]);
    assert_eq!(metrics.plugins().generations.lock().len(), 1);
    *second.ended.lock() = long_ago;
    assert!(passed(&metrics).is_empty(), "nobody is left of it");
}

#[test]
fn calls_of_versions_beyond_the_bound_are_counted_together() {
    let metrics = Metrics::new();
    for number in 0..MAX_SHOWN + 3 {
        call(&metrics.plugins().begin(&format!("p{number}"), "1.0.0"), 1);
    }
    let lines = passed(&metrics);
    assert_eq!(lines.len(), MAX_SHOWN + 1);
    let overflow = r#"plugin="overflow",version="overflow",phase="request",outcome="passed"} 3"#;
    assert!(
        lines.iter().any(|line| line.ends_with(overflow)),
        "{lines:?}"
    );
}

#[test]
fn a_counter_is_shown_with_its_plugin_its_version_and_its_labels() {
    let metrics = Metrics::new();
    let generation = metrics.plugins().begin("page-cache", "1.2.0");
    let labels = [label("kind", "a \"quoted\"\nline")];
    add(
        &generation,
        &metric(MetricKind::COUNTER, "hits_total", &labels),
        3,
    );
    assert_eq!(
        shown(&metrics),
        [
            "# HELP plugin_page_cache_hits_total help",
            "# TYPE plugin_page_cache_hits_total counter",
            r#"plugin_page_cache_hits_total{plugin="page-cache",version="1.2.0",kind="a \"quoted\"\nline"} 3"#,
        ]
    );
    let open = metrics
        .expose(Format::OpenMetrics)
        .expect("it can be written");
    assert!(
        open.contains("# TYPE plugin_page_cache_hits counter\n"),
        "{open}"
    );
    assert!(open.ends_with("# EOF\n"), "{open}");
}

#[test]
fn a_gauge_and_a_histogram_are_shown_as_such() {
    let metrics = Metrics::new();
    let generation = metrics.plugins().begin("p", "1.0.0");
    let gauge = generation
        .series(&metric(MetricKind::GAUGE, "g", &[]))
        .expect("a gauge");
    gauge
        .cells
        .value
        .store(1.5_f64.to_bits(), std::sync::atomic::Ordering::Relaxed);
    let bounds = [0.5, 1.0];
    let histogram = MetricArguments {
        bounds: bounds.as_slice().into(),
        ..metric(MetricKind::HISTOGRAM, "h", &[])
    };
    let histogram = generation.series(&histogram).expect("a histogram");
    for (bucket, count) in histogram.cells.buckets.iter().zip([1, 2, 4]) {
        bucket.store(count, std::sync::atomic::Ordering::Relaxed);
    }
    histogram
        .cells
        .value
        .store(9.25_f64.to_bits(), std::sync::atomic::Ordering::Relaxed);
    let shown = shown(&metrics);
    for line in [
        r#"plugin_p_g{plugin="p",version="1.0.0"} 1.5"#,
        r#"plugin_p_h_bucket{plugin="p",version="1.0.0",le="0.5"} 1"#,
        r#"plugin_p_h_bucket{plugin="p",version="1.0.0",le="1"} 3"#,
        r#"plugin_p_h_bucket{plugin="p",version="1.0.0",le="+Inf"} 7"#,
        r#"plugin_p_h_count{plugin="p",version="1.0.0"} 7"#,
        r#"plugin_p_h_sum{plugin="p",version="1.0.0"} 9.25"#,
    ] {
        assert!(
            shown.iter().any(|shown| shown == line),
            "{line} in {shown:#?}"
        );
    }
}

#[test]
fn the_same_series_is_the_same_however_often_it_is_asked_for() {
    let metrics = Metrics::new();
    let generation = metrics.plugins().begin("p", "1.0.0");
    let labels = [label("a", "x")];
    for _ in 0..3 {
        add(&generation, &metric(MetricKind::COUNTER, "n", &labels), 1);
    }
    assert!(
        shown(&metrics)
            .last()
            .is_some_and(|line| line.ends_with(" 3"))
    );
}

#[test]
fn series_beyond_the_bound_count_as_one() {
    let metrics = Metrics::new();
    let generation = metrics.plugins().begin("p", "1.0.0");
    for number in 0..MAX_SERIES + 5 {
        let value = number.to_string();
        add(
            &generation,
            &metric(MetricKind::COUNTER, "n", &[label("a", &value)]),
            1,
        );
    }
    let shown = shown(&metrics);
    assert_eq!(shown.len(), 2 + MAX_SERIES + 1);
    let overflow = r#"plugin_p_n_total{plugin="p",version="1.0.0",a="overflow"} 5"#;
    assert!(shown.iter().any(|line| line == overflow), "{shown:#?}");
    // Those that are there stay what they are.
    let known = generation.series(&metric(MetricKind::COUNTER, "n", &[label("a", "7")]));
    assert!(!known.expect("a counter").is_overflow);
}

#[test]
fn metrics_beyond_the_bound_are_refused() {
    let metrics = Metrics::new();
    let generation = metrics.plugins().begin("p", "1.0.0");
    for number in 0..MAX_METRICS {
        add(
            &generation,
            &metric(MetricKind::COUNTER, &format!("n{number}"), &[]),
            1,
        );
    }
    let refused = generation.series(&metric(MetricKind::COUNTER, "more", &[]));
    assert_eq!(refused.map(drop), Err(RefusedMetric::TooMany));
    add(&generation, &metric(MetricKind::COUNTER, "n0", &[]), 1);
}

#[test]
fn what_cannot_be_shown_is_refused() {
    let metrics = Metrics::new();
    let generation = metrics.plugins().begin("p", "1.0.0");
    let refused = |metric: MetricArguments<'_>| generation.series(&metric).map(drop);
    for name in ["", "1a", "a-b", "ä", &"n".repeat(MAX_NAME_BYTES + 1)] {
        let expected = Err(RefusedMetric::Name(name.to_owned()));
        assert_eq!(refused(metric(MetricKind::COUNTER, name, &[])), expected);
        let labels = [label(name, "x")];
        assert_eq!(refused(metric(MetricKind::GAUGE, "g", &labels)), expected);
    }
    for name in ["n_total", "n_sum", "n_bucket"] {
        let refused = refused(metric(MetricKind::GAUGE, name, &[]));
        assert!(matches!(refused, Err(RefusedMetric::Suffix(..))), "{name}");
    }
    for labels in [
        &[label("plugin", "x")][..],
        &[label("le", "x")],
        &[label("__a", "x")],
        &[label("a", "x"), label("a", "y")],
    ] {
        let refused = refused(metric(MetricKind::GAUGE, "g", labels));
        assert!(
            matches!(refused, Err(RefusedMetric::Label(_))),
            "{labels:?}"
        );
    }
    let many: Vec<String> = (0..=MAX_LABELS)
        .map(|number| format!("l{number}"))
        .collect();
    let many: Vec<_> = many.iter().map(|name| label(name, "x")).collect();
    let expected = Err(RefusedMetric::Labels(MAX_LABELS + 1));
    assert_eq!(refused(metric(MetricKind::GAUGE, "g", &many)), expected);
    let too_many: Vec<f64> = (0..=MAX_BUCKETS).map(|number| number as f64).collect();
    for bounds in [
        &[1.0, 1.0][..],
        &[2.0, 1.0],
        &[f64::NAN],
        &[f64::INFINITY],
        &too_many,
    ] {
        let histogram = MetricArguments {
            bounds: bounds.into(),
            ..metric(MetricKind::HISTOGRAM, "h", &[])
        };
        assert_eq!(refused(histogram), Err(RefusedMetric::Bounds), "{bounds:?}");
    }
    assert_eq!(
        refused(metric(MetricKind(9), "k", &[])),
        Err(RefusedMetric::Kind(9))
    );
    add(&generation, &metric(MetricKind::COUNTER, "n", &[]), 1);
    assert_eq!(
        refused(metric(MetricKind::GAUGE, "n", &[])),
        Err(RefusedMetric::Taken)
    );
    let labels = [label("a", "x")];
    assert_eq!(
        refused(metric(MetricKind::COUNTER, "n", &labels)),
        Err(RefusedMetric::Taken)
    );
}

#[test]
fn long_texts_are_cut_and_no_line_of_the_exposition_is_broken_by_one() {
    let metrics = Metrics::new();
    let generation = metrics.plugins().begin("p", "1.0.0");
    let long = "ä".repeat(400);
    let help = format!("one\ntwo \"three\" \\ {long}");
    let labels = [label("a", &long)];
    let counter = MetricArguments {
        help: help.as_str().into(),
        ..metric(MetricKind::COUNTER, "n", &labels)
    };
    add(&generation, &counter, 1);
    let shown = shown(&metrics);
    assert_eq!(shown.len(), 3, "{shown:#?}");
    assert!(shown[0].contains("one two 'three' / ä"), "{}", shown[0]);
    assert!(shown[0].len() < MAX_HELP_BYTES + 50);
    assert!(
        shown[2].contains(&format!("a=\"{}\"", "ä".repeat(64))),
        "{}",
        shown[2]
    );
}

#[test]
fn the_series_of_two_generations_stand_side_by_side_and_equal_ones_are_added_up() {
    let metrics = Metrics::new();
    let old = metrics.plugins().begin("p", "1.0.0");
    let new = metrics.plugins().begin("p", "1.1.0");
    let again = metrics.plugins().begin("p", "1.0.0");
    for (generation, more) in [(&old, 1), (&new, 2), (&again, 4)] {
        add(generation, &metric(MetricKind::COUNTER, "n", &[]), more);
    }
    // A version that counts something else by the same name: what the newest says counts.
    let gauge = metrics.plugins().begin("p", "2.0.0");
    assert_eq!(
        shown(&metrics)[2..],
        [
            r#"plugin_p_n_total{plugin="p",version="1.0.0"} 5"#,
            r#"plugin_p_n_total{plugin="p",version="1.1.0"} 2"#,
        ]
    );
    add(&gauge, &metric(MetricKind::GAUGE, "n", &[]), 0);
    assert_eq!(
        shown(&metrics)[2..],
        [r#"plugin_p_n{plugin="p",version="2.0.0"} 0.0"#]
    );
}

#[test]
fn the_numbers_of_a_generation_that_is_gone_are_shown_for_a_while() {
    let metrics = Metrics::new();
    let generation = metrics.plugins().begin("p", "1.0.0");
    add(&generation, &metric(MetricKind::COUNTER, "n", &[]), 1);
    generation.end();
    assert_eq!(shown(&metrics).len(), 3);
    *generation.ended.lock() = Instant::now().checked_sub(SHOWN_FOR);
    assert_eq!(shown(&metrics), [""; 0]);
}
