//! How a host comes and goes: what the gateway gives it, the order of a reload, signals, the end of
//! standard input, and plugins that would keep it from leaving.

use std::{
    fs,
    io::{self, Read},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::Path,
    thread,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    message::Message,
    support::{
        Gateway, Host, get, plugin_host,
        serving::{CLOSED, answer_of, serving_with, until, word},
        versions::version,
        wait_for,
    },
};

const CONF_TOKEN_NOT_FOUND: &str = "error 2";

/// A route with one plugin that does these steps.
fn steps(gateway: &mut Gateway, steps: Value) -> u32 {
    gateway.route([("scripted", steps)])
}

/// Puts a call whose plugin asks the gateway something, and leaves the question open: the call
/// lasts until [`end_open_call`].
fn open_call(host: &Host) -> Gateway {
    let mut gateway = host.gateway();
    let token = steps(&mut gateway, json!([{"report": ["x-who", {"var": "who"}]}]));
    gateway.begin(token, get("/"));
    assert_eq!(gateway.receive().to_string(), "ask 'who'");
    gateway
}

fn end_open_call(gateway: &mut Gateway) {
    gateway.send(&Message::Info { result: None });
    assert_eq!(
        gateway.finish(),
        "rewrite path none headers [x-who='(none)'] args [] response headers [] body none"
    );
}

fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.ino())
}

/// Starts another host on the address and with the plugins of this one and waits until it has taken the address over.
fn successor_of(old: &Host, builder: crate::support::Builder) -> Host {
    let before = inode(&old.socket());
    let new = builder.beside(old).spawn();
    wait_for("the new host has bound the address", || {
        let now = inode(&new.socket());
        (now.is_some() && now != before).then_some(())
    });
    new
}

#[test]
fn what_the_gateway_gives_is_enough() {
    let mut host = Host::builder()
        .plugin("say")
        .by_environment()
        .env("APISIX_CONF_EXPIRE_TIME", "3600")
        .env("NGINX_BPF_MAPS", "")
        .start();
    let mut gateway = host.gateway();
    let token = gateway.route([("say", json!({"body": "hello"}))]);
    let answer = gateway.call(token, get("/")).to_string();
    assert!(answer.contains("hello"), "{answer}");
    assert!(host.stop().success());
}

#[test]
fn everybody_may_write_to_the_socket_unless_the_operator_says_otherwise() {
    let mode = |host: &Host| fs::metadata(host.socket()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&Host::builder().start()), 0o666);
    let narrow = Host::builder().flag("--socket-mode", "0600").start();
    assert_eq!(mode(&narrow), 0o600);
}

#[test]
fn a_stale_socket_is_replaced_and_anything_else_is_left_alone() {
    let mut host = Host::builder().start();
    assert!(host.stop().success());
    let socket = host.socket();
    assert!(!socket.exists(), "its socket goes with the host");

    drop(UnixListener::bind(&socket).unwrap());
    let mut next = Host::builder().beside(&host).start();
    assert!(next.stop().success());

    fs::write(&socket, "precious").unwrap();
    let mut refused = Host::builder().beside(&host).spawn();
    assert_eq!(refused.end().code(), Some(1));
    assert_eq!(fs::read_to_string(&socket).unwrap(), "precious");
    refused.log_line(&["is a regular file, not a socket"]);
}

#[test]
fn an_address_that_cannot_be_bound_ends_the_host_with_the_reason() {
    let mut host = Host::builder().flag("--listen", "/proc/no/such/s").spawn();
    assert_eq!(host.end().code(), Some(1));
    host.log_line(&["cannot bind /proc/no/such/s"]);
}

#[test]
fn in_the_order_of_a_reload_nothing_of_the_new_host_is_lost_and_nothing_of_the_old_one_lives_on() {
    let mut old = Host::builder()
        .plugin("scripted")
        .flag("--drain-time", "10s")
        .start();
    let mut idle = old.gateway();
    let old_token = steps(&mut idle, json!([]));
    assert_eq!(idle.call(old_token, get("/")), "unchanged");
    let mut open = open_call(&old);

    let mut new = successor_of(&old, Host::builder());
    old.signal(Signal::TERM);
    // The gateway's next call has to go to the new host: connections that idle are closed at once,
    // while the open call still lasts.
    idle.expect_end();
    assert!(old.process().try_wait().unwrap().is_none());
    end_open_call(&mut open);
    open.expect_end();
    assert!(old.end().success());

    assert!(new.serves(), "the new host's socket has survived");
    let mut gateway = new.gateway();
    assert_eq!(gateway.call(old_token, get("/")), CONF_TOKEN_NOT_FOUND);
    let token = steps(&mut gateway, json!([]));
    assert_eq!(gateway.call(token, get("/")), "unchanged");
    assert!(new.stop().success());
    assert!(!new.socket().exists());
}

