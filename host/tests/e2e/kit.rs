//! What the authors' test kit says becomes of a request or a response is what a real host and a gateway
//! make of it: the same plugin, in the test's own process and as a library, with the same steps.

use plugin_abi::testing::{self, ClientRequest, Outcome, UpstreamResponse};
use scripted::Scripted;
use serde_json::{Value, json};

use crate::support::{
    Host,
    http::{HttpGateway, Response, latin1},
    upstream::{Received, Upstream},
};

/// A client's request, and the upstream's answer to it.
struct Exchange {
    method: &'static str,
    target: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
    status: &'static str,
    answer_headers: &'static [(&'static str, &'static str)],
    answer_body: &'static str,
}

impl Default for Exchange {
    fn default() -> Self {
        Self {
            method: "POST",
            target: "/a%20b/../c?x=1&x=%26&flag&empty=&y=a+b",
            headers: &[("x-one", "1"), ("x-two", "a"), ("x-two", "b")],
            body: "body",
            status: "200 OK",
            answer_headers: &[
                ("Content-Type", "text/html"),
                ("Location", "/elsewhere"),
                ("Set-Cookie", "a=1"),
                ("Set-Cookie", "b=2"),
            ],
            answer_body: "upstream's",
        }
    }
}

/// What one side says became of an exchange, in an order of its own.
#[derive(Debug, PartialEq, Eq)]
struct Became {
    /// Method, URI, headers and body as the upstream got them.
    upstream: Option<(String, String, Vec<String>, String)>,
    /// Status, headers and body as the client got them; the body of a page of the gateway's own is not
    /// the same.
    client: (u16, Vec<String>, Option<String>),
}

/// What a gateway writes by itself, or is not the kit's to say.
const OF_THE_GATEWAY: [&str; 10] = [
    "connection",
    "content-length",
    "date",
    "server",
    "transfer-encoding",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
];

fn sorted<'a>(headers: impl Iterator<Item = (String, &'a [u8])>) -> Vec<String> {
    let mut lines: Vec<_> = headers
        .map(|(name, value)| (name.to_ascii_lowercase(), latin1(value)))
        .filter(|(name, _)| !OF_THE_GATEWAY.contains(&name.as_str()))
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    lines.sort();
    lines
}

/// The kit's side.
fn in_the_kit(
    request_steps: Option<&Value>,
    response_steps: Option<&Value>,
    exchange: &Exchange,
    host: &str,
) -> Became {
    let gateway = testing::Gateway::new();
    let plugin = gateway.load::<Scripted>();
    let mut route = gateway.route();
    if let Some(steps) = request_steps {
        route = route.on_request(&plugin, steps);
    }
    if let Some(steps) = response_steps {
        route = route.on_response(&plugin, steps);
    }
    let method = exchange.method.parse().unwrap();
    let request = testing::request(method, exchange.target)
        .header("host", host)
        .header("user-agent", "test")
        .body(exchange.body);
    let request = exchange
        .headers
        .iter()
        .fold(request, |request: ClientRequest, (name, value)| {
            request.header(name, value)
        });
    let status = exchange.status.split(' ').next().unwrap().parse().unwrap();
    let answer = exchange.answer_headers.iter().fold(
        testing::response(status),
        |answer: UpstreamResponse, (name, value)| answer.header(name, value),
    );
    let answer = match exchange.answer_body {
        "" => answer,
        body => answer.body(body),
    };
    became(&route.exchange(request, answer))
}

fn became(outcome: &Outcome) -> Became {
    let named = |(name, value)| (latin1(name), value);
    let client = outcome.client();
    Became {
        upstream: outcome.went_upstream().then(|| {
            let upstream = outcome.upstream();
            (
                upstream.method().to_string(),
                upstream.uri().to_owned(),
                sorted(upstream.all_headers().map(named)),
                latin1(upstream.body()),
            )
        }),
        client: (
            client.status(),
            sorted(client.all_headers().map(named)),
            (!client.is_error_page()).then(|| latin1(client.body())),
        ),
    }
}

/// The side of a real host behind the development gateway.
struct Real {
    upstream: Upstream,
    gateway: HttpGateway,
    _host: Host,
}

