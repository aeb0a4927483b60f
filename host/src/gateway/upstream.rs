//! The upstream: one connection for one request, and its response as it came.
//!
//! This module never changes a request, and never decides what a failure means for the client.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::http::Extensions;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::answer::{self, Body};
use super::routes::{Node, Upstream};
use crate::client::Field;

/// How long the gateway waits for a connection, for the head of a response, and for each piece of
/// its body.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of a response's head, at most, whose spelling is kept.
const MAX_HEAD: usize = 64 << 10;

/// What an upstream answered.
#[derive(Debug)]
pub(super) struct Received {
    /// From whom, for people.
    pub(super) node: String,
    pub(super) status: StatusCode,
    /// Names as the upstream writes them.
    pub(super) headers: Vec<Field>,
    pub(super) body: Body,
    /// How the upstream spells its headers, for hyper.
    pub(super) spelling: Extensions,
}

/// There is no response.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpstreamError {
    /// The route names nobody.
    #[error("the upstream has no node with a weight above 0")]
    NoNode,
    /// Nobody is there.
    #[error("cannot connect to {node}: {source}")]
    Connect {
        /// Whom.
        node: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// There is no such path: a plugin's doing.
    #[error("`{0}` is no path to send upstream: one begins with a slash")]
    Path(String),
    /// It takes too long.
    #[error("no {what} from {node} within {} s", PATIENCE.as_secs())]
    Patience {
        /// From whom.
        node: String,
        /// What was waited for.
        what: &'static str,
    },
    /// It speaks no HTTP, or hung up.
    #[error("{node} gave no HTTP response: {source}")]
    Http {
        /// Who.
        node: String,
        /// What is wrong.
        source: hyper::Error,
    },
    /// Its response does not fit.
    #[error("the response's body is larger than {limit} bytes; --max-body-bytes raises the bound")]
    TooLarge {
        /// The bound in bytes.
        limit: usize,
    },
    /// Its response breaks off.
    #[error("the response's body broke off: {0}")]
    Broken(Box<dyn std::error::Error + Send + Sync>),
}

impl UpstreamError {
    /// What the client is told.
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::NoNode => 503,
            Self::Patience { .. } => 504,
            _ => 502,
        }
    }
}

/// Sends a request to the nodes in turn, from the one of this number on, until one takes it.
pub(super) async fn connect(
    upstream: &Upstream,
    number: u64,
) -> Result<(Node, TcpStream), UpstreamError> {
    let chosen = upstream.node(number).ok_or(UpstreamError::NoNode)?;
    let others = upstream.nodes.iter().filter(|node| *node != chosen);
    let mut last = UpstreamError::NoNode;
    for node in std::iter::once(chosen).chain(others) {
        let address = (node.host.as_str(), node.port);
        match tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok((node.clone(), stream)),
            Ok(Err(source)) => {
                last = UpstreamError::Connect {
                    node: node.to_string(),
                    source,
                };
            }
            Err(_) => {
                last = UpstreamError::Patience {
                    node: node.to_string(),
                    what: "connection",
                };
            }
        }
        tracing::warn!("{last}");
    }
    Err(last)
}

/// Sends a request and gets the head of the response.
pub(super) async fn send(
    node: &Node,
    stream: TcpStream,
    request: Request<Full<Bytes>>,
) -> Result<Received, UpstreamError> {
    let http = |source| UpstreamError::Http {
        node: node.to_string(),
        source,
    };
    let head = Arc::new(Mutex::new(Vec::new()));
    let recorder = Recorder {
        stream,
        head: Arc::clone(&head),
    };
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .preserve_header_case(true)
        .title_case_headers(true)
        .handshake(TokioIo::new(recorder))
        .await
        .map_err(http)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an upstream connection has ended");
        }
    });
    let sent = tokio::time::timeout(PATIENCE, sender.send_request(request)).await;
    let response = sent.map_err(|_| UpstreamError::Patience {
        node: node.to_string(),
        what: "response",
    })?;
    let (parts, body) = response.map_err(http)?.into_parts();
    let spelled = spelling(&head.lock());
    let headers = parts.headers.iter().map(|(name, value)| {
        let name = spelled
            .get(name.as_str())
            .map_or(name.as_str(), String::as_str);
        Field::new(name, value.as_bytes())
    });
    Ok(Received {
        node: node.to_string(),
        status: parts.status,
        headers: headers.collect(),
        body: body.boxed_unsync(),
        spelling: parts.extensions,
    })
}

impl Received {
    /// Reads the whole body. What is left has an empty one.
    pub(super) async fn take_body(&mut self, limit: usize) -> Result<Bytes, UpstreamError> {
        let body = std::mem::replace(&mut self.body, answer::whole(""));
        let mut body = Limited::new(body, limit);
        let mut bytes = Vec::new();
        loop {
            let frame = tokio::time::timeout(PATIENCE, body.frame()).await;
            let frame = frame.map_err(|_| UpstreamError::Patience {
                node: self.node.clone(),
                what: "more of the body",
            })?;
            match frame {
                None => return Ok(bytes.into()),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        bytes.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) if error.is::<LengthLimitError>() => {
                    return Err(UpstreamError::TooLarge { limit });
                }
                Some(Err(error)) => return Err(UpstreamError::Broken(error)),
            }
        }
    }
}

/// How each header's name is written in a response's head.
fn spelling(head: &[u8]) -> HashMap<String, String> {
    head.split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let name = std::str::from_utf8(&line[..colon]).ok()?;
            Some((name.to_ascii_lowercase(), name.to_owned()))
        })
        .collect()
}

/// Keeps the first bytes that arrive: hyper tells nobody how names were written.
struct Recorder {
    stream: TcpStream,
    head: Arc<Mutex<Vec<u8>>>,
}

impl Recorder {
    fn record(&self, arrived: &[u8]) {
        let mut head = self.head.lock();
        if arrived.is_empty() || head.ends_with(b"\r\n\r\n") || head.len() >= MAX_HEAD {
            return;
        }
        let room = MAX_HEAD - head.len();
        let from = head.len().saturating_sub(3);
        head.extend_from_slice(&arrived[..arrived.len().min(room)]);
        let end = head[from..].windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            head.truncate(from + end + 4);
        }
    }
}

impl AsyncRead for Recorder {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.record(&buffer.filled()[before..]);
        read
    }
}

impl AsyncWrite for Recorder {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelled_as_in_the_head() {
        let spelled = spelling(b"HTTP/1.1 200 OK\r\nX-UP: a:b\r\ncontent-Length: 1\r\n\r\n");
        assert_eq!(spelled.get("x-up").map(String::as_str), Some("X-UP"));
        let length = spelled.get("content-length").map(String::as_str);
        assert_eq!(length, Some("content-Length"));
        assert_eq!(spelled.len(), 2);
    }
}
