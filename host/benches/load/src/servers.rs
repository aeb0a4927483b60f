//! What is measured: servers in processes of their own, started for a measurement and killed after it.

use std::{
    collections::HashMap,
    fs::{self, File},
    os::unix::{net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal};
use serde_json::json;
use tempfile::TempDir;

use crate::{floor::Model, processes::Tree};

/// How long a server may take until it accepts connections.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that listens.
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) socket: PathBuf,
    pub(crate) tree: Tree,
    /// None where somebody else has started it.
    process: Option<Child>,
    /// Its sockets, logs and plugins.
    directory: Option<TempDir>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // The whole group: a command line may have started more than one process.
            let group = Pid::from_child(process);
            let _ = rustix::process::kill_process_group(group, Signal::TERM);
            let end = Instant::now() + Duration::from_secs(3);
            while matches!(process.try_wait(), Ok(None)) && Instant::now() < end {
                thread::sleep(Duration::from_millis(10));
            }
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
            let _ = process.wait();
        }
    }
}

impl Server {
    /// A server that runs already.
    pub(crate) fn running(name: &str, socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("nobody listens on {}", socket.display()))?;
        let owner = rustix::net::sockopt::socket_peercred(&stream)?;
        Ok(Self {
            name: name.to_owned(),
            socket: socket.to_owned(),
            tree: Tree::of(u32::try_from(owner.pid.as_raw_nonzero().get())?),
            process: None,
            directory: None,
        })
    }

    /// A runner, started as the gateway does, by a command line.
    pub(crate) fn command(name: &str, command_line: &str) -> Result<Self> {
        let directory = directory()?;
        let mut command = Command::new("sh");
        command.arg("-c").arg(command_line);
        Self::start(name, command, directory)
    }

    /// An echo server.
    pub(crate) fn floor(name: &str, model: Model, answer_bytes: usize, ask: bool) -> Result<Self> {
        let directory = directory()?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["floor", model.word()])
            .arg(directory.path().join("s"));
        command.arg(format!("--answer-bytes={answer_bytes}"));
        if ask {
            command.arg("--ask");
        }
        Self::start(name, command, directory)
    }

    /// The host of this project, with plugins of this project.
    pub(crate) fn host(
        name: &str,
        built: &Built,
        plugins: &[PluginCopy],
        flags: &[String],
    ) -> Result<Self> {
        Staged::host(built, plugins, flags)?.start(name)
    }

    fn start(name: &str, mut command: Command, directory: TempDir) -> Result<Self> {
        let socket = directory.path().join("s");
        let log = directory.path().join("log");
        command
            .env(
                "APISIX_LISTEN_ADDRESS",
                format!("unix:{}", socket.display()),
            )
            .env("APISIX_CONF_EXPIRE_TIME", "3600")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .process_group(0);
        let process = command
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let mut server = Self {
            name: name.to_owned(),
            tree: Tree::of(process.id()),
            socket,
            process: Some(process),
            directory: Some(directory),
        };
        server.wait_until_it_listens().with_context(|| {
            let log = fs::read_to_string(&log).unwrap_or_default();
            format!("{name} does not serve:\n{log}")
        })?;
        Ok(server)
    }

    fn wait_until_it_listens(&mut self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while UnixStream::connect(&self.socket).is_err() {
            if let Some(process) = &mut self.process
                && let Some(status) = process.try_wait()?
            {
                bail!("it has ended with {status}");
            }
            ensure!(Instant::now() < end, "it does not listen");
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// The directory of a server that was started here.
    pub(crate) fn directory(&self) -> Option<&Path> {
        self.directory.as_ref().map(TempDir::path)
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        let log = self.directory().map(|directory| directory.join("log"));
        log.and_then(|log| fs::read_to_string(log).ok())
            .unwrap_or_default()
    }
}

/// A server whose files are there, and that is yet to be started.
pub(crate) struct Staged {
    command: Command,
    directory: TempDir,
}

impl Staged {
    /// The host of this project, with plugins of this project.
    pub(crate) fn host(built: &Built, plugins: &[PluginCopy], flags: &[String]) -> Result<Self> {
        let directory = directory()?;
        PluginCopy::write_all(plugins, built, &directory.path().join("plugins"))?;
        let mut command = built.host_command();
        command
            .arg("run")
            .arg("--plugin-dir")
            .arg(directory.path().join("plugins"));
        command.arg("--runtime-dir").arg(directory.path());
        command.args(["--log", "warn"]).args(flags);
        Ok(Self { command, directory })
    }

    pub(crate) fn start(self, name: &str) -> Result<Server> {
        Server::start(name, self.command, self.directory)
    }
}

/// Short: the path of a socket has at most 107 bytes.
fn directory() -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("bench").tempdir()?)
}

