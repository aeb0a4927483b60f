//! Wires everything that serves calls, and drains it: event loops, tokens, the plugin manager.
//!
//! A worker takes a bound listener and a shutdown; it owns neither signals nor the socket's file,
//! so that a supervisor can stand above it.

use std::{io, os::unix::net::UnixListener, path::PathBuf, sync::Arc, thread, time::Duration};

use tokio::{
    runtime::{Builder, Runtime},
    sync::{Notify, mpsc, watch},
};

use crate::{
    config::Config,
    control,
    keeper::{Keeper, Request},
    listen::Binding,
    memory::MemoryBudget,
    pipeline::Pipeline,
    plugin::{
        manager::{Manager, Options},
        permissions::Permissions,
        registry::Registry,
    },
    runtime_dir::RuntimeDir,
    server::{self, Limits, Shared},
    throttle::Throttle,
    tokens::{
        Bounds, Tokens,
        compile::{Compiler, keep_compiled},
    },
};

pub use crate::server::Shutdown;

/// Lines per reason and second that failing calls may write.
const FAILURE_LINES_PER_SECOND: u32 = 1;

/// This very program, also where its file has been replaced meanwhile.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Time for all `on_unload` together when the process ends.
const GOODBYE_TIME: Duration = Duration::from_millis(30);

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

/// Serves until `shutdown` says stop and the drain is over.
///
/// # Errors
/// It could not start, or an event loop failed.
pub fn run(
    listener: UnixListener,
    config: Arc<Config>,
    runtime_dir: RuntimeDir,
    shutdown: watch::Receiver<Shutdown>,
    rescan: Arc<Notify>,
) -> Result<(), WorkerError> {
    let control = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(config.blocking_threads)
        .thread_name("pool")
        .build()
        .map_err(start("the control runtime"))?;
    let result = control.block_on(work(listener, &config, &runtime_dir, shutdown, rescan));
    // Plugins may sit on the pool's threads; the process ends without waiting for them.
    control.shutdown_background();
    result
}

async fn work(
    listener: UnixListener,
    config: &Config,
    runtime_dir: &RuntimeDir,
    mut shutdown: watch::Receiver<Shutdown>,
    rescan: Arc<Notify>,
) -> Result<(), WorkerError> {
    let registry = Arc::new(Registry::new());
    let (to_compile, new_tokens) = mpsc::unbounded_channel();
    let bounds = Bounds::new(config.limits.max_tokens, config.conf_expire_time);
    let tokens = Arc::new(Tokens::new(bounds, to_compile));
    let shared = Arc::new(Shared {
        tokens: Arc::clone(&tokens),
        pipeline: Pipeline {
            pool: tokio::runtime::Handle::current(),
            call_budget: config.limits.call_budget,
        },
        limits: limits_of(config),
        memory: MemoryBudget::new(config.limits.max_body_memory),
        throttle: Throttle::new(FAILURE_LINES_PER_SECOND, Duration::from_secs(1)),
        connections: Default::default(),
    });

    // Serving comes first: what calls before the plugins are there waits for them.
    let mut drained = start_loops(listener, config.event_loops, &shared, &shutdown)?;

    let compiler = Arc::new(Compiler::new(Arc::clone(&registry), Arc::clone(&tokens)));
    tokio::spawn(keep_compiled(
        Arc::clone(&compiler),
        new_tokens,
        registry.subscribe(),
    ));
    let manager = Arc::new(Manager::new(
        Options {
            plugin_dir: config.plugin_dir.clone(),
            private_dir: runtime_dir.private().to_owned(),
            operator: config.plugins.to_operator(),
            rehearse_with: config.rehearse.then(|| PathBuf::from(THIS_PROGRAM)),
            permissions: Permissions::new(config.strict_permissions),
        },
        compiler,
    ));
    let (keeper, requests) = Keeper::new(
        Arc::clone(&manager),
        &config.plugin_dir,
        config.rescan_interval,
        rescan,
    );
    tokio::spawn(keeper.run());
    // Dropped at the end, which removes the socket if it is still ours.
    let _control = serve_control(runtime_dir, requests);

    tokio::select! {
        _ = shutdown.wait_for(|state| *state != Shutdown::Running) => {}
        // Every loop holds a sender until it is drained. One without connections ends as soon as it
        // is told to, which may be before this thread has heard of it.
        _ = drained.recv() => {}
    }
    if *shutdown.borrow() == Shutdown::Running {
        return Err(WorkerError::LoopEnded);
    }
    let in_time = tokio::time::timeout(config.limits.drain_time, drained.recv()).await;
    if in_time.is_err() {
        tracing::debug!("connections were still open at the end of the drain");
    }
    let _ = tokio::time::timeout(GOODBYE_TIME, manager.say_goodbye()).await;
    Ok(())
}

/// Starts the event loops; the receiver ends when all of them have.
fn start_loops(
    listener: UnixListener,
    count: usize,
    shared: &Arc<Shared>,
    shutdown: &watch::Receiver<Shutdown>,
) -> Result<mpsc::Receiver<()>, WorkerError> {
    let (running, drained) = mpsc::channel::<()>(1);
    for number in 0..count {
        let listener = listener.try_clone().map_err(start("an event loop"))?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(start("an event loop"))?;
        let (shared, shutdown, running) = (Arc::clone(shared), shutdown.clone(), running.clone());
        thread::Builder::new()
            .name(format!("loop-{number}"))
            .spawn(move || {
                serve(&runtime, listener, shared, shutdown);
                drop(running);
            })
            .map_err(start("an event loop"))?;
    }
    Ok(drained)
}

fn serve(
    runtime: &Runtime,
    listener: UnixListener,
    shared: Arc<Shared>,
    shutdown: watch::Receiver<Shutdown>,
) {
    runtime.block_on(async {
        match tokio::net::UnixListener::from_std(listener) {
            Ok(listener) => server::serve(listener, shared, shutdown).await,
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
        max_extra_info_rounds: config.limits.max_extra_info_rounds,
        frame_timeout: config.limits.frame_read_timeout,
        ask_method_for_head: config.ask_method_for_head,
        response_failure: config.response_failure,
    }
}

/// Opens the control socket. Without one the host serves all the same, and says so.
fn serve_control(runtime_dir: &RuntimeDir, requests: mpsc::Sender<Request>) -> Option<Binding> {
    let path = control::socket_path(runtime_dir.shared());
    let lock = runtime_dir
        .address_lock()
        .inspect_err(|error| tracing::error!(%error, "there is no control socket"))
        .ok()?;
    match Binding::bind(&path, control::SOCKET_MODE, control::BACKLOG, lock) {
        Ok((binding, listener)) => {
            tokio::spawn(control::serve(listener, requests));
            Some(binding)
        }
        Err(error) => {
            tracing::error!(%error, "there is no control socket");
            None
        }
    }
}
