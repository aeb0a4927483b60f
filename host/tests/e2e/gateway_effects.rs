//! What the development gateway does with each kind of answer, as it was observed on a real one:
//! what the client gets, and what the upstream gets. The runner is scripted, since a host of ours
//! never gives most of these answers.

use serde_json::json;

use crate::{
    capture::RecordedFrame,
    message::{Bytes, Message, Pair},
    support::{
        http::{HttpGateway, Response},
        runner::{Runner, said_by_runner},
        upstream::{Received, Upstream},
    },
};

/// A gateway between a scripted runner and a scripted upstream.
struct Stage {
    runner: Runner,
    upstream: Upstream,
    gateway: HttpGateway,
}

/// What came of one request.
struct Outcome {
    response: Response,
    received: Vec<Received>,
}

impl Stage {
    /// `/pre` and `/post` have plugins in the request and in the response phase, `/open` is `/pre`
    /// with degradation allowed.
    fn set() -> Self {
        let (runner, upstream) = (Runner::start(), Upstream::start());
        let conf = json!([{ "name": "scripted", "value": "" }]);
        let nodes = json!({ "nodes": { upstream.node(): 1 } });
        let route = |id: &str, plugin: &str, allow: bool| {
            json!({
                "id": id,
                "uri": format!("/{id}*"),
                "plugins": { plugin: { "conf": conf, "allow_degradation": allow } },
                "upstream": nodes,
            })
        };
        let file = json!({ "routes": [
            route("pre", "ext-plugin-pre-req", false),
            route("open", "ext-plugin-pre-req", true),
            route("post", "ext-plugin-post-resp", false),
        ]});
        let gateway = HttpGateway::start(&format!("{file}\n#END\n"), &runner.socket());
        let stage = Self {
            runner,
            upstream,
            gateway,
        };
        stage.upstream_answers(
            "200 OK",
            "Content-Type: text/html\r\nX-Up: a\r\n",
            "upstream",
        );
        stage
    }

    fn upstream_answers(&self, status: &str, headers: &str, body: &str) {
        let length = match body {
            "" => String::new(),
            _ => format!("Content-Length: {}\r\n", body.len()),
        };
        let answer = format!("HTTP/1.1 {status}\r\n{headers}{length}\r\n{body}");
        self.upstream.answer(answer.into_bytes());
    }

    /// A request that is answered with this message.
    fn answered(&self, request: &str, answer: Message) -> Outcome {
        self.answered_with(request, &said_by_runner(&answer))
    }

    fn answered_with(&self, request: &str, answer: &RecordedFrame) -> Outcome {
        self.runner.answer(std::slice::from_ref(answer));
        self.sent(request)
    }

    /// Sends a request whose host is `gw.example`: `GET /pre?a=1`, headers, and a body after an
    /// empty line.
    fn sent(&self, request: &str) -> Outcome {
        let (first, rest) = request.split_once("\r\n").unwrap_or((request, ""));
        let (headers, body) = rest.split_once("\r\n\r\n").unwrap_or((rest, ""));
        let mut head = format!("{first} HTTP/1.1\r\nHost: gw.example\r\nConnection: close\r\n");
        if !headers.is_empty() {
            head += &format!("{headers}\r\n");
        }
        if !body.is_empty() {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        let response = self.gateway.send(format!("{head}\r\n{body}").as_bytes());
        Outcome {
            response,
            received: self.upstream.received(),
        }
    }
}

impl Outcome {
    /// The only request that the upstream got.
    fn received(&self) -> &Received {
        let [received] = self.received.as_slice() else {
            panic!("{} requests for the upstream", self.received.len());
        };
        received
    }

    /// The values of a header that the upstream got.
    fn upstream_header(&self, name: &str) -> Vec<&str> {
        values(&self.received().headers, name)
    }

    /// The values of a header that the client got.
    fn header(&self, name: &str) -> Vec<&str> {
        values(&self.response.headers, name)
    }
}

fn values<'a>(headers: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    let named = headers.iter().filter(|(other, _)| other == name);
    named.map(|(_, value)| value.as_str()).collect()
}

