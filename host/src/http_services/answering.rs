//! One request to its answer: the plugin whose route it matches executes it.
//!
//! A client learns what went wrong by the status, and nothing of the inside: the reason is in the log.

use std::{
    future::poll_fn,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use futures_util::future::FutureExt;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint},
    header::{self, HeaderMap, HeaderName, HeaderValue},
};
use plugin_abi::abi::{
    FfiFuture, HttpFailure, HttpFailureKind, OwnedField, ROption, RResult, RVec, ReplyParts,
};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::{
    Services,
    connection::Answering,
    table::{Served, Table},
};
use crate::{
    pipeline::{
        FailureReason,
        execute::{
            ExecuteError, Executed, Execution, Order,
            context::Values,
            exchange::{Exchange, NextPiece, Streaming},
        },
    },
    plugin::metadata::Lookup,
    server::access_log::ServiceRequest,
};

/// An answer that streams ends before its end: the client must know that something is missing.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Broken(#[from] ExecuteError);

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, Broken>;

/// Headers that belong to a connection, and are the host's to write.
const OF_THE_CONNECTION: [HeaderName; 7] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// Answers a request. What is dropped with the answer tells that it is over.
pub(super) async fn answer(
    services: &Services,
    request: Request<Incoming>,
    client: Option<IpAddr>,
    answering: Answering,
) -> Response<Body> {
    let began = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let (response, served) = match route(services, &method, &path).await {
        Ok((served, places)) => {
            let plugin = format!("{:?}", served.generation);
            let asked = Asked {
                services,
                served,
                places,
                client,
            };
            (asked.answer(request, answering).await, Some(plugin))
        }
        Err(refused) => {
            answering.has_read_all(request.body().is_end_stream());
            (refused.with(answering), None)
        }
    };
    // The one place where every request is known that was answered, or whose answer has begun.
    let took = began.elapsed();
    let status = response.status().as_u16();
    tracing::debug!(
        %method,
        path,
        status,
        plugin = served,
        microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        "a request to a service"
    );
    if let Some(log) = &services.access_log {
        let request = ServiceRequest {
            client,
            method: method.as_str(),
            path: &path,
            status,
            plugin: served.as_deref(),
        };
        log.write_service(&request, took);
    }
    response
}

/// What a request leads to; while plugins are being loaded for the first time, what it then leads to.
async fn route(
    services: &Services,
    method: &Method,
    path: &str,
) -> Result<(Served, Vec<(String, String)>), Refused> {
    let mut tables = services.tables.clone();
    let found = async {
        loop {
            let table = tables.borrow_and_update().clone();
            if let Some(table) = table {
                match look_up(&table, method, path) {
                    Err(refused) if table.is_incomplete() && refused.is_nothing() => {}
                    found => return found,
                }
            }
            // An error means that the worker ends.
            if tables.changed().await.is_err() {
                return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE));
            }
        }
    };
    let in_time = tokio::time::timeout(services.bounds.request_time, found).await;
    in_time.unwrap_or_else(|_| Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE)))
}

fn look_up(
    table: &Table,
    method: &Method,
    path: &str,
) -> Result<(Served, Vec<(String, String)>), Refused> {
    match table.at(method, path) {
        Lookup::Found(served, places) => Ok((served.clone(), places)),
        Lookup::OtherMethods(methods) => Err(Refused {
            status: StatusCode::METHOD_NOT_ALLOWED,
            allow: HeaderValue::try_from(methods.join(", ")).ok(),
        }),
        Lookup::Nothing => Err(Refused::new(StatusCode::NOT_FOUND)),
    }
}

/// A request that a plugin serves.
struct Asked<'a> {
    services: &'a Services,
    served: Served,
    places: Vec<(String, String)>,
    client: Option<IpAddr>,
}

