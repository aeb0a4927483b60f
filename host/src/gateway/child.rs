//! The host as the gateway's child: started, started again, stopped.
//!
//! With the environment, the pipes, the pauses and the signals of the real gateway, so that a host
//! meets here what it will meet there. This module never looks at what the host does.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, Signal};

/// Time between the end of a host and the start of the next.
const RESTART_PAUSE: Duration = Duration::from_secs(3);

/// Time between SIGTERM and SIGKILL.
const STOP_TIME: Duration = Duration::from_secs(1);

/// How often it is looked whether a host that has closed its output has ended.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// How a host is started.
#[derive(Debug, Clone)]
pub struct HostCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// The socket that it is to listen on.
    pub socket: PathBuf,
    /// What it is told as `APISIX_CONF_EXPIRE_TIME`, in seconds.
    pub expiry: u64,
    /// Variables that it gets beside the gateway's own: `PATH`, and what the operator lists.
    pub environment: Vec<(OsString, OsString)>,
}

/// A host that is kept running. Dropped, it is stopped.
#[derive(Debug)]
pub struct HostChild {
    shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The process, until it has been waited for: as long its number is nobody else's.
    process: Option<Child>,
    stopping: bool,
}

impl HostChild {
    /// Starts a host and keeps one running. `ended` is called whenever it has ended by itself.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(command: HostCommand, ended: impl Fn() + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let pipes = command.spawn(&shared)?;
        let keeper = thread::Builder::new()
            .name("host-keeper".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.keep(&command, pipes, ended)
            })?;
        Ok(Self {
            shared,
            keeper: Some(keeper),
        })
    }

    /// The process's number, while there is one.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.shared.state.lock().process.as_ref().map(Child::id)
    }
}

impl Drop for HostChild {
    fn drop(&mut self) {
        let deadline = Instant::now() + STOP_TIME;
        let mut state = self.shared.state.lock();
        state.stopping = true;
        self.shared.changed.notify_all();
        if let Some(process) = &state.process {
            // It may just have ended.
            let _ = rustix::process::kill_process(Pid::from_child(process), Signal::TERM);
        }
        while state.process.is_some() {
            if self
                .shared
                .changed
                .wait_until(&mut state, deadline)
                .timed_out()
            {
                break;
            }
        }
        if let Some(process) = &mut state.process {
            tracing::warn!("the host did not stop in time; killing it");
            let _ = process.kill();
        }
        drop(state);
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

/// Our ends of a host's standard streams. Its input is never written to: it ends with us.
struct Pipes {
    _stdin: Option<ChildStdin>,
    output: io::PipeReader,
}

impl HostCommand {
    fn spawn(&self, shared: &Shared) -> io::Result<Pipes> {
        let (output, writer) = io::pipe()?;
        let mut address = OsString::from("unix:");
        address.push(&self.socket);
        let mut state = shared.state.lock();
        let mut process = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment.iter().cloned())
            .env("APISIX_LISTEN_ADDRESS", address)
            .env("APISIX_CONF_EXPIRE_TIME", self.expiry.to_string())
            .env("NGINX_BPF_MAPS", "")
            .stdin(Stdio::piped())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            // A signal from the terminal is for the gateway, which then stops the host.
            .process_group(0)
            .spawn()?;
        let stdin = process.stdin.take();
        tracing::info!(pid = process.id(), "the host has been started");
        state.process = Some(process);
        Ok(Pipes {
            _stdin: stdin,
            output,
        })
    }
}

impl Shared {
    fn keep(&self, command: &HostCommand, mut pipes: Pipes, ended: impl Fn()) {
        loop {
            copy_to_stderr(&mut pipes.output);
            let status = self.wait();
            if self.state.lock().stopping {
                return;
            }
            ended();
            let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            tracing::warn!(
                "the host has ended ({status}): calls get 503 until it is started again, in {} s",
                RESTART_PAUSE.as_secs()
            );
            pipes = loop {
                let deadline = Instant::now() + RESTART_PAUSE;
                let mut state = self.state.lock();
                while !state.stopping {
                    if self.changed.wait_until(&mut state, deadline).timed_out() {
                        break;
                    }
                }
                if state.stopping {
                    return;
                }
                drop(state);
                match command.spawn(self) {
                    Ok(pipes) => break pipes,
                    Err(error) => tracing::error!("cannot start the host: {error}"),
                }
            };
        }
    }

    /// Waits for the process, whose output has ended already.
    fn wait(&self) -> io::Result<std::process::ExitStatus> {
        loop {
            let mut state = self.state.lock();
            let Some(process) = &mut state.process else {
                return Err(io::ErrorKind::NotFound.into());
            };
            if let Some(status) = process.try_wait()? {
                state.process = None;
                self.changed.notify_all();
                return Ok(status);
            }
            drop(state);
            thread::sleep(LOOK_AGAIN_AFTER);
        }
    }
}

/// Until the last process that holds the pipe has closed it. Where nobody reads our standard error
/// any more, the host must not notice.
fn copy_to_stderr(output: &mut io::PipeReader) {
    let mut buffer = [0; 4096];
    loop {
        match output.read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => {
                let _ = io::stderr().write_all(&buffer[..read]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
