//! The development gateway against recordings of a real one: for the same HTTP request, with a
//! runner that says what the recorded one said, it sends the same frames on the same connections,
//! the same request upstream, and the same response to the client.
//!
//! Of the two recorded gateways each has its own run, with its requests in the order in which they
//! were recorded, since some use what earlier ones have left: tokens, connections, the counter of
//! calls. What differs and why is in [`DIFFERENCES`], and in `docs/gateway.md`.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};

use crate::{
    capture::{Capture, RecordedFrame, first_frame},
    message::{Bytes, Message, Pair, Side},
    support::{
        http::{HttpGateway, Response, chunks, latin1},
        runner::{Runner, Said},
        upstream::{Received, Upstream},
    },
};

/// The recordings of the Go runner, in their order: each goes on where the one before has ended.
const GO: &[&str] = &[
    "say-first",
    "say-again",
    "say-args",
    "say-raw-bytes",
    "say-headers",
    "say-browser",
    "say-post-req",
    "say-method-head",
    "say-method-put",
    "say-method-delete",
    "say-method-options",
    "say-method-patch",
    "say-method-propfind",
    "fault-injection",
    "fault-injection-0-percent",
    "limit-req",
    "request-body-rewrite",
    "response-rewrite-body",
    "response-rewrite-500",
    "response-rewrite-filter",
    "response-rewrite-nomatch",
    "unknown-plugin",
    "no-conf",
    "pre-and-post",
];

/// The recordings of the scripted runner.
const STUB: &[&str] = &[
    "ask-many",
    "ask-no-body",
    "ask-large-body",
    "ask-response",
    "after-proxy-rewrite",
    "token-not-found-once",
    "upstream-204",
    "two-plugins-one-route",
];

/// What one gateway did because of an HTTP request, in lines that compare.
type Deeds = Vec<String>;

/// Where the development gateway differs: the recordings, what stands in a recorded line, and what
/// instead of it. Why is in `docs/gateway.md`.
const DIFFERENCES: &[(&[&str], &str, &str)] = &[(
    &[
        "ask-response",
        "response-rewrite-500",
        "response-rewrite-body",
        "response-rewrite-filter",
        "response-rewrite-nomatch",
        "upstream-204",
    ],
    "Server='echo-upstream '",
    "Server='echo-upstream'",
)];

/// A recorded gateway: its recordings, and the routes that follow from them.
struct Series {
    captures: Vec<Capture>,
    /// The route and the gateway's plugin of each token.
    tokens: HashMap<u32, (String, String)>,
    /// When the route file was modified, in seconds: the version in all keys.
    version: u64,
}

impl Series {
    fn load(names: &[&str]) -> Self {
        let captures: Vec<_> = names
            .iter()
            .map(|name| whole(Capture::load(name)))
            .collect();
        let (mut tokens, mut version) = (HashMap::new(), 0);
        for capture in &captures {
            let mut key = Vec::new();
            for frame in &capture.frames {
                match read(frame) {
                    Message::Prepare { key: asked, .. } => key = asked.unwrap().0,
                    Message::Token { conf_token } => {
                        let key = latin1(&key);
                        let parts: Vec<_> = key.split('#').collect();
                        tokens.insert(conf_token, (parts[1].to_owned(), parts[2].to_owned()));
                        version = parts[3].parse().unwrap();
                    }
                    _ => {}
                }
            }
        }
        Self {
            captures,
            tokens,
            version,
        }
    }

