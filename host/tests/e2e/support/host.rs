//! A `plugin-host` in a process and a directory of its own, gone at the end of its test.

use std::{
    ffi::OsString,
    fs::{self, File},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    gateway::Gateway,
    libraries::built_plugin,
    workers::{self, Overview},
};

/// How long a test waits for something that has to come. Far above what it takes, so that a slow
/// machine fails no test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running host. Dropped, it is killed; where the test has failed, its log is shown.
pub(crate) struct Host {
    directory: Arc<TempDir>,
    process: Child,
    log: PathBuf,
}

/// What a host is started with.
#[derive(Default)]
pub(crate) struct Builder {
    directory: Option<Arc<TempDir>>,
    /// The program, where it is not the one that was built.
    program: Option<PathBuf>,
    plugins: Vec<(String, Value)>,
    files: Vec<(String, Vec<u8>)>,
    flags: Vec<(String, String)>,
    /// Told where to listen as the gateway tells it.
    by_environment: bool,
    stdin: Option<Stdio>,
    stderr: Option<Stdio>,
    environment: Vec<(OsString, OsString)>,
    /// Permissions of its directory and its plugins; none: as they are made.
    directory_mode: Option<u32>,
    config: String,
}

impl Host {
    /// A host without plugins, until the builder is told of some.
    pub(crate) fn builder() -> Builder {
        Builder::default()
    }

    /// A host with a plugin as it is.
    pub(crate) fn with(plugin: &str) -> Self {
        Self::builder().plugin(plugin).start()
    }

    /// The directory that the host has to itself; its plugins are in `plugins`.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The process as the test started it.
    pub(crate) fn process(&mut self) -> &mut Child {
        &mut self.process
    }

    /// Number of the process that runs plugins and serves.
    pub(crate) fn worker(&self) -> u32 {
        wait_for("a worker serves", || {
            Overview::of(self.directory())?.serving()
        })
    }

    /// How it stands with the workers.
    pub(crate) fn overview(&self) -> Overview {
        wait_for("the host tells of its workers", || {
            Overview::of(self.directory())
        })
    }

    /// Has the worker replaced by another one, and waits until that serves.
    pub(crate) fn replace_worker(&self) {
        assert!(self.try_replace_worker(), "the worker was not replaced");
    }

    /// The same where there may be no worker to replace at the moment.
    pub(crate) fn try_replace_worker(&self) -> bool {
        workers::ask(self.directory(), "POST", "/v1/workers/replace")
            .is_ok_and(|(status, _)| status == 200)
    }

    /// Sends the process a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Waits until the host has ended by itself.
    pub(crate) fn end(&mut self) -> ExitStatus {
        wait_for("the host ends", || self.process.try_wait().unwrap())
    }

