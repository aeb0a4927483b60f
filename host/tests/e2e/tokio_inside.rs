//! Plugins that bring tokio: all of it works in all of their code, their threads end with them, and
//! what they do to their runtime is nobody else's trouble.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{Gateway, Host, get, response, service::Service, wait_for};

/// Runs steps in a call of its own and gives what the last one said.
fn said(gateway: &mut Gateway, steps: Value) -> String {
    let token = gateway.route([("tokio-user", json!({ "steps": steps }))]);
    gateway.call(token, get("/")).to_string()
}

fn rewrite(said: &str) -> String {
    format!("rewrite path none headers [x-said='{said}'] args [] response headers [] body none")
}

/// Threads of a host's worker that belong to a plugin's runtime.
fn threads(host: &Host) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", host.worker())).unwrap();
    tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|name| name.starts_with("rt-"))
        .count()
}

fn remove(host: &Host) {
    fs::remove_dir_all(host.plugins().join("tokio-user")).unwrap();
}

#[test]
fn timers_tasks_sockets_and_clients_of_tokio_work_in_a_plugins_call() {
    let (host, service) = (Host::with("tokio-user"), Service::start());
    let mut gateway = host.gateway();
    gateway.set_variable("route_id", "7");
    for (step, expected) in [
        (json!({ "sleep": 20 }), "done"),
        (json!({ "timeout": 20 }), "done"),
        (json!({ "spawn": 20 }), "rt-tokio-user"),
        (json!({ "spawn_blocking": 20 }), "done"),
        (
            json!({ "http": service.url("/bytes/70000") }),
            "70000 bytes",
        ),
        (json!({ "http": service.url("/pieces/3/10") }), "3000 bytes"),
        // The host's own futures work beside them, and inside of tasks.
        (json!({ "host_sleep": 20 }), "done"),
        (json!({ "ask": "route_id" }), "7"),
    ] {
        assert_eq!(
            said(&mut gateway, json!([step])),
            rewrite(expected),
            "{step}"
        );
    }
    assert_eq!(service.accepted(), 1, "its client keeps its connections");

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = [0; 5];
        stream.read_exact(&mut line).unwrap();
        stream.write_all(b"and hello").unwrap();
        line
    });
    let step = json!([{ "socket": { "address": address, "line": "hello" } }]);
    assert_eq!(said(&mut gateway, step), rewrite("and hello"));
    assert_eq!(&server.join().unwrap(), b"hello");
    let token = gateway.route([("tokio-user", json!({ "steps": [] }))]);
    assert_eq!(
        gateway.call(token, response(200)),
        "answer 0 headers [x-said='slept'] body none"
    );
}

#[test]
fn every_entry_every_poll_and_every_drop_of_a_plugin_is_inside_its_runtime() {
    let host = Host::builder()
        .plugin_json("tokio-user", json!({ "timeout_ms": 200 }))
        .start();
    let mut gateway = host.gateway();
    // Given up at its deadline.
    assert_eq!(said(&mut gateway, json!(["forever"])), "error 1");
    drop(gateway);
    remove(&host);
    for what in [
        "constructed",
        "loaded",
        "configured",
        "a future is dropped",
        "unloaded",
        "a configuration is dropped",
        "the plugin is dropped",
    ] {
        host.log_line(&[&format!("{what}, inside the runtime: true")]);
    }
    assert!(!host.log().contains("inside the runtime: false"));
}

#[test]
fn the_threads_of_a_runtime_end_with_its_plugin_whatever_tasks_it_has() {
    let host = Host::builder()
        .plugin_json("tokio-user", json!({ "settings": { "background": true } }))
        .start();
    let mut gateway = host.gateway();
    said(&mut gateway, json!([{ "spawn_blocking": 1 }]));
    assert_eq!(threads(&host), 2, "one for tasks, one for what blocks");
    remove(&host);
    host.log_line(&["plugin unloaded"]);
    wait_for("its threads end", || (threads(&host) == 0).then_some(()));
    let (_, status, _) = host.ask(&["status"]);
    assert!(
        status.contains("1 unloaded, 0 stuck; 0 threads left behind"),
        "{status}"
    );
}

#[test]
fn a_runtime_has_one_thread_for_tasks_and_sixteen_for_what_blocks() {
    let host = Host::with("tokio-user");
    let mut gateway = host.gateway();
    assert_eq!(said(&mut gateway, json!([{ "sleep": 1 }])), rewrite("done"));
    assert_eq!(threads(&host), 1);
    let steps = json!([{ "crowd": [40, 300] }, { "spawn": 1 }]);
    assert_eq!(said(&mut gateway, steps), rewrite("rt-tokio-user"));
    assert_eq!(threads(&host), 17);
}

#[test]
fn a_thread_of_a_runtime_that_does_not_end_is_told_of_and_counted() {
    let settings = json!({ "settings": { "block_at_end_ms": 6_000 } });
    let host = Host::builder().plugin_json("tokio-user", settings).start();
    said(&mut host.gateway(), json!([{ "sleep": 1 }]));
    remove(&host);
    host.log_line(&[
        "ERROR",
        "threads of the plugin's own runtime go on after its end",
        "plugin=tokio-user",
        "threads=1",
    ]);
    let (_, status, _) = host.ask(&["status"]);
    assert!(status.contains("1 threads left behind"), "{status}");
}

#[test]
fn the_threads_of_a_plugin_that_refuses_to_load_end_as_well() {
    let settings = json!({ "settings": { "fail": true, "background": true } });
    let host = Host::builder()
        .plugin_json("tokio-user", settings)
        .flag("--rehearse", "false")
        .start();
    host.log_line(&["loaded, inside the runtime: true"]);
    host.log_line(&["told to fail"]);
    wait_for("its threads end", || (threads(&host) == 0).then_some(()));
}

#[test]
fn a_panic_in_a_task_of_a_plugin_is_logged_and_harms_nobody() {
    let host = Host::with("tokio-user");
    let mut gateway = host.gateway();
    let step = json!([{ "panic_in_task": "nobody joins me" }]);
    assert_eq!(said(&mut gateway, step), rewrite("done"));
    host.log_line(&[
        "ERROR",
        "a task of its own runtime panicked: nobody joins me at",
        "plugin=tokio-user",
    ]);
    assert_eq!(
        said(&mut gateway, json!([{ "spawn": 1 }])),
        rewrite("rt-tokio-user")
    );
}

#[test]
fn a_task_that_blocks_the_runtime_stops_its_own_plugin_and_no_deadline() {
    let host = Host::builder()
        .plugin_json("tokio-user", json!({ "timeout_ms": 200 }))
        .plugin("say")
        .flag("--event-loops", "1")
        .start();
    let mut gateway = host.gateway();
    assert_eq!(
        said(&mut gateway, json!([{ "spawn": 1 }])),
        rewrite("rt-tokio-user")
    );
    let began = Instant::now();
    let steps = json!([{ "block": 1_500 }, { "spawn": 1 }]);
    assert_eq!(said(&mut gateway, steps), "error 1");
    assert!(
        began.elapsed() < Duration::from_millis(1_400),
        "the deadline is the host's"
    );
    let token = gateway.route([("say", json!({ "body": "hi" }))]);
    assert_eq!(
        gateway.call(token, get("/")),
        "stop 200 headers [X-Resp-A6-Runner='Rust'] body 'hi'"
    );
    wait_for("the plugin works again", || {
        (said(&mut gateway, json!([{ "spawn": 1 }])) == rewrite("rt-tokio-user")).then_some(())
    });
}
