//! Plugins that call other services with the host's client: what arrives, what comes back, what is
//! shared, and what becomes of a call whose service does not do its part.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    Gateway, Host, get, response,
    service::{Authority, Service},
    wait_for,
};

/// A host with the plugin `outgoing`, whose part of a call is bounded so.
fn host_within(milliseconds: u64) -> Host {
    Host::builder()
        .plugin_json("outgoing", json!({ "timeout_ms": milliseconds }))
        .start()
}

/// What comes of a call of a route that says so.
fn call(gateway: &mut Gateway, conf: Value) -> String {
    let token = gateway.route([("outgoing", conf)]);
    gateway.call(token, get("/")).to_string()
}

/// Checks what an error of the client is told to the plugin as.
#[track_caller]
fn check_error(answer: &str, kind: &str, parts: &[&str]) {
    assert!(
        answer.starts_with(&format!("stop 502 headers [x-kind='{kind}'")),
        "{answer}"
    );
    for part in parts {
        assert!(answer.contains(part), "{part}: {answer}");
    }
}

/// A server that does the same to each connection, and says where it is.
fn server(serve: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        listener
            .incoming()
            .for_each(|stream| serve(stream.unwrap()))
    });
    format!("http://{address}/")
}

/// Waits for a request of a client, as far as its head.
fn read_request(stream: &mut TcpStream) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        request.push(byte[0]);
    }
}

#[test]
fn a_plugin_sends_what_it_wants_and_gets_what_the_service_answers() {
    let (host, service) = (Host::with("outgoing"), Service::start());
    let answer = call(
        &mut host.gateway(),
        json!({
            "url": service.url("/echo?v=1"),
            "method": "POST",
            "query": [["user", "a b&admin=1"]],
            "headers": [["X-One", "1"], ["Host", "other.example"]],
            "body": "hello",
        }),
    );
    for part in [
        "stop 200 headers [x-status='200'] body 'POST /echo?v=1&user=a+b%26admin%3D1",
        r#""content-length": "5""#,
        r#""host": "other.example""#,
        r#""user-agent": "plugin-host/"#,
        r#""x-one": "1""#,
        "hello'",
    ] {
        assert!(answer.contains(part), "{part}: {answer}");
    }
}

#[test]
fn an_answer_of_any_status_is_an_answer_and_a_redirect_is_not_followed() {
    let (host, service) = (Host::with("outgoing"), Service::start());
    let mut gateway = host.gateway();
    for status in [204, 301, 404, 503] {
        let conf = json!({ "url": service.url(&format!("/status/{status}")) });
        assert_eq!(
            call(&mut gateway, conf),
            format!("stop 200 headers [x-status='{status}'] body ''")
        );
    }
}

#[test]
fn the_response_phase_calls_other_services_as_well() {
    let (host, service) = (Host::with("outgoing"), Service::start());
    let mut gateway = host.gateway();
    let token = gateway.route([("outgoing", json!({ "url": service.url("/bytes/3") }))]);
    assert_eq!(
        gateway.call(token, response(200)),
        "answer 0 headers [x-status='200'] body 'xxx'"
    );
}

#[test]
fn calls_one_after_the_other_share_a_connection_whichever_loop_serves_them() {
    let service = Service::start();
    let host = Host::builder()
        .plugin("outgoing")
        .flag("--event-loops", "4")
        .start();
    for _ in 0..8 {
        let conf = json!({ "url": service.url("/bytes/10") });
        let answer = call(&mut host.gateway(), conf);
        assert!(answer.contains("xxxxxxxxxx"), "{answer}");
    }
    assert_eq!((service.accepted(), service.requests()), (1, 8));
}

#[test]
fn a_body_arrives_piece_by_piece_before_its_end() {
    let (host, service) = (Host::with("outgoing"), Service::start());
    let mut gateway = host.gateway();
    let conf = json!({ "url": service.url("/pieces/5/200"), "stream": true });
    let token = gateway.route([("outgoing", conf)]);
    gateway.begin(token, get("/"));
    host.log_line(&["a piece of 1000 bytes"]);
    assert!(gateway.is_silent(), "four more are to come");
    assert_eq!(
        gateway.finish(),
        "stop 200 headers [x-status='200'] body '1000 1000 1000 1000 1000'"
    );
}

#[test]
fn nobody_waits_while_a_plugin_waits_for_another_service() {
    let service = Service::start();
    let host = Host::builder()
        .plugin("outgoing")
        .flag("--event-loops", "1")
        .start();
    let mut waiting = host.gateway();
    let conf = json!({ "url": service.url("/slow/1500") });
    let token = waiting.prepare("route#1#pre#1", [("outgoing", conf)]);
    waiting.begin(token, get("/"));
    let mut other = host.gateway();
    let free = other.prepare("route#2#pre#1", [("outgoing", json!({}))]);
    assert_eq!(other.call(free, get("/")), "unchanged");
    assert!(waiting.is_silent());
    assert_eq!(
        waiting.finish(),
        "stop 200 headers [x-status='200'] body 'slow'"
    );
}

