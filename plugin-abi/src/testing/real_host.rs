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

use super::{client_request::ClientRequest, get, http, response::ClientResponse};

/// How long the host may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is looked whether it has.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(10);

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

    /// A further argument for `plugin-host run`, such as `--call-budget=1s`.
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
        install(&self.crate_directory, &path.join("plugins"));
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
                .args(&self.run_arguments)
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

/// Builds the library and puts it where a host looks for it.
#[track_caller]
fn install(crate_directory: &Path, plugins: &Path) {
    let library = build(crate_directory);
    let metadata = crate_directory.join("plugin.json");
    let name = fs::read(&metadata).ok().map(|text| {
        let metadata: Value = match serde_json::from_slice(&text) {
            Ok(metadata) => metadata,
            Err(error) => panic!("{}: {error}", metadata.display()),
        };
        metadata["name"].as_str().unwrap_or_default().to_owned()
    });
    let directory = match &name {
        Some(name) => plugins.join(name),
        None => plugins.to_owned(),
    };
    let put = || -> io::Result<()> {
        fs::create_dir_all(&directory)?;
        if name.is_some() {
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
