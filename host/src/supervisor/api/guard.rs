//! What every request passes: whether whoever asks may, and the line in the log that says who did.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{Request, State},
    http::{HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{DESCRIPTION, health, session};
use crate::control::{
    access::{Access, check_names},
    caller::Caller,
    console,
};

/// What everybody may ask for who reaches the address: nothing of it tells anything of this host.
const OPEN: [&str; 3] = [DESCRIPTION, health::LIVE, health::READY];

/// Fields of every answer over the network.
const HEADERS: [(header::HeaderName, &str); 4] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'",
    ),
];

/// Lets a request over the network pass, or not.
pub(super) async fn admit(
    State(access): State<Arc<Access>>,
    mut request: Request,
    next: Next,
) -> Response {
    let admitted = check_names(request.headers()).and_then(|()| {
        let path = request.uri().path();
        let is_open = OPEN.contains(&path)
            || console::has(path)
            || path == session::PATH && request.method() != Method::GET;
        match is_open {
            true => Ok(None),
            false => access.check(request.method(), request.headers()).map(Some),
        }
    });
    let mut response = match admitted {
        Ok(found) => {
            if let Some(Caller::Remote { proof, .. }) = request.extensions_mut().get_mut() {
                *proof = found;
            }
            next.run(request).await
        }
        Err(refused) => {
            let caller = request.extensions().get::<Caller>();
            tracing::warn!(
                by = caller.map(tracing::field::display),
                method = %request.method(),
                path = request.uri().path(),
                "somebody was not let in"
            );
            refused.into_response()
        }
    };
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Writes who asked for something that changes something, and what came of it.
pub(super) async fn audit(request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let caller = request.extensions().get::<Caller>().copied();
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let began = Instant::now();
    let response = next.run(request).await;
    tracing::info!(
        by = caller.map(tracing::field::display),
        %method,
        path = uri.path(),
        query = uri.query(),
        status = response.status().as_u16(),
        milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        "an operator's action"
    );
    response
}
