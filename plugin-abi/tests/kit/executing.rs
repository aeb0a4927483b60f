//! What a plugin executes beside calls, in the kit.

use std::time::Duration;

use plugin_abi::{
    prelude::*,
    testing::{Gateway, Loading, execution, json, post},
};

/// Does what the label says.
#[derive(Default)]
struct Busy;

impl Plugin for Busy {
    type Config = ();

    async fn execute(&self, context: &mut Context) -> Result<()> {
        match context.label() {
            "double" => {
                let number: u32 = context.get("number")?.context("`number` is missing")?;
                context.set("doubled", &(2 * number))?;
                context.set("names", &context.names().collect::<Vec<_>>().join(","))?;
                context.set("milliseconds", &context.time_left().as_millis())?;
            }
            "wait" => {
                context.cancelled().await;
                assert!(context.is_cancelled());
                log::info!("was cancelled");
                bail!("cancelled");
            }
            "never" => std::future::pending().await,
            "panic" => panic!("told to panic"),
            "echo" => {
                let request = context.request().context("nobody asks")?;
                ensure!(request.method() == Method::POST, "no POST");
                let answer = Reply::new(201)
                    .header("x-path", request.path())
                    .header("x-query", request.query().unwrap_or_default())
                    .header("x-rest", request.param("rest").unwrap_or_default())
                    .header("x-in", request.header("x-in").unwrap_or_default());
                let body = context.body().await?;
                let mut answer = context.stream(answer)?;
                answer.send(body).await?;
                answer.send("!").await?;
            }
            other => bail!("nothing is labelled {other}"),
        }
        Ok(())
    }
}

#[test]
fn what_is_executed_sees_label_values_and_time_and_its_values_come_back() {
    let busy = Gateway::new().load::<Busy>();
    let executed = busy.execute(execution("double").set("number", 21));
    assert_eq!(executed.value("doubled"), 42);
    assert_eq!(executed.value("names"), "doubled,number");
    assert_eq!(executed.value("milliseconds"), 10_000);
    assert_eq!(executed.values().len(), 3, "`number` was not set by it");
    let failure = busy.execute(execution("double").set("number", "one"));
    assert_eq!(
        failure.failure(),
        "the value does not fit its type: invalid type: string \"one\", expected u32 at line 1 column 5"
    );
    assert!(
        busy.execute(execution("panic"))
            .failure()
            .starts_with("panicked: told to panic at")
    );
}

#[test]
fn a_cancellation_can_be_awaited_and_a_time_that_is_over_is_one() {
    let gateway = Gateway::new();
    let busy = gateway.load_with::<Busy>(Loading::new("busy").timeout(Duration::from_secs(3)));
    let cancelled = execution("wait").cancelled_after(Duration::from_secs(1));
    let executed = busy.execute(cancelled);
    assert_eq!(executed.failure(), "cancelled");
    assert_eq!(executed.took(), Duration::from_secs(1));
    assert_eq!(gateway.log()[0].message, "was cancelled");

    let executed = busy.execute(execution("never"));
    assert_eq!(executed.failure(), "had not executed it after 3000 ms");
    // A second is left to leave things in order.
    assert_eq!(executed.took(), Duration::from_secs(4));
    let executed = busy.execute(execution("never").timeout(Duration::from_millis(7)));
    assert_eq!(executed.failure(), "had not executed it after 7 ms");
}

#[test]
fn an_http_client_is_answered_by_the_plugin_or_with_its_values() {
    let busy = Gateway::new().load::<Busy>();
    let request = post("/a/b%20c?x=1").header("x-in", "in").body("body");
    let by_http = execution("echo").request(request).param("rest", "b c");
    let executed = busy.execute(by_http);
    let reply = executed.reply();
    assert_eq!((reply.status(), reply.text()), (201, "body!"));
    for (name, value) in [
        ("x-path", "/a/b%20c"),
        ("x-query", "x=1"),
        ("x-rest", "b c"),
        ("x-in", "in"),
    ] {
        assert_eq!(reply.header(name), Some(value));
    }
    let values = execution("double")
        .request(post("/"))
        .set("number", 1)
        .timeout(Duration::from_millis(5));
    let executed = busy.execute(values);
    let expected = json!({ "doubled": 2, "names": "doubled,number", "milliseconds": 5 });
    assert_eq!(executed.reply().json(), expected);
    let failed = busy.execute(execution("double").request(post("/")));
    assert_eq!(failed.reply().status(), 502);
    assert!(busy.execute(execution("echo")).has_failed(), "nobody asks");
}

#[test]
fn a_plugin_that_executes_nothing_says_so() {
    #[derive(Default)]
    struct Filter;
    impl Plugin for Filter {
        type Config = ();
    }
    let executed = Gateway::new().load::<Filter>().execute(execution("any"));
    assert_eq!(executed.failure(), "the plugin has no `execute`");
}
