//! The process that owns the gateway's socket and never runs a plugin: it starts workers, answers for
//! those that die, and lets one take over from another without a lost call.
//!
//! It holds a duplicate of every connection that has come to stay and sees, in shared memory, what
//! each is doing. So a worker's death costs only the calls that were inside it, and a planned
//! replacement costs nothing: connections change hands between two calls. The rules stand in
//! `docs/reliability.md`. Nothing here looks into a call, and nothing here loads code.

pub mod api;
mod child;
mod disabled;
pub mod estate;
mod hearing;
mod held;
mod hooks;
mod post_mortem;
mod processes;
mod readiness;
pub mod renewal;
mod requests;
mod service_manager;
mod succession;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::{self, Write},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::sleep,
};

use crate::{
    config::Config,
    control::access::Access,
    crash::{KilledFor, KnownGeneration, Mapping, Quarantine},
    link::{Condition, PROTOCOL, Start, ToWorker},
    listen::{Binding, services::ServicesListener},
    logging::{Levels, Lines, recent::Recent},
    plugin::log_levels::LogLevels,
    privileges::make_directory,
    runtime_dir::RuntimeDir,
    server::{Shutdown, handover::Passed},
    shared_memory::connections::{ConnectionSlots, State},
};
use child::{Child, FromWorker, Recipe};
use disabled::Disabled;
use estate::Estate;
use held::HeldConnections;
use hooks::Hooks;
use service_manager::Announcer;

pub use child::COMMAND;
pub use requests::{Overview, WorkerOverview};

use requests::Request;

/// Slots beyond twice the number of connections: during a hand-over two workers take some.
const SPARE_SLOTS: usize = 64;

/// Messages of workers that wait for the supervisor; beyond, workers wait.
const WAITING_EVENTS: usize = 1_024;

/// Requests of operators that wait.
const WAITING_REQUESTS: usize = 16;

/// Time that a worker may take to become ready to take over.
const START_TIME: Duration = Duration::from_secs(60);

/// Time beyond the longest call that a worker may take to hand everything over and end.
const LEAVE_TIME: Duration = Duration::from_secs(30);

/// What is left of the drain time to bury workers that did not end within it.
const BURIAL_TIME: Duration = Duration::from_millis(30);

/// How long a worker that wants to be replaced goes on where the one that was to take over has died.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// How often it is looked whether the moment is quiet, and whether somebody takes too long.
const TICK: Duration = Duration::from_millis(100);

/// The host cannot work: the machine's fault.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// Something that every host needs cannot be had.
    #[error("cannot make {what}: {error}")]
    Start {
        /// What.
        what: &'static str,
        /// Why not.
        error: io::Error,
    },
}

/// What a supervisor is made of.
#[derive(Debug)]
pub struct Host {
    /// The socket that the gateway connects to.
    pub listener: OwnedFd,
    /// Its file.
    pub binding: Arc<Binding>,
    /// The socket that clients of HTTP services connect to, where there are any.
    pub services: Option<ServicesListener>,
    /// Where this program's file is, and where that of the next release will be.
    pub program: PathBuf,
    /// The configuration in force.
    pub config: Arc<Config>,
    /// Everything that was typed after `plugin-host run`: workers get it too.
    pub arguments: Vec<OsString>,
    /// The directory of this host.
    pub runtime_dir: RuntimeDir,
    /// The log, for what workers write.
    pub log: Lines,
    /// What is logged.
    pub levels: Levels,
    /// The last lines of it.
    pub recent: Option<Recent>,
    /// Lets in who asks over the network, where somebody may.
    pub access: Option<Access>,
}

