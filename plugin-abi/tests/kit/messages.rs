//! Requests to the upstream, replies and responses to the client.

use std::panic::{AssertUnwindSafe, catch_unwind};

use plugin_abi::{
    prelude::*,
    testing::{ClientRequest, Gateway, Outcome, get, json, post, request, response},
};

/// A plugin that is a function.
type Act = fn(&mut Request) -> Action;

/// Takes a request through one plugin that does this.
fn through<P: Plugin>(request: ClientRequest) -> Outcome {
    Gateway::new().load::<P>().route("").request(request)
}

/// Defines a plugin by what it does to requests.
macro_rules! plugin {
    ($name:ident, $act:expr) => {
        #[derive(Default)]
        struct $name;
        impl Plugin for $name {
            type Config = ();
            async fn request_filter(&self, _config: &(), request: &mut Request) -> Result<Action> {
                let act: Act = $act;
                Ok(act(request))
            }
        }
    };
}

#[test]
fn a_request_that_no_plugin_changes_goes_upstream_as_it_came() {
    plugin!(Reads, |request| {
        assert_eq!(request.method(), Method::PATCH);
        assert_eq!(request.path(), b"/a b");
        assert_eq!(request.arg_str("x"), Some("1 2"));
        assert_eq!(request.header_str("X-User"), Some("ada"));
        assert_eq!(request.header_str("host"), Some("localhost"));
        assert_eq!(request.client_ip().unwrap().to_string(), "2001:db8::1");
        assert_eq!(request.id(), 7);
        Action::Continue
    });
    let sent = request(Method::PATCH, "/./a%20b?x=1+2&y")
        .header("X-User", "ada")
        .body("body")
        .client_ip("2001:db8::1")
        .id(7);
    let outcome = through::<Reads>(sent);
    let upstream = outcome.upstream();
    assert_eq!(upstream.uri(), "/./a%20b?x=1+2&y");
    assert_eq!(upstream.method(), Method::PATCH);
    assert_eq!(upstream.header("x-user"), Some("ada"));
    assert_eq!(upstream.header("content-length"), Some("4"));
    assert_eq!(upstream.text(), "body");
    assert!(outcome.went_upstream() && outcome.questions().is_empty());
}

#[test]
fn changes_go_upstream_as_the_gateway_makes_them() {
    plugin!(Changes, |request| {
        request.set_path("/new path?");
        request.set_header("X-Many", "one");
        request.set_header("x-line", "a\r\nb");
        request.set_header("x-gone", "");
        request.remove_header("x-away");
        request.remove_header("host");
        request.set_arg("a", "&");
        request.append_arg("b", "2");
        request.remove_arg("c");
        request.set_body("longer body");
        request.set_response_header("X-Served", "yes");
        request.append_response_header("x-served", "twice");
        request.set_response_header("Content-Type", "ignored");
        Action::Continue
    });
    let sent = post("/old?a=1&a=2&b=1&c=3&d")
        .header("x-many", "1")
        .header("x-many", "2")
        .header("x-gone", "1")
        .header("x-away", "1")
        .body("body");
    let outcome = through::<Changes>(sent);
    let upstream = outcome.upstream();
    assert_eq!(upstream.uri(), "/new%20path%3F?d&a=%26&b=1&b=2");
    assert_eq!(upstream.path(), "/new path?");
    assert_eq!(
        (upstream.arg("a").as_deref(), upstream.arg("c")),
        (Some("&"), None)
    );
    assert_eq!(upstream.args("b"), ["1", "2"]);
    assert_eq!(upstream.headers("x-many"), ["one"]);
    assert_eq!(upstream.header("x-line"), Some("a%0D%0Ab"));
    assert_eq!(upstream.header("x-gone"), None);
    assert_eq!(upstream.header("x-away"), None);
    // There is no request without a host.
    assert_eq!(upstream.header("host"), Some("localhost"));
    assert_eq!(upstream.text(), "longer body");
    assert_eq!(upstream.header("content-length"), Some("11"));
    assert_eq!(upstream.response_headers("x-served"), ["yes", "twice"]);
    assert!(upstream.response_headers("content-type").is_empty());
}

#[test]
fn a_plugin_sees_what_those_before_it_changed_and_none_runs_after_a_stop() {
    #[derive(Default)]
    struct Counts;
    #[derive(Deserialize)]
    struct Config {
        stop_at: usize,
    }
    impl Plugin for Counts {
        type Config = Config;
        async fn request_filter(&self, config: &Config, request: &mut Request) -> Result<Action> {
            let seen = request.header_str("x-seen").unwrap_or_default().len();
            if seen == config.stop_at {
                return Ok(Action::stop(Reply::new(200).body(seen.to_string())));
            }
            request.set_header("x-seen", "i".repeat(seen + 1));
            Ok(Action::Continue)
        }
    }
    let gateway = Gateway::new();
    let counts = gateway.load::<Counts>();
    let chain = |stop_at: usize| {
        (0..3).fold(gateway.route(), |route, _| {
            route.on_request(&counts, json!({ "stop_at": stop_at }))
        })
    };
    assert_eq!(
        chain(9).request(get("/")).upstream().header("x-seen"),
        Some("iii")
    );
    assert_eq!(chain(1).request(get("/")).client().text(), "1");
}

