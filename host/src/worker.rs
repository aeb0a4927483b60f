//! Wires everything that serves calls, and drains it: event loops, tokens, the plugin manager.
//!
//! A worker is a process of its own, below a supervisor that gives it the listening socket and tells
//! it when to serve, when to hand its connections over and when to end. It owns neither signals nor
//! the socket's file.

mod announcements;
pub mod attachment;
mod condition;
mod executions;
mod inheritance;
mod standing;

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::{Notify, mpsc, watch},
};

use attachment::{Attachment, Orders, Told};
use inheritance::Testament;
use standing::Standing;

use crate::{
    config::{Config, LogFormat},
    control::{self, worker::Desk},
    crash::{self, Quarantined},
    http_client::HttpClient,
    keeper::Keeper,
    link::ToSupervisor,
    listen::Binding,
    logging::{AccessLines, Levels},
    memory::MemoryBudget,
    metrics::{
        Metrics,
        traffic::{ShownTraffic, Traffic},
    },
    pipeline::{Pipeline, pool::Pool},
    plugin::{
        event::PluginEvent,
        manager::{KeptOut, Manager, Options},
        metadata::{Build, Digest, PluginName},
        permissions::Permissions,
        registry::Registry,
    },
    runtime_dir::AddressLock,
    server::{
        self, Limits, Shared,
        access_log::{AccessLog, Shape},
        handover::{Given, Supervised},
    },
    shared_memory::threads,
    throttle::Throttle,
    tokens::{
        Bounds, Outliving, Tokens,
        compile::{Compiler, keep_compiled},
        journal::{Journal, Reader},
    },
    watchdog::{self, Finding},
};

pub use crate::server::Shutdown;

/// Lines per reason and second that failing calls may write.
const FAILURE_LINES_PER_SECOND: u32 = 1;

/// This very program, also where its file has been replaced meanwhile.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// How long a worker that is to take over waits for its plugins; what takes longer goes on while it
/// serves.
const READY_TIME: Duration = Duration::from_secs(15);

/// The version of the link from which on a supervisor hears how it stands with its worker.
const SINCE_CONDITION: u32 = 2;

/// What a worker leaves of the drain time to its own end, after which the supervisor kills it.
const LEAVING_TIME: Duration = Duration::from_millis(100);

/// Time for all `on_unload` together when the process ends.
const GOODBYE_TIME: Duration = Duration::from_millis(30);

/// Blocking threads of the control runtime beside those of the pool, so that looking at the plugin
/// directory never waits for a plugin.
const THREADS_OF_OUR_OWN: usize = 4;

/// The worker cannot work: the machine's fault.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A runtime or thread cannot be had.
    #[error("cannot start {what}: {error}")]
    Start {
        /// Of what.
        what: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// An event loop ended before it was told to.
    #[error("an event loop ended by itself: this is a fault of the host")]
    LoopEnded,
}

/// Serves until the supervisor says stop and the drain is over.
///
/// # Errors
/// It could not start, or an event loop failed.
pub fn run(
    attachment: Attachment,
    config: Arc<Config>,
    levels: Levels,
    access_lines: Option<AccessLines>,
) -> Result<(), WorkerError> {
    let control = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(config.blocking_threads + THREADS_OF_OUR_OWN)
        .thread_name("pool")
        .build()
        .map_err(start("the control runtime"))?;
    let result = control.block_on(work(attachment, &config, levels, access_lines));
    // Plugins may sit on the pool's threads; the process ends without waiting for them.
    control.shutdown_background();
    result
}

