//! One call to its end: a question of the gateway, any number of questions of ours, one answer.
//!
//! What the answers do in the gateway is told in `docs/protocol.md`; the reasons for what is sent
//! here stand there. Every way in which a call can fail ends in an answer that the gateway
//! understands, and in a line of the log that says which plugin, on which route, and why.

mod answers;
mod asking;
mod record;

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use plugin_proto::{FrameType, InvalidFrame, err, prepare_conf};
use tokio::{net::UnixStream, time::Instant};

use super::{
    Shared,
    connection::{Connection, ReadError, Written},
    handover::Followed,
    scratch::{self, Scratch},
};
use crate::{
    metrics::{plugin_calls::Entry, traffic::CallOutcome},
    pipeline::{
        self, End, Progress, Run,
        call::{ANSWER_OVERHEAD, CallBox, Phase},
        chain::Chain,
        gateway::{Gateway, Gone},
        questions::Question,
    },
    shared_memory::connections::CallKind,
    tokens::{ChainState, PluginConf, Prepared, Token},
};
use answers::{Failed, has_no_body};
use asking::ConnectedGateway;
use record::{Listening, Record};

pub(crate) use answers::RESPONSE_FAILED;

/// Why a connection's service has ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The gateway closed it between two calls.
    Closed,
    /// The host stops.
    ShutDown,
    /// The other side is no gateway, or a broken one.
    Gateway(CallError),
}

/// A call that cannot be understood or answered: the gateway's fault.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No frame.
    #[error(transparent)]
    Frame(#[from] ReadError),
    /// A frame without the message that its type promises.
    #[error("a broken message: {0}")]
    Message(#[from] InvalidFrame),
    /// A frame of a type that does not belong here.
    #[error("a frame of type {0:?} where none was expected")]
    OutOfPlace(FrameType),
    /// More than one frame at once.
    #[error("a second frame before the first was answered")]
    Pipelined,
}

impl From<ReadError> for Ended {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Closed => Self::Closed,
            error => Self::Gateway(error.into()),
        }
    }
}

/// A connection, and what of its calls outlasts them.
pub(super) struct Conversation {
    connection: Connection,
    shared: Arc<Shared>,
    /// Questions whose call did not wait for the answer: it still comes.
    unread_answers: u32,
    /// The frame of the call that has begun.
    begun: Option<FrameType>,
    /// The supervisor's view of the connection; dropped after the connection itself.
    followed: Option<Followed>,
}

/// An open call's view of its conversation, and what it uses.
struct Serving<'c> {
    connection: &'c mut Connection,
    shared: &'c Shared,
    unread_answers: &'c mut u32,
    scratch: Box<Scratch>,
    /// Of the call that has begun.
    record: Option<Record>,
}

/// Which call is open.
struct OpenCall {
    phase: Phase,
    id: u32,
    token: Arc<Token>,
    started: Instant,
}

/// How far an answer has come without waiting.
enum Step {
    /// There it is, or as much of it as the gateway has taken.
    Answered(Written),
    /// The chain is still being compiled.
    Compiling(OpenCall, CallBox),
    /// The chain waits for something.
    Running(OpenCall, Run),
    /// The chain is through, and it has to be known whether the client has asked with HEAD.
    AskingMethod(OpenCall, CallBox),
}

impl Conversation {
    pub(super) fn new(stream: UnixStream, shared: Arc<Shared>, followed: Option<Followed>) -> Self {
        let slot = followed.as_ref().map(|followed| followed.slot().clone());
        Self {
            connection: Connection::new(
                stream,
                shared.memory.account(shared.limits.max_connection_memory),
                shared.limits.max_frame_bytes,
                shared.limits.frame_timeout,
                slot,
            ),
            shared,
            unread_answers: 0,
            begun: None,
            followed,
        }
    }

    /// Goes on where another worker stopped.
    pub(super) fn resume(&mut self, bytes: &[u8], unread_answers: u32) {
        self.unread_answers = unread_answers;
        self.connection.resume(bytes);
    }

    /// Whether the connection can be handed over now: it is between two calls, with at most a few
    /// bytes of the next one read.
    pub(super) fn can_be_handed_over(&self) -> bool {
        self.followed.is_some() && self.connection.bytes_along().is_some()
    }

