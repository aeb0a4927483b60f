//! Asking a running host for something, over its control socket or its address.
//!
//! One request on one connection; it never retries.

use std::{fmt, io, net::SocketAddr, path::PathBuf, time::Duration};

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

use crate::listen::short_path::ShortPath;

/// Time that a request may take: a reload rehearses and loads what has changed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running host, by where it answers.
#[derive(Clone)]
pub enum Target {
    /// Its control socket.
    Socket(PathBuf),
    /// Its address.
    Address {
        /// Which.
        address: SocketAddr,
        /// What lets in.
        token: String,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Address { address, .. } => address.fmt(f),
        }
    }
}

impl fmt::Debug for Target {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A host could not be asked, or would not do it.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens there: the operator's to put right.
    #[error("no host answers at {target}: {error}; is it running, and with this --listen address?")]
    NoHost {
        /// Where it was looked for.
        target: String,
        /// Why not.
        error: io::Error,
    },
    /// What answered does not speak HTTP, or stopped in the middle.
    #[error("the host's answer broke off: {0}")]
    Broken(#[from] hyper::Error),
    /// What answered is no host.
    #[error("the host's answer is no JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    /// The host says no.
    #[error("{detail}")]
    Refused {
        /// The status of its answer.
        status: StatusCode,
        /// Why.
        detail: String,
    },
    /// It took too long.
    #[error("the host had not answered after {} s", PATIENCE.as_secs())]
    Slow,
}

/// An answer of a host, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// What it says.
    pub body: Value,
}

/// Asks a host, and gives its answer.
///
/// # Errors
/// See [`ControlError`].
pub async fn ask(
    target: &Target,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> Result<Value, ControlError> {
    let answer = answer(target, method, path, body).await?;
    if answer.status.is_success() {
        return Ok(answer.body);
    }
    Err(refusal(answer))
}

/// Asks a host, and gives its answer also where that is a refusal.
///
/// # Errors
/// See [`ControlError`], but for [`ControlError::Refused`].
pub async fn answer(
    target: &Target,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> Result<Answer, ControlError> {
    let asking = async {
        let response = open(target, method, path, body).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok(Answer {
            status,
            body: serde_json::from_slice(&body)?,
        })
    };
    tokio::time::timeout(PATIENCE, asking)
        .await
        .unwrap_or(Err(ControlError::Slow))
}

/// Asks a host for a text.
///
/// # Errors
/// See [`ControlError`].
pub async fn ask_text(target: &Target, path: &str) -> Result<String, ControlError> {
    let asking = async {
        let response = open(target, Method::GET, path, None).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        match status.is_success() {
            true => Ok(String::from_utf8_lossy(&body).into_owned()),
            false => Err(refusal(Answer {
                status,
                body: serde_json::from_slice(&body)?,
            })),
        }
    };
    tokio::time::timeout(PATIENCE, asking)
        .await
        .unwrap_or(Err(ControlError::Slow))
}

/// What a refusal says.
pub fn refusal(answer: Answer) -> ControlError {
    let detail = answer.body.get("detail").and_then(Value::as_str);
    ControlError::Refused {
        status: answer.status,
        detail: detail
            .unwrap_or("the host refuses without a reason")
            .to_owned(),
    }
}

/// Asks a host, and gives its answer as it begins to come.
///
/// # Errors
/// See [`ControlError`].
pub async fn open(
    target: &Target,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> Result<Response<Incoming>, ControlError> {
    let no_host = |error| ControlError::NoHost {
        target: target.to_string(),
        error,
    };
    let request = Request::builder().method(method).uri(path);
    let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
    let request = match target {
        Target::Socket(_) => request.header(HOST, "localhost"),
        Target::Address { address, token } => request
            .header(HOST, address.to_string())
            .header(AUTHORIZATION, format!("Bearer {token}")),
    };
    let request = request
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(|error| no_host(io::Error::other(error)))?;
    match target {
        Target::Socket(path) => {
            let short = ShortPath::of(path).map_err(no_host)?;
            let stream = UnixStream::connect(short.as_path()).await;
            let stream = stream.map_err(no_host)?;
            send(stream, request).await
        }
        Target::Address { address, .. } => {
            let stream = TcpStream::connect(address).await.map_err(no_host)?;
            send(stream, request).await
        }
    }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, ControlError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the connection; what goes wrong in it shows in the exchange.
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

/// A text as a part of a path or a query: requirements have signs in them that must not be there.
pub fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded += &format!("%{byte:02X}");
        }
        encoded
    })
}
