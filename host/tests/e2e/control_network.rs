//! The control interface over the network: only with the token, only for this machine's own names and
//! pages, and a listener for probes that tells nothing else.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
};

use crate::support::{
    Ended, Host, PATIENCE,
    asking::{MOMENT, ask, free_address, get, post},
    guarded::{TOKEN, guarded, token_file},
    plugin_host, wait_for,
};
use serde_json::json;

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[test]
fn over_the_network_nothing_is_told_or_done_without_the_token() {
    let guarded = guarded();
    let (host, address) = (&guarded.host, guarded.address);
    for asked in [
        get("/v1/status"),
        get("/v1/settings"),
        get("/v1/session"),
        get("/v1/events"),
        get("/metrics"),
        get("/nowhere"),
        post("/v1/rescan"),
        post("/v1/drain"),
    ] {
        let detail = asked.at(address).problem(401);
        assert!(detail.contains("Authorization"), "{detail}");
        let wrong = asked.header("Authorization", &bearer("correct-horse-battery-stapler"));
        wrong.at(address).problem(401);
    }
    host.log_line(&[
        "WARN",
        "somebody was not let in",
        "by=127.0.0.1:",
        "/v1/drain",
    ]);
    let right = |asked: crate::support::asking::Ask| asked.header("Authorization", &bearer(TOKEN));
    assert_eq!(right(get("/v1/status")).at(address).status, 200);
    assert_eq!(right(post("/v1/rescan")).at(address).status, 200);
    host.log_line(&[
        "an operator's action",
        "by=127.0.0.1:",
        "(with the token)",
        "/v1/rescan",
    ]);
    for open in ["/healthz", "/readyz", "/openapi.json"] {
        assert!([200, 503].contains(&get(open).at(address).status));
    }
    assert!(!host.log().contains(TOKEN), "the token is never logged");
}

#[test]
fn a_browser_signs_in_once_and_keeps_a_cookie_that_scripts_and_other_sites_never_get() {
    let guarded = guarded();
    let (host, address) = (&guarded.host, guarded.address);
    let sign_in = |token: &str| {
        post("/v1/session")
            .body(json!({ "token": token }))
            .at(address)
    };
    sign_in("wrong-horse-battery-staple").problem(401);
    let reply = sign_in(TOKEN);
    assert_eq!(reply.status, 200);
    let cookie = reply.header("set-cookie").unwrap().to_owned();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains(TOKEN));
    let pair = cookie.split(';').next().unwrap();
    let origin = format!("http://{address}");
    assert_eq!(
        get("/v1/status").header("Cookie", pair).at(address).status,
        200
    );
    // What changes something comes from a page, and a browser says from which.
    let rescan = post("/v1/rescan").header("Cookie", pair);
    rescan.at(address).problem(403);
    let from = |origin: &str| rescan.clone().header("Origin", origin).at(address);
    assert_eq!(from(&origin).status, 200);
    host.log_line(&["an operator's action", "(signed in)", "/v1/rescan"]);
    for foreign in ["http://evil.example", "null", "http://localhost:1"] {
        from(foreign).problem(403);
    }
    let out = ask("DELETE", "/v1/session")
        .header("Cookie", pair)
        .at(address);
    assert!(out.header("set-cookie").unwrap().contains("Max-Age=0"));
    get("/v1/status")
        .header("Cookie", pair)
        .at(address)
        .problem(401);
}

#[test]
fn a_name_of_somebody_elses_that_leads_here_is_no_way_in() {
    let guarded = guarded();
    let address = guarded.address;
    let with = |host: &str| {
        let asked = get("/v1/status").header("Authorization", &bearer(TOKEN));
        asked.header("Host", host).at(address)
    };
    let port = address.port();
    assert_eq!(with(&format!("localhost:{port}")).status, 200);
    for name in ["evil.example", "127.0.0.1.evil.example"] {
        let detail = with(&format!("{name}:{port}")).problem(403);
        assert!(detail.contains("localhost"), "{detail}");
    }
    // Also for what needs no token.
    let foreign = get("/healthz").header("Host", "evil.example");
    foreign.at(address).problem(403);
}

#[test]
fn no_answer_is_kept_framed_or_taken_for_something_else() {
    let guarded = guarded();
    let address = guarded.address;
    for asked in [
        get("/v1/status"),
        get("/v1/status").header("Authorization", &bearer(TOKEN)),
        get("/healthz"),
    ] {
        let reply = asked.at(address);
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        let policy = reply.header("content-security-policy").unwrap();
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert_eq!(reply.header("access-control-allow-origin"), None);
    }
}

