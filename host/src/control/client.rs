//! Asking a running host for something over its control socket.
//!
//! One request on one connection; it never retries.

use std::{io, path::Path, time::Duration};

use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request, body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

/// Time that a request may take: a reload rehearses and loads what has changed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A host could not be asked, or would not do it.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens there: the operator's to put right.
    #[error("no host answers at {path}: {error}; is it running, and with this --listen address?")]
    NoHost {
        /// The control socket.
        path: String,
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
    #[error("{0}")]
    Refused(String),
    /// It took too long.
    #[error("the host had not answered after {} s", PATIENCE.as_secs())]
    Slow,
}

/// Asks a host, and gives its answer.
///
/// # Errors
/// See [`ControlError`].
pub async fn ask(socket: &Path, method: Method, target: &str) -> Result<Value, ControlError> {
    let answer = async {
        let (succeeded, body) = exchange(socket, method, target).await?;
        let answer: Value = serde_json::from_slice(&body)?;
        match succeeded {
            true => Ok(answer),
            false => Err(refused(&answer)),
        }
    };
    tokio::time::timeout(PATIENCE, answer)
        .await
        .unwrap_or(Err(ControlError::Slow))
}

/// Asks a host for a text.
///
/// # Errors
/// See [`ControlError`].
pub async fn ask_text(socket: &Path, target: &str) -> Result<String, ControlError> {
    let text = async {
        let (succeeded, body) = exchange(socket, Method::GET, target).await?;
        match succeeded {
            true => Ok(String::from_utf8_lossy(&body).into_owned()),
            false => Err(refused(&serde_json::from_slice(&body)?)),
        }
    };
    tokio::time::timeout(PATIENCE, text)
        .await
        .unwrap_or(Err(ControlError::Slow))
}

/// Whether it succeeded, and the answer's body.
async fn exchange(
    socket: &Path,
    method: Method,
    target: &str,
) -> Result<(bool, Bytes), ControlError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| ControlError::NoHost {
            path: socket.display().to_string(),
            error,
        })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the connection; what goes wrong in it shows in the exchange.
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header(HOST, "plugin-host")
        .body(Empty::<Bytes>::new())
        .expect("method, target and header come from this program");
    let response = sender.send_request(request).await?;
    let succeeded = response.status().is_success();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((succeeded, body))
}

fn refused(problem: &Value) -> ControlError {
    let detail = problem.get("detail").and_then(Value::as_str);
    ControlError::Refused(
        detail
            .unwrap_or("the host refuses without a reason")
            .to_owned(),
    )
}