/// Serves until told to stop, and the last worker has ended; goes on with an estate where there is
/// one. To be called on the main thread: the
/// kernel ends workers together with the thread that started them.
///
/// # Errors
/// It could not start.
pub fn run(
    mut host: Host,
    estate: Option<Estate>,
    shutdown: watch::Receiver<Shutdown>,
    rescan: Arc<Notify>,
) -> Result<(), SupervisorError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed("a runtime"))?;
    runtime.block_on(async {
        let (events, from_workers) = mpsc::channel(WAITING_EVENTS);
        let (ask, requests) = mpsc::channel(WAITING_REQUESTS);
        let api = api::Parts {
            program: host.program.clone(),
            arguments: host.arguments.clone().into(),
            config: Arc::clone(&host.config),
            access: host.access.take().map(Arc::new),
            listeners: api::Listeners::default(),
            trials: api::Trials::default(),
            log: api::Log::new(host.recent.take()),
        };
        let supervisor = match estate {
            None => Supervisor::new(host, events)?,
            Some(estate) => Supervisor::resume(host, estate, events)
                .map_err(failed("what the release before has left useful"))?,
        };
        // Dropped at the end, which removes the socket if it is still ours.
        let _api = api::serve(
            &supervisor.runtime_dir,
            api::Api {
                supervisor: ask,
                serving: supervisor.serving_path.subscribe(),
                may_command: supervisor.may_command.subscribe(),
                reports: supervisor.runtime_dir.shared().join(post_mortem::REPORTS),
                parts: Arc::new(api),
            },
        );
        supervisor
            .supervise(from_workers, requests, shutdown, rescan)
            .await;
        Ok(())
    })
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> SupervisorError {
    move |error| SupervisorError::Start { what, error }
}

#[derive(Debug)]
struct Supervisor {
    config: Arc<Config>,
    program: PathBuf,
    binding: Arc<Binding>,
    arguments: Vec<OsString>,
    runtime_dir: RuntimeDir,
    config_file: Option<(PathBuf, PathBuf)>,
    listener: Arc<OwnedFd>,
    services: Option<ServicesListener>,
    log: Lines,
    events: mpsc::Sender<(u32, FromWorker)>,
    connections: HeldConnections,
    workers: BTreeMap<u32, Worker>,
    /// Token journals, each with its worker, which may be dead: whoever serves has not read all of
    /// those yet.
    journals: Vec<(u32, Arc<OwnedFd>)>,
    last_worker: u32,
    /// The worker that accepts connections.
    serving: Option<u32>,
    /// Where its control socket is.
    serving_path: watch::Sender<Option<PathBuf>>,
    /// The worker that takes over when it is ready.
    successor: Option<Successor>,
    /// A worker that is ready to serve should the one that does die.
    standby: Option<u32>,
    /// Whether operators may ask something of the worker that serves.
    may_command: watch::Sender<bool>,
    /// Connections without a worker.
    waiting: Vec<Given>,
    /// Clients of HTTP services without a worker, each with what has been read of its next request.
    waiting_clients: Vec<(Arc<OwnedFd>, Vec<u8>)>,
    /// When a worker that was to take over has died: the next one waits.
    successor_died: Option<Instant>,
    /// Workers in a row that died young.
    young_deaths: u32,
    /// When the next worker may be started, where that has to wait.
    start_at: Option<Instant>,
    /// Until when the workers may end by themselves, once the host was told to stop.
    stopping: Option<Instant>,
    /// Whether the workers that did not were ended.
    ended: bool,
    /// When the program of the next release takes over.
    renewing: Option<Instant>,
    counts: Counts,
    /// Builds of plugins that have ended too many workers.
    quarantine: Quarantine,
    /// Plugins that operators have taken out of service.
    disabled: Disabled,
    /// What is logged.
    levels: Levels,
    /// What operators want to have logged, where that is not what is configured.
    wanted_levels: Option<LogLevels>,
    /// Tells operators' hooks.
    hooks: Hooks,
    /// Tells the service manager, where one has started the host.
    announcer: Option<Announcer>,
    /// Reports of deaths that are being written.
    reports: Vec<JoinHandle<()>>,
}

/// What has happened so far.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Counts {
    crashes: u64,
    replacements: u64,
    renewals: u64,
    calls_lost: u64,
    connections_cut: u64,
    /// Of the crashes, those that the supervisor brought about because a loop was stuck.
    #[serde(default)]
    stuck_loops: u64,
}

