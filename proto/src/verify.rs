//! The one gate between bytes from a socket and the views: nothing of a message is given out before the
//! bytes that it comes from were found to be in the buffer and at their place.
//!
//! A view takes its fields from here one by one, and each is checked while it is taken, so that one walk
//! both verifies and reads. When the walk has ended well, all that a message claims to hold has been seen.
//! It never copies, never allocates but for an error, and needs no `unsafe`: every read is checked again
//! by the compiler's own bounds checks, so a mistake here could refuse, misread or panic, not read
//! elsewhere.
//!
//! What is checked are the rules of the Flatbuffers format, in its own terms
//! (<https://flatbuffers.dev/internals/>). All numbers are little-endian, and each lies at a multiple of its
//! own size, counted from the start of the buffer.
//!
//! | part | is |
//! |---|---|
//! | uoffset | a `u32`, counted forwards from where it stands; the buffer begins with one, to the root table |
//! | table | a soffset to its vtable, then its fields, in the places that the vtable names |
//! | soffset | an `i32`, counted backwards from where it stands |
//! | vtable | `u16`s: its own length in bytes, the table's (of no use here), then one for each field of the schema: the field's place, counted from the table, or 0 where it is absent. It may be too short for a field, which is then absent, or longer than the schema |
//! | scalar | a field's value, in its place |
//! | vector | in the field's place a uoffset to a `u32`, the number of elements, which follow it |
//! | string | a vector of bytes with a NUL behind it. We go by the length, so nobody looks for the NUL |
//! | vector of tables | a vector of uoffsets, one for each table |
//! | union | two fields, both or none: the kind, a `u8`, and a uoffset to the table of that kind |
//!
//! Parts may lie in any order, overlap, and be pointed at many times. The last makes two limits necessary,
//! or a small message could cost hours: [`MAX_TABLES`] and [`MAX_APPARENT_SIZE`]. Depth needs none, since
//! no table of the schema holds another of its kind.
//!
//! The code that the schema's compiler generates accepts and refuses exactly the same, with the same two
//! limits: `proto/tests/proto/differential.rs` compares.

use crate::entries::{Entries, Entry};
use crate::frame::{HEADER_LEN, MAX_DATA_LEN};
use crate::generated::a6::TextEntry;

/// Alignment of a frame's data in memory, in bytes: nothing in the schema is wider.
const DATA_ALIGNMENT: usize = 4;

/// Tables in a message, shared ones counted each time. A frame of nothing but the smallest entries (a table
/// and its place in the list) holds no more.
const MAX_TABLES: usize = (MAX_DATA_LEN + HEADER_LEN) / 8;

/// Bytes in a message when shared parts are counted each time. An honest message shares only the few bytes
/// of vtables; without the limit a small one could claim gigabytes of values.
const MAX_APPARENT_SIZE: usize = 4 * (MAX_DATA_LEN + 1);

/// Bytes of a uoffset, and of a vector's length.
const UOFFSET: usize = 4;

/// Bytes of a number in a vtable.
const VOFFSET: usize = 2;

/// Number of a field as generated code has it (`VT_...`): where in the vtable its place stands, in bytes.
type Slot = u16;

/// The data of a frame cannot be read as the message that it should be.
///
/// Except for [`Unaligned`](Self::Unaligned), it is the peer's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidFrame {
    /// The data does not start at a multiple of four bytes in memory; a mistake on this side. Data from
    /// [`FrameBuffer`](crate::FrameBuffer) always does.
    #[error("the frame's data is not 4-byte aligned in memory: read it through a FrameBuffer")]
    Unaligned,
    /// The data is no well-formed message of this kind.
    #[error("the peer sent a broken message: {reason}")]
    Malformed {
        /// What is wrong and where, on one line.
        reason: String,
    },
    /// A union says that it holds something that the protocol does not know.
    #[error("the peer sent a message whose {field} is of unknown kind {kind}")]
    UnknownKind {
        /// Name of the union's field.
        field: &'static str,
        /// The kind as it arrived.
        kind: u8,
    },
    /// Something is absent without which the message means nothing.
    #[error("the peer sent a message without {field}")]
    Missing {
        /// Name of the absent field.
        field: &'static str,
    },
}