async fn work(
    mut attachment: Attachment,
    config: &Config,
    levels: Levels,
    access_lines: Option<AccessLines>,
) -> Result<(), WorkerError> {
    threads::follow_in(attachment.threads.clone());
    if let Err(error) = crash::install(&attachment.threads) {
        tracing::warn!(%error, "a crash will leave no record of its own");
    }
    let registry = Arc::new(Registry::new());
    let pool = Pool::new(Handle::current(), config.blocking_threads);
    let (to_compile, new_tokens) = mpsc::unbounded_channel();
    let bounds = Bounds::new(config.limits.max_tokens, config.conf_expire_time);
    let (tell, told) = mpsc::unbounded_channel();
    let journal = Journal::create().map_err(start("a token journal"))?;
    let passed_on = journal
        .file()
        .try_clone_to_owned()
        .map_err(start("a token journal"))?;
    let (renewed, renewals) = mpsc::unbounded_channel();
    let outliving = Outliving {
        numbers: attachment.connections.clone(),
        journal,
        renewed,
    };
    let tokens = Arc::new(Tokens::outliving(outliving, bounds, to_compile));
    let _ = tell.send(Told::with(ToSupervisor::Journal, passed_on));
    tokio::spawn(pass_journals_on(renewals, tell.clone()));
    let followed = inherit_tokens(&mut attachment, &tokens, &tell);
    let (events, happened) = mpsc::unbounded_channel();
    let traffic = Arc::new(Traffic::default());
    let shared = Arc::new(Shared {
        tokens: Arc::clone(&tokens),
        pipeline: Pipeline {
            pool: pool.clone(),
            call_budget: config.limits.call_budget,
        },
        limits: limits_of(config),
        memory: MemoryBudget::new(config.limits.max_body_memory),
        throttle: Throttle::new(FAILURE_LINES_PER_SECOND, Duration::from_secs(1)),
        traffic: Arc::clone(&traffic),
        access_log: access_lines.clone().map(|lines| access_log(config, lines)),
        connections: Default::default(),
        supervised: Some(Supervised {
            slots: attachment.connections.clone(),
            worker: attachment.start.worker,
            events,
        }),
    });
    let (say, mut shutdown) = watch::channel(match attachment.start.serve {
        true => Shutdown::Running,
        false => Shutdown::Standby,
    });
    let rescan = Arc::new(Notify::new());

    // Serving comes first: what calls before the plugins are there waits for them.
    let listener = attachment
        .listener
        .try_clone()
        .map_err(start("an event loop"))?;
    let (running, mut drained) = mpsc::channel::<()>(1);
    let loops = start_loops(&listener, config.event_loops, &shared, &shutdown, &running)?;
    let (give_client, clients) = mpsc::unbounded_channel();
    let open_clients = Arc::default();
    let executor = executions::start(
        executions::Parts {
            pipeline: shared.pipeline.clone(),
            listener: attachment.services.take(),
            bounds: config.http_services.bounds.clone(),
            snapshots: registry.subscribe(),
            given: clients,
            open_clients: Arc::clone(&open_clients),
            tell: tell.clone(),
            access_log: shared.access_log.clone(),
        },
        shutdown.clone(),
        running,
    )
    .map_err(start("a thread for executions"))?;
    let (give_states, states) = mpsc::unbounded_channel();
    let testament = Testament::new(attachment.start.protocol);
    let orders = Orders {
        shutdown: say,
        rescan: Arc::clone(&rescan),
        told,
        happened,
        loops,
        shared: Arc::clone(&shared),
        followed,
        executions: [executor.open(), open_clients],
        clients: give_client,
        states: give_states,
        testament: testament.clone(),
    };
    attachment
        .take_link()
        .and_then(|link| attachment::serve(link, orders))
        .map_err(start("the link to the supervisor"))?;

    let findings = start_watchdog(config, &attachment, &registry, &pool)?;
    tokio::spawn(take_in(findings, tell.clone()));

    let (announce, announced) = mpsc::unbounded_channel();
    tokio::spawn(announcements::pass_on(announced, tell.clone()));
    let (events, happening) = mpsc::unbounded_channel();
    tokio::spawn(pass_events_on(happening, tell.clone()));
    let compiler = Arc::new(Compiler::new(Arc::clone(&registry), Arc::clone(&tokens)));
    tokio::spawn(keep_compiled(
        Arc::clone(&compiler),
        new_tokens,
        registry.subscribe(),
    ));
    let metrics = Arc::new(Metrics::new());
    metrics.register(Box::new(ShownTraffic(traffic)));
    let manager = Arc::new(Manager::new(
        Options {
            plugin_dir: config.plugin_dir.clone(),
            private_dir: attachment.start.private_dir.clone(),
            operator: config.plugins.to_operator(),
            rehearse_with: config.rehearse.then(|| PathBuf::from(THIS_PROGRAM)),
            permissions: Permissions::new(config.strict_permissions),
            trust: Arc::clone(&config.trust),
            announce: Some(announce),
            events: Some(events),
            kept_dir: Some(attachment.start.kept_dir.clone()),
            retired_memory: config.limits.retired_memory as u64,
            metrics: Arc::clone(&metrics),
            http_client: HttpClient::new(config.http_client.clone()),
        },
        compiler,
    ));
    tokio::spawn(wish_beyond_budget(manager.over_budget(), tell.clone()));
    let kept_out = KeptOut {
        quarantined: builds(&attachment.start.quarantined),
        disabled: std::mem::take(&mut attachment.start.disabled),
    };
    let restored = manager.restore(kept_out).await;
    let knows = !restored.serving.is_empty();
    tokio::spawn(inheritance::leave_states(
        Arc::clone(&manager),
        Arc::clone(&shared),
        shutdown.clone(),
        testament,
        tell.clone(),
    ));
    tokio::spawn(inheritance::take_states(
        Arc::clone(&manager),
        Arc::clone(&tokens),
        states,
    ));
    // Only now: it replaces what is restored.
    tokio::spawn(keep_while_serving(Arc::clone(&manager), shutdown.clone()));
    let (mut keeper, requests) = Keeper::new(
        Arc::clone(&manager),
        &config.plugin_dir,
        config.rescan_interval,
        rescan,
    );
    keeper.resume(restored);
    let settled = keeper.settled();
    if attachment.start.protocol >= SINCE_CONDITION {
        let require = config.require.clone();
        tokio::spawn(condition::keep_told(
            Arc::clone(&manager),
            require,
            knows,
            keeper.settled(),
            tell.clone(),
        ));
    }
    metrics.register(Box::new(Standing {
        manager: Arc::clone(&manager),
        shared,
        pool: pool.clone(),
        problems: keeper.problems(),
        access_lines,
    }));
    let desk = Desk {
        keeper: requests,
        executor,
        manager: Arc::clone(&manager),
        tokens: Arc::clone(&tokens),
        pool,
        problems: keeper.problems(),
        serves_http: config.http_services.listen.is_some(),
        levels,
        metrics,
    };
    tokio::spawn(keeper.run());
    tokio::spawn(say_ready(settled, Arc::clone(&tokens), tell.clone()));
    // Dropped at the end, which removes the socket if it is still ours.
    let _control = serve_control(&attachment.start.private_dir, desk);

    let stop = |state: &Shutdown| matches!(state, Shutdown::Drain | Shutdown::HandedOver);
    tokio::select! {
        _ = shutdown.wait_for(stop) => {}
        // Every loop holds a sender until it is drained. One without connections ends as soon as it
        // is told to, which may be before this thread has heard of it.
        _ = drained.recv() => {}
    }
    if !stop(&shutdown.borrow()) {
        return Err(WorkerError::LoopEnded);
    }
    let drain_time = config.limits.drain_time.saturating_sub(LEAVING_TIME);
    let in_time = tokio::time::timeout(drain_time, drained.recv()).await;
    if in_time.is_err() {
        tracing::debug!("connections were still open at the end of the drain");
    }
    let _ = tokio::time::timeout(GOODBYE_TIME, manager.say_goodbye()).await;
    Ok(())
}

