//! The bounds of the host's HTTP client, each reached by really calling a service.

use serde_json::{Value, json};

use crate::support::{Gateway, Host, get, plugin_host, service::Service, wait_for};

fn call(gateway: &mut Gateway, conf: Value) -> String {
    let token = gateway.route([("outgoing", conf)]);
    gateway.call(token, get("/")).to_string()
}

#[track_caller]
fn check_error(answer: &str, kind: &str, parts: &[&str]) {
    assert!(answer.contains(&format!("x-kind='{kind}'")), "{answer}");
    for part in parts {
        assert!(answer.contains(part), "{part}: {answer}");
    }
}

/// Begins a call on each of so many connections of a gateway.
fn begin(host: &Host, count: usize, conf: &Value) -> Vec<Gateway> {
    let begin = |_| {
        let mut gateway = host.gateway();
        let token = gateway.route([("outgoing", conf.clone())]);
        gateway.begin(token, get("/"));
        gateway
    };
    (0..count).map(begin).collect()
}

#[test]
fn a_body_larger_than_allowed_is_refused_at_its_announcement_or_where_it_gets_too_long() {
    let service = Service::start();
    let host = Host::builder()
        .plugin("outgoing")
        .flag("--http-client-max-body", "10000")
        .start();
    let mut gateway = host.gateway();
    let mut fetch = |path: &str, max_body: Value| {
        let conf = json!({ "url": service.url(path), "max_body": max_body });
        call(&mut gateway, conf)
    };
    assert!(fetch("/bytes/10000", Value::Null).contains("x-status='200'"));
    check_error(
        &fetch("/bytes/10001", Value::Null),
        "TooLarge",
        &["more than 10000 bytes"],
    );
    check_error(
        &fetch("/pieces/11/0", Value::Null),
        "TooLarge",
        &["more than 10000 bytes"],
    );
    // A plugin may want less, and gets no more.
    check_error(
        &fetch("/bytes/101", json!(100)),
        "TooLarge",
        &["more than 100 bytes"],
    );
    check_error(
        &fetch("/bytes/10001", json!(50_000)),
        "TooLarge",
        &["more than 10000 bytes"],
    );
    wait_for("connections whose answer was refused are closed", || {
        (service.open() <= 1).then_some(())
    });
    let conf = json!({ "url": service.url("/echo"), "method": "POST", "body": "x".repeat(10_001) });
    check_error(
        &call(&mut gateway, conf),
        "TooLarge",
        &["a body of more than 10000 bytes"],
    );
}

#[test]
fn more_headers_than_allowed_are_refused() {
    let (host, service) = (Host::with("outgoing"), Service::start());
    let mut gateway = host.gateway();
    let mut fetch = |path: &str| call(&mut gateway, json!({ "url": service.url(path) }));
    assert!(fetch("/header/60000").contains("x-status='200'"));
    check_error(&fetch("/header/70000"), "TooLarge", &["of headers"]);
    assert!(fetch("/headers/90").contains("x-status='200'"));
    check_error(&fetch("/headers/110"), "TooLarge", &["of headers"]);
}

#[test]
fn requests_beyond_a_plugins_bound_wait_and_are_told_when_their_time_is_over() {
    let service = Service::start();
    let host = Host::builder()
        .plugin("outgoing")
        .flag("--http-client-requests-per-plugin", "2")
        .start();
    let slow = json!({ "url": service.url("/slow/1500") });
    let mut open = begin(&host, 2, &slow);
    wait_for("both are underway", || {
        (service.requests() == 2).then_some(())
    });
    let mut third = host.gateway();
    let conf = json!({ "url": service.url("/bytes/1"), "timeout_ms": 100 });
    check_error(
        &call(&mut third, conf),
        "Busy",
        &["all 2 of this plugin", "--http-client-requests-per-plugin"],
    );
    // One with more time gets its turn.
    let answer = call(&mut third, json!({ "url": service.url("/bytes/1") }));
    assert!(answer.contains("x-status='200'"), "{answer}");
    for gateway in &mut open {
        assert!(gateway.finish().to_string().contains("body 'slow'"));
    }
}

