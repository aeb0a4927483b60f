//! One call to its end: a question of the gateway, any number of questions of ours, one answer.
//!
//! What the answers do in the gateway is told in `docs/protocol.md`; the reasons for what is sent
//! here stand there. Every way in which a call can fail ends in an answer that the gateway
//! understands, and in a line of the log that says which plugin, on which route, and why.

use std::sync::Arc;

use plugin_abi::abi::{AskStatus, ReplyParts};
use plugin_proto::{
    Entry, FrameTooLarge, FrameType, FrameWriter, InvalidFrame, err, extra_info, http_req_call,
    http_resp_call, prepare_conf,
};
use tokio::{net::UnixStream, time::Instant};

use super::{
    ResponseFailure, Shared,
    connection::{Connection, KEPT_BYTES, ReadError},
    handover::Followed,
};
use crate::{
    pipeline::{
        self, End, PluginFailure,
        call::{ANSWER_OVERHEAD, Call, CallBox, Phase},
        chain::Chain,
        fields::span_start,
        gateway::{Gateway, Gone},
        questions::{Answer, LongValue, Question},
    },
    shared_memory::connections::CallKind,
    tokens::{ChainState, PluginConf, Prepared, Token, compile::Refused},
};

/// Values up to this many bytes are copied out of their frame; longer ones keep it.
const COPIED_BYTES: usize = 4096;

/// What the client gets in the response phase in place of a response that a plugin failed on.
pub(crate) const RESPONSE_FAILED: &[u8] =
    b"503 Service Unavailable: this response could not be processed.\n";

/// A body of one byte: with it, the gateway answers 204, 304 and HEAD without sending the request
/// upstream a second time, and the client gets no body all the same.
const NO_BODY: &[u8] = b" ";

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

/// A connection and what its calls use again and again.
pub(super) struct Conversation {
    connection: Connection,
    writer: FrameWriter,
    shared: Arc<Shared>,
    call: Option<CallBox>,
    /// Questions whose call did not wait for the answer: it still comes.
    unread_answers: u32,
    /// The frame of the call that has begun.
    begun: Option<FrameType>,
    /// The supervisor's view of the connection; dropped after the connection itself.
    followed: Option<Followed>,
}

/// Why a call could not be passed on, for the log and for the answer.
enum Failed<'a> {
    Refused(&'a Refused),
    NotCompiled,
    Plugin(&'a PluginFailure),
    AnswerTooLarge(FrameTooLarge),
    NoRoom(ReadError),
}

impl std::fmt::Display for Failed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(refused) => write!(f, "the route's chain cannot run: {refused}"),
            Self::NotCompiled => {
                f.write_str("the plugins of the route were not ready within the call's budget")
            }
            Self::Plugin(failure) => write!(f, "{failure}"),
            Self::AnswerTooLarge(error) => write!(f, "the answer cannot be sent: {error}"),
            Self::NoRoom(error) => write!(f, "the answer cannot be sent: {error}"),
        }
    }
}

