//! A response on its way to a plugin: the head as it came, the body piece by piece. No more of the
//! body is in the host than one buffer of the connection; what the plugin does not take, the server
//! cannot send.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::future::poll_immediate;
use http_body_util::BodyExt;
use hyper::{
    Response,
    body::{Body, Bytes, Incoming},
};
use parking_lot::Mutex;
use plugin_abi::abi::{
    FfiFuture, HttpFailure, IncomingObject, IncomingResponse, IncomingResponse_TO, OwnedField,
    ROption, RResult, RSlice, RVec, TD_Opaque,
};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    HttpClient,
    error::{Failed, Server},
    exchange::Places,
};

/// What bounds the rest of an exchange.
pub(super) struct Bounds {
    pub(super) server: Server,
    pub(super) time: Duration,
    pub(super) ends: Instant,
    pub(super) max_body: u64,
}

/// The response as a plugin sees it. Made on the client's runtime, which keeps its time.
///
/// What has come of the body together with the head is taken here, where it costs nothing: from the
/// plugin's thread it would be two more wake-ups of one thread by another.
pub(super) async fn object(
    response: Response<Incoming>,
    bounds: Bounds,
    places: Places,
    client: HttpClient,
) -> IncomingObject {
    let (head, mut body) = response.into_parts();
    let first = first_chunk(&mut body).await;
    let headers = head.headers.iter().map(|(name, value)| OwnedField {
        name: name.as_str().as_bytes().into(),
        value: value.as_bytes().into(),
    });
    let arriving = Arriving {
        headers: headers.collect(),
        status: head.status.as_u16(),
        rest: Arc::new(Mutex::new(Rest {
            first,
            state: State::Open {
                body,
                timer: Box::pin(sleep_until(bounds.ends)),
                _places: places,
                _client: client,
            },
            taken: 0,
            bounds,
        })),
    };
    IncomingResponse_TO::from_value(arriving, TD_Opaque)
}

struct Arriving {
    status: u16,
    headers: RVec<OwnedField>,
    rest: Arc<Mutex<Rest>>,
}

impl IncomingResponse for Arriving {
    fn status(&self) -> u16 {
        self.status
    }

    fn headers(&self) -> RSlice<'_, OwnedField> {
        self.headers.as_rslice()
    }

    fn chunk(&self) -> FfiFuture<RResult<ROption<RVec<u8>>, HttpFailure>> {
        let rest = Arc::clone(&self.rest);
        FfiFuture::new(async move {
            match poll_fn(|context| rest.lock().poll(context)).await {
                Ok(chunk) => RResult::ROk(chunk.map(|bytes| RVec::from(&*bytes)).into()),
                Err(failure) => RResult::RErr(failure),
            }
        })
    }
}

/// The part of the body that has not been taken.
struct Rest {
    /// What came with the head.
    first: Option<Result<Bytes, hyper::Error>>,
    state: State,
    taken: u64,
    bounds: Bounds,
}

enum State {
    Open {
        body: Incoming,
        timer: Pin<Box<Sleep>>,
        _places: Places,
        /// Its thread is needed until here.
        _client: HttpClient,
    },
    /// It is over, and how; the connection and the place are given back.
    Over(Result<(), HttpFailure>),
}

impl Rest {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, HttpFailure>> {
        let next = match &mut self.state {
            State::Over(end) => return Poll::Ready(end.clone().map(|()| None)),
            State::Open { body, timer, .. } => match self.first.take() {
                Some(first) => Poll::Ready(read(first, &self.bounds).map(Some)),
                None => next(body, timer, &self.bounds, context),
            },
        };
        let next = ready!(next).and_then(|chunk| {
            self.taken += chunk.as_ref().map_or(0, Bytes::len) as u64;
            match self.taken > self.bounds.max_body {
                true => Err(Failed::BodyTooLarge(
                    self.bounds.server.clone(),
                    self.bounds.max_body,
                )),
                false => Ok(chunk),
            }
        });
        Poll::Ready(match next {
            Ok(Some(chunk)) => Ok(Some(chunk)),
            Ok(None) => {
                self.state = State::Over(Ok(()));
                Ok(None)
            }
            Err(failed) => {
                let failure = HttpFailure::from(failed);
                self.state = State::Over(Err(failure.clone()));
                Err(failure)
            }
        })
    }
}

/// A piece of the body that is there already. The connection's task needs its turn twice: to hear that
/// somebody wants the body, and to say that there is something.
async fn first_chunk(body: &mut Incoming) -> Option<Result<Bytes, hyper::Error>> {
    for turn in 0..2 {
        if turn > 0 {
            tokio::task::yield_now().await;
        }
        match poll_immediate(body.frame()).await {
            Some(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) if !data.is_empty() => return Some(Ok(data)),
                // Trailers, or nothing: the rest will tell.
                _ => return None,
            },
            Some(Some(Err(error))) => return Some(Err(error)),
            Some(None) => return None,
            None => {}
        }
    }
    None
}

fn read<T>(read: Result<T, hyper::Error>, bounds: &Bounds) -> Result<T, Failed> {
    read.map_err(|error| Failed::of_connection(bounds.server.clone(), &error))
}

fn next(
    body: &mut Incoming,
    timer: &mut Pin<Box<Sleep>>,
    bounds: &Bounds,
    context: &mut Context<'_>,
) -> Poll<Result<Option<Bytes>, Failed>> {
    loop {
        match Pin::new(&mut *body).poll_frame(context) {
            // Trailers are nobody's.
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Poll::Ready(Ok(Some(data))),
                Err(_trailers) => {}
            },
            Poll::Ready(Some(Err(error))) => return Poll::Ready(read(Err(error), bounds)),
            Poll::Ready(None) => return Poll::Ready(Ok(None)),
            Poll::Pending => break,
        }
    }
    ready!(timer.as_mut().poll(context));
    Poll::Ready(Err(Failed::Timeout {
        server: bounds.server.clone(),
        what: "has not sent its whole answer",
        time: bounds.time,
    }))
}
