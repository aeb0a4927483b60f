//! Signing in with the token, for browsers: they keep a cookie in its place.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header::SET_COOKIE},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Api, done};
use crate::control::{
    access::Access,
    extract::Body,
    problem::{Problem, Refused},
};

/// Where one signs in.
pub(super) const PATH: &str = "/v1/session";

/// What is shown to be let in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SignIn {
    /// The token in `--control-token-file`.
    token: String,
}

/// Whoever asks is let in.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SignedIn {
    /// Always true: whoever is not let in gets a 401.
    signed_in: bool,
}

/// Whether whoever asks is let in
#[utoipa::path(
    get,
    path = PATH,
    tag = "session",
    responses(
        (status = 200, body = SignedIn),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "Sign in first"),
    )
)]
pub(super) async fn show() -> Json<SignedIn> {
    Json(SignedIn { signed_in: true })
}

/// Sign in with the token
///
/// The answer sets a cookie for 12 hours. Over the control socket there is nothing to sign in to.
#[utoipa::path(
    post,
    path = PATH,
    tag = "session",
    request_body = SignIn,
    responses(
        (status = 200, body = serde_json::Value, description = "Signed in; the cookie is in `Set-Cookie`"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "It cannot be understood"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "It is not the token"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is nothing to sign in to"),
    )
)]
pub(super) async fn sign_in(
    State(api): State<Api>,
    Body(SignIn { token }): Body<SignIn>,
) -> Result<Response, Refused> {
    let access = access(&api)?;
    if !access.is_token(token.trim()) {
        return Err(Refused::new(
            StatusCode::UNAUTHORIZED,
            "the token is not the one in --control-token-file",
        ));
    }
    let cookie = access
        .sign_in()
        .map_err(|error| Refused::unavailable(format!("there are no random bytes: {error}")))?;
    Ok(([(SET_COOKIE, cookie)], done()).into_response())
}

/// Sign out
#[utoipa::path(
    delete,
    path = PATH,
    tag = "session",
    responses(
        (status = 200, body = serde_json::Value, description = "Signed out"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is nothing to sign out of"),
    )
)]
pub(super) async fn sign_out(
    State(api): State<Api>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let cookie = access(&api)?.sign_out(&headers);
    Ok(([(SET_COOKIE, cookie)], done()).into_response())
}

fn access(api: &Api) -> Result<&Access, Refused> {
    api.parts.access.as_deref().ok_or_else(|| {
        Refused::not_found("there is nothing to sign in to: the host has no --control-listen")
    })
}
