//! The questions of one call: asked by plugins from any thread, put to the gateway by whoever
//! drives the call, kept for the rest of the chain.
//!
//! A question travels at most once per call. Its answer stays where it is until the call ends, so
//! that plugins can borrow it. Nothing here waits or performs I/O.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use plugin_abi::abi::{self, AskStatus};
use plugin_proto::FrameBuffer;

/// A question to the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// A variable, by name.
    Variable(Box<[u8]>),
    /// The request's body.
    RequestBody,
    /// The upstream's body.
    ResponseBody,
}

impl Question {
    fn is(&self, question: abi::Question<'_>) -> bool {
        match (self, question) {
            (Self::Variable(own), abi::Question::Variable(other)) => **own == *other.as_slice(),
            (Self::RequestBody, abi::Question::RequestBody)
            | (Self::ResponseBody, abi::Question::ResponseBody) => true,
            _ => false,
        }
    }
}

impl From<abi::Question<'_>> for Question {
    fn from(question: abi::Question<'_>) -> Self {
        match question {
            abi::Question::Variable(name) => Self::Variable(name.as_slice().into()),
            abi::Question::RequestBody => Self::RequestBody,
            abi::Question::ResponseBody => Self::ResponseBody,
        }
    }
}

/// What came of a question.
#[derive(Debug)]
pub enum Answer {
    /// The gateway has no such value.
    Absent,
    /// A short value.
    Value(Box<[u8]>),
    /// A long one, still in the frame that brought it.
    Frame(LongValue),
    /// It was not asked, and why.
    Refused(AskStatus),
}

impl Answer {
    fn status(&self) -> AskStatus {
        match self {
            Self::Refused(status) => *status,
            Self::Absent | Self::Value(_) | Self::Frame(_) => AskStatus::ANSWERED,
        }
    }

    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Value(bytes) => Some(bytes),
            Self::Frame(long) => Some(long.bytes()),
            Self::Absent | Self::Refused(_) => None,
        }
    }
}

/// A value inside a frame that is kept as a whole, so that a body is not copied.
#[derive(Debug)]
pub struct LongValue {
    frame: FrameBuffer,
    start: usize,
    len: usize,
    /// Counted against the host's memory for bodies until it is dropped.
    _memory: crate::memory::Reserved,
}

impl LongValue {
    /// Takes a complete frame; the value is the given part of its data.
    pub fn new(
        frame: FrameBuffer,
        start: usize,
        len: usize,
        memory: crate::memory::Reserved,
    ) -> Self {
        Self {
            frame,
            start,
            len,
            _memory: memory,
        }
    }

    fn bytes(&self) -> &[u8] {
        self.frame
            .frame()
            .and_then(|frame| frame.data().get(self.start..self.start + self.len))
            .unwrap_or_default()
    }
}

/// The questions of one call and their answers.
#[derive(Debug, Default)]
pub struct Questions {
    open: Mutex<Open>,
    answers: Answers,
    /// How long the call has waited for answers, in nanoseconds.
    waited: AtomicU64,
}

#[derive(Debug, Default)]
struct Open {
    /// Asked by a plugin, not yet put to the gateway.
    waiting: VecDeque<Question>,
    /// Put to the gateway.
    underway: Vec<Question>,
    /// Plugins that wait for an answer.
    askers: Vec<Waker>,
    /// Who puts questions to the gateway.
    driver: Option<Waker>,
    /// The call has ended: nobody will answer any more.
    over: bool,
}

impl Questions {
    /// A plugin asks. The future is ready at once where the answer is there already.
    pub fn ask(self: &Arc<Self>, question: Question) -> Asking {
        Asking {
            questions: Arc::clone(self),
            question,
        }
    }

    /// Whether a question has its answer.
    pub fn answered(&self, question: &Question) -> bool {
        self.answers.find(|answered| answered == question).is_some()
    }

    /// The bytes that a question was answered with.
    pub fn answer_to(&self, question: abi::Question<'_>) -> Option<&[u8]> {
        self.answers.find(|answered| answered.is(question))?.bytes()
    }