#[derive(Debug)]
struct Worker {
    child: Child,
    phase: Phase,
    /// Whether it has said that it could take over.
    is_ready: bool,
    private_dir: PathBuf,
    /// Its release, once it has said it.
    version: Option<String>,
    /// What it has loaded, or tried to.
    generations: Vec<KnownGeneration>,
    /// The code that it has mapped.
    mappings: Vec<Mapping>,
    /// Why it was killed, if it was.
    killed_for: Option<KilledFor>,
    /// Since when it wants to be replaced.
    wish: Option<Instant>,
    /// How it stands with it, once it has said so.
    condition: Condition,
}

impl Worker {
    fn new(child: Child, phase: Phase, private_dir: PathBuf) -> Self {
        Self {
            child,
            phase,
            is_ready: false,
            private_dir,
            version: None,
            generations: Vec::new(),
            mappings: Vec::new(),
            killed_for: None,
            wish: None,
            condition: Condition::default(),
        }
    }

    fn kill(&mut self, reason: KilledFor) {
        self.killed_for = Some(reason);
        self.child.kill();
    }
}

/// What a worker is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not ready to take over.
    Starting,
    /// Ready to take over.
    Ready,
    /// It accepts connections.
    Serving,
    /// It hands its connections over, since then.
    Leaving(Instant),
    /// It was told to end.
    Stopping,
}

#[derive(Debug)]
struct Successor {
    worker: u32,
    since: Instant,
    /// Those who wait to hear what became of it.
    asked_by: Vec<oneshot::Sender<Result<(), String>>>,
}

/// A connection on its way to a worker.
#[derive(Debug)]
struct Given {
    passed: Passed,
    socket: Arc<OwnedFd>,
    bytes: Vec<u8>,
}

impl Supervisor {
    fn new(host: Host, events: mpsc::Sender<(u32, FromWorker)>) -> Result<Self, SupervisorError> {
        let slots = ConnectionSlots::create(
            host.config.limits.max_connections * 2 + SPARE_SLOTS,
            crate::tokens::first_number(),
        )
        .map_err(failed("shared memory"))?;
        let kept = kept_dir(&host.runtime_dir);
        make_directory(&kept, host.config.restrictions.run_as)
            .map_err(failed("a directory for good generations"))?;
        Self::with(host, slots, events)
    }

    fn with(
        host: Host,
        slots: ConnectionSlots,
        events: mpsc::Sender<(u32, FromWorker)>,
    ) -> Result<Self, SupervisorError> {
        let config = host.config;
        let disabled = Disabled::read(host.runtime_dir.shared());
        let config_file = copy_configuration(&config, host.runtime_dir.private())
            .map_err(failed("a copy of the configuration"))?;
        Ok(Self {
            connections: HeldConnections::new(slots, config.response_failure),
            config: Arc::clone(&config),
            config_file,
            arguments: host.arguments,
            program: host.program,
            binding: host.binding,
            runtime_dir: host.runtime_dir,
            listener: Arc::new(host.listener),
            services: host.services,
            log: host.log,
            events,
            workers: BTreeMap::new(),
            journals: Vec::new(),
            last_worker: 0,
            serving: None,
            serving_path: watch::Sender::new(None),
            successor: None,
            standby: None,
            may_command: watch::Sender::new(true),
            waiting: Vec::new(),
            waiting_clients: Vec::new(),
            successor_died: None,
            young_deaths: 0,
            start_at: None,
            stopping: None,
            ended: false,
            renewing: None,
            counts: Counts::default(),
            quarantine: Quarantine::new(
                config.limits.quarantine_crashes,
                config.limits.quarantine_window,
            ),
            reports: Vec::new(),
            hooks: Hooks::new(&config),
            disabled,
            levels: host.levels,
            wanted_levels: None,
            announcer: config.service_manager.clone().map(Announcer::new),
        })
    }