/// `name=value`, or a name without a value.
fn pairs(texts: &[&str]) -> Vec<Pair> {
    texts
        .iter()
        .map(|text| match text.split_once('=') {
            Some((name, value)) => (name.into(), Some(value.into())),
            None => ((*text).into(), None),
        })
        .collect()
}

fn stop(status: u16, headers: &[&str], body: Option<&str>) -> Message {
    Message::Stop {
        id: 0,
        status,
        headers: pairs(headers),
        body: body.map(Bytes::from),
    }
}

fn rewrite() -> Rewritten {
    Rewritten::default()
}

/// A rewrite of which each test says one thing.
#[derive(Default)]
struct Rewritten {
    path: Option<&'static str>,
    headers: &'static [&'static str],
    args: &'static [&'static str],
    resp_headers: &'static [&'static str],
    body: Option<&'static str>,
}

impl From<Rewritten> for Message {
    fn from(rewritten: Rewritten) -> Self {
        Self::Rewrite {
            id: 0,
            path: rewritten.path.map(Bytes::from),
            headers: pairs(rewritten.headers),
            args: pairs(rewritten.args),
            resp_headers: pairs(rewritten.resp_headers),
            body: rewritten.body.map(Bytes::from),
        }
    }
}

fn respond(status: u16, headers: &[&str], body: Option<&str>) -> Message {
    Message::ResponseAnswer {
        id: 0,
        status,
        headers: pairs(headers),
        body: body.map(Bytes::from),
    }
}

/// A frame that no runner should send.
fn raw(type_byte: u8, data: &[u8]) -> RecordedFrame {
    RecordedFrame {
        type_byte,
        data: data.to_vec(),
        ..said_by_runner(&Message::Unchanged { id: 0 })
    }
}

#[test]
fn without_an_answer_a_request_is_refused_or_goes_on_where_degradation_is_allowed() {
    let stage = Stage::set();
    let errors = [0, 1].map(|code| said_by_runner(&Message::Error { code }));
    let wrong_type = said_by_runner(&Message::Token { conf_token: 1 });
    for answer in errors.into_iter().chain([wrong_type]) {
        let refused = stage.answered_with("GET /pre", &answer);
        assert_eq!(refused.response.code(), 503);
        assert!(
            refused
                .response
                .body()
                .contains("503 Service Temporarily Unavailable")
        );
        assert_eq!(refused.received, []);
        let degraded = stage.answered_with("GET /open", &answer);
        assert_eq!(degraded.response.code(), 200);
        assert_eq!(degraded.received().uri, "/open");
    }
    // Closed in place of an answer: nothing was laid out.
    stage.runner.play(&[]);
    assert_eq!(stage.sent("GET /pre").response.code(), 503);
    assert_eq!(stage.sent("GET /open").response.code(), 200);
}

#[test]
fn an_answer_that_is_broken_is_an_exception_whatever_is_allowed() {
    let stage = Stage::set();
    for request in ["GET /pre", "GET /open"] {
        let outcome = stage.answered_with(request, &raw(2, b""));
        assert_eq!(
            outcome.response.status,
            "HTTP/1.1 500 Internal Server Error"
        );
        assert_eq!(outcome.received, []);
    }
}

#[test]
fn a_lost_token_is_prepared_again_three_times_in_all() {
    let stage = Stage::set();
    let gone = said_by_runner(&Message::Error { code: 2 });
    let call = |frame: &RecordedFrame| {
        let mut call = frame.clone();
        call.from = crate::message::Side::Gateway;
        [call, frame.clone()]
    };
    let stopped = said_by_runner(&stop(200, &[], Some("third")));
    let script = [call(&gone), call(&gone), call(&stopped)].concat();
    // The first call is laid out by `answer` itself.
    stage.runner.answer(&script[1..]);
    let outcome = stage.sent("GET /pre");
    assert_eq!(outcome.response.body(), "third");
    assert_eq!(stage.runner.said().len(), 3);
    let script = [call(&gone), call(&gone), call(&gone), call(&stopped)].concat();
    stage.runner.answer(&script[1..]);
    assert_eq!(stage.sent("GET /pre").response.code(), 503);
    assert_eq!(stage.runner.said().len(), 3);
}