fn access_log(config: &Config, lines: AccessLines) -> AccessLog {
    let shape = match config.log.format {
        LogFormat::Text => Shape::Text,
        LogFormat::Json => Shape::Json,
    };
    AccessLog::new(shape, Arc::new(move |line: &[u8]| lines.take(line)))
}

/// What is told to the supervisor, with descriptors.
type Telling = mpsc::UnboundedSender<Told>;

/// Takes over the tokens of earlier workers; gives those that still live, and are followed.
fn inherit_tokens(attachment: &mut Attachment, tokens: &Tokens, tell: &Telling) -> Vec<u32> {
    let journals = std::mem::take(&mut attachment.journals);
    let of = attachment.start.journals.iter();
    let (living, dead): (Vec<_>, Vec<_>) = of.zip(journals).partition(|((_, lives), _)| *lives);
    let now = tokio::time::Instant::now();
    let (workers, journals): (Vec<u32>, Vec<Reader>) = dead
        .into_iter()
        .map(|((worker, _), journal)| (*worker, Reader::new(journal)))
        .unzip();
    let mut inherited = tokens.restore(journals, now);
    let _ = tell.send(ToSupervisor::Absorbed { workers }.into());
    let followed = living
        .into_iter()
        .map(|((worker, _), journal)| {
            inherited += tokens.follow(Reader::new(journal), now);
            *worker
        })
        .collect();
    tracing::debug!(tokens = inherited, "tokens of earlier workers");
    followed
}

