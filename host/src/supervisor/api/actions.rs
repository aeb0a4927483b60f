//! What operators may do to the host as a whole.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State, http::StatusCode};
use serde_json::Value;

use super::{Api, Request, done};
use crate::{
    control::problem::{Problem, Refused},
    supervisor::renewal::{self, Heir},
};

/// How long a host that is told to end goes on, so that whoever told it hears so.
const ANSWER_TIME: Duration = Duration::from_millis(50);

/// Replace the worker
///
/// Another one loads every plugin, then connections change hands between two calls; no call is lost.
/// Answers when it serves.
#[utoipa::path(
    post,
    path = "/v1/workers/replace",
    tag = "host",
    responses(
        (status = 200, body = serde_json::Value, description = "Another worker serves"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The worker that was to take over has died, or there is none to replace"),
    )
)]
pub(super) async fn replace_worker(State(api): State<Api>) -> Result<Json<Value>, Refused> {
    match api.ask(Request::Replace).await? {
        Ok(()) => Ok(done()),
        Err(detail) => Err(Refused::conflict(detail)),
    }
}

/// Go on as the program that has replaced the host's own on disk
///
/// The answer comes before it happens, and names the release that takes over.
#[utoipa::path(
    post,
    path = "/v1/renew",
    tag = "host",
    responses(
        (status = 200, body = Heir),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "That program cannot take over, and why"),
    )
)]
pub(super) async fn renew(State(api): State<Api>) -> Result<Json<Heir>, Refused> {
    let parts = Arc::clone(&api.parts);
    // It runs the program, which may take its time.
    let examined =
        tokio::task::spawn_blocking(move || renewal::examine(&parts.program, &parts.arguments));
    let heir = examined
        .await
        .expect("examining a program does not panic")
        .map_err(Refused::conflict)?;
    match api.ask(Request::Renew).await? {
        Ok(()) => Ok(Json(heir)),
        Err(detail) => Err(Refused::conflict(detail)),
    }
}

/// End the host
///
/// As SIGTERM does: open calls may end within `--drain-time`. A gateway starts its host anew after 3 s.
#[utoipa::path(
    post,
    path = "/v1/drain",
    tag = "host",
    responses((status = 202, body = serde_json::Value, description = "It is about to end"))
)]
pub(super) async fn drain() -> (StatusCode, Json<Value>) {
    tokio::spawn(async {
        tokio::time::sleep(ANSWER_TIME).await;
        let ended =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
        if let Err(error) = ended {
            tracing::error!(%error, "the host cannot be told to end");
        }
    });
    (StatusCode::ACCEPTED, done())
}