#[test]
fn a_reply_reaches_the_client_as_the_gateway_sends_it() {
    plugin!(Refuses, |request| {
        request.set_response_header("x-recorded", "yes");
        let reply = Reply::new(403)
            .header("Set-Cookie", "a=1")
            .header("Set-Cookie", "b=2")
            .header("Server", "mine")
            .header("Content-Length", "1");
        Action::stop(reply.body("no"))
    });
    let outcome = through::<Refuses>(get("/"));
    let client = outcome.client();
    assert_eq!((client.status(), client.text()), (403, "no"));
    assert_eq!(client.headers("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(
        client.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(client.header("x-recorded"), Some("yes"));
    assert_eq!(
        (client.header("server"), client.header("content-length")),
        (None, None)
    );
    assert!(!outcome.went_upstream() && !client.is_error_page());
}

#[test]
fn a_refusal_without_a_body_is_the_gateways_page_and_a_redirect_is_none() {
    plugin!(Bare, |request| {
        let status = request.arg_str("status").unwrap().parse().unwrap();
        Action::stop(Reply::new(status).header("X-Why", "so"))
    });
    let outcome = through::<Bare>(get("/?status=429"));
    assert!(outcome.client().is_error_page());
    assert_eq!(outcome.client().header("x-why"), Some("so"));
    let outcome = through::<Bare>(get("/?status=302"));
    assert!(!outcome.client().is_error_page() && outcome.client().body().is_empty());
}

#[derive(Default)]
struct Rewrites;

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Rewrite {
    status: Option<u16>,
    body: Option<String>,
}

impl Plugin for Rewrites {
    type Config = Rewrite;
    async fn request_filter(&self, _config: &Rewrite, request: &mut Request) -> Result<Action> {
        request.set_response_header("x-recorded", "in the request");
        request.set_response_header("x-both", "in the request");
        Ok(Action::Continue)
    }
    async fn response_filter(&self, config: &Rewrite, response: &mut Response) -> Result<()> {
        if let Some(status) = config.status {
            response.set_status(status);
        }
        if let Some(body) = &config.body {
            response.set_body(body.as_str());
        }
        let cookies = response.header_values("set-cookie").count();
        response.append_header("X-Both", cookies.to_string());
        response.remove_header("x-internal");
        Ok(())
    }
}

#[test]
fn a_response_reaches_the_client_with_its_changes() {
    let gateway = Gateway::new();
    let route = gateway
        .load::<Rewrites>()
        .route(json!({ "status": 404, "body": "gone" }));
    let sent = response(200)
        .header("Location", "/kept")
        .header("Set-Cookie", "a=1")
        .header("Set-Cookie", "b=2")
        .header("X-Internal", "1")
        .header("Connection", "close")
        .body("here");
    let outcome = route.response(sent);
    let client = outcome.client();
    assert_eq!((client.status(), client.text()), (404, "gone"));
    assert_eq!(client.header("location"), Some("/kept"));
    assert_eq!(client.headers("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(client.header("x-both"), Some("2"));
    for away in ["x-internal", "connection", "content-length"] {
        assert_eq!(client.header(away), None, "{away}");
    }
}

#[test]
fn an_exchange_goes_all_the_way() {
    let gateway = Gateway::new();
    let rewrites = gateway.load::<Rewrites>();
    let upstream = || response(200).header("X-Both", "upstream").body("body");
    let outcome = rewrites.route("").exchange(get("/x"), upstream());
    assert_eq!(outcome.upstream().uri(), "/x");
    assert_eq!(outcome.client().text(), "body");
    assert_eq!(
        outcome.client().header("x-recorded"),
        Some("in the request")
    );
    assert_eq!(outcome.client().headers("x-both"), ["upstream", "0"]);
    // Without a plugin for responses, the gateway adds what was recorded beside the upstream's.
    let only_requests = gateway.route().on_request(&rewrites, "");
    let outcome = only_requests.exchange(get("/x"), upstream());
    assert_eq!(
        outcome.client().headers("x-both"),
        ["upstream", "in the request"]
    );
}

#[test]
fn a_status_without_a_body_has_none_for_the_client() {
    let gateway = Gateway::new();
    let rewrites = gateway.load::<Rewrites>();
    let no_content = rewrites.route(json!({ "status": 204 }));
    assert!(
        no_content
            .response(response(200).body("x"))
            .client()
            .body()
            .is_empty()
    );
    let head = response(200).body("x").to(request(Method::HEAD, "/"));
    assert!(rewrites.route("").response(head).client().body().is_empty());
}

#[test]
fn bodies_of_json_come_and_go_as_json() {
    plugin!(Passes, |_request| Action::Continue);
    let outcome = through::<Passes>(post("/").json(json!({ "a": [1, 2] })));
    assert_eq!(outcome.upstream().json()["a"][1], 2);
    assert_eq!(
        outcome.upstream().header("content-type"),
        Some("application/json")
    );
}

#[test]
fn what_a_test_expects_in_vain_is_told_with_what_happened_instead() {
    plugin!(Stops, |request| match request.path() {
        b"/stop" => Action::stop(Reply::new(401).body("who are you?")),
        _ => Action::Continue,
    });
    let said = |act: &dyn Fn()| {
        let panic = catch_unwind(AssertUnwindSafe(act)).unwrap_err();
        panic.downcast_ref::<String>().unwrap().clone()
    };
    let stopped = through::<Stops>(get("/stop"));
    let message = said(&|| drop(stopped.upstream().clone()));
    assert_eq!(
        message,
        "nothing went upstream: the client got 401 \"who are you?\""
    );
    let passed = through::<Stops>(get("/on?a=1"));
    let message = said(&|| drop(passed.client().clone()));
    assert_eq!(
        message,
        "the client was not answered: the request went upstream as GET /on?a=1"
    );
    let message = said(&|| drop(get("on")));
    assert!(message.contains("write it from the / on"), "{message}");
}
