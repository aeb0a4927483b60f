//! The HTTP client that the host keeps for its plugins: one pool of connections per process, bounds
//! on all that it holds, and no plugin's code on its thread.
//!
//! It has a runtime of its own with one thread, which starts with the first request: names are looked
//! up, keys exchanged and sockets read there, so that no event loop waits for any of it. Where nobody
//! asks, it costs nothing. It speaks HTTP/1.1, alone or over TLS; follows no redirect, keeps no
//! cookie, asks no proxy, and logs nothing of what passes through it.

mod connect;
mod error;
mod exchange;
mod post;
mod response;
mod roots;

use std::{
    fmt, io,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use parking_lot::Mutex;
use plugin_abi::abi::{HttpFailure, IncomingObject, OutgoingObject};
use serde::{Deserialize, Serialize};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::{Semaphore, watch},
    task::JoinHandle,
};

use connect::{Connector, Room};
use error::Failed;
use exchange::Exchange;

pub use post::check_url;
pub use roots::check_roots;

/// Bytes of a response's head, and headers in it, at most.
pub const MAX_HEAD_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 100;

/// How long a connection is kept open without a request: shorter than what servers allow, the shortest of
/// which are known to be 5 s, since one that is closed in the moment of its use costs a request. Their
/// number has no bound beside that on all connections: one that is closed because many are idle for an
/// instant is opened again in the next.
pub const IDLE_TIME: Duration = Duration::from_secs(4);

/// How long it may take to connect: name, TCP and TLS together.
pub const CONNECT_TIME: Duration = Duration::from_secs(10);

/// How long an exchange may take, whatever the plugin asks for.
pub const MAX_TIME: Duration = Duration::from_secs(600);

/// Names that are looked up at the same time; the system's resolver blocks.
const MAX_LOOKUPS: usize = 8;

/// How often all connections without a request are closed, at most, to make room for others.
const RENEW_TIME: Duration = Duration::from_secs(1);

/// What the operator decides about the client.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Whether plugins may use it at all.
    pub enabled: bool,
    /// Certificates of roots that are trusted beside the system's, in PEM.
    pub extra_roots: String,
    /// Most requests at the same time.
    pub max_requests: usize,
    /// Most requests of one loaded version of a plugin at the same time.
    pub max_requests_per_plugin: usize,
    /// Most open connections, those without a request included.
    pub max_connections: usize,
    /// Most bytes of the body of a request, and of that of a response.
    pub max_body_bytes: u64,
}

impl Default for Settings {
    /// What holds where an operator says nothing.
    fn default() -> Self {
        Self {
            enabled: true,
            extra_roots: String::new(),
            max_requests: 256,
            max_requests_per_plugin: 128,
            max_connections: 512,
            max_body_bytes: 16 << 20,
        }
    }
}

impl fmt::Debug for Settings {
    /// Without the certificates, which are long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("enabled", &self.enabled)
            .field("max_requests", &self.max_requests)
            .field("max_requests_per_plugin", &self.max_requests_per_plugin)
            .field("max_connections", &self.max_connections)
            .field("max_body_bytes", &self.max_body_bytes)
            .finish_non_exhaustive()
    }
}

/// The client of one process. Clones are the same client.
#[derive(Debug, Clone)]
pub struct HttpClient(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: Settings,
    places: Arc<Semaphore>,
    /// From the first request on; or why it could not start.
    running: OnceLock<Result<Running, String>>,
}

/// The client's part for one loaded version of a plugin.
#[derive(Debug, Clone)]
pub struct PluginHttp {
    client: HttpClient,
    places: Arc<Semaphore>,
}

impl HttpClient {
    /// A client that starts when it is first used.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(Shared {
            places: Arc::new(Semaphore::new(settings.max_requests)),
            running: OnceLock::new(),
            settings,
        }))
    }

    /// What it was made with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// A part with a bound of its own beside that on all.
    #[must_use]
    pub fn for_plugin(&self) -> PluginHttp {
        PluginHttp {
            places: Arc::new(Semaphore::new(self.0.settings.max_requests_per_plugin)),
            client: self.clone(),
        }
    }

    fn running(&self) -> Result<&Running, Failed> {
        if !self.0.settings.enabled {
            return Err(Failed::SwitchedOff);
        }
        let start = || Running::start(&self.0.settings).map_err(|error| error.to_string());
        let running = self.0.running.get_or_init(start);
        running
            .as_ref()
            .map_err(|reason| Failed::NotStarted(reason.clone()))
    }
}