#[test]
fn a_request_goes_on_as_it_is_where_the_answer_changes_nothing() {
    let stage = Stage::set();
    for answer in [Message::Unchanged { id: 0 }, rewrite().into()] {
        let request = "POST /pre/%41%20?b=%62&b&a=\r\nX-A: 1\r\nX-A: 2\r\n\r\nbody";
        let outcome = stage.answered(request, answer);
        assert_eq!(outcome.response.body(), "upstream");
        let received = outcome.received();
        assert_eq!(received.method, "POST");
        assert_eq!(received.uri, "/pre/%41%20?b=%62&b&a=");
        assert_eq!(received.body, b"body");
        assert_eq!(outcome.upstream_header("x-a"), ["1", "2"]);
        assert_eq!(outcome.upstream_header("host"), ["gw.example"]);
        assert_eq!(outcome.upstream_header("x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(outcome.upstream_header("x-real-ip"), ["127.0.0.1"]);
        assert_eq!(outcome.upstream_header("connection"), [""; 0]);
    }
    // Nor does the gateway say what the upstream has left out.
    stage.upstream_answers("200 OK", "", "upstream");
    let outcome = stage.answered("GET /pre", Message::Unchanged { id: 0 });
    assert_eq!(outcome.header("content-type"), [""; 0]);
}

#[test]
fn a_stop_is_the_clients_answer() {
    let stage = Stage::set();
    let headers = [
        "Set-Cookie=a",
        "Set-Cookie=b",
        "X-None",
        "X-Two=1\r\nX-Evil: 2",
        "Server=mine",
    ];
    let outcome = stage.answered("GET /pre", stop(0, &headers, Some("stopped")));
    assert_eq!(outcome.received, []);
    assert_eq!(outcome.response.status, "HTTP/1.1 200 OK");
    assert_eq!(outcome.response.body(), "stopped");
    assert_eq!(outcome.header("set-cookie"), ["a", "b"]);
    assert_eq!(outcome.header("x-none"), [""; 0]);
    assert_eq!(outcome.header("x-two"), ["1%0D%0AX-Evil: 2"]);
    assert_eq!(outcome.header("x-evil"), [""; 0]);
    assert_eq!(
        outcome.header("content-type"),
        ["text/plain; charset=utf-8"]
    );
    assert_ne!(outcome.header("server"), ["mine"]);
    let outcome = stage.answered("GET /pre", stop(201, &["Content-Type=a/b"], Some("x")));
    assert_eq!(outcome.response.status, "HTTP/1.1 201 Created");
    assert_eq!(outcome.header("content-type"), ["a/b"]);
}

#[test]
fn a_stop_without_a_body_is_empty_below_400_and_an_error_page_from_there_on() {
    let stage = Stage::set();
    for body in [None, Some("")] {
        let outcome = stage.answered("GET /pre", stop(201, &[], body));
        assert_eq!(outcome.response.code(), 201);
        assert_eq!(outcome.response.body(), "");
        let outcome = stage.answered("GET /pre", stop(403, &[], body));
        assert_eq!(outcome.response.status, "HTTP/1.1 403 Forbidden");
        let body = outcome.response.body();
        assert!(body.contains("<title>403 Forbidden</title>"), "{body}");
        assert_eq!(outcome.header("content-type"), ["text/html; charset=utf-8"]);
    }
}

#[test]
fn odd_statuses_of_a_stop_are_passed_on() {
    let stage = Stage::set();
    let outcome = stage.answered("GET /pre", stop(600, &[], Some("x")));
    assert_eq!(outcome.response.code(), 600);
    let outcome = stage.answered("GET /pre", stop(65_535, &[], Some("x")));
    assert_eq!(outcome.response.code(), 200);
    // A client of the real one hangs.
    for hanging in [99, 101] {
        let outcome = stage.answered("GET /pre", stop(hanging, &[], Some("x")));
        assert_eq!(outcome.response.code(), 502);
    }
}

#[test]
fn a_content_length_of_a_plugins_is_believed() {
    let stage = Stage::set();
    let outcome = stage.answered(
        "GET /pre",
        stop(200, &["Content-Length=2"], Some("stopped")),
    );
    assert_eq!(outcome.header("content-length"), ["2"]);
    assert_eq!(outcome.response.raw_body, b"st");
}

#[test]
fn a_new_path_is_encoded_again_and_the_query_stays() {
    let stage = Stage::set();
    let path = |path| Rewritten {
        path: Some(path),
        ..rewrite()
    };
    let outcome = stage.answered("GET /pre?a=1&b", path("/new path?x=50%").into());
    assert_eq!(outcome.received().uri, "/new%20path%3Fx=50%25?a=1&b");
    let outcome = stage.answered("GET /pre", path("/new").into());
    assert_eq!(outcome.received().uri, "/new");
    let outcome = stage.answered("GET /pre", path("new").into());
    assert_eq!(outcome.response.status, "HTTP/1.1 502 Bad Gateway");
    assert_eq!(outcome.received, []);
}

#[test]
fn request_headers_are_set_and_deleted() {
    let stage = Stage::set();
    let answer = Rewritten {
        headers: &[
            "X-New=1",
            "X-New=2",
            "x-a=3",
            "X-Empty=",
            "X-None",
            "Host=in.example",
        ],
        ..rewrite()
    };
    let request = "GET /pre\r\nX-A: 1\r\nX-A: 2\r\nX-Empty: 1\r\nX-None: 1\r\nX-B: 1";
    let outcome = stage.answered(request, answer.into());
    assert_eq!(outcome.upstream_header("x-new"), ["2"]);
    assert_eq!(outcome.upstream_header("x-a"), ["3"]);
    assert_eq!(outcome.upstream_header("x-b"), ["1"]);
    assert_eq!(outcome.upstream_header("x-empty"), [""; 0]);
    assert_eq!(outcome.upstream_header("x-none"), [""; 0]);
    assert_eq!(outcome.upstream_header("host"), ["in.example"]);
}

#[test]
fn arguments_are_replaced_added_and_deleted_and_others_stay() {
    let stage = Stage::set();
    let answer = Rewritten {
        args: &["a=new", "a=more", "gone", "e=", "n=&"],
        ..rewrite()
    };
    let outcome = stage.answered("GET /pre?a=1&a=2&gone=1&keep=1", answer.into());
    let (path, query) = outcome.received().uri.split_once('?').unwrap();
    assert_eq!(path, "/pre");
    let mut args: Vec<_> = query.split('&').collect();
    args.sort_unstable();
    assert_eq!(args, ["a=more", "a=new", "e=", "keep=1", "n=%26"]);
}

#[test]
fn a_body_is_replaced_for_get_too_and_never_emptied() {
    let stage = Stage::set();
    let body = |body| Rewritten {
        body: Some(body),
        ..rewrite()
    };
    for request in ["POST /pre\r\nX-A: 1\r\n\r\nold", "GET /pre"] {
        let outcome = stage.answered(request, body("the new one").into());
        assert_eq!(outcome.received().body, b"the new one");
        assert_eq!(outcome.upstream_header("content-length"), ["11"]);
    }
    let outcome = stage.answered("POST /pre\r\nX-A: 1\r\n\r\nold", body("").into());
    assert_eq!(outcome.received().body, b"old");
}

#[test]
fn response_headers_of_a_rewrite_stand_beside_the_upstreams_but_for_some() {
    let stage = Stage::set();
    let answer = Rewritten {
        resp_headers: &[
            "X-Up=b",
            "X-Mine=1",
            "X-Mine=2",
            "Content-Type=a/b",
            "Location=/x",
        ],
        ..rewrite()
    };
    let outcome = stage.answered("GET /pre", answer.into());
    let mut of_both = outcome.header("x-up");
    of_both.sort_unstable();
    assert_eq!(of_both, ["a", "b"]);
    assert_eq!(outcome.header("x-mine"), ["1", "2"]);
    assert_eq!(outcome.header("content-type"), ["text/html"]);
    assert_eq!(outcome.header("location"), [""; 0]);
}

#[test]
fn an_unchanged_response_loses_the_headers_that_are_ignored() {
    let stage = Stage::set();
    let headers = "Content-Type: a/b\r\nLocation: /x\r\nX-Up: a\r\nX-Up: b\r\n";
    stage.upstream_answers("201 Created", headers, "upstream");
    let outcome = stage.answered("GET /post", respond(0, &[], None));
    assert_eq!(outcome.response.status, "HTTP/1.1 201 Created");
    assert_eq!(outcome.response.body(), "upstream");
    assert_eq!(outcome.header("x-up"), ["a", "b"]);
    assert_eq!(outcome.header("location"), [""; 0]);
    assert_eq!(
        outcome.header("content-type"),
        ["text/plain; charset=utf-8"]
    );
}

#[test]
fn headers_in_the_answer_are_the_only_ones() {
    let stage = Stage::set();
    let headers = ["Content-Type=c/d", "Location=/y", "X-Mine=1", "X-Mine=2"];
    let outcome = stage.answered("GET /post", respond(0, &headers, None));
    assert_eq!(outcome.header("x-up"), [""; 0]);
    assert_eq!(outcome.header("content-type"), ["c/d"]);
    assert_eq!(outcome.header("location"), ["/y"]);
    assert_eq!(outcome.header("x-mine"), ["1", "2"]);
    assert_eq!(outcome.response.body(), "upstream");
}

#[test]
fn status_and_body_of_a_response_change_on_their_own() {
    let stage = Stage::set();
    let outcome = stage.answered("GET /post", respond(418, &[], None));
    assert_eq!(outcome.response.code(), 418);
    assert_eq!(outcome.response.body(), "upstream");
    let outcome = stage.answered("GET /post", respond(0, &[], Some("new")));
    assert_eq!(outcome.response.code(), 200);
    assert_eq!(outcome.response.body(), "new");
    let outcome = stage.answered("GET /post", respond(0, &[], Some("")));
    assert_eq!(outcome.response.body(), "upstream");
}

#[test]
fn without_an_answer_in_the_response_phase_the_client_gets_503_and_the_upstreams_body() {
    let stage = Stage::set();
    let outcome = stage.answered("GET /post", Message::Error { code: 1 });
    assert_eq!(outcome.response.code(), 503);
    assert_eq!(outcome.response.body(), "upstream");
}

#[test]
fn a_response_without_a_body_makes_a_second_request_unless_the_answer_has_one() {
    let stage = Stage::set();
    for (request, status) in [
        ("HEAD /post", "200 OK"),
        ("POST /post", "204 No Content"),
        ("GET /post", "304 Not Modified"),
    ] {
        stage.upstream_answers(status, "X-Up: a\r\n", "");
        let twice = stage.answered(request, respond(0, &["X-Mine=1"], None));
        assert_eq!(twice.received.len(), 2, "{request} {status}");
        let code: u16 = status[..3].parse().unwrap();
        assert_eq!(twice.response.code(), code);
        let once = stage.answered(request, respond(code, &["X-Mine=1"], Some(" ")));
        assert_eq!(once.received.len(), 1, "{request} {status}");
        assert_eq!(once.response.code(), code);
        assert_eq!(once.header("x-mine"), ["1"]);
        assert_eq!(once.response.raw_body, b"");
    }
}
