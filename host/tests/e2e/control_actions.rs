//! What operators do to a host over its control socket, and what outlives workers and hosts of it.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Host,
    asking::{ask, get, post, read_until},
    serving::{CLOSED, answer, answer_of, serving, serving_from, until, until_closed, word},
    versions::version,
    wait_for,
};

fn plugin(host: &Host) -> Value {
    get("/v1/plugins/versioned").of(host).json()["plugins"][0].take()
}

/// Has another worker take over, after a death or by command.
fn another_worker(host: &Host, after_a_death: bool) {
    let before = host.worker();
    // One that dies before it could note an answer as complete takes that connection along.
    wait_for("every connection is idle", || {
        let overview = host.overview();
        (overview.count("idle_connections") == overview.count("connections")).then_some(())
    });
    match after_a_death {
        true => drop(host.signal_worker(Signal::KILL)),
        false => host.replace_worker(),
    }
    wait_for("another worker serves", || {
        (host.worker() != before).then_some(())
    });
}

#[test]
fn a_disabled_plugin_fails_closed_in_every_worker_until_it_is_enabled_and_what_served_returns() {
    let (host, directory, mut gateway, token) = serving();
    version("0.2.0").swap_in(&directory);
    until(&mut gateway, token, "0.2.0", "hello");
    assert_eq!(post("/v1/plugins/versioned/rollback").of(&host).status, 200);
    assert_eq!(answer(&mut gateway, token), answer_of("0.1.0", "hello"));

    let (code, said, _) = host.ask(&["disable", "versioned"]);
    assert_eq!(code, 0);
    assert_eq!(
        said,
        "versioned is disabled: versioned 0.1.0 no longer serves, its routes fail closed\n"
    );
    until_closed(&mut gateway, token);
    host.log_line(&[
        "an operator has disabled plugin `versioned`",
        "plugin-host enable",
    ]);
    for after_a_death in [true, false] {
        another_worker(&host, after_a_death);
        let mut gateway = host.gateway();
        assert_eq!(answer(&mut gateway, token), CLOSED);
        assert_eq!(plugin(&host)["state"], "disabled");
    }
    let refusal = post("/v1/plugins/versioned/rollback")
        .of(&host)
        .problem(409);
    assert!(refusal.contains("disabled"), "{refusal}");

    let (code, said, complaint) = host.ask(&["enable", "versioned"]);
    assert_eq!(
        (code, said.as_str()),
        (0, "versioned 0.1.0 serves\n"),
        "{complaint}"
    );
    // Not 0.2.0, which was rolled back from: its files have not changed.
    until(&mut gateway, token, "0.1.0", "hello");
    assert_eq!(plugin(&host)["state"], "serving");
    let refusal = post("/v1/plugins/versioned/enable").of(&host).problem(404);
    assert!(refusal.contains("is not disabled"), "{refusal}");
}

#[test]
fn what_comes_while_a_plugin_is_disabled_serves_when_it_is_enabled() {
    let (host, directory, mut gateway, token) = serving();
    assert_eq!(post("/v1/plugins/versioned/disable").of(&host).status, 200);
    version("0.2.0").swap_in(&directory);
    host.log_line(&["WARN", "versioned", "0.2.0", "an operator has disabled it"]);
    another_worker(&host, true);
    assert_eq!(post("/v1/plugins/versioned/enable").of(&host).status, 200);
    let mut after = host.gateway();
    until(&mut after, token, "0.2.0", "hello");
    assert_eq!(plugin(&host)["previous"], "0.1.0");
    until(&mut gateway, token, "0.2.0", "hello");
}

#[test]
fn a_disabled_plugin_stays_disabled_in_the_next_host_on_the_address() {
    let (host, _, _, _) = serving();
    assert_eq!(post("/v1/plugins/versioned/disable").of(&host).status, 200);
    // As a gateway's reload does: the next host begins before this one ends.
    let next = Host::builder().beside(&host).start();
    next.log_line(&["WARN", "disabled", "versioned", "by=\"user "]);
    drop(host);
    next.log_line(&["the plugin directory has been read"]);
    assert_eq!(plugin(&next)["state"], "disabled");
    assert_eq!(post("/v1/plugins/versioned/enable").of(&next).status, 200);
    let (mut gateway, token) = serving_from(&next);
    assert_eq!(answer(&mut gateway, token), answer_of("0.1.0", "hello"));
}

