//! Frame type 2: a request before it goes upstream, and what is to become of it.
//!
//! Many fields of an answer mean something particular to the gateway (an empty body changes nothing, an
//! entry without a value deletes); `docs/protocol.md` has the table. This module writes what it is told.

use crate::entries::{Entries, Entry};
use crate::frame::{FrameTooLarge, FrameType};
use crate::generated::a6::httpreq_call as wire;
use crate::invalid::InvalidFrame;
use crate::method::Method;
use crate::verify::{Message, Union};
use crate::writer::{Answer, FrameWriter, Position};

/// A request as the runner reads it.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    id: u32,
    src_ip: Option<&'a [u8]>,
    method: u8,
    path: &'a [u8],
    args: Entries<'a>,
    headers: Entries<'a>,
    conf_token: u32,
}

impl<'a> RequestView<'a> {
    /// Verifies the data of a frame of type [`FrameType::HttpReqCall`] from the gateway.
    ///
    /// # Errors
    /// [`InvalidFrame`] if it is no such message, or unaligned.
    pub fn parse(data: &'a [u8]) -> Result<Self, InvalidFrame> {
        Self::parse_with(data, |_| {}, |_| {})
    }

    /// The same, and shows each argument and each header while it is verified: who takes all of them
    /// walks once. Where the result is an error, what was shown before it is to be forgotten.
    ///
    /// # Errors
    /// As for [`parse`](Self::parse).
    #[inline]
    pub fn parse_with(
        data: &'a [u8],
        each_arg: impl FnMut(Entry<'a>),
        each_header: impl FnMut(Entry<'a>),
    ) -> Result<Self, InvalidFrame> {
        let mut message = Message::new(data)?;
        let mut request = message.root()?;
        Ok(Self {
            id: request.u32("id", wire::Req::VT_ID)?,
            src_ip: request.bytes("src_ip", wire::Req::VT_SRC_IP)?,
            method: request.u8("method", wire::Req::VT_METHOD)?,
            path: request
                .bytes("path", wire::Req::VT_PATH)?
                .unwrap_or_default(),
            args: request.entries_with("args", wire::Req::VT_ARGS, each_arg)?,
            headers: request.entries_with("headers", wire::Req::VT_HEADERS, each_header)?,
            conf_token: request.u32("conf_token", wire::Req::VT_CONF_TOKEN)?,
        })
    }

    /// Counts the calls of one gateway worker; the answer carries it back. For logs.
    #[must_use]
    pub fn id(self) -> u32 {
        self.id
    }

    /// The client's address in network order: 4 bytes or 16, from an honest gateway.
    #[must_use]
    pub fn src_ip(self) -> Option<&'a [u8]> {
        self.src_ip
    }

    /// The method; `None` if the protocol does not know its number.
    #[must_use]
    pub fn method(self) -> Option<Method> {
        Method::try_from(self.method_byte()).ok()
    }

    /// The method's number as it arrived.
    #[must_use]
    pub fn method_byte(self) -> u8 {
        self.method
    }

    /// The path, decoded and normalised, without the query. Any bytes.
    #[must_use]
    pub fn path(self) -> &'a [u8] {
        self.path
    }

    /// The query's arguments, decoded; their order is not the client's. `?z` has no value, `?q=` an empty
    /// one.
    #[must_use]
    pub fn args(self) -> Entries<'a> {
        self.args
    }

    /// The headers, names in lower case; their order is not the client's.
    #[must_use]
    pub fn headers(self) -> Entries<'a> {
        self.headers
    }

    /// The token of the route's configuration; see [`prepare_conf`](crate::prepare_conf).
    #[must_use]
    pub fn conf_token(self) -> u32 {
        self.conf_token
    }
}

/// An answer as the gateway's side reads it.
#[derive(Clone, Copy, Debug)]
pub struct AnswerView<'a> {
    id: u32,
    action: Action<'a>,
}

/// What is to become of the request.
#[derive(Clone, Copy, Debug)]
pub enum Action<'a> {
    /// It goes on unchanged.
    None,
    /// The client gets this, and nothing goes upstream.
    Stop {
        /// HTTP status; the gateway takes 0 for 200.
        status: u16,
        /// Headers of the response.
        headers: Entries<'a>,
        /// Body of the response.
        body: Option<&'a [u8]>,
    },
    /// It goes on with these changes.
    Rewrite {
        /// The new path.
        path: Option<&'a [u8]>,
        /// Request headers to set, or to delete where there is no value or an empty one.
        headers: Entries<'a>,
        /// Arguments to set, or to delete where there is no value.
        args: Entries<'a>,
        /// Headers to add to the response that will come.
        resp_headers: Entries<'a>,
        /// The new body of the request.
        body: Option<&'a [u8]>,
    },
}

impl<'a> AnswerView<'a> {
    /// Verifies the data of a frame of type [`FrameType::HttpReqCall`] from the runner.
    ///
    /// # Errors
    /// [`InvalidFrame`] if it is no such message, has an unknown action, or is unaligned.
    pub fn parse(data: &'a [u8]) -> Result<Self, InvalidFrame> {
        let mut message = Message::new(data)?;
        let mut answer = message.root()?;
        let id = answer.u32("id", wire::Resp::VT_ID)?;
        let action =
            match answer.union("action", wire::Resp::VT_ACTION_TYPE, wire::Resp::VT_ACTION)? {
                Some(action) => Action::take(action)?,
                None => Action::None,
            };
        Ok(Self { id, action })
    }

    /// The `id` of the request that this answers.
    #[must_use]
    pub fn id(self) -> u32 {
        self.id
    }

    /// What is to become of the request.
    #[must_use]
    pub fn action(self) -> Action<'a> {
        self.action
    }
}