impl Failed<'_> {
    /// Failures of one kind share the log's rate limit.
    fn kind(&self) -> u8 {
        match self {
            Self::Refused(_) => 0,
            Self::NotCompiled => 1,
            Self::Plugin(_) => 2,
            Self::AnswerTooLarge(_) => 3,
            Self::NoRoom(_) => 4,
        }
    }
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
            writer: FrameWriter::new(),
            shared,
            call: None,
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
        let answered = match self.begun.take() {
            Some(FrameType::PrepareConf) => self.prepare().await,
            Some(FrameType::HttpReqCall) => self.call(Phase::Request).await,
            Some(FrameType::HttpRespCall) => self.call(Phase::Response).await,
            Some(other) => Err(CallError::OutOfPlace(other)),
            None => return Ok(()),
        };
        match answered {
            Ok(()) => {
                self.writer.shrink(KEPT_BYTES);
                if let Some(followed) = &mut self.followed {
                    followed.register(self.connection.stream());
                }
                Ok(())
            }
            Err(error) => {
                if !matches!(error, CallError::Frame(_)) {
                    self.send_error(err::Code::BadRequest).await?;
                }
                Err(Ended::Gateway(error))
            }
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
        // The connection ends in any case.
        let _ = self.send_error(code).await;
    }

    async fn send_error(&mut self, code: err::Code) -> Result<(), ReadError> {
        let frame = err::write(&mut self.writer, code);
        self.connection.write_answer(frame).await
    }

    async fn prepare(&mut self) -> Result<(), CallError> {
        self.connection.open_call(CallKind::Prepare, 0);
        let prepared = {
            let frame = self.connection.incoming.frame();
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
        self.connection.consume();
        match self.shared.tokens.prepare(prepared, Instant::now()) {
            Some(token) => {
                let frame = prepare_conf::write_answer(&mut self.writer, token);
                self.connection.write_answer(frame).await?;
            }
            None => self.send_error(err::Code::ServiceUnavailable).await?,
        }
        Ok(())
    }

    async fn call(&mut self, phase: Phase) -> Result<(), CallError> {
        let started = Instant::now();
        let mut call = self.call.take().unwrap_or_default();
        call.bound(self.longest_body(), self.connection.memory());
        let number = match phase {
            Phase::Request => call.take_request(&mut self.connection.incoming)?,
            Phase::Response => call.take_response(&mut self.connection.incoming)?,
        };
        let kind = match phase {
            Phase::Request => CallKind::Request,
            Phase::Response => CallKind::Response,
        };
        self.connection.open_call(kind, call.id());
        if call.has_following_bytes() {
            return Err(CallError::Pipelined);
        }
        if let Some(reserved) = self.connection.take_reservation() {
            call.count_frame(reserved);
        }
        let Some(token) = self.shared.tokens.find(number, started) else {
            self.call = Some(call);
            tracing::debug!(
                token = number,
                "unknown token: the gateway will prepare again"
            );
            return Ok(self.send_error(err::Code::ConfTokenNotFound).await?);
        };
        let id = call.id();
        let kept = match self.chain_of(&token, started).await {
            Ok(chain) => self.run(&token, &chain, call, started).await?,
            Err(NoChain::Refused(refused)) => {
                self.fail(phase, &token, id, &Failed::Refused(&refused))
                    .await?;
                Some(call)
            }
            Err(NoChain::TimeIsUp) => {
                self.fail(phase, &token, id, &Failed::NotCompiled).await?;
                Some(call)
            }
        };
        self.call = kept.map(|mut call| {
            call.rest(KEPT_BYTES);
            call
        });
        Ok(())
    }

    /// Runs the chain and sends the answer; gives the call back for the next one, if it is there.
    async fn run(
        &mut self,
        token: &Token,
        chain: &Chain,
        call: CallBox,
        started: Instant,
    ) -> Result<Option<CallBox>, CallError> {
        let (phase, id) = (call.phase(), call.id());
        let shared = &*self.shared;
        let skipped = |failure: &PluginFailure| log_skipped(shared, token, id, failure);
        let mut gateway = ConnectedGateway {
            connection: &mut self.connection,
            writer: &mut self.writer,
            unread_answers: &mut self.unread_answers,
            rounds_left: shared.limits.max_extra_info_rounds,
        };
        let end = pipeline::run(
            &shared.pipeline,
            chain,
            call,
            &mut gateway,
            started,
            skipped,
        )
        .await;
        let call = match end {
            End::Failed(failure) => {
                self.fail(phase, token, id, &Failed::Plugin(&failure))
                    .await?;
                return Ok(None);
            }
            End::GatewayGone => return Err(ReadError::ClosedInside.into()),
            End::Passed(call) => {
                match phase {
                    Phase::Request => self.pass_request(token, &call).await?,
                    Phase::Response => self.pass_response(token, &call, started).await?,
                }
                call
            }
            End::Stopped(call, reply) => {
                self.stop_request(token, &call, &reply).await?;
                call
            }
        };
        Ok(Some(call))
    }

    async fn chain_of(&self, token: &Token, started: Instant) -> Result<Arc<Chain>, NoChain> {
        let state = match token.chain() {
            ChainState::Compiling => {
                let deadline = started + self.shared.pipeline.call_budget;
                tokio::time::timeout_at(deadline, token.compiled())
                    .await
                    .map_err(|_| NoChain::TimeIsUp)?
            }
            known => known,
        };
        match state {
            ChainState::Ready(chain) => Ok(chain),
            ChainState::Refused(refused) => Err(NoChain::Refused(refused)),
            ChainState::Compiling => Err(NoChain::TimeIsUp),
        }
    }

    async fn pass_request(&mut self, token: &Token, call: &Call) -> Result<(), CallError> {
        if !call.request_changed() {
            let frame = http_req_call::write_unchanged(&mut self.writer, call.id());
            return Ok(self.connection.write_answer(frame).await?);
        }
        let changes = http_req_call::Rewrite {
            path: call.changed_path(),
            headers: call.header_changes(),
            args: call.argument_changes(),
            resp_headers: call.response_headers(),
            body: call.changed_body(),
        };
        let written = match http_req_call::write_rewrite(&mut self.writer, call.id(), changes) {
            Ok(frame) => Ok(self.connection.write_answer(frame).await),
            Err(error) => Err(error),
        };
        self.answered(written, token, call).await
    }

    async fn stop_request(
        &mut self,
        token: &Token,
        call: &Call,
        reply: &ReplyParts,
    ) -> Result<(), CallError> {
        let own = reply.headers.iter().map(|header| Entry {
            name: &header.name,
            value: Some(&header.value),
        });
        // What plugins recorded for the client's response would be lost: this is that response.
        let headers = own
            .chain(call.response_headers())
            .filter(|header| !header.name.eq_ignore_ascii_case(b"content-length"));
        let written = match http_req_call::write_stop(
            &mut self.writer,
            call.id(),
            reply.status,
            headers,
            Some(reply.body.as_slice()),
        ) {
            Ok(frame) => Ok(self.connection.write_answer(frame).await),
            Err(error) => Err(error),
        };
        self.answered(written, token, call).await
    }

    async fn pass_response(
        &mut self,
        token: &Token,
        call: &Call,
        started: Instant,
    ) -> Result<(), CallError> {
        let no_body_allowed = is_bodiless(call.status());
        // The gateway goes by what the upstream sent, whatever status a plugin has put in its place.
        let no_body_came = is_bodiless(call.upstream_status()) && call.changed_body().is_none();
        let bodiless = no_body_allowed || no_body_came;
        let head = !bodiless
            && call.changed_body().is_none()
            && self.shared.limits.ask_method_for_head
            && self.is_head(call, started).await?;
        let body = if bodiless || head {
            Some(NO_BODY)
        } else {
            call.changed_body()
        };
        let status = if body == Some(NO_BODY) {
            Some(call.status())
        } else {
            call.changed_status()
        };
        // Everything to keep is sent: with nothing set, the gateway drops Content-Type and
        // Location; with one header set, all the others.
        let headers = call
            .headers()
            .filter(|header| !written_by_the_gateway(header.name, head));
        let answer =
            http_resp_call::write_answer(&mut self.writer, call.id(), status, headers, body);
        let written = match answer {
            Ok(frame) => Ok(self.connection.write_answer(frame).await),
            Err(error) => Err(error),
        };
        self.answered(written, token, call).await
    }

    async fn is_head(&mut self, call: &Call, started: Instant) -> Result<bool, CallError> {
        let question = Question::Variable(b"request_method"[..].into());
        let questions = call.questions();
        if !questions.answered(&question) {
            let mut gateway = ConnectedGateway {
                connection: &mut self.connection,
                writer: &mut self.writer,
                unread_answers: &mut self.unread_answers,
                rounds_left: 1,
            };
            let deadline = started + self.shared.pipeline.call_budget;
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

    /// What came of an answer that plugins have made: one that cannot be sent is a failed call.
    async fn answered(
        &mut self,
        written: Result<Result<(), ReadError>, FrameTooLarge>,
        token: &Token,
        call: &Call,
    ) -> Result<(), CallError> {
        let failed = match written {
            Ok(Err(error @ ReadError::OutOfMemory(..))) => Failed::NoRoom(error),
            Ok(written) => return Ok(written?),
            Err(error) => Failed::AnswerTooLarge(error),
        };
        self.fail(call.phase(), token, call.id(), &failed).await
    }

    /// Fails closed, as far as the phase allows, and says why in the log.
    async fn fail(
        &mut self,
        phase: Phase,
        token: &Token,
        id: u32,
        failed: &Failed<'_>,
    ) -> Result<(), CallError> {
        let now = Instant::now().into_std();
        let kind = (token.number(), failed.kind());
        if let Some(left_out) = self.shared.throttle.allow(&kind, now) {
            tracing::warn!(
                route = %token.key(),
                request_id = id,
                phase = ?phase,
                reason = %failed,
                left_out,
                "a call failed closed"
            );
        }
        let closed_by_status = phase == Phase::Response
            && self.shared.limits.response_failure == ResponseFailure::Status503;
        if closed_by_status {
            let headers = [Entry {
                name: b"Content-Type",
                value: Some(b"text/plain; charset=utf-8"),
            }];
            let frame = http_resp_call::write_answer(
                &mut self.writer,
                id,
                Some(503),
                headers,
                Some(RESPONSE_FAILED),
            )
            .expect("a short answer fits a frame");
            return Ok(self.connection.write_answer(frame).await?);
        }
        Ok(self.send_error(err::Code::ServiceUnavailable).await?)
    }

    fn longest_body(&self) -> u64 {
        self.shared
            .limits
            .max_frame_bytes
            .saturating_sub(ANSWER_OVERHEAD) as u64
    }
}

enum NoChain {
    Refused(Arc<Refused>),
    TimeIsUp,
}

fn log_skipped(shared: &Shared, token: &Token, id: u32, failure: &PluginFailure) {
    let now = Instant::now().into_std();
    let kind = (token.number(), "skipped", failure.plugin.as_str());
    if let Some(left_out) = shared.throttle.allow(&kind, now) {
        tracing::warn!(
            route = %token.key(),
            request_id = id,
            plugin = %failure.plugin,
            version = %failure.version,
            reason = %failure.reason,
            left_out,
            "a plugin failed on a call and was skipped, as its failure policy says"
        );
    }
}

/// Whether a response of this status has no body, by HTTP.
fn is_bodiless(status: u16) -> bool {
    matches!(status, 204 | 304)
}

/// Headers of a response that the gateway has to write itself: what a plugin sent would be believed
/// and could cut the body short. For HEAD there is no body, and the length is what was asked for.
fn written_by_the_gateway(name: &[u8], head: bool) -> bool {
    name.eq_ignore_ascii_case(b"connection")
        || name.eq_ignore_ascii_case(b"transfer-encoding")
        || (!head && name.eq_ignore_ascii_case(b"content-length"))
}

/// The gateway behind a connection, while a call is open on it.
struct ConnectedGateway<'a> {
    connection: &'a mut Connection,
    writer: &'a mut FrameWriter,
    unread_answers: &'a mut u32,
    rounds_left: u32,
}

impl Gateway for ConnectedGateway<'_> {
    async fn ask(&mut self, question: &Question) -> Result<Answer, Gone> {
        let Some(left) = self.rounds_left.checked_sub(1) else {
            return Ok(Answer::Refused(AskStatus::TOO_MANY_QUESTIONS));
        };
        self.rounds_left = left;
        self.exchange(question).await.map_err(|error| {
            tracing::debug!(%error, "the gateway went away while it was asked");
            Gone
        })
    }

    fn passes_to(&mut self, generation: u64) {
        self.connection.set_plugin(generation);
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
