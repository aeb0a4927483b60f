//! Whether a host is ready: for probes, for scripts, and for the service manager that started it.

use std::{
    os::unix::net::UnixDatagram,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Host, PATIENCE,
    asking::{get, post},
    plugin_host,
    versions::version,
    wait_for,
};

fn readiness(host: &Host) -> (u16, Value) {
    let reply = get("/readyz").of(host);
    (reply.status, reply.json())
}

#[test]
fn a_host_is_ready_when_the_directory_has_been_read_and_what_is_required_serves() {
    let host = Host::builder()
        .flag("--require", "versioned@^0.2, versioned")
        .start();
    host.log_line(&["the plugin directory has been read"]);
    wait_for("the host says what is missing", || {
        let (status, readiness) = readiness(&host);
        assert_eq!(status, 503);
        let reasons = readiness["reasons"].as_array()?;
        let missing =
            "no plugin `versioned` is loaded: is it in the plugin directory, and does it load?";
        (*reasons == [json!(missing), json!(missing)]).then_some(())
    });
    assert_eq!(
        get("/healthz").of(&host).status,
        200,
        "it lives all the same"
    );
    let (code, _, error) = host.ask(&["wait-ready", "--timeout", "1"]);
    assert_eq!(code, 1);
    assert!(
        error.contains("not ready after 1 s: not ready: no plugin `versioned`"),
        "{error}"
    );

    let directory = host.plugins().join("versioned");
    version("0.1.0").swap_in(&directory);
    wait_for("another version is missing", || {
        let (_, readiness) = readiness(&host);
        let reason = readiness["reasons"][0].as_str()?;
        reason
            .contains("loaded as 0.1.0, of which none satisfies `^0.2`")
            .then_some(())
    });
    version("0.2.0").swap_in(&directory);
    let (code, said, error) = host.ask(&["wait-ready"]);
    assert_eq!((code, said.as_str()), (0, "ready\n"), "{error}");
    assert_eq!(
        readiness(&host),
        (200, json!({ "ready": true, "reasons": [] }))
    );

    post("/v1/plugins/versioned/disable").of(&host);
    wait_for("a disabled plugin is a missing one", || {
        (readiness(&host).0 == 503).then_some(())
    });
}

#[test]
fn a_host_is_not_ready_before_the_directory_has_been_read() {
    let slow = version("0.1.0").settings(json!({ "load": "sleep" }));
    let host = Host::builder().flag("--rehearse", "false").spawn();
    slow.write(&host.plugins().join("versioned"));
    let (_, readiness) = wait_for("the host answers", || {
        crate::support::workers::control_socket(host.directory())?;
        Some(readiness(&host))
    });
    assert_eq!(readiness["ready"], false);
}

#[test]
fn a_host_that_does_not_run_yet_is_waited_for() {
    let directory = tempfile::Builder::new()
        .prefix("ph")
        .tempdir_in("/tmp")
        .unwrap();
    let socket = directory.path().join("s");
    let waiting = {
        let (socket, runtime) = (socket.clone(), directory.path().to_owned());
        thread::spawn(move || {
            plugin_host(&[
                "wait-ready",
                "--listen",
                socket.to_str().unwrap(),
                "--runtime-dir",
                runtime.to_str().unwrap(),
            ])
        })
    };
    thread::sleep(Duration::from_millis(300));
    assert!(!waiting.is_finished());
    let host = Host::builder().flag("--listen", socket.to_str().unwrap());
    let host = host
        .flag("--runtime-dir", directory.path().to_str().unwrap())
        .spawn();
    let ended = waiting.join().unwrap();
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (0, "ready\n"),
        "{ended:?}"
    );
    drop(host);
}

struct ServiceManager {
    socket: UnixDatagram,
    path: String,
    _directory: TempDir,
}

impl ServiceManager {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            socket,
            path: path.to_str().unwrap().to_owned(),
            _directory: directory,
        }
    }

    fn hears(&self) -> String {
        let mut message = [0; 4_096];
        let length = self.socket.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    }

    fn waits_for(&self, wanted: &str) -> Vec<String> {
        let mut heard = Vec::new();
        while heard.last().map(String::as_str) != Some(wanted) {
            heard.push(self.hears());
        }
        heard
    }
}

#[test]
fn the_service_manager_hears_when_a_host_is_ready_that_it_lives_and_when_it_stops() {
    let manager = ServiceManager::new();
    let mut host = Host::builder()
        .env("NOTIFY_SOCKET", &manager.path)
        .env("WATCHDOG_USEC", "600000")
        .flag("--require", "versioned")
        .start();
    let before = manager.waits_for(
        "STATUS=not ready: no plugin `versioned` is loaded: is it in the plugin directory, and does \
         it load?",
    );
    assert!(!before.iter().any(|said| said == "READY=1"), "{before:?}");
    version("0.1.0").swap_in(&host.plugins().join("versioned"));
    manager.waits_for("READY=1");
    manager.waits_for("WATCHDOG=1");
    let began = Instant::now();
    manager.waits_for("WATCHDOG=1");
    assert!(began.elapsed() < Duration::from_millis(600), "often enough");
    // It is the supervisor's to tell: no plugin finds the socket.
    let worker = std::fs::read(format!("/proc/{}/environ", host.worker())).unwrap();
    assert!(!String::from_utf8_lossy(&worker).contains("NOTIFY_SOCKET"));
    assert!(host.stop().success());
    manager.waits_for("STOPPING=1");
}
