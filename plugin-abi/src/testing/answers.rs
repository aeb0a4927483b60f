//! What a call has asked the gateway, and the answers.
//!
//! Answers never move, so that a plugin can borrow one while it asks for the next.

use std::sync::{Mutex, OnceLock, PoisonError};

use super::outcome::Asked;
use crate::abi::{AskStatus, Question};

/// Questions of one call in their order, with their answers.
#[derive(Default)]
pub(super) struct Answers {
    first: OnceLock<Box<Answered>>,
    /// Held by who appends.
    appending: Mutex<()>,
}

struct Answered {
    asked: Asked,
    status: AskStatus,
    value: Option<Vec<u8>>,
    next: OnceLock<Box<Answered>>,
}

impl Answers {
    /// How a question ended that has been asked before.
    pub(super) fn status(&self, asked: &Asked) -> Option<AskStatus> {
        self.find(asked).map(|answered| answered.status)
    }

    /// The bytes of an answer.
    pub(super) fn value(&self, asked: &Asked) -> Option<&[u8]> {
        self.find(asked)?.value.as_deref()
    }

    /// Appends what came of a question, unless it is there.
    pub(super) fn push(&self, asked: Asked, status: AskStatus, value: Option<Vec<u8>>) {
        let _alone = self
            .appending
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut place = &self.first;
        while let Some(answered) = place.get() {
            if answered.asked == asked {
                return;
            }
            place = &answered.next;
        }
        let _ = place.set(Box::new(Answered {
            asked,
            status,
            value,
            next: OnceLock::new(),
        }));
    }

    /// All questions that have travelled, in their order.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.all().map(|answered| answered.asked.clone()).collect()
    }

    /// How many have.
    pub(super) fn count(&self) -> usize {
        self.all().count()
    }

    fn find(&self, asked: &Asked) -> Option<&Answered> {
        self.all().find(|answered| answered.asked == *asked)
    }

    fn all(&self) -> impl Iterator<Item = &Answered> {
        std::iter::successors(self.first.get(), |answered| answered.next.get())
            .map(|answered| &**answered)
    }
}

impl From<Question<'_>> for Asked {
    fn from(question: Question<'_>) -> Self {
        match question {
            Question::Variable(name) => {
                Self::Variable(String::from_utf8_lossy(name.as_slice()).into_owned())
            }
            Question::RequestBody => Self::RequestBody,
            Question::ResponseBody => Self::ResponseBody,
        }
    }
}
