//! The plugin `redis-session` with a real Redis of its own, from Debian's package `redis-server`.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Call, Gateway, Host, get, wait_for};

/// A Redis on a socket in a directory of its own, gone at the end of its test.
struct Redis {
    directory: TempDir,
    process: Child,
}

impl Redis {
    fn start() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("ph")
            .tempdir_in("/tmp")
            .unwrap();
        let process = Self::run(&directory);
        let redis = Self { directory, process };
        redis.wait();
        redis
    }

    fn run(directory: &TempDir) -> Child {
        Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .arg("--unixsocket")
            .arg(directory.path().join("r"))
            .arg("--dir")
            .arg(directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("scripts/install-tools --tests installs redis-server")
    }

    fn wait(&self) {
        wait_for("Redis answers", || UnixStream::connect(self.socket()).ok());
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("r")
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.process = Self::run(&self.directory);
        self.wait();
    }

    /// Runs a command, written as one types it, and gives what Redis says, as far as it comes at once.
    fn does(&self, command: &str) -> String {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.write_all(command.as_bytes()).unwrap();
        stream.write_all(b"\r\n").unwrap();
        let mut answer = [0; 4_096];
        let read = stream.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..read])
            .trim_end()
            .to_owned()
    }

    fn host(&self) -> Host {
        let url = format!("redis+unix://{}", self.socket().display());
        let config =
            format!("[plugins.redis-session.settings]\nurl = \"{url}\"\ntimeout_ms = 2000\n");
        Host::builder()
            .plugin("redis-session")
            .config(&config)
            .start()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // A test may have killed it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn route(gateway: &mut Gateway, conf: Value) -> u32 {
    gateway.route([("redis-session", conf)])
}

fn with_session(id: &str) -> Call {
    get("/").header("cookie", &format!("theme=dark; session={id}"))
}

#[test]
fn a_request_with_a_session_passes_with_its_headers_and_others_do_not() {
    let redis = Redis::start();
    assert_eq!(redis.does("HSET session:s-1 user ada role admin"), ":2");
    let host = redis.host();
    let mut gateway = host.gateway();
    let headers = json!({ "X-User": "user", "X-Tenant": "tenant" });
    let token = route(&mut gateway, json!({ "headers": headers }));
    let claims = |call: Call| call.header("x-user", "root").header("x-tenant", "everyone");
    // What the session does not have is not the client's to say either.
    assert_eq!(
        gateway.call(token, claims(with_session("s-1"))),
        "rewrite path none headers [x-tenant, x-user='ada'] args [] response headers [] body none"
    );
    for call in [get("/"), claims(with_session("s-2")), with_session("s 1")] {
        assert_eq!(gateway.call(token, call), "stop 401 headers [] body ''");
    }
    let login = route(&mut gateway, json!({ "login": "/login" }));
    assert_eq!(gateway.call(login, with_session("s-1")), "unchanged");
    assert_eq!(
        gateway.call(login, with_session("s-2")),
        "stop 302 headers [Location='/login'] body ''"
    );
}

#[test]
fn a_session_that_ends_in_redis_ends_at_once_and_one_in_use_may_live_on() {
    let redis = Redis::start();
    redis.does("HSET session:s user ada");
    redis.does("EXPIRE session:s 10000");
    let seconds_left = || redis.does("TTL session:s")[1..].parse::<u32>().unwrap();
    let host = redis.host();
    let mut gateway = host.gateway();
    let token = route(&mut gateway, json!({}));
    assert_eq!(gateway.call(token, with_session("s")), "unchanged");
    assert!(seconds_left() <= 10_000, "left alone");
    let extends = route(&mut gateway, json!({ "extend_seconds": 90_000 }));
    assert_eq!(gateway.call(extends, with_session("s")), "unchanged");
    assert!(seconds_left() > 10_000);
    redis.does("DEL session:s");
    assert_eq!(
        gateway.call(extends, with_session("s")),
        "stop 401 headers [] body ''"
    );
    assert_eq!(
        redis.does("EXISTS session:s"),
        ":0",
        "asking makes no session"
    );
}

#[test]
fn without_redis_routes_fail_closed_until_it_is_there_again() {
    let mut redis = Redis::start();
    redis.does("HSET session:s user ada");
    let host = redis.host();
    redis.kill();
    let mut gateway = host.gateway();
    let token = route(&mut gateway, json!({}));
    // The plugin loads without it, and each call tries anew.
    for _ in 0..2 {
        assert_eq!(gateway.call(token, with_session("s")), "error 1");
    }
    host.log_line(&["plugin redis-session 0.1.0 failed: cannot ask Redis: "]);
    for _ in 0..2 {
        redis.start_again();
        redis.does("HSET session:s user ada");
        wait_for("the plugin is connected again", || {
            (gateway.call(token, with_session("s")) == "unchanged").then_some(())
        });
        redis.kill();
        wait_for("it is seen that Redis is gone", || {
            (gateway.call(token, with_session("s")) == "error 1").then_some(())
        });
    }
}

#[test]
fn many_calls_share_one_connection_to_redis() {
    let redis = Redis::start();
    redis.does("HSET session:s user ada");
    let host = redis.host();
    let mut gateways: Vec<_> = (0..20).map(|_| host.gateway()).collect();
    let token = route(&mut gateways[0], json!({ "headers": { "X-User": "user" } }));
    for _ in 0..5 {
        for gateway in &mut gateways {
            gateway.begin(token, with_session("s"));
        }
        for gateway in &mut gateways {
            let answer = gateway.finish().to_string();
            assert!(answer.contains("x-user='ada'"), "{answer}");
        }
    }
    // Its own, and this one.
    assert!(redis.does("INFO clients").contains("connected_clients:2\r"));
}

#[test]
fn settings_that_cannot_be_are_refused_without_a_secret_in_the_message() {
    let config = "[plugins.redis-session.settings]\nurl = \"http://hunter2@redis\"\n";
    let host = Host::builder()
        .plugin("redis-session")
        .config(config)
        .start();
    host.log_line(&["redis-session", "settings: url: "]);
    assert!(!host.log().contains("hunter2"));
}
