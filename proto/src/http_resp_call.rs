//! Frame type 4: the upstream's response before it goes to the client, and what the client gets instead.
//!
//! What the gateway makes of an answer is not obvious (one header in it drops all of the upstream's);
//! `docs/protocol.md` has the table. This module writes what it is told.

use crate::entries::{Entries, Entry};
use crate::frame::{FrameTooLarge, FrameType};
use crate::generated::a6::httpresp_call as wire;
use crate::invalid::InvalidFrame;
use crate::verify::Message;
use crate::writer::{Answer, FrameWriter};

/// A response as the runner reads it.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    id: u32,
    status: u16,
    headers: Entries<'a>,
    conf_token: u32,
}

impl<'a> RequestView<'a> {
    /// Verifies the data of a frame of type [`FrameType::HttpRespCall`] from the gateway.
    ///
    /// # Errors
    /// [`InvalidFrame`] if it is no such message, or unaligned.
    pub fn parse(data: &'a [u8]) -> Result<Self, InvalidFrame> {
        Self::parse_with(data, |_| {})
    }

    /// The same, and shows each header while it is verified: who takes all of them walks once. Where
    /// the result is an error, what was shown before it is to be forgotten.
    ///
    /// # Errors
    /// As for [`parse`](Self::parse).
    #[inline]
    pub fn parse_with(
        data: &'a [u8],
        each_header: impl FnMut(Entry<'a>),
    ) -> Result<Self, InvalidFrame> {
        let mut message = Message::new(data)?;
        let mut request = message.root()?;
        Ok(Self {
            id: request.u32("id", wire::Req::VT_ID)?,
            status: request.u16("status", wire::Req::VT_STATUS)?,
            headers: request.entries_with("headers", wire::Req::VT_HEADERS, each_header)?,
            conf_token: request.u32("conf_token", wire::Req::VT_CONF_TOKEN)?,
        })
    }

    /// Counts the calls of one gateway worker; the answer carries it back. For logs.
    #[must_use]
    pub fn id(self) -> u32 {
        self.id
    }

    /// The upstream's HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        self.status
    }

    /// The upstream's headers, names as the upstream wrote them.
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
    status: u16,
    headers: Entries<'a>,
    body: Option<&'a [u8]>,
}

impl<'a> AnswerView<'a> {
    /// Verifies the data of a frame of type [`FrameType::HttpRespCall`] from the runner.
    ///
    /// # Errors
    /// [`InvalidFrame`] if it is no such message, or unaligned.
    pub fn parse(data: &'a [u8]) -> Result<Self, InvalidFrame> {
        let mut message = Message::new(data)?;
        let mut answer = message.root()?;
        Ok(Self {
            id: answer.u32("id", wire::Resp::VT_ID)?,
            status: answer.u16("status", wire::Resp::VT_STATUS)?,
            headers: answer.entries("headers", wire::Resp::VT_HEADERS)?,
            body: answer.bytes("body", wire::Resp::VT_BODY)?,
        })
    }

    /// The `id` of the response call that this answers.
    #[must_use]
    pub fn id(self) -> u32 {
        self.id
    }

    /// The status to send; 0 keeps the upstream's.
    #[must_use]
    pub fn status(self) -> u16 {
        self.status
    }

    /// The headers to send. None at all keeps the upstream's (most of them); any one replaces them all.
    #[must_use]
    pub fn headers(self) -> Entries<'a> {
        self.headers
    }

    /// The body to send; none or an empty one keeps the upstream's.
    #[must_use]
    pub fn body(self) -> Option<&'a [u8]> {
        self.body
    }
}

/// Writes a response call (the gateway's side).
///
/// # Errors
/// [`FrameTooLarge`] if it does not fit a frame.
pub fn write_request<'w, 'e>(
    writer: &'w mut FrameWriter,
    id: u32,
    status: u16,
    headers: impl IntoIterator<Item = Entry<'e>>,
    conf_token: u32,
) -> Result<&'w [u8], FrameTooLarge> {
    writer.frame(FrameType::HttpRespCall, |w| {
        let headers = w.entries(headers)?;
        w.table([id.into(), status.into(), headers.into(), conf_token.into()])
    })
}

/// Writes the answer to a response call. Without a status the upstream's stays; `headers` have to be all
/// that the client is to get; without a body (or with an empty one) the upstream's stays.
///
/// # Errors
/// [`FrameTooLarge`] if it does not fit a frame.
pub fn write_answer<'w, 'e>(
    writer: &'w mut FrameWriter,
    id: u32,
    status: Option<u16>,
    headers: impl IntoIterator<Item = Entry<'e>>,
    body: Option<&'w [u8]>,
) -> Result<Answer<'w>, FrameTooLarge> {
    writer.answer(FrameType::HttpRespCall, body, |w, body| {
        let headers = w.entries(headers)?;
        let status = status.unwrap_or(0);
        w.table([id.into(), status.into(), headers.into(), body.into()])
    })
}
