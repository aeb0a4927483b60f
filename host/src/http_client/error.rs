//! Why an exchange failed, in words that a plugin may log: they name the server, and nothing of the
//! URL that may be secret.

use std::{error::Error, fmt, io, time::Duration};

use plugin_abi::abi::{HttpFailure, HttpFailureKind};

use super::MAX_HEAD_BYTES;

/// Scheme, host and port: what is said of a URL.
#[derive(Debug, Clone)]
pub(super) struct Server(pub(super) String);

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An exchange has failed: by the plugin's doing, the operator's, or the server's.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Failed {
    /// The operator wants none.
    #[error("the operator has switched calls to other services off (--http-client)")]
    SwitchedOff,
    /// The machine has no thread or descriptor for it.
    #[error("the HTTP client cannot start: {0}")]
    NotStarted(String),
    /// It cannot be sent.
    #[error("this is no request that can be sent: {0}")]
    Request(String),
    /// It is larger than allowed.
    #[error("the request to {0} has a body of more than {1} bytes")]
    RequestTooLarge(Server, u64),
    /// There was no room for it.
    #[error("found no place for a request to {server} within {} ms: {what} are in use ({flag})", waited.as_millis())]
    Busy {
        server: Server,
        waited: Duration,
        what: String,
        flag: &'static str,
    },
    /// Nobody is there.
    #[error("cannot connect to {0}: {1}")]
    Connect(Server, String),
    /// Somebody else may be there.
    #[error("no secure connection to {0}: {1}")]
    Tls(Server, String),
    /// It took too long.
    #[error("{server} {what} within {} ms", time.as_millis())]
    Timeout {
        server: Server,
        what: &'static str,
        time: Duration,
    },
    /// It ended early.
    #[error("the connection to {0} broke: {1}")]
    Broken(Server, String),
    /// The head is larger than allowed.
    #[error("{0} answers with more than {MAX_HEAD_BYTES} bytes, or too many, of headers")]
    HeadTooLarge(Server),
    /// The body is larger than allowed.
    #[error("{0} answers with a body of more than {1} bytes")]
    BodyTooLarge(Server, u64),
}

impl From<Failed> for HttpFailure {
    fn from(failed: Failed) -> Self {
        let kind = match &failed {
            Failed::SwitchedOff | Failed::NotStarted(_) => HttpFailureKind::UNAVAILABLE,
            Failed::Request(_) => HttpFailureKind::REQUEST,
            Failed::Busy { .. } => HttpFailureKind::BUSY,
            Failed::Connect(..) => HttpFailureKind::CONNECT,
            Failed::Tls(..) => HttpFailureKind::TLS,
            Failed::Timeout { .. } => HttpFailureKind::TIMEOUT,
            Failed::Broken(..) => HttpFailureKind::BROKEN,
            Failed::RequestTooLarge(..) | Failed::HeadTooLarge(_) | Failed::BodyTooLarge(..) => {
                HttpFailureKind::TOO_LARGE
            }
        };
        Self {
            kind,
            message: failed.to_string().into(),
        }
    }
}

impl Failed {
    /// What an error of the client's library means.
    pub(super) fn of(server: &Server, error: &hyper_util::client::legacy::Error) -> Self {
        let server = server.clone();
        if let Some(tls) = find::<rustls::Error>(error) {
            return Self::Tls(server, tls.to_string());
        }
        if error.is_connect() {
            return Self::Connect(server, innermost(error));
        }
        match find::<hyper::Error>(error) {
            Some(error) => Self::of_connection(server, error),
            None => Self::Broken(server, innermost(error)),
        }
    }

    /// The connection ended before the answer did, or before there was one.
    pub(super) fn early_end(server: Server) -> Self {
        Self::Broken(
            server,
            "it was closed before the answer was whole".to_owned(),
        )
    }

    /// What an error of an open connection means.
    pub(super) fn of_connection(server: Server, error: &hyper::Error) -> Self {
        if error.is_parse_too_large() {
            Self::HeadTooLarge(server)
        } else if error.is_incomplete_message() || is_early_end(error) {
            Self::early_end(server)
        } else if error.is_parse() {
            Self::Broken(
                server,
                format!("what came is no HTTP/1.1: {}", innermost(error)),
            )
        } else if let Some(tls) = find::<rustls::Error>(error) {
            Self::Tls(server, tls.to_string())
        } else {
            Self::Broken(server, innermost(error))
        }
    }
}

fn is_early_end(error: &hyper::Error) -> bool {
    find::<io::Error>(error).is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof)
}

/// Whether a connection was closed or reset under a request, before any answer.
pub(super) fn is_cut(error: &hyper_util::client::legacy::Error) -> bool {
    let reset = |error: &io::Error| {
        let kinds = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
        kinds.contains(&error.kind())
    };
    find::<hyper::Error>(error).is_some_and(hyper::Error::is_incomplete_message)
        || find::<io::Error>(error).is_some_and(reset)
}

/// The first cause of a type. An error in an `io::Error` is none of its causes, and is looked at too.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let inside = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        next = match inside {
            Some(inside) => Some(inside),
            None => error.source(),
        };
    }
    None
}

/// The cause of all causes, which says what happened.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