impl Real {
    /// A host name for each pair of scripts.
    fn start(cases: &[(Option<Value>, Option<Value>)]) -> Self {
        let host = Host::with("scripted");
        let upstream = Upstream::start();
        let routes: Vec<Value> = cases
            .iter()
            .enumerate()
            .map(|(number, (request, response))| {
                let mut plugins = json!({});
                for (phase, steps) in [("pre-req", request), ("post-resp", response)] {
                    if let Some(steps) = steps {
                        let conf = json!([{ "name": "scripted", "value": steps.to_string() }]);
                        plugins[format!("ext-plugin-{phase}")] = json!({ "conf": conf });
                    }
                }
                json!({
                    "uri": "/*",
                    "host": name_of(number),
                    "plugins": plugins,
                    "upstream": { "nodes": { upstream.node(): 1 } },
                })
            })
            .collect();
        let routes = json!({ "routes": routes });
        let gateway = HttpGateway::start(&format!("{routes}\n#END\n"), &host.socket());
        Self {
            upstream,
            gateway,
            _host: host,
        }
    }

    fn became(&self, exchange: &Exchange, host: &str) -> Became {
        let mut answer = format!("HTTP/1.1 {}\r\n", exchange.status);
        for (name, value) in exchange.answer_headers {
            answer += &format!("{name}: {value}\r\n");
        }
        if !exchange.answer_body.is_empty() {
            answer += &format!("Content-Length: {}\r\n", exchange.answer_body.len());
        }
        self.upstream
            .answer(format!("{answer}\r\n{}", exchange.answer_body).into());
        let mut request = format!(
            "{} {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: test\r\nConnection: close\r\nContent-Length: {}\r\n",
            exchange.method,
            exchange.target,
            exchange.body.len(),
        );
        for (name, value) in exchange.headers {
            request += &format!("{name}: {value}\r\n");
        }
        let response = self
            .gateway
            .send(format!("{request}\r\n{}", exchange.body).as_bytes());
        let received = self.upstream.received();
        assert!(received.len() <= 1, "{received:?}");
        Became {
            upstream: received.first().map(as_received),
            client: as_answered(&response),
        }
    }
}

fn as_received(received: &Received) -> (String, String, Vec<String>, String) {
    let headers = received.headers.iter();
    (
        received.method.clone(),
        received.uri.clone(),
        sorted(headers.map(|(name, value)| (name.clone(), value.as_bytes()))),
        latin1(&received.body),
    )
}

fn as_answered(response: &Response) -> (u16, Vec<String>, Option<String>) {
    let headers = response.headers.iter();
    let is_page = response.code() >= 400
        && response.header("content-type") == Some("text/html; charset=utf-8")
        && response.body().contains("<center>plugin-host-gateway/");
    (
        response.code(),
        sorted(headers.map(|(name, value)| (name.clone(), value.as_bytes()))),
        (!is_page).then(|| response.body()),
    )
}

fn name_of(case: usize) -> String {
    format!("case-{case}.example")
}

/// Compares both sides on each of these.
fn check(cases: Vec<(Option<Value>, Option<Value>)>, exchanges: &[Exchange]) {
    let real = Real::start(&cases);
    for (number, (request, response)) in cases.iter().enumerate() {
        for exchange in exchanges {
            let host = name_of(number);
            let kit = in_the_kit(request.as_ref(), response.as_ref(), exchange, &host);
            let real = real.became(exchange, &host);
            assert_eq!(
                kit, real,
                "left the kit, right a real host: {request:?} {response:?} on {} {}",
                exchange.method, exchange.target
            );
        }
    }
}

