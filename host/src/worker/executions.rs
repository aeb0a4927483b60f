//! The event loop of executions, beside those of the gateway's connections: what an operator or an
//! HTTP client asks of a plugin holds up no call of the gateway's, and the watchdog looks at it as at
//! the others. The clients of HTTP services are served here, too.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime::Builder,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
};

use super::{FAILURE_LINES_PER_SECOND, Telling, attachment::Told};
use crate::{
    http_services::{
        Bounds, Services,
        connection::{self, HandedOver},
        stream::{Listener, Stream},
        table,
    },
    pipeline::{Pipeline, execute::Executor},
    plugin::registry::Snapshot,
    server::Shutdown,
    server::access_log::AccessLog,
    shared_memory::threads,
    throttle::Throttle,
};

/// How many event loops there are for executions.
pub(super) const LOOPS: usize = 1;

/// How often it is looked whether the last execution has ended.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// How long nothing is accepted where the system has no descriptors left.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(50);

/// What the loop works with.
pub(super) struct Parts {
    /// Runs blocking plugins.
    pub(super) pipeline: Pipeline,
    /// The socket that clients of HTTP services connect to.
    pub(super) listener: Option<OwnedFd>,
    /// Bounds on these.
    pub(super) bounds: Bounds,
    /// Which plugins serve.
    pub(super) snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// Clients that another worker has served.
    pub(super) given: mpsc::UnboundedReceiver<HandedOver>,
    /// Counts those that are served here.
    pub(super) open_clients: Arc<AtomicUsize>,
    /// Where clients go that somebody else has to serve.
    pub(super) tell: Telling,
    /// Where one is kept.
    pub(super) access_log: Option<AccessLog>,
}

/// Starts the loop; it holds `running` until, after the worker was told to end, the last execution has.
///
/// # Errors
/// There is no thread, or no runtime, for it.
pub(super) fn start(
    parts: Parts,
    shutdown: watch::Receiver<Shutdown>,
    running: mpsc::Sender<()>,
) -> io::Result<Executor> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let executor = Executor::new(parts.pipeline.clone(), runtime.handle().clone());
    let given = executor.clone();
    thread::Builder::new()
        .name("executions".to_owned())
        .spawn(move || {
            threads::is_a_loop();
            runtime.block_on(async {
                let open = [given.open(), Arc::clone(&parts.open_clients)];
                serve(parts, &given, shutdown).await;
                while open.iter().any(|open| open.load(Ordering::Acquire) > 0) {
                    tokio::time::sleep(LOOK_AGAIN_AFTER).await;
                }
            });
            drop(running);
        })?;
    Ok(executor)
}

/// Serves clients of HTTP services until the worker is to end.
async fn serve(parts: Parts, executor: &Executor, mut shutdown: watch::Receiver<Shutdown>) {
    let listener = parts.listener.map(Listener::new).transpose();
    let listener = listener.unwrap_or_else(|error| {
        tracing::error!(%error, "HTTP services cannot be served");
        None
    });
    let (tables, of_services) = watch::channel(None);
    let mut clients = Clients {
        places: Arc::new(Semaphore::new(parts.bounds.max_connections)),
        services: Arc::new(Services {
            executor: executor.bounded_by(parts.bounds.max_connections),
            tables: of_services,
            bounds: parts.bounds,
            throttle: Throttle::new(FAILURE_LINES_PER_SECOND, Duration::from_secs(1)),
            access_log: parts.access_log,
        }),
        open: parts.open_clients,
        tell: parts.tell,
        shutdown: shutdown.clone(),
    };
    tokio::spawn(table::follow(parts.snapshots, tables));
    let mut given = parts.given;
    loop {
        let state = *shutdown.borrow_and_update();
        if matches!(state, Shutdown::Drain | Shutdown::HandedOver) {
            break;
        }
        tokio::select! {
            biased;
            changed = shutdown.changed() => if changed.is_err() { break },
            Some((socket, read)) = given.recv() => match Stream::given(socket, read) {
                // It had a place in the worker before, whose bound was the same.
                Ok(stream) => clients.serve(stream, None),
                Err(error) => tracing::debug!(%error, "a client cannot be taken over"),
            },
            accepted = clients.accept(listener.as_ref()), if state == Shutdown::Running => {
                match accepted {
                    Ok((stream, place)) => clients.serve(stream, Some(place)),
                    Err(error) => {
                        tracing::debug!(%error, "cannot accept a client of HTTP services");
                        tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                    }
                }
            },
        }
    }
    // What has connected already is nobody else's to serve.
    while let Some(Ok((stream, place))) =
        futures_util::future::poll_immediate(clients.accept(listener.as_ref())).await
    {
        clients.serve(stream, Some(place));
    }
}

/// Whom this loop serves.
struct Clients {
    services: Arc<Services>,
    places: Arc<Semaphore>,
    open: Arc<AtomicUsize>,
    tell: Telling,
    shutdown: watch::Receiver<Shutdown>,
}

/// One client that is served here.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Clients {
    /// The next client, when there is a place for one.
    async fn accept(
        &self,
        listener: Option<&Listener>,
    ) -> io::Result<(Stream, OwnedSemaphorePermit)> {
        let Some(listener) = listener else {
            return std::future::pending().await;
        };
        let place = Arc::clone(&self.places)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        Ok((listener.accept().await?, place))
    }

    fn serve(&mut self, stream: Stream, place: Option<OwnedSemaphorePermit>) {
        self.open.fetch_add(1, Ordering::AcqRel);
        let open = Open(Arc::clone(&self.open));
        let (services, shutdown) = (Arc::clone(&self.services), self.shutdown.clone());
        let tell = self.tell.clone();
        tokio::spawn(async move {
            if let Some(handed_over) = connection::serve(stream, services, shutdown).await {
                // Nobody listens only where this process is about to end.
                let _ = tell.send(Told::client(handed_over));
            }
            drop((open, place));
        });
    }
}
