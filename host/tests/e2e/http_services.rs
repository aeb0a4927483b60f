//! HTTP services of plugins: what a plugin sees and answers, bounds, and what goes wrong.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    Builder, Host,
    asking::get as ask_host,
    http::free_address,
    plugin_host,
    service_client::{connect, connect_unix},
    wait_for,
};

/// Routes of a plugin, each a method, a path and a label.
fn routes(routes: &[(&str, &str, &str)]) -> Value {
    let routes = routes.iter().map(|(method, route, label)| {
        let mut one = json!({ "route": route });
        for (key, value) in [("method", method), ("label", label)] {
            if !value.is_empty() {
                one[key] = json!(value);
            }
        }
        one
    });
    let routes: Vec<Value> = routes.collect();
    json!({ "http_services": { "driver": "axum", "routes": routes } })
}

/// A host whose plugin `scripted` has these routes.
fn serving(of: &[(&str, &str, &str)]) -> (Host, SocketAddr) {
    serving_with(Host::builder(), of)
}

fn serving_with(builder: Builder, of: &[(&str, &str, &str)]) -> (Host, SocketAddr) {
    let address = free_address();
    let host = builder
        .plugin_json("scripted", routes(of))
        .flag("--http-listen", &address.to_string())
        .start();
    host.log_line(&["plugin loaded", "scripted"]);
    (host, address)
}

#[test]
fn each_request_leaves_a_line_in_the_access_log_with_the_plugin_and_the_status() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("access.log");
    let builder = Host::builder()
        .flag("--access-log", file.to_str().unwrap())
        .flag("--log-format", "json");
    let (_host, address) = serving_with(builder, &[("GET", "/values/:a/:b", "report")]);
    let mut client = connect(address);
    assert_eq!(client.ask("GET", "/values/1/2", &[], b"").code(), 200);
    assert_eq!(client.ask("GET", "/nowhere", &[], b"").code(), 404);
    let lines: Vec<Value> = wait_for("two lines", || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        Some(lines.collect()).filter(|lines: &Vec<Value>| lines.len() == 2)
    });
    assert_eq!(lines[0]["phase"], "service");
    assert_eq!(lines[0]["method"], "GET");
    assert_eq!(lines[0]["path"], "/values/1/2");
    assert_eq!(lines[0]["status"], 200);
    assert_eq!(lines[0]["plugin"], "scripted 0.1.0");
    assert_eq!(lines[0]["client"], "127.0.0.1");
    assert_eq!(lines[1]["status"], 404);
    assert_eq!(lines[1]["plugin"], Value::Null);
}

#[test]
fn a_request_is_executed_by_the_plugin_whose_route_it_matches() {
    let (host, address) = serving(&[
        ("POST", "/see/:name/*rest", "see"),
        ("GET", "/values/:a/:b", "report"),
        ("", "/nothing", ""),
    ]);
    let mut client = connect(address);
    let path = "/see/Ada/b%20c/d?x=1&y";
    let seen = client.ask("POST", path, &["X-In: in"], b"the body");
    assert_eq!(seen.code(), 201);
    assert_eq!(
        seen.body(),
        "POST /see/Ada/b%20c/d ? x=1&y by /see/:name/*rest from Some(127.0.0.1): in b c/d: the body"
    );
    assert_eq!(seen.header("x-out"), Some("out"));
    let cookies = seen.headers.iter().filter(|(name, _)| name == "set-cookie");
    assert_eq!(cookies.count(), 2);
    // On the same connection: what is in the path is there as values, and so are those that come back.
    let values = client.get("/values/%41/2");
    assert_eq!(values.code(), 200);
    assert_eq!(values.header("content-type"), Some("application/json"));
    let values: Value = serde_json::from_str(&values.body()).unwrap();
    assert_eq!(values["names"], "a,b");
    assert_eq!(values["thread"], "executions");
    let nothing = client.ask("PUT", "/nothing", &[], b"");
    assert_eq!((nothing.code(), nothing.body()), (204, String::new()));
    // Counted as whatever else is executed.
    let metrics = ask_host("/metrics").of(&host).body;
    let count = "phase=\"execute\",outcome=\"passed\"} 3\n";
    assert!(metrics.contains(count), "{metrics}");
}

