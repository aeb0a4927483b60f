//! One connection: bytes in, frames out, and the other way round.
//!
//! One buffered read per wake-up, one write per frame. It knows how long a frame may be and may
//! take; it never looks into one.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use plugin_proto::{Answer, FrameBuffer, FrameType, frame::Header};
use tokio::{
    io::{AsyncRead, AsyncReadExt, ReadBuf},
    net::UnixStream,
    time::Instant,
};

use super::scratch;
use crate::{
    memory::{Account, Full, Reserved, UNCOUNTED_BYTES},
    shared_memory::connections::{CallKind, Slot, State},
};

/// Bytes that a connection's buffer keeps between calls.
pub(super) const KEPT_BYTES: usize = 16 * 1024;

/// Bytes of an unwanted frame that are read at once.
const SKIPPED_AT_ONCE: usize = 64 * 1024;

/// A connection with the frame that is being read.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    /// What has arrived.
    pub(super) incoming: FrameBuffer,
    /// Counts the frame in `incoming` where it is large.
    reserved: Option<Reserved>,
    /// Short answers of the gateway that were copied out of their frames, during the open call.
    copied: Reserved,
    memory: Account,
    max_frame_bytes: usize,
    frame_timeout: Duration,
    /// A frame of ours went out in part: nothing that follows would be understood.
    half_written: bool,
    /// Bytes still to come of a frame that nobody wants.
    to_skip: usize,
    /// Tells the supervisor what this connection is doing, where there is one.
    slot: Option<Slot>,
    /// What it does while it waits for the first byte of a frame: nothing, or a call is open.
    resting: State,
    /// Bytes that came and went since somebody has counted them.
    received: u64,
    sent: u64,
}

/// How much of a frame has been written.
#[derive(Debug)]
#[must_use = "the rest has to be written too"]
pub(super) enum Written {
    /// All of it.
    Whole,
    /// A part of it, or nothing.
    Part(Part),
}

/// What was written of a frame.
#[derive(Debug)]
pub(super) struct Part {
    bytes: usize,
    /// Counts the frame until it is written.
    memory: Reserved,
}

/// A frame cannot be read or written: the gateway's fault, but for [`ReadError::OutOfMemory`].
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The connection ended between two frames.
    #[error("the connection is closed")]
    Closed,
    /// It ended inside of one.
    #[error("the connection ended inside of a frame")]
    ClosedInside,
    /// The system says no.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A frame took too long to arrive, or to be taken.
    #[error("a frame took longer than {} ms", .0.as_millis())]
    Slow(Duration),
    /// A frame is longer than the host takes.
    #[error("a frame of {0} bytes is longer than --max-frame-bytes")]
    TooLong(u32),
    /// A type byte that the protocol does not have.
    #[error("a frame of the unknown type {0}")]
    UnknownType(u8),
    /// The memory for large frames is used up: the host's limit.
    #[error("a frame of {0} bytes does not fit the memory for bodies: {1}")]
    OutOfMemory(usize, Full),
}

impl Connection {
    pub(super) fn new(
        stream: UnixStream,
        memory: Account,
        max_frame_bytes: usize,
        frame_timeout: Duration,
        slot: Option<Slot>,
    ) -> Self {
        Self {
            stream,
            incoming: FrameBuffer::new(),
            reserved: None,
            copied: Reserved::default(),
            memory,
            max_frame_bytes,
            frame_timeout,
            half_written: false,
            to_skip: 0,
            slot,
            resting: State::Idle,
            received: 0,
            sent: 0,
        }
    }

    /// Goes on where another worker stopped: these bytes of a frame it had read.
    pub(super) fn resume(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let spare = self.incoming.spare();
            let taken = spare.len().min(bytes.len());
            spare[..taken].copy_from_slice(&bytes[..taken]);
            self.incoming.filled(taken);
            bytes = &bytes[taken..];
        }
        if !self.incoming.is_empty() {
            self.mark(State::Reading);
        }
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// What has been read of the next frame, where the connection can be given away with it.
    pub(super) fn bytes_along(&self) -> Option<&[u8]> {
        let bytes = self.incoming.received();
        let at_boundary = self.to_skip == 0 && !self.half_written && self.resting == State::Idle;
        (at_boundary && bytes.len() <= super::handover::MAX_BYTES_ALONG).then_some(bytes)
    }

    pub(super) fn into_stream(self) -> UnixStream {
        self.stream
    }

    /// A call has begun: until its answer is written, the gateway waits for a frame.
    pub(super) fn open_call(&mut self, kind: CallKind, request: u32) {
        self.resting = State::InCall;
        if let Some(slot) = &self.slot {
            slot.set_plugin(0);
            slot.open_call(kind, request);
        }
    }

    /// Says which plugin generation has the open call.
    pub(super) fn set_plugin(&self, number: u64) {
        if let Some(slot) = &self.slot {
            slot.set_plugin(number);
        }
    }

    fn mark(&self, state: State) {
        if let Some(slot) = &self.slot {
            slot.set_state(state);
        }
    }

