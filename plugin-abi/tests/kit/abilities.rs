//! What the host does for plugins beside calls, in the kit: values, metrics, background tasks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use plugin_abi::{
    prelude::*,
    testing::{Gateway, get, response},
};

/// Counts seconds in the background, and requests in a metric; tells the response phase who it was.
#[derive(Default)]
struct Able {
    seconds: Arc<AtomicU64>,
    requests: Counters<1>,
}

impl Plugin for Able {
    type Config = ();

    async fn on_load(&mut self, _: &Load) -> Result<()> {
        self.requests = metrics::counters("requests", "Requests by user", ["user"])?;
        let seconds = Arc::clone(&self.seconds);
        task::spawn(async move {
            loop {
                time::sleep(Duration::from_secs(1)).await;
                seconds.fetch_add(1, Ordering::Relaxed);
            }
        })?;
        Ok(())
    }

    async fn request_filter(&self, _: &(), request: &mut Request) -> Result<Action> {
        let user = request.header_str("x-user").unwrap_or("nobody").to_owned();
        let count = self.requests.with([&user]);
        count.inc();
        request.values_mut().keep("able.user", &user).await?;
        request.set_header("x-count", count.get().to_string());
        request.set_header(
            "x-seconds",
            self.seconds.load(Ordering::Relaxed).to_string(),
        );
        Ok(Action::Continue)
    }

    async fn response_filter(&self, _: &(), response: &mut Response) -> Result<()> {
        let user: Option<String> = response.values_mut().kept("able.user").await?;
        response.set_header("x-user", user.unwrap_or_default());
        Ok(())
    }
}

#[test]
fn values_metrics_and_tasks_work_as_in_a_host() {
    let gateway = Gateway::new();
    let route = gateway.load::<Able>().route("");
    let ada = || get("/").var("request_id", "one").header("x-user", "ada");
    let outcome = route.exchange(ada(), response(200));
    assert_eq!(outcome.client().header("x-user"), Some("ada"));

    gateway.advance(Duration::from_secs(3));
    let outcome = route.request(ada());
    assert_eq!(outcome.upstream().header("x-count"), Some("2"));
    assert_eq!(outcome.upstream().header("x-seconds"), Some("3"));
    let bob = get("/").var("request_id", "two").header("x-user", "bob");
    assert_eq!(route.request(bob).upstream().header("x-count"), Some("1"));
}

#[test]
fn without_a_request_id_nothing_is_kept_as_with_a_gateway_that_gives_none() {
    let outcome = Gateway::new().load::<Able>().route("").request(get("/"));
    let failure = outcome.failure();
    assert!(
        failure.contains("does not say which request this is"),
        "{failure}"
    );
}
