//! What was typed becomes what is sent, and an answer becomes words. Calls to a real host are in
//! the end-to-end tests.

#![allow(
    clippy::unwrap_used,
    reason = "a failed expectation is the test's result"
)]

use clap::Parser;

use super::*;
use crate::client::{RequestEffect, Response, ResponseEffect, Rewrite, Stop};

#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
struct Typed {
    #[command(flatten)]
    args: CallArgs,
}

fn typed(arguments: &[&str]) -> CallArgs {
    Typed::try_parse_from(arguments).unwrap().args
}

fn listed(fields: &[Field]) -> Vec<String> {
    let shown = |field: &Field| {
        let value = field.value.as_deref().map(output::shown);
        let name = output::shown(&field.name);
        value.map_or(name.clone(), |value| format!("{name}={value}"))
    };
    fields.iter().map(shown).collect()
}

#[test]
fn plugins_are_taken_in_order_with_requirement_and_configuration() {
    let args = typed(&[
        "/",
        "--plugin",
        r#"say={"body":"a=b"}"#,
        "--plugin",
        "limit-req@>=1.2, =1.3={}",
        "--plugin",
        "bare@=1.0.0",
    ]);
    assert_eq!(
        listed(&plugins(&args).unwrap()),
        [
            r#"say={"body":"a=b"}"#,
            "limit-req@>=1.2, =1.3={}",
            "bare@=1.0.0="
        ]
    );
}

#[test]
fn a_routes_conf_list_is_taken_as_it_stands() {
    let list =
        r#"[{"name":"say","value":"{\"body\":\"x\"}"},{"name":"b","value":{"c":1}},{"name":"d"}]"#;
    let args = typed(&["/", "--conf", list]);
    assert_eq!(
        listed(&plugins(&args).unwrap()),
        [r#"say={"body":"x"}"#, r#"b={"c":1}"#, "d="]
    );
    for wrong in ["{}", "[1]", "[{\"value\":\"x\"}]", "nonsense"] {
        let args = typed(&["/", "--conf", wrong]);
        assert!(
            plugins(&args).unwrap_err().starts_with("--conf: "),
            "{wrong}"
        );
    }
}

#[test]
fn files_stand_for_configurations_and_bodies() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"line\nwith \xff\n").unwrap();
    let path = file.path().to_str().unwrap();
    let args = typed(&[
        "/",
        "-d",
        &format!("@{path}"),
        "--plugin",
        &format!("say=@{path}"),
    ]);
    assert_eq!(
        plugins(&args).unwrap()[0].value.as_deref(),
        Some(&b"line\nwith \xff\n"[..])
    );
    assert_eq!(
        exchange(&args).unwrap().body.as_deref(),
        Some(&b"line\nwith \xff\n"[..])
    );
    let missing = typed(&["/", "--plugin", "x", "-d", "@/no/such/file"]);
    let reason = exchange(&missing).unwrap_err();
    assert!(
        reason.contains("--data @/no/such/file: No such file"),
        "{reason}"
    );
}

#[test]
fn headers_replace_remove_and_join_the_defaults_as_in_curl() {
    let args = typed(&[
        "http://example.com/x",
        "--plugin",
        "p",
        "-d",
        "abc",
        "-H",
        "X-Twice: 1",
        "-H",
        "x-twice:2",
        "-H",
        "Accept:",
        "-H",
        "X-Empty;",
        "-H",
        "Content-Type: text/plain",
    ]);
    let exchange = exchange(&args).unwrap();
    let agent = concat!("user-agent=plugin-host/", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        listed(&exchange.headers),
        [
            "host=example.com",
            agent,
            "content-length=3",
            "x-twice=1",
            "x-twice=2",
            "x-empty=",
            "content-type=text/plain"
        ]
    );
    assert_eq!(exchange.method, Method::Post);
}

#[test]
fn in_the_response_phase_flags_describe_the_upstreams_response() {
    let args = typed(&[
        "/x",
        "--plugin",
        "p",
        "--phase",
        "response",
        "--status",
        "404",
        "-H",
        "Content-Type: text/html",
        "-d",
        "gone",
    ]);
    let exchange = exchange(&args).unwrap();
    let upstream = exchange.upstream.unwrap();
    assert_eq!(upstream.status, 404);
    assert_eq!(
        listed(&upstream.headers),
        ["Content-Length=4", "Content-Type=text/html"]
    );
    assert_eq!(upstream.body.as_deref(), Some(&b"gone"[..]));
    assert_eq!(exchange.method, Method::Get);
    assert_eq!(exchange.body, None);
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for wrong in [
        &["/"][..],
        &["hello", "--plugin", "p"],
        &["/", "--plugin", "p", "-X", "BREW"],
        &["/", "--plugin", "p", "-H", "no colon"],
        &["/", "--plugin", "p", "--var", "=x"],
        &["/", "--plugin", "p", "--client-ip", "localhost"],
        &["/", "--plugin", "p", "--conf", "[]"],
    ] {
        assert!(Typed::try_parse_from(wrong).is_err(), "{wrong:?}");
    }
    assert!(plugins(&typed(&["/", "--plugin", "={}"])).is_err());
}

