//! What the ABI has had since 1.1, under a host that knows nothing of it: every default says so, and
//! nothing breaks. And what the SDK makes of time and state by itself.

use std::time::Duration;

use plugin_abi::{
    ValueError,
    abi::{RResult, StateBlob, Verdict},
    prelude::*,
    task::SpawnError,
};

use crate::support::{FakeCall, Library, failure_of, logged};

#[test]
fn a_host_without_values_tasks_and_metrics_says_so() {
    #[derive(Default)]
    struct Wanting;
    impl Plugin for Wanting {
        type Config = ();
        async fn request_filter(&self, _: &(), request: &mut Request) -> Result<Action> {
            assert_eq!(request.values().bytes("a"), None);
            let set = request.values_mut().set("a", "1");
            assert!(matches!(set, Err(ValueError::Other(3))), "{set:?}");
            let kept = request.values_mut().kept::<String>("a").await;
            assert!(matches!(kept, Err(ValueError::Other(3))), "{kept:?}");
            assert_eq!(task::spawn(async {}).unwrap_err(), SpawnError::NoThread);
            let refused = metrics::counter("n", "help").unwrap_err().to_string();
            assert_eq!(
                refused,
                "the metric \"n\": this host keeps no metrics of plugins"
            );
            Ok(Action::Continue)
        }
    }
    let outcome = Library::load::<Wanting>("{}").request(FakeCall::default());
    assert_eq!(outcome.verdict, Verdict::Continue);
}

#[test]
fn what_cannot_be_asked_is_the_reason_why_nothing_is_kept() {
    #[derive(Default)]
    struct Keeper;
    impl Plugin for Keeper {
        type Config = ();
        async fn request_filter(&self, _: &(), request: &mut Request) -> Result<Action> {
            request.values_mut().keep("a", "1").await?;
            Ok(Action::Continue)
        }
    }
    let call = FakeCall {
        refusal: Some(plugin_abi::abi::AskStatus::CALL_OVER),
        ..FakeCall::default()
    };
    let outcome = Library::load::<Keeper>("{}").request(call);
    assert_eq!(
        failure_of(&outcome).message.as_str(),
        "cannot learn which request this is: the call is over, the gateway cannot be asked any more"
    );
}

#[test]
fn a_timeout_costs_no_timer_where_nothing_waits_and_gives_up_where_something_does() {
    #[derive(Default)]
    struct Hasty;
    impl Plugin for Hasty {
        type Config = ();
        async fn request_filter(&self, _: &(), _: &mut Request) -> Result<Action> {
            let at_once = time::timeout(Duration::from_secs(1), async { 7 }).await;
            assert_eq!(at_once, Ok(7));
            assert!(logged().is_empty(), "no timer");
            time::timeout(Duration::from_secs(2), std::future::pending::<()>()).await?;
            Ok(Action::Continue)
        }
    }
    let library = Library::load::<Hasty>("{}");
    let configured = library.configure("{}").unwrap();
    let mut waiting = configured.request(FakeCall::default().into_object());
    assert!(crate::support::poll(&mut waiting).is_pending());
    assert_eq!(logged(), ["sleep 2000000000"]);
    // The host's clock has come to its end.
    let std::task::Poll::Ready(outcome) = crate::support::poll(&mut waiting) else {
        panic!("it still waits");
    };
    assert_eq!(
        failure_of(&outcome).message.as_str(),
        "it had not ended after 2s"
    );
}

#[test]
fn state_goes_from_the_plugin_to_the_host_and_back_and_no_panic_leaves_it() {
    #[derive(Default)]
    struct Heir;
    impl Plugin for Heir {
        type Config = ();
        fn save_state(&self) -> Result<Option<State>> {
            State::json(3, &["a", "b"]).map(Some)
        }
        fn restore_state(&self, state: &State) -> Result<()> {
            ensure!(
                state.read::<Vec<String>>(3)? == ["a", "b"],
                "something else"
            );
            Ok(())
        }
        fn save_config_state(&self, _: &()) -> Result<Option<State>> {
            panic!("no paper")
        }
        fn restore_config_state(&self, _: &(), _: &State) -> Result<()> {
            panic!("bad hand")
        }
    }
    let library = Library::load::<Heir>("{}");
    let saved = library.plugin().save_state().into_result().unwrap();
    let saved = saved.into_option().unwrap();
    assert_eq!((saved.version, &saved.data[..]), (3, &br#"["a","b"]"#[..]));
    assert_eq!(
        library.plugin().restore_state(saved.clone()),
        RResult::ROk(())
    );
    let other = StateBlob {
        version: 2,
        ..saved
    };
    let refused = library.plugin().restore_state(other.clone()).unwrap_err();
    assert!(!refused.panicked);
    assert!(refused.message.contains("of format 2"), "{refused}");

    let configured = library.configure("{}").unwrap();
    let panicked = configured.save_state().unwrap_err();
    assert!(
        panicked.panicked && panicked.message.contains("no paper"),
        "{panicked}"
    );
    let panicked = configured.restore_state(other).unwrap_err();
    assert!(
        panicked.panicked && panicked.message.contains("bad hand"),
        "{panicked}"
    );
}
