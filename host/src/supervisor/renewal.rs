//! The host becomes its next release without the gateway noticing: the program of the supervisor is
//! replaced in place, then the worker, by a hand-over.
//!
//! The new program is asked first whether it can: a release that cannot take over, or does not
//! understand the configuration, changes nothing. `docs/reliability.md` tells what that promises.

use std::{
    ffi::OsString,
    io,
    os::fd::AsFd,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use utoipa::ToSchema;

use super::{
    Host, Phase, Supervisor, Worker,
    child::{Child, FromWorker, Parts},
    estate::{self, ESTATE, Estate, Written, WrittenWorker},
    millis,
};
use crate::{
    link::{PROTOCOL, ToWorker},
    listen::services::ServicesListener,
    runtime_dir::RuntimeDir,
    shared_memory::connections::ConnectionSlots,
};

/// The hidden command that tells what a program can take over.
pub const COMMAND: &str = "heir";

/// Time until the program is replaced, in which the answer to whoever asked for it gets out.
const ANSWER_TIME: Duration = Duration::from_millis(50);

/// What a program can take over.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Heir {
    /// Its release.
    pub release: String,
    /// The version of an estate that it takes.
    pub estate: u32,
    /// The version of the messages that it exchanges with workers.
    pub link: u32,
}

impl Heir {
    /// This program.
    pub fn this() -> Self {
        Self {
            release: env!("CARGO_PKG_VERSION").to_owned(),
            estate: ESTATE,
            link: PROTOCOL,
        }
    }
}

/// Asks the program that is at `program` now whether it can take over from this one.
///
/// # Errors
/// It cannot, and why, with the next step.
pub fn examine(program: &Path, arguments: &[OsString]) -> Result<Heir, String> {
    let shown = program.display();
    let ask = |command: &mut Command| {
        command
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("{shown} cannot be run: {error}"))
    };
    let answer = ask(Command::new(program).arg(COMMAND))?;
    let heir: Heir = serde_json::from_slice(&answer.stdout).map_err(|_| {
        format!("{shown} is no release that can take over from this one: start the host anew")
    })?;
    if heir.estate != ESTATE || heir.link.abs_diff(PROTOCOL) > 1 {
        return Err(format!(
            "{shown} is release {}, which is too far from this one ({}) to take over: start the \
             host anew",
            heir.release,
            env!("CARGO_PKG_VERSION")
        ));
    }
    let checked = ask(Command::new(program)
        .arg("run")
        .args(arguments)
        .arg("--check-config"))?;
    // 1 is a plugin without its settings: the host runs.
    if !matches!(checked.status.code(), Some(0 | 1)) {
        return Err(format!(
            "release {} does not take the configuration: {}",
            heir.release,
            String::from_utf8_lossy(&checked.stderr).trim()
        ));
    }
    Ok(heir)
}

impl Supervisor {
    /// Takes the time for the next program, if it is a good one.
    pub(super) fn begin_to_renew(&mut self) -> Result<(), String> {
        if self.standby.is_some() {
            self.discard_spares();
        } else if !self.has_its_worker() {
            return Err("a worker is being replaced: ask again in a moment".to_owned());
        }
        self.renewing = Some(Instant::now() + ANSWER_TIME);
        Ok(())
    }

    /// Whether one worker serves, and nothing is under way.
    fn is_settled(&self) -> bool {
        self.has_its_worker() && self.workers.len() == 1
    }

    /// Whether a worker serves that stays. One before it may still be ending its last calls.
    fn has_its_worker(&self) -> bool {
        self.stopping.is_none()
            && self.successor.is_none()
            && self.waiting.is_empty()
            && self.serving.is_some()
    }

    /// Becomes the next program. Returns where that failed, or has to wait.
    pub(super) fn renew(&mut self) {
        let is_told = self.workers.values().all(|worker| worker.child.is_told());
        if !self.is_settled() || !is_told {
            self.renewing = Some(Instant::now() + ANSWER_TIME);
            return;
        }
        self.renewing = None;
        tracing::info!(program = %self.program.display(), "becoming the next release");
        self.hooks.take_leave();
        let error = match self.leave() {
            Ok(never) => match never {},
            Err(error) => error,
        };
        tracing::error!(%error, program = %self.program.display(), "still this release");
    }

