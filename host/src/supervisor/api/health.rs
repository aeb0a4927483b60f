//! Whether the host lives, and whether it is ready: for probes, which only look at the status.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Api, Request};
use crate::{
    control::problem::{Problem, Refused},
    supervisor::{Overview, readiness::Readiness},
};

/// Where it is told whether the host lives.
pub(super) const LIVE: &str = "/healthz";

/// Where it is told whether it is ready.
pub(super) const READY: &str = "/readyz";

/// A supervisor that decides nothing for so long is not well.
const PATIENCE: Duration = Duration::from_secs(2);

/// The host lives.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Live {
    /// Always true: a host that is not well does not answer so.
    live: bool,
    /// Its release.
    release: &'static str,
}

/// Whether the host lives
///
/// Its supervisor answers. A worker that has died is replaced, and is no reason to start the host anew.
#[utoipa::path(
    get,
    path = LIVE,
    tag = "health",
    responses(
        (status = 200, body = Live),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "It does not decide anything"),
    )
)]
pub(super) async fn live(State(api): State<Api>) -> Result<Json<Live>, Refused> {
    look(&api).await?;
    Ok(Json(Live {
        live: true,
        release: env!("CARGO_PKG_VERSION"),
    }))
}

/// Whether the host is ready
///
/// It listens, the plugin directory has been read, and every plugin that `--require` names serves.
#[utoipa::path(
    get,
    path = READY,
    tag = "health",
    responses(
        (status = 200, body = Readiness),
        (status = 503, body = Readiness, description = "It is not, and why"),
    )
)]
pub(super) async fn ready(State(api): State<Api>) -> Response {
    let readiness = match look(&api).await {
        Ok(overview) => overview.readiness,
        Err(_) => Readiness {
            ready: false,
            reasons: vec!["the host is stopping, or does not decide anything".to_owned()],
        },
    };
    let status = match readiness.ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(readiness)).into_response()
}

async fn look(api: &Api) -> Result<Overview, Refused> {
    match tokio::time::timeout(PATIENCE, api.ask(Request::Overview)).await {
        Ok(overview) => overview,
        Err(_) => Err(Refused::unavailable(format!(
            "the supervisor has not answered for {} s",
            PATIENCE.as_secs()
        ))),
    }
}