impl<'a> Action<'a> {
    fn take(action: Union<'_, 'a>) -> Result<Self, InvalidFrame> {
        match wire::Action(action.kind()) {
            wire::Action::NONE => Ok(Self::None),
            wire::Action::Stop => {
                let mut stop = action.table()?;
                Ok(Self::Stop {
                    status: stop.u16("status", wire::Stop::VT_STATUS)?,
                    headers: stop.entries("headers", wire::Stop::VT_HEADERS)?,
                    body: stop.bytes("body", wire::Stop::VT_BODY)?,
                })
            }
            wire::Action::Rewrite => {
                let mut rewrite = action.table()?;
                Ok(Self::Rewrite {
                    path: rewrite.bytes("path", wire::Rewrite::VT_PATH)?,
                    headers: rewrite.entries("headers", wire::Rewrite::VT_HEADERS)?,
                    args: rewrite.entries("args", wire::Rewrite::VT_ARGS)?,
                    resp_headers: rewrite
                        .entries("resp_headers", wire::Rewrite::VT_RESP_HEADERS)?,
                    body: rewrite.bytes("body", wire::Rewrite::VT_BODY)?,
                })
            }
            unknown => Err(InvalidFrame::UnknownKind {
                field: "action",
                kind: unknown.0,
            }),
        }
    }
}

/// A request to write: what [`RequestView`] reads.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a, A, H> {
    /// Counts the calls.
    pub id: u32,
    /// The client's address in network order.
    pub src_ip: Option<&'a [u8]>,
    /// The method.
    pub method: Method,
    /// The path, decoded, without the query.
    pub path: &'a [u8],
    /// The query's arguments, decoded.
    pub args: A,
    /// The headers, names in lower case.
    pub headers: H,
    /// The token of the route's configuration.
    pub conf_token: u32,
}

/// Changes to a request to write: what [`Action::Rewrite`] reads. Lists left empty change nothing.
#[derive(Clone, Copy, Debug)]
pub struct Rewrite<'a, H, A, R> {
    /// The new path, starting with `/`; the gateway encodes it again and keeps the query.
    pub path: Option<&'a [u8]>,
    /// Request headers to set; no value or an empty one deletes.
    pub headers: H,
    /// Arguments to set; no value deletes.
    pub args: A,
    /// Headers to add to the response that will come.
    pub resp_headers: R,
    /// The new body of the request; an empty one changes nothing.
    pub body: Option<&'a [u8]>,
}

/// Writes a request (the gateway's side).
///
/// # Errors
/// [`FrameTooLarge`] if it does not fit a frame.
pub fn write_request<'w, 'e, A, H>(
    writer: &'w mut FrameWriter,
    request: Request<'_, A, H>,
) -> Result<&'w [u8], FrameTooLarge>
where
    A: IntoIterator<Item = Entry<'e>>,
    H: IntoIterator<Item = Entry<'e>>,
{
    writer.frame(FrameType::HttpReqCall, |w| {
        let src_ip = w.optional_bytes(request.src_ip)?;
        let path = Some(w.bytes(request.path)?);
        let args = w.entries(request.args)?;
        let headers = w.entries(request.headers)?;
        w.table([
            request.id.into(),
            src_ip.into(),
            (request.method as u8).into(),
            path.into(),
            args.into(),
            headers.into(),
            request.conf_token.into(),
        ])
    })
}

/// Writes the answer "let it go on as it is".
pub fn write_unchanged(writer: &mut FrameWriter, id: u32) -> &[u8] {
    writer
        .frame(FrameType::HttpReqCall, |w| {
            answer(w, id, wire::Action::NONE, None)
        })
        .expect("one number fits a frame")
}

/// Writes the answer "send this to the client".
///
/// # Errors
/// [`FrameTooLarge`] if it does not fit a frame.
pub fn write_stop<'w, 'e>(
    writer: &'w mut FrameWriter,
    id: u32,
    status: u16,
    headers: impl IntoIterator<Item = Entry<'e>>,
    body: Option<&'w [u8]>,
) -> Result<Answer<'w>, FrameTooLarge> {
    writer.answer(FrameType::HttpReqCall, body, |w, body| {
        let headers = w.entries(headers)?;
        let stop = w.table([status.into(), headers.into(), body.into()])?;
        answer(w, id, wire::Action::Stop, Some(stop))
    })
}

/// Writes the answer "let it go on with these changes".
///
/// # Errors
/// [`FrameTooLarge`] if it does not fit a frame.
pub fn write_rewrite<'w, 'e, H, A, R>(
    writer: &'w mut FrameWriter,
    id: u32,
    rewrite: Rewrite<'w, H, A, R>,
) -> Result<Answer<'w>, FrameTooLarge>
where
    H: IntoIterator<Item = Entry<'e>>,
    A: IntoIterator<Item = Entry<'e>>,
    R: IntoIterator<Item = Entry<'e>>,
{
    writer.answer(FrameType::HttpReqCall, rewrite.body, |w, body| {
        let path = w.optional_bytes(rewrite.path)?;
        let headers = w.entries(rewrite.headers)?;
        let args = w.entries(rewrite.args)?;
        let resp_headers = w.entries(rewrite.resp_headers)?;
        let rewrite = w.table([
            path.into(),
            headers.into(),
            args.into(),
            resp_headers.into(),
            body.into(),
        ])?;
        answer(w, id, wire::Action::Rewrite, Some(rewrite))
    })
}

fn answer(
    writer: &mut FrameWriter,
    id: u32,
    kind: wire::Action,
    action: Option<Position>,
) -> Result<Position, FrameTooLarge> {
    writer.table([id.into(), kind.0.into(), action.into()])
}