#[test]
fn the_socket_is_given_by_flag_or_by_the_gateways_variable() {
    let flagged = typed(&["/", "--plugin", "p", "--socket", "unix:rel.sock"]);
    let empty = Environment::empty();
    assert_eq!(socket(&flagged, &empty).unwrap(), Path::new("rel.sock"));
    let bare = typed(&["/", "--plugin", "p"]);
    let given = Environment::empty().with("APISIX_LISTEN_ADDRESS", "unix:/run/r.sock");
    assert_eq!(socket(&bare, &given).unwrap(), Path::new("/run/r.sock"));
    assert!(socket(&bare, &empty).unwrap_err().contains("--socket"));
    let wrong = Environment::empty().with("APISIX_LISTEN_ADDRESS", "tcp:1");
    assert!(
        socket(&bare, &wrong)
            .unwrap_err()
            .contains("APISIX_LISTEN_ADDRESS")
    );
}

/// The lines and notes of an effect, notes marked.
fn told(effect: &Effect) -> Vec<String> {
    let lines = effect.told.lines.iter().cloned();
    let notes = effect.told.notes.iter().map(|note| format!("note: {note}"));
    lines.chain(notes).collect()
}

#[test]
fn a_stop_is_told_as_what_the_client_gets() {
    let stop = Stop {
        status: 0,
        headers: vec![Field::new("X-A", "1"), Field::new("Server", "me")],
        body: None,
    };
    assert_eq!(
        told(&Effect::of_request(RequestEffect::Stop(stop))),
        [
            "200",
            "X-A: 1",
            "Server: me",
            "content-type: text/plain; charset=utf-8 (the gateway's own)",
            "note: the answer's status is 0: the gateway takes it for 200",
            "note: the gateway overwrites `server`",
        ]
    );
    let page = Stop {
        status: 403,
        headers: vec![Field::new("content-type", "text/html")],
        body: Some(Vec::new()),
    };
    assert_eq!(
        told(&Effect::of_request(RequestEffect::Stop(page))),
        [
            "403",
            "content-type: text/html",
            "note: no body: the client gets the gateway's error page",
        ]
    );
}

#[test]
fn a_rewrite_is_told_as_what_is_set_and_deleted() {
    let none = |name: &str| Field {
        name: name.into(),
        value: None,
    };
    let rewrite = Rewrite {
        path: Some(b"no-slash".to_vec()),
        headers: vec![Field::new("x-a", "1"), none("x-b"), Field::new("x-c", "")],
        args: vec![Field::new("a", "1"), Field::new("a", "2"), none("b")],
        response_headers: vec![Field::new("x-r", "1"), Field::new("Location", "/")],
        body: Some(b"new".to_vec()),
    };
    assert_eq!(
        told(&Effect::of_request(RequestEffect::Rewrite(rewrite))),
        [
            "path: no-slash",
            "set header x-a: 1",
            "delete header x-b",
            "delete header x-c",
            "set argument a=1",
            "add argument a=2",
            "delete argument b",
            "on the response, header x-r: 1",
            "on the response, header Location: /",
            "body replaced by 3 bytes",
            "note: the path does not begin with `/`: the gateway answers 502",
            "note: the gateway takes `Location` of a response from the upstream only: ignored",
        ]
    );
}

#[test]
fn a_response_is_told_with_what_is_lost_and_what_happens_twice() {
    let upstream = Response {
        id: 1,
        status: 204,
        headers: vec![Field::new("Location", "/"), Field::new("X-Up", "1")],
    };
    let told = |status, headers, body: Option<&str>| {
        let answer = ResponseEffect {
            status,
            headers,
            body: body.map(Into::into),
        };
        told(&Effect::of_response(answer, &upstream, Method::Get))
    };
    assert_eq!(
        told(0, vec![], None),
        [
            "204",
            "X-Up: 1",
            "note: the upstream's `Location` is lost: an answer without headers keeps the others only",
            "note: without a body in the answer, the gateway sends the request upstream a second time (--ask-method-for-head prevents it for HEAD)",
        ]
    );
    assert_eq!(
        told(204, vec![Field::new("X-Up", "2")], Some(" ")),
        [
            "204",
            "X-Up: 2",
            "note: the client gets no body; the one here keeps the gateway from sending the request upstream a second time",
        ]
    );
}
