//! Questions to the gateway.

use plugin_abi::{
    AskError,
    prelude::*,
    testing::{Asked, Gateway, Loading, Outcome, get, json, post, response},
};

/// Asks for variables and the body, and reports the answers in headers.
#[derive(Default)]
struct Asks;

impl Plugin for Asks {
    type Config = Vec<String>;

    async fn request_filter(&self, names: &Vec<String>, request: &mut Request) -> Result<Action> {
        let mut told = Vec::new();
        for name in names {
            let value = match name.as_str() {
                "BODY" => request.body().await?,
                name => request.var(name).await?,
            };
            told.push(format!("{:?}", value.map(String::from_utf8_lossy)));
        }
        request.set_header("x-told", told.join(" "));
        Ok(Action::Continue)
    }

    async fn response_filter(&self, names: &Vec<String>, response: &mut Response) -> Result<()> {
        for name in names {
            let value = match name.as_str() {
                "BODY" => response.body().await?,
                name => response.var(name).await?,
            };
            let told = format!("{:?}", value.map(String::from_utf8_lossy));
            response.append_header("x-told", told);
        }
        Ok(())
    }
}

fn asked(names: &[&str], sent: plugin_abi::testing::ClientRequest) -> Outcome {
    Gateway::new()
        .load::<Asks>()
        .route(json!(names))
        .request(sent)
}

#[test]
fn each_question_travels_once_and_the_answers_are_the_gateways() {
    let names = [
        "route_id", "BODY", "route_id", "BODY", "uri", "arg_q", "http_x_a", "nothing",
    ];
    let sent = post("/a%20b?q=1")
        .header("X-A", "2")
        .body("body")
        .var("route_id", "7");
    let outcome = asked(&names, sent);
    assert_eq!(
        outcome.upstream().header("x-told"),
        Some(
            r#"Some("7") Some("body") Some("7") Some("body") Some("/a b") Some("1") Some("2") None"#
        )
    );
    let expected = ["route_id", "", "uri", "arg_q", "http_x_a", "nothing"].map(|name| match name {
        "" => Asked::RequestBody,
        name => Asked::variable(name),
    });
    assert_eq!(outcome.questions(), expected);
}

#[test]
fn the_rest_of_a_chain_asks_nothing_twice() {
    let gateway = Gateway::new();
    let asks = gateway.load::<Asks>();
    let route = gateway
        .route()
        .on_request(&asks, json!(["route_id"]))
        .on_request(&asks, json!(["BODY", "route_id"]));
    let outcome = route.request(get("/"));
    assert_eq!(
        outcome.questions(),
        [Asked::variable("route_id"), Asked::RequestBody]
    );
}

#[test]
fn variables_that_follow_from_the_request_are_there_and_given_ones_win() {
    let names = [
        "request_method",
        "request_uri",
        "args",
        "is_args",
        "host",
        "http_host",
        "remote_addr",
        "arg_z",
        "scheme",
        "content_length",
    ];
    let sent = post("/x?y=%20&z")
        .header("Host", "Example.com:81")
        .client_ip("192.0.2.1")
        .body("1")
        .var("scheme", "https");
    let outcome = asked(&names, sent);
    let told = outcome.upstream().header("x-told").unwrap();
    assert_eq!(
        told,
        r#"Some("POST") Some("/x?y=%20&z") Some("y=%20&z") Some("?") Some("example.com") Some("Example.com:81") Some("192.0.2.1") Some("true") Some("https") Some("1")"#
    );
}

#[test]
fn the_response_phase_has_the_upstreams_body_and_the_requests_variables() {
    let route =
        Gateway::new()
            .load::<Asks>()
            .route(json!(["BODY", "uri", "status", "sent_http_x_a"]));
    let outcome = route.response(
        response(404)
            .header("X-A", "1")
            .body("gone")
            .to(get("/here")),
    );
    assert_eq!(
        outcome.client().headers("x-told"),
        [
            r#"Some("gone")"#,
            r#"Some("/here")"#,
            r#"Some("404")"#,
            r#"Some("1")"#
        ]
    );
    assert_eq!(outcome.questions()[0], Asked::ResponseBody);
}

#[test]
fn a_body_that_no_frame_carries_is_an_error_and_no_question() {
    let outcome = asked(&["BODY"], post("/").announced_body(16_777_152));
    assert!(
        outcome.failure().contains("too large"),
        "{}",
        outcome.failure()
    );
    assert!(outcome.questions().is_empty());
    assert!(asked(&["BODY"], post("/").announced_body(16_777_151)).went_upstream());
}

#[test]
fn any_refusal_can_be_provoked() {
    for error in [
        AskError::OutOfMemory,
        AskError::CallOver,
        AskError::Other(9),
    ] {
        let outcome = asked(&["route_id"], get("/").refuse_questions(error));
        assert!(
            outcome.failure().ends_with(&error.to_string()),
            "{}",
            outcome.failure()
        );
    }
}

#[test]
fn a_call_asks_no_more_often_than_the_host_allows() {
    let names: Vec<_> = (0..65).map(|number| format!("v{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    assert!(asked(&names[..64], get("/")).went_upstream());
    assert!(asked(&names, get("/")).failure().contains("too often"));
}

#[test]
fn what_plugin_json_needs_is_asked_before_the_plugin_runs() {
    #[derive(Default)]
    struct Idle;
    impl Plugin for Idle {
        type Config = ();
    }
    let loading = Loading::from_plugin_json(
        r#"{"name": "idle", "version": "1.0.0", "source": {"mode": "local_so", "path": "x.so"},
            "needs": {"variables": ["route_id"], "request_body": true, "response_body": true}}"#,
    );
    let route = Gateway::new().load_with::<Idle>(loading).route("");
    let outcome = route.exchange(get("/"), response(200));
    assert_eq!(
        outcome.questions(),
        [
            Asked::variable("route_id"),
            Asked::RequestBody,
            Asked::variable("route_id"),
            Asked::ResponseBody
        ]
    );
}