    /// Waits until a whole frame is there; as long as it takes to begin, and
    /// [`Connection::frame_timeout`] from then on. Dropping the future loses nothing.
    pub(super) async fn read_frame(&mut self) -> Result<FrameType, ReadError> {
        // As a rule one read brings all of it, and no future is made for the rest.
        match poll_fn(|context| self.poll_frame(context)).await? {
            Some(frame_type) => Ok(frame_type),
            None => self.read_to_its_end().await,
        }
    }

    /// Takes what is there. None where that is not a whole frame.
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<FrameType>, ReadError>> {
        if self.half_written {
            return Poll::Ready(Err(ReadError::ClosedInside));
        }
        if self.to_skip > 0 {
            return Poll::Ready(Ok(None));
        }
        if self.incoming.is_empty() && ready!(self.poll_some(context))? == 0 {
            return Poll::Ready(Err(ReadError::Closed));
        }
        Poll::Ready(self.whole_frame())
    }

    /// Goes on with a frame that has begun, or behind one that nobody wants.
    async fn read_to_its_end(&mut self) -> Result<FrameType, ReadError> {
        self.skip_rest().await?;
        if self.incoming.is_empty() && poll_fn(|context| self.poll_some(context)).await? == 0 {
            return Err(ReadError::Closed);
        }
        if let Some(frame_type) = self.whole_frame()? {
            return Ok(frame_type);
        }
        match tokio::time::timeout(self.frame_timeout, self.read_rest()).await {
            Ok(read) => read,
            Err(_) => Err(ReadError::Slow(self.frame_timeout)),
        }
    }

    async fn read_rest(&mut self) -> Result<FrameType, ReadError> {
        loop {
            if poll_fn(|context| self.poll_some(context)).await? == 0 {
                return Err(ReadError::ClosedInside);
            }
            if let Some(frame_type) = self.whole_frame()? {
                return Ok(frame_type);
            }
        }
    }

    /// Reads what there is, and says so before the first byte is taken: a death in between must not make
    /// a call look like none.
    fn poll_some(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let untouched = self.incoming.is_empty();
        if self.incoming.capacity() == 0 {
            self.incoming = scratch::take_buffer();
        }
        self.mark(State::Reading);
        let mut buffer = ReadBuf::new(self.incoming.spare());
        let read = Pin::new(&mut self.stream).poll_read(context, &mut buffer);
        let bytes = buffer.filled().len();
        match read {
            Poll::Ready(Ok(())) => {
                self.incoming.filled(bytes);
                self.received += bytes as u64;
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                if untouched {
                    self.mark(self.resting);
                    // Who waits holds no memory.
                    scratch::keep_buffer(mem::take(&mut self.incoming));
                }
                Poll::Pending
            }
        }
    }

    /// Judges the header as soon as it is there; the type of the frame once that is complete.
    fn whole_frame(&mut self) -> Result<Option<FrameType>, ReadError> {
        let Some(header) = self.incoming.header() else {
            return Ok(None);
        };
        let frame_type = header
            .frame_type()
            .map_err(|unknown| ReadError::UnknownType(unknown.0))?;
        self.judge_length(header)?;
        Ok(self.incoming.frame().map(|_| frame_type))
    }

    fn judge_length(&mut self, header: Header) -> Result<(), ReadError> {
        let length = header.data_len as usize;
        if length > self.max_frame_bytes {
            return Err(ReadError::TooLong(header.data_len));
        }
        if length > UNCOUNTED_BYTES && self.reserved.is_none() {
            self.reserved = Some(
                self.memory
                    .reserve(length)
                    .map_err(|full| ReadError::OutOfMemory(length, full))?,
            );
        }
        Ok(())
    }

    /// Whether any byte of a frame is there, read or not.
    pub(super) fn has_bytes(&self) -> bool {
        !self.incoming.is_empty()
            || rustix::io::ioctl_fionread(&self.stream).is_ok_and(|waiting| waiting > 0)
    }

    /// Is done with the frame that was read: what comes next may begin.
    pub(super) fn consume(&mut self) {
        self.incoming.consume();
        self.reserved = None;
        if self.incoming.is_empty() {
            scratch::keep_buffer(mem::take(&mut self.incoming));
        }
    }

    /// Takes the frame that was read, to be kept beside the next ones: so it is counted, however
    /// short it is.
    pub(super) fn take_frame(&mut self) -> Result<(FrameBuffer, Reserved), Full> {
        let reserved = match self.reserved.take() {
            Some(reserved) => reserved,
            None => self.memory.reserve(self.incoming.capacity())?,
        };
        Ok((mem::take(&mut self.incoming), reserved))
    }

    /// Counts bytes of the frame that was read as kept until the next call.
    pub(super) fn keep_copy(&mut self, bytes: usize) -> Result<(), Full> {
        self.copied.take_in(self.memory.reserve(bytes)?);
        Ok(())
    }

