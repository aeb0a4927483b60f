//! Passes a request on to the worker that serves.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{
    body::Body,
    extract::{RawPathParams, State},
    http::{HeaderValue, Method, Request as HttpRequest, Uri, header},
    response::{IntoResponse, Response},
};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use super::{Api, Request};
use crate::{
    control::{
        caller::{ASKED_BY, Caller},
        problem::{Problem, Refused},
        worker::PutAside,
    },
    crash::Culprit,
    listen::short_path::ShortPath,
    plugin::{disabled::DisabledPlugin, manager::utc, metadata::PluginName},
};

/// How long an overview waits for the worker's part of it.
pub(super) const LOOK_TIME: Duration = Duration::from_secs(5);

/// What a worker is asked.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    /// Which form of an answer is wanted.
    pub(super) accept: Option<&'a HeaderValue>,
    pub(super) by: &'a str,
}

impl<'a> Asked<'a> {
    pub(super) fn by_the_supervisor(method: &'a Method, uri: &'a Uri) -> Self {
        Self {
            method,
            uri,
            accept: None,
            by: "the supervisor",
        }
    }
}

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Passes on what an operator asks for; what outlives the worker is remembered here too.
pub(super) async fn pass(
    State(api): State<Api>,
    named: RawPathParams,
    request: axum::extract::Request,
) -> Result<Response, Refused> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let caller = request.extensions().get::<Caller>();
    let by = caller.map_or_else(|| "an operator".to_owned(), ToString::to_string);
    let action = uri.path().rsplit('/').next().unwrap_or_default().to_owned();
    let plugin = named.iter().next();
    let plugin = plugin.map_or_else(String::new, |(_, name)| name.to_owned());
    if method == Method::POST {
        before(&api, &action, &plugin, &by).await?;
    }
    let asked = Asked {
        method: &method,
        uri: &uri,
        accept: request.headers().get(header::ACCEPT),
        by: &by,
    };
    let response = api.ask_worker(asked).await?;
    if method != Method::POST || action != "quarantine" || !response.status().is_success() {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(broken)?.to_bytes();
    let put: PutAside = serde_json::from_slice(&body).map_err(broken)?;
    let culprit = Culprit {
        name: put.name,
        version: put.version,
        digest: put.digest,
    };
    api.ask(|done| Request::Quarantine { culprit, by, done })
        .await?;
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// What has to be known here before the worker acts on it: it may die of it.
async fn before(api: &Api, action: &str, plugin: &str, by: &str) -> Result<(), Refused> {
    let (plugin, by) = (plugin.to_owned(), by.to_owned());
    match action {
        "lift" => api.ask(|done| Request::Lift { plugin, by, done }).await,
        "enable" => remembered(api.ask(|done| Request::Enable { plugin, by, done }).await?),
        "disable" => {
            let name = PluginName::new(&plugin)
                .map_err(|error| Refused::bad_request(format!("`{plugin}`: {error}")))?;
            let plugin = DisabledPlugin {
                name,
                since: utc(std::time::SystemTime::now()),
                by,
            };
            remembered(api.ask(|done| Request::Disable { plugin, done }).await?)
        }
        _ => Ok(()),
    }
}

fn remembered(result: Result<(), String>) -> Result<(), Refused> {
    result.map_err(|reason| Refused::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, reason))
}

impl Api {
    /// Asks the worker that serves, as soon as there is one.
    pub(super) async fn ask_worker(&self, asked: Asked<'_>) -> Result<Response, Refused> {
        let mut api = self.clone();
        let commands = !asked.method.is_safe();
        if commands {
            // A worker that is about to go would forget it. An error means that the host stops.
            let _ = api.may_command.wait_for(|may| *may).await;
        }
        let path = api.worker_that_serves().await?;
        let answered = exchange(&path, asked, Body::empty()).await;
        if commands {
            let _ = api.supervisor.send(Request::Commanded).await;
        }
        answered.map_err(broken)
    }

    /// The control socket of the worker that serves, as soon as there is one: between a worker's death
    /// and the next one there is none, for a moment.
    pub(super) async fn worker_that_serves(&mut self) -> Result<PathBuf, Refused> {
        let path = match self.serving.wait_for(Option::is_some).await {
            Ok(path) => path.clone(),
            Err(_) => None,
        };
        path.ok_or_else(Refused::stopping)
    }

