//! Services that plugins call over HTTP, in the kit: answers by URL, failures, time.

use std::time::Duration;

use plugin_abi::{
    prelude::*,
    testing::{Gateway, get, json, response},
};

/// Asks where a route says, and shows upstream what came of it.
#[derive(Default)]
struct Asks;

#[derive(Deserialize)]
struct Config {
    url: String,
}

impl Plugin for Asks {
    type Config = Config;

    async fn request_filter(&self, config: &Config, request: &mut Request) -> Result<Action> {
        let asked = request.http().post(&config.url).bearer("secret");
        let asked = asked.timeout(Duration::from_millis(500)).max_body(20);
        let answer = match asked.json(&["a"]).send().await {
            Ok(answer) => {
                let (status, name) = (answer.status(), answer.header_str("x-name"));
                let name = name.unwrap_or("-").to_owned();
                match answer.text().await {
                    Ok(text) => format!("{} {name} {text}", status.as_u16()),
                    Err(error) => format!("{:?} {error}", error.kind()),
                }
            }
            Err(error) => format!("{:?} {error}", error.kind()),
        };
        request.set_header("x-answer", answer);
        Ok(Action::Continue)
    }
}

/// What the plugin heard from a URL, and how long it took.
fn heard(gateway: &Gateway, url: &str) -> (String, Duration) {
    let route = gateway.load::<Asks>().route(json!({ "url": url }));
    let outcome = route.request(get("/"));
    let heard = outcome.upstream().header("x-answer").unwrap().to_owned();
    (heard, outcome.took())
}

#[test]
fn a_service_answers_at_its_url_and_below_and_says_what_it_got() {
    let gateway = Gateway::new();
    let all = gateway.service("http://users/", response(200).body("all"));
    let one = gateway.service(
        "http://users/v1",
        response(404).header("X-Name", "n").body("v1"),
    );
    assert_eq!(heard(&gateway, "http://users").0, "200 - all");
    assert_eq!(heard(&gateway, "http://users/v12").0, "200 - all");
    assert_eq!(heard(&gateway, "http://users/v1/whoami?q=1").0, "404 n v1");
    let requests = one.requests();
    let got = &requests[0];
    assert_eq!(
        (got.method().as_str(), got.uri()),
        ("POST", "/v1/whoami?q=1")
    );
    assert_eq!(got.header("Authorization"), Some("Bearer secret"));
    assert_eq!(got.text(), r#"["a"]"#);
    assert_eq!((all.requests().len(), requests.len()), (2, 1));
}

#[test]
fn nobody_is_where_the_test_has_no_service_and_the_query_stays_out_of_the_message() {
    let gateway = Gateway::new();
    gateway.service("http://users", response(200));
    let (heard, _) = heard(&gateway, "http://users.example/x?token=secret");
    assert!(heard.starts_with("Connect users.example: "), "{heard}");
    assert!(!heard.contains("secret"));
}

#[test]
fn a_service_fails_and_recovers_as_the_test_says() {
    let gateway = Gateway::new();
    let service = gateway.service("https://users", response(200).body("a"));
    for kind in [
        HttpErrorKind::Tls,
        HttpErrorKind::Broken,
        HttpErrorKind::Busy,
    ] {
        service.fails(kind);
        let (heard, _) = heard(&gateway, "https://users/");
        assert!(heard.starts_with(&format!("{kind:?} users: ")), "{heard}");
    }
    service.answers(response(200).body("b"));
    assert_eq!(heard(&gateway, "https://users/").0, "200 - b");
}

#[test]
fn a_slow_service_takes_the_tests_time_up_to_the_plugins_patience() {
    let gateway = Gateway::new();
    let service = gateway.service("http://users", response(200).body("a"));
    service.takes(Duration::from_millis(400));
    let expected = ("200 - a".to_owned(), Duration::from_millis(400));
    assert_eq!(heard(&gateway, "http://users"), expected);
    service.takes(Duration::from_secs(60));
    let (heard, took) = heard(&gateway, "http://users");
    assert!(heard.starts_with("Timeout users: "), "{heard}");
    assert_eq!(took, Duration::from_millis(500));
}

#[test]
fn a_body_larger_than_the_plugin_allows_is_refused() {
    let gateway = Gateway::new();
    gateway.service("http://users", response(200).body("more than twenty bytes"));
    assert!(
        heard(&gateway, "http://users")
            .0
            .starts_with("TooLarge users: ")
    );
}