    /// The route file with which the recordings were made, as far as they tell.
    fn routes(&self, node: &str) -> String {
        let mut routes: BTreeMap<&str, Value> = BTreeMap::new();
        for capture in &self.captures {
            let path = latin1(&capture.http_request.0);
            let path = path.split([' ', '?']).nth(1).unwrap();
            let mut conf = Value::Null;
            for frame in &capture.frames {
                match read(frame) {
                    Message::Prepare { conf: asked, .. } => conf = as_conf(&asked),
                    Message::RequestCall { conf_token, .. }
                    | Message::ResponseCall { conf_token, .. } => {
                        let (id, plugin) = &self.tokens[&conf_token];
                        let route = routes.entry(id).or_insert_with(|| {
                            json!({
                                "id": id,
                                "uris": [],
                                "plugins": {},
                                "upstream": { "nodes": { node: 1 } },
                            })
                        });
                        let uris = route["uris"].as_array_mut().unwrap();
                        if !uris.contains(&json!(path)) {
                            uris.push(json!(path));
                        }
                        let plugin = &mut route["plugins"][plugin];
                        match std::mem::take(&mut conf) {
                            Value::Array(conf) if !conf.is_empty() => {
                                *plugin = json!({ "conf": conf });
                            }
                            // Without one, or prepared in another recording.
                            _ if plugin.is_null() => *plugin = json!({}),
                            _ => {}
                        }
                    }
                    _ => {}
                }
            }
            if capture.name == "after-proxy-rewrite" {
                // The only one whose route did more than calling the runner.
                let rewrite = json!({ "uri": "/rewritten?q=1", "headers": { "X-PR": "1" } });
                routes.get_mut("3").unwrap()["plugins"]["proxy-rewrite"] = rewrite;
            }
        }
        let routes: Vec<_> = routes.into_values().collect();
        // JSON is YAML.
        format!("{}\n#END\n", json!({ "routes": routes }))
    }
}

