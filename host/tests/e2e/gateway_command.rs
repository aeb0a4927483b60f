//! `plugin-host gateway` as a person runs it: the five plugins through HTTP, a host of its own, a
//! port that is taken, what it prints, how it ends.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    capture::RecordedFrame,
    message::{Message, Side},
    support::{
        Host, PATIENCE, PluginDir,
        http::{HttpGateway, Response},
        plugin_host,
        runner::{Runner, said_by_runner},
        versions::version,
        wait_for,
    },
};

const FIVE: [&str; 5] = [
    "fault-injection",
    "limit-req",
    "request-body-rewrite",
    "response-rewrite",
    "say",
];

/// A route of this path whose plugins run in this phase.
fn route(path: &str, phase: &str, plugins: &[(&str, Value)]) -> Value {
    let conf: Vec<_> = plugins
        .iter()
        .map(|(name, value)| json!({ "name": name, "value": value.to_string() }))
        .collect();
    json!({
        "id": path.trim_start_matches('/'),
        "uri": path,
        "plugins": { format!("ext-plugin-{phase}"): { "conf": conf } },
    })
}

fn file_of(routes: &[Value]) -> String {
    format!("{}\n#END\n", json!({ "routes": routes }))
}

/// Every plugin on a route of its own, and one without any.
fn five_routes() -> Vec<Value> {
    let limit = json!({ "rate": 0.01, "burst": 0, "rejected_code": 429 });
    let change = json!({
        "headers": { "X-Changed": "yes" },
        "filters": [{ "regex": "/page", "replace": "/leaf" }],
    });
    vec![
        route("/hello", "pre-req", &[("say", json!({ "body": "hello" }))]),
        route("/late", "post-req", &[("say", json!({ "body": "late" }))]),
        route(
            "/tea",
            "pre-req",
            &[(
                "fault-injection",
                json!({ "http_status": 418, "body": "no tea here" }),
            )],
        ),
        route("/busy", "pre-req", &[("limit-req", limit)]),
        route(
            "/form",
            "pre-req",
            &[("request-body-rewrite", json!({ "new_body": "new" }))],
        ),
        route("/page", "post-resp", &[("response-rewrite", change)]),
        json!({ "id": "rest", "uri": "/*" }),
    ]
}

/// A gateway that starts a host for these plugins by itself, and the directory that they are in.
fn with_own_host(plugins: &[&str], routes: &[Value], flags: &[&str]) -> (HttpGateway, PluginDir) {
    let installed = plugins.iter().fold(PluginDir::new(), |directory, plugin| {
        directory.with(plugin, json!({}))
    });
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("apisix.yaml"), file_of(routes)).unwrap();
    let plugin_dir = format!("--plugin-dir={}", installed.path(""));
    let gateway = HttpGateway::start_in(directory, &[&[plugin_dir.as_str()], flags].concat());
    (gateway, installed)
}

fn echoed(response: &Response) -> Value {
    serde_json::from_str(&response.body()).unwrap()
}

#[test]
fn each_of_the_five_plugins_does_its_work_through_http() {
    let (gateway, _plugins) = with_own_host(&FIVE, &five_routes(), &[]);
    let hello = gateway.get("/hello", &[]);
    assert_eq!((hello.code(), hello.body().as_str()), (200, "hello"));
    assert_eq!(hello.header("x-resp-a6-runner"), Some("Rust"));
    assert_eq!(gateway.get("/late", &[]).body(), "late");
    let tea = gateway.get("/tea", &[]);
    assert_eq!((tea.code(), tea.body().as_str()), (418, "no tea here"));
    assert_eq!(gateway.get("/busy", &[]).code(), 200);
    assert_eq!(gateway.get("/busy", &[]).code(), 429);
    let form = gateway.send(
        b"POST /form HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nold",
    );
    assert_eq!(echoed(&form)["body"], "new");
    let page = gateway.get("/page", &[]);
    assert_eq!(page.header("x-changed"), Some("yes"));
    assert_eq!(page.header("content-type"), Some("application/json"));
    assert_eq!(echoed(&page)["uri"], "/leaf");
}

#[test]
fn its_own_host_can_be_looked_into_by_the_command_that_it_names() {
    let (gateway, _plugins) = with_own_host(&["say"], &five_routes(), &[]);
    assert_eq!(gateway.get("/hello", &[]).code(), 200);
    let line = gateway.log_line(&["to look into the host"]);
    let (_, command) = line.split_once("plugin-host status").unwrap();
    let arguments: Vec<_> = ["status"]
        .into_iter()
        .chain(command.split_whitespace())
        .collect();
    let status = plugin_host(&arguments);
    assert_eq!(status.code, 0, "{}", status.stderr);
    assert!(
        status.stdout.contains("say 0.1.0 serves"),
        "{}",
        status.stdout
    );
}

