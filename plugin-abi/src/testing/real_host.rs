//! The real program with the built library, from a plugin's own `cargo test`: what no fake can say,
//! that the library loads, passes the host's checks and answers over HTTP.
//!
//! It builds the crate's library with cargo, puts it with its `plugin.json` into a plugin directory
//! of its own, and starts `plugin-host gateway`, which starts the host. Nothing is left behind.

use std::{
    env,
    ffi::OsString,
    fs::{self, DirBuilder, File},
    io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    client_request::ClientRequest,
    execution::{Executed, Execution},
    get, http,
    response::ClientResponse,
};

/// How long the host may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is looked whether it has.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// What is in front of the directory in which the gateway's host can be asked.
const RUNTIME_DIR: &str = " --runtime-dir ";

/// The variable that names the program.
const PROGRAM: &str = "PLUGIN_HOST";

/// A running host behind the development gateway. Dropped, both end; where the test has failed,
/// their log is shown.
///
/// ```no_run
/// use plugin_abi::testing::RealHost;
///
/// # fn in_a_test_of_the_plugins() {
/// let host = RealHost::of(env!("CARGO_MANIFEST_DIR")).start();
/// assert_eq!(host.get("/hello").text(), "hello");
/// # }
/// ```
#[derive(Debug)]
pub struct RealHost {
    scratch: Scratch,
    program: PathBuf,
    /// The plugin's name, where its `plugin.json` says one.
    plugin: Option<String>,
    process: Child,
    address: SocketAddr,
}

/// What a [`RealHost`] is started with.
#[derive(Debug)]
pub struct Builder {
    crate_directory: PathBuf,
    routes: Option<String>,
    run_arguments: Vec<OsString>,
}

impl RealHost {
    /// A host for the plugin of this crate: `env!("CARGO_MANIFEST_DIR")` in its tests.
    pub fn of(crate_directory: impl Into<PathBuf>) -> Builder {
        Builder {
            crate_directory: crate_directory.into(),
            routes: None,
            run_arguments: Vec::new(),
        }
    }

    /// `GET` of a path.
    ///
    /// # Panics
    /// There is no answer.
    #[track_caller]
    pub fn get(&self, target: &str) -> ClientResponse {
        self.send(&get(target))
    }

    /// Sends a request. Its variables and its address are the real ones.
    ///
    /// # Panics
    /// There is no answer.
    #[track_caller]
    pub fn send(&self, request: &ClientRequest) -> ClientResponse {
        match http::exchange(self.address, request) {
            Ok(response) => response,
            Err(error) => panic!("the gateway does not answer: {error}"),
        }
    }

    /// Sends a request to the host's listener for [HTTP services](crate::service), as their clients do.
    ///
    /// # Panics
    /// There is no answer; the plugin's `plugin.json` has no `http_services`, or the host was given an
    /// address for them.
    #[track_caller]
    pub fn service(&self, request: &ClientRequest) -> ClientResponse {
        match http::exchange_at(&self.scratch.services(), request) {
            Ok(response) => response,
            Err(error) => panic!("nobody answers for HTTP services: {error}"),
        }
    }

    /// Has the plugin execute something, as `plugin-host exec` does.
    ///
    /// # Panics
    /// It is an HTTP client's (for which there is [`RealHost::service`]) or to be cancelled, the plugin
    /// has no `plugin.json`, or the host is not ready within 30 s.
    #[track_caller]
    pub fn execute(&self, execution: &Execution) -> Executed {
        assert!(
            execution.request.is_none() && execution.cancelled.is_none(),
            "an operator asks here: HTTP clients do with `service`, and nobody goes away"
        );
        let Some(plugin) = &self.plugin else {
            panic!("the plugin has no plugin.json, and so no name by which to ask it");
        };
        // Where the gateway says its host can be found.
        let said = self.log_line(RUNTIME_DIR);
        let (_, runtime_dir) = said.split_once(RUNTIME_DIR).unwrap_or_default();
        let ask = |command: &mut Command| {
            let asked = command
                .args([RUNTIME_DIR.trim(), runtime_dir.trim()])
                .stdin(Stdio::null())
                .output();
            match asked {
                Ok(answer) => answer,
                Err(error) => panic!("cannot start {}: {error}", self.program.display()),
            }
        };
        let ready = ask(Command::new(&self.program).args(["wait-ready", "--timeout=30"]));
        assert!(
            ready.status.success(),
            "the host is not ready: {}",
            String::from_utf8_lossy(&ready.stderr)
        );
        let began = Instant::now();
        let mut command = Command::new(&self.program);
        command.args(["exec", "--json", plugin, "--label", &execution.label]);
        for (name, value) in &execution.values {
            command.args(["--set".to_owned(), format!("{name}={value}")]);
        }
        if let Some(timeout) = execution.timeout {
            command.args(["--timeout".to_owned(), format!("{}ms", timeout.as_millis())]);
        }
        let answer = ask(&mut command);
        let values = serde_json::from_slice::<Value>(&answer.stdout)
            .ok()
            .and_then(|mut said| serde_json::from_value(said["values"].take()).ok())
            .unwrap_or_default();
        let failure = String::from_utf8_lossy(&answer.stderr).trim().to_owned();
        Executed {
            values,
            failure: (!answer.status.success()).then_some(failure),
            reply: None,
            took: began.elapsed(),
        }
    }

