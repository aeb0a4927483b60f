//! Questions to the gateway in the middle of a call, and why one may have no answer.

use std::fmt;

use crate::abi::{AskStatus, CallObject, Question};

/// Why the gateway could not be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AskError {
    /// The body is larger than a frame of the gateway's protocol (about 16 MiB) can carry. It was
    /// not asked for, since the gateway would end the whole call.
    BodyTooLarge,
    /// The call has asked as often as the host allows (`--max-extra-info-rounds`).
    TooManyQuestions,
    /// The call is over: the gateway hung up, or the host stopped waiting.
    CallOver,
    /// A response's body exists in the response phase only.
    NotInThisPhase,
    /// The host's memory for bodies is used up (`--max-body-memory`).
    OutOfMemory,
    /// The host gave a reason that this version of `plugin-abi` does not know.
    Other(u8),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BodyTooLarge => f.write_str("the body is too large for the gateway's protocol"),
            Self::TooManyQuestions => f.write_str("the call has asked the gateway too often"),
            Self::CallOver => f.write_str("the call is over, the gateway cannot be asked any more"),
            Self::NotInThisPhase => f.write_str("this cannot be asked in this phase"),
            Self::OutOfMemory => f.write_str("the host's memory for bodies is used up"),
            Self::Other(code) => write!(f, "the host refused the question with code {code}"),
        }
    }
}

impl std::error::Error for AskError {}

/// Asks the gateway and waits; the answer is borrowed from the call.
pub(crate) async fn ask<'a>(
    call: &'a CallObject,
    question: Question<'_>,
) -> Result<Option<&'a [u8]>, AskError> {
    match call.ask(question).await {
        AskStatus::ANSWERED => Ok(call.answer(question).into_option().map(Into::into)),
        AskStatus::BODY_TOO_LARGE => Err(AskError::BodyTooLarge),
        AskStatus::TOO_MANY_QUESTIONS => Err(AskError::TooManyQuestions),
        AskStatus::CALL_OVER => Err(AskError::CallOver),
        AskStatus::NOT_IN_THIS_PHASE => Err(AskError::NotInThisPhase),
        AskStatus::OUT_OF_MEMORY => Err(AskError::OutOfMemory),
        AskStatus(code) => Err(AskError::Other(code)),
    }
}
