//! The control socket of a host: what concerns workers is answered here, everything else by the
//! worker that serves, whose own socket nobody else knows.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/host` | [`Overview`] |
//! | `POST /v1/worker/replace` | `{}`, when another worker has taken over |
//! | `POST /v1/host/renew` | the release that takes over in a moment |
//! | `POST /v1/plugins/NAME/lift` | the worker's, after the quarantine has ended here too |
//! | any other | the worker's, see [`crate::control`] |

use std::{ffi::OsString, path::PathBuf, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path as Named, State},
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{
    net::UnixStream,
    sync::{mpsc, oneshot, watch},
};

use super::{
    Request,
    renewal::{self, Heir},
};
use crate::{
    control::{self, Refused},
    crash::Quarantined,
    listen::Binding,
    runtime_dir::RuntimeDir,
};

/// How it stands with the workers.
#[derive(Debug, Clone, Serialize)]
pub struct Overview {
    /// Every worker that lives.
    pub workers: Vec<WorkerOverview>,
    /// Connections that have come to stay.
    pub connections: usize,
    /// How many of them do nothing at this moment.
    pub idle_connections: usize,
    /// Calls that are open on the others.
    pub open_calls: usize,
    /// Builds of plugins that have ended too many workers.
    pub quarantined: Vec<Quarantined>,
    /// The supervisor's release.
    pub release: &'static str,
    /// Times that a next release took over.
    pub renewals: u64,
    /// Workers that died without having been told to.
    pub crashes: u64,
    /// Times that one worker took over from another.
    pub replacements: u64,
    /// Calls that were inside a worker when it died.
    pub calls_lost: u64,
    /// Connections closed because a frame was under way when their worker died.
    pub connections_cut: u64,
}

/// One worker.
#[derive(Debug, Clone, Serialize)]
pub struct WorkerOverview {
    /// Its number, counted from 1.
    pub worker: u32,
    /// Its process.
    pub pid: i32,
    /// `starting`, `ready`, `serving`, `leaving` or `stopping`.
    pub phase: &'static str,
    /// Its release, once it has said it.
    pub version: Option<String>,
    /// Seconds since it was started.
    pub uptime_seconds: u64,
}

/// What requests are answered with.
#[derive(Debug, Clone)]
pub(super) struct Api {
    pub(super) supervisor: mpsc::Sender<Request>,
    /// The control socket of the worker that serves.
    pub(super) serving: watch::Receiver<Option<PathBuf>>,
    /// Whether operators may ask something of it that it has to remember.
    pub(super) may_command: watch::Receiver<bool>,
    /// Where the next release's program is.
    pub(super) program: PathBuf,
    /// What this one was started with.
    pub(super) arguments: Arc<[OsString]>,
}

/// Opens the control socket on the current runtime. Without one the host serves all the same, and
/// says so. Dropping the binding removes the socket.
pub(super) fn serve(runtime_dir: &RuntimeDir, api: Api) -> Option<Binding> {
    let path = control::socket_path(runtime_dir.shared());
    let lock = runtime_dir
        .address_lock()
        .inspect_err(|error| tracing::error!(%error, "there is no control socket"))
        .ok()?;
    let (binding, listener) = Binding::bind(&path, control::SOCKET_MODE, control::BACKLOG, lock)
        .inspect_err(|error| tracing::error!(%error, "there is no control socket"))
        .ok()?;
    let router = Router::new()
        .route("/v1/host", get(overview))
        .route("/v1/worker/replace", post(replace))
        .route("/v1/host/renew", post(renew))
        .route("/v1/plugins/{name}/lift", post(lift))
        .fallback(ask_worker)
        .with_state(api);
    tokio::spawn(async move {
        let served = match tokio::net::UnixListener::from_std(listener) {
            Ok(listener) => axum::serve(listener, router).await,
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            tracing::error!(%error, "the control socket has failed; calls are served all the same");
        }
    });
    Some(binding)
}

async fn overview(State(api): State<Api>) -> Result<Json<Overview>, Refused> {
    api.ask(Request::Overview).await.map(Json)
}

async fn replace(State(api): State<Api>) -> Result<Json<Value>, Refused> {
    tracing::info!("an operator asks for another worker");
    match api.ask(Request::Replace).await? {
        Ok(()) => Ok(Json(json!({}))),
        Err(detail) => Err(Refused::new(StatusCode::CONFLICT, detail)),
    }
}

async fn lift(
    State(api): State<Api>,
    Named(plugin): Named<String>,
    request: axum::extract::Request,
) -> Result<Response, Refused> {
    api.ask(|done| Request::Lift { plugin, done }).await?;
    Ok(ask_worker(State(api), request).await)
}

async fn renew(State(api): State<Api>) -> Result<Json<Heir>, Refused> {
    tracing::info!("an operator asks for the next release");
    let (program, arguments) = (api.program.clone(), Arc::clone(&api.arguments));
    // It runs the program, which may take its time.
    let examined = tokio::task::spawn_blocking(move || renewal::examine(&program, &arguments));
    let heir = examined
        .await
        .expect("examining a program does not panic")
        .map_err(|detail| Refused::new(StatusCode::CONFLICT, detail))?;
    match api.ask(Request::Renew).await? {
        Ok(()) => Ok(Json(heir)),
        Err(detail) => Err(Refused::new(StatusCode::CONFLICT, detail)),
    }
}

impl Api {
    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, Refused> {
        let (done, answer) = oneshot::channel();
        let asked = self.supervisor.send(request(done)).await;
        asked.map_err(|_| control::stopping())?;
        answer.await.map_err(|_| control::stopping())
    }
}

/// Passes a request on to the worker that serves.
async fn ask_worker(State(mut api): State<Api>, request: axum::extract::Request) -> Response {
    let commands = request.method() != Method::GET;
    if commands {
        // A worker that is about to go would forget it. An error means that the host stops.
        let _ = api.may_command.wait_for(|may| *may).await;
    }
    // Between a worker's death and the next one there is none, for a moment.
    let path = match api.serving.wait_for(Option::is_some).await {
        Ok(path) => path.clone(),
        Err(_) => None,
    };
    let Some(path) = path else {
        return control::stopping().into_response();
    };
    let answered = pass_on(path, request).await;
    if commands {
        let _ = api.supervisor.send(Request::Commanded).await;
    }
    match answered {
        Ok(response) => response,
        Err(error) => Refused::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the worker did not answer: {error}; ask again"),
        )
        .into_response(),
    }
}

async fn pass_on(
    path: PathBuf,
    request: axum::extract::Request,
) -> Result<Response, Box<dyn std::error::Error + Send + Sync>> {
    let stream = connect(&path).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the connection; what goes wrong in it shows in the exchange.
    tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    Ok(response.map(Body::new))
}

/// A worker that has just been started opens its control socket a moment after it serves.
async fn connect(path: &std::path::Path) -> std::io::Result<UnixStream> {
    const TRIES: u32 = 100;
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);
    for _ in 1..TRIES {
        if let Ok(stream) = UnixStream::connect(path).await {
            return Ok(stream);
        }
        tokio::time::sleep(PAUSE).await;
    }
    UnixStream::connect(path).await
}
