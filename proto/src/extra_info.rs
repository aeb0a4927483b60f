//! Frame type 3: during a call the runner asks for more than the call carries, and the gateway answers.
//!
//! Unlike in all other types the question comes from the runner. It may be asked only while a call of
//! type 2 or 4 is open on the same connection.

use crate::frame::{FrameTooLarge, FrameType};
use crate::generated::a6::extra_info as wire;
use crate::invalid::InvalidFrame;
use crate::verify::Message;
use crate::writer::FrameWriter;

/// What the runner wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Question<'a> {
    /// The value of an Nginx or gateway variable, by its name.
    Var(&'a [u8]),
    /// The body of the request.
    RequestBody,
    /// The body of the upstream's response. Only in a response call, and only once.
    ResponseBody,
}

/// A question as the gateway's side reads it.
#[derive(Clone, Copy, Debug)]
pub struct QuestionView<'a> {
    question: Question<'a>,
}

impl<'a> QuestionView<'a> {
    /// Verifies the data of a frame of type [`FrameType::ExtraInfo`] from the runner.
    ///
    /// # Errors
    /// [`InvalidFrame`] if it is no such message, asks nothing or something unknown, or is unaligned.
    pub fn parse(data: &'a [u8]) -> Result<Self, InvalidFrame> {
        let mut message = Message::new(data)?;
        let mut request = message.root()?;
        let Some(info) = request.union("info", wire::Req::VT_INFO_TYPE, wire::Req::VT_INFO)? else {
            return Err(InvalidFrame::Missing { field: "info" });
        };
        let question = match wire::Info(info.kind()) {
            wire::Info::Var => {
                let name = info.table()?.bytes("name", wire::Var::VT_NAME)?;
                Question::Var(name.unwrap_or_default())
            }
            wire::Info::ReqBody => {
                info.table()?;
                Question::RequestBody
            }
            wire::Info::RespBody => {
                info.table()?;
                Question::ResponseBody
            }
            wire::Info::NONE => return Err(InvalidFrame::Missing { field: "info" }),
            unknown => {
                return Err(InvalidFrame::UnknownKind {
                    field: "info",
                    kind: unknown.0,
                });
            }
        };
        Ok(Self { question })
    }

    /// What the runner wants to know.
    #[must_use]
    pub fn question(self) -> Question<'a> {
        self.question
    }
}

/// The gateway's answer as the runner reads it.
#[derive(Clone, Copy, Debug)]
pub struct AnswerView<'a> {
    result: Option<&'a [u8]>,
}

impl<'a> AnswerView<'a> {
    /// Verifies the data of a frame of type [`FrameType::ExtraInfo`] from the gateway.
    ///
    /// # Errors
    /// [`InvalidFrame`] if it is no such message, or unaligned.
    pub fn parse(data: &'a [u8]) -> Result<Self, InvalidFrame> {
        let mut message = Message::new(data)?;
        let mut answer = message.root()?;
        Ok(Self {
            result: answer.bytes("result", wire::Resp::VT_RESULT)?,
        })
    }

    /// What was asked for; `None` if there is no such variable or no body, which differs from an empty
    /// one.
    #[must_use]
    pub fn result(self) -> Option<&'a [u8]> {
        self.result
    }
}

/// Writes a question.
///
/// # Errors
/// [`FrameTooLarge`] if the name of a variable does not fit a frame.
pub fn write_question<'w>(
    writer: &'w mut FrameWriter,
    question: Question<'_>,
) -> Result<&'w [u8], FrameTooLarge> {
    writer.frame(FrameType::ExtraInfo, |w| {
        let (kind, info) = match question {
            Question::Var(name) => {
                let name = Some(w.bytes(name)?);
                (wire::Info::Var, w.table([name.into()])?)
            }
            Question::RequestBody => (wire::Info::ReqBody, w.table([])?),
            Question::ResponseBody => (wire::Info::RespBody, w.table([])?),
        };
        w.table([kind.0.into(), info.into()])
    })
}

/// Writes the answer to a question (the gateway's side).
///
/// # Errors
/// [`FrameTooLarge`] if it does not fit a frame.
pub fn write_answer<'w>(
    writer: &'w mut FrameWriter,
    result: Option<&[u8]>,
) -> Result<&'w [u8], FrameTooLarge> {
    writer.frame(FrameType::ExtraInfo, |w| {
        let result = w.optional_bytes(result)?;
        w.table([result.into()])
    })
}
