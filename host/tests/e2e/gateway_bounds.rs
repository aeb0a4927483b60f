//! What the development gateway takes from clients and upstreams, at most.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::json;
use tempfile::TempDir;

use crate::support::{Host, PATIENCE, http::HttpGateway, runner::Runner, upstream::Upstream};

/// A gateway with a route to the built-in upstream, and no host.
fn start(flags: &[&str]) -> HttpGateway {
    let directory = TempDir::new().unwrap();
    let routes = "routes:\n  - uri: /*\n#END\n";
    std::fs::write(directory.path().join("apisix.yaml"), routes).unwrap();
    HttpGateway::start_in(directory, &[&["--socket=/nowhere"], flags].concat())
}

#[test]
fn a_body_above_the_bound_is_refused_and_the_log_names_the_flag() {
    let gateway = start(&["--max-body-bytes=10"]);
    let head = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let fits = gateway.send(format!("{head}Content-Length: 10\r\n\r\n0123456789").as_bytes());
    assert_eq!(fits.code(), 200);
    for too_large in [
        // Refused before it is sent.
        "Content-Length: 11\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nb\r\n0123456789a\r\n0\r\n\r\n",
    ] {
        let refused = gateway.send(format!("{head}{too_large}").as_bytes());
        assert_eq!(refused.status, "HTTP/1.1 413 Request Entity Too Large");
    }
    gateway.log_line(&["body is too large", "--max-body-bytes", "limit=10"]);
}

#[test]
fn an_upstreams_body_above_the_bound_is_refused_only_where_plugins_look_at_it() {
    let (host, upstream) = (Host::with("scripted"), Upstream::start());
    upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n0123456789a".to_vec());
    let nodes = json!({ "nodes": { upstream.node(): 1 } });
    let conf = json!([{ "name": "scripted", "value": "[]" }]);
    let file = json!({ "routes": [
        { "uri": "/seen", "upstream": nodes, "plugins": { "ext-plugin-post-resp": { "conf": conf } } },
        { "uri": "/passed", "upstream": nodes },
    ]});
    let directory = TempDir::new().unwrap();
    std::fs::write(
        directory.path().join("apisix.yaml"),
        format!("{file}\n#END\n"),
    )
    .unwrap();
    let socket = format!("--socket={}", host.socket().display());
    let gateway = HttpGateway::start_in(directory, &[&socket, "--max-body-bytes=10"]);
    assert_eq!(gateway.get("/seen", &[]).code(), 502);
    gateway.log_line(&["larger than 10 bytes", "--max-body-bytes"]);
    assert_eq!(gateway.get("/passed", &[]).body(), "0123456789a");
}

#[test]
fn connections_above_the_bound_wait_for_a_place() {
    let gateway = start(&["--max-connections=1"]);
    let connect = || {
        let mut stream = TcpStream::connect(gateway.address()).unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        stream
    };
    let answers = |stream: &mut TcpStream, patience: Duration| {
        stream.set_read_timeout(Some(patience)).unwrap();
        match stream.read(&mut [0; 16]) {
            Ok(read) => read > 0,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("{error}"),
        }
    };
    let mut first = connect();
    assert!(answers(&mut first, PATIENCE));
    let mut second = connect();
    assert!(!answers(&mut second, Duration::from_millis(200)));
    drop(first);
    assert!(answers(&mut second, PATIENCE));
}

#[test]
fn a_request_with_too_many_or_too_long_headers_is_refused() {
    let gateway = start(&[]);
    let many: Vec<String> = (0..300).map(|number| format!("X-{number}: 1")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(gateway.get("/", &many).code(), 431);
    let long = format!("X-Long: {}", "x".repeat(300_000));
    assert_eq!(gateway.get("/", &[&long]).code(), 431);
    assert_eq!(gateway.get("/", &[]).code(), 200);
}

#[test]
fn requests_that_no_gateway_takes_are_refused() {
    let gateway = start(&[]);
    for (request, expected) in [
        ("GET /../x HTTP/1.1\r\nHost: x\r\n", 400),
        ("GET / HTTP/1.1\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n", 400),
        ("TRACE / HTTP/1.1\r\nHost: x\r\n", 405),
        ("CONNECT x:1 HTTP/1.1\r\nHost: x\r\n", 405),
        ("GET http://x/a HTTP/1.1\r\nHost: y\r\n", 200),
    ] {
        let answer = gateway.send(format!("{request}Connection: close\r\n\r\n").as_bytes());
        assert_eq!(answer.code(), expected, "{request}");
    }
}

#[test]
fn an_upstream_that_is_not_there_is_a_bad_gateway() {
    let runner = Runner::start();
    let file = json!({ "routes": [{
        "uri": "/*",
        // Nobody listens on the port of a connection that is closed.
        "upstream": { "nodes": { crate::support::http::free_address().to_string(): 1 } },
    }]});
    let gateway = HttpGateway::start(&format!("{file}\n#END\n"), &runner.socket());
    assert_eq!(gateway.get("/", &[]).code(), 502);
    gateway.log_line(&["cannot connect to 127.0.0.1:"]);
}
