//! A reusable read buffer that knows where a frame begins and ends.
//!
//! It does no I/O: its owner reads into [`FrameBuffer::spare`] and says how much came. It never grows on
//! the word of a header alone, and never looks into the data.

use std::fmt;

use super::{FrameType, HEADER_LEN, Header, UnknownFrameType};

/// Room of the first read, in bytes. A usual call (some twenty headers) takes under 2 KiB, so one read
/// takes header and data together.
const FIRST_ROOM: usize = 4096;

/// Alignment of a frame's data in memory, in bytes: nothing in the schema is wider.
const DATA_ALIGNMENT: usize = 4;

const _: () = assert!(
    HEADER_LEN.is_multiple_of(DATA_ALIGNMENT),
    "an aligned header means aligned data"
);

/// Collects the bytes of a connection until a frame is complete.
///
/// The data of a frame always starts at a multiple of four bytes in memory, so that views need no copy.
/// The buffer is one owned value without borrows: a call may take it along for as long as it runs.
///
/// Bytes that follow the first frame are kept, and come first after [`consume`](Self::consume).
#[derive(Default)]
pub struct FrameBuffer {
    /// Allocated bytes, all initialised: `start` unused ones, then `filled` received ones, then room.
    bytes: Vec<u8>,
    /// Where the first frame starts: 0 to 3, whatever makes the address a multiple of four.
    start: usize,
    /// Bytes received and not yet consumed.
    filled: usize,
}

/// One complete frame inside a [`FrameBuffer`].
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    type_byte: u8,
    data: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The type byte as it arrived.
    #[must_use]
    pub fn type_byte(self) -> u8 {
        self.type_byte
    }

    /// What the frame is about.
    ///
    /// # Errors
    /// [`UnknownFrameType`] if the protocol has no such type.
    pub fn frame_type(self) -> Result<FrameType, UnknownFrameType> {
        FrameType::try_from(self.type_byte)
    }

    /// The data without the header, 4-byte aligned. Not verified: that is what views do.
    #[must_use]
    pub fn data(self) -> &'a [u8] {
        self.data
    }
}

impl fmt::Debug for FrameBuffer {
    /// Without the bytes: there may be millions, and they are the traffic of somebody's users.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameBuffer")
            .field("header", &self.header())
            .field("filled", &self.filled)
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

impl FrameBuffer {
    /// An empty buffer that allocates with the first [`spare`](Self::spare).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty buffer with room for a frame of this many bytes, header included.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        let mut buffer = Self::new();
        buffer.grow_to(capacity);
        buffer
    }

    /// Room to read into; never empty. Say with [`filled`](Self::filled) how much of it was used.
    ///
    /// Room is made only as bytes arrive: at most as much again as is there already, and no more than
    /// the frame that has begun still needs.
    pub fn spare(&mut self) -> &mut [u8] {
        if self.filled == self.capacity() {
            self.grow();
        }
        let free = self.start + self.filled;
        &mut self.bytes[free..]
    }

    /// Counts `n` bytes, just written to the beginning of [`spare`](Self::spare), as received.
    ///
    /// # Panics
    /// If `n` is more than the room there was: a mistake of the caller.
    pub fn filled(&mut self, n: usize) {
        assert!(
            n <= self.capacity() - self.filled,
            "more bytes filled than there was room for"
        );
        self.filled += n;
    }

    /// The header of the first frame, as soon as its four bytes are there.
    #[must_use]
    pub fn header(&self) -> Option<Header> {
        self.received()
            .first_chunk::<HEADER_LEN>()
            .copied()
            .map(Header::decode)
    }

    /// Whether not a single byte of a frame is there: the connection is between two frames.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// The first frame, once it is complete.
    #[must_use]
    pub fn frame(&self) -> Option<Frame<'_>> {
        let header = self.header()?;
        let data = self.received().get(HEADER_LEN..header.frame_len())?;
        Some(Frame {
            type_byte: header.type_byte,
            data,
        })
    }

    /// Drops the first frame; what follows it moves to the beginning. Without a complete frame,
    /// nothing happens.
    pub fn consume(&mut self) {
        let Some(frame) = self.frame() else { return };
        let frame_end = self.start + HEADER_LEN + frame.data.len();
        let received_end = self.start + self.filled;
        self.bytes.copy_within(frame_end..received_end, self.start);
        self.filled = received_end - frame_end;
    }

    /// Forgets everything that was received; memory is kept.
    pub fn clear(&mut self) {
        self.filled = 0;
    }

    /// Whether bytes have arrived behind a complete first frame.
    #[must_use]
    pub fn has_following_bytes(&self) -> bool {
        self.header()
            .is_some_and(|header| self.filled > header.frame_len())
    }

    /// Gives the first frame up, however much of it has arrived; returns how many bytes of it are
    /// still to come. Before its header is there, nothing is known of it and nothing happens.
    pub fn abandon(&mut self) -> usize {
        let Some(header) = self.header() else {
            return 0;
        };
        let to_come = header.frame_len().saturating_sub(self.filled);
        if to_come == 0 {
            self.consume();
        } else {
            self.filled = 0;
        }
        to_come
    }

    /// Bytes that fit without growing, received ones included.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Gives memory back: keeps room for `max` bytes, or for what has been received if that is more.
    pub fn shrink(&mut self, max: usize) {
        let keep = max.max(self.filled);
        if self.capacity() <= keep {
            return;
        }
        let mut smaller = Self::with_capacity(keep);
        smaller.bytes[smaller.start..][..self.filled].copy_from_slice(self.received());
        smaller.filled = self.filled;
        *self = smaller;
    }

    /// Everything that has been received and not consumed, headers included.
    #[must_use]
    pub fn received(&self) -> &[u8] {
        &self.bytes[self.start..][..self.filled]
    }

    /// Doubles, but stops at the end of the frame that has begun, so that a large frame ends up in a
    /// buffer of its own size. A header's claim can only make the step smaller, never larger.
    fn grow(&mut self) {
        let doubled = (self.filled * 2).max(FIRST_ROOM);
        let target = match self.header() {
            Some(header) if header.frame_len() > self.filled => doubled.min(header.frame_len()),
            _ => doubled,
        };
        self.grow_to(target);
    }

    fn grow_to(&mut self, capacity: usize) {
        if capacity == 0 {
            return;
        }
        // Room for any start is allocated, so the capacity does not depend on the allocator's mood.
        let allocated = capacity + DATA_ALIGNMENT - 1;
        self.bytes
            .reserve_exact(allocated.saturating_sub(self.bytes.len()));
        self.bytes.resize(allocated, 0);
        // Allocators hand out multiples of eight, so this is 0 before and after; but nothing promises it.
        let start = self.bytes.as_ptr().addr().wrapping_neg() % DATA_ALIGNMENT;
        if start != self.start {
            self.bytes
                .copy_within(self.start..self.start + self.filled, start);
            self.start = start;
        }
        self.bytes.truncate(start + capacity);
    }
}