    /// What gateway and host have logged so far, each call and its effect included.
    pub fn log(&self) -> String {
        self.scratch.log()
    }

    /// Waits until there is a line in the log that has this in it.
    ///
    /// # Panics
    /// There is none within 30 s.
    #[track_caller]
    pub fn log_line(&self, part: &str) -> String {
        let began = Instant::now();
        loop {
            let log = self.log();
            if let Some(line) = log.lines().find(|line| line.contains(part)) {
                return line.to_owned();
            }
            assert!(
                began.elapsed() < PATIENCE,
                "no line of the log has {part:?} in it"
            );
            thread::sleep(LOOK_AGAIN_AFTER);
        }
    }
}

impl Drop for RealHost {
    fn drop(&mut self) {
        // The host ends with its gateway. It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            eprintln!("--- log of the host ---\n{}--- end ---", self.log());
        }
    }
}

impl Builder {
    /// A route file in place of the crate's `apisix.yaml`.
    #[must_use]
    pub fn routes(mut self, apisix_yaml: impl Into<String>) -> Self {
        self.routes = Some(apisix_yaml.into());
        self
    }

    /// A further argument for `plugin-host run`, such as `--call-budget=1s`. Where the plugin has HTTP
    /// services, [`RealHost::service`] reaches them without one.
    #[must_use]
    pub fn run_argument(mut self, argument: impl Into<OsString>) -> Self {
        self.run_arguments.push(argument.into());
        self
    }

    /// Builds the plugin, and starts a host that serves it behind a gateway on a free port.
    ///
    /// # Panics
    /// The crate does not build, there is no `plugin-host`, or it does not start. That a plugin is
    /// not loaded shows in the answers, and in the log.
    #[track_caller]
    pub fn start(self) -> RealHost {
        let program = program();
        let scratch = Scratch::new();
        let path = &scratch.0;
        let metadata = install(&self.crate_directory, &path.join("plugins"));
        let mut run_arguments = self.run_arguments;
        let has_address = |argument: &OsString| {
            let argument = argument.to_string_lossy();
            argument.split('=').next() == Some("--http-listen")
        };
        let has_services = metadata
            .as_ref()
            .is_some_and(|it| it["http_services"].is_object());
        if has_services && !run_arguments.iter().any(has_address) {
            let mut listen = OsString::from("--http-listen=unix:");
            listen.push(scratch.services());
            run_arguments.push(listen);
        }
        let routes = self.crate_directory.join("apisix.yaml");
        let written = match &self.routes {
            Some(text) => fs::write(path.join("apisix.yaml"), text).map(|()| 0),
            None => fs::copy(&routes, path.join("apisix.yaml")),
        };
        if let Err(error) = written {
            panic!(
                "no routes: write {}, or give them with `routes` ({error})",
                routes.display()
            );
        }
        let started = File::create(path.join("log")).and_then(|log| {
            Command::new(&program)
                .arg("gateway")
                .arg("--routes")
                .arg(path.join("apisix.yaml"))
                .arg("--plugin-dir")
                .arg(path.join("plugins"))
                .args(["--listen=127.0.0.1:0", "--print-calls", "--"])
                .args(&run_arguments)
                // What it leaves when it is killed goes with the directory.
                .env("TMPDIR", path)
                .env("NO_COLOR", "1")
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()
        });
        let mut process = match started {
            Ok(process) => process,
            Err(error) => panic!("cannot start {}: {error}", program.display()),
        };
        match scratch.wait_for_address(&mut process) {
            Ok(address) => RealHost {
                scratch,
                plugin: metadata.and_then(|it| it["name"].as_str().map(str::to_owned)),
                program,
                process,
                address,
            },
            Err(reason) => {
                let _ = process.kill();
                let _ = process.wait();
                panic!("{} {reason}:\n{}", program.display(), scratch.log());
            }
        }
    }
}

