//! Frame type 0: what the runner sends instead of an answer when a call or a prepare fails.
//!
//! Never sent by the gateway, which closes the connection after reading one.

use crate::frame::FrameType;
use crate::generated::a6::err as wire;
use crate::invalid::InvalidFrame;
use crate::verify::Message;
use crate::writer::FrameWriter;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    /// The call cannot be understood.
    BadRequest = 0,
    /// The call cannot be served. The gateway answers 503, or goes on if the route allows degradation.
    ServiceUnavailable = 1,
    /// The token is unknown. The gateway forgets **all** its tokens, prepares again and repeats the call.
    ConfTokenNotFound = 2,
}

/// An error as the gateway's side reads it.
#[derive(Clone, Copy, Debug)]
pub struct AnswerView {
    code: wire::Code,
}

impl AnswerView {
    /// Verifies the data of a frame of type [`FrameType::Error`].
    ///
    /// # Errors
    /// [`InvalidFrame`] if it is no such message, or unaligned.
    pub fn parse(data: &[u8]) -> Result<Self, InvalidFrame> {
        let mut message = Message::new(data)?;
        let mut answer = message.root()?;
        Ok(Self {
            code: wire::Code(answer.u8("code", wire::Resp::VT_CODE)?),
        })
    }

    /// Why there is no answer; `None` if the protocol does not know the reason.
    #[must_use]
    pub fn code(self) -> Option<Code> {
        match self.code {
            wire::Code::BAD_REQUEST => Some(Code::BadRequest),
            wire::Code::SERVICE_UNAVAILABLE => Some(Code::ServiceUnavailable),
            wire::Code::CONF_TOKEN_NOT_FOUND => Some(Code::ConfTokenNotFound),
            _ => None,
        }
    }

    /// The code as it arrived.
    #[must_use]
    pub fn code_byte(self) -> u8 {
        self.code.0
    }
}

/// Writes an error frame.
pub fn write(writer: &mut FrameWriter, code: Code) -> &[u8] {
    writer
        .frame(FrameType::Error, |w| w.table([(code as u8).into()]))
        .expect("one number fits a frame")
}
