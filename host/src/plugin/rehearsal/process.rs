//! The process in which a plugin is tried, seen from outside: started, fed, watched, ended.

use std::io::{self, BufReader, PipeReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use serde_json::Value;

use super::task::{self, Report, Stage, Task};
use super::{COMMAND, MAX_OUTPUT_BYTES, Rehearsal, RehearsalError, Rehearsed};

/// How often it is looked whether a process that has said its last has ended.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(2);

/// How long the end of a dead process's output is waited for. Only a process that the plugin left
/// behind, in a group of its own, can still hold it.
const OUTPUT_PATIENCE: Duration = Duration::from_millis(200);

pub(super) fn run(rehearsal: &Rehearsal<'_>) -> Rehearsed {
    let began = Instant::now();
    let (result, config_schema, output) = match start(rehearsal) {
        Ok((mut process, output)) => {
            let result = process.watch(rehearsal, began + rehearsal.time);
            process.end();
            (result, process.config_schema, output.collect())
        }
        Err(error) => (Err(RehearsalError::NotTried(error)), None, String::new()),
    };
    Rehearsed {
        result,
        config_schema,
        took: began.elapsed(),
        output,
    }
}

fn start(rehearsal: &Rehearsal<'_>) -> io::Result<(Process, Output)> {
    // Task and reports travel on one socket, which is the process's standard input: nothing but
    // its three standard descriptors has to be inherited.
    let (ours, theirs) = UnixStream::pair()?;
    let (reader, writer) = io::pipe()?;
    let child = Command::new(rehearsal.program)
        .arg(COMMAND)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(writer.try_clone()?)
        .stderr(writer)
        // What the plugin starts ends with it.
        .process_group(0)
        .spawn()?;
    let output = Output::of(reader)?;
    Ok((
        Process {
            child,
            socket: ours,
            config_schema: None,
        },
        output,
    ))
}

struct Process {
    child: Child,
    socket: UnixStream,
    config_schema: Option<Value>,
}

impl Process {
    /// Feeds the process, and follows it until it is done, dead, or out of time.
    fn watch(
        &mut self,
        rehearsal: &Rehearsal<'_>,
        deadline: Instant,
    ) -> Result<(), RehearsalError> {
        let mut stage = Stage::Start;
        let followed = self
            .feed(rehearsal, deadline)
            .and_then(|()| self.follow(&mut stage, deadline));
        match followed {
            Ok(Some(Report::Done)) => return Ok(()),
            Ok(Some(Report::Refused(reason))) => {
                return Err(RehearsalError::Refused { stage, reason });
            }
            // Nothing more comes, for whatever reason: how the process ends will tell.
            Ok(_) | Err(_) => {}
        }
        match self.status_until(deadline) {
            Some(Ended::Signal(signal)) => Err(RehearsalError::Crashed { stage, signal }),
            Some(Ended::Code(code)) => Err(RehearsalError::Exited { stage, code }),
            None => Err(RehearsalError::Hung {
                stage,
                after: rehearsal.time,
            }),
        }
    }

    fn feed(&mut self, rehearsal: &Rehearsal<'_>, deadline: Instant) -> io::Result<()> {
        let task = Task {
            parent: rustix::process::getpid().as_raw_nonzero().get(),
            plugin: rehearsal.plugin.to_string(),
            version: rehearsal.version.to_string(),
            own_schema: rehearsal.own_schema,
            extent: rehearsal.extent,
            settings: rehearsal.settings.clone(),
            http_client: rehearsal.http_client.clone(),
            library_bytes: rehearsal.library.len() as u64,
            configuration_bytes: rehearsal
                .configurations
                .iter()
                .map(|configuration| configuration.len() as u64)
                .collect(),
        };
        self.socket.set_write_timeout(Some(left(deadline)?))?;
        task::write(&self.socket, &task)?;
        self.socket.write_all(rehearsal.library)?;
        for configuration in rehearsal.configurations {
            self.socket.write_all(configuration)?;
        }
        Ok(())
    }

    /// Reads reports until the last.
    fn follow(&mut self, stage: &mut Stage, deadline: Instant) -> io::Result<Option<Report>> {
        let mut reports = BufReader::new(&self.socket);
        loop {
            self.socket.set_read_timeout(Some(left(deadline)?))?;
            match task::read(&mut reports)? {
                Some(Report::Begins(begun)) => *stage = begun,
                Some(Report::Schema(schema)) => self.config_schema = Some(schema),
                last => return Ok(last),
            }
        }
    }

    fn status_until(&self, deadline: Instant) -> Option<Ended> {
        // Without reaping: until then its number, which is that of its group, is nobody else's.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        loop {
            let status = rustix::process::waitid(WaitId::Pid(self.pid()), options);
            match status {
                Ok(Some(status)) => {
                    return Some(match status.exit_status() {
                        Some(code) => Ended::Code(code),
                        None => Ended::Signal(status.terminating_signal().unwrap_or(0)),
                    });
                }
                Ok(None) | Err(rustix::io::Errno::INTR) if Instant::now() < deadline => {
                    thread::sleep(LOOK_AGAIN_AFTER);
                }
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// Ends the process with all that it has started.
    fn end(&mut self) {
        let _ = rustix::process::kill_process_group(self.pid(), Signal::KILL);
        // Killed as it is, this does not wait for long; and there is nothing to do where it fails.
        let _: io::Result<ExitStatus> = self.child.wait();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

enum Ended {
    Code(i32),
    Signal(i32),
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}

/// What a process prints, read by a thread so that nobody has to wait for its end.
struct Output {
    kept: Arc<Mutex<Vec<u8>>>,
    ended: mpsc::Receiver<()>,
}

impl Output {
    fn of(mut pipe: PipeReader) -> io::Result<Self> {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let (say, ended) = mpsc::channel();
        let into = Arc::clone(&kept);
        thread::Builder::new()
            .name("rehearsal-output".to_owned())
            .spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = pipe.read(&mut buffer) {
                    let mut kept = into.lock();
                    let room = MAX_OUTPUT_BYTES - kept.len();
                    kept.extend_from_slice(&buffer[..read.min(room)]);
                }
                let _ = say.send(());
            })?;
        Ok(Self { kept, ended })
    }

    fn collect(self) -> String {
        let _ = self.ended.recv_timeout(OUTPUT_PATIENCE);
        String::from_utf8_lossy(&self.kept.lock()).into_owned()
    }
}
