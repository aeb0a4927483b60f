//! Lists of names and values: headers, query arguments, plugin configurations.
//!
//! Order and repetition are kept, and "no value" differs from "an empty value": the gateway treats the
//! two differently.

use std::fmt;
use std::ops::Range;

use crate::verify::{Data, List};

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
    /// A list of which [`Data::entry`] has read every entry.
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
    pub fn get(&self, index: usize) -> Option<Entry<'a>> {
        if index >= self.list.len {
            return None;
        }
        let read = self.data.entry(self.list.uoffset_at(index));
        let (entry, _) = read.expect("every entry was verified with its message");
        Some(entry)
    }

    /// All entries in their order.
    #[must_use]
    pub fn iter(&self) -> EntriesIter<'a> {
        EntriesIter {
            entries: *self,
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
#[derive(Clone, Debug)]
pub struct EntriesIter<'a> {
    entries: Entries<'a>,
    places: Range<usize>,
}

impl<'a> Iterator for EntriesIter<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        self.entries.get(self.places.next()?)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.places.size_hint()
    }
}

impl DoubleEndedIterator for EntriesIter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.entries.get(self.places.next_back()?)
    }
}

impl ExactSizeIterator for EntriesIter<'_> {}