    /// Bytes that came and went since this was asked before.
    pub(super) fn take_traffic(&mut self) -> (u64, u64) {
        (mem::take(&mut self.received), mem::take(&mut self.sent))
    }

    /// Whose memory the calls of this connection use.
    pub(super) fn memory(&self) -> &Account {
        &self.memory
    }

    /// The frame's memory is counted for as long as this lives.
    pub(super) fn take_reservation(&mut self) -> Option<Reserved> {
        self.reserved.take()
    }

    /// Reads the rest of a frame that nobody wants, without keeping it. Dropping the future loses
    /// nothing: the next [`Connection::read_frame`] goes on with it.
    pub(super) async fn skip_frame(&mut self) -> Result<(), ReadError> {
        self.to_skip = self.incoming.abandon();
        self.reserved = None;
        self.skip_rest().await
    }

    async fn skip_rest(&mut self) -> Result<(), ReadError> {
        if self.to_skip == 0 {
            return Ok(());
        }
        self.mark(State::Reading);
        let (stream, to_skip) = (&mut self.stream, &mut self.to_skip);
        let received = &mut self.received;
        let skipped = async {
            // Not an array: it would be part of every connection's task, for a case that is rare.
            let mut scratch = vec![0; SKIPPED_AT_ONCE];
            while *to_skip > 0 {
                let room = scratch.len().min(*to_skip);
                let read = stream.read(&mut scratch[..room]).await?;
                if read == 0 {
                    return Err(ReadError::ClosedInside);
                }
                *to_skip -= read;
                *received += read as u64;
            }
            Ok(())
        };
        tokio::time::timeout(self.frame_timeout, skipped)
            .await
            .unwrap_or(Err(ReadError::Slow(self.frame_timeout)))?;
        self.mark(self.resting);
        Ok(())
    }

    /// Writes the frame that the open call ends with, as far as it is taken at once; what is left of it
    /// is for [`Connection::finish_writing`].
    pub(super) fn begin_answer<'a>(
        &mut self,
        frame: impl Into<Answer<'a>>,
    ) -> Result<Written, ReadError> {
        self.resting = State::Idle;
        self.copied = Reserved::default();
        self.begin_writing(frame.into())
    }

    /// Writes a frame of a call that goes on. Where the future is dropped in the middle of it, the
    /// connection is spoiled: nothing more can be written, and the next
    /// [`Connection::read_frame`] says so.
    pub(super) async fn write_question(&mut self, frame: &[u8]) -> Result<(), ReadError> {
        let frame = Answer::from(frame);
        match self.begin_writing(frame)? {
            Written::Whole => Ok(()),
            Written::Part(part) => self.finish_writing(frame, part).await,
        }
    }

    fn begin_writing(&mut self, frame: Answer<'_>) -> Result<Written, ReadError> {
        if self.half_written {
            return Err(ReadError::ClosedInside);
        }
        // Until it is written: whoever reads slowly keeps it.
        let memory = match frame.len() {
            ..=UNCOUNTED_BYTES => Reserved::default(),
            length => self
                .memory
                .reserve(length)
                .map_err(|full| ReadError::OutOfMemory(length, full))?,
        };
        self.sent += frame.len() as u64;
        self.mark(State::Writing);
        let bytes = match try_write(&self.stream, frame, 0) {
            Ok(bytes) if bytes == frame.len() => {
                self.mark_rest();
                return Ok(Written::Whole);
            }
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error.into()),
        };
        self.half_written = true;
        Ok(Written::Part(Part { bytes, memory }))
    }

    /// Writes what is left of a frame.
    pub(super) async fn finish_writing(
        &mut self,
        frame: Answer<'_>,
        part: Part,
    ) -> Result<(), ReadError> {
        let deadline = Instant::now() + self.frame_timeout;
        let rest = write_rest(&self.stream, frame, part.bytes);
        match tokio::time::timeout_at(deadline, rest).await {
            Ok(written) => written?,
            Err(_) => return Err(ReadError::Slow(self.frame_timeout)),
        }
        drop(part.memory);
        self.half_written = false;
        self.mark_rest();
        Ok(())
    }

    fn mark_rest(&self) {
        self.mark(if self.incoming.is_empty() {
            self.resting
        } else {
            State::Reading
        });
    }
}

/// Writes what the socket takes of a frame, of which so many bytes have been written.
fn try_write(stream: &UnixStream, frame: Answer<'_>, written: usize) -> io::Result<usize> {
    match frame.pieces() {
        [whole, [], []] => stream.try_write(&whole[written..]),
        pieces => {
            let mut pieces = pieces.map(IoSlice::new);
            let mut rest = &mut pieces[..];
            IoSlice::advance_slices(&mut rest, written);
            stream.try_write_vectored(rest)
        }
    }
}

async fn write_rest(stream: &UnixStream, frame: Answer<'_>, mut written: usize) -> io::Result<()> {
    while written < frame.len() {
        stream.writable().await?;
        match try_write(stream, frame, written) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(bytes) => written += bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