    async fn supervise(
        mut self,
        mut from_workers: mpsc::Receiver<(u32, FromWorker)>,
        mut requests: mpsc::Receiver<Request>,
        mut shutdown: watch::Receiver<Shutdown>,
        rescan: Arc<Notify>,
    ) {
        if self.serving.is_none() {
            self.start_serving();
        }
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.stopping.is_none() || !self.workers.is_empty() {
            let start_in = self
                .start_at
                .map(|at| at.saturating_duration_since(Instant::now()));
            let renew_in = self
                .renewing
                .map(|at| at.saturating_duration_since(Instant::now()));
            let end_in = self
                .stopping
                .map(|by| by.saturating_duration_since(Instant::now()));
            tokio::select! {
                biased;
                Some((number, event)) = from_workers.recv() => self.take(number, event),
                // An error means that nobody can ask for a stop any more, which is one.
                changed = shutdown.changed(), if self.stopping.is_none() => {
                    let how = changed.map_or(Shutdown::Drain, |()| *shutdown.borrow());
                    self.stop(how);
                }
                () = sleep(start_in.unwrap_or_default()), if start_in.is_some() => {
                    self.start_serving();
                }
                () = sleep(renew_in.unwrap_or_default()), if renew_in.is_some() => {
                    while let Ok((number, event)) = from_workers.try_recv() {
                        self.take(number, event);
                    }
                    self.renew();
                }
                () = sleep(end_in.unwrap_or_default()), if end_in.is_some_and(|_| !self.ended) => {
                    self.end();
                }
                Some(request) = requests.recv() => self.answer(request),
                () = rescan.notified() => self.tell_serving(ToWorker::Rescan),
                _ = ticks.tick() => self.look_around(),
            }
        }
        for report in self.reports {
            // One that panicked has said so.
            let _ = report.join();
        }
    }

    fn take(&mut self, number: u32, event: FromWorker) {
        match event {
            FromWorker::Said(received) => self.hear(number, received),
            FromWorker::Died(status) => self.bury(number, status),
        }
    }

    /// Starts a worker that serves at once: nobody else does.
    fn start_serving(&mut self) {
        self.start_at = None;
        match self.start(true) {
            Ok(number) => self.put_in_service(number),
            Err(error) => {
                tracing::error!(%error, "cannot start a worker; trying again");
                self.start_at = Some(Instant::now() + succession::LONGEST_DELAY);
            }
        }
    }

    fn start(&mut self, serve: bool) -> io::Result<u32> {
        self.last_worker += 1;
        let number = self.last_worker;
        let private_dir = self.runtime_dir.private().join(format!("worker-{number}"));
        make_directory(&private_dir, self.config.restrictions.run_as)?;
        let slots = Arc::new(self.connections.slots().file().try_clone_to_owned()?);
        let child = Child::start(Recipe {
            arguments: &self.arguments,
            start: Start {
                protocol: PROTOCOL,
                supervisor: rustix::process::getpid().as_raw_nonzero().get(),
                worker: number,
                config_file: self.config_file.clone(),
                max_connections: self.config.limits.max_connections,
                private_dir: private_dir.clone(),
                kept_dir: kept_dir(&self.runtime_dir),
                quarantined: self.quarantine.list().to_vec(),
                disabled: self.disabled.list().to_vec(),
                log_levels: self.wanted_levels.clone(),
                colours: self.log.has_colours(),
                journals: self
                    .journals
                    .iter()
                    .map(|(of, _)| (*of, self.workers.contains_key(of)))
                    .collect(),
                services: self.services.is_some(),
                serve,
            },
            before: vec![Arc::clone(&self.listener), slots],
            after: self
                .journals
                .iter()
                .map(|(_, file)| file)
                .chain(self.services.as_ref().map(ServicesListener::socket))
                .map(Arc::clone)
                .collect(),
            log: Box::new(self.log.clone()),
            events: self.events.clone(),
        })?;
        tracing::debug!(
            worker = number,
            pid = child.pid.as_raw_nonzero(),
            "started a worker"
        );
        let worker = Worker::new(child, Phase::Starting, private_dir);
        self.workers.insert(number, worker);
        Ok(number)
    }

    /// From now on this worker accepts connections, and is given those that have none.
    fn put_in_service(&mut self, number: u32) {
        let Some(worker) = self.workers.get_mut(&number) else {
            return;
        };
        worker.phase = Phase::Serving;
        worker.child.tell(ToWorker::Serve);
        self.serving_path
            .send_replace(Some(crate::control::socket_path(&worker.private_dir)));
        self.serving = Some(number);
        for given in std::mem::take(&mut self.waiting) {
            self.give(given);
        }
        for (client, bytes) in std::mem::take(&mut self.waiting_clients) {
            self.give_client(client, bytes);
        }
    }