#[test]
fn a_plugin_hears_of_a_slow_service_just_before_its_own_time_is_over() {
    let (host, service) = (host_within(300), Service::start());
    let mut gateway = host.gateway();
    let url = service.url("/slow/5000");
    let began = Instant::now();
    let answer = call(&mut gateway, json!({ "url": url }));
    check_error(
        &answer,
        "Timeout",
        &["http://127.0.0.1:", "has not answered within"],
    );
    assert!(began.elapsed() >= Duration::from_millis(250), "too early");
    wait_for("the service sees that nobody waits any more", || {
        (service.abandoned() == 1 && service.open() == 0).then_some(())
    });
    // The same in the middle of a body.
    let url = service.url("/pieces/100/50");
    let answer = call(&mut gateway, json!({ "url": url }));
    check_error(
        &answer,
        "Timeout",
        &["has not sent its whole answer within"],
    );
}

#[test]
fn a_request_has_the_time_that_the_plugin_gives_it_where_that_is_shorter() {
    let (host, service) = (Host::with("outgoing"), Service::start());
    let url = service.url("/slow/5000");
    let began = Instant::now();
    let answer = call(
        &mut host.gateway(),
        json!({ "url": url, "timeout_ms": 100 }),
    );
    check_error(&answer, "Timeout", &["within 100 ms"]);
    assert!(began.elapsed() < Duration::from_secs(4));
}

#[test]
fn a_request_that_the_plugin_gives_up_ends_for_the_service_too() {
    let (host, service) = (Host::with("outgoing"), Service::start());
    let url = service.url("/slow/60000");
    let answer = call(
        &mut host.gateway(),
        json!({ "url": url, "give_up_after_ms": 200 }),
    );
    assert_eq!(answer, "stop 200 headers [] body 'given up'");
    wait_for("the service sees that nobody waits any more", || {
        (service.abandoned() == 1 && service.open() == 0).then_some(())
    });
}

#[test]
fn a_service_that_is_not_there_or_is_none_is_named_in_the_error_with_what_it_did() {
    let host = Host::with("outgoing");
    let mut gateway = host.gateway();
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let answer = call(&mut gateway, json!({ "url": format!("http://{free}/") }));
    check_error(&answer, "Connect", &[&format!("http://{free}"), "refused"]);

    let answer = call(&mut gateway, json!({ "url": "http://nobody.invalid/" }));
    check_error(
        &answer,
        "Connect",
        &["cannot connect to http://nobody.invalid"],
    );

    let closes = server(drop);
    let answer = call(&mut gateway, json!({ "url": closes }));
    check_error(&answer, "Broken", &["the connection to http://127.0.0.1:"]);

    let resets = server(|mut stream| {
        read_request(&mut stream);
        let linger = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
        linger.unwrap();
    });
    let answer = call(&mut gateway, json!({ "url": resets }));
    check_error(&answer, "Broken", &["reset"]);

    let breaks_off = server(|mut stream| {
        read_request(&mut stream);
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf of it";
        stream.write_all(head).unwrap();
    });
    let answer = call(&mut gateway, json!({ "url": breaks_off }));
    check_error(
        &answer,
        "Broken",
        &["was closed before the answer was whole"],
    );

    let mumbles = server(|mut stream| {
        read_request(&mut stream);
        stream.write_all(b"220 mail.example ESMTP\r\n\r\n").unwrap();
    });
    let answer = call(&mut gateway, json!({ "url": mumbles }));
    check_error(&answer, "Broken", &["is no HTTP/1.1"]);
}

#[test]
fn what_only_reads_is_sent_again_where_a_used_connection_was_closed_under_it() {
    let (host, service) = (Host::with("outgoing"), Service::start());
    let mut gateway = host.gateway();
    let url = service.url("/once");
    for _ in 0..3 {
        let answer = call(&mut gateway, json!({ "url": url }));
        assert_eq!(answer, "stop 200 headers [x-status='200'] body 'once'");
    }
    assert_eq!(service.accepted(), 3);
    // Nobody knows what the service has done with it.
    let answer = call(&mut gateway, json!({ "url": url, "method": "POST" }));
    check_error(&answer, "Broken", &["closed"]);
}

