//! What a request says, taken apart: path, query and body, each refused with a problem where it
//! cannot be understood.

use std::time::Duration;

use axum::{
    extract::{FromRequest, FromRequestParts, Request, rejection::JsonRejection},
    http::{StatusCode, request::Parts},
};
use serde::{Deserialize, de::DeserializeOwned};
use utoipa::IntoParams;

use super::problem::Refused;
use crate::plugin::manager::Vetoes;

/// Time for the body of a request.
pub const BODY_TIME: Duration = Duration::from_secs(10);

/// The part of the path that names something.
#[derive(Debug)]
pub struct Named(pub String);

/// The query, which has no fields but those that are known.
#[derive(Debug)]
pub struct Query<T>(pub T);

/// The body, as JSON.
#[derive(Debug)]
pub struct Body<T>(pub T);

/// Whether configurations of routes that work now may be lost.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Force {
    /// Load also what refuses configurations that work now: their routes then fail closed.
    #[serde(default)]
    pub force: bool,
}

impl Force {
    /// What that means for a transaction.
    pub fn vetoes(&self) -> Vetoes {
        if self.force {
            Vetoes::Overruled
        } else {
            Vetoes::Count
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        axum::extract::Path::<String>::from_request_parts(parts, state)
            .await
            .map(|path| Self(path.0))
            .map_err(|rejection| Refused::bad_request(rejection.body_text()))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        axum::extract::Query::<T>::from_request_parts(parts, state)
            .await
            .map(|query| Self(query.0))
            .map_err(|rejection| Refused::bad_request(rejection.body_text()))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let reading = axum::Json::<T>::from_request(request, state);
        tokio::time::timeout(BODY_TIME, reading)
            .await
            .map_err(|_| {
                let detail = format!("the body had not come after {} s", BODY_TIME.as_secs());
                Refused::new(StatusCode::REQUEST_TIMEOUT, detail)
            })?
            .map(|body| Self(body.0))
            .map_err(|rejection: JsonRejection| {
                // JSON that says something else is as wrong as what is no JSON.
                let status = match rejection.status() {
                    StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
                    status => status,
                };
                Refused::new(status, rejection.body_text())
            })
    }
}