impl PluginHttp {
    /// Sends a plugin's request and waits for the head of the response. Whoever polls this does so
    /// in a plugin's poll; all work is done on the client's own thread. Dropping it gives the
    /// request up.
    ///
    /// # Errors
    /// What the plugin is told.
    pub async fn fetch(self, request: OutgoingObject) -> Result<IncomingObject, HttpFailure> {
        self.send(request).await.map_err(|failed| failed.into())
    }

    async fn send(self, request: OutgoingObject) -> Result<IncomingObject, Failed> {
        let running = self.client.running()?;
        let exchange = Exchange::read(request, &self.client.0.settings)?;
        let sending = exchange.send(self.clone(), running.pooled.clone());
        let sending = UntilDropped(running.handle().spawn(sending));
        sending.joined().await
    }
}

/// The runtime that does the work, until this is dropped.
#[derive(Debug)]
struct Running {
    /// Taken by `drop` only.
    runtime: Option<Runtime>,
    /// Absent until the system's certificates have been read.
    pooled: watch::Receiver<Option<Arc<Pooled>>>,
}

impl Running {
    /// One thread, of a runtime that could have more: tokio's runtime for a single thread makes a
    /// system call for each wake-up from another thread, this one only where its thread sleeps.
    fn start(settings: &Settings) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(MAX_LOOKUPS)
            .thread_name("http-client")
            .enable_all()
            .build()?;
        let (tell, pooled) = watch::channel(None);
        // Whoever waits for it may give up before, and the next one needs it, too.
        let (extra_roots, room) = (settings.extra_roots.clone(), settings.max_connections);
        let handle = runtime.handle().clone();
        runtime.spawn_blocking(move || {
            let connector = Connector::new(roots::tls(&extra_roots), Room::new(room));
            let pooled = Arc::new(Pooled::new(connector));
            handle.spawn(Arc::clone(&pooled).make_room());
            tell.send_replace(Some(pooled));
        });
        Ok(Self {
            runtime: Some(runtime),
            pooled,
        })
    }

    fn handle(&self) -> &Handle {
        let runtime = self.runtime.as_ref();
        runtime.expect("only dropping takes it").handle()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // This may be its own thread, and a look-up may sit in the system's resolver.
            runtime.shutdown_background();
        }
    }
}

/// The connections.
#[derive(Debug)]
struct Pooled {
    connector: Connector,
    client: Mutex<Client<Connector, Full<Bytes>>>,
}

impl Pooled {
    fn new(connector: Connector) -> Self {
        Self {
            client: Mutex::new(Self::client_of(&connector)),
            connector,
        }
    }

    fn client_of(connector: &Connector) -> Client<Connector, Full<Bytes>> {
        Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME)
            .http1_max_buf_size(MAX_HEAD_BYTES)
            .http1_max_headers(MAX_HEADERS)
            .build(connector.clone())
    }

    fn client(&self) -> Client<Connector, Full<Bytes>> {
        self.client.lock().clone()
    }

    fn room(&self) -> &Arc<Room> {
        self.connector.room()
    }

    /// Closes the connections without a request whenever a new one finds no room: the pool itself
    /// gives up none of one server's for another's.
    async fn make_room(self: Arc<Self>) {
        loop {
            self.room().wanted().await;
            let began = Instant::now();
            // Those with a request are their tasks' and go on; they are not used a second time.
            *self.client.lock() = Self::client_of(&self.connector);
            tokio::time::sleep(RENEW_TIME.saturating_sub(began.elapsed())).await;
        }
    }
}

/// An exchange that ends with whoever waits for it.
struct UntilDropped(JoinHandle<Result<IncomingObject, Failed>>);

impl UntilDropped {
    async fn joined(mut self) -> Result<IncomingObject, Failed> {
        // It is not aborted while somebody waits for it, and its code does not panic.
        let joined = (&mut self.0).await;
        joined.unwrap_or_else(|ended| Err(Failed::NotStarted(ended.to_string())))
    }
}

impl Drop for UntilDropped {
    fn drop(&mut self) {
        self.0.abort();
    }
}