    /// Gives the connection to whoever serves next. Only where [`Conversation::can_be_handed_over`].
    pub(super) fn hand_over(self) {
        let bytes = self.connection.bytes_along().unwrap_or_default().to_vec();
        let stream = self.connection.into_stream();
        if let Some(followed) = self.followed {
            followed.hand_over(stream, &bytes, self.unread_answers);
        }
    }

    /// Whether the gateway has begun to ask something.
    pub(super) fn has_begun(&self) -> bool {
        self.connection.has_bytes()
    }

    /// Waits for the gateway's next question. Dropping the future loses nothing.
    pub(super) async fn next_call(&mut self) -> Result<(), Ended> {
        loop {
            match self.connection.read_frame().await {
                Ok(FrameType::ExtraInfo) if self.unread_answers > 0 => {
                    self.unread_answers -= 1;
                    self.connection.consume();
                }
                Err(ReadError::OutOfMemory(..)) if self.late_answer_begins() => {
                    self.unread_answers -= 1;
                    self.connection.skip_frame().await?;
                }
                Ok(frame_type) => {
                    self.begun = Some(frame_type);
                    return Ok(());
                }
                Err(error) => {
                    self.refuse_frame(&error).await;
                    return Err(error.into());
                }
            }
        }
    }

    fn late_answer_begins(&self) -> bool {
        self.unread_answers > 0
            && self
                .connection
                .incoming
                .header()
                .is_some_and(|header| header.frame_type() == Ok(FrameType::ExtraInfo))
    }

    /// Answers the question that has begun.
    pub(super) async fn finish_call(&mut self) -> Result<(), Ended> {
        let Some(begun) = self.begun.take() else {
            return Ok(());
        };
        let mut serving = self.serve();
        // As a rule a call is through at once, and no future is made for what others wait for: that costs
        // more than many a plugin.
        let at_once = poll_fn(|context| Poll::Ready(serving.answer_at_once(begun, context)));
        let answered = match at_once.await {
            Ok(Step::Answered(Written::Whole)) => Ok(()),
            Ok(step) => serving.answer_later(step).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &answered
            && !matches!(error, CallError::Frame(_))
        {
            serving.send_error_at_last(err::Code::BadRequest).await;
        }
        if let Some(record) = serving.record.take() {
            record.end(serving.shared);
        }
        scratch::keep(serving.scratch);
        let (received, sent) = self.connection.take_traffic();
        self.shared.traffic.count_bytes(received, sent);
        answered.map_err(Ended::Gateway)?;
        if let Some(followed) = &mut self.followed {
            followed.register(self.connection.stream());
        }
        Ok(())
    }

    fn serve(&mut self) -> Serving<'_> {
        Serving {
            connection: &mut self.connection,
            shared: &self.shared,
            unread_answers: &mut self.unread_answers,
            scratch: scratch::take(),
            record: None,
        }
    }

    /// Where the other side can still listen, tells it that its frame is no good.
    async fn refuse_frame(&mut self, error: &ReadError) {
        let code = match error {
            ReadError::TooLong(_) | ReadError::UnknownType(_) | ReadError::Slow(_) => {
                err::Code::BadRequest
            }
            ReadError::OutOfMemory(..) => err::Code::ServiceUnavailable,
            ReadError::Closed | ReadError::ClosedInside | ReadError::Io(_) => return,
        };
        let mut serving = self.serve();
        serving.send_error_at_last(code).await;
    }
}