/// Where cargo has put the host and the plugins.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    directory: PathBuf,
}

impl Built {
    /// Beside this program.
    pub(crate) fn beside_this_program() -> Result<Self> {
        let program = std::env::current_exe()?;
        let directory = program
            .parent()
            .context("a program is in a directory")?
            .to_owned();
        let built = Self { directory };
        for file in [
            "plugin-host",
            "libprobe_000.so",
            "libsay.so",
            "librequest_body_rewrite.so",
            "liboutgoing.so",
            "libredis_session.so",
            "libtokio_user.so",
        ] {
            ensure!(
                built.directory.join(file).exists(),
                "{file} is not built: start this with scripts/bench"
            );
        }
        Ok(built)
    }

    pub(crate) fn host_command(&self) -> Command {
        Command::new(self.directory.join("plugin-host"))
    }

    /// A library without what only a debugger reads, where there is a program to remove it.
    fn library(&self, name: &str) -> Result<Vec<u8>> {
        let path = self
            .directory
            .join(format!("lib{}.so", name.replace('-', "_")));
        let stripped = tempfile::NamedTempFile::new()?;
        let done = Command::new("strip")
            .arg("-o")
            .arg(stripped.path())
            .arg(&path)
            .status();
        let read = if done.is_ok_and(|status| status.success()) {
            stripped.path()
        } else {
            &path
        };
        Ok(fs::read(read)?)
    }
}

/// A plugin made of a built one, under its own or another name.
#[derive(Debug, Clone)]
pub(crate) struct PluginCopy {
    built: &'static str,
    name: String,
    version: String,
}

impl PluginCopy {
    pub(crate) fn of(built: &'static str) -> Self {
        Self {
            built,
            name: built.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// One of a thousand of the same kind.
    pub(crate) fn probe(number: usize) -> Self {
        Self {
            name: format!("probe-{number:03}"),
            ..Self::of("probe-000")
        }
    }

    /// In another version, whose text is as long.
    pub(crate) fn version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.version);
        self
    }

    /// Writes the files of plugins, each into the directory of its name; a library is read once.
    pub(crate) fn write_all(copies: &[Self], built: &Built, plugins: &Path) -> Result<()> {
        let mut libraries = HashMap::new();
        for copy in copies {
            if !libraries.contains_key(copy.built) {
                libraries.insert(copy.built, built.library(copy.built)?);
            }
            copy.write_with(libraries[copy.built].clone(), plugins)?;
        }
        Ok(())
    }

    fn write_with(&self, mut library: Vec<u8>, plugins: &Path) -> Result<()> {
        let own = env!("CARGO_PKG_VERSION");
        replace(
            &mut library,
            &format!("\0name={}\0", self.built),
            &format!("\0name={}\0", self.name),
        )?;
        replace(
            &mut library,
            &format!("\0version={own}\0"),
            &format!("\0version={}\0", self.version),
        )?;
        let directory = plugins.join(&self.name);
        fs::create_dir_all(&directory)?;
        let metadata = json!({
            "name": self.name,
            "version": self.version,
            "source": { "mode": "local_so", "path": "libplugin.so" },
        });
        fs::write(directory.join("libplugin.so"), library)?;
        fs::write(directory.join("plugin.json"), metadata.to_string())?;
        Ok(())
    }
}

/// Replaces a text in a library by one of the same length.
fn replace(bytes: &mut [u8], from: &str, to: &str) -> Result<()> {
    ensure!(from.len() == to.len(), "{to:?} is not as long as {from:?}");
    let mut found = false;
    let mut at = 0;
    while let Some(offset) = find(&bytes[at..], from.as_bytes()) {
        at += offset;
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        at += to.len();
        found = true;
    }
    ensure!(found, "{from:?} is not in the library");
    Ok(())
}

fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    let first = *text.first()?;
    let mut at = 0;
    while let Some(offset) = bytes[at..].iter().position(|byte| *byte == first) {
        at += offset;
        if bytes[at..].starts_with(text) {
            return Some(at);
        }
        at += 1;
    }
    None
}
