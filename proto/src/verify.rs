//! The one gate between bytes from a socket and the views: nothing of a message is given out before the
//! bytes that it comes from were found to be in the buffer and at their place.
//!
//! A view takes its fields from here one by one, and each is checked while it is taken, so that one walk
//! both verifies and reads. When the walk has ended well, everything in the message that the schema knows
//! has been seen; only lists are walked again by those who read them ([`EntryReader`]).
//!
//! It never copies, never allocates but for an error, and needs no `unsafe`: every read goes through a
//! slice, so a mistake here could refuse, misread or panic, but not read elsewhere.
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
//! limits: `proto/tests/proto/differential.rs` and `limits.rs` compare. What that means in corner cases
//! stands in `docs/protocol.md`.

use crate::entries::{Entries, Entry, EntryReader};
use crate::frame::{HEADER_LEN, MAX_DATA_LEN};
use crate::invalid::{Fault, InvalidFrame};

/// Alignment of a frame's data in memory, in bytes: nothing in the schema is wider.
const DATA_ALIGNMENT: usize = 4;

/// Tables in a message, shared ones counted each time. A frame of nothing but the smallest entries (a table
/// and its place in the list) holds no more.
const MAX_TABLES: usize = (MAX_DATA_LEN + HEADER_LEN) / 8;

/// Bytes in a message when shared parts are counted each time. An honest message shares only the few bytes
/// of vtables; without the limit a small one could claim gigabytes of values.
const MAX_APPARENT_SIZE: usize = 4 * (MAX_DATA_LEN + 1);

/// Bytes of a uoffset, and of a vector's length.
pub(crate) const UOFFSET: usize = 4;

/// Bytes of a number in a vtable.
pub(crate) const VOFFSET: usize = 2;

/// Number of a field as generated code has it (`VT_...`): where in the vtable its place stands, in bytes.
type Slot = u16;

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
        let vtable = self.data.vtable(self.data.vtable_at(at)?)?;
        self.count_tables(1)?;
        self.count(UOFFSET + vtable.apparent_size())?;
        Ok(Table {
            message: self,
            at,
            vtable,
        })
    }

    fn count_tables(&mut self, tables: usize) -> Result<(), Fault> {
        self.tables += tables;
        if self.tables > MAX_TABLES {
            return Err(Fault::TooManyTables { most: MAX_TABLES });
        }
        Ok(())
    }

    /// Counts bytes that were found to be in the data, so that the sum stays far below an overflow.
    fn count(&mut self, bytes: usize) -> Result<(), Fault> {
        self.apparent_size += bytes;
        if self.apparent_size > MAX_APPARENT_SIZE {
            return Err(Fault::TooLarge {
                most: MAX_APPARENT_SIZE,
            });
        }
        Ok(())
    }

    fn number<T>(
        &mut self,
        at: usize,
        read: impl FnOnce(Data<'a>, usize) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.count(size_of::<T>())?;
        read(self.data, at)
    }

    /// The bytes of the vector that the uoffset at this place points to.
    fn bytes(&mut self, uoffset_at: usize) -> Result<&'a [u8], Fault> {
        let bytes = self.data.bytes(uoffset_at)?;
        self.count(2 * UOFFSET + bytes.len())?;
        Ok(bytes)
    }

    /// The entries of the vector that the uoffset at this place points to. Each is shown as it is read, so
    /// that who needs them all need not walk again.
    #[inline]
    fn entries(
        &mut self,
        uoffset_at: usize,
        mut each: impl FnMut(Entry<'a>),
    ) -> Result<Entries<'a>, Fault> {
        let list = self.data.list(uoffset_at)?;
        self.count(2 * UOFFSET + list.len * UOFFSET)?;
        self.count_tables(list.len)?;
        let mut reader = EntryReader::new(self.data);
        for index in 0..list.len {
            let (entry, apparent_size) = reader.read(list.uoffset_at(index))?;
            self.count(apparent_size)?;
            each(entry);
        }
        Ok(Entries::new(self.data, list))
    }
}

