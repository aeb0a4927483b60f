//! Numbers that plugins count, as whoever collects them sees them.

use serde_json::{Value, json};

use crate::support::{Gateway, Host, get, versions::upgrade, wait_for, workers::ask_for_text};

/// What the control socket gives.
fn exposition(host: &Host) -> String {
    let (_, body) = ask_for_text(host.directory(), "GET", "/metrics", "*/*").unwrap();
    body
}

/// The line of a series, once there is one with this beginning.
fn line(host: &Host, begin: &str) -> String {
    wait_for(begin, || {
        let exposition = exposition(host);
        let mut lines = exposition.lines().map(str::to_owned);
        lines.find(|line| line.starts_with(begin))
    })
}

/// Counts once for each of these, in one call.
fn count(gateway: &mut Gateway, numbers: &Value) {
    let steps = numbers.as_array().unwrap().iter();
    let steps: Vec<Value> = steps.map(|number| json!({ "count": number })).collect();
    let token = gateway.route([("scripted", json!(steps))]);
    assert_eq!(gateway.call(token, get("/")), "unchanged");
}

#[test]
fn what_a_plugin_counts_is_in_the_exposition_with_its_name_and_version() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let numbers = json!([
        { "counter": "hits" },
        { "counter": "hits" },
        { "labelled": ["answers", "kind", "a \"b\""] },
        { "gauge": ["entries", 2.5] },
        { "histogram": ["sizes", 5.0] },
        { "histogram": ["sizes", 50.0] },
    ]);
    count(&mut gateway, &numbers);
    let (head, body) = ask_for_text(
        host.directory(),
        "GET",
        "/metrics",
        "application/openmetrics-text",
    )
    .unwrap();
    assert!(
        head.contains("application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    assert!(body.ends_with("# EOF\n"), "{body}");
    let (head, body) = ask_for_text(host.directory(), "GET", "/metrics", "*/*").unwrap();
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    let of = r#"plugin="scripted",version="0.1.0""#;
    for line in [
        "# HELP plugin_scripted_hits_total a counter".to_owned(),
        "# TYPE plugin_scripted_hits_total counter".to_owned(),
        format!("plugin_scripted_hits_total{{{of}}} 2"),
        format!(r#"plugin_scripted_answers_total{{{of},kind="a \"b\""}} 1"#),
        format!("plugin_scripted_entries{{{of}}} 2.5"),
        format!(r#"plugin_scripted_sizes_bucket{{{of},le="1"}} 0"#),
        format!(r#"plugin_scripted_sizes_bucket{{{of},le="10"}} 1"#),
        format!(r#"plugin_scripted_sizes_bucket{{{of},le="+Inf"}} 2"#),
        format!("plugin_scripted_sizes_sum{{{of}}} 55.0"),
        format!("plugin_scripted_sizes_count{{{of}}} 2"),
    ] {
        assert!(body.lines().any(|shown| shown == line), "{line} in\n{body}");
    }
    let (code, shown, _) = host.ask(&["metrics"]);
    assert_eq!(code, 0);
    let series = |text: &str| -> Vec<String> {
        let names = text.lines().map(|line| line.rsplit_once(' '));
        names
            .flatten()
            .map(|(series, _)| series.to_owned())
            .collect()
    };
    assert_eq!(series(&shown), series(&body), "the command shows the same");
}

#[test]
fn series_beyond_the_bound_are_counted_together_and_the_log_says_so_seldom() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let numbers: Vec<Value> = (0..600)
        .map(|client| json!({ "labelled": ["clients", "client", client.to_string()] }))
        .collect();
    count(&mut gateway, &json!(numbers));
    let shown = line(
        &host,
        r#"plugin_scripted_clients_total{plugin="scripted",version="0.1.0",client="overflow"}"#,
    );
    assert!(shown.ends_with(" 88"), "{shown}");
    let series = exposition(&host)
        .matches("plugin_scripted_clients_total{")
        .count();
    assert_eq!(series, 513);
    host.log_line(&["further ones count as one", "scripted", "clients"]);
    let lines = host.log().matches("further ones count as one").count();
    assert!(lines <= 7, "{lines} lines for 88 series");
}

#[test]
fn a_metric_that_cannot_be_fails_the_plugin_that_wants_it_and_says_why() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    count(&mut gateway, &json!([{ "counter": "n" }]));
    for (number, reason) in [
        (json!({ "counter": "no name" }), "is no name"),
        (
            json!({ "gauge": ["n", 1.0] }),
            "there is a metric of that name already",
        ),
        (json!({ "labelled": ["m", "plugin", "x"] }), "is the host's"),
    ] {
        let token = gateway.route([("scripted", json!([{ "count": number }]))]);
        assert_eq!(host.gateway().call(token, get("/")), "error 1");
        host.log_line(&["scripted 0.1.0 failed", reason]);
    }
}

#[test]
fn after_an_upgrade_the_old_versions_numbers_stand_still_beside_the_new_ones() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", json!([{ "count": { "counter": "hits" } }]))]);
    gateway.call(token, get("/"));
    upgrade(&host.plugins(), "scripted", "0.2.0", &Value::Null);
    host.log_line(&["plugin unloaded", "version=0.1.0"]);
    gateway.call(token, get("/"));
    gateway.call(token, get("/"));
    let of = |version: &str| {
        let begin =
            format!(r#"plugin_scripted_hits_total{{plugin="scripted",version="{version}"}} "#);
        line(&host, &begin)[begin.len()..].to_owned()
    };
    assert_eq!((of("0.1.0"), of("0.2.0")), ("1".to_owned(), "2".to_owned()));
}

#[test]
fn with_another_worker_numbers_begin_at_zero() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let token = gateway.route([("scripted", json!([{ "count": { "counter": "hits" } }]))]);
    for _ in 0..5 {
        gateway.call(token, get("/"));
    }
    host.replace_worker();
    let begin = r#"plugin_scripted_hits_total{plugin="scripted",version="0.1.0"} "#;
    wait_for("the next worker counts from zero", || {
        // The connection may still be with the old one.
        gateway.call(token, get("/"));
        let exposition = exposition(&host);
        let mut lines = exposition.lines();
        let count = lines.find_map(|line| line.strip_prefix(begin))?;
        assert!(count.parse::<u64>().unwrap() < 5, "{count}");
        Some(())
    });
}
