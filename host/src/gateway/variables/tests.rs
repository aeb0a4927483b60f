//! Variables of one request, asked for by name.

#![allow(
    clippy::unwrap_used,
    reason = "a failed expectation is the test's result"
)]
use std::path::Path;
use std::sync::LazyLock;

use super::*;
use crate::gateway::routes::RouteTable;

static NODE: LazyLock<Node> = LazyLock::new(|| Node {
    host: "10.1.1.1".to_owned(),
    port: 1980,
    weight: 1,
});

/// Asks for variables of one request, each with what is expected.
fn check(change: impl FnOnce(&mut Context<'_>), expected: &[(&str, Option<&str>)]) {
    let text = b"routes: [{id: r1, name: hello, uri: /}]\n#END";
    let table = RouteTable::parse(Path::new("apisix.yaml"), text, 1).unwrap();
    let headers = [
        Field::new("Host", "Example.com:8443"),
        Field::new("Content-Type", "text/plain"),
        Field::new("X-Many", "one"),
        Field::new("x-many", "two"),
        Field::new("X-Empty", ""),
        Field::new("Cookie", "a=1; b = 2;c"),
        Field::new("Cookie", "a=3"),
    ];
    let mut context = Context {
        client: "10.0.0.7:4321".parse().unwrap(),
        server: "[::1]:9080".parse().unwrap(),
        protocol: "HTTP/1.1",
        method: "POST",
        request_uri: b"/a%20b?x=%41+B&x=2&q=&z&Y=1",
        path: b"/a b",
        query: Some(b"x=%41+B&x=2&q=&z&Y=1"),
        headers: &headers,
        body: None,
        request_length: 99,
        received: SystemTime::now(),
        request_id: "00ff",
        connection: 5,
        connection_requests: 2,
        route: Some(&table.routes()[0]),
        upstream_uri: None,
        upstream_host: None,
        node: None,
    };
    change(&mut context);
    for (name, expected) in expected {
        let value = context.variable(name.as_bytes());
        let expected = expected.map(|expected| expected.as_bytes().to_vec());
        assert_eq!(value, expected, "{name}");
    }
}

#[test]
fn variables_of_the_request_are_those_of_nginx() {
    check(
        |_| {},
        &[
            ("remote_addr", Some("10.0.0.7")),
            ("remote_port", Some("4321")),
            ("binary_remote_addr", Some("\n\0\0\u{7}")),
            ("server_addr", Some("::1")),
            ("server_port", Some("9080")),
            ("server_protocol", Some("HTTP/1.1")),
            ("scheme", Some("http")),
            ("https", Some("")),
            ("request_method", Some("POST")),
            ("request_uri", Some("/a%20b?x=%41+B&x=2&q=&z&Y=1")),
            ("request", Some("POST /a%20b?x=%41+B&x=2&q=&z&Y=1 HTTP/1.1")),
            ("uri", Some("/a b")),
            ("args", Some("x=%41+B&x=2&q=&z&Y=1")),
            ("query_string", Some("x=%41+B&x=2&q=&z&Y=1")),
            ("is_args", Some("?")),
            ("host", Some("example.com")),
            ("content_type", Some("text/plain")),
            ("content_length", None),
            ("request_length", Some("99")),
            ("request_id", Some("00ff")),
            ("connection", Some("5")),
            ("connection_requests", Some("2")),
            ("status", Some("0")),
            ("bytes_sent", Some("0")),
            ("request_body", None),
            ("upstream_addr", None),
            ("nosuch", None),
        ],
    );
}

#[test]
fn headers_arguments_and_cookies_are_variables() {
    check(
        |_| {},
        &[
            ("http_host", Some("Example.com:8443")),
            ("http_x_many", Some("one, two")),
            ("http_X_Many", Some("one, two")),
            ("http_x_empty", Some("")),
            ("http_x_none", None),
            ("http_cookie", Some("a=1; b = 2;c; a=3")),
            ("cookie_a", Some("1")),
            ("cookie_b", Some("2")),
            ("cookie_c", None),
            ("arg_x", Some("A B")),
            ("arg_q", Some("")),
            ("arg_z", Some("true")),
            ("arg_Y", Some("1")),
            ("arg_y", None),
            ("arg_none", None),
        ],
    );
}

#[test]
fn variables_of_the_gateway_come_as_it_gets_to_know_them() {
    check(
        |_| {},
        &[
            ("route_id", Some("r1")),
            ("route_name", Some("hello")),
            ("upstream_uri", Some("")),
            ("upstream_host", None),
            ("consumer_name", None),
            ("balancer_ip", None),
        ],
    );
    check(
        |context| {
            context.node = Some(&NODE);
            context.upstream_uri = Some(b"/new");
            context.body = Some(b"text");
            context.query = Some(b"");
            context.route = None;
        },
        &[
            ("balancer_ip", Some("10.1.1.1")),
            ("balancer_port", Some("1980")),
            ("upstream_uri", Some("/new")),
            ("request_body", Some("text")),
            ("args", Some("")),
            ("is_args", Some("")),
            ("route_id", None),
        ],
    );
    check(
        |context| context.query = None,
        &[("args", None), ("is_args", Some("")), ("arg_x", None)],
    );
}

#[test]
fn values_are_bytes() {
    check(
        |context| {
            context.query = Some(b"x=%ff");
            assert_eq!(context.variable(b"arg_x").as_deref(), Some(&b"\xff"[..]));
            assert_eq!(context.variable(b"\xff"), None);
        },
        &[],
    );
}

#[test]
fn a_template_takes_the_values_of_the_variables_that_it_names() {
    check(
        |context| {
            for (template, expected) in [
                ("/plain", "/plain"),
                ("/$route_id/x", "/r1/x"),
                ("/${route_id}x$arg_q", "/r1x"),
                ("$nosuch-", "-"),
                ("\\$route_id 5$ ${route_id", "$route_id 5$ ${route_id"),
            ] {
                let resolved = resolve(template, context);
                assert_eq!(resolved, expected.as_bytes(), "{template}");
            }
        },
        &[],
    );
}

#[test]
fn a_time_is_written_with_its_date() {
    for (seconds, expected) in [
        (0, "1970-01-01T00:00:00+00:00"),
        (951_782_400, "2000-02-29T00:00:00+00:00"),
        (1_795_197_277, "2026-11-20T17:54:37+00:00"),
        (4_107_542_399, "2100-02-28T23:59:59+00:00"),
        (4_107_542_400, "2100-03-01T00:00:00+00:00"),
    ] {
        let time = UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(iso8601(time), expected);
    }
}
