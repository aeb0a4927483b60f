//! Accepts clients, bounds them, and takes each request to its answer.
//!
//! HTTP/1 only, as plugins see nothing else. This module knows no plugin.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::RwLock;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::answer::{self, Body};
use super::body::Counted;
use super::event::{Listener, RequestDone};
use super::exchange::{Client, Exchange};
use super::phases::Phases;
use super::routes::RouteTable;
use super::runner::Runner;
use crate::client::Field;
use crate::client::target::Target;

/// Headers of a request, at most.
const MAX_HEADERS: usize = 200;

/// Bytes of a request's head, at most.
const MAX_HEAD: usize = 64 << 10;

/// How long a client may take for a request's head.
const HEAD_PATIENCE: Duration = Duration::from_secs(60);

/// How long a client may take for a request's body.
const BODY_PATIENCE: Duration = Duration::from_secs(60);

/// How long requests that are open at the end may go on.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// Pause after an error that accepting cannot get around, such as no descriptors being left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a gateway is made with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The host's socket.
    pub socket: PathBuf,
    /// What the host is told as `APISIX_CONF_EXPIRE_TIME`.
    pub token_expiry: Duration,
    /// Bytes of a body, at most: a request's, and a response's that plugins look at.
    pub max_body_bytes: usize,
    /// Clients' connections at the same time, at most; further ones wait.
    pub max_connections: usize,
}

/// A gateway's worker.
pub struct Gateway {
    runner: Runner,
    routes: RwLock<Arc<RouteTable>>,
    listener: Arc<Listener>,
    max_body: usize,
    max_connections: usize,
    turn: AtomicU64,
}

/// No client can be accepted.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The port is no good: the operator's to put right.
    #[error("cannot listen on {address}: {source}{}", next_step(source))]
    Bind {
        /// Where.
        address: SocketAddr,
        /// The operating system's reason.
        source: io::Error,
    },
}

fn next_step(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program has this port: end it, or name another one with --listen"
        }
        io::ErrorKind::PermissionDenied => "; ports below 1024 are root's: name a higher one",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        _ => "",
    }
}

/// Takes the port.
///
/// # Errors
/// [`ServeError::Bind`].
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| ServeError::Bind { address, source })
}

impl Gateway {
    /// A gateway that tells `listener` what it does.
    #[must_use]
    pub fn new(options: &Options, routes: Arc<RouteTable>, listener: Arc<Listener>) -> Arc<Self> {
        Arc::new(Self {
            runner: Runner::new(options.socket.clone(), options.token_expiry),
            routes: RwLock::new(routes),
            listener,
            max_body: options.max_body_bytes,
            max_connections: options.max_connections,
            turn: AtomicU64::new(0),
        })
    }

    /// Takes the routes of an edited file; requests that are open keep theirs.
    pub fn replace_routes(&self, routes: Arc<RouteTable>) {
        *self.routes.write() = routes;
    }

    /// Forgets all tokens, as every worker does when the host has ended.
    pub fn host_has_ended(&self) {
        self.runner.forget_tokens();
    }

    /// Whether a host can be reached.
    pub async fn reaches_host(&self) -> bool {
        self.runner.is_there().await
    }
}

/// Serves clients until `shutdown`; then open requests may end, for at most 5 s.
pub async fn serve(
    gateway: Arc<Gateway>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(gateway.max_connections));
    let (stop, stopped) = watch::channel(());
    let mut connections = 0;
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, client, place)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        connections += 1;
        let gateway = Arc::clone(&gateway);
        let stopped = stopped.clone();
        tokio::spawn(async move {
            converse(gateway, stream, client, connections, stopped).await;
            drop(place);
        });
    }
    drop(listener);
    drop(stopped);
    let _ = stop.send(());
    if tokio::time::timeout(DRAIN_TIME, stop.closed())
        .await
        .is_err()
    {
        tracing::warn!("requests did not end in time; leaving without them");
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, client)) => Some((stream, client, place)),
        Err(error) => {
            tracing::warn!(%error, "cannot accept a client");
            None
        }
    }
}