async fn pass_journals_on(mut renewals: mpsc::UnboundedReceiver<OwnedFd>, tell: Telling) {
    while let Some(journal) = renewals.recv().await {
        // Nobody listens only where this process is about to end.
        let _ = tell.send(Told::with(ToSupervisor::Journal, journal));
    }
}

/// Tells the supervisor what happens to plugins; its hooks want to know.
async fn pass_events_on(mut happening: mpsc::UnboundedReceiver<PluginEvent>, tell: Telling) {
    while let Some(event) = happening.recv().await {
        let _ = tell.send(ToSupervisor::Event(Box::new(event)).into());
    }
}

/// What the supervisor has put into quarantine. It holds only what a worker told it.
fn builds(quarantined: &[Quarantined]) -> Vec<Build> {
    quarantined
        .iter()
        .filter_map(|quarantined| {
            let culprit = &quarantined.culprit;
            Some(Build {
                name: PluginName::try_from(culprit.name.clone()).ok()?,
                version: culprit.version.parse().ok()?,
                digest: Digest::try_from(culprit.digest.clone()).ok()?,
            })
        })
        .collect()
}

/// The worker that serves writes what the next one has to know.
async fn keep_while_serving(manager: Arc<Manager>, mut state: watch::Receiver<Shutdown>) {
    loop {
        let serves = *state.borrow_and_update() == Shutdown::Running;
        let changed = if serves {
            tokio::select! {
                changed = state.changed() => changed,
                () = async {
                    manager.begin_keeping().await;
                    std::future::pending().await
                } => return,
            }
        } else {
            manager.stop_keeping().await;
            state.changed().await
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Asks to be replaced when too much memory belongs to plugins that are gone.
async fn wish_beyond_budget(over_budget: impl Future<Output = ()>, tell: Telling) {
    over_budget.await;
    let reason = "libraries of retired plugins occupy more than --retired-memory".to_owned();
    // Nobody listens only where this process is about to end.
    let _ = tell.send(ToSupervisor::Wish { reason }.into());
}

/// Says that this worker could take over, as soon as what it found in the plugin directory serves
/// and the chains of the tokens that it inherited are compiled.
async fn say_ready(settled: impl Future<Output = ()>, tokens: Arc<Tokens>, tell: Telling) {
    let ready = async {
        settled.await;
        for token in tokens.live() {
            token.compiled_in_turn().await;
        }
    };
    if tokio::time::timeout(READY_TIME, ready).await.is_err() {
        tracing::warn!("some plugin takes its time; its routes wait for it");
    }
    // Nobody listens only where this process is about to end.
    let _ = tell.send(ToSupervisor::Ready.into());
}

/// Starts the event loops; each holds `running` until it has ended.
fn start_loops(
    listener: &UnixListener,
    count: usize,
    shared: &Arc<Shared>,
    shutdown: &watch::Receiver<Shutdown>,
    running: &mpsc::Sender<()>,
) -> Result<Vec<mpsc::UnboundedSender<Given>>, WorkerError> {
    let mut loops = Vec::with_capacity(count);
    for number in 0..count {
        // Bounded by the number of connections.
        let (give, given) = mpsc::unbounded_channel();
        loops.push(give);
        let listener = listener.try_clone().map_err(start("an event loop"))?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(start("an event loop"))?;
        let (shared, shutdown, running) = (Arc::clone(shared), shutdown.clone(), running.clone());
        thread::Builder::new()
            .name(format!("loop-{number}"))
            .spawn(move || {
                serve(&runtime, listener, given, shared, shutdown);
                drop(running);
            })
            .map_err(start("an event loop"))?;
    }
    Ok(loops)
}

fn start_watchdog(
    config: &Config,
    attachment: &Attachment,
    registry: &Arc<Registry>,
    pool: &Pool,
) -> Result<mpsc::UnboundedReceiver<Finding>, WorkerError> {
    let slots = attachment.threads.clone();
    let options = watchdog::Options {
        loops: config.event_loops + executions::LOOPS,
        loop_stall_limit: config.limits.loop_stall_limit,
        stuck_threads: config.limits.stuck_threads,
    };
    watchdog::start(options, slots, Arc::clone(registry), pool.clone())
        .map_err(start("the watchdog"))
}

/// Tells the supervisor what the watchdog finds.
async fn take_in(mut findings: mpsc::UnboundedReceiver<Finding>, tell: Telling) {
    while let Some(finding) = findings.recv().await {
        let told = match finding {
            Finding::PoolStuck { reason } => ToSupervisor::Wish { reason },
            Finding::LoopStuck(stuck) => ToSupervisor::StuckLoop {
                plugin: stuck.generation,
            },
        };
        // Nobody listens only where this process is about to end.
        let _ = tell.send(told.into());
    }
}

fn serve(
    runtime: &Runtime,
    listener: UnixListener,
    given: mpsc::UnboundedReceiver<Given>,
    shared: Arc<Shared>,
    shutdown: watch::Receiver<Shutdown>,
) {
    threads::is_a_loop();
    runtime.block_on(async {
        match tokio::net::UnixListener::from_std(listener) {
            Ok(listener) => server::serve(listener, given, shared, shutdown).await,
            Err(error) => tracing::error!(%error, "cannot watch the listening socket"),
        }
    });
}

fn start(what: &'static str) -> impl Fn(io::Error) -> WorkerError {
    move |error| WorkerError::Start { what, error }
}

fn limits_of(config: &Config) -> Limits {
    Limits {
        max_connections: config.limits.max_connections,
        max_frame_bytes: config.limits.max_frame_bytes,
        max_connection_memory: config.limits.max_connection_memory,
        max_extra_info_rounds: config.limits.max_extra_info_rounds,
        spin: config.limits.spin,
        frame_timeout: config.limits.frame_read_timeout,
        ask_method_for_head: config.ask_method_for_head,
        response_failure: config.response_failure,
    }
}

/// Opens this worker's own control socket, which only the supervisor asks. Without one the worker
/// serves all the same, and says so.
fn serve_control(private_dir: &Path, desk: Desk) -> Option<Binding> {
    let path = control::socket_path(private_dir);
    let bound = AddressLock::open(private_dir)
        .map_err(|error| error.to_string())
        .and_then(|lock| {
            Binding::bind(&path, control::SOCKET_MODE, control::BACKLOG, lock)
                .map_err(|error| error.to_string())
        });
    match bound {
        Ok((binding, listener)) => {
            tokio::spawn(control::worker::serve(listener, desk));
            Some(binding)
        }
        Err(error) => {
            tracing::error!(error, "this worker cannot be asked for anything");
            None
        }
    }
}