/// A rule of the format that a message breaks. Positions are bytes from the start of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("a part at byte {at} is not, or not all of it, in the data")]
    OutOfBounds { at: usize },
    #[error("a part at byte {at} is not at a multiple of its size")]
    Misaligned { at: usize },
    #[error("the vtable at byte {at} has an odd length")]
    OddVtable { at: usize },
    #[error("a union in the table at byte {at} has a kind and no value, or a value and no kind")]
    HalfUnion { at: usize },
    #[error("more than {MAX_TABLES} tables, shared ones counted each time")]
    TooManyTables,
    #[error("more than {MAX_APPARENT_SIZE} bytes, shared ones counted each time")]
    TooLarge,
}

impl Fault {
    /// What to tell of a fault in this field.
    fn in_field(name: &'static str) -> impl Fn(Self) -> InvalidFrame {
        #[cold]
        fn malformed(name: &str, fault: Fault) -> InvalidFrame {
            let reason = format!("{name}: {fault}");
            InvalidFrame::Malformed { reason }
        }
        move |fault| malformed(name, fault)
    }
}

/// A message that is being verified, and what was counted of it so far.
pub(crate) struct Message<'a> {
    data: Data<'a>,
    tables: usize,
    apparent_size: usize,
}

/// A table of a [`Message`]. Its vtable has been verified; its fields are while they are taken.
pub(crate) struct Table<'m, 'a> {
    message: &'m mut Message<'a>,
    at: usize,
    vtable: Vtable<'a>,
}

/// A union of a [`Table`] that has a kind and a value. The value is verified only when it is taken: what a
/// kind means that we do not know, nobody can tell.
pub(crate) struct Union<'m, 'a> {
    message: &'m mut Message<'a>,
    name: &'static str,
    kind: u8,
    value_at: usize,
}

impl<'a> Message<'a> {
    /// # Errors
    /// [`InvalidFrame::Unaligned`].
    pub(crate) fn new(data: &'a [u8]) -> Result<Self, InvalidFrame> {
        if !data.as_ptr().addr().is_multiple_of(DATA_ALIGNMENT) {
            return Err(InvalidFrame::Unaligned);
        }
        Ok(Self {
            data: Data(data),
            tables: 0,
            apparent_size: 0,
        })
    }

    /// The table with which the message begins.
    pub(crate) fn root(&mut self) -> Result<Table<'_, 'a>, InvalidFrame> {
        self.table(0).map_err(Fault::in_field("the message"))
    }

    /// The table that the uoffset at this place points to.
    fn table(&mut self, uoffset_at: usize) -> Result<Table<'_, 'a>, Fault> {
        let at = self.data.target(uoffset_at)?;
        let vtable = self.data.vtable(at)?;
        self.count_table()?;
        self.count(UOFFSET + vtable.apparent_size())?;
        Ok(Table {
            message: self,
            at,
            vtable,
        })
    }

    fn count_table(&mut self) -> Result<(), Fault> {
        self.tables += 1;
        if self.tables > MAX_TABLES {
            return Err(Fault::TooManyTables);
        }
        Ok(())
    }

    /// Counts bytes that were found to be in the data, so that the sum stays far below an overflow.
    fn count(&mut self, bytes: usize) -> Result<(), Fault> {
        self.apparent_size += bytes;
        if self.apparent_size > MAX_APPARENT_SIZE {
            return Err(Fault::TooLarge);
        }
        Ok(())
    }
}