/// Where the program is.
#[track_caller]
fn program() -> PathBuf {
    if let Some(named) = env::var_os(PROGRAM) {
        let named = PathBuf::from(named);
        assert!(
            named.is_file(),
            "{PROGRAM} is {}, where no program is",
            named.display()
        );
        return named;
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .map(|directory| directory.join("plugin-host"))
        .find(|program| program.is_file());
    match found {
        Some(program) => program,
        None => panic!(
            "there is no plugin-host in PATH: put it there, or name it in the variable {PROGRAM} \
             (in a checkout of it: `cargo build --release`, then \
             {PROGRAM}=.../target/release/plugin-host)"
        ),
    }
}

/// Builds the library and puts it where a host looks for it; what its `plugin.json` says, where it has
/// one.
#[track_caller]
fn install(crate_directory: &Path, plugins: &Path) -> Option<Value> {
    let library = build(crate_directory);
    let metadata = crate_directory.join("plugin.json");
    let said: Option<Value> =
        fs::read(&metadata)
            .ok()
            .map(|text| match serde_json::from_slice(&text) {
                Ok(said) => said,
                Err(error) => panic!("{}: {error}", metadata.display()),
            });
    let directory = match &said {
        Some(said) => plugins.join(said["name"].as_str().unwrap_or_default()),
        None => plugins.to_owned(),
    };
    let put = || -> io::Result<()> {
        fs::create_dir_all(&directory)?;
        if said.is_some() {
            fs::copy(&metadata, directory.join("plugin.json"))?;
        }
        let file = library.file_name().unwrap_or_default();
        fs::copy(&library, directory.join(file))?;
        Ok(())
    };
    if let Err(error) = put() {
        panic!(
            "cannot put the plugin into {}: {error}",
            directory.display()
        );
    }
    said
}

/// Builds a crate's library, as cargo does without `--release`, and says where it is.
#[track_caller]
fn build(crate_directory: &Path) -> PathBuf {
    let manifest = crate_directory.join("Cargo.toml");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .current_dir(crate_directory)
        .args(["build", "--lib", "--message-format=json-render-diagnostics"])
        .stdin(Stdio::null())
        .output();
    let built = match built {
        Ok(built) => built,
        Err(error) => panic!("cannot start cargo: {error}"),
    };
    assert!(
        built.status.success(),
        "the plugin does not build:\n{}",
        String::from_utf8_lossy(&built.stderr)
    );
    let messages = String::from_utf8_lossy(&built.stdout);
    let library = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["manifest_path"].as_str() == manifest.to_str())
        .filter_map(|message| {
            let files = message["filenames"].as_array()?.iter();
            files
                .filter_map(Value::as_str)
                .find(|file| file.ends_with(".so"))
                .map(PathBuf::from)
        })
        .next_back();
    match library {
        Some(library) => library,
        None => panic!(
            "{} builds no library that can be loaded: add `crate-type = [\"cdylib\"]` to its [lib]",
            manifest.display()
        ),
    }
}

/// A directory of this test's own, gone at its end.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    #[track_caller]
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("plugin-host-test.{}.{number}", std::process::id());
            let path = env::temp_dir().join(name);
            // Nobody else may change what a host loads.
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Self(path),
                // Left behind by a test that was killed and had our number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => panic!("cannot create {}: {error}", path.display()),
            }
        }
    }

    /// Where HTTP services are served.
    fn services(&self) -> PathBuf {
        self.0.join("services")
    }

    fn log(&self) -> String {
        let log = fs::read(self.0.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Waits until the gateway has said where it listens.
    fn wait_for_address(&self, process: &mut Child) -> Result<SocketAddr, String> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            // First this: what has been said at the end has been said.
            let ended = process.try_wait().ok().flatten();
            let log = self.log();
            let said = log.split_once("listening on http://");
            if let Some((address, _)) = said.and_then(|(_, rest)| rest.split_once(['\n', ' ']))
                && let Ok(address) = address.parse()
            {
                return Ok(address);
            }
            if let Some(status) = ended {
                return Err(format!("has ended with {status}"));
            }
            thread::sleep(LOOK_AGAIN_AFTER);
        }
        Err(format!("has not started within {} s", PATIENCE.as_secs()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
