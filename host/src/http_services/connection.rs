//! One client, request after request, until it goes away, the worker ends, or another worker takes it
//! over: between two requests, with what has been read of the next one, so that none is lost.

use std::{
    convert::Infallible,
    future::poll_fn,
    os::fd::OwnedFd,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use futures_util::future::{BoxFuture, FutureExt};
use hyper::{
    Request, Response, Version,
    body::Incoming,
    header::{CONNECTION, HeaderMap},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{io::AsyncWriteExt, sync::watch};

use super::{
    HEAD_TIME, MAX_HEAD_BYTES, MAX_HEADERS, Services,
    answering::{Body, answer},
    stream::Stream,
};
use crate::server::Shutdown;

/// A client that somebody else has to serve: its socket, and what has been read of its next request.
pub type HandedOver = (OwnedFd, Vec<u8>);

/// Where a connection is, as far as it matters to whoever would take it over.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// A request has come.
    has_begun: AtomicBool,
    /// A request is being answered.
    is_busy: AtomicBool,
    /// Nothing can follow the request that is, or was, being answered.
    is_last: AtomicBool,
}

/// Says that a request has been answered, or given up, when it is dropped.
#[derive(Debug)]
pub(super) struct Answering(Arc<Progress>);

impl Answering {
    /// The body of the request is not read to its end: what is left of it is no next request.
    pub(super) fn has_read_all(&self, all: bool) {
        if !all {
            self.0.is_last.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.is_busy.store(false, Ordering::Relaxed);
    }
}

/// Serves a client; gives it back where another worker is to take it over.
pub async fn serve(
    stream: Stream,
    services: Arc<Services>,
    mut shutdown: watch::Receiver<Shutdown>,
) -> Option<HandedOver> {
    let client = stream.client();
    let progress = Arc::new(Progress::default());
    let of_service = Arc::clone(&progress);
    let service = service_fn(move |request: Request<Incoming>| {
        let progress = Arc::clone(&of_service);
        progress.has_begun.store(true, Ordering::Relaxed);
        progress.is_busy.store(true, Ordering::Relaxed);
        if is_last(&request) {
            progress.is_last.store(true, Ordering::Relaxed);
        }
        let answering = Answering(progress);
        let services = Arc::clone(&services);
        let answered: BoxFuture<'static, Result<Response<Body>, Infallible>> =
            async move { Ok(answer(&services, request, client, answering).await) }.boxed();
        answered
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    shutdown.mark_changed();
    let mut next_state = changed(shutdown);
    let mut state = Shutdown::Running;
    // Whether it ends between two requests, for another worker or for good.
    let mut ends: Option<Ends> = None;
    let served = poll_fn(|context| {
        loop {
            if let Poll::Ready(served) = connection.poll_without_shutdown(context) {
                return Poll::Ready(served);
            }
            if ends.is_none()
                && let Some(how) = progress.ends(state)
            {
                ends = Some(how);
                if how == Ends::HereOnly && !progress.has_begun.load(Ordering::Relaxed) {
                    // Nothing has been written, and what has been read is still there: a part of a head
                    // would be waited for otherwise.
                    return Poll::Ready(Ok(()));
                }
                Pin::new(&mut connection).graceful_shutdown();
                continue;
            }
            // Only a worker that ends has no state to come.
            match next_state.poll_unpin(context) {
                Poll::Ready(Some((now, shutdown))) => {
                    state = now;
                    next_state = changed(shutdown);
                }
                Poll::Ready(None) => {
                    state = Shutdown::HandedOver;
                    next_state = std::future::pending().boxed();
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a client of a service broke off");
        return None;
    }
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    if ends != Some(Ends::HereOnly) || progress.is_last.load(Ordering::Relaxed) {
        let _ = stream.shutdown().await;
        return None;
    }
    let (socket, unread) = stream.into_parts().ok()?;
    Some((socket, [parts.read_buf, unread].concat()))
}

/// How a connection ends that the client does not end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// Another worker goes on with it.
    HereOnly,
    /// For good.
    Everywhere,
}

impl Progress {
    /// Whether it is time to end, and how. Another worker takes it over between two requests and at no
    /// other time; what ends for good says so in the answer.
    fn ends(&self, state: Shutdown) -> Option<Ends> {
        match state {
            Shutdown::Running => None,
            Shutdown::Standby if self.is_busy.load(Ordering::Relaxed) => None,
            Shutdown::Standby => Some(Ends::HereOnly),
            Shutdown::Drain | Shutdown::HandedOver => Some(Ends::Everywhere),
        }
    }
}

type NextState = BoxFuture<'static, Option<(Shutdown, watch::Receiver<Shutdown>)>>;

/// The next state of the worker, or the one that it is in and nobody has looked at.
fn changed(mut shutdown: watch::Receiver<Shutdown>) -> NextState {
    async move {
        shutdown.changed().await.ok()?;
        let now = *shutdown.borrow_and_update();
        Some((now, shutdown))
    }
    .boxed()
}

/// Whether the client wants nothing after this one.
fn is_last(request: &Request<Incoming>) -> bool {
    let says = |headers: &HeaderMap, what: &str| {
        headers.get_all(CONNECTION).iter().any(|value| {
            let value = value.to_str().unwrap_or_default();
            value
                .split(',')
                .any(|part| part.trim().eq_ignore_ascii_case(what))
        })
    };
    match request.version() {
        Version::HTTP_11 => says(request.headers(), "close"),
        _ => !says(request.headers(), "keep-alive"),
    }
}