impl<'a> Table<'_, 'a> {
    /// A number of one byte; 0 where it is absent.
    pub(crate) fn u8(&mut self, name: &'static str, slot: Slot) -> Result<u8, InvalidFrame> {
        self.number(slot, Data::u8).map_err(Fault::in_field(name))
    }

    /// A number of two bytes; 0 where it is absent.
    pub(crate) fn u16(&mut self, name: &'static str, slot: Slot) -> Result<u16, InvalidFrame> {
        self.number(slot, Data::u16).map_err(Fault::in_field(name))
    }

    /// A number of four bytes; 0 where it is absent.
    pub(crate) fn u32(&mut self, name: &'static str, slot: Slot) -> Result<u32, InvalidFrame> {
        self.number(slot, Data::u32).map_err(Fault::in_field(name))
    }

    /// A string or a vector of bytes.
    pub(crate) fn bytes(
        &mut self,
        name: &'static str,
        slot: Slot,
    ) -> Result<Option<&'a [u8]>, InvalidFrame> {
        self.text(slot).map_err(Fault::in_field(name))
    }

    /// A vector of `TextEntry` tables; an absent one reads as an empty one.
    pub(crate) fn entries(
        &mut self,
        name: &'static str,
        slot: Slot,
    ) -> Result<Entries<'a>, InvalidFrame> {
        self.list(slot).map_err(Fault::in_field(name))
    }

    /// A union; `None` where it is absent.
    pub(crate) fn union(
        &mut self,
        name: &'static str,
        kind: Slot,
        value: Slot,
    ) -> Result<Option<Union<'_, 'a>>, InvalidFrame> {
        let halves = self.halves(kind, value).map_err(Fault::in_field(name))?;
        Ok(halves.map(|(kind, value_at)| Union {
            message: self.message,
            name,
            kind,
            value_at,
        }))
    }

    /// The kind of a union, and where the uoffset to its value is.
    fn halves(&mut self, kind: Slot, value: Slot) -> Result<Option<(u8, usize)>, Fault> {
        match (self.field(kind)?, self.field(value)?) {
            (None, None) => Ok(None),
            (Some(kind_at), Some(value_at)) => {
                self.message.count(size_of::<u8>())?;
                Ok(Some((self.message.data.u8(kind_at)?, value_at)))
            }
            _ => Err(Fault::HalfUnion { at: self.at }),
        }
    }

    fn number<T: Default>(
        &mut self,
        slot: Slot,
        read: impl FnOnce(Data<'a>, usize) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let Some(at) = self.field(slot)? else {
            return Ok(T::default());
        };
        self.message.count(size_of::<T>())?;
        read(self.message.data, at)
    }

    fn text(&mut self, slot: Slot) -> Result<Option<&'a [u8]>, Fault> {
        let Some(at) = self.field(slot)? else {
            return Ok(None);
        };
        let bytes = self.message.data.bytes(at)?;
        self.message.count(2 * UOFFSET + bytes.len())?;
        Ok(Some(bytes))
    }

    fn list(&mut self, slot: Slot) -> Result<Entries<'a>, Fault> {
        let Some(at) = self.field(slot)? else {
            return Ok(Entries::default());
        };
        let message = &mut *self.message;
        let list = message.data.list(at)?;
        message.count(2 * UOFFSET + list.len * UOFFSET)?;
        for index in 0..list.len {
            let (_, apparent_size) = message.data.entry(list.uoffset_at(index))?;
            message.count_table()?;
            message.count(apparent_size)?;
        }
        Ok(Entries::new(message.data, list))
    }

    /// Where a field is; `None` where it is absent.
    fn field(&mut self, slot: Slot) -> Result<Option<usize>, Fault> {
        let Some(place) = self.vtable.place(slot) else {
            return Ok(None);
        };
        self.message.count(VOFFSET)?;
        Ok((place != 0).then(|| self.at + place))
    }
}

impl<'m, 'a> Union<'m, 'a> {
    pub(crate) fn kind(&self) -> u8 {
        self.kind
    }

    /// The table that is the value.
    pub(crate) fn table(self) -> Result<Table<'m, 'a>, InvalidFrame> {
        self.message
            .table(self.value_at)
            .map_err(Fault::in_field(self.name))
    }
}

/// The bytes of a message, and the checks that belong to one part alone.
#[derive(Clone, Copy, Default)]
pub(crate) struct Data<'a>(&'a [u8]);

/// A vtable, without the two numbers of its head that say nothing about fields.
#[derive(Clone, Copy)]
struct Vtable<'a>(&'a [[u8; VOFFSET]]);

/// A vector of uoffsets.
#[derive(Clone, Copy, Default)]
pub(crate) struct List {
    first: usize,
    pub(crate) len: usize,
}

