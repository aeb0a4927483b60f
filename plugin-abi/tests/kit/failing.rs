//! Plugins that fail: what becomes of the call, and what is told.

use plugin_abi::{
    prelude::*,
    testing::{Gateway, Loaded, Loading, get, json, response},
};

/// Changes something, then does what the route says.
#[derive(Default)]
struct Fails;

impl Plugin for Fails {
    type Config = String;

    async fn on_load(&mut self, load: &Load) -> Result<()> {
        #[derive(Deserialize)]
        struct Settings {
            #[serde(default)]
            broken: bool,
        }
        let settings: Settings = load.settings()?;
        ensure!(
            !settings.broken,
            "{} {} is broken",
            load.name(),
            load.version()
        );
        Ok(())
    }

    fn configure(&self, raw: &[u8]) -> Result<String> {
        let how = String::parse(raw)?;
        ensure!(how != "refuse", "how: not like this");
        Ok(how)
    }

    async fn request_filter(&self, how: &String, request: &mut Request) -> Result<Action> {
        request.set_header("x-changed", "yes");
        match how.as_str() {
            "error" => bail!("no luck"),
            "panic" => panic!("on purpose"),
            "path" => request.set_path("no-slash"),
            "header" => request.set_header("not a name", "x"),
            "body" => request.set_body(""),
            "status" => return Ok(Action::stop(Reply::new(101))),
            _ => {}
        }
        Ok(Action::Continue)
    }

    async fn response_filter(&self, how: &String, response: &mut Response) -> Result<()> {
        match how.as_str() {
            "error" => bail!("no luck"),
            "status" => response.set_status(99),
            _ => {}
        }
        Ok(())
    }
}

fn fails(gateway: &Gateway) -> Loaded {
    gateway.load_with::<Fails>(Loading::new("fails"))
}

#[test]
fn a_failure_closes_the_request_and_the_reason_is_told() {
    let gateway = Gateway::new();
    let fails = fails(&gateway);
    for (how, reason) in [
        ("error", "failed: no luck"),
        ("panic", "panicked: on purpose at "),
        (
            "path",
            "asked for what the gateway cannot do: the path \"no-slash\", which does not",
        ),
        (
            "header",
            "asked for what the gateway cannot do: a header named \"not a name\"",
        ),
        (
            "body",
            "asked for what the gateway cannot do: an empty body",
        ),
        ("status", "asked for what the gateway cannot do: status 101"),
    ] {
        let outcome = fails.route(json!(how)).request(get("/"));
        assert_eq!(outcome.client().status(), 503, "{how}");
        assert!(outcome.client().is_error_page());
        assert!(
            outcome.failure().starts_with(reason),
            "{}",
            outcome.failure()
        );
        assert_eq!(outcome.failures()[0].plugin, "fails");
    }
}

#[test]
fn a_failure_on_a_response_replaces_it() {
    let gateway = Gateway::new();
    let fails = fails(&gateway);
    for how in ["error", "status"] {
        let outcome = fails
            .route(json!(how))
            .response(response(200).body("secret"));
        assert_eq!(outcome.client().status(), 503);
        assert!(!outcome.client().text().contains("secret"));
    }
}

#[test]
fn a_plugin_that_fails_open_leaves_no_trace_and_the_chain_goes_on() {
    let gateway = Gateway::new();
    let open = gateway.load_with::<Fails>(Loading::new("open").fail_open());
    let route = gateway
        .route()
        .on_request(&open, json!("error"))
        .on_request(&open, json!("fine"));
    let outcome = route.request(get("/"));
    assert_eq!(outcome.upstream().header("x-changed"), Some("yes"));
    assert_eq!(outcome.failures().len(), 1);
    assert!(outcome.failures()[0].skipped);
    let alone = gateway.route().on_request(&open, json!("panic"));
    assert_eq!(alone.request(get("/")).upstream().header("x-changed"), None);
}

#[test]
fn where_the_route_allows_degradation_a_request_goes_on_as_it_came() {
    let gateway = Gateway::new();
    let fails = fails(&gateway);
    let route = gateway
        .route()
        .on_request(&fails, json!("fine"))
        .on_request(&fails, json!("error"))
        .allow_degradation();
    let outcome = route.request(get("/"));
    assert_eq!(outcome.upstream().header("x-changed"), None);
    assert_eq!(outcome.failure(), "failed: no luck");
}

#[test]
fn a_refused_configuration_and_a_refused_load_say_why() {
    let gateway = Gateway::new();
    assert_eq!(
        fails(&gateway).refusal(json!("refuse")),
        "how: not like this"
    );
    assert!(
        fails(&gateway)
            .refusal("{")
            .starts_with("the configuration does not fit")
    );
    let loading = Loading::new("fails").settings(json!({ "broken": true }));
    let reason = gateway.try_load::<Fails>(loading).unwrap_err();
    assert_eq!(reason, "fails 0.0.0 is broken");
}

#[test]
fn what_is_logged_anywhere_in_a_plugins_life_is_there_with_its_fields() {
    struct Talks;
    impl Default for Talks {
        fn default() -> Self {
            log::trace!("made");
            Self
        }
    }
    impl Drop for Talks {
        fn drop(&mut self) {
            log::debug!("dropped");
        }
    }
    impl Plugin for Talks {
        type Config = ();
        async fn request_filter(&self, _config: &(), request: &mut Request) -> Result<Action> {
            log::warn!(id = request.id(), who = "ada"; "looked at");
            Ok(Action::Continue)
        }
        async fn on_unload(&self) {
            log::info!("unloaded");
        }
    }
    let gateway = Gateway::new();
    let talks = gateway.load::<Talks>();
    talks.route("").request(get("/").id(9));
    talks.unload();
    let log = gateway.log();
    let lines: Vec<_> = log.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "TRACE Talks: made",
            "WARN Talks: looked at id=9 who=ada",
            "INFO Talks: unloaded",
            "DEBUG Talks: dropped",
        ]
    );
    assert_eq!(log[1].field("who"), Some("ada"));
    assert_eq!(log[1].target, "kit::failing");
}

#[test]
fn tests_that_run_at_the_same_time_do_not_hear_each_other() {
    #[derive(Default)]
    struct Echo;
    impl Plugin for Echo {
        type Config = String;
        async fn request_filter(&self, word: &String, _request: &mut Request) -> Result<Action> {
            time::sleep(std::time::Duration::from_secs(1)).await;
            log::info!("{word}");
            Ok(Action::Continue)
        }
    }
    let threads = ["one", "two", "three", "four"].map(|word| {
        std::thread::spawn(move || {
            let gateway = Gateway::new();
            let route = gateway.load::<Echo>().route(json!(word));
            for _ in 0..50 {
                assert!(route.request(get("/")).went_upstream());
            }
            let log = gateway.log();
            assert!(log.len() == 50 && log.iter().all(|logged| logged.message == word));
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
}