    /// The next question to put to the gateway; without one, `waker` is woken when there is.
    pub fn next_for_gateway(&self, waker: &Waker) -> Option<Question> {
        let mut open = self.open.lock();
        match open.waiting.pop_front() {
            Some(question) => {
                open.underway.push(question.clone());
                Some(question)
            }
            None => {
                open.driver = Some(waker.clone());
                None
            }
        }
    }

    /// Records an answer and wakes who waits for it.
    pub fn answer(&self, question: Question, answer: Answer) {
        let askers = {
            let mut open = self.open.lock();
            open.underway.retain(|underway| *underway != question);
            self.answers.push(question, answer);
            std::mem::take(&mut open.askers)
        };
        askers.into_iter().for_each(Waker::wake);
    }

    /// Forgets that a question was put to the gateway: its answer did not come in time.
    pub fn give_up(&self, question: &Question) {
        self.open
            .lock()
            .underway
            .retain(|underway| underway != question);
    }

    /// The call has waited so long for an answer, whatever came of it.
    pub fn add_waited(&self, waited: Duration) {
        let nanoseconds = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        self.waited.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// How long the call has waited for answers.
    pub fn waited(&self) -> Duration {
        Duration::from_nanos(self.waited.load(Ordering::Relaxed))
    }

    /// Ends the call: open and later questions end as [`AskStatus::CALL_OVER`].
    pub fn end(&self) {
        let askers = {
            let mut open = self.open.lock();
            open.over = true;
            open.driver = None;
            std::mem::take(&mut open.askers)
        };
        askers.into_iter().for_each(Waker::wake);
    }

    /// Makes the value ready for another call; memory is kept.
    pub fn reset(&mut self) {
        let open = self.open.get_mut();
        open.waiting.clear();
        open.underway.clear();
        open.askers.clear();
        open.driver = None;
        open.over = false;
        self.answers = Answers::default();
        *self.waited.get_mut() = 0;
    }
}

/// Waits for the answer to a question.
pub struct Asking {
    questions: Arc<Questions>,
    question: Question,
}

impl Future for Asking {
    type Output = AskStatus;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<AskStatus> {
        let Self {
            questions,
            question,
        } = &*self;
        let driver = {
            let mut open = questions.open.lock();
            // Under the lock, so that an answer cannot come between the look and the wait.
            if let Some(answer) = questions.answers.find(|answered| answered == question) {
                return Poll::Ready(answer.status());
            }
            if open.over {
                return Poll::Ready(AskStatus::CALL_OVER);
            }
            if !open
                .askers
                .iter()
                .any(|asker| asker.will_wake(context.waker()))
            {
                open.askers.push(context.waker().clone());
            }
            if open.waiting.contains(question) || open.underway.contains(question) {
                None
            } else {
                open.waiting.push_back(question.clone());
                open.driver.take()
            }
        };
        if let Some(driver) = driver {
            driver.wake();
        }
        Poll::Pending
    }
}

/// Answers in the order in which they came; they never move, so that they can be borrowed while
/// more come.
#[derive(Debug, Default)]
struct Answers {
    first: OnceLock<Box<Answered>>,
}

#[derive(Debug)]
struct Answered {
    question: Question,
    answer: Answer,
    next: OnceLock<Box<Answered>>,
}

impl Answers {
    fn find(&self, is: impl Fn(&Question) -> bool) -> Option<&Answer> {
        let mut place = &self.first;
        while let Some(answered) = place.get() {
            if is(&answered.question) {
                return Some(&answered.answer);
            }
            place = &answered.next;
        }
        None
    }

    /// Appends. Callers hold the lock of [`Questions::open`], so that nobody else appends.
    fn push(&self, question: Question, answer: Answer) {
        let mut place = &self.first;
        while let Some(answered) = place.get() {
            place = &answered.next;
        }
        let last = place.set(Box::new(Answered {
            question,
            answer,
            next: OnceLock::new(),
        }));
        debug_assert!(last.is_ok(), "answers are appended under the lock");
    }
}
