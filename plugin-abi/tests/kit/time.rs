//! Time under the test's control.

use std::{
    future,
    sync::{Arc, Mutex, mpsc},
    task::{Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use plugin_abi::{
    prelude::*,
    testing::{Gateway, Loading, get, json},
};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Sleeps so many seconds; for ever where there are none.
#[derive(Default)]
struct Sleeps;

impl Plugin for Sleeps {
    type Config = Option<u64>;

    async fn request_filter(
        &self,
        how_long: &Option<u64>,
        request: &mut Request,
    ) -> Result<Action> {
        let (began, left) = (time::now(), request.time_left());
        match how_long {
            Some(how_long) => time::sleep(seconds(*how_long)).await,
            None => future::pending().await,
        }
        assert_eq!(request.time_left(), left - (time::now() - began));
        request.set_header(
            "x-slept",
            time::now().duration_since(began).as_secs().to_string(),
        );
        Ok(Action::Continue)
    }
}

#[test]
fn a_sleep_takes_time_of_the_tests_clock_and_none_of_the_tests() {
    let began = Instant::now();
    let gateway = Gateway::new();
    let outcome = gateway.load::<Sleeps>().route("9").request(get("/"));
    assert_eq!(outcome.upstream().header("x-slept"), Some("9"));
    assert_eq!(outcome.took(), seconds(9));
    assert!(began.elapsed() < seconds(2));
}

#[test]
fn whatever_waits_longer_than_the_call_may_take_is_given_up() {
    let began = Instant::now();
    let gateway = Gateway::new();
    let sleeps = gateway.load::<Sleeps>();
    for how_long in ["11", "null"] {
        let outcome = sleeps.route(how_long).request(get("/"));
        assert_eq!(outcome.client().status(), 503);
        assert_eq!(outcome.failure(), "had not answered after 10000 ms");
        assert_eq!(outcome.took(), seconds(10));
    }
    let hasty = Gateway::new().call_budget(seconds(2));
    assert_eq!(
        hasty.load::<Sleeps>().route("3").request(get("/")).took(),
        seconds(2)
    );
    assert!(began.elapsed() < seconds(2));
}

#[test]
fn one_plugins_time_is_bounded_and_the_rest_is_the_next_ones() {
    let gateway = Gateway::new();
    let loading = Loading::new("short").timeout(seconds(3)).fail_open();
    let short = gateway.load_with::<Sleeps>(loading);
    let long = gateway.load::<Sleeps>();
    let route = gateway
        .route()
        .on_request(&short, "4")
        .on_request(&long, "6");
    let outcome = route.request(get("/"));
    assert_eq!(outcome.failure(), "had not answered after 3000 ms");
    assert_eq!(outcome.upstream().header("x-slept"), Some("6"));
    assert_eq!(outcome.took(), seconds(9));
}

#[test]
fn a_plugin_that_is_given_up_is_dropped_where_it_waits() {
    struct Tells;
    impl Drop for Tells {
        fn drop(&mut self) {
            log::info!("cleaned up");
        }
    }
    #[derive(Default)]
    struct Cleans;
    impl Plugin for Cleans {
        type Config = ();
        async fn request_filter(&self, _config: &(), _request: &mut Request) -> Result<Action> {
            let _tells = Tells;
            future::pending().await
        }
    }
    let gateway = Gateway::new();
    gateway.load::<Cleans>().route("").request(get("/"));
    assert_eq!(gateway.log()[0].message, "cleaned up");
}

/// Lets one request a minute through.
#[derive(Default)]
struct OncePerMinute(Mutex<Option<Instant>>);

impl Plugin for OncePerMinute {
    type Config = ();
    async fn request_filter(&self, _config: &(), _request: &mut Request) -> Result<Action> {
        let mut last = self.0.lock().unwrap();
        if last.is_some_and(|last| time::now() - last < seconds(60)) {
            return Ok(Action::stop(Reply::new(429).body("later")));
        }
        *last = Some(time::now());
        Ok(Action::Continue)
    }
}

#[test]
fn between_calls_time_stands_still_until_the_test_lets_it_pass() {
    let gateway = Gateway::new();
    let route = gateway.load::<OncePerMinute>().route("");
    assert!(route.request(get("/")).went_upstream());
    assert_eq!(route.request(get("/")).client().status(), 429);
    gateway.advance(seconds(59));
    assert_eq!(route.request(get("/")).client().status(), 429);
    gateway.advance(seconds(1));
    assert!(route.request(get("/")).went_upstream());
}

#[test]
fn requests_that_come_together_wait_side_by_side() {
    /// Each request waits a second longer than the one before.
    #[derive(Default)]
    struct Queue(Mutex<u64>);
    impl Plugin for Queue {
        type Config = ();
        async fn request_filter(&self, _config: &(), _request: &mut Request) -> Result<Action> {
            let turn = {
                let mut turn = self.0.lock().unwrap();
                *turn += 1;
                *turn
            };
            time::sleep(seconds(turn)).await;
            Ok(Action::Continue)
        }
    }
    let gateway = Gateway::new();
    let route = gateway.load::<Queue>().route("");
    let outcomes = route.requests([get("/1"), get("/2"), get("/3")]);
    let took: Vec<_> = outcomes.iter().map(|outcome| outcome.took()).collect();
    assert_eq!(took, [1, 2, 3].map(seconds));
    assert_eq!(outcomes[2].upstream().uri(), "/3");
}

#[test]
fn what_a_thread_of_the_plugins_does_is_waited_for() {
    /// Asks a thread, as a runtime of the plugin's own would.
    #[derive(Default)]
    struct Asks;
    impl Plugin for Asks {
        type Config = u64;
        async fn request_filter(&self, millis: &u64, request: &mut Request) -> Result<Action> {
            let done = Arc::new(Mutex::new((false, None::<Waker>)));
            let (go, gone) = mpsc::channel::<()>();
            let (other, millis) = (Arc::clone(&done), Duration::from_millis(*millis));
            thread::spawn(move || {
                gone.recv().unwrap();
                thread::sleep(millis);
                let mut done = other.lock().unwrap();
                done.0 = true;
                done.1.take().unwrap().wake();
            });
            let mut go = Some(go);
            future::poll_fn(|context| {
                let mut state = done.lock().unwrap();
                if state.0 {
                    return Poll::Ready(());
                }
                state.1 = Some(context.waker().clone());
                if let Some(go) = go.take() {
                    go.send(()).unwrap();
                }
                Poll::Pending
            })
            .await;
            request.set_header("x-answered", "yes");
            Ok(Action::Continue)
        }
    }
    let gateway = Gateway::new();
    let outcome = gateway.load::<Asks>().route(json!(50)).request(get("/"));
    assert_eq!(outcome.upstream().header("x-answered"), Some("yes"));
}