impl<'a> Table<'_, 'a> {
    /// A number of one byte; 0 where it is absent.
    pub(crate) fn u8(&mut self, name: &'static str, slot: Slot) -> Result<u8, InvalidFrame> {
        self.number(name, slot, Data::u8)
    }

    /// A number of two bytes; 0 where it is absent.
    pub(crate) fn u16(&mut self, name: &'static str, slot: Slot) -> Result<u16, InvalidFrame> {
        self.number(name, slot, Data::u16)
    }

    /// A number of four bytes; 0 where it is absent.
    pub(crate) fn u32(&mut self, name: &'static str, slot: Slot) -> Result<u32, InvalidFrame> {
        self.number(name, slot, Data::u32)
    }

    /// A string or a vector of bytes.
    pub(crate) fn bytes(
        &mut self,
        name: &'static str,
        slot: Slot,
    ) -> Result<Option<&'a [u8]>, InvalidFrame> {
        self.take(name, slot, Message::bytes)
    }

    /// A vector of `TextEntry` tables; an absent one reads as an empty one.
    pub(crate) fn entries(
        &mut self,
        name: &'static str,
        slot: Slot,
    ) -> Result<Entries<'a>, InvalidFrame> {
        self.entries_with(name, slot, |_| {})
    }

    /// The same, shown one by one as they are verified. Where the result is an error, what was shown before
    /// it is to be forgotten.
    #[inline]
    pub(crate) fn entries_with(
        &mut self,
        name: &'static str,
        slot: Slot,
        each: impl FnMut(Entry<'a>),
    ) -> Result<Entries<'a>, InvalidFrame> {
        let entries = self.take(name, slot, |message, at| message.entries(at, each))?;
        Ok(entries.unwrap_or_default())
    }

    /// A union; `None` where it is absent.
    pub(crate) fn union(
        &mut self,
        name: &'static str,
        kind: Slot,
        value: Slot,
    ) -> Result<Option<Union<'_, 'a>>, InvalidFrame> {
        let value_at = self.take(name, value, |_, at| Ok(at))?;
        let kind = self.take(name, kind, |message, at| message.number(at, Data::u8))?;
        match (kind, value_at) {
            (None, None) => Ok(None),
            (Some(kind), Some(value_at)) => Ok(Some(Union {
                message: self.message,
                name,
                kind,
                value_at,
            })),
            _ => Err(Fault::in_field(name)(Fault::HalfUnion { at: self.at })),
        }
    }

    fn number<T: Default>(
        &mut self,
        name: &'static str,
        slot: Slot,
        read: impl FnOnce(Data<'a>, usize) -> Result<T, Fault>,
    ) -> Result<T, InvalidFrame> {
        let number = self.take(name, slot, |message, at| message.number(at, read))?;
        Ok(number.unwrap_or_default())
    }

    /// Reads a field by its place; `None` where it is absent.
    fn take<T>(
        &mut self,
        name: &'static str,
        slot: Slot,
        read: impl FnOnce(&mut Message<'a>, usize) -> Result<T, Fault>,
    ) -> Result<Option<T>, InvalidFrame> {
        let Some(place) = self.vtable.place(slot) else {
            return Ok(None);
        };
        let counted = self.message.count(VOFFSET);
        let taken = match place {
            0 => counted.map(|()| None),
            _ => counted.and_then(|()| read(self.message, self.at + place).map(Some)),
        };
        taken.map_err(Fault::in_field(name))
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

/// A vtable with all of its numbers.
#[derive(Clone, Copy)]
pub(crate) struct Vtable<'a>(&'a [[u8; VOFFSET]]);

/// A vector of uoffsets.
#[derive(Clone, Copy, Default)]
pub(crate) struct List {
    first: usize,
    pub(crate) len: usize,
}

impl<'a> Data<'a> {
    /// The bytes of the vector that the uoffset at this place points to.
    #[inline]
    pub(crate) fn bytes(self, uoffset_at: usize) -> Result<&'a [u8], Fault> {
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

    /// Where the vtable of the table at this place is said to be.
    #[inline]
    pub(crate) fn vtable_at(self, table_at: usize) -> Result<usize, Fault> {
        let soffset = self.u32(table_at)?.cast_signed();
        // Backwards, unless it is negative. Before the start of the data it becomes a place beyond all ends.
        Ok(table_at.wrapping_sub(soffset as usize))
    }

    /// The vtable at this place.
    #[inline]
    pub(crate) fn vtable(self, at: usize) -> Result<Vtable<'a>, Fault> {
        let len = usize::from(self.u16(at)?);
        if !len.is_multiple_of(VOFFSET) {
            return Err(Fault::OddVtable { at });
        }
        let numbers = self.0[at..].as_chunks().0.get(..len / VOFFSET);
        Ok(Vtable(numbers.ok_or(Fault::OutOfBounds { at })?))
    }

    /// Where the uoffset at this place points to.
    #[inline]
    pub(crate) fn target(self, uoffset_at: usize) -> Result<usize, Fault> {
        let uoffset = self.u32(uoffset_at)?;
        Ok(uoffset_at.saturating_add(uoffset as usize))
    }

    #[inline]
    fn u8(self, at: usize) -> Result<u8, Fault> {
        self.number(at).map(u8::from_le_bytes)
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
    #[inline(always)]
    fn number<const SIZE: usize>(self, at: usize) -> Result<[u8; SIZE], Fault> {
        if at.is_multiple_of(SIZE)
            && let Some(bytes) = self.0.as_chunks::<SIZE>().0.get(at / SIZE)
        {
            return Ok(*bytes);
        }
        Err(no_number(at, SIZE))
    }
}

/// Why there is no number at this place. Away from the hot path, which is shorter without it.
#[cold]
#[inline(never)]
fn no_number(at: usize, size: usize) -> Fault {
    if at.is_multiple_of(size) {
        Fault::OutOfBounds { at }
    } else {
        Fault::Misaligned { at }
    }
}

impl Vtable<'_> {
    /// What the vtable says of a field; `None` where it is too short to say anything.
    #[inline]
    pub(crate) fn place(self, slot: Slot) -> Option<usize> {
        let place = self.0.get(usize::from(slot) / VOFFSET)?;
        Some(usize::from(u16::from_le_bytes(*place)))
    }

    /// A soffset, the vtable's length, and all of the vtable.
    #[inline]
    pub(crate) fn apparent_size(self) -> usize {
        UOFFSET + VOFFSET + VOFFSET * self.0.len()
    }
}

impl List {
    #[inline]
    pub(crate) fn uoffset_at(self, index: usize) -> usize {
        self.first + index * UOFFSET
    }
}
