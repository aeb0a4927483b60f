//! Whatever a plugin's code does wrong, and wherever: it stays inside, it is told with its place, and
//! the call comes back only where it is still whole.

use std::{fmt, future, task::Poll};

use plugin_abi::{
    abi::{Failure, ROption, Verdict},
    prelude::*,
};

use crate::support::{FakeCall, Library, failure_of, logged, poll, ready};

/// Panics when it goes away.
struct Bomb(&'static str);

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("{} went off", self.0);
    }
}

/// That a failure is a panic with this message, and that it names this file.
#[track_caller]
fn assert_panicked(failure: &Failure, message: &str) {
    assert!(failure.panicked, "{failure}");
    let place = format!("{message} at ");
    assert!(failure.message.starts_with(&place), "{failure}");
    assert!(failure.message.contains("panics.rs:"), "{failure}");
}

#[track_caller]
fn assert_logged(lines: &[String], message: &str) {
    let found = lines.iter().filter(|line| line.contains(message)).count();
    assert_eq!(found, 1, "{message} in {lines:?}");
}

#[test]
fn a_panic_in_the_constructor_refuses_the_load() {
    struct Broken;
    impl Default for Broken {
        fn default() -> Self {
            panic!("no default")
        }
    }
    impl Plugin for Broken {
        type Config = ();
    }
    assert_panicked(Library::load::<Broken>("{}").failure(), "no default");
}

#[test]
fn a_panic_in_on_load_refuses_the_load() {
    #[derive(Default)]
    struct Broken;
    impl Plugin for Broken {
        type Config = ();
        async fn on_load(&mut self, load: &Load) -> Result<()> {
            panic!("{} {}", load.name(), load.version())
        }
    }
    assert_panicked(Library::load::<Broken>("{}").failure(), "probe 1.2.3");
}

