//! Questions to the gateway in the middle of a call: each goes out on the call's own connection, and its
//! answer comes back there.

use plugin_abi::abi::AskStatus;
use plugin_proto::{FrameType, FrameWriter, extra_info};
use tokio::time::Instant;

use super::CallError;
use crate::{
    metrics::traffic::{Traffic, Wanted},
    pipeline::{
        fields::span_start,
        gateway::{Gateway, Gone},
        questions::{Answer, LongValue, Question},
    },
    server::connection::{Connection, ReadError},
};

/// Values up to this many bytes are copied out of their frame; longer ones keep it.
const COPIED_BYTES: usize = 4096;

/// The gateway behind a connection, while a call is open on it.
pub(super) struct ConnectedGateway<'a> {
    pub(super) connection: &'a mut Connection,
    pub(super) writer: &'a mut FrameWriter,
    /// Questions whose answers have not come yet.
    pub(super) unread_answers: &'a mut u32,
    /// Questions that may still be asked.
    pub(super) rounds_left: u32,
    /// Where the time is counted that answers take.
    pub(super) traffic: &'a Traffic,
}

impl Gateway for ConnectedGateway<'_> {
    async fn ask(&mut self, question: &Question) -> Result<Answer, Gone> {
        let Some(left) = self.rounds_left.checked_sub(1) else {
            return Ok(Answer::Refused(AskStatus::TOO_MANY_QUESTIONS));
        };
        self.rounds_left = left;
        let asked = Instant::now();
        let answer = self.exchange(question).await;
        self.traffic.count_wait(wanted(question), asked.elapsed());
        answer.map_err(|error| {
            tracing::debug!(%error, "the gateway went away while it was asked");
            Gone
        })
    }

    fn passes_to(&mut self, generation: u64) {
        self.connection.set_plugin(generation);
    }
}

fn wanted(question: &Question) -> Wanted {
    match question {
        Question::Variable(_) => Wanted::Variable,
        Question::RequestBody => Wanted::RequestBody,
        Question::ResponseBody => Wanted::ResponseBody,
    }
}

impl ConnectedGateway<'_> {
    async fn exchange(&mut self, question: &Question) -> Result<Answer, CallError> {
        let asked = match question {
            Question::Variable(name) => extra_info::Question::Var(name),
            Question::RequestBody => extra_info::Question::RequestBody,
            Question::ResponseBody => extra_info::Question::ResponseBody,
        };
        let Ok(frame) = extra_info::write_question(self.writer, asked) else {
            // The name of a variable that no frame can carry exists nowhere.
            return Ok(Answer::Absent);
        };
        self.connection.write_question(frame).await?;
        *self.unread_answers += 1;
        loop {
            let read = self.connection.read_frame().await;
            match read {
                Ok(FrameType::ExtraInfo) => {}
                Ok(other) => return Err(CallError::OutOfPlace(other)),
                Err(ReadError::OutOfMemory(..)) => {
                    // First, since the skipping may be given up and goes on with the next frame.
                    *self.unread_answers -= 1;
                    self.connection.skip_frame().await?;
                    if *self.unread_answers == 0 {
                        return Ok(Answer::Refused(AskStatus::OUT_OF_MEMORY));
                    }
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            *self.unread_answers -= 1;
            if *self.unread_answers == 0 {
                return self.take_answer();
            }
            // The answer to a question that nobody waits for any more.
            self.connection.consume();
        }
    }

    fn take_answer(&mut self) -> Result<Answer, CallError> {
        let frame = self.connection.incoming.frame();
        let data = frame.map_or(&[][..], |frame| frame.data());
        let view = extra_info::AnswerView::parse(data)?;
        let mut answer = match view.result() {
            None => Answer::Absent,
            Some(value) if value.len() <= COPIED_BYTES => Answer::Value(value.into()),
            Some(value) => {
                let (start, len) = (span_start(data, value), value.len());
                match self.connection.take_frame() {
                    Ok((frame, memory)) => {
                        return Ok(Answer::Frame(LongValue::new(frame, start, len, memory)));
                    }
                    Err(_) => Answer::Refused(AskStatus::OUT_OF_MEMORY),
                }
            }
        };
        if let Answer::Value(copy) = &answer
            && self.connection.keep_copy(copy.len()).is_err()
        {
            answer = Answer::Refused(AskStatus::OUT_OF_MEMORY);
        }
        self.connection.consume();
        Ok(answer)
    }
}