#[test]
fn a_build_that_an_operator_puts_into_quarantine_stays_there_until_that_is_lifted_or_a_file_comes()
{
    let (host, directory, mut gateway, token) = serving();
    version("0.2.0").swap_in(&directory);
    until(&mut gateway, token, "0.2.0", "hello");
    let (code, said, _) = host.ask(&["quarantine", "versioned"]);
    assert_eq!(
        (code, said.as_str()),
        (
            0,
            "versioned 0.2.0 is in quarantine: versioned 0.1.0 serves instead\n"
        )
    );
    assert_eq!(answer(&mut gateway, token), answer_of("0.1.0", "hello"));
    another_worker(&host, true);
    let mut gateway = host.gateway();
    assert_eq!(answer(&mut gateway, token), answer_of("0.1.0", "hello"));
    let overview = get("/v1/workers").of(&host).json();
    let quarantined = &overview["quarantined"][0];
    assert_eq!(quarantined["version"], "0.2.0");
    assert_eq!(quarantined["crashes"], 0);
    assert!(quarantined["by"].as_str().unwrap().starts_with("user "));
    let (code, said, _) = host.ask(&["lift", "versioned"]);
    assert_eq!((code, said.as_str()), (0, "versioned 0.2.0 serves\n"));
    until(&mut gateway, token, "0.2.0", "hello");

    host.ask(&["quarantine", "versioned"]);
    host.ask(&["quarantine", "versioned"]);
    until_closed(&mut gateway, token);
    version("0.3.0").swap_in(&directory);
    until(&mut gateway, token, "0.3.0", "hello");
    let refusal = post("/v1/plugins/nobody/quarantine").of(&host).problem(404);
    assert!(refusal.contains("`nobody`"), "{refusal}");
}

#[test]
fn an_upgrade_is_of_one_plugin_and_tries_again_what_has_failed() {
    let (host, directory, mut gateway, token) = serving();
    let failing = version("0.2.0").settings(json!({ "load": "fail" }));
    failing.swap_in(&directory);
    host.log_line(&["ERROR", "0.2.0", "told to fail"]);
    let (code, said, _) = host.ask(&["upgrade", "versioned"]);
    assert_eq!(code, 0);
    assert!(
        said.starts_with("problem: plugin versioned 0.2.0"),
        "{said}"
    );
    assert_eq!(host.log().matches(" was not loaded").count(), 2);
    let again = post("/v1/rescan").of(&host).json();
    assert_eq!(again["problems"].as_array().unwrap().len(), 1, "{again}");

    version("0.2.0").swap_in(&directory);
    let upgraded = post("/v1/plugins/versioned/upgrade").of(&host).json();
    assert_eq!(upgraded["problems"], json!([]), "{upgraded}");
    assert_eq!(answer(&mut gateway, token), answer_of("0.2.0", "hello"));
    let (_, said, _) = host.ask(&["upgrade", "versioned"]);
    assert_eq!(said, "nothing has changed\n");
    let refusal = post("/v1/plugins/nobody/upgrade").of(&host).problem(404);
    assert!(refusal.contains("`nobody`"), "{refusal}");
}

#[test]
fn no_more_than_so_many_tries_of_a_place_are_remembered() {
    let (host, directory, mut gateway, token) = serving();
    for number in 1..=9 {
        for patch in 0..2 {
            let next = format!("1.{number}.{patch}");
            version(&next).swap_in(&directory);
            post("/v1/plugins/versioned/upgrade").of(&host);
            until(&mut gateway, token, &next, "hello");
        }
    }
    let plugin = plugin(&host);
    let history = plugin["history"].as_array().unwrap();
    assert_eq!(history.len(), 16);
    assert_eq!(history[15]["version"], "1.9.1");
    assert_eq!(history[0]["version"], "1.2.0", "the oldest are forgotten");
}