#[test]
fn secrets_of_a_request_are_in_no_error_and_in_no_log() {
    let host = Host::with("outgoing");
    let mut gateway = host.gateway();
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for (conf, kind) in [
        (
            json!({ "url": format!("http://{free}/hunter2?a=hunter2#hunter2"), "headers": [["authorization", "hunter2"]], "body": "hunter2" }),
            "Connect",
        ),
        (
            json!({ "url": format!("http://hunter2:hunter2@{free}/") }),
            "Request",
        ),
        (json!({ "url": "hunter2 is no URL" }), "Request"),
        (
            json!({ "url": format!("http://{free}/"), "headers": [["x-secret", "hunter2\n"]] }),
            "Request",
        ),
        (
            json!({ "url": format!("http://{free}/"), "headers": [["hunter2 name", "x"]] }),
            "Request",
        ),
    ] {
        let answer = call(&mut gateway, conf);
        check_error(&answer, kind, &[]);
        assert!(!answer.contains("hunter2"), "{answer}");
    }
    assert!(!host.log().contains("hunter2"));
}

#[test]
fn headers_of_the_connection_are_not_the_plugins_to_set() {
    let (host, service) = (Host::with("outgoing"), Service::start());
    let mut gateway = host.gateway();
    for header in [
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "Upgrade",
    ] {
        let conf = json!({ "url": service.url("/echo"), "headers": [[header, "1"]] });
        let answer = call(&mut gateway, conf);
        check_error(&answer, "Request", &["is the client's own header"]);
    }
    assert_eq!(service.accepted(), 0);
}

#[test]
fn over_tls_the_operators_roots_are_trusted_and_names_are_checked() {
    let authority = Authority::new();
    let service = Service::start_tls(&authority, "localhost");
    let directory = tempfile::tempdir().unwrap();
    let file = authority.file(directory.path());
    let host = Host::builder()
        .plugin("outgoing")
        .flag("--http-client-ca", file.to_str().unwrap())
        .start();
    let mut gateway = host.gateway();
    for _ in 0..3 {
        let url = format!("{}/bytes/2", service.url_of("localhost"));
        assert_eq!(
            call(&mut gateway, json!({ "url": url })),
            "stop 200 headers [x-status='200'] body 'xx'"
        );
    }
    assert_eq!(service.accepted(), 1, "the connection is used again");
    let answer = call(&mut gateway, json!({ "url": service.url("/bytes/2") }));
    check_error(
        &answer,
        "Tls",
        &[
            "no secure connection to https://127.0.0.1:",
            "not valid for name",
        ],
    );
    assert_eq!(service.requests(), 3);
}

#[test]
fn over_tls_nobody_is_trusted_whom_no_root_vouches_for() {
    let service = Service::start_tls(&Authority::new(), "localhost");
    let host = Host::with("outgoing");
    let url = format!("{}/bytes/2", service.url_of("localhost"));
    let answer = call(&mut host.gateway(), json!({ "url": url }));
    check_error(
        &answer,
        "Tls",
        &[
            "no secure connection to https://localhost:",
            "UnknownIssuer",
        ],
    );
    assert_eq!(service.requests(), 0);
    // Who speaks no TLS at all is nobody to trust either.
    let plain = Service::start();
    let url = plain.url_of("localhost").replace("http:", "https:");
    let answer = call(&mut host.gateway(), json!({ "url": url }));
    check_error(&answer, "Tls", &["https://localhost:"]);
}

#[test]
fn a_plugin_calls_out_while_it_is_loaded_and_in_its_rehearsal() {
    let authority = Authority::new();
    let service = Service::start_tls(&authority, "localhost");
    let directory = tempfile::tempdir().unwrap();
    let file = authority.file(directory.path());
    let url = format!("{}/bytes/5", service.url_of("localhost"));
    let _host = {
        let host = Host::builder()
            .plugin_json("outgoing", json!({ "settings": { "on_load": url } }))
            .flag("--http-client-ca", file.to_str().unwrap())
            .start();
        host.log_line(&["the service said: xxxxx"]);
        host
    };
    assert_eq!(service.requests(), 2, "once there, once here");
}

#[test]
fn the_client_starts_with_the_first_request_and_not_before() {
    let (host, service) = (Host::with("outgoing"), Service::start());
    let mut gateway = host.gateway();
    let threads = |host: &Host| {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", host.worker())).unwrap();
        let names = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")));
        names
            .filter(|name| name.as_ref().is_ok_and(|name| name.trim() == "http-client"))
            .count()
    };
    assert_eq!(call(&mut gateway, json!({})), "unchanged");
    assert_eq!(threads(&host), 0);
    call(&mut gateway, json!({ "url": service.url("/bytes/1") }));
    assert!(threads(&host) > 0);
}

#[test]
fn an_operator_can_switch_the_client_off() {
    let service = Service::start();
    let host = Host::builder()
        .plugin("outgoing")
        .flag("--http-client", "false")
        .start();
    let answer = call(&mut host.gateway(), json!({ "url": service.url("/echo") }));
    check_error(&answer, "Unavailable", &["--http-client"]);
    assert_eq!(service.accepted(), 0);
}