#[test]
fn a_version_put_in_place_while_the_gateway_reloads_serves_from_the_new_host_and_no_call_is_lost() {
    let (mut old, plugin, _gateway, _) = serving_with(Host::builder().flag("--drain-time", "10s"));
    let old_process = old.process().id().to_string();
    let asking = json!({"word": "hello", "ask": "who"});
    let mut open: Vec<_> = (0..8)
        .map(|_| {
            let mut gateway = old.gateway();
            let token = gateway.route([("versioned", asking.clone())]);
            gateway.begin(token, get("/").header("x-nonce", "n"));
            assert_eq!(gateway.receive().to_string(), "ask 'who'");
            gateway
        })
        .collect();

    let successor = Host::builder().beside(&old);
    version("0.2.0").swap_in(&plugin);
    let mut new = successor_of(&old, successor);
    old.signal(Signal::TERM);
    for gateway in &mut open {
        gateway.send(&Message::Info { result: None });
        let answer = gateway.finish().to_string();
        let allowed = ["0.1.0", "0.2.0"].map(|version| answer_of(version, "hello"));
        assert!(allowed.contains(&answer), "{answer}");
        gateway.expect_end();
    }
    assert!(old.end().success());

    let mut gateway = new.gateway();
    let token = gateway.route([("versioned", word("hello"))]);
    until(&mut gateway, token, "0.2.0", "hello");
    // The control socket was the old host's first, and what it kept is gone with it.
    let (code, status, _) = new.ask(&["status"]);
    assert_eq!(code, 0);
    assert!(status.contains("versioned 0.2.0 serves"), "{status}");
    let new_process = new.process().id().to_string();
    for copy in plugin_copies(new.directory()) {
        let has = |process: &String| copy.iter().any(|part| *part == **process);
        assert!(has(&new_process) && !has(&old_process), "{copy:?}");
    }
}

#[test]
fn what_connected_before_a_successor_took_over_is_still_served() {
    let mut old = Host::builder().plugin("scripted").start();
    let mut early = old.gateway();
    let token = steps(&mut early, json!([]));
    // While the old host does not run, calls wait in its backlog and on its connections.
    old.signal(Signal::STOP);
    let mut waiting: Vec<_> = (0..20).map(|_| old.gateway()).collect();
    for gateway in waiting.iter_mut().chain([&mut early]) {
        gateway.begin(token, get("/"));
    }
    let mut new = successor_of(&old, Host::builder());
    old.signal(Signal::TERM);
    old.signal(Signal::CONT);
    for gateway in waiting.iter_mut().chain([&mut early]) {
        assert_eq!(gateway.finish(), "unchanged");
        gateway.expect_end();
    }
    assert!(old.end().success());
    assert!(new.serves());
}

#[test]
fn three_hosts_in_a_row_leave_the_last_ones_socket() {
    let mut first = Host::builder().start();
    let mut second = successor_of(&first, Host::builder());
    let mut third = successor_of(&second, Host::builder());
    assert!(second.stop().success());
    assert!(third.serves());
    assert!(first.stop().success());
    assert!(third.serves());
}

#[test]
fn told_to_stop_without_a_successor_a_host_serves_what_is_open_and_what_still_comes() {
    let mut host = Host::builder()
        .plugin("scripted")
        .flag("--drain-time", "10s")
        .start();
    let mut open = open_call(&host);
    host.signal(Signal::TERM);
    host.log_line(&["stopping", "SIGTERM", "Drain"]);
    let mut late = host.gateway();
    let token = steps(&mut late, json!([]));
    assert_eq!(late.call(token, get("/")), "unchanged");
    drop(late);
    end_open_call(&mut open);
    drop(open);
    // Long before the drain time is over: nobody is connected any more.
    assert!(host.end().success());
    assert!(!host.socket().exists());
    host.log_line(&["stopped"]);
}

#[test]
fn connections_that_nobody_closes_do_not_keep_a_host_from_leaving() {
    let mut host = Host::with("scripted");
    let idle: Vec<_> = (0..32).map(|_| host.gateway()).collect();
    assert!(host.stop().success());
    drop(idle);
}

#[test]
fn a_plugin_that_never_returns_does_not_keep_a_host_from_leaving() {
    for execution in ["async", "blocking"] {
        for never in [json!({"block": 600_000}), json!({"sleep": 600_000})] {
            let fields = json!({"execution": execution});
            let mut host = Host::builder().plugin_json("scripted", fields).start();
            let mut gateway = host.gateway();
            let token = steps(&mut gateway, json!([{"set_header": ["x-a", "1"]}, never]));
            gateway.begin(token, get("/"));
            // The call has begun once the chain of its route is there.
            host.log_line(&["chain ready"]);
            host.stop();
            assert!(!host.socket().exists(), "{execution} {never}");
            // The gateway does not wait in vain: what is still open then is answered for.
            assert_eq!(gateway.finish(), CLOSED, "{execution} {never}");
            gateway.expect_end();
        }
    }
}

#[test]
fn an_on_unload_that_never_returns_does_not_keep_a_host_from_leaving() {
    for never in [
        json!({"block": 600_000}),
        json!({"sleep": 600_000}),
        json!({"panic": "no"}),
    ] {
        let fields = json!({"settings": {"on_unload": [never]}});
        let mut host = Host::builder()
            .plugin_json("scripted", fields)
            .flag("--rehearse", "false")
            .start();
        host.log_line(&["plugin loaded"]);
        host.stop();
        assert!(!host.socket().exists(), "{never}");
    }
}

