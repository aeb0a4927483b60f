//! What a plugin decides about a request.

use http::StatusCode;

use crate::abi::{OwnedField, ReplyParts, Verdict};

/// What happens next with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// The next plugin runs; after the last one the request goes upstream with its changes.
    Continue,
    /// The client gets this answer; no further plugin runs and nothing goes upstream.
    Stop(Reply),
}

impl Action {
    /// Answers the client at once.
    pub fn stop(reply: Reply) -> Self {
        Self::Stop(reply)
    }

    pub(crate) fn into_verdict(self) -> Verdict {
        match self {
            Self::Continue => Verdict::Continue,
            Self::Stop(reply) => Verdict::Stop(reply.parts),
        }
    }
}

/// An answer to the client instead of the upstream's.
///
/// ```
/// use plugin_abi::prelude::*;
///
/// let reply = Reply::new(401)
///     .header("WWW-Authenticate", "Bearer")
///     .body("who are you?");
/// assert_eq!(reply.status(), 401);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Reply {
    parts: ReplyParts,
}

impl Reply {
    /// A reply with this status and nothing else. The gateway can deliver 200 to 599; the host
    /// treats any other as a failure of the plugin. From 400 on, a reply without a body shows the
    /// gateway's own error page.
    pub fn new(status: u16) -> Self {
        Self {
            parts: ReplyParts {
                status,
                ..ReplyParts::default()
            },
        }
    }

    /// Adds a header; the same name may come more than once (`Set-Cookie`). The gateway writes
    /// `Server` itself, the host leaves `Content-Length` to it, and without a `Content-Type` the
    /// client gets `text/plain; charset=utf-8`.
    pub fn header(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.parts.headers.push(OwnedField {
            name: name.as_ref().into(),
            value: value.as_ref().into(),
        });
        self
    }

    /// Sets the body, which may hold any bytes.
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.parts.body = body.as_ref().into();
        self
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.parts.status
    }

    pub(crate) fn into_parts(self) -> ReplyParts {
        self.parts
    }
}

impl From<StatusCode> for Reply {
    fn from(status: StatusCode) -> Self {
        Self::new(status.as_u16())
    }
}
