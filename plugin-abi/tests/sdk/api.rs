//! What an author's methods see and do: reading, changing, asking, logging.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use plugin_abi::{
    abi::{AskStatus, Verdict},
    prelude::*,
};

use crate::support::{FakeCall, Library, failure_of, logged};

/// Runs the request phase of a plugin that finds all as it should be; says what it changed or
/// asked.
#[track_caller]
fn done_by<P: Plugin>(call: FakeCall) -> Vec<String> {
    let done = call.done();
    let outcome = Library::load::<P>("{}").request(call);
    assert_eq!(outcome.verdict, Verdict::Continue);
    done.lock().unwrap().clone()
}

#[test]
fn reading_a_request_changes_nothing() {
    #[derive(Default)]
    struct Reader;
    impl Plugin for Reader {
        type Config = ();
        async fn request_filter(&self, _config: &(), request: &mut Request) -> Result<Action> {
            assert_eq!(request.id(), 7);
            assert_eq!(request.time_left().as_millis(), 1_500);
            assert_eq!(request.method(), Method::POST);
            assert_eq!(
                (request.path(), request.path_str()),
                (&b"/a"[..], Some("/a"))
            );
            assert_eq!(request.client_ip(), Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
            assert_eq!(request.header("X-A"), Some(&b"1"[..]));
            assert_eq!(request.headers().count(), 1);
            assert_eq!(request.arg_str("q"), Some("2"));
            assert_eq!(request.args().count(), 1);
            Ok(Action::Continue)
        }
    }
    let call = FakeCall {
        path: "/a",
        address: vec![127, 0, 0, 1],
        ..FakeCall::default()
    };
    let done = done_by::<Reader>(call.header("x-a", "1").argument("q", Some("2")));
    assert!(done.is_empty(), "{done:?}");
}

#[test]
fn a_header_is_found_in_any_case_and_an_argument_only_in_its_own() {
    #[derive(Default)]
    struct Reader;
    impl Plugin for Reader {
        type Config = ();
        async fn request_filter(&self, _config: &(), request: &mut Request) -> Result<Action> {
            assert_eq!(request.header_str("ACCEPT"), Some("text/html"));
            assert_eq!(request.header("accep"), None);
            assert_eq!(request.arg("Q"), None);
            assert_eq!(request.arg("q"), Some(&b"2"[..]));
            Ok(Action::Continue)
        }
    }
    let call = FakeCall::default().header("accept", "text/html");
    done_by::<Reader>(call.argument("q", Some("2")));
}

#[test]
fn repeated_names_keep_all_their_values_in_order() {
    #[derive(Default)]
    struct Reader;
    impl Plugin for Reader {
        type Config = ();
        async fn request_filter(&self, _config: &(), request: &mut Request) -> Result<Action> {
            let cookies: Vec<&[u8]> = request.header_values("Cookie").collect();
            assert_eq!(cookies, [b"a=1", b"b=2"]);
            assert_eq!(request.header("cookie"), Some(&b"a=1"[..]));
            let tags: Vec<&[u8]> = request.arg_values("tag").collect();
            assert_eq!(tags, [&b"x"[..], b"", b"y"]);
            assert_eq!(request.header_values("absent").count(), 0);
            Ok(Action::Continue)
        }
    }
    let call = FakeCall::default()
        .header("cookie", "a=1")
        .header("host", "h")
        .header("cookie", "b=2")
        .argument("tag", Some("x"))
        .argument("tag", None)
        .argument("tag", Some("y"));
    done_by::<Reader>(call);
}

#[test]
fn an_argument_without_a_value_differs_from_one_with_an_empty_value() {
    #[derive(Default)]
    struct Reader;
    impl Plugin for Reader {
        type Config = ();
        async fn request_filter(&self, _config: &(), request: &mut Request) -> Result<Action> {
            let args: Vec<_> = request.args().collect();
            assert_eq!(
                args,
                [(&b"flag"[..], None), (&b"empty"[..], Some(&b""[..]))]
            );
            assert_eq!(request.arg("flag"), Some(&b""[..]));
            assert_eq!(request.arg("empty"), Some(&b""[..]));
            assert_eq!(request.arg("neither"), None);
            Ok(Action::Continue)
        }
    }
    let call = FakeCall::default().argument("flag", None);
    done_by::<Reader>(call.argument("empty", Some("")));
}

#[test]
fn bytes_that_are_no_text_are_there_as_bytes_only() {
    #[derive(Default)]
    struct Reader;
    impl Plugin for Reader {
        type Config = ();
        async fn request_filter(&self, _config: &(), request: &mut Request) -> Result<Action> {
            assert_eq!(request.header("x-raw"), Some(&b"\xff"[..]));
            assert_eq!(request.header_str("x-raw"), None);
            assert_eq!(request.client_ip(), Some(IpAddr::V6(Ipv6Addr::LOCALHOST)));
            Ok(Action::Continue)
        }
    }
    let mut call = FakeCall {
        address: Ipv6Addr::LOCALHOST.octets().to_vec(),
        ..FakeCall::default()
    };
    call.headers.push((b"x-raw".to_vec(), Some(vec![0xff])));
    done_by::<Reader>(call);
}

#[test]
fn a_client_without_an_address_has_none() {
    #[derive(Default)]
    struct Reader;
    impl Plugin for Reader {
        type Config = ();
        async fn request_filter(&self, _config: &(), request: &mut Request) -> Result<Action> {
            assert_eq!(request.client_ip(), None);
            Ok(Action::Continue)
        }
    }
    done_by::<Reader>(FakeCall::default());
}

#[test]
fn every_change_of_a_request_reaches_the_host() {
    #[derive(Default)]
    struct Writer;
    impl Plugin for Writer {
        type Config = ();
        async fn request_filter(&self, _config: &(), request: &mut Request) -> Result<Action> {
            request.set_path("/p");
            request.set_header("a", "1");
            request.remove_header("b");
            request.set_arg("c", "2");
            request.append_arg("c", "3");
            request.remove_arg("d");
            request.set_response_header("e", "4");
            request.append_response_header("e", b"5");
            request.set_body("body");
            Ok(Action::Continue)
        }
    }
    assert_eq!(
        done_by::<Writer>(FakeCall::default()),
        [
            "set path /p",
            "set header a 1",
            "remove header b",
            "set argument c 2",
            "append argument c 3",
            "remove argument d",
            "set response header e 4",
            "append response header e 5",
            "set body body",
        ]
    );
}

#[test]
fn a_response_is_read_and_changed_in_the_same_way() {
    #[derive(Default)]
    struct Both;
    impl Plugin for Both {
        type Config = ();
        async fn response_filter(&self, _config: &(), response: &mut Response) -> Result<()> {
            assert_eq!((response.id(), response.status()), (7, 404));
            assert_eq!(response.time_left().as_millis(), 1_500);
            assert_eq!(response.header_str("set-cookie"), Some("a=1"));
            assert_eq!(response.header_values("set-cookie").count(), 2);
            assert_eq!(
                response.headers().next(),
                Some((&b"Set-Cookie"[..], &b"a=1"[..]))
            );
            assert_eq!(response.var("route_id").await?, Some(&b"answer"[..]));
            assert_eq!(response.body().await?, Some(&b"answer"[..]));
            response.set_status(200);
            response.set_header("A", "1");
            response.append_header("A", "2");
            response.remove_header("B");
            response.set_body(vec![b'x']);
            assert_eq!(response.body().await?, Some(&b"x"[..]));
            Ok(())
        }
    }
    let call = FakeCall {
        status: 404,
        answer: Some(b"answer".to_vec()),
        ..FakeCall::default()
    };
    let call = call.header("Set-Cookie", "a=1").header("Set-Cookie", "b=2");
    let done = call.done();
    let outcome = Library::load::<Both>("{}").response(call);
    assert_eq!(outcome.verdict, Verdict::Continue);
    assert_eq!(
        *done.lock().unwrap(),
        [
            "ask variable route_id",
            "ask response body",
            "set status  200",
            "set header A 1",
            "append header A 2",
            "remove header B",
            "set body x",
        ]
    );
}

#[test]
fn variables_and_bodies_are_asked_for() {
    #[derive(Default)]
    struct Asker;
    impl Plugin for Asker {
        type Config = ();
        async fn request_filter(&self, _config: &(), request: &mut Request) -> Result<Action> {
            assert_eq!(request.var("route_id").await?, Some(&b"answer"[..]));
            assert_eq!(request.body().await?, Some(&b"answer"[..]));
            request.set_body("mine");
            // What is set is known without a question.
            assert_eq!(request.body().await?, Some(&b"mine"[..]));
            Ok(Action::Continue)
        }
    }
    let call = FakeCall {
        answer: Some(b"answer".to_vec()),
        ..FakeCall::default()
    };
    assert_eq!(
        done_by::<Asker>(call),
        ["ask variable route_id", "ask request body", "set body mine"]
    );
}

#[test]
fn what_the_gateway_does_not_have_is_none() {
    #[derive(Default)]
    struct Asker;
    impl Plugin for Asker {
        type Config = ();
        async fn request_filter(&self, _config: &(), request: &mut Request) -> Result<Action> {
            assert_eq!(request.var("no_such").await?, None);
            assert_eq!(request.body().await?, None);
            Ok(Action::Continue)
        }
    }
    done_by::<Asker>(FakeCall::default());
}

#[test]
fn every_reason_for_no_answer_has_a_name_and_unknown_ones_their_number() {
    #[derive(Default)]
    struct Asker;
    impl Plugin for Asker {
        type Config = ();
        async fn request_filter(&self, _config: &(), request: &mut Request) -> Result<Action> {
            match request.body().await {
                Ok(_) => Ok(Action::Continue),
                Err(error) => bail!("{error:?}"),
            }
        }
    }
    let library = Library::load::<Asker>("{}");
    for (status, expected) in [
        (AskStatus::BODY_TOO_LARGE, AskError::BodyTooLarge),
        (AskStatus::TOO_MANY_QUESTIONS, AskError::TooManyQuestions),
        (AskStatus::CALL_OVER, AskError::CallOver),
        (AskStatus::NOT_IN_THIS_PHASE, AskError::NotInThisPhase),
        (AskStatus::OUT_OF_MEMORY, AskError::OutOfMemory),
        (AskStatus(200), AskError::Other(200)),
    ] {
        let outcome = library.request(FakeCall {
            refusal: Some(status),
            ..FakeCall::default()
        });
        assert_eq!(failure_of(&outcome).message, format!("{expected:?}"));
    }
}

#[test]
fn a_reply_arrives_as_it_was_put_together() {
    #[derive(Default)]
    struct Stopper;
    impl Plugin for Stopper {
        type Config = ();
        async fn request_filter(&self, _config: &(), _request: &mut Request) -> Result<Action> {
            let reply = Reply::from(StatusCode::IM_A_TEAPOT)
                .header("Set-Cookie", "a=1")
                .header("Set-Cookie", b"\xff");
            Ok(Action::stop(reply.body(b"\x00tea")))
        }
    }
    let outcome = Library::load::<Stopper>("{}").request(FakeCall::default());
    let Verdict::Stop(reply) = outcome.verdict else {
        panic!("{:?}", outcome.verdict);
    };
    assert_eq!(
        (reply.status, reply.body.as_slice()),
        (418, &b"\x00tea"[..])
    );
    let values: Vec<&[u8]> = reply
        .headers
        .iter()
        .map(|field| field.value.as_slice())
        .collect();
    assert_eq!(values, [&b"a=1"[..], b"\xff"]);
}

#[test]
fn a_plugin_that_does_nothing_lets_everything_pass() {
    #[derive(Default)]
    struct Nothing;
    impl Plugin for Nothing {
        type Config = ();
    }
    let library = Library::load::<Nothing>("{}");
    for raw in ["", " ", "{}", "null"] {
        assert!(library.configure(raw).is_ok(), "{raw:?}");
    }
    assert!(library.configure(r#"{"body": "x"}"#).is_err());
    let outcome = library.request(FakeCall::default());
    assert_eq!(outcome.verdict, Verdict::Continue);
    let outcome = library.response(FakeCall::default());
    assert_eq!(outcome.verdict, Verdict::Continue);
}

#[test]
fn records_reach_the_host_with_their_fields_unless_it_wants_none() {
    #[derive(Default)]
    struct Talker;
    #[derive(Deserialize)]
    struct Settings {
        user: String,
    }
    impl Plugin for Talker {
        type Config = ();
        async fn on_load(&mut self, load: &Load) -> Result<()> {
            let Settings { user } = load.settings()?;
            log::info!(user = user.as_str(), attempts = 3; "let {} in", "her");
            log::debug!("not asked for");
            Ok(())
        }
    }
    let library = Library::load::<Talker>(r#"{"user": "ada"}"#);
    library.plugin();
    assert_eq!(logged(), ["3 sdk::api let her in user=ada attempts=3"]);
}
