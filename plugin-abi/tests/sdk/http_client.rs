//! What the host's client is asked for, and what becomes of its answers; the client itself is the
//! host's, whose tests call real servers.

use std::time::Duration;

use plugin_abi::{http_client::HttpRequest, prelude::*};

use crate::support::{FakeCall, Library, failure_of, fetch_from_an_older_host, logged};

/// What the host is asked for when a request is sent outside of calls.
fn asked(build: fn(HttpClient) -> HttpRequest) -> Vec<String> {
    #[derive(Default)]
    struct Idle;
    impl Plugin for Idle {
        type Config = ();
    }
    let _library = Library::load::<Idle>("{}");
    let mut sending = Box::pin(build(HttpClient::new()).send());
    let waker = std::task::Waker::noop();
    let polled = sending
        .as_mut()
        .poll(&mut std::task::Context::from_waker(waker));
    assert!(polled.is_ready());
    logged()
}

#[test]
fn a_request_outside_of_calls_has_ten_seconds_and_a_mebibyte_unless_it_says_otherwise() {
    assert_eq!(
        asked(|client| client.get("http://a/")),
        ["fetch GET http://a/ within 10000 ms, at most 1048576 bytes: "]
    );
    let own = asked(|client| {
        let request = client.put("http://a/").body("b");
        request.timeout(Duration::from_secs(60)).max_body(5)
    });
    assert_eq!(
        own,
        ["fetch PUT http://a/ within 60000 ms, at most 5 bytes: b"]
    );
}

#[test]
fn a_request_of_a_call_ends_a_little_before_the_call() {
    #[derive(Default)]
    struct Asks;
    impl Plugin for Asks {
        type Config = ();
        async fn request_filter(&self, _config: &(), request: &mut Request) -> Result<Action> {
            request.http().delete("http://a/").send().await?;
            Ok(Action::Continue)
        }
    }
    let library = Library::load::<Asks>("{}");
    let outcome = library.request(FakeCall::default());
    assert_eq!(failure_of(&outcome).message, "nobody is there");
    // Of the 1,500 ms that a call has here, 10 are kept; less the time that it takes to come here.
    let asked = logged().remove(0);
    let within = asked.strip_prefix("fetch DELETE http://a/ within 14");
    assert!(
        within.is_some_and(|rest| rest.contains(" ms, at most")),
        "{asked}"
    );
}

#[test]
fn headers_queries_forms_and_json_are_written_as_services_read_them() {
    let asked = asked(|client| {
        let request = client
            .post("http://a/?v=1#part")
            .bearer("t")
            .header("X-B", "2");
        request.query([("q", "a&b=c d"), ("r", "ä")]).json(&["x"])
    });
    assert_eq!(
        asked,
        [
            "fetch POST http://a/?v=1&q=a%26b%3Dc+d&r=%C3%A4 within 10000 ms, at most 1048576 bytes: [\"x\"]",
            "authorization: Bearer t",
            "x-b: 2",
            "content-type: application/json",
        ]
    );
    let form = self::asked(|client| client.post("http://a/").form([("user", "a b"), ("x", "=")]));
    assert_eq!(
        form,
        [
            "fetch POST http://a/ within 10000 ms, at most 1048576 bytes: user=a+b&x=%3D",
            "content-type: application/x-www-form-urlencoded",
        ]
    );
}

#[test]
fn a_request_that_cannot_be_sent_is_told_so_and_never_reaches_the_host() {
    for build in [
        (|client| client.get("http://a/").header("x y", "1")) as fn(HttpClient) -> HttpRequest,
        |client| client.get("http://a/").header("x", "1\n2"),
        |client| client.get("http://a/").bearer("\0"),
    ] {
        assert!(asked(build).is_empty());
    }
}

#[test]
fn a_host_that_is_older_than_the_client_says_that_it_has_none() {
    use plugin_abi::abi::{
        HttpFailureKind, OutgoingRequest, OutgoingRequest_TO, OwnedField, RSlice, RStr, RVec,
        TD_Opaque,
    };
    struct Nothing;
    impl OutgoingRequest for Nothing {
        fn method(&self) -> RSlice<'_, u8> {
            RSlice::EMPTY
        }
        fn url(&self) -> RStr<'_> {
            RStr::from_str("")
        }
        fn headers(&self) -> RSlice<'_, OwnedField> {
            RSlice::EMPTY
        }
        fn take_body(&mut self) -> RVec<u8> {
            RVec::new()
        }
        fn nanoseconds(&self) -> u64 {
            0
        }
        fn max_body_bytes(&self) -> u64 {
            0
        }
    }
    let request = OutgoingRequest_TO::from_value(Nothing, TD_Opaque);
    let failure = fetch_from_an_older_host(request).map(|_| ()).unwrap_err();
    assert_eq!(failure.kind, HttpFailureKind::UNAVAILABLE);
    assert_eq!(failure.message, "this host has no HTTP client");
}

#[test]
fn a_library_that_misses_tokio_says_what_to_do() {
    #[derive(Default)]
    struct Misses;
    impl Plugin for Misses {
        type Config = ();
        async fn request_filter(&self, _config: &(), _request: &mut Request) -> Result<Action> {
            tokio::time::sleep(Duration::ZERO).await;
            Ok(Action::Continue)
        }
    }
    let library = Library::load::<Misses>("{}");
    let outcome = library.request(FakeCall::default());
    let failure = failure_of(&outcome);
    assert!(failure.panicked);
    let message = failure.message.as_str();
    assert!(
        message.contains("const RUNTIME: Runtime = Runtime::Tokio;"),
        "{message}"
    );
}
