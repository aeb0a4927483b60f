//! The gateway's side of the protocol: one connection to a running host.
//!
//! It prepares configurations, makes calls one after the other, and hands the host's questions to
//! whoever made the call. Patience is the gateway's own. `effect` puts into words what the gateway
//! would do with an answer; nothing here does it, and nothing retries.

mod answer;
pub mod draft;
pub mod effect;
pub mod exchange;
pub mod target;
pub mod text;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plugin_proto::{
    Entry, FrameBuffer, FrameTooLarge, FrameType, FrameWriter, InvalidFrame, Method,
    UnknownFrameType, err, extra_info, http_req_call, http_resp_call, prepare_conf,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use effect::Effect;
use exchange::Exchange;

pub use answer::{Field, RequestEffect, ResponseEffect, Rewrite, Stop};
pub use plugin_proto::extra_info::Question;

/// How long the gateway waits for a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);

/// How long the gateway waits until a frame is taken, and until one comes.
const FRAME_PATIENCE: Duration = Duration::from_secs(60);

/// A request for plugins to look at before it goes upstream.
#[derive(Debug, Clone)]
pub struct Request {
    /// Counts the calls of one gateway worker; stands in the host's log.
    pub id: u32,
    /// The method.
    pub method: Method,
    /// The path as the gateway has it: decoded, normalised, without the query.
    pub path: Vec<u8>,
    /// The query's arguments, decoded.
    pub args: Vec<Field>,
    /// The headers; the gateway writes their names in lower case.
    pub headers: Vec<Field>,
    /// Where the request came from.
    pub client: IpAddr,
}

/// An upstream's response for plugins to look at before it goes to the client.
#[derive(Debug, Clone)]
pub struct Response {
    /// Counts the calls of one gateway worker; stands in the host's log.
    pub id: u32,
    /// The upstream's status.
    pub status: u16,
    /// The upstream's headers, in its own case.
    pub headers: Vec<Field>,
}

/// A call did not get an answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody can be reached: the operator's to put right.
    #[error("cannot connect to {}: {source}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The connection is broken.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// The host closed the connection in place of an answer.
    #[error("the host closed the connection without an answer")]
    Closed,
    /// The gateway would have given up by now.
    #[error("no {what} within {} s, when the gateway gives up", patience.as_secs())]
    Patience {
        /// What was waited for.
        what: &'static str,
        /// How long.
        patience: Duration,
    },
    /// The host answered with an error frame.
    #[error("the host answered with the error {}", code_name(*code, *byte))]
    Refused {
        /// What it says, where the protocol knows it.
        code: Option<err::Code>,
        /// The code as it arrived.
        byte: u8,
    },
    /// The host sent bytes that are no message: its fault.
    #[error("the host's answer is broken: {0}")]
    Broken(#[from] InvalidFrame),
    /// The host sent a type of frame that the protocol does not know: its fault.
    #[error("the host's answer is broken: {0}")]
    UnknownType(#[from] UnknownFrameType),
    /// The host sent a frame that does not belong here: its fault.
    #[error("the host sent a frame of type {0:?} in place of an answer")]
    OutOfPlace(FrameType),
    /// What was to be sent does not fit a frame: the caller's fault. A gateway closes the
    /// connection then.
    #[error(transparent)]
    TooLarge(#[from] FrameTooLarge),
}

fn code_name(code: Option<err::Code>, byte: u8) -> String {
    let name = match code {
        Some(err::Code::BadRequest) => "BAD_REQUEST",
        Some(err::Code::ServiceUnavailable) => "SERVICE_UNAVAILABLE",
        Some(err::Code::ConfTokenNotFound) => "CONF_TOKEN_NOT_FOUND",
        None => "that the protocol does not know",
    };
    format!("{name} ({byte})")
}

/// A connection to a host. After an error it is of no more use, as the gateway sees it too.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    incoming: FrameBuffer,
    writer: FrameWriter,
}

impl Connection {
    /// Connects to the socket of a running host.
    ///
    /// # Errors
    /// [`ClientError::Connect`], or [`ClientError::Patience`] after a second.
    pub async fn open(socket: &Path) -> Result<Self, ClientError> {
        let connected = tokio::time::timeout(CONNECT_PATIENCE, UnixStream::connect(socket)).await;
        let stream = connected
            .map_err(|_| ClientError::Patience {
                what: "connection",
                patience: CONNECT_PATIENCE,
            })?
            .map_err(|source| ClientError::Connect {
                path: socket.to_owned(),
                source,
            })?;
        Ok(Self {
            stream,
            incoming: FrameBuffer::new(),
            writer: FrameWriter::new(),
        })
    }

    /// Whether the host has neither closed this connection nor sent what nobody asked for; for one
    /// on which no call is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Hands over a route's plugins, each with its configuration, and gets the token that calls
    /// carry to mean them.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn prepare(&mut self, key: &[u8], plugins: &[Field]) -> Result<u32, ClientError> {
        let conf = plugins.iter().map(Field::as_entry);
        let frame = prepare_conf::write_request(&mut self.writer, conf, Some(key))?;
        send(&mut self.stream, frame).await?;
        match self.receive().await? {
            FrameType::PrepareConf => {
                Ok(prepare_conf::AnswerView::parse(self.data())?.conf_token())
            }
            other => Err(ClientError::OutOfPlace(other)),
        }
    }

    /// Makes a request call. `answer` is asked what the host asks; nothing means that there is no
    /// such variable, or no body.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn request(
        &mut self,
        token: u32,
        request: &Request,
        answer: impl FnMut(Question<'_>) -> Option<Vec<u8>>,
    ) -> Result<RequestEffect, ClientError> {
        let v4;
        let v6;
        let address: &[u8] = match request.client {
            IpAddr::V4(address) => {
                v4 = address.octets();
                &v4
            }
            IpAddr::V6(address) => {
                v6 = address.octets();
                &v6
            }
        };
        let frame = http_req_call::write_request(
            &mut self.writer,
            http_req_call::Request {
                id: request.id,
                src_ip: Some(address),
                method: request.method,
                path: &request.path,
                args: request.args.iter().map(Field::as_entry),
                headers: request.headers.iter().map(Field::as_entry),
                conf_token: token,
            },
        )?;
        send(&mut self.stream, frame).await?;
        self.converse(FrameType::HttpReqCall, answer).await?;
        let view = http_req_call::AnswerView::parse(self.data())?;
        Ok(view.action().into())
    }

    /// Makes a response call; `answer` as for [`Connection::request`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn response(
        &mut self,
        token: u32,
        response: &Response,
        answer: impl FnMut(Question<'_>) -> Option<Vec<u8>>,
    ) -> Result<ResponseEffect, ClientError> {
        let frame = http_resp_call::write_request(
            &mut self.writer,
            response.id,
            response.status,
            response.headers.iter().map(Field::as_entry),
            token,
        )?;
        send(&mut self.stream, frame).await?;
        self.converse(FrameType::HttpRespCall, answer).await?;
        let view = http_resp_call::AnswerView::parse(self.data())?;
        Ok(view.into())
    }

    /// Makes the call that an exchange is, which answers what is asked; `asked` hears of it. Gives
    /// what the gateway would make of the answer.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn exchange(
        &mut self,
        token: u32,
        id: u32,
        exchange: &mut Exchange,
        mut asked: impl FnMut(Question<'_>, Option<&[u8]>),
    ) -> Result<Effect, ClientError> {
        let (request, response) = (exchange.request(id), exchange.response(id));
        let method = exchange.method;
        let answer = |question: Question<'_>| {
            let answer = exchange.answer(question);
            asked(question, answer.as_deref());
            answer
        };
        match response {
            None => {
                let answered = self.request(token, &request, answer).await?;
                Ok(Effect::of_request(answered))
            }
            Some(response) => {
                let answered = self.response(token, &response, answer).await?;
                Ok(Effect::of_response(answered, &response, method))
            }
        }
    }