#[test]
fn a_plugin_that_loads_for_ever_does_not_keep_a_host_from_leaving() {
    let fields = json!({"settings": {"on_load": [{"block": 600_000}]}});
    let mut host = Host::builder().plugin_json("scripted", fields).start();
    host.stop();
    assert!(!host.socket().exists());
}

#[test]
fn on_unload_runs_when_the_host_leaves() {
    let fields = json!({"settings": {"on_unload": [{"log": ["info", "saying goodbye"]}]}});
    let mut host = Host::builder().plugin_json("scripted", fields).start();
    host.log_line(&["plugin loaded"]);
    assert!(host.stop().success());
    host.log_line(&["saying goodbye", "scripted"]);
}

#[test]
fn an_interrupt_stops_and_a_hang_up_changes_nothing() {
    let mut host = Host::builder().start();
    host.signal(Signal::HUP);
    host.log_line(&["SIGHUP"]);
    assert!(host.serves());
    host.signal(Signal::INT);
    assert!(host.end().success());
    host.log_line(&["stopping", "SIGINT"]);
}

#[test]
fn the_end_of_a_pipe_on_standard_input_means_that_the_gateway_is_gone() {
    let (reader, writer) = io::pipe().unwrap();
    let mut host = Host::builder().stdin(reader).start();
    assert!(host.serves());
    drop(writer);
    assert!(host.end().success());
    host.log_line(&["stopping", "standard input ended"]);
    assert!(!host.socket().exists());
}

#[test]
fn a_host_that_is_told_to_ignore_standard_input_goes_on() {
    let (reader, writer) = io::pipe().unwrap();
    let mut host = Host::builder()
        .flag("--ignore-stdin", "true")
        .stdin(reader)
        .start();
    drop(writer);
    still_serves_after_a_while(&mut host);
}

#[test]
fn an_empty_standard_input_that_is_no_pipe_stops_nothing() {
    // Tests give `/dev/null` where they say nothing.
    let mut host = Host::builder().start();
    still_serves_after_a_while(&mut host);
}

/// Serves, and leaves for no other reason than a signal.
fn still_serves_after_a_while(host: &mut Host) {
    thread::sleep(Duration::from_millis(200));
    let mut gateway = host.gateway();
    let token = gateway.route::<String>([]);
    assert_eq!(gateway.call(token, get("/")), "unchanged");
    drop(gateway);
    assert!(host.stop().success());
    assert!(!host.log().contains("standard input"), "{}", host.log());
}

#[test]
fn a_host_whose_standard_error_is_gone_serves_on() {
    let (mut reader, writer) = io::pipe().unwrap();
    let mut host = Host::builder().plugin("scripted").stderr(writer).start();
    // It has written something before its reader dies.
    reader.read_exact(&mut [0; 16]).unwrap();
    drop(reader);
    let mut gateway = host.gateway();
    let token = steps(
        &mut gateway,
        json!([{"log": ["error", "nobody reads this"]}]),
    );
    for _ in 0..50 {
        assert_eq!(gateway.call(token, get("/")), "unchanged");
    }
    drop(gateway);
    assert!(host.stop().success());
}

#[test]
fn a_log_that_nobody_reads_holds_no_call_up() {
    let (reader, writer) = io::pipe().unwrap();
    let mut host = Host::builder().plugin("scripted").stderr(writer).start();
    let mut gateway = host.gateway();
    // Far more than a pipe and the queue before it can take.
    let line = "x".repeat(1_000);
    let logs = vec![json!({"log": ["info", line]}); 100];
    let token = steps(&mut gateway, Value::from(logs));
    for _ in 0..100 {
        assert_eq!(gateway.call(token, get("/")), "unchanged");
    }
    drop(gateway);
    assert!(host.stop().success());
    drop(reader);
}

#[test]
fn a_killed_hosts_leftovers_are_removed_by_the_next() {
    let mut host = Host::builder().plugin("say").start();
    host.log_line(&["plugin loaded"]);
    let copies = || {
        // One that is mapped, and one for the next worker.
        let found = plugin_copies(host.directory());
        (found.len() == 2).then_some(found)
    };
    let left = wait_for("the private copies", copies);
    host.signal(Signal::KILL);
    host.end();
    assert!(left.iter().all(|copy| copy.exists()) && host.socket().exists());
    let next = Host::builder().beside(&host).start();
    next.log_line(&["removed what dead hosts left"]);
    assert!(left.iter().all(|copy| !copy.exists()));
    assert!(UnixStream::connect(next.socket()).is_ok());
}

/// Private copies of libraries in a runtime directory.
fn plugin_copies(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![directory.join("plugin-host")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "so") {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn without_an_address_nothing_runs() {
    let ended = plugin_host(&["run"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr.contains("APISIX_LISTEN_ADDRESS"), "{ended:?}");
}