#[test]
fn requests_beyond_the_bound_on_all_plugins_wait_and_are_told_when_their_time_is_over() {
    let service = Service::start();
    let host = Host::builder()
        .plugin("outgoing")
        .flag("--http-client-requests", "1")
        .start();
    let mut open = begin(&host, 1, &json!({ "url": service.url("/slow/1000") }));
    wait_for("it is underway", || (service.requests() == 1).then_some(()));
    let conf = json!({ "url": service.url("/bytes/1"), "timeout_ms": 100 });
    check_error(
        &call(&mut host.gateway(), conf),
        "Busy",
        &["all 1 are in use", "--http-client-requests)"],
    );
    assert!(open[0].finish().to_string().contains("body 'slow'"));
}

#[test]
fn connections_without_a_request_make_room_and_those_with_one_do_not() {
    let (first, second) = (Service::start(), Service::start());
    let host = Host::builder()
        .plugin("outgoing")
        .flag("--http-client-connections", "1")
        .start();
    let mut gateway = host.gateway();
    let fetch = |service: &Service| json!({ "url": service.url("/bytes/1") });
    for service in [&first, &second, &first] {
        let answer = call(&mut gateway, fetch(service));
        assert!(answer.contains("x-status='200'"), "{answer}");
    }
    assert_eq!((first.accepted(), second.accepted()), (2, 1));

    let mut open = begin(&host, 1, &json!({ "url": first.url("/slow/1000") }));
    wait_for("it is underway", || (first.requests() == 3).then_some(()));
    let conf = json!({ "url": second.url("/bytes/1"), "timeout_ms": 100 });
    check_error(
        &call(&mut gateway, conf),
        "Busy",
        &["all 1 connections", "--http-client-connections"],
    );
    assert!(open[0].finish().to_string().contains("body 'slow'"));
}

#[test]
fn connections_are_kept_for_the_next_request_and_not_for_long() {
    let service = Service::start();
    let host = Host::with("outgoing");
    for _ in 0..2 {
        let mut calls = begin(&host, 40, &json!({ "url": service.url("/slow/700") }));
        wait_for("all are underway", || (service.open() == 40).then_some(()));
        for gateway in &mut calls {
            assert!(gateway.finish().to_string().contains("body 'slow'"));
        }
    }
    assert_eq!((service.accepted(), service.requests()), (40, 80));
    wait_for("all are closed after 4 s", || {
        (service.open() == 0).then_some(())
    });
}

#[test]
fn a_connection_that_does_not_come_about_is_given_up() {
    // A listener whose queue is full: the system answers no further attempt.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let _first = std::net::TcpStream::connect(address).unwrap();
    let host = Host::with("outgoing");
    let mut gateway = host.gateway();
    let url = format!("http://{address}/");
    let answer = call(&mut gateway, json!({ "url": url, "timeout_ms": 300 }));
    check_error(
        &answer,
        "Timeout",
        &["could not be connected to within 300 ms"],
    );
    // With more time than that, after 10 s.
    let host = Host::builder()
        .plugin("outgoing")
        .flag("--call-budget", "19s")
        .start();
    let answer = call(&mut host.gateway(), json!({ "url": url }));
    check_error(&answer, "Connect", &["timed out"]);
}

#[test]
fn a_file_of_roots_that_is_none_keeps_a_host_from_starting() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    let check = |expected: &str| {
        let flag = format!("--http-client-ca={}", file.display());
        let ended = plugin_host(&["run", "--check-config", &flag]);
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.stderr.contains(expected), "{ended:?}");
        assert!(ended.stderr.contains("--http-client-ca"), "{ended:?}");
    };
    check("cannot be read: No such file");
    std::fs::write(&file, "no certificate").unwrap();
    check("has no certificate in PEM");
    std::fs::write(&file, vec![b'x'; (1 << 20) + 1]).unwrap();
    check("has more than 1048576 bytes");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    std::fs::write(&file, broken).unwrap();
    check("has a certificate that is no root of trust");
}

#[test]
fn a_worker_whose_file_of_roots_has_gone_serves_without_it_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let file = crate::support::service::Authority::new().file(directory.path());
    let host = Host::builder()
        .plugin("outgoing")
        .flag("--http-client-ca", file.to_str().unwrap())
        .start();
    assert_eq!(call(&mut host.gateway(), json!({})), "unchanged");
    std::fs::remove_file(&file).unwrap();
    host.replace_worker();
    host.log_line(&["trusts the system's roots alone", "cannot be read"]);
    assert_eq!(call(&mut host.gateway(), json!({})), "unchanged");
}