#[test]
fn an_error_in_on_load_refuses_the_load_with_its_causes() {
    #[derive(Default)]
    struct Unhappy;
    impl Plugin for Unhappy {
        type Config = ();
        async fn on_load(&mut self, load: &Load) -> Result<()> {
            let port: u16 = load.settings().context("the port")?;
            bail!("port {port}")
        }
    }
    let library = Library::load::<Unhappy>(r#"{"port": 1}"#);
    assert!(!library.failure().panicked);
    let message = &library.failure().message;
    assert!(message.starts_with("the port: invalid type"), "{message}");
}

#[test]
fn settings_that_are_not_json_refuse_the_load() {
    #[derive(Default)]
    struct Fine;
    impl Plugin for Fine {
        type Config = ();
    }
    assert!(!Library::load::<Fine>("{").failure().panicked);
}

#[test]
fn a_panic_in_configure_refuses_that_configuration_only() {
    #[derive(Default)]
    struct Choosy;
    impl Plugin for Choosy {
        type Config = String;
        fn configure(&self, raw: &[u8]) -> Result<String> {
            assert!(raw != b"bad", "not this one");
            Ok(String::new())
        }
    }
    let library = Library::load::<Choosy>("{}");
    let failure = library.configure("bad").map(|_| ()).unwrap_err();
    assert_panicked(&failure, "not this one");
    assert!(library.configure("good").is_ok());
}

#[test]
fn an_error_in_configure_says_its_causes() {
    #[derive(Default)]
    struct Numbers;
    impl Plugin for Numbers {
        type Config = u8;
    }
    let library = Library::load::<Numbers>("{}");
    let failure = library.configure("300").map(|_| ()).unwrap_err();
    assert!(!failure.panicked);
    assert!(
        failure.message.contains("the configuration does not fit: "),
        "{failure}"
    );
    assert!(failure.message.contains("300"), "{failure}");
}

#[test]
fn a_panic_at_the_first_poll_of_a_filter_fails_the_call() {
    #[derive(Default)]
    struct Broken;
    impl Plugin for Broken {
        type Config = ();
        async fn request_filter(&self, _config: &(), request: &mut Request) -> Result<Action> {
            request.set_path("/changed");
            panic!("in the request")
        }
        async fn response_filter(&self, _config: &(), _response: &mut Response) -> Result<()> {
            panic!("in the response")
        }
    }
    let library = Library::load::<Broken>("{}");
    let outcome = library.request(FakeCall::default());
    assert_panicked(failure_of(&outcome), "in the request");
    assert!(
        outcome.call.is_none(),
        "a half-changed call must not come back"
    );

    let outcome = library.response(FakeCall::default());
    assert_panicked(failure_of(&outcome), "in the response");
    assert!(outcome.call.is_none());
}

#[test]
fn a_panic_at_a_later_poll_of_a_filter_fails_the_call() {
    #[derive(Default)]
    struct Sleepy;
    impl Plugin for Sleepy {
        type Config = ();
        async fn request_filter(&self, _config: &(), request: &mut Request) -> Result<Action> {
            time::sleep(request.time_left()).await;
            panic!("woken up")
        }
    }
    let library = Library::load::<Sleepy>("{}");
    let configured = library.configure("{}").unwrap();
    let call = FakeCall::default();
    let done = call.done();
    let mut future = configured.request(call.into_object());
    assert!(poll(&mut future).is_pending());
    assert_eq!(logged(), ["sleep 1500000000"]);
    let Poll::Ready(outcome) = poll(&mut future) else {
        panic!("the plugin still waits");
    };
    assert_panicked(failure_of(&outcome), "woken up");
    assert!(outcome.call.is_none());
    drop(future);
    assert_eq!(std::sync::Arc::strong_count(&done), 1, "the call is gone");
}

#[test]
fn an_error_of_a_filter_gives_the_call_back() {
    #[derive(Default)]
    struct Unhappy;
    impl Plugin for Unhappy {
        type Config = ();
        async fn request_filter(&self, _config: &(), _request: &mut Request) -> Result<Action> {
            Err(anyhow!("connection refused")).context("asking the directory")
        }
        async fn response_filter(&self, _config: &(), _response: &mut Response) -> Result<()> {
            bail!("not mine")
        }
    }
    let library = Library::load::<Unhappy>("{}");
    let expected = |message: &str| {
        Verdict::Failed(Failure {
            panicked: false,
            message: message.into(),
        })
    };
    let outcome = library.request(FakeCall::default());
    assert_eq!(
        outcome.verdict,
        expected("asking the directory: connection refused")
    );
    assert_eq!(outcome.call.unwrap().id(), 7);
    let outcome = library.response(FakeCall::default());
    assert_eq!(outcome.verdict, expected("not mine"));
    assert!(outcome.call.is_some());
}

#[test]
fn a_panic_while_the_plugin_is_dropped_is_logged() {
    struct Explosive(#[expect(dead_code, reason = "it is there to be dropped")] Bomb);
    impl Default for Explosive {
        fn default() -> Self {
            Self(Bomb("the plugin"))
        }
    }
    impl Plugin for Explosive {
        type Config = ();
    }
    let lines = Library::load::<Explosive>("{}").unload();
    assert_logged(&lines, "a drop panicked: the plugin went off at ");
}

#[test]
fn a_panic_while_a_configuration_is_dropped_is_logged() {
    struct Explosive(#[expect(dead_code, reason = "it is there to be dropped")] Bomb);
    impl Configuration for Explosive {
        fn parse(_raw: &[u8]) -> Result<Self> {
            Ok(Self(Bomb("the configuration")))
        }
    }
    #[derive(Default)]
    struct Fine;
    impl Plugin for Fine {
        type Config = Explosive;
    }
    let library = Library::load::<Fine>("{}");
    drop(library.configure("{}").unwrap());
    assert_logged(
        &library.unload(),
        "a drop panicked: the configuration went off at ",
    );
}

#[test]
fn a_panic_while_a_waiting_filter_is_dropped_is_logged() {
    #[derive(Default)]
    struct Waiting;
    impl Plugin for Waiting {
        type Config = ();
        async fn request_filter(&self, _config: &(), _request: &mut Request) -> Result<Action> {
            let _bomb = Bomb("the filter");
            future::pending().await
        }
    }
    let library = Library::load::<Waiting>("{}");
    let configured = library.configure("{}").unwrap();
    let call = FakeCall::default();
    let done = call.done();
    let mut future = configured.request(call.into_object());
    assert!(poll(&mut future).is_pending());
    drop(future);
    assert_eq!(
        std::sync::Arc::strong_count(&done),
        1,
        "the call went with the future"
    );
    assert_logged(
        &library.unload(),
        "the drop of a future panicked: the filter went off",
    );
}

#[test]
fn a_panic_in_on_unload_is_logged() {
    #[derive(Default)]
    struct Broken;
    impl Plugin for Broken {
        type Config = ();
        async fn on_unload(&self) {
            panic!("no good-bye")
        }
    }
    let library = Library::load::<Broken>("{}");
    ready(library.plugin().unload());
    assert_logged(&library.unload(), "on_unload panicked: no good-bye at ");
}

#[test]
fn a_panic_whose_payload_panics_again_is_one_failure() {
    #[derive(Default)]
    struct Vicious;
    impl Plugin for Vicious {
        type Config = ();
        async fn request_filter(&self, _config: &(), _request: &mut Request) -> Result<Action> {
            std::panic::panic_any(Bomb("the payload"))
        }
        async fn response_filter(&self, _config: &(), _response: &mut Response) -> Result<()> {
            // Without the hook, so that a message kept from before would be taken for this one's.
            std::panic::resume_unwind(Box::new("another"))
        }
    }
    let library = Library::load::<Vicious>("{}");
    let outcome = library.request(FakeCall::default());
    assert_panicked(failure_of(&outcome), "with a value that is no text");
    let outcome = library.response(FakeCall::default());
    assert_eq!(failure_of(&outcome).message, "another");
}

/// An error that panics where nobody expects it.
#[derive(Debug)]
struct Nasty {
    bomb: Option<Bomb>,
}

impl fmt::Display for Nasty {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bomb {
            Some(_) => Ok(()),
            None => panic!("in its text"),
        }
    }
}

impl std::error::Error for Nasty {}

impl fmt::Debug for Bomb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[test]
fn an_error_that_panics_itself_is_a_failure_like_others() {
    #[derive(Default)]
    struct Nastiest;
    impl Plugin for Nastiest {
        type Config = ();
        fn configure(&self, raw: &[u8]) -> Result<()> {
            let bomb = (raw == b"dropped").then(|| Bomb("the error"));
            match raw {
                b"{}" => Ok(()),
                _ => Err(Nasty { bomb }.into()),
            }
        }
        async fn request_filter(&self, _config: &(), _request: &mut Request) -> Result<Action> {
            Err(Nasty { bomb: None }.into())
        }
    }
    let library = Library::load::<Nastiest>("{}");
    let failure = library.configure("dropped").map(|_| ()).unwrap_err();
    assert_panicked(&failure, "the error went off");
    let failure = library.configure("written").map(|_| ()).unwrap_err();
    let unwritable = "an error whose text could not be written";
    assert_eq!(failure.message, unwritable);
    let outcome = library.request(FakeCall::default());
    assert_eq!(failure_of(&outcome).message, unwritable);
    assert!(matches!(outcome.call, ROption::RSome(_)));
}