#[test]
fn what_leads_nowhere_is_refused_without_a_plugin() {
    let (_host, address) = serving(&[("GET", "/here", ""), ("PUT", "/here", "")]);
    let mut client = connect(address);
    let nothing = client.get("/there");
    assert_eq!(nothing.code(), 404);
    assert_eq!(
        nothing.header("content-type"),
        Some("application/problem+json")
    );
    let other = client.ask("DELETE", "/here", &[], b"");
    assert_eq!(other.code(), 405);
    assert_eq!(other.header("allow"), Some("GET, PUT"));
    assert_eq!(client.get("/here").code(), 204);
}

#[test]
fn bodies_stream_in_both_directions_at_the_pace_of_the_slower_side() {
    let (host, address) = serving(&[
        ("POST", "/echo", "echo"),
        ("GET", "/lines", "lines"),
        ("GET", "/flood", "flood"),
    ]);
    let mut client = connect(address);
    client.send("POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("5\r\nfirst\r\n");
    client.until("first");
    client.send("6\r\nsecond\r\n0\r\n\r\n");
    client.until("second\r\n0\r\n\r\n");
    // The next one on the same connection, longer than what any piece holds.
    let long = vec![b'x'; 200 << 10];
    assert_eq!(
        client.ask("POST", "/echo", &[], &long).body().len(),
        long.len()
    );

    client.send("GET /lines HTTP/1.1\r\nHost: h\r\n\r\n");
    client.until("line 3");
    drop(client);
    host.log_line(&["nobody listens any more"]);

    let mut lazy = connect(address);
    lazy.send("GET /flood HTTP/1.1\r\nHost: h\r\n\r\n");
    host.log_line(&["piece 1 was taken"]);
    thread::sleep(Duration::from_millis(300));
    // No more than the system's own buffers hold, and a few pieces.
    let log = host.log();
    assert!(!log.contains("piece 200 was taken"), "nobody reads it");
}

#[test]
fn what_a_plugin_does_wrong_costs_its_own_request_and_tells_a_client_nothing() {
    let (host, address) = serving_with(
        Host::builder().flag("--http-request-time", "500ms"),
        &[
            ("", "/deeds", ""),
            ("GET", "/for-ever", "for ever"),
            ("GET", "/break", "break off"),
            ("GET", "/cannot", "reply what cannot be"),
        ],
    );
    let mut client = connect(address);
    let mut deeds = |deeds: Value| {
        let header = format!("X-Deeds: {deeds}");
        let answer = client.ask("GET", "/deeds", &[&header], b"");
        let problem: Value = serde_json::from_str(&answer.body()).unwrap();
        assert_eq!(problem["status"], answer.code());
        assert!(problem.get("detail").is_none(), "{problem}");
        answer.code()
    };
    assert_eq!(deeds(json!([{ "fail": "a secret" }])), 502);
    assert_eq!(deeds(json!([{ "panic": "oh" }])), 502);
    assert_eq!(deeds(json!([{ "sleep": 60_000 }])), 504);
    host.log_line(&["WARN", "a request to a service failed", "a secret"]);
    assert_eq!(client.get("/for-ever").code(), 504);
    host.log_line(&["the execution is dropped"]);
    assert_eq!(client.get("/cannot").code(), 502);

    client.send("GET /break HTTP/1.1\r\nHost: h\r\n\r\n");
    let rest = String::from_utf8(client.end()).unwrap();
    assert!(
        !rest.ends_with("0\r\n\r\n"),
        "it must not seem whole: {rest}"
    );
}

#[test]
fn a_plugin_without_execute_serves_nothing_and_says_so() {
    let address = free_address();
    let host = Host::builder()
        .plugin_json("stub", routes(&[("GET", "/stub", "")]))
        .flag("--http-listen", &address.to_string())
        .start();
    host.log_line(&["plugin loaded", "stub"]);
    assert_eq!(connect(address).get("/stub").code(), 501);
    host.log_line(&["WARN", "has no `execute`"]);
}

#[test]
fn a_worker_that_dies_of_a_request_costs_the_connections_of_that_moment_and_refuses_none() {
    let address = free_address();
    let host = Host::builder()
        .plugin_json("misdeeds", routes(&[("GET", "/die", "")]))
        .plugin_json("scripted", routes(&[("GET", "/live", "")]))
        .flag("--http-listen", &address.to_string())
        .start();
    for plugin in ["misdeeds", "scripted"] {
        host.log_line(&["plugin loaded", plugin]);
    }
    let worker = host.worker();
    let mut client = connect(address);
    client.send("GET /die HTTP/1.1\r\nHost: h\r\nX-Deeds: [\"fault\"]\r\n\r\n");
    assert!(client.try_answer().is_err(), "nobody is left to answer");
    // Who connects waits for the next worker, and for its plugins.
    assert_eq!(connect(address).get("/live").code(), 204);
    wait_for("another worker serves", || {
        (host.worker() != worker).then_some(())
    });
    host.log_line(&["SIGSEGV", "misdeeds"]);
}

#[test]
fn heads_and_bodies_beyond_the_bounds_are_refused() {
    let (_host, address) = serving_with(
        Host::builder().flag("--http-max-body", "64KiB"),
        &[
            ("POST", "/see/*rest", "see"),
            ("POST", "/unread", "reply without reading"),
        ],
    );
    let fits = vec![b'x'; 64 << 10];
    let longer = vec![b'x'; (64 << 10) + 1];
    let post =
        |headers: &[&str], body: &[u8]| connect(address).ask("POST", "/see/a", headers, body);
    assert_eq!(post(&[], &fits).code(), 201);
    // What announces itself as longer, and what turns out to be.
    let announced = format!("Content-Length: {}", longer.len());
    assert_eq!(post(&[&announced], b"").code(), 413);
    let mut client = connect(address);
    client.send("POST /see/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(format!("{:x}\r\n", longer.len()));
    client.send(&longer);
    assert_eq!(client.answer().code(), 413);

    let long = format!("X-Long: {}", "x".repeat(20 << 10));
    assert_eq!(post(&[&long], b"").code(), 431);
    let many: Vec<String> = (0..101).map(|n| format!("X-{n}: 1")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(post(&many, b"").code(), 431);
    // What a plugin does not read is no next request.
    let mut client = connect(address);
    let within = b"POST /see/a HTTP/1.1\r\nHost: h\r\n\r\n";
    let unread = client.ask("POST", "/unread", &[], within);
    assert_eq!(unread.body(), "as you say");
    let again = client.ask("POST", "/unread", &[], b"");
    assert_eq!(again.body(), "as you say");
}

#[test]
fn clients_beyond_the_bound_wait_until_one_goes() {
    let (_host, address) = serving_with(
        Host::builder().flag("--http-max-connections", "2"),
        &[("GET", "/", "")],
    );
    let mut first = connect(address);
    assert_eq!(first.get("/").code(), 204);
    let mut second = connect(address);
    assert_eq!(second.get("/").code(), 204);
    let mut third = connect(address);
    third.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    thread::sleep(Duration::from_millis(200));
    assert_eq!(first.get("/").code(), 204);
    drop(first);
    assert_eq!(third.answer().code(), 204);
}

#[test]
fn a_unix_socket_will_do_and_what_is_no_address_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("services");
    let listen = format!("unix:{}", path.display());
    let mut host = Host::builder()
        .plugin_json("scripted", routes(&[("GET", "/see/*rest", "see")]))
        .flag("--http-listen", &listen)
        .start();
    host.log_line(&["plugin loaded", "scripted"]);
    let seen = connect_unix(&path).get("/see/a");
    assert!(seen.body().contains("from None"), "{}", seen.body());
    host.stop();
    assert!(!path.exists(), "it goes with the host");

    let ended = plugin_host(&[
        "run",
        "--listen=/tmp/x",
        "--http-listen=nowhere",
        "--check-config",
    ]);
    assert_eq!(ended.code, 2);
    let complaint = format!("{ended:?}");
    assert!(complaint.contains("write IP:PORT"), "{complaint}");
}

#[test]
fn a_client_of_which_nothing_comes_is_let_go() {
    let (_host, address) = serving(&[("GET", "/", "")]);
    let mut silent = connect(address);
    let mut slow = connect(address);
    let mut idle = connect(address);
    assert_eq!(idle.get("/").code(), 204);
    slow.send("GET / HT");
    let began = Instant::now();
    for client in [&mut silent, &mut slow, &mut idle] {
        client.patience(Duration::from_secs(60));
        let rest = client.end();
        assert!(
            rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"),
            "{rest:?}"
        );
        assert!(began.elapsed() > Duration::from_secs(9));
    }
}