#[test]
fn commands_work_over_the_network_too() {
    let guarded = guarded();
    let address = guarded.address.to_string();
    let file = guarded.file.to_str().unwrap();
    let ask = |more: &[&str]| -> Ended {
        wait_for("the host answers", || {
            let control = ["status", "--control", &address];
            let ended = plugin_host(&[&control, more].concat());
            (!ended.stderr.contains("Connection refused")).then_some(ended)
        })
    };
    let shown = ask(&["--control-token-file", file]);
    assert_eq!(shown.code, 0, "{shown:?}");
    let without = ask(&[]);
    assert_eq!(without.code, 2, "{without:?}");
    assert!(
        without.stderr.contains("--control-token-file"),
        "{without:?}"
    );
}

#[test]
fn only_a_loopback_address_with_a_token_that_nobody_else_reads_will_do() {
    let (_directory, good) = token_file(TOKEN, 0o600);
    let (_other, open) = token_file(TOKEN, 0o644);
    let (_third, short) = token_file("short", 0o600);
    let run = |arguments: &[&str]| {
        let first = [
            "run",
            "--listen",
            "/tmp/never.sock",
            "--runtime-dir",
            "/tmp",
        ];
        plugin_host(&[&first, arguments].concat())
    };
    for (listen, file, part) in [
        ("127.0.0.1:9", Some(&open), "mode 0644"),
        ("127.0.0.1:9", Some(&short), "at least 16"),
        ("0.0.0.0:9", Some(&good), "--telemetry-listen"),
        ("example.com:9", Some(&good), "IP:PORT"),
        ("127.0.0.1:9", None, "control.token_file"),
    ] {
        let listen = format!("--control-listen={listen}");
        let file = file.map(|file| format!("--control-token-file={}", file.display()));
        let mut arguments = vec![listen.as_str()];
        arguments.extend(file.as_deref());
        let ended = run(&arguments);
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.stderr.contains(part), "{part:?}: {ended:?}");
    }
}

#[test]
fn probes_and_scrapes_have_a_listener_that_answers_nothing_else() {
    let address = free_address();
    let host = Host::builder()
        .flag("--telemetry-listen", &address.to_string())
        .start();
    host.log_line(&["the plugin directory has been read"]);
    wait_for("the host is ready", || {
        (get("/readyz").at(address).status == 200).then_some(())
    });
    assert_eq!(get("/healthz").at(address).json()["live"], true);
    for path in [
        "/",
        "/v1/status",
        "/v1/plugins",
        "/v1/settings",
        "/v1/session",
        "/openapi.json",
    ] {
        get(path).at(address).problem(404);
        post(path).at(address).problem(404);
    }
    post("/readyz").at(address).problem(405);
    let metrics = get("/metrics").header("Accept", "application/openmetrics-text");
    let metrics = metrics.at(address);
    assert_eq!(metrics.status, 200, "{metrics:?}");
    let media_type = metrics.header("content-type").unwrap();
    assert!(
        media_type.starts_with("application/openmetrics-text"),
        "{media_type}"
    );
    // Under any name: whoever scrapes calls it as it likes.
    let named = get("/readyz").header("Host", "plugin-host.default.svc");
    assert_eq!(named.at(address).status, 200);
}

#[test]
fn a_next_host_gets_the_port_when_the_one_before_has_gone() {
    let address = free_address();
    let first = Host::builder()
        .flag("--telemetry-listen", &address.to_string())
        .start();
    wait_for("the first answers", || {
        (get("/healthz").at(address).status == 200).then_some(())
    });
    let next = Host::builder()
        .beside(&first)
        .flag("--telemetry-listen", &address.to_string())
        .start();
    next.log_line(&["WARN", "cannot listen yet", "trying again"]);
    drop(first);
    next.log_line(&["answering operators and probes"]);
    assert_eq!(get("/healthz").at(address).status, 200);
}

#[test]
fn connections_beyond_the_bound_wait_until_one_is_closed() {
    let address = free_address();
    let host = Host::builder()
        .flag("--telemetry-listen", &address.to_string())
        .start();
    host.log_line(&["answering operators and probes"]);
    let mut idle: Vec<TcpStream> = (0..64)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let mut waiting = TcpStream::connect(address).unwrap();
    waiting
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    waiting.set_read_timeout(Some(MOMENT)).unwrap();
    assert!(
        waiting.read(&mut [0; 16]).is_err(),
        "it is not answered yet"
    );
    drop(idle.pop());
    waiting.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_connection_on_which_nothing_is_asked_is_closed() {
    let address = free_address();
    let host = Host::builder()
        .flag("--telemetry-listen", &address.to_string())
        .start();
    host.log_line(&["answering operators and probes"]);
    let mut silent = TcpStream::connect(address).unwrap();
    let mut kept = TcpStream::connect(address).unwrap();
    kept.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let ended = [
        thread::spawn(move || silent.read_to_end(&mut Vec::new())),
        thread::spawn(move || kept.read_to_end(&mut Vec::new())),
    ];
    for ended in ended {
        // Ended by the host, which a broken test run would not be patient enough to see.
        assert!(ended.join().unwrap().is_ok());
    }
}