    /// What the worker that serves tells, where it does so soon.
    pub(super) async fn look_at_worker<T: DeserializeOwned>(
        &self,
        path: &'static str,
    ) -> Result<T, String> {
        let uri = Uri::from_static(path);
        let looking = async {
            let response = self
                .ask_worker(Asked::by_the_supervisor(&Method::GET, &uri))
                .await
                .map_err(|_| "the host is stopping, or its worker broke off".to_owned())?;
            let body = response.into_body().collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            serde_json::from_slice(&body).map_err(|error| error.to_string())
        };
        tokio::time::timeout(LOOK_TIME, looking)
            .await
            .unwrap_or_else(|_| {
                Err(format!(
                    "no worker has answered for {} s",
                    LOOK_TIME.as_secs()
                ))
            })
    }

    /// Tells the worker that serves something that only the supervisor may say.
    pub(super) async fn tell_worker(
        &self,
        path: &'static str,
        body: &impl Serialize,
    ) -> Result<(), String> {
        let worker = self.serving.borrow().clone();
        // Whoever serves next is told when it starts.
        let Some(worker) = worker else { return Ok(()) };
        let telling = post(&worker, path, body);
        let response = tokio::time::timeout(LOOK_TIME, telling)
            .await
            .map_err(|_| "the worker does not answer".to_owned())?
            .map_err(|error| error.to_string())?;
        match response.status().is_success() {
            true => Ok(()),
            false => Err(format!("the worker answers {}", response.status())),
        }
    }

    /// Has the worker that serves do something that only the supervisor may ask for.
    pub(super) async fn have_worker<T: DeserializeOwned>(
        &self,
        path: &'static str,
        body: &impl Serialize,
    ) -> Result<T, Refused> {
        let mut serving = self.serving.clone();
        let worker = serving.wait_for(Option::is_some).await;
        let worker = worker.ok().and_then(|worker| worker.clone());
        let worker = worker.ok_or_else(Refused::stopping)?;
        let response = post(&worker, path, body).await.map_err(broken)?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(broken)?;
        if status.is_success() {
            return serde_json::from_slice(&body.to_bytes()).map_err(broken);
        }
        let problem: Problem = serde_json::from_slice(&body.to_bytes()).map_err(broken)?;
        Err(Refused::new(status, problem.detail))
    }
}

/// Asks something that only the supervisor may ask.
async fn post(
    worker: &Path,
    path: &'static str,
    body: &impl Serialize,
) -> Result<Response, BoxError> {
    let uri = Uri::from_static(path);
    let asked = Asked::by_the_supervisor(&Method::POST, &uri);
    exchange(worker, asked, Body::from(serde_json::to_vec(body)?)).await
}

pub(super) fn broken(error: impl Into<BoxError>) -> Refused {
    Refused::unavailable(format!(
        "the worker did not answer: {}; ask again",
        error.into()
    ))
}

async fn exchange(path: &Path, asked: Asked<'_>, body: Body) -> Result<Response, BoxError> {
    converse(connect(path).await?, asked, body).await
}

/// Asks over a connection, which ends with the answer, or when nobody waits for it any more.
pub(super) async fn converse(
    stream: UnixStream,
    asked: Asked<'_>,
    body: Body,
) -> Result<Response, BoxError> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the connection; what goes wrong in it shows in the exchange.
    tokio::spawn(connection);
    let path = asked.uri.path_and_query();
    let mut request = HttpRequest::builder()
        .method(asked.method)
        .uri(path.map_or("/", |path| path.as_str()))
        .header(header::HOST, "worker")
        .header(header::CONTENT_TYPE, "application/json")
        .header(ASKED_BY, HeaderValue::from_str(asked.by)?);
    if let Some(accept) = asked.accept {
        request = request.header(header::ACCEPT, accept);
    }
    let request = request.body(body)?;
    let response = sender.send_request(request).await?;
    Ok(response.map(Body::new).into_response())
}

/// A worker that has just been started opens its control socket a moment after it serves.
pub(super) async fn connect(path: &Path) -> io::Result<UnixStream> {
    const TRIES: u32 = 100;
    const PAUSE: Duration = Duration::from_millis(20);
    let path = ShortPath::of(path)?;
    for _ in 1..TRIES {
        if let Ok(stream) = UnixStream::connect(path.as_path()).await {
            return Ok(stream);
        }
        tokio::time::sleep(PAUSE).await;
    }
    UnixStream::connect(path.as_path()).await
}