impl Serving<'_> {
    fn answer_at_once(
        &mut self,
        begun: FrameType,
        context: &mut Context<'_>,
    ) -> Result<Step, CallError> {
        match begun {
            FrameType::PrepareConf => self.prepare().map(Step::Answered),
            FrameType::HttpReqCall => self.begin_call(Phase::Request, context),
            FrameType::HttpRespCall => self.begin_call(Phase::Response, context),
            other => Err(CallError::OutOfPlace(other)),
        }
    }

    /// Waits for whatever it takes, until the answer is written.
    async fn answer_later(&mut self, mut step: Step) -> Result<(), CallError> {
        loop {
            step = match step {
                Step::Answered(Written::Whole) => return Ok(()),
                Step::Answered(Written::Part(part)) => {
                    let frame = self.scratch.answer();
                    return Ok(self.connection.finish_writing(frame, part).await?);
                }
                Step::Compiling(open, call) => self.run_when_compiled(open, call).await?,
                Step::Running(open, run) => {
                    let pipeline = &self.shared.pipeline;
                    let (mut gateway, listening) = self.running(&open);
                    let end = run.finish(pipeline, &mut gateway, listening).await;
                    self.end(open, end)?
                }
                Step::AskingMethod(open, call) => {
                    let head = self.is_head(&open, &call).await?;
                    let written = self.pass_response(&open, &call, head)?;
                    self.scratch.call = Some(call);
                    Step::Answered(written)
                }
            }
        }
    }

    fn prepare(&mut self) -> Result<Written, CallError> {
        let Self {
            connection, shared, ..
        } = self;
        connection.open_call(CallKind::Prepare, 0);
        let prepared = {
            let frame = connection.incoming.frame();
            let data = frame.map_or(&[][..], |frame| frame.data());
            let view = prepare_conf::RequestView::parse(data)?;
            Prepared {
                key: view.key().unwrap_or_default().into(),
                plugins: view
                    .conf()
                    .iter()
                    .map(|entry| PluginConf {
                        name: entry.name.into(),
                        value: entry.value.unwrap_or_default().into(),
                    })
                    .collect(),
            }
        };
        connection.consume();
        let token = shared.tokens.prepare(prepared, Instant::now());
        shared.traffic.count_preparation(token.is_some());
        match token {
            Some(token) => {
                let frame = prepare_conf::write_answer(&mut self.scratch.writer, token);
                Ok(connection.begin_answer(frame)?)
            }
            None => Ok(self.send_error(err::Code::ServiceUnavailable)?),
        }
    }

    fn begin_call(&mut self, phase: Phase, context: &mut Context<'_>) -> Result<Step, CallError> {
        let started = Instant::now();
        let Self {
            connection, shared, ..
        } = self;
        let record = self
            .record
            .insert(Record::begin(Entry::from(phase), started));
        let mut call = self.scratch.call.take().unwrap_or_default();
        call.bound(longest_body(shared), connection.memory());
        let (kind, number) = match phase {
            Phase::Request => (
                CallKind::Request,
                call.take_request(&mut connection.incoming)?,
            ),
            Phase::Response => (
                CallKind::Response,
                call.take_response(&mut connection.incoming)?,
            ),
        };
        connection.open_call(kind, call.id());
        if call.has_following_bytes() {
            return Err(CallError::Pipelined);
        }
        if let Some(reserved) = connection.take_reservation() {
            call.count_frame(reserved);
        }
        let Some(token) = shared.tokens.find(number, started) else {
            self.scratch.call = Some(call);
            record.outcome = CallOutcome::TokenNotFound;
            tracing::debug!(
                token = number,
                "unknown token: the gateway will prepare again"
            );
            let written = self.send_error(err::Code::ConfTokenNotFound)?;
            return Ok(Step::Answered(written));
        };
        if shared.access_log.is_some() {
            record.keep_line(&token, &call);
        }
        let id = call.id();
        let chain = token.chain();
        let open = OpenCall {
            phase,
            id,
            token,
            started,
        };
        match chain {
            ChainState::Compiling => Ok(Step::Compiling(open, call)),
            chain => self.run(open, &chain, call, context),
        }
    }

    async fn run_when_compiled(
        &mut self,
        open: OpenCall,
        call: CallBox,
    ) -> Result<Step, CallError> {
        let deadline = open.started + self.shared.pipeline.call_budget;
        let chain = tokio::time::timeout_at(deadline, open.token.compiled()).await;
        let chain = chain.unwrap_or(ChainState::Compiling);
        let mut prepared = Some((open, call));
        let run = poll_fn(|context| {
            let (open, call) = prepared.take().expect("polled once");
            Poll::Ready(self.run(open, &chain, call, context))
        });
        run.await
    }

    /// Runs a chain as far as it goes without waiting.
    fn run(
        &mut self,
        open: OpenCall,
        chain: &ChainState,
        call: CallBox,
        context: &mut Context<'_>,
    ) -> Result<Step, CallError> {
        let failed = match chain {
            ChainState::Ready(chain) => return self.run_chain(open, chain, call, context),
            ChainState::Refused(refused) => Failed::Refused(refused),
            ChainState::Compiling => Failed::NotCompiled,
        };
        self.scratch.call = Some(call);
        self.fail(&open, &failed).map(Step::Answered)
    }

    fn run_chain(
        &mut self,
        open: OpenCall,
        chain: &Arc<Chain>,
        call: CallBox,
        context: &mut Context<'_>,
    ) -> Result<Step, CallError> {
        let pipeline = &self.shared.pipeline;
        let (mut gateway, mut listening) = self.running(&open);
        let progress = pipeline::begin(
            pipeline,
            chain,
            call,
            &mut gateway,
            open.started,
            &mut listening,
            context,
        );
        match progress {
            Progress::Ended(end) => self.end(open, end),
            Progress::Waits(run) => Ok(Step::Running(open, run)),
        }
    }

    /// Sends what a chain has come to.
    fn end(&mut self, open: OpenCall, end: End) -> Result<Step, CallError> {
        let (written, call) = match end {
            End::Failed(failure) => {
                let written = self.fail(&open, &Failed::Plugin(&failure))?;
                return Ok(Step::Answered(written));
            }
            End::GatewayGone => return Err(ReadError::ClosedInside.into()),
            End::Passed(call) => match open.phase {
                Phase::Request => (self.pass_request(&open, &call)?, call),
                Phase::Response if self.has_to_know_the_method(&call) => {
                    return Ok(Step::AskingMethod(open, call));
                }
                Phase::Response => (self.pass_response(&open, &call, false)?, call),
            },
            End::Stopped(call, reply) => {
                let written = self.stop_request(&open, &call, &reply)?;
                self.scratch.reply = Some(reply);
                (written, call)
            }
        };
        self.scratch.call = Some(call);
        Ok(Step::Answered(written))
    }

    fn has_to_know_the_method(&self, call: &CallBox) -> bool {
        self.shared.limits.ask_method_for_head
            && !has_no_body(call)
            && call.changed_body().is_none()
    }

    async fn is_head(&mut self, open: &OpenCall, call: &CallBox) -> Result<bool, CallError> {
        let question = Question::Variable(b"request_method"[..].into());
        let questions = call.questions();
        if !questions.answered(&question) {
            let deadline = open.started + self.shared.pipeline.call_budget;
            let (mut gateway, _) = self.running(open);
            gateway.rounds_left = 1;
            match tokio::time::timeout_at(deadline, gateway.ask(&question)).await {
                Ok(Ok(answer)) => questions.answer(question, answer),
                Ok(Err(Gone)) => return Err(ReadError::ClosedInside.into()),
                Err(_) => return Ok(false),
            }
        }
        let method = questions.answer_to(plugin_abi::abi::Question::Variable(
            b"request_method"[..].into(),
        ));
        Ok(method == Some(b"HEAD"))
    }

    /// What a chain is run with: whom it asks, and who hears what becomes of its plugins.
    fn running<'s>(&'s mut self, open: &'s OpenCall) -> (ConnectedGateway<'s>, Listening<'s>) {
        let gateway = ConnectedGateway {
            connection: self.connection,
            writer: &mut self.scratch.writer,
            unread_answers: self.unread_answers,
            rounds_left: self.shared.limits.max_extra_info_rounds,
            traffic: &self.shared.traffic,
        };
        let listening = Listening {
            shared: self.shared,
            open,
            record: self.record.as_mut(),
        };
        (gateway, listening)
    }

    /// What has become of the open call.
    fn has_become(&mut self, outcome: CallOutcome) {
        if let Some(record) = &mut self.record {
            record.outcome = outcome;
        }
    }
}

fn longest_body(shared: &Shared) -> u64 {
    let longest = shared.limits.max_frame_bytes;
    longest.saturating_sub(ANSWER_OVERHEAD) as u64
}
