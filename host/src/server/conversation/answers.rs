//! What the gateway gets in the end: the request or response unchanged, with the plugins' changes, a
//! plugin's own answer, or an error where none of these can be sent.
//!
//! What each answer does in the gateway is told in `docs/protocol.md`; the reasons for what is sent here
//! stand there. Nothing here waits.

use plugin_abi::abi::ReplyParts;
use plugin_proto::{Entry, FrameTooLarge, err, http_req_call, http_resp_call};
use tokio::time::Instant;

use super::{CallError, OpenCall, Serving};
use crate::{
    metrics::traffic::CallOutcome,
    pipeline::{
        PluginFailure,
        call::{Call, Phase},
    },
    server::{
        ResponseFailure, Shared,
        connection::{ReadError, Written},
    },
    tokens::compile::Refused,
};

/// What the client gets in the response phase in place of a response that a plugin failed on.
pub(crate) const RESPONSE_FAILED: &[u8] =
    b"503 Service Unavailable: this response could not be processed.\n";

/// A body of one byte: with it, the gateway answers 204, 304 and HEAD without sending the request
/// upstream a second time, and the client gets no body all the same.
const NO_BODY: &[u8] = b" ";

/// Why a call could not be passed on, for the log and for the answer.
pub(super) enum Failed<'a> {
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
    fn outcome(&self) -> CallOutcome {
        match self {
            Self::Refused(_) => CallOutcome::ChainRefused,
            Self::NotCompiled => CallOutcome::ChainNotReady,
            Self::Plugin(_) => CallOutcome::PluginFailed,
            Self::AnswerTooLarge(_) | Self::NoRoom(_) => CallOutcome::AnswerTooLarge,
        }
    }

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

impl Serving<'_> {
    /// What becomes of a request whose chain is through.
    pub(super) fn pass_request(
        &mut self,
        open: &OpenCall,
        call: &Call,
    ) -> Result<Written, CallError> {
        if !call.is_changed() {
            self.has_become(CallOutcome::Passed);
            let writer = &mut self.scratch.writer;
            let frame = http_req_call::write_unchanged(writer, call.id());
            return Ok(self.connection.begin_answer(frame)?);
        }
        let changes = http_req_call::Rewrite {
            path: call.changed_path(),
            headers: call.header_changes(),
            args: call.argument_changes(),
            resp_headers: call.response_headers(),
            body: call.changed_body(),
        };
        self.has_become(CallOutcome::Changed);
        let writer = &mut self.scratch.writer;
        let written = http_req_call::write_rewrite(writer, call.id(), changes)
            .map(|frame| self.connection.begin_answer(frame));
        self.answered(written, open)
    }

    /// A plugin answers in the upstream's place.
    pub(super) fn stop_request(
        &mut self,
        open: &OpenCall,
        call: &Call,
        reply: &ReplyParts,
    ) -> Result<Written, CallError> {
        self.has_become(CallOutcome::Stopped);
        if let Some(record) = &mut self.record {
            record.answered_with(reply.status);
        }
        let own = reply.headers.iter().map(|header| Entry {
            name: &header.name,
            value: Some(&header.value),
        });
        // What plugins recorded for the client's response would be lost: this is that response.
        let headers = own
            .chain(call.response_headers())
            .filter(|header| !header.name.eq_ignore_ascii_case(b"content-length"));
        let written = http_req_call::write_stop(
            &mut self.scratch.writer,
            call.id(),
            reply.status,
            headers,
            Some(reply.body.as_slice()),
        )
        .map(|frame| self.connection.begin_answer(frame));
        self.answered(written, open)
    }

    /// What becomes of a response whose chain is through.
    pub(super) fn pass_response(
        &mut self,
        open: &OpenCall,
        call: &Call,
        head: bool,
    ) -> Result<Written, CallError> {
        self.has_become(match call.is_changed() {
            false => CallOutcome::Passed,
            true => CallOutcome::Changed,
        });
        let body = if has_no_body(call) || head {
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
        let writer = &mut self.scratch.writer;
        let written = http_resp_call::write_answer(writer, call.id(), status, headers, body)
            .map(|frame| self.connection.begin_answer(frame));
        self.answered(written, open)
    }

    /// What came of an answer that plugins have made: one that cannot be sent is a failed call.
    fn answered(
        &mut self,
        written: Result<Result<Written, ReadError>, FrameTooLarge>,
        open: &OpenCall,
    ) -> Result<Written, CallError> {
        let failed = match written {
            Ok(Err(error @ ReadError::OutOfMemory(..))) => Failed::NoRoom(error),
            Ok(written) => return Ok(written?),
            Err(error) => Failed::AnswerTooLarge(error),
        };
        self.fail(open, &failed)
    }

    /// Fails closed, as far as the phase allows, and says why in the log.
    pub(super) fn fail(
        &mut self,
        open: &OpenCall,
        failed: &Failed<'_>,
    ) -> Result<Written, CallError> {
        let OpenCall {
            phase, id, token, ..
        } = open;
        self.has_become(failed.outcome());
        let now = Instant::now().into_std();
        let kind = (token.number(), failed.kind());
        if let Some(left_out) = self.shared.throttle.allow(&kind, now) {
            tracing::warn!(
                route = %token.key(),
                request_id = *id,
                phase = ?phase,
                reason = %failed,
                left_out,
                "a call failed closed"
            );
            if let Failed::Plugin(failure) = failed {
                token.remember_failure(*id, failure);
            }
        }
        let closed_by_status = *phase == Phase::Response
            && self.shared.limits.response_failure == ResponseFailure::Status503;
        if closed_by_status {
            let headers = [Entry {
                name: b"Content-Type",
                value: Some(b"text/plain; charset=utf-8"),
            }];
            let frame = http_resp_call::write_answer(
                &mut self.scratch.writer,
                *id,
                Some(503),
                headers,
                Some(RESPONSE_FAILED),
            )
            .expect("a short answer fits a frame");
            return Ok(self.connection.begin_answer(frame)?);
        }
        Ok(self.send_error(err::Code::ServiceUnavailable)?)
    }

    /// As far as the gateway takes it: the connection ends in any case.
    pub(super) async fn send_error_at_last(&mut self, code: err::Code) {
        if let Ok(Written::Part(part)) = self.send_error(code) {
            let frame = self.scratch.answer();
            let _ = self.connection.finish_writing(frame, part).await;
        }
    }

    pub(super) fn send_error(&mut self, code: err::Code) -> Result<Written, ReadError> {
        let frame = err::write(&mut self.scratch.writer, code);
        self.connection.begin_answer(frame)
    }
}

pub(super) fn log_skipped(shared: &Shared, open: &OpenCall, failure: &PluginFailure) {
    let OpenCall { id, token, .. } = open;
    let now = Instant::now().into_std();
    let kind = (token.number(), "skipped", failure.plugin.as_str());
    if let Some(left_out) = shared.throttle.allow(&kind, now) {
        tracing::warn!(
            route = %token.key(),
            request_id = *id,
            plugin = %failure.plugin,
            version = %failure.version,
            reason = %failure.reason,
            left_out,
            "a plugin failed on a call and was skipped, as its failure policy says"
        );
        token.remember_failure(*id, failure);
    }
}

/// Whether HTTP knows no body for this response. The gateway goes by what the upstream sent, whatever status
/// a plugin has put in its place.
pub(super) fn has_no_body(call: &Call) -> bool {
    is_bodiless(call.status())
        || is_bodiless(call.upstream_status()) && call.changed_body().is_none()
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