#[test]
fn what_cannot_be_understood_is_refused_with_a_problem_that_says_what_was_wrong() {
    let host = Host::builder().start();
    for (asked, status, part) in [
        (get("/nowhere"), 404, "/openapi.json"),
        (get("/internal/log"), 404, "/internal/log"),
        (ask("PUT", "/v1/plugins"), 405, "does not take PUT"),
        (get("/v1/rescan"), 405, "does not take GET"),
        (get("/v1/plugins/nobody"), 404, "nobody"),
        (post("/v1/rescan?force=perhaps"), 400, "force"),
        (post("/v1/rescan?fore=true"), 400, "fore"),
        (get("/v1/tokens?limit=many"), 400, "limit"),
        (get("/v1/chains?state=fine"), 400, "state"),
        (post("/v1/plugins/a%20b/disable"), 400, "a b"),
        (post("/v1/plugins/say/rollback"), 404, "say"),
        (post("/v1/plugins/say@!/rollback"), 400, "no plugin name"),
        (post("/v1/log").body("{"), 400, "JSON"),
        (post("/v1/log").body(r#"{"filter": "wran"}"#), 400, "wran"),
        (post("/v1/log").body(r#"{"level": "warn"}"#), 400, "level"),
        (post("/v1/log"), 415, "Content-Type"),
        (
            post("/v1/log").body("x".repeat(70_000)),
            413,
            "length limit",
        ),
        (get("/v1/crashes/..%2F..%2Fpasswd"), 404, "no report"),
        (
            post("/v1/session").body(r#"{"token": "x"}"#),
            404,
            "--control-listen",
        ),
    ] {
        let detail = asked.of(&host).problem(status);
        assert!(detail.contains(part), "{part:?} is not in {detail:?}");
    }
}

#[test]
fn each_action_is_a_line_of_the_log_that_says_who_asked_and_looking_is_none() {
    let host = Host::builder().start();
    host.log_line(&["the plugin directory has been read"]);
    get("/v1/status").of(&host);
    post("/v1/rescan?force=true").of(&host);
    post("/v1/plugins/nobody/lift").of(&host);
    let user = rustix::process::getuid().as_raw();
    let me = format!("by=user {user} (process {})", std::process::id());
    host.log_line(&[
        "an operator's action",
        &me,
        "/v1/rescan",
        "force=true",
        "status=200",
    ]);
    host.log_line(&[
        "an operator's action",
        &me,
        "/v1/plugins/nobody/lift",
        "status=404",
    ]);
    assert_eq!(host.log().matches("an operator's action").count(), 2);
}

#[test]
fn what_is_logged_can_be_changed_in_all_processes_and_those_to_come() {
    let host = Host::builder().flag("--log", "info").start();
    host.log_line(&["the plugin directory has been read"]);
    assert!(!host.log().contains("DEBUG"));
    let (code, said, _) = host.ask(&["log-level", "debug"]);
    assert_eq!((code, said.as_str()), (0, "debug\n"));
    host.replace_worker();
    // Of the supervisor, and of a worker that was started since.
    host.log_line(&["DEBUG", "plugin_host::supervisor"]);
    host.log_line(&["DEBUG", "plugin_host::worker"]);
    let (_, said, _) = host.ask(&["log-level"]);
    assert_eq!(said, "debug\n");
    let (_, said, _) = host.ask(&["log-level", "--reset"]);
    assert_eq!(said, "info\n");
    let (code, _, error) = host.ask(&["log-level", "chatty"]);
    assert_eq!(code, 1);
    assert!(error.contains("not a log level"), "{error}");
    let before = host.log().matches("DEBUG").count();
    host.gateway()
        .prepare("route#1#pre#1", [("versioned", word("hello"))]);
    post("/v1/rescan").of(&host);
    assert_eq!(host.log().matches("DEBUG").count(), before);
}

#[test]
fn a_host_that_is_told_to_drain_answers_and_ends() {
    let (mut host, _, mut gateway, token) = serving();
    assert_eq!(answer(&mut gateway, token), answer_of("0.1.0", "hello"));
    let reply = post("/v1/drain").of(&host);
    assert_eq!(reply.status, 202);
    assert!(host.end().success());
    host.log_line(&["an operator's action", "/v1/drain"]);
}

#[test]
fn events_tell_how_it_is_at_first_when_it_changes_and_how_it_goes_every_second() {
    let (host, directory, mut gateway, token) = serving();
    let socket = crate::support::workers::control_socket(host.directory()).unwrap();
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    stream
        .set_read_timeout(Some(crate::support::PATIENCE))
        .unwrap();
    std::io::Write::write_all(
        &mut stream,
        b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n",
    )
    .unwrap();
    let head = read_until(&mut stream, "event: status");
    assert!(head.contains("text/event-stream"), "{head}");
    read_until(&mut stream, "event: pulse");
    assert_eq!(answer(&mut gateway, token), answer_of("0.1.0", "hello"));
    version("0.2.0").swap_in(&directory);
    read_until(&mut stream, "\"serving\":\"0.2.0\"");

    let others: Vec<_> = (1..16)
        .map(|_| get("/v1/events").follow(&host, "event: status"))
        .collect();
    assert_eq!(others.len(), 15);
}

#[test]
fn no_more_than_so_many_listen_to_events_and_one_that_goes_makes_room() {
    let host = Host::builder().start();
    let socket = wait_for("the control socket", || {
        crate::support::workers::control_socket(host.directory())
    });
    let listen = || {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        stream
            .set_read_timeout(Some(crate::support::PATIENCE))
            .unwrap();
        let asked = b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
        std::io::Write::write_all(&mut stream, asked).unwrap();
        let head = read_until(&mut stream, "\r\n\r\n");
        (stream, head)
    };
    let mut streams: Vec<_> = (0..16).map(|_| listen()).collect();
    assert!(streams.iter().all(|(_, head)| head.contains(" 200 ")));
    let (_refused, head) = listen();
    assert!(head.contains(" 503 "), "{head}");
    streams.pop();
    wait_for("there is room again", || {
        listen().1.contains(" 200 ").then_some(())
    });
}

#[test]
fn a_body_that_does_not_come_is_given_up() {
    let host = Host::builder().start();
    let asked = post("/v1/log").header("Content-Type", "application/json");
    let answer = asked.of_a_length(&host, 10).problem(408);
    assert!(answer.contains("after 10 s"), "{answer}");
}