/// Serves one connection to its end.
async fn converse(
    gateway: Arc<Gateway>,
    stream: TcpStream,
    client: SocketAddr,
    connection: u64,
    mut stopped: watch::Receiver<()>,
) {
    let Ok(server) = stream.local_addr() else {
        return;
    };
    // An answer is written at once.
    let _ = stream.set_nodelay(true);
    let requests = AtomicU64::new(0);
    let service = service_fn(move |request| {
        let requests = requests.fetch_add(1, Ordering::Relaxed) + 1;
        let peer = Client {
            client,
            server,
            connection,
            requests,
        };
        let gateway = Arc::clone(&gateway);
        async move { Ok::<_, Infallible>(gateway.respond(peer, request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .preserve_header_case(true)
        .title_case_headers(true)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    let ended = tokio::select! {
        ended = &mut served => ended,
        _ = stopped.changed() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%client, %error, "a client's connection has ended");
    }
}

/// What a client has sent, before it is known where it goes.
struct Arrived {
    target: Target,
    headers: Vec<Field>,
}

impl Gateway {
    async fn respond(&self, peer: Client, request: Request<Incoming>) -> Response<Counted> {
        let began = Instant::now();
        let protocol = match request.version() {
            Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        };
        let line = format!("{} {} {protocol}", request.method(), request.uri());
        let header = |name: &str| request.headers().get(name).map(|v| v.as_bytes().to_vec());
        let told = ["host", "referer", "user-agent"].map(header);
        let received = std::time::SystemTime::now();
        let mut reached = None;
        let mut response = match self.exchange(peer, protocol, request).await {
            Ok((mut exchange, spelling)) => {
                let phases = Phases {
                    runner: &self.runner,
                    listener: &*self.listener,
                    max_body: self.max_body,
                    turn: &self.turn,
                };
                let response = phases.run(&mut exchange, spelling).await;
                reached = exchange.reached;
                response
            }
            Err(response) => *response,
        };
        answer::finish(&mut response);
        let done = RequestDone {
            client: peer.client.ip(),
            received,
            request: line,
            headers: told,
            status: response.status().as_u16(),
            sent: 0,
            took: Duration::ZERO,
            upstream: reached,
        };
        let listener = Arc::clone(&self.listener);
        response.map(|body| Counted::new(body, began, done, listener))
    }

    /// Finds the route and reads the body; gives the answer where that is not possible.
    async fn exchange(
        &self,
        peer: Client,
        protocol: &'static str,
        request: Request<Incoming>,
    ) -> Result<(Exchange, hyper::http::Extensions), Box<Response<Body>>> {
        let (parts, body) = request.into_parts();
        if matches!(parts.method, Method::CONNECT | Method::TRACE) {
            return Err(Box::new(answer::error_page(405)));
        }
        let Some(arrived) = arrived(&parts) else {
            return Err(Box::new(answer::error_page(400)));
        };
        let host = arrived.headers.iter().find(|header| header.name == b"host");
        let host = host.and_then(|host| host.value.as_deref());
        let routes = Arc::clone(&self.routes.read());
        let found = routes.find(host, parts.method.as_str(), &arrived.target.path);
        let Some(route) = found.cloned() else {
            return Err(Box::new(answer::no_route()));
        };
        let body = self.read(body).await?;
        let exchange = Exchange::new(
            peer,
            protocol,
            parts.method,
            arrived.target,
            arrived.headers,
            body,
            route,
            request_id(),
        );
        Ok((exchange, parts.extensions))
    }

    async fn read(&self, body: Incoming) -> Result<Bytes, Box<Response<Body>>> {
        let limit = self.max_body;
        let refused = |status| Err(Box::new(closing(answer::error_page(status))));
        if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
            tracing::warn!(
                limit,
                "a request's body is too large; --max-body-bytes raises the bound"
            );
            return refused(413);
        }
        let collected = tokio::time::timeout(BODY_PATIENCE, Limited::new(body, limit).collect());
        match collected.await {
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                tracing::warn!(
                    limit,
                    "a request's body is too large; --max-body-bytes raises the bound"
                );
                refused(413)
            }
            Ok(Err(_)) => refused(400),
            Err(_) => refused(408),
        }
    }
}

/// What has not been read of a request stands in the way of the next one.
fn closing(mut response: Response<Body>) -> Response<Body> {
    let close = hyper::header::HeaderValue::from_static("close");
    let headers = response.headers_mut();
    headers.insert(hyper::header::CONNECTION, close);
    response
}

/// None where Nginx refuses it.
fn arrived(parts: &hyper::http::request::Parts) -> Option<Arrived> {
    let target = parts
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let target = Target::parse(target).ok()?;
    let mut headers: Vec<Field> = Vec::with_capacity(parts.headers.len());
    for (name, value) in &parts.headers {
        headers.push(Field::new(name.as_str(), value.as_bytes()));
    }
    // The host of `GET http://host/path` wins.
    if let Some(authority) = parts.uri.authority() {
        headers.retain(|header| header.name != b"host");
        headers.push(Field::new("host", authority.as_str()));
    }
    let hosts = headers
        .iter()
        .filter(|header| header.name == b"host")
        .count();
    let needed = usize::from(parts.version == Version::HTTP_11);
    (needed..=1)
        .contains(&hosts)
        .then_some(Arrived { target, headers })
}

/// 32 hexadecimal digits that no other request has.
fn request_id() -> String {
    use std::hash::{BuildHasher, RandomState};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let [high, low] = [RandomState::new(), RandomState::new()].map(|state| state.hash_one(number));
    format!("{high:016x}{low:016x}")
}