    /// Answers questions until the frame that ends the call is there.
    async fn converse(
        &mut self,
        expected: FrameType,
        mut answer: impl FnMut(Question<'_>) -> Option<Vec<u8>>,
    ) -> Result<(), ClientError> {
        loop {
            match self.receive().await? {
                FrameType::ExtraInfo => {
                    let view = extra_info::QuestionView::parse(self.data())?;
                    let value = answer(view.question());
                    let frame = extra_info::write_answer(&mut self.writer, value.as_deref())?;
                    send(&mut self.stream, frame).await?;
                }
                frame_type if frame_type == expected => return Ok(()),
                other => return Err(ClientError::OutOfPlace(other)),
            }
        }
    }

    /// Waits for the next frame. One that says that there will be no answer is an error.
    async fn receive(&mut self) -> Result<FrameType, ClientError> {
        let read = tokio::time::timeout(FRAME_PATIENCE, self.read_frame()).await;
        let frame_type = read.map_err(|_| ClientError::Patience {
            what: "answer",
            patience: FRAME_PATIENCE,
        })??;
        if frame_type == FrameType::Error {
            let view = err::AnswerView::parse(self.data())?;
            return Err(ClientError::Refused {
                code: view.code(),
                byte: view.code_byte(),
            });
        }
        Ok(frame_type)
    }

    async fn read_frame(&mut self) -> Result<FrameType, ClientError> {
        // The last frame, whose views are gone by now.
        self.incoming.consume();
        loop {
            if let Some(frame) = self.incoming.frame() {
                return Ok(frame.frame_type()?);
            }
            match self.stream.read(self.incoming.spare()).await? {
                0 => return Err(ClientError::Closed),
                read => self.incoming.filled(read),
            }
        }
    }

    /// Data of the frame that was received last.
    fn data(&self) -> &[u8] {
        self.incoming.frame().map_or(&[], plugin_proto::Frame::data)
    }
}

async fn send(stream: &mut UnixStream, frame: &[u8]) -> Result<(), ClientError> {
    match tokio::time::timeout(FRAME_PATIENCE, stream.write_all(frame)).await {
        Ok(sent) => Ok(sent?),
        Err(_) => Err(ClientError::Patience {
            what: "room for a frame",
            patience: FRAME_PATIENCE,
        }),
    }
}

/// The values of a header in one, as a variable has them; its name is in lower case with underscores
/// for dashes. None where there is no such header.
pub(crate) fn joined(headers: &[Field], name: &str) -> Option<Vec<u8>> {
    let named = headers.iter().filter(|header| {
        let other = header.name.iter().map(|byte| match byte {
            b'-' => b'_',
            other => other.to_ascii_lowercase(),
        });
        other.eq(name.bytes())
    });
    let values: Vec<_> = named.filter_map(|header| header.value.as_deref()).collect();
    let separator: &[u8] = if name == "cookie" { b"; " } else { b", " };
    (!values.is_empty()).then(|| values.join(separator))
}

/// A host without the port that may follow it; the colons of an IPv6 address stand in brackets.
pub(crate) fn without_port(host: &[u8]) -> &[u8] {
    match host.iter().rposition(|byte| *byte == b':') {
        Some(colon) if host[colon + 1..].iter().all(u8::is_ascii_digit) => &host[..colon],
        _ => host,
    }
}

impl Field {
    fn as_entry(&self) -> Entry<'_> {
        Entry {
            name: &self.name,
            value: self.value.as_deref(),
        }
    }
}
