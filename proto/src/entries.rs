//! Lists of names and values: headers, query arguments, plugin configurations.
//!
//! Order and repetition are kept, and "no value" differs from "an empty value": the gateway treats the
//! two differently.

use std::fmt;
use std::ops::Range;

use crate::generated::a6::TextEntry;
use crate::invalid::Fault;
use crate::verify::{Data, List, UOFFSET, VOFFSET};

/// A name and perhaps a value. What a missing value means depends on the list: `?z` among arguments,
/// "delete this" in the answer to a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Entry<'a> {
    /// The name; empty if the sender left it out.
    pub name: &'a [u8],
    /// The value, any bytes; `None` if there is none, which differs from an empty one.
    pub value: Option<&'a [u8]>,
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.name.escape_ascii())?;
        match self.value {
            Some(value) => write!(f, ": \"{}\"", value.escape_ascii()),
            None => Ok(()),
        }
    }
}

/// A received list of entries, in the order in which they were sent. An absent list is an empty one.
#[derive(Clone, Copy, Default)]
pub struct Entries<'a> {
    data: Data<'a>,
    list: List,
}

impl<'a> Entries<'a> {
    /// A list of which [`EntryReader`] has read every entry.
    pub(crate) fn new(data: Data<'a>, list: List) -> Self {
        Self { data, list }
    }

    /// Number of entries, repeated names counted each time.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry at this place, counted from 0.
    #[must_use]
    #[inline]
    pub fn get(&self, index: usize) -> Option<Entry<'a>> {
        (index < self.list.len).then(|| self.iter().at(index))
    }

    /// All entries in their order.
    #[must_use]
    #[inline]
    pub fn iter(&self) -> EntriesIter<'a> {
        EntriesIter {
            reader: EntryReader::new(self.data),
            list: self.list,
            places: 0..self.len(),
        }
    }
}

impl<'a> IntoIterator for Entries<'a> {
    type Item = Entry<'a>;
    type IntoIter = EntriesIter<'a>;

    fn into_iter(self) -> EntriesIter<'a> {
        self.iter()
    }
}

impl fmt::Debug for Entries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Walks through [`Entries`].
#[derive(Clone)]
pub struct EntriesIter<'a> {
    reader: EntryReader<'a>,
    list: List,
    places: Range<usize>,
}

impl<'a> EntriesIter<'a> {
    #[inline]
    fn at(&mut self, index: usize) -> Entry<'a> {
        let read = self.reader.read(self.list.uoffset_at(index));
        read.expect("each entry was read when the message was verified")
            .0
    }
}

impl<'a> Iterator for EntriesIter<'a> {
    type Item = Entry<'a>;

    #[inline]
    fn next(&mut self) -> Option<Entry<'a>> {
        let index = self.places.next()?;
        Some(self.at(index))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.places.size_hint()
    }
}

impl DoubleEndedIterator for EntriesIter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let index = self.places.next_back()?;
        Some(self.at(index))
    }
}

impl fmt::Debug for EntriesIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

impl ExactSizeIterator for EntriesIter<'_> {}

/// Reads entries, and remembers the vtable of the last one: as a rule all in a list have the same. What it
/// has once read, it can read again.
#[derive(Clone)]
pub(crate) struct EntryReader<'a> {
    data: Data<'a>,
    last: Option<EntryLayout>,
}

/// What the vtable of an entry says.
#[derive(Clone, Copy)]
struct EntryLayout {
    vtable_at: usize,
    /// Where the name is, counted from the entry; 0 where it is absent.
    name: usize,
    /// Where the value is, likewise.
    value: usize,
    /// Of all but the name's and the value's own bytes.
    apparent_size: usize,
}

impl<'a> EntryReader<'a> {
    pub(crate) fn new(data: Data<'a>) -> Self {
        Self { data, last: None }
    }

    /// The entry that the uoffset at this place points to, and its apparent size.
    #[inline]
    pub(crate) fn read(&mut self, uoffset_at: usize) -> Result<(Entry<'a>, usize), Fault> {
        let at = self.data.target(uoffset_at)?;
        let vtable_at = self.data.vtable_at(at)?;
        let layout = match self.last {
            Some(layout) if layout.vtable_at == vtable_at => layout,
            _ => *self.last.insert(EntryLayout::read(self.data, vtable_at)?),
        };
        let mut apparent_size = layout.apparent_size;
        let mut text = |place| {
            if place == 0 {
                return Ok(None);
            }
            let bytes = self.data.bytes(at + place)?;
            apparent_size += 2 * UOFFSET + bytes.len();
            Ok(Some(bytes))
        };
        let name = text(layout.name)?.unwrap_or_default();
        let value = text(layout.value)?;
        Ok((Entry { name, value }, apparent_size))
    }
}

impl EntryLayout {
    fn read(data: Data<'_>, vtable_at: usize) -> Result<Self, Fault> {
        let vtable = data.vtable(vtable_at)?;
        let fields = [TextEntry::VT_NAME, TextEntry::VT_VALUE].map(|slot| vtable.place(slot));
        let [name, value] = fields.map(Option::unwrap_or_default);
        let looked_up = fields.iter().flatten().count();
        Ok(Self {
            vtable_at,
            name,
            value,
            apparent_size: UOFFSET + vtable.apparent_size() + looked_up * VOFFSET,
        })
    }
}
