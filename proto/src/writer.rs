//! Builds frames: header and data in one piece, in memory that is used again and again.
//!
//! What is written for each RPC stands in that RPC's module; here is what they share. A message that does
//! not fit a frame is given up before it is built to its end, and nothing of it is left in memory.

use std::fmt;

use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, Vector, WIPOffset};

use crate::entries::Entry;
use crate::frame::{FrameTooLarge, FrameType, HEADER_LEN, Header, MAX_DATA_LEN};
use crate::generated::a6::{TextEntry, TextEntryArgs};

/// Room that a new writer starts with, in bytes. A usual answer takes a few hundred.
const FIRST_ROOM: usize = 1024;

// The builder can put four bytes of its own before the data. They become the header, so that header and
// data go out in one write without a copy.
const _: () = assert!(HEADER_LEN == flatbuffers::SIZE_SIZEPREFIX);

/// Writes frames, one at a time, reusing its memory: once warm, a frame costs no allocation.
///
/// Pass it to one of the `write_...` functions of the RPC modules; what they return is the whole frame,
/// header included, and stays valid until the next one is written.
pub struct FrameWriter {
    builder: FlatBufferBuilder<'static>,
    /// Bytes that the builder keeps, as of the last frame.
    capacity: usize,
    /// The list of entries being written.
    entries: Vec<WIPOffset<TextEntry<'static>>>,
}

pub(crate) type WrittenBytes = WIPOffset<Vector<'static, u8>>;
pub(crate) type WrittenEntries =
    WIPOffset<Vector<'static, flatbuffers::ForwardsUOffset<TextEntry<'static>>>>;
pub(crate) type WrittenUnion = WIPOffset<UnionWIPOffset>;

impl FrameWriter {
    /// A writer with room for a usual answer.
    #[must_use]
    pub fn new() -> Self {
        Self::with_capacity(FIRST_ROOM)
    }

    fn with_capacity(capacity: usize) -> Self {
        Self {
            builder: FlatBufferBuilder::with_capacity(capacity),
            capacity,
            entries: Vec::new(),
        }
    }

    /// The frame that was written last, and with success.
    ///
    /// # Panics
    /// If there is none: a mistake of the caller.
    #[must_use]
    pub fn last(&self) -> &[u8] {
        self.builder.finished_data()
    }

    /// Bytes that this writer keeps for frames.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Gives memory back if more than `max` bytes are kept, for example after a large body.
    pub fn shrink(&mut self, max: usize) {
        if self.capacity > max {
            *self = Self::with_capacity(max.min(FIRST_ROOM));
        }
    }

    /// Writes one frame: `build` writes all parts of the message and then its root.
    pub(crate) fn frame<T>(
        &mut self,
        frame_type: FrameType,
        build: impl FnOnce(&mut Self) -> Result<WIPOffset<T>, FrameTooLarge>,
    ) -> Result<&[u8], FrameTooLarge> {
        self.builder.reset();
        if let Err(too_large) = build(self).and_then(|root| self.seal(frame_type, root)) {
            *self = Self::new();
            return Err(too_large);
        }
        Ok(self.builder.finished_data())
    }

    pub(crate) fn builder(&mut self) -> &mut FlatBufferBuilder<'static> {
        &mut self.builder
    }

    /// Writes bytes in the form of a string, with a closing NUL: other languages read some of them as one.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<WrittenBytes, FrameTooLarge> {
        let at_least = self.builder.unfinished_data().len() + bytes.len();
        if at_least > MAX_DATA_LEN {
            return Err(FrameTooLarge { at_least });
        }
        Ok(WIPOffset::new(
            self.builder.create_byte_string(bytes).value(),
        ))
    }

    pub(crate) fn optional_bytes(
        &mut self,
        bytes: Option<&[u8]>,
    ) -> Result<Option<WrittenBytes>, FrameTooLarge> {
        bytes.map(|bytes| self.bytes(bytes)).transpose()
    }

    /// Writes a list in the order given. An empty one is left out: the gateway makes no difference.
    pub(crate) fn entries<'e>(
        &mut self,
        entries: impl IntoIterator<Item = Entry<'e>>,
    ) -> Result<Option<WrittenEntries>, FrameTooLarge> {
        self.entries.clear();
        for entry in entries {
            let name = Some(self.bytes(entry.name)?);
            let value = self.optional_bytes(entry.value)?;
            let written = TextEntry::create(&mut self.builder, &TextEntryArgs { name, value });
            self.entries.push(written);
        }
        if self.entries.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.builder.create_vector(&self.entries)))
    }

    /// Puts the header before the finished message.
    fn seal<T>(&mut self, frame_type: FrameType, root: WIPOffset<T>) -> Result<(), FrameTooLarge> {
        self.builder.finish_size_prefixed(root, None);
        let (whole, start) = self.builder.mut_finished_buffer();
        self.capacity = whole.len();
        let frame = &mut whole[start..];
        let header = Header::new(frame_type, frame.len() - HEADER_LEN)?.encode()?;
        frame[..HEADER_LEN].copy_from_slice(&header);
        Ok(())
    }
}

impl fmt::Debug for FrameWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameWriter")
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

impl Default for FrameWriter {
    fn default() -> Self {
        Self::new()
    }
}