#[test]
fn the_built_in_upstream_answers_with_what_it_got() {
    let (gateway, _plugins) = with_own_host(&[], &five_routes(), &[]);
    let answer = gateway.send(
        b"PATCH /a%20b?c=%ff HTTP/1.1\r\nHost: gw.example:81\r\nX-Raw: \xff\xfe\r\n\
          Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    );
    let told = echoed(&answer);
    assert_eq!(told["method"], "PATCH");
    assert_eq!(told["uri"], "/a%20b?c=%ff");
    assert_eq!(told["body"], "body");
    let headers = told["headers"].as_array().unwrap();
    for expected in [
        json!(["Host", "gw.example:81"]),
        json!(["X-Real-IP", "127.0.0.1"]),
        json!(["Content-Length", "4"]),
        json!(["x-raw", { "hex": "fffe" }]),
        json!(["x-forwarded-host", "gw.example"]),
    ] {
        assert!(headers.contains(&expected), "{expected} is not in {told:#}");
    }
}

#[test]
fn bytes_that_are_no_text_reach_a_plugin_and_come_back() {
    let steps = json!([
        { "report": ["x-path", "path"] },
        { "report": ["x-arg", { "arg": "b" }] },
        { "report": ["x-seen", { "header": "x-raw" }] },
    ]);
    let routes = [route("/*", "pre-req", &[("scripted", steps)])];
    let host = Host::with("scripted");
    let gateway = HttpGateway::start(&file_of(&routes), &host.socket());
    let answer = gateway
        .send(b"GET /%ff?b=%fe HTTP/1.1\r\nHost: x\r\nX-Raw: \xfd\r\nConnection: close\r\n\r\n");
    let told = echoed(&answer);
    let headers = told["headers"].as_array().unwrap();
    for expected in [
        json!(["x-path", { "hex": "2fff" }]),
        json!(["x-arg", { "hex": "fe" }]),
        json!(["x-seen", { "hex": "fd" }]),
    ] {
        assert!(headers.contains(&expected), "{expected} is not in {told:#}");
    }
}

/// The host that a gateway has started, as its log tells.
fn host_of(gateway: &HttpGateway, number: usize) -> Pid {
    wait_for("a host is started", || {
        let log = gateway.log();
        let line = log
            .lines()
            .filter(|line| line.contains("the host has been started"))
            .nth(number)?;
        let pid = line.rsplit_once("pid=")?.1.trim().parse().ok()?;
        Pid::from_raw(pid)
    })
}

#[test]
fn a_host_that_dies_is_started_again_and_the_calls_meanwhile_get_503() {
    let (gateway, _plugins) = with_own_host(&["say"], &five_routes(), &[]);
    assert_eq!(gateway.get("/hello", &[]).code(), 200);
    kill_process(host_of(&gateway, 0), Signal::KILL).unwrap();
    wait_for("a call without a host", || {
        (gateway.get("/hello", &[]).code() == 503).then_some(())
    });
    assert_eq!(gateway.get("/else", &[]).code(), 200, "no plugin, no host");
    gateway.log_line(&["the host has ended", "signal: 9"]);
    wait_for("the next host answers", || {
        let answer = gateway.get("/hello", &[]);
        (answer.code() == 200).then(|| assert_eq!(answer.body(), "hello"))
    });
    assert_ne!(host_of(&gateway, 0), host_of(&gateway, 1));
}

#[test]
fn at_its_end_the_gateway_stops_its_host_and_leaves_nothing_behind() {
    let (mut gateway, _plugins) = with_own_host(&["say"], &five_routes(), &[]);
    let host = host_of(&gateway, 0);
    let line = gateway.log_line(&["address=unix:", "plugin_dir"]);
    let (_, address) = line.split_once("address=unix:").unwrap();
    let socket = address.split(' ').next().unwrap();
    assert!(Path::new(socket).exists());
    let status = gateway.stop();
    assert!(status.success(), "{status}");
    assert!(test_kill_process(host).is_err(), "the host is still there");
    assert!(!Path::new(socket).parent().unwrap().exists());
    assert!(gateway.log().contains("stopping reason=\"SIGTERM\""));
}

#[test]
fn a_request_that_is_open_at_the_end_is_answered() {
    let steps = json!([{ "sleep": 300 }, { "stop": { "status": 200, "body": "done" } }]);
    let routes = [route("/*", "pre-req", &[("scripted", steps)])];
    let host = Host::with("scripted");
    let mut gateway = HttpGateway::start(&file_of(&routes), &host.socket());
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    // Where its plugin is called, the request is surely there.
    host.log_line(&["chain ready"]);
    let status = gateway.stop();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = Response::read(&answer);
    assert_eq!((answer.code(), answer.body().as_str()), (200, "done"));
    assert!(status.success(), "{status}");
}

#[test]
fn a_port_that_is_taken_is_told_with_a_next_step() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("apisix.yaml");
    fs::write(&file, file_of(&five_routes())).unwrap();
    let address = taken.local_addr().unwrap();
    let ended = plugin_host(&[
        "gateway",
        "--routes",
        file.to_str().unwrap(),
        "--socket=/nowhere",
        &format!("--listen={address}"),
    ]);
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    for part in [&format!("cannot listen on {address}"), "--listen"] {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
}

#[test]
fn without_a_host_to_call_it_says_how_to_name_one() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("apisix.yaml");
    fs::write(&file, file_of(&five_routes())).unwrap();
    let file = file.to_str().unwrap();
    let ended = plugin_host(&["gateway", "--listen=127.0.0.1:0", "--routes", file]);
    assert_eq!(ended.code, 2);
    for part in ["--plugin-dir", "--socket"] {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
}

#[test]
fn it_says_in_help_and_log_that_it_is_for_development() {
    let help = plugin_host(&["gateway", "--help"]);
    assert!(help.stdout.contains("FOR DEVELOPMENT, not for production"));
    let (gateway, _plugins) = with_own_host(&[], &five_routes(), &[]);
    gateway.log_line(&["for development, not for production"]);
}

#[test]
fn calls_are_shown_with_their_changes_and_requests_on_a_line() {
    let (gateway, _plugins) = with_own_host(&FIVE, &five_routes(), &["--print-calls"]);
    gateway.get("/hello?a=1", &["User-Agent: me"]);
    gateway.get("/page", &[]);
    gateway.log_line(&[
        "-> GET /hello?a=1 route hello ext-plugin-pre-req: say ",
        " us",
    ]);
    gateway.log_line(&["stop: the client gets this, and nothing goes upstream"]);
    gateway.log_line(&["X-Resp-A6-Runner: Rust"]);
    gateway.log_line(&["body of 5 bytes"]);
    gateway.log_line(&["-> GET /page route page ext-plugin-post-resp: response-rewrite "]);
    gateway.log_line(&[
        "127.0.0.1 - - [",
        " +0000] gw.example \"GET /hello?a=1 HTTP/1.1\" 200 5 \"-\" \"me\" ",
    ]);
    assert!(
        !gateway.log().contains("\x1b["),
        "colours where nobody looks"
    );
}

#[test]
fn tokens_outlive_what_a_worker_remembers_and_connections_are_used_again() {
    let (prepare, call) = (said_by_gateway(), said_by_gateway());
    let unchanged = said_by_runner(&Message::Unchanged { id: 0 });
    let first = (1..=12).flat_map(|conf_token| {
        let token = said_by_runner(&Message::Token { conf_token });
        [prepare.clone(), token, call.clone(), unchanged.clone()]
    });
    let later = (0..24).flat_map(|_| [call.clone(), unchanged.clone()]);
    let runner = Runner::start();
    let routes: Vec<_> = (1..=12)
        .map(|number| route(&format!("/{number}"), "pre-req", &[("any", json!({}))]))
        .collect();
    let gateway = HttpGateway::start(&file_of(&routes), &runner.socket());
    runner.play(&first.chain(later).collect::<Vec<_>>());
    // More routes than a worker remembers, so that each is forgotten when its turn comes again.
    for _ in 0..3 {
        for number in 1..=12 {
            assert_eq!(gateway.get(&format!("/{number}"), &[]).code(), 200);
        }
    }
    let said = runner.said();
    let tokens = said.iter().filter_map(|(_, message)| match message {
        Message::RequestCall { conf_token, .. } => Some(*conf_token),
        _ => None,
    });
    let thrice = (1..=12).chain(1..=12).chain(1..=12);
    assert!(tokens.eq(thrice), "{said:?}");
    let prepares = said
        .iter()
        .filter(|(_, message)| matches!(message, Message::Prepare { .. }));
    assert_eq!(prepares.count(), 12);
    let connections: BTreeSet<_> = said.iter().map(|(connection, _)| connection).collect();
    assert_eq!(
        connections.len(),
        2,
        "one for the call, and one to prepare on"
    );
}

#[test]
fn upgrades_under_running_requests_fail_none_of_them() {
    let host = Host::builder().start();
    let directory = host.plugins().join("versioned");
    version("1.0.0").swap_in(&directory);
    let routes = [route(
        "/*",
        "pre-req",
        &[("versioned", json!({ "word": "w" }))],
    )];
    let gateway = HttpGateway::start(&file_of(&routes), &host.socket());
    let serves = |number: &str| {
        wait_for(number, || {
            let answer = gateway.get("/", &[]);
            (answer.header("x-version") == Some(number)).then_some(())
        });
    };
    serves("1.0.0");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut answers = 0;
                    while !over.load(Ordering::SeqCst) {
                        assert_eq!(gateway.get("/", &[]).code(), 200);
                        answers += 1;
                    }
                    answers
                })
            })
            .collect();
        for number in ["1.0.1", "1.0.2", "1.0.3"] {
            version(number).swap_in(&directory);
            serves(number);
        }
        over.store(true, Ordering::SeqCst);
        for client in clients {
            assert!(client.join().unwrap() > 0);
        }
    });
}

/// A frame of the gateway's, whatever it says.
fn said_by_gateway() -> RecordedFrame {
    RecordedFrame {
        from: Side::Gateway,
        ..said_by_runner(&Message::Unchanged { id: 0 })
    }
}
