//! How a request is refused: `application/problem+json` (RFC 9457), whatever was wrong with it.

use axum::{
    Json,
    http::{HeaderValue, Method, StatusCode, Uri, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The media type.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What was wrong with a request.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: the status says which kind of problem it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// The status of the answer.
    pub status: u16,
    /// What was wrong, and where there is one the next step.
    pub detail: String,
    /// Whose fault it was, where that is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

/// Whose fault something was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// That of whoever asked.
    Asker,
    /// The plugin's.
    Plugin,
    /// The host's, or that of the load on it.
    Host,
}

/// Why a request was not done.
#[derive(Debug)]
pub struct Refused {
    status: StatusCode,
    detail: String,
    fault: Option<Fault>,
}

impl Refused {
    /// A refusal.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            fault: None,
        }
    }

    /// The same, with whose fault it is.
    #[must_use]
    pub fn fault(self, fault: Fault) -> Self {
        Self {
            fault: Some(fault),
            ..self
        }
    }

    /// There is no such thing.
    pub fn not_found(detail: impl ToString) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail.to_string())
    }

    /// It cannot be done as things are.
    pub fn conflict(detail: impl ToString) -> Self {
        Self::new(StatusCode::CONFLICT, detail.to_string())
    }

    /// The request itself is wrong.
    pub fn bad_request(detail: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail.to_string())
    }

    /// Nobody can do it at the moment.
    pub fn unavailable(detail: impl ToString) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail.to_string())
    }

    /// The host is stopping: nobody is there to do it.
    pub fn stopping() -> Self {
        Self::unavailable("the host is stopping")
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let problem = Problem {
            kind: "about:blank".to_owned(),
            title: self
                .status
                .canonical_reason()
                .unwrap_or("Unknown")
                .to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
            fault: self.fault,
        };
        let mut response = (self.status, Json(problem)).into_response();
        let media_type = HeaderValue::from_static(MEDIA_TYPE);
        response.headers_mut().insert(CONTENT_TYPE, media_type);
        response
    }
}

/// Answers a request for a path that means nothing.
pub async fn no_such_path(uri: Uri) -> Refused {
    Refused::not_found(format!(
        "there is nothing at {}: /openapi.json describes what there is",
        uri.path()
    ))
}

/// Answers a request that a path does not take.
pub async fn no_such_method(method: Method, uri: Uri) -> Refused {
    Refused::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{} does not take {method}", uri.path()),
    )
}