#[test]
fn the_kit_says_of_requests_what_a_real_host_and_a_gateway_do() {
    let steps = [
        json!([]),
        json!([{ "set_path": "/new path?%/ü" }]),
        json!([{ "set_header": ["X-One", "2"] }, { "set_header": ["x-two", "c"] }, { "set_header": ["x-new", "a\r\nb"] }]),
        json!([{ "remove_header": "X-Two" }, { "set_header": ["x-one", ""] }, { "remove_header": "host" }]),
        json!([{ "set_arg": ["x", "new &"] }]),
        json!([{ "append_arg": ["x", "3"] }, { "append_arg": ["flag", "1"] }, { "remove_arg": "y" }]),
        json!([{ "remove_arg": "x" }, { "remove_arg": "flag" }, { "remove_arg": "empty" }, { "remove_arg": "y" }]),
        json!([{ "set_body": "a longer body" }]),
        json!([
            { "set_response_header": ["X-Recorded", "1"] },
            { "append_response_header": ["x-recorded", "2"] },
            { "set_response_header": ["Set-Cookie", "c=3"] },
            { "set_response_header": ["Content-Type", "ignored"] },
        ]),
        json!([{ "report": ["x-method", "method"] }, { "report": ["x-path", "path"] }, { "report": ["x-args", { "arg": "x" }] },
               { "report": ["x-header", { "header": "x-two" }] }, { "report": ["x-body", "body"] }, { "report": ["x-ip", "client_ip"] }]),
        json!(["request_method", "request_uri", "uri", "args", "is_args", "scheme", "host", "http_x_two", "arg_x", "arg_flag", "arg_empty", "content_length", "remote_addr", "no_such"]
            .map(|name| json!({ "report": [format!("x-{}", name.replace('_', "-")), { "var": name }] }))),
        json!([{ "stop": { "status": 200, "headers": [["Set-Cookie", "a=1"], ["Set-Cookie", "b=2"], ["X-A", "1\n2"]], "body": "stop" } }]),
        json!([{ "set_response_header": ["X-Recorded", "1"] }, { "stop": { "status": 404 } }]),
        json!([{ "stop": { "status": 302, "headers": [["Location", "/login"], ["Content-Length", "7"], ["Server", "me"]] } }]),
        json!([{ "stop": { "status": 503, "headers": [["Content-Type", "application/json"]], "body": "{}" } }]),
        json!([{ "stop": { "status": 101 } }]),
        json!([{ "stop": { "status": 200, "headers": [["no name", "1"]] } }]),
        json!([{ "set_header": ["x-lost", "1"] }, { "fail": "no luck" }]),
        json!([{ "panic": "on purpose" }]),
        json!([{ "set_path": "no slash" }]),
        json!([{ "set_header": ["no name", "1"] }]),
        json!([{ "set_body": "" }]),
    ];
    let cases = steps.into_iter().map(|steps| (Some(steps), None)).collect();
    let exchanges = [
        Exchange::default(),
        Exchange {
            method: "GET",
            target: "/",
            body: "",
            ..Exchange::default()
        },
    ];
    check(cases, &exchanges);
}

#[test]
fn the_kit_says_of_responses_what_a_real_host_and_a_gateway_do() {
    let steps = [
        json!([]),
        json!([{ "set_status": 404 }]),
        json!([{ "set_status": 204 }]),
        json!([{ "set_header": ["set-cookie", "c=3"] }, { "append_header": ["X-New", "1"] }, { "append_header": ["X-New", "2\r\n3"] }]),
        json!([{ "remove_header": "content-type" }, { "remove_header": "Location" }]),
        json!([{ "set_header": ["Content-Length", "1"] }, { "set_header": ["Connection", "close"] }, { "set_header": ["Server", "me"] }]),
        json!([{ "set_body": "another body" }]),
        json!([{ "report": ["x-status", "status"] }, { "report": ["x-body", "body"] }, { "report": ["x-cookies", { "header": "set-cookie" }] }, { "report": ["x-uri", { "var": "request_uri" }] }]),
        json!([{ "fail": "no luck" }]),
        json!([{ "set_status": 99 }]),
        json!([{ "set_body": "" }]),
    ];
    let recorded = json!([{ "set_response_header": ["X-New", "recorded"] }, { "set_response_header": ["X-Recorded", "1"] }, { "set_response_header": ["Location", "ignored"] }]);
    let cases = steps
        .iter()
        .map(|steps| (None, Some(steps.clone())))
        .chain(
            steps
                .iter()
                .map(|steps| (Some(recorded.clone()), Some(steps.clone()))),
        )
        .collect();
    let exchanges = [
        Exchange::default(),
        Exchange {
            status: "404 Not Found",
            answer_headers: &[],
            answer_body: "none",
            ..Exchange::default()
        },
        Exchange {
            status: "204 No Content",
            answer_body: "",
            ..Exchange::default()
        },
    ];
    check(cases, &exchanges);
}