    /// Tells the host to stop as the gateway does, and waits until it has.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.end()
    }

    /// Whether the host is there, and serves.
    pub(crate) fn serves(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none() && UnixStream::connect(self.socket()).is_ok()
    }

    /// A new connection of the gateway's.
    pub(crate) fn gateway(&self) -> Gateway {
        Gateway::connect(&self.socket())
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        socket_in(self.directory.path())
    }

    /// Its plugin directory.
    pub(crate) fn plugins(&self) -> PathBuf {
        self.directory.path().join("plugins")
    }

    /// Gives its directory, and all of its plugins, these permissions.
    pub(crate) fn set_mode(&self, mode: u32) {
        set_mode(self.directory(), mode);
    }

    /// Runs a command of the same program against this host, with `--listen` and `--runtime-dir`
    /// added; gives its exit code, standard output and standard error.
    pub(crate) fn ask(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_plugin-host"))
            .args(arguments)
            .arg("--listen")
            .arg(self.socket())
            .arg("--runtime-dir")
            .arg(self.directory.path())
            .output()
            .unwrap();
        (
            output.status.code().unwrap_or(-1),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    /// The number of its own process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Process numbers of its workers, oldest first.
    pub(crate) fn workers(&self) -> Vec<u32> {
        let id = self.process.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let children = children.unwrap_or_default();
        children
            .split_whitespace()
            .filter_map(|child| child.parse().ok())
            .collect()
    }

    /// Sends a signal to the newest of its workers; gives that worker's number.
    pub(crate) fn signal_worker(&self, signal: Signal) -> u32 {
        let worker = *self.workers().last().expect("the host has a worker");
        send(worker, signal);
        worker
    }

    /// Stops its workers where they stand, until [`Host::resume`].
    pub(crate) fn pause(&self) {
        for worker in self.workers() {
            send(worker, Signal::STOP);
            // The signal works when it works; from then on the process counts as stopped.
            let stat = format!("/proc/{worker}/stat");
            wait_for("the worker stands still", || {
                let stat = fs::read_to_string(&stat).unwrap();
                stat.contains(") T ").then_some(())
            });
        }
    }

    /// Lets its workers go on.
    pub(crate) fn resume(&self) {
        for worker in self.workers() {
            send(worker, Signal::CONT);
        }
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits for a line of the log that has all of these in it.
    pub(crate) fn log_line(&self, parts: &[&str]) -> String {
        let has_all = |line: &&str| parts.iter().all(|part| line.contains(part));
        wait_for(&format!("a line of the log with {parts:?}"), || {
            self.log().lines().find(has_all).map(str::to_owned)
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let workers = self.workers();
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
        // They end with it, a moment later; until then they would accept what a next host is meant
        // to get.
        for worker in workers {
            wait_for("the workers end with their host", || {
                (!is_alive(worker)).then_some(())
            });
        }
        if thread::panicking() {
            eprintln!("--- log of the host ---\n{}--- end ---", self.log());
        }
    }
}

/// Sends a signal to any process.
pub(crate) fn send(process: u32, signal: Signal) {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw);
    rustix::process::kill_process(process.expect("a process has a number"), signal).unwrap();
}

/// Whether a process runs; one that has ended and was not waited for does not.
pub(crate) fn is_alive(process: u32) -> bool {
    // Of a process that is being killed the first thread may have ended before the others, which
    // hold its descriptors until then.
    let threads = fs::read_dir(format!("/proc/{process}/task"));
    let mut threads = threads.into_iter().flatten().flatten();
    threads.any(|thread| {
        fs::read_to_string(thread.path().join("stat"))
            .is_ok_and(|stat| !stat.contains(") Z ") && !stat.contains(") X "))
    })
}

impl Builder {
    /// Adds a plugin: its own `plugin.json`, and its library as cargo builds it.
    pub(crate) fn plugin(self, name: &str) -> Self {
        self.plugin_json(name, Value::Null)
    }

    /// Adds a plugin whose `plugin.json` has these fields beside, or in place of, its own.
    pub(crate) fn plugin_json(mut self, name: &str, fields: Value) -> Self {
        self.plugins.push((name.to_owned(), fields));
        self
    }

    /// Runs a copy of the program.
    pub(crate) fn program(mut self, copy: &Path) -> Self {
        self.program = Some(copy.to_owned());
        self
    }

    /// Adds a flag with its value.
    pub(crate) fn flag(mut self, flag: &str, value: &str) -> Self {
        self.flags.push((flag.to_owned(), value.to_owned()));
        self
    }

    /// Gives the host a configuration file.
    pub(crate) fn config(mut self, toml: &str) -> Self {
        self.config.push_str(toml);
        self
    }

    /// Adds an environment variable; the host has no others but `PATH`, as under the gateway.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Tells the host where to listen in the way of the gateway, and by no flag.
    pub(crate) fn by_environment(mut self) -> Self {
        self.by_environment = true;
        self
    }

    /// Gives the host a standard input; otherwise it has an empty one.
    pub(crate) fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.stdin = Some(stdin.into());
        self
    }

    /// Gives the host a standard error; otherwise [`Host::log`] has it.
    pub(crate) fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.stderr = Some(stderr.into());
        self
    }

    /// Puts a file below the directory of plugins, beside or over those that were added.
    pub(crate) fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((path.to_owned(), content.into()));
        self
    }

    /// Gives the host's directory and its plugins these permissions before it starts.
    pub(crate) fn directory_mode(mut self, mode: u32) -> Self {
        self.directory_mode = Some(mode);
        self
    }

    /// Starts in the directory, and so on the socket, of another host.
    pub(crate) fn beside(mut self, other: &Host) -> Self {
        self.directory = Some(Arc::clone(&other.directory));
        self
    }

    /// Starts the host and waits until it accepts connections.
    pub(crate) fn start(self) -> Host {
        let mut host = self.spawn();
        wait_for("the host accepts connections", || {
            if let Some(status) = host.process.try_wait().unwrap() {
                panic!("the host has ended with {status}");
            }
            UnixStream::connect(host.socket()).ok()
        });
        host
    }

    /// Starts the host and does not wait.
    pub(crate) fn spawn(mut self) -> Host {
        let directory = self.directory.clone().unwrap_or_else(|| {
            // Short: the path of a socket has at most 107 bytes.
            Arc::new(
                tempfile::Builder::new()
                    .prefix("ph")
                    .tempdir_in("/tmp")
                    .unwrap(),
            )
        });
        for (name, fields) in &self.plugins {
            install(&directory.path().join("plugins"), name, fields);
        }
        let number = fs::read_dir(directory.path())
            .unwrap()
            .filter(|entry| {
                let name = entry.as_ref().unwrap().file_name();
                name.to_string_lossy().starts_with("log")
            })
            .count();
        let log = directory.path().join(format!("log{number}"));
        for (path, content) in &self.files {
            let path = directory.path().join("plugins").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        if let Some(mode) = self.directory_mode {
            fs::create_dir_all(directory.path().join("plugins")).unwrap();
            set_mode(directory.path(), mode);
        }
        Host {
            process: self.command(directory.path(), &log).spawn().unwrap(),
            directory,
            log,
        }
    }

    fn command(&mut self, directory: &Path, log: &Path) -> Command {
        let built = Path::new(env!("CARGO_BIN_EXE_plugin-host"));
        let mut command = Command::new(self.program.as_deref().unwrap_or(built));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(self.environment.iter().cloned())
            .stdin(self.stdin.take().unwrap_or_else(Stdio::null))
            .stdout(Stdio::null())
            .arg("run");
        let log = File::create(log).unwrap();
        command.stderr(self.stderr.take().unwrap_or_else(|| log.into()));
        let plugins = directory.join("plugins");
        fs::create_dir_all(&plugins).unwrap();
        let socket = socket_in(directory);
        if self.by_environment {
            let address = format!("unix:{}", socket.display());
            command.env("APISIX_LISTEN_ADDRESS", address);
        }
        for (flag, value) in [
            ("--listen", socket.to_str().unwrap()),
            ("--plugin-dir", plugins.to_str().unwrap()),
            ("--runtime-dir", directory.to_str().unwrap()),
            ("--log", "debug"),
        ] {
            let told = flag == "--listen" && self.by_environment;
            if !told && self.flags.iter().all(|(own, _)| own != flag) {
                command.arg(format!("{flag}={value}"));
            }
        }
        for (flag, value) in &self.flags {
            command.arg(format!("{flag}={value}"));
        }
        if !self.config.is_empty() {
            let file = directory.join("host.toml");
            fs::write(&file, &self.config).unwrap();
            command.arg("--config").arg(file);
        }
        command
    }
}

/// The directory itself, and everything in and below that of its plugins.
fn set_mode(directory: &Path, mode: u32) {
    let set = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    set(directory);
    let mut left = vec![directory.join("plugins")];
    while let Some(path) = left.pop() {
        set(&path);
        if path.is_dir() {
            left.extend(
                fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
    }
}

fn socket_in(directory: &Path) -> PathBuf {
    directory.join("s")
}

/// Makes a plugin's directory: `plugins/say/plugin.json` and `plugins/say/libsay.so`.
pub(super) fn install(plugins: &Path, name: &str, fields: &Value) {
    install_with(plugins, name, fields, |_| {});
}

/// The same with a change of the library's bytes.
pub(crate) fn install_with(
    plugins: &Path,
    name: &str,
    fields: &Value,
    change: impl FnOnce(&mut [u8]),
) {
    let built = built_plugin(name);
    let directory = plugins.join(name);
    fs::create_dir_all(&directory).unwrap();
    // A copy: tests may overwrite it, and the next one wants what was built.
    let mut library = fs::read(&built.library).unwrap();
    change(&mut library);
    let copy = directory.join(built.library.file_name().unwrap());
    fs::write(copy, library).unwrap();
    let mut metadata: Value = serde_json::from_slice(&fs::read(&built.metadata).unwrap()).unwrap();
    if let Value::Object(fields) = fields {
        metadata.as_object_mut().unwrap().extend(fields.clone());
    }
    fs::write(directory.join("plugin.json"), metadata.to_string()).unwrap();
}

/// Looks again and again until there is something, and fails the test where nothing comes.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
