//! Connections of those who ask: accepted within bounds, each with who is at its other end.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper::{Request, body::Incoming, server::conn::http1, service::Service as _};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::caller::Caller;

/// Connections of one listener at a time; further ones wait to be accepted.
pub const MAX_CONNECTIONS: usize = 64;

/// Time for the head of a request, and until the next one on the same connection.
pub const HEAD_TIME: Duration = Duration::from_secs(10);

/// How long nothing is accepted where the system has no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// How often a port is tried that somebody else still has: the host before this one, mostly.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Serves a Unix socket for ever.
pub async fn serve_unix(listener: UnixListener, router: Router) -> Infallible {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = take(&places).await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let caller = Caller::of(&stream);
                tokio::spawn(serve(stream, caller, router.clone(), place));
            }
            Err(error) => pause(&error).await,
        }
    }
}

/// Serves an address for ever, from when it can be had.
pub async fn serve_tcp(address: SocketAddr, router: Router) -> Infallible {
    let listener = bind(address).await;
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = take(&places).await;
        match listener.accept().await {
            Ok((stream, address)) => {
                let caller = Caller::Remote {
                    address,
                    proof: None,
                };
                tokio::spawn(serve(stream, caller, router.clone(), place));
            }
            Err(error) => pause(&error).await,
        }
    }
}

/// The host before this one on the same listen address has the port until it has drained.
async fn bind(address: SocketAddr) -> TcpListener {
    let mut is_told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                tracing::info!(%address, "answering operators and probes");
                return listener;
            }
            Err(error) => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(%address, %error, "cannot listen yet for operators and probes; trying again");
                }
                tokio::time::sleep(TRY_AGAIN_AFTER).await;
            }
        }
    }
}

async fn take(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(places)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed")
}

async fn pause(error: &io::Error) {
    tracing::debug!(%error, "cannot accept an operator's connection");
    tokio::time::sleep(PAUSE).await;
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    caller: Caller,
    router: Router,
    _place: OwnedSemaphorePermit,
) {
    let inner = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(caller);
        inner.call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%caller, %error, "an operator's connection broke");
    }
}
