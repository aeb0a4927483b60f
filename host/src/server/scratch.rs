//! What a call uses and the next one on the same thread uses again: buffers, the call itself, the writer
//! of its answer.
//!
//! They belong to the thread and not to the connection, and the one that was put back last is taken first:
//! with a thousand connections, a call still finds memory that is in the processor's cache. A connection
//! that waits for its next call holds none of it.

use std::cell::RefCell;

use plugin_abi::abi::ReplyParts;
use plugin_proto::{Answer, FrameBuffer, FrameWriter};

use super::connection::KEPT_BYTES;
use crate::pipeline::call::CallBox;

/// How many of each kind a thread keeps; what more calls at a time have used is freed.
const KEPT_PER_THREAD: usize = 64;

/// What a call is served with, from its frame to its answer.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Absent while a plugin has it, and where none has given it back.
    pub(super) call: Option<CallBox>,
    /// What a plugin answers in the upstream's place, until that is written.
    pub(super) reply: Option<ReplyParts>,
    pub(super) writer: FrameWriter,
}

impl Scratch {
    /// The answer that was written last, with the body that may stand outside of it: the reply's, or the
    /// one that the call's plugins have set.
    pub(super) fn answer(&self) -> Answer<'_> {
        let body = match (&self.reply, &self.call) {
            (Some(reply), _) => Some(reply.body.as_slice()),
            (None, Some(call)) => call.changed_body(),
            (None, None) => None,
        };
        self.writer.last(body)
    }
}

thread_local! {
    #[allow(clippy::vec_box, reason = "one is large, and is moved twice for each call")]
    static SCRATCHES: RefCell<Vec<Box<Scratch>>> = const { RefCell::new(Vec::new()) };
    static BUFFERS: RefCell<Vec<FrameBuffer>> = const { RefCell::new(Vec::new()) };
}

/// One that was used before, or a new one.
pub(super) fn take() -> Box<Scratch> {
    SCRATCHES.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Keeps one for the next call; of the memory that is in it, a usual call's.
pub(super) fn keep(mut scratch: Box<Scratch>) {
    scratch.writer.shrink(KEPT_BYTES);
    scratch.reply = None;
    if let Some(call) = &mut scratch.call
        && let Some(frame) = call.rest(KEPT_BYTES)
    {
        keep_buffer(frame);
    }
    SCRATCHES.with_borrow_mut(|kept| {
        if kept.len() < KEPT_PER_THREAD {
            kept.push(scratch);
        }
    });
}

/// An empty buffer with memory that was used before, or without any.
pub(super) fn take_buffer() -> FrameBuffer {
    BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Keeps the memory of a buffer that nobody uses any more, if it is not too much.
pub(super) fn keep_buffer(mut buffer: FrameBuffer) {
    if !(1..=KEPT_BYTES).contains(&buffer.capacity()) {
        return;
    }
    buffer.clear();
    BUFFERS.with_borrow_mut(|kept| {
        if kept.len() < KEPT_PER_THREAD {
            kept.push(buffer);
        }
    });
}
