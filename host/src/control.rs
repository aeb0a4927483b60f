//! The control socket: HTTP with JSON over a Unix socket of mode 0600 in the runtime directory.
//!
//! What operators may ask for is handed to the [`crate::keeper`]; nothing is decided here, and
//! nothing of a call is touched. The socket follows the same rules as the gateway's: bound by
//! renaming, removed only while it is still ours, so that a successor's is never lost.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | [`Status`] |
//! | `POST /v1/reload?force=true` | [`Reloaded`] |
//! | `POST /v1/plugins/NAME/rollback?force=true` | [`RolledBack`] |
//! | `POST /v1/plugins/NAME/unblock` | [`Unblocked`] |
//! | `POST /v1/plugins/NAME/lift` | [`Reloaded`] |
//! | `GET /metrics` | the [exposition](crate::metrics), in the format that `Accept` asks for |
//!
//! What is refused is answered with `application/problem+json` (RFC 9457): `title`, `status` and
//! `detail`.

pub mod client;

use std::{
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::{Path as Named, Query, State},
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::{
    keeper::{Reloaded, Request},
    metrics::{Format, Metrics},
    plugin::manager::{RollbackError, Status, Vetoes},
};

/// Name of the socket in the runtime directory of a listen address.
pub const SOCKET_NAME: &str = "control.sock";

/// Permissions of the socket: its owner alone.
pub const SOCKET_MODE: u32 = 0o600;

/// Connections that may wait to be accepted.
pub const BACKLOG: u32 = 16;

/// Where the control socket of a host lies.
pub fn socket_path(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join(SOCKET_NAME)
}

/// What came of a roll-back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RolledBack {
    /// Name and version that serve now.
    pub serving: String,
}

/// What came of trusting a plugin with the event loops again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Unblocked {
    /// Name and version of what had been found to hold them up.
    pub unblocked: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Force {
    #[serde(default)]
    force: bool,
}

impl Force {
    fn vetoes(&self) -> Vetoes {
        if self.force {
            Vetoes::Overruled
        } else {
            Vetoes::Count
        }
    }
}

/// Why a request was not done.
#[derive(Debug)]
pub(crate) struct Refused {
    status: StatusCode,
    detail: String,
}

impl Refused {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
        }
    }
}

#[derive(Serialize)]
struct Problem<'a> {
    title: &'a str,
    status: u16,
    detail: &'a str,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let problem = Problem {
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            detail: &self.detail,
        };
        let mut response = (self.status, Json(problem)).into_response();
        response.headers_mut().insert(
            CONTENT_TYPE,
            "application/problem+json"
                .parse()
                .expect("a constant is a header value"),
        );
        response
    }
}

/// The host is stopping: nobody is there to do it.
pub(crate) fn stopping() -> Refused {
    Refused {
        status: StatusCode::SERVICE_UNAVAILABLE,
        detail: "the host is stopping".to_owned(),
    }
}

/// Serves the control socket until the listener fails.
pub async fn serve(listener: UnixListener, keeper: mpsc::Sender<Request>, metrics: Arc<Metrics>) {
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/reload", post(reload))
        .route("/v1/plugins/{name}/rollback", post(rollback))
        .route("/v1/plugins/{name}/unblock", post(unblock))
        .route("/v1/plugins/{name}/lift", post(lift))
        .with_state(keeper)
        .route(
            "/metrics",
            get(move |headers: HeaderMap| async move { exposition(&metrics, &headers) }),
        );
    let served = match tokio::net::UnixListener::from_std(listener) {
        Ok(listener) => axum::serve(listener, router).await,
        Err(error) => Err(error),
    };
    if let Err(error) = served {
        tracing::error!(%error, "the control socket has failed; calls are served all the same");
    }
}

fn exposition(metrics: &Metrics, headers: &HeaderMap) -> Result<Response, Refused> {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = Format::accepted(accept.unwrap_or_default());
    let exposition = metrics.expose(format).map_err(|error| {
        let detail = format!("the metrics cannot be written: {error}");
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    })?;
    Ok(([(CONTENT_TYPE, format.content_type())], exposition).into_response())
}

async fn status(State(keeper): State<mpsc::Sender<Request>>) -> Result<Json<Status>, Refused> {
    ask(&keeper, |done| Request::Status { done })
        .await
        .map(Json)
}

async fn reload(
    State(keeper): State<mpsc::Sender<Request>>,
    Query(force): Query<Force>,
) -> Result<Json<Reloaded>, Refused> {
    let vetoes = force.vetoes();
    tracing::info!(?vetoes, "an operator asks for a reload");
    ask(&keeper, |done| Request::Reload { vetoes, done })
        .await
        .map(Json)
}

async fn rollback(
    State(keeper): State<mpsc::Sender<Request>>,
    Named(plugin): Named<String>,
    Query(force): Query<Force>,
) -> Result<Json<RolledBack>, Refused> {
    let vetoes = force.vetoes();
    tracing::info!(plugin, ?vetoes, "an operator asks for a roll-back");
    let rolled_back = ask(&keeper, |done| Request::Rollback {
        plugin,
        vetoes,
        done,
    })
    .await?;
    match rolled_back {
        Ok(serving) => Ok(Json(RolledBack { serving })),
        Err(error) => Err(Refused {
            status: match error {
                RollbackError::Missing(_) => StatusCode::NOT_FOUND,
                RollbackError::NothingBefore(_)
                | RollbackError::Several { .. }
                | RollbackError::Load(_) => StatusCode::CONFLICT,
                RollbackError::Copy(_) => StatusCode::INTERNAL_SERVER_ERROR,
            },
            detail: error.to_string(),
        }),
    }
}

async fn unblock(
    State(keeper): State<mpsc::Sender<Request>>,
    Named(plugin): Named<String>,
) -> Result<Json<Unblocked>, Refused> {
    tracing::info!(
        plugin,
        "an operator trusts a plugin with the event loops again"
    );
    match ask(&keeper, |done| Request::Unblock { plugin, done }).await? {
        Ok(unblocked) => Ok(Json(Unblocked { unblocked })),
        Err(missing) => Err(Refused::new(StatusCode::NOT_FOUND, missing.to_string())),
    }
}

async fn lift(
    State(keeper): State<mpsc::Sender<Request>>,
    Named(plugin): Named<String>,
) -> Result<Json<Reloaded>, Refused> {
    tracing::info!(plugin, "an operator lifts a quarantine");
    ask(&keeper, |done| Request::Lift { plugin, done })
        .await?
        .map(Json)
        .map_err(|error| Refused::new(StatusCode::NOT_FOUND, error.to_string()))
}

async fn ask<T>(
    keeper: &mpsc::Sender<Request>,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, Refused> {
    let (done, answer) = oneshot::channel();
    keeper.send(request(done)).await.map_err(|_| stopping())?;
    answer.await.map_err(|_| stopping())
}