    fn leave(&self) -> io::Result<std::convert::Infallible> {
        let workers = self.workers.iter();
        let connections = self.connections.all();
        let mut counts = self.counts.clone();
        counts.renewals += 1;
        let written = Written {
            estate: ESTATE,
            directories: (
                self.runtime_dir.shared().to_owned(),
                self.runtime_dir.private().to_owned(),
            ),
            workers: workers
                .clone()
                .map(|(number, worker)| WrittenWorker {
                    worker: *number,
                    pid: worker.child.pid.as_raw_nonzero().get(),
                    private_dir: worker.private_dir.clone(),
                    version: worker.version.clone(),
                    generations: worker.generations.clone(),
                    mappings: worker.mappings.clone(),
                    lived_millis: millis(worker.child.started.elapsed()),
                    condition: worker.condition.clone(),
                })
                .collect(),
            last_worker: self.last_worker,
            serving: self.serving,
            journals: self.journals.iter().map(|(of, _)| *of).collect(),
            connections: connections
                .iter()
                .map(|(passed, owner, _)| (*passed, *owner))
                .collect(),
            counts,
            quarantined: self.quarantine.list().to_vec(),
            services: self
                .services
                .as_ref()
                .map(|services| services.address().to_owned()),
            wanted_levels: self.wanted_levels.clone(),
        };
        let mut descriptors = vec![
            self.binding.inode(),
            self.runtime_dir.owner(),
            self.listener.as_fd(),
            self.connections.slots().file(),
        ];
        descriptors.extend(workers.flat_map(|(_, worker)| worker.child.descriptors()));
        descriptors.extend(self.journals.iter().map(|(_, journal)| journal.as_fd()));
        descriptors.extend(connections.iter().map(|(_, _, socket)| socket.as_fd()));
        descriptors.extend(self.services.iter().flat_map(ServicesListener::descriptors));
        Err(estate::leave_to(
            &self.program,
            &self.arguments,
            &written,
            &descriptors,
        ))
    }

    /// Goes on where the release before stopped, and has its worker replaced.
    pub(super) fn resume(
        host: Host,
        mut estate: Estate,
        events: mpsc::Sender<(u32, FromWorker)>,
    ) -> io::Result<Self> {
        let slots = ConnectionSlots::open(estate.take()?)?;
        let mut supervisor = Self::with(host, slots, events).map_err(io::Error::other)?;
        for written in std::mem::take(&mut estate.written.workers) {
            let parts = Parts {
                pid: Pid::from_raw(written.pid).ok_or(io::ErrorKind::InvalidData)?,
                started: started(written.lived_millis),
                link: estate.take()?,
                lines: estate.take()?,
                threads: estate.take()?,
            };
            let log = Box::new(supervisor.log.clone());
            let child = Child::of(written.worker, parts, log, supervisor.events.clone())?;
            let mut worker = Worker::new(child, Phase::Ready, written.private_dir);
            worker.version = written.version;
            worker.generations = written.generations;
            worker.mappings = written.mappings;
            worker.condition = written.condition;
            supervisor.workers.insert(written.worker, worker);
        }
        for of in std::mem::take(&mut estate.written.journals) {
            supervisor.journals.push((of, estate.take()?.into()));
        }
        for (passed, owner) in std::mem::take(&mut estate.written.connections) {
            let socket = estate.take()?;
            supervisor.connections.register(passed, owner, socket);
        }
        if supervisor.services.is_none() {
            supervisor.services = adopt_services(&mut estate, &supervisor.runtime_dir)?;
        }
        supervisor.last_worker = estate.written.last_worker;
        supervisor.counts = estate.written.counts;
        supervisor.quarantine.inherit(estate.written.quarantined);
        if let Some(wanted) = estate.written.wanted_levels.take() {
            // Another release may not understand it; the log goes on as configured.
            let _ = supervisor.want_levels(wanted);
        }
        if let Some(serving) = estate.written.serving {
            supervisor.put_in_service(serving);
        }
        tracing::info!(
            release = env!("CARGO_PKG_VERSION"),
            connections = supervisor.connections.len(),
            "this release has taken over from the one before"
        );
        supervisor.tell_serving(ToWorker::Rescan);
        supervisor.replace(None);
        Ok(supervisor)
    }
}

/// The socket of HTTP services that the release before has bound, which goes where it is wanted no more.
fn adopt_services(
    estate: &mut Estate,
    runtime_dir: &RuntimeDir,
) -> io::Result<Option<ServicesListener>> {
    let Some(address) = estate.written.services.take() else {
        return Ok(None);
    };
    let socket = estate.take()?;
    let inode = estate.take().ok();
    let lock = runtime_dir.address_lock().map_err(io::Error::other)?;
    Ok(Some(ServicesListener::adopt(address, socket, inode, lock)))
}

fn started(lived_millis: u64) -> Instant {
    let now = Instant::now();
    now.checked_sub(Duration::from_millis(lived_millis))
        .unwrap_or(now)
}