impl Asked<'_> {
    async fn answer(self, request: Request<Incoming>, answering: Answering) -> Response<Body> {
        let bounds = &self.services.bounds;
        let (parts, body) = request.into_parts();
        if body.size_hint().lower() > bounds.max_body_bytes {
            answering.has_read_all(false);
            return Refused::new(StatusCode::PAYLOAD_TOO_LARGE).with(answering);
        }
        let reading = Arc::new(Mutex::new(Reading {
            is_at_end: body.is_end_stream(),
            left: bounds.max_body_bytes,
            is_too_long: false,
            body,
        }));
        let parameters = self.places.iter().map(|(name, value)| OwnedField {
            name: name.as_bytes().into(),
            value: decoded(value).into(),
        });
        let parameters: Vec<OwnedField> = parameters.collect();
        let (begins, begun) = oneshot::channel();
        let exchange = Exchange {
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().map(str::to_owned),
            route: self.served.route.pattern.as_str().to_owned(),
            client: match self.client {
                Some(IpAddr::V4(v4)) => v4.octets().to_vec(),
                Some(IpAddr::V6(v6)) => v6.octets().to_vec(),
                None => Vec::new(),
            },
            headers: fields(&parts.headers),
            next_piece: pieces_of(&reading),
            begins: Some(begins),
            answered: None,
            parameters: parameters.clone(),
        };
        let own = self.served.generation.rules().timeout;
        let order = Order {
            label: self.served.route.label.clone(),
            values: values_of(&parameters),
            timeout: Some(own.map_or(bounds.request_time, |own| own.min(bounds.request_time))),
            exchange: Some(exchange),
        };
        let generation = Arc::clone(&self.served.generation);
        let mut execution = self.services.executor.execute(generation, order);
        let ended = tokio::select! {
            biased;
            Ok(streaming) = begun => {
                let rest = Rest {
                    reading,
                    answering: Some(answering),
                    execution,
                };
                return streams(streaming, rest);
            }
            ended = &mut execution => ended,
        };
        let is_too_long = finish(&reading, &answering);
        match ended {
            Ok(executed) => whole(executed, answering),
            Err(error) => {
                self.tell(&error);
                let status = match is_too_long {
                    true => StatusCode::PAYLOAD_TOO_LARGE,
                    false => status_of(&error),
                };
                Refused::new(status).with(answering)
            }
        }
    }

    /// Why a client is refused, for the log, which no client can fill.
    fn tell(&self, error: &ExecuteError) {
        let route = self.served.route.to_string();
        let now = tokio::time::Instant::now().into_std();
        if let Some(left_out) = self.services.throttle.allow(&route, now) {
            tracing::warn!(route, reason = %error, left_out, "a request to a service failed");
        }
    }
}

/// Ends the request's body; whether it was longer than it may be.
fn finish(reading: &Arc<Mutex<Reading>>, answering: &Answering) -> bool {
    match reading.try_lock() {
        Ok(reading) => {
            answering.has_read_all(reading.is_at_end);
            reading.is_too_long
        }
        // Somebody still waits for a piece.
        Err(_) => {
            answering.has_read_all(false);
            false
        }
    }
}

fn status_of(error: &ExecuteError) -> StatusCode {
    match error {
        ExecuteError::Unsupported { .. } => StatusCode::NOT_IMPLEMENTED,
        ExecuteError::Busy(_) | ExecuteError::Ending => StatusCode::SERVICE_UNAVAILABLE,
        ExecuteError::Failed(failure) => match failure.reason {
            FailureReason::Deadline(_) => StatusCode::GATEWAY_TIMEOUT,
            FailureReason::NoThread { .. } => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_GATEWAY,
        },
    }
}

/// What the plugin has replied, or the values that it has set.
fn whole(executed: Executed, answering: Answering) -> Response<Body> {
    match executed.reply {
        Some(mut reply) => {
            let body = Bytes::from(std::mem::take(&mut reply.body).into_vec());
            with_head(&reply, boxed(Full::new(body), answering))
        }
        None if executed.values.is_empty() => {
            response(StatusCode::NO_CONTENT, boxed(Full::default(), answering))
        }
        None => {
            let mut response = response(
                StatusCode::OK,
                boxed(Full::new(object(&executed.values)), answering),
            );
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        }
    }
}

/// A JSON object of values that are JSON already.
fn object(values: &Values) -> Bytes {
    let mut json = b"{".to_vec();
    for (at, (name, value)) in values.iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        json.extend(serde_json::Value::from(name.as_str()).to_string().bytes());
        json.push(b':');
        json.extend(value);
    }
    json.push(b'}');
    json.into()
}