/// A recording with the parts that were cut, which follow from its frames.
fn whole(mut capture: Capture) -> Capture {
    if !capture.http_request.0.ends_with(b" bytes)") {
        return capture;
    }
    let body = capture.frames.iter().find_map(|frame| match read(frame) {
        Message::Info { result } => result,
        _ => None,
    });
    let body = body.unwrap().0;
    let head = capture.http_request.0.windows(4);
    let head = head
        .into_iter()
        .position(|part| part == b"\r\n\r\n")
        .unwrap()
        + 4;
    capture.http_request.0.truncate(head);
    capture.http_request.0.extend_from_slice(&body);
    // The recorded upstream told as JSON what it had got.
    let cut = latin1(&capture.http_response_body.0);
    let until = cut.find(r#""body": ""#).unwrap();
    let told = format!("{}\"body\": {}}}\n", &cut[..until], as_python_writes(&body));
    assert!(told.starts_with(&cut));
    capture.http_response_body = told.as_str().into();
    capture
}

/// Python's `json.dumps` of each byte as a character.
fn as_python_writes(body: &[u8]) -> String {
    let mut json = String::from('"');
    for &byte in body {
        match byte {
            b'"' => json += "\\\"",
            b'\\' => json += "\\\\",
            b'\n' => json += "\\n",
            b'\r' => json += "\\r",
            b'\t' => json += "\\t",
            8 => json += "\\b",
            12 => json += "\\f",
            b' '..=b'~' => json.push(char::from(byte)),
            _ => json += &format!("\\u{byte:04x}"),
        }
    }
    json + "\""
}

fn as_conf(conf: &[Pair]) -> Value {
    let text = |bytes: &Bytes| String::from_utf8(bytes.0.clone()).unwrap();
    conf.iter()
        .map(|(name, value)| {
            let value = value.as_ref().unwrap();
            json!({ "name": text(name), "value": text(value) })
        })
        .collect()
}

/// What the recorded upstream answered, as far as it is known.
fn upstream_response(capture: &Capture) -> Vec<u8> {
    let call = capture.frames.iter().find_map(|frame| match read(frame) {
        Message::ResponseCall {
            status, headers, ..
        } => Some((status, headers)),
        _ => None,
    });
    let (status, headers, body) = match call {
        // In the response phase the gateway tells it itself.
        Some((status, headers)) => {
            let told = capture.frames.iter().find_map(|frame| match read(frame) {
                Message::Info { result } => result,
                _ => None,
            });
            let length = headers.iter().find(|(name, _)| name.0 == b"Content-Length");
            let length = length.map(|(_, length)| latin1(&length.as_ref().unwrap().0));
            let body = match (told, length) {
                (Some(told), _) => told.0,
                // Nobody has recorded a body that a plugin replaced.
                (None, Some(length)) => vec![b'x'; length.parse().unwrap()],
                (None, None) => Vec::new(),
            };
            (status, headers, body)
        }
        // Otherwise the client got it as it was.
        None => {
            let length = capture.http_response_body.0.len().to_string();
            let headers = [
                ("Content-Type", "application/json"),
                ("Content-Length", &length),
            ];
            let headers = headers.map(|(name, value)| (name.into(), Some(value.into())));
            (200, headers.into(), capture.http_response_body.0.clone())
        }
    };
    let words = match status {
        200 => "OK",
        204 => "No Content",
        500 => "Internal Server Error",
        other => panic!("no recorded upstream says {other}"),
    };
    let mut response = format!("HTTP/1.1 {status} {words}\r\n").into_bytes();
    let mut is_chunked = false;
    for (name, value) in headers {
        let value = value.unwrap();
        is_chunked |= value.0 == b"chunked";
        response.extend([&name.0, &b": "[..], &value.0, b"\r\n"].concat());
    }
    response.extend(b"\r\n");
    if is_chunked {
        // In two pieces, which the gateway has to put together.
        let (first, second) = body.split_at(2);
        for part in [first, second, b""] {
            response.extend([format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat());
        }
    } else {
        response.extend(body);
    }
    response
}

/// What the recorded gateway did. `port` is that of the development gateway, which plugins get to
/// see in place of the recorded one.
fn recorded(capture: &Capture, port: u16, connections: &mut HashMap<usize, usize>) -> Deeds {
    let said = capture
        .frames
        .iter()
        .filter(|frame| frame.from == Side::Gateway);
    let said: Said = said
        .map(|frame| (frame.connection as usize, read(frame)))
        .collect();
    let upstream = told_by_upstream(capture);
    let head = [&capture.http_response_head.0[..], b"\r\n\r\n"].concat();
    let response = [head, capture.http_response_body.0.clone()].concat();
    let response = Response::read(&response);
    deeds(said, upstream, &response, connections)
        .iter()
        .map(|deed| {
            deed.replace(
                "x-forwarded-port='9080'",
                &format!("x-forwarded-port='{port}'"),
            )
        })
        .collect()
}

/// What the recorded upstream told that it had got.
fn told_by_upstream(capture: &Capture) -> Option<Received> {
    let response = &capture.http_response_body.0;
    let at = response.iter().position(|byte| *byte == b'{')?;
    let end = response.iter().rposition(|byte| *byte == b'}')?;
    let told: Value = serde_json::from_slice(&response[at..=end]).ok()?;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let headers = told["headers"].as_array().unwrap().iter();
    Some(Received {
        method: text(&told["method"]),
        uri: text(&told["uri"]),
        headers: headers
            .map(|header| (text(&header[0]).to_ascii_lowercase(), text(&header[1])))
            .collect(),
        body: Bytes::from(text(&told["body"])).0,
    })
}

/// One line for each thing that a gateway did. Left out is what differs from run to run, the order
/// of headers and arguments of different names, which a Lua table loses, and how HTTP headers are
/// spelled.
fn deeds(
    said: Said,
    upstream: Option<Received>,
    response: &Response,
    connections: &mut HashMap<usize, usize>,
) -> Deeds {
    let mut deeds = Deeds::new();
    for (connection, mut message) in said {
        let next = connections.len();
        let connection = connections.entry(connection).or_insert(next);
        match &mut message {
            Message::RequestCall { args, headers, .. } => {
                args.sort_by(by_name);
                headers.sort_by(by_name);
            }
            Message::ResponseCall { headers, .. } => headers.sort_by(by_name),
            Message::Info { result: Some(id) } if is_request_id(&id.0) => {
                *id = "(a request's id)".into();
            }
            _ => {}
        }
        deeds.push(format!("on {connection}: {message}"));
    }
    if let Some(mut upstream) = upstream {
        for (name, value) in &mut upstream.headers {
            let is_own = ["lua-resty-http/", "plugin-host-gateway/"]
                .iter()
                .any(|own| value.starts_with(own));
            if name == "user-agent" && is_own {
                "(the gateway and its version)".clone_into(value);
            }
        }
        upstream.headers.sort_by(|a, b| a.0.cmp(&b.0));
        deeds.push(format!(
            "upstream gets {} {}",
            upstream.method, upstream.uri
        ));
        for (name, value) in upstream.headers {
            deeds.push(format!("upstream gets {name}='{value}'"));
        }
        deeds.push(format!(
            "upstream gets body {}",
            upstream.body.escape_ascii()
        ));
    }
    deeds.push(response.status.clone());
    let mut headers = response.headers.clone();
    headers.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, value) in headers {
        match name.as_str() {
            "date" | "server" => deeds.push(format!("{name}: ...")),
            _ => deeds.push(format!("{name}: {value}")),
        }
    }
    if response.header("transfer-encoding") == Some("chunked") {
        // Their sizes may be written in upper or lower case.
        for chunk in chunks(&response.raw_body) {
            deeds.push(format!(
                "chunk of {}: {}",
                chunk.len(),
                chunk.escape_ascii()
            ));
        }
    } else {
        deeds.push(format!("body {}", response.raw_body.escape_ascii()));
    }
    deeds
}

/// The values of one name stay in their order.
fn by_name(a: &Pair, b: &Pair) -> std::cmp::Ordering {
    a.0.0.cmp(&b.0.0)
}

fn is_request_id(value: &[u8]) -> bool {
    value.len() == 32 && value.iter().all(u8::is_ascii_hexdigit)
}

fn read(frame: &RecordedFrame) -> Message {
    // Aligned, as the views want it.
    first_frame(&frame.bytes(), |whole| {
        Message::read(frame.from, frame.frame_type(), whole.data()).unwrap()
    })
    .unwrap()
}

/// Puts a recording's request to the development gateway, and compares.
fn check(names: &[&str]) {
    let series = Series::load(names);
    let (runner, upstream) = (Runner::start(), Upstream::start());
    let directory = tempfile::tempdir().unwrap();
    let file = File::create(directory.path().join("apisix.yaml")).unwrap();
    std::io::Write::write_all(&mut &file, series.routes(&upstream.node()).as_bytes()).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(series.version))
        .unwrap();
    let socket = format!("--socket={}", runner.socket().display());
    let gateway = HttpGateway::start_in(directory, &[&socket]);
    let port = gateway.address().port();
    let (mut theirs, mut ours) = (HashMap::new(), HashMap::new());
    let mut wrong = Vec::new();
    for capture in &series.captures {
        runner.play(&capture.frames);
        upstream.answer(upstream_response(capture));
        let response = gateway.send(&capture.http_request.0);
        let is_told = told_by_upstream(capture).is_some();
        let received = upstream.received().pop().filter(|_| is_told);
        let done = deeds(runner.said(), received, &response, &mut ours);
        let mut expected = recorded(capture, port, &mut theirs);
        for (names, recorded, instead) in DIFFERENCES {
            if names.contains(&capture.name.as_str()) {
                let has_it = expected.iter().any(|deed| deed.contains(recorded));
                assert!(has_it, "{}: not recorded: {recorded}", capture.name);
                for deed in &mut expected {
                    *deed = deed.replace(recorded, instead);
                }
            }
        }
        for deed in expected.iter().filter(|deed| !done.contains(deed)) {
            wrong.push(format!("{}: missing: {deed:.600}", capture.name));
        }
        for deed in done.iter().filter(|deed| !expected.contains(deed)) {
            wrong.push(format!("{}: instead: {deed:.600}", capture.name));
        }
        if wrong.is_empty() {
            assert_eq!(done, expected, "{}", capture.name);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_exchanges_with_the_go_runner_are_those_that_were_recorded() {
    check(GO);
}

#[test]
fn the_exchanges_with_the_scripted_runner_are_those_that_were_recorded() {
    check(STUB);
}

#[test]
fn no_recording_is_left_out() {
    let mut played: Vec<_> = GO.iter().chain(STUB).copied().collect();
    played.sort_unstable();
    let all = Capture::all();
    let all: Vec<_> = all.iter().map(|capture| capture.name.as_str()).collect();
    assert_eq!(played, all);
}