    /// Gives a client of HTTP services to whoever serves.
    fn give_client(&mut self, client: Arc<OwnedFd>, bytes: Vec<u8>) {
        match self.serving.and_then(|number| self.workers.get(&number)) {
            Some(worker) => worker
                .child
                .tell_with(ToWorker::GiveClient, bytes, vec![client]),
            None => self.waiting_clients.push((client, bytes)),
        }
    }

    fn give(&mut self, given: Given) {
        let serving = self
            .serving
            .and_then(|number| Some((number, self.workers.get(&number)?)));
        let Some((number, worker)) = serving else {
            self.waiting.push(given);
            return;
        };
        self.connections.give(given.passed, number);
        worker.child.tell_with(
            ToWorker::Give(given.passed),
            given.bytes,
            vec![given.socket],
        );
    }

    fn stop(&mut self, how: Shutdown) {
        let time = self.config.limits.drain_time.saturating_sub(BURIAL_TIME);
        self.stopping = Some(Instant::now() + time);
        // What connects from now on is the next host's, where there is one on the address.
        self.services = None;
        self.announce();
        self.start_at = None;
        let successor = how == Shutdown::HandedOver;
        for (number, worker) in &mut self.workers {
            if Some(*number) == self.serving || matches!(worker.phase, Phase::Leaving(_)) {
                worker.child.tell(ToWorker::Stop { successor });
                worker.phase = Phase::Stopping;
            } else if worker.phase != Phase::Stopping {
                worker.phase = Phase::Stopping;
                worker.kill(KilledFor::Other);
            }
        }
        self.successor = None;
    }

    /// The time is up: what is still open is answered for.
    fn end(&mut self) {
        self.ended = true;
        for (number, worker) in &mut self.workers {
            tracing::warn!(worker = number, "calls did not end within the drain time");
            worker.kill(KilledFor::Other);
        }
    }

    /// Whoever takes too long is ended; whoever wants to be replaced is, when the moment is quiet.
    fn look_around(&mut self) {
        self.announce();
        let leave_time = LEAVE_TIME + self.config.limits.call_budget;
        for (number, worker) in &mut self.workers {
            if let Phase::Leaving(since) = worker.phase
                && since.elapsed() > leave_time
                && worker.killed_for.is_none()
            {
                tracing::error!(
                    worker = number,
                    "a worker does not hand over its last calls"
                );
                worker.kill(KilledFor::Other);
            }
        }
        if let Some(successor) = &self.successor
            && successor.since.elapsed() > START_TIME
            && let Some(worker) = self.workers.get_mut(&successor.worker)
            && worker.killed_for.is_none()
        {
            tracing::error!(worker = successor.worker, "a worker does not become ready");
            worker.kill(KilledFor::Other);
        }
        let serving = self.serving.and_then(|number| self.workers.get(&number));
        let patience = self.config.limits.replace_patience;
        let is_time = serving.and_then(|worker| worker.wish).is_some_and(|since| {
            since.elapsed() >= patience
                || self.connections.count(State::Idle) == self.connections.len()
        });
        // One that dies as soon as it is started must not be started all the time.
        let may_try = self
            .successor_died
            .is_none_or(|died| died.elapsed() > TRY_AGAIN_AFTER);
        self.keep_a_standby();
        if is_time && may_try && self.successor.is_none() && self.stopping.is_none() {
            self.replace(None);
        }
    }

    fn tell_serving(&self, message: ToWorker) {
        if let Some(worker) = self.serving.and_then(|number| self.workers.get(&number)) {
            worker.child.tell(message);
        }
    }
}

fn kept_dir(runtime_dir: &RuntimeDir) -> PathBuf {
    runtime_dir.private().join("kept")
}

/// Workers go by the configuration that this process has read and found good.
fn copy_configuration(config: &Config, directory: &Path) -> io::Result<Option<(PathBuf, PathBuf)>> {
    let Some((path, text)) = config.file() else {
        return Ok(None);
    };
    let copy = directory.join("config.toml");
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&copy)?
        .write_all(text.as_bytes())?;
    Ok(Some((path.to_owned(), copy)))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