fn response(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn boxed(body: Full<Bytes>, answering: Answering) -> Body {
    // The closure is dropped with the body.
    body.map_err(move |never| {
        let _ = &answering;
        match never {}
    })
    .boxed_unsync()
}

/// The head of a reply, which was found to be possible, with a body.
fn with_head(reply: &ReplyParts, body: Body) -> Response<Body> {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = response(status, body);
    for field in &reply.headers {
        let name = HeaderName::from_bytes(&field.name);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(&field.value))
            && !OF_THE_CONNECTION.contains(&name)
        {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// An answer that streams.
fn streams(streaming: Streaming, rest: Rest) -> Response<Body> {
    let Streaming { mut head, pieces } = streaming;
    let first = Bytes::from(std::mem::take(&mut head.body).into_vec());
    let body = Pieces {
        first: (!first.is_empty()).then_some(first),
        pieces,
        rest,
    };
    with_head(&head, body.boxed_unsync())
}

/// What an answer that streams holds until it is over. Dropped before, it cancels the execution.
struct Rest {
    reading: Arc<Mutex<Reading>>,
    answering: Option<Answering>,
    execution: Execution,
}

impl Rest {
    /// How the execution has ended: well, or the client must know that something is missing.
    fn poll_end(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Some(answering) = &self.answering else {
            return Poll::Ready(None);
        };
        let ended = ready!(self.execution.poll_unpin(context));
        finish(&self.reading, answering);
        self.answering = None;
        Poll::Ready(ended.err().map(|error| {
            tracing::warn!(reason = %error, "a request to a service failed in its answer");
            Err(error.into())
        }))
    }
}

/// The body of an answer that streams.
struct Pieces {
    first: Option<Bytes>,
    pieces: mpsc::Receiver<RVec<u8>>,
    rest: Rest,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        match ready!(self.pieces.poll_recv(context)) {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece.into_vec().into())))),
            None => self.rest.poll_end(context),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// The body of a request, as far as it has been read.
struct Reading {
    body: Incoming,
    /// Bytes that may still come.
    left: u64,
    is_at_end: bool,
    is_too_long: bool,
}

impl Reading {
    async fn next(&mut self) -> RResult<ROption<RVec<u8>>, HttpFailure> {
        loop {
            let frame = poll_fn(|context| Pin::new(&mut self.body).poll_frame(context)).await;
            let data = match frame {
                None => {
                    self.is_at_end = true;
                    return RResult::ROk(ROption::RNone);
                }
                Some(Ok(frame)) => frame.into_data(),
                Some(Err(error)) => {
                    return failed(HttpFailureKind::BROKEN, &format!("the client: {error}"));
                }
            };
            // What is no data is a trailer, which nobody wants.
            let Ok(data) = data else { continue };
            match self.left.checked_sub(data.len() as u64) {
                Some(left) => self.left = left,
                None => {
                    self.is_too_long = true;
                    return failed(HttpFailureKind::TOO_LARGE, "the body is too long");
                }
            }
            return RResult::ROk(ROption::RSome(data.to_vec().into()));
        }
    }
}

fn failed<T>(kind: HttpFailureKind, message: &str) -> RResult<T, HttpFailure> {
    RResult::RErr(HttpFailure {
        kind,
        message: message.into(),
    })
}

fn pieces_of(reading: &Arc<Mutex<Reading>>) -> NextPiece {
    let reading = Arc::clone(reading);
    Box::new(move || {
        let reading = Arc::clone(&reading);
        FfiFuture::new(async move { reading.lock().await.next().await })
    })
}

fn fields(headers: &HeaderMap) -> Vec<OwnedField> {
    let fields = headers.iter().map(|(name, value)| OwnedField {
        name: name.as_str().as_bytes().into(),
        value: value.as_bytes().into(),
    });
    fields.collect()
}

/// What the path has in the places of the route, as texts.
fn values_of(parameters: &[OwnedField]) -> Values {
    let values = parameters.iter().map(|field| {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let value = serde_json::Value::from(text(&field.value));
        (text(&field.name), value.to_string().into_bytes())
    });
    values.collect()
}

/// `%41` is `A`.
fn decoded(text: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(text).collect()
}

/// A request that no plugin has answered.
struct Refused {
    status: StatusCode,
    allow: Option<HeaderValue>,
}

impl Refused {
    fn new(status: StatusCode) -> Self {
        Self {
            status,
            allow: None,
        }
    }

    fn is_nothing(&self) -> bool {
        self.status == StatusCode::NOT_FOUND || self.status == StatusCode::METHOD_NOT_ALLOWED
    }

    /// `application/problem+json`, with nothing in it but the status.
    fn with(self, answering: Answering) -> Response<Body> {
        let problem = serde_json::json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Unknown"),
            "status": self.status.as_u16(),
        });
        let body = boxed(Full::new(problem.to_string().into()), answering);
        let mut response = response(self.status, body);
        let json = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        if let Some(allow) = self.allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
        response
    }
}
