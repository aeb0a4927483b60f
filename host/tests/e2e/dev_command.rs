//! `plugin-host dev` as an author uses it: change the source and see the changed answer over HTTP, break
//! it and see why, and the old answer; mend it; end it, and nothing is left.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::{
    PATIENCE,
    crates::{self, NewCrate},
    http::{Response, free_address},
    wait_for,
};

/// A running `plugin-host dev`. Dropped, it is stopped; where the test has failed, its words are shown.
struct Dev {
    of: NewCrate,
    /// What it writes, and what it leaves.
    directory: TempDir,
    address: SocketAddr,
    process: Child,
}

impl Dev {
    fn start(of: NewCrate) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = free_address();
        let log = File::create(directory.path().join("log")).unwrap();
        let process = crates::in_environment(&mut Command::new(env!("CARGO_BIN_EXE_plugin-host")))
            .arg("dev")
            .arg(of.path())
            .arg(format!("--listen={address}"))
            .env("TMPDIR", directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            of,
            directory,
            address,
            process,
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// Waits until it has said this. A build takes its time where others build, too.
    fn says(&self, part: &str) {
        wait_for_a_build(&format!("it says {part}"), || self.log().contains(part));
    }

    fn try_get(&self, path: &str) -> Option<Response> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        Some(Response::read(&answer))
    }

    fn get(&self, path: &str) -> String {
        self.try_get(path).unwrap().body()
    }

    fn stop(&mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.process), Signal::INT).unwrap();
        wait_for("it ends", || self.process.try_wait().unwrap())
    }

    /// The processes that it has started, and theirs, whose environment or arguments say so.
    fn processes(&self) -> Vec<String> {
        let own = self.directory.path().to_str().unwrap().as_bytes().to_vec();
        let of = self.of.path().to_str().unwrap().as_bytes().to_vec();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
            let (arguments, environment) = (read("cmdline"), read("environ"));
            let has =
                |text: &[u8], part: &[u8]| text.windows(part.len()).any(|window| window == part);
            if has(&arguments, &own) || has(&environment, &own) || has(&arguments, &of) {
                found.push(String::from_utf8_lossy(&arguments).replace('\0', " "));
            }
        }
        found
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if self.process.try_wait().unwrap().is_none() {
            self.stop();
        }
        if thread::panicking() {
            eprintln!("--- log of dev ---\n{}--- end ---", self.log());
        }
    }
}

fn wait_for_a_build(what: &str, done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < 10 * PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_changed_source_is_a_changed_answer_and_a_broken_one_keeps_the_last() {
    let mut dev = Dev::start(NewCrate::new("dev-changes", &[]));
    dev.says("build 1 of dev-changes 0.1.0 serves on http://");
    assert_eq!(dev.get("/hello"), "Hello, Ada!\n");

    dev.of.edit("src/lib.rs", "Hello, {}!", "Bonjour, {}!");
    dev.says("build 2 of dev-changes 0.1.0 serves on http://");
    assert_eq!(dev.get("/hello"), "Bonjour, Ada!\n");

    // It does not compile.
    dev.of
        .edit("src/lib.rs", "Reply::new(200)", "Reply::new(\"200\")");
    dev.says("the build failed, as cargo says above; build 2 (0.1.0) serves on");
    assert!(
        dev.log().contains("mismatched types"),
        "the compiler's words are there"
    );
    assert_eq!(dev.get("/hello"), "Bonjour, Ada!\n");

    // It compiles, and does not load.
    dev.of
        .edit("src/lib.rs", "Reply::new(\"200\")", "Reply::new(200)");
    dev.of.edit(
        "src/lib.rs",
        "    type Config = Config;\n",
        "    type Config = Config;\n\n    async fn on_load(&mut self, _load: &Load) -> Result<()> {\n        bail!(\"not today\")\n    }\n",
    );
    dev.says("build 3 does not load: ");
    dev.says("not today");
    assert_eq!(dev.get("/hello"), "Bonjour, Ada!\n");

    // Mended, with another version.
    dev.of.edit("src/lib.rs", "bail!(\"not today\")", "Ok(())");
    for file in ["Cargo.toml", "plugin.json"] {
        dev.of.edit(file, "0.1.0", "0.2.0");
    }
    dev.says("dev-changes 0.2.0 serves on http://");
    assert_eq!(dev.get("/hello"), "Bonjour, Ada!\n");

    // Routes change without a build.
    dev.of.edit("apisix.yaml", "Ada", "Grace");
    wait_for("the route has changed", || {
        (dev.get("/hello") == "Bonjour, Grace!\n").then_some(())
    });

    // The plugin's own log, and what it did to a call.
    dev.says("greeted");
    dev.says("ext-plugin-pre-req: dev-changes");

    assert_eq!(dev.stop().code(), Some(0));
    assert_eq!(dev.processes(), Vec::<String>::new());
    let left: Vec<_> = fs::read_dir(dev.directory.path())
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, ["log"]);
}

#[test]
fn a_crate_without_routes_has_everything_go_through_the_plugin() {
    let of = NewCrate::new("dev-routeless", &[]);
    fs::remove_file(of.path().join("apisix.yaml")).unwrap();
    let dev = Dev::start(of);
    dev.says("build 1 of dev-routeless 0.1.0 serves");
    assert!(
        dev.log()
            .contains("has no apisix.yaml: every request goes through the plugin")
    );
    assert_eq!(dev.get("/hello"), "Hello, everybody!\n");
    let echo = dev.try_get("/other").unwrap();
    assert_eq!(echo.header("x-served-by"), Some("dev-routeless"));
}

#[test]
fn a_build_that_runs_ends_with_it_also_where_it_is_killed() {
    for signal in [Signal::INT, Signal::KILL] {
        let of = NewCrate::new("dev-slow", &[]);
        // A build script that never ends, and says that it runs.
        fs::write(
            of.path().join("build.rs"),
            "//! Never ends.\nfn main() {\n    let started = concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/started\");\n    \
             std::fs::write(started, \"\").unwrap();\n    loop {\n        std::thread::park();\n    }\n}\n",
        )
        .unwrap();
        let started = of.path().join("started");
        let mut dev = Dev::start(of);
        dev.says("building dev-slow");
        wait_for_a_build("the build script runs", || started.exists());
        kill_process(Pid::from_child(&dev.process), signal).unwrap();
        wait_for("it ends", || dev.process.try_wait().unwrap());
        wait_for("nothing of it is left", || {
            dev.processes().is_empty().then_some(())
        });
    }
}

#[test]
fn what_is_no_plugins_crate_is_refused_with_the_next_step() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap().to_owned();
    let refused = crate::support::plugin_host(&["dev", &path]);
    assert_eq!(refused.code, 2);
    assert!(
        refused.stderr.contains(
            "has no Cargo.toml: name a plugin's crate, or make one with `plugin-host new`"
        ),
        "{refused:?}"
    );
    let of = NewCrate::new("dev-rlib", &[]);
    of.edit("Cargo.toml", "[\"cdylib\"]", "[\"rlib\"]");
    let refused = crate::support::plugin_host(&["dev", of.path().to_str().unwrap()]);
    assert_eq!(refused.code, 2);
    assert!(
        refused.stderr.contains("crate-type = [\"cdylib\"]"),
        "{refused:?}"
    );
}