impl<'a> Data<'a> {
    /// Reads an entry by the uoffset to it, and tells its apparent size. What this has once read, it reads
    /// again.
    #[inline]
    pub(crate) fn entry(self, uoffset_at: usize) -> Result<(Entry<'a>, usize), Fault> {
        let at = self.target(uoffset_at)?;
        let vtable = self.vtable(at)?;
        let mut apparent_size = UOFFSET + vtable.apparent_size();
        let mut text = |slot| {
            let Some(place) = vtable.place(slot) else {
                return Ok(None);
            };
            apparent_size += VOFFSET;
            if place == 0 {
                return Ok(None);
            }
            let bytes = self.bytes(at + place)?;
            apparent_size += 2 * UOFFSET + bytes.len();
            Ok(Some(bytes))
        };
        let name = text(TextEntry::VT_NAME)?.unwrap_or_default();
        let value = text(TextEntry::VT_VALUE)?;
        Ok((Entry { name, value }, apparent_size))
    }

    /// The bytes of the vector that the uoffset at this place points to.
    #[inline]
    fn bytes(self, uoffset_at: usize) -> Result<&'a [u8], Fault> {
        let at = self.target(uoffset_at)?;
        let len = self.u32(at)? as usize;
        let rest = &self.0[at + UOFFSET..];
        rest.get(..len).ok_or(Fault::OutOfBounds { at })
    }

    /// The vector of uoffsets that the uoffset at this place points to.
    fn list(self, uoffset_at: usize) -> Result<List, Fault> {
        let at = self.target(uoffset_at)?;
        let len = self.u32(at)? as usize;
        let first = at + UOFFSET;
        if len > (self.0.len() - first) / UOFFSET {
            return Err(Fault::OutOfBounds { at });
        }
        Ok(List { first, len })
    }

    /// The vtable of the table at this place.
    #[inline]
    fn vtable(self, table_at: usize) -> Result<Vtable<'a>, Fault> {
        let soffset = self.u32(table_at)?.cast_signed();
        // Backwards, unless it is negative. Beyond either end of the data it becomes a place that no data has.
        let at = table_at.wrapping_sub(soffset as usize);
        let len = usize::from(self.u16(at)?);
        if !len.is_multiple_of(VOFFSET) {
            return Err(Fault::OddVtable { at });
        }
        let numbers = self.0[at..].as_chunks().0.get(..len / VOFFSET);
        Ok(Vtable(numbers.ok_or(Fault::OutOfBounds { at })?))
    }

    /// Where the uoffset at this place points to.
    #[inline]
    fn target(self, uoffset_at: usize) -> Result<usize, Fault> {
        let uoffset = self.u32(uoffset_at)?;
        Ok(uoffset_at.saturating_add(uoffset as usize))
    }

    #[inline]
    fn u8(self, at: usize) -> Result<u8, Fault> {
        self.0.get(at).copied().ok_or(Fault::OutOfBounds { at })
    }

    #[inline]
    fn u16(self, at: usize) -> Result<u16, Fault> {
        self.number(at).map(u16::from_le_bytes)
    }

    #[inline]
    fn u32(self, at: usize) -> Result<u32, Fault> {
        self.number(at).map(u32::from_le_bytes)
    }

    /// The bytes of a number: as it lies at a multiple of its size, it is one of the pieces of that size
    /// that the data consists of, and one comparison tells whether it is there.
    #[inline]
    fn number<const SIZE: usize>(self, at: usize) -> Result<[u8; SIZE], Fault> {
        if !at.is_multiple_of(SIZE) {
            return Err(Fault::Misaligned { at });
        }
        let pieces = self.0.as_chunks::<SIZE>().0;
        pieces
            .get(at / SIZE)
            .copied()
            .ok_or(Fault::OutOfBounds { at })
    }
}

impl Vtable<'_> {
    /// What the vtable says of a field; `None` where it is too short to say anything.
    #[inline]
    fn place(self, slot: Slot) -> Option<usize> {
        let place = self.0.get(usize::from(slot) / VOFFSET)?;
        Some(usize::from(u16::from_le_bytes(*place)))
    }

    /// A soffset, the vtable's length, and all of the vtable.
    #[inline]
    fn apparent_size(self) -> usize {
        UOFFSET + VOFFSET + VOFFSET * self.0.len()
    }
}

impl List {
    #[inline]
    pub(crate) fn uoffset_at(self, index: usize) -> usize {
        self.first + index * UOFFSET
    }
}
