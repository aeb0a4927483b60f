//! Names and values of a call: those that came in a frame and those that plugins put in their place.
//!
//! A list knows what it looks like now and which names were touched. It never holds bytes itself:
//! it holds places in the frame or in the call's notes, so that it is cheap to build and to copy.

use plugin_proto::Entry;

/// Where some bytes of a call stand: in the frame's data, which is shorter than 2^24 bytes, or in the
/// notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// With [`NOTES`] where it is in the notes.
    start: u32,
    len: u32,
}

/// Marks the start of a span in the notes.
const NOTES: u32 = 1 << 31;

impl Span {
    /// No bytes.
    pub const EMPTY: Self = Self { start: 0, len: 0 };

    fn len(self) -> usize {
        self.len as usize
    }
}

/// The bytes that spans point into: the frame's data, and what plugins wrote.
#[derive(Debug, Clone, Copy)]
pub struct Bytes<'a> {
    /// Data of the frame that brought the call.
    pub frame: &'a [u8],
    /// What plugins wrote, one after the other.
    pub notes: &'a [u8],
}

impl<'a> Bytes<'a> {
    /// The bytes at a place.
    #[inline]
    pub fn at(self, span: Span) -> &'a [u8] {
        let (source, start) = match span.start & NOTES {
            0 => (self.frame, span.start),
            _ => (self.notes, span.start & !NOTES),
        };
        source
            .get(start as usize..)
            .and_then(|rest| rest.get(..span.len()))
            .unwrap_or_default()
    }
}

/// Where a part of the frame's data begins in it. The part must be one, borrowed from the data.
pub fn span_start(frame: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr().wrapping_sub(frame.as_ptr().addr())
}

/// The place of a part of the frame's data.
#[inline]
pub fn span_in_frame(frame: &[u8], part: &[u8]) -> Span {
    let start = span_start(frame, part);
    // Nothing, or what is no part of it.
    if part.is_empty() || start >= frame.len() || frame.len() >= NOTES as usize {
        return Span::EMPTY;
    }
    #[allow(
        clippy::cast_possible_truncation,
        reason = "both are less than `NOTES`"
    )]
    let (start, len) = (start as u32, part.len() as u32);
    Span { start, len }
}

/// Writes bytes down and tells their place.
pub fn note(notes: &mut Vec<u8>, bytes: &[u8]) -> Span {
    let start = notes.len();
    let (Ok(start), Ok(len)) = (u32::try_from(start), u32::try_from(bytes.len())) else {
        return Span::EMPTY;
    };
    if start >= NOTES {
        // Two gigabytes of headers: the answer would not fit its frame by far.
        return Span::EMPTY;
    }
    notes.extend_from_slice(bytes);
    Span {
        start: start | NOTES,
        len,
    }
}

/// Whether names that differ in ASCII case alone are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// Header names.
    Ignored,
    /// Names of query arguments.
    Counts,
}

/// One name with its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Name.
    pub name: Span,
    /// Value; absent for an argument without `=`.
    pub value: Option<Span>,
}

impl Field {
    /// An entry of the frame's data.
    #[inline]
    pub fn in_frame(frame: &[u8], entry: Entry<'_>) -> Self {
        Self {
            name: span_in_frame(frame, entry.name),
            value: entry.value.map(|value| span_in_frame(frame, value)),
        }
    }
}

/// A list of names and values with its changes.
#[derive(Debug, Clone)]
pub struct Fields {
    case: Case,
    now: Vec<Field>,
    touched: Vec<Span>,
}

impl Fields {
    /// An empty list.
    pub fn new(case: Case) -> Self {
        Self {
            case,
            now: Vec::new(),
            touched: Vec::new(),
        }
    }

    /// Forgets everything; memory is kept.
    pub fn clear(&mut self) {
        self.now.clear();
        self.touched.clear();
    }

    /// Adds a field that came in, which is no change.
    pub fn push_received(&mut self, field: Field) {
        self.now.push(field);
    }

    /// The fields as they are now.
    pub fn now(&self) -> &[Field] {
        &self.now
    }

    /// Names that were set, added to or removed, each once.
    pub fn touched(&self) -> &[Span] {
        &self.touched
    }

    /// Index of the first field from `start` on with this name.
    #[inline]
    pub fn find(&self, bytes: Bytes<'_>, name: &[u8], start: usize) -> Option<usize> {
        let rest = self.now.get(start..)?;
        let found = rest
            .iter()
            .position(|field| is_named(self.case, bytes, field, name))?;
        Some(start + found)
    }

    /// The fields with this name.
    pub fn named<'a>(
        &'a self,
        bytes: Bytes<'a>,
        name: &'a [u8],
    ) -> impl Iterator<Item = &'a Field> {
        self.now
            .iter()
            .filter(move |field| is_named(self.case, bytes, field, name))
    }

    /// Replaces every field of this name by one, in the place of the first.
    pub fn set(&mut self, bytes: Bytes<'_>, field: Field) {
        self.touch(bytes, field.name);
        let name = bytes.at(field.name);
        match self.find(bytes, name, 0) {
            Some(first) => {
                self.now[first] = field;
                self.drop_named(bytes, name, first + 1);
            }
            None => self.now.push(field),
        }
    }

    /// Adds a field beside those of the same name.
    pub fn append(&mut self, bytes: Bytes<'_>, field: Field) {
        self.touch(bytes, field.name);
        self.now.push(field);
    }

    /// Removes every field of this name.
    pub fn remove(&mut self, bytes: Bytes<'_>, name: Span) {
        self.touch(bytes, name);
        self.drop_named(bytes, bytes.at(name), 0);
    }

    /// Removes the fields of this name from an index on.
    fn drop_named(&mut self, bytes: Bytes<'_>, name: &[u8], start: usize) {
        // As a rule there is none, and looking is cheaper than moving.
        let Some(first) = self.find(bytes, name, start) else {
            return;
        };
        let (case, mut index) = (self.case, 0);
        self.now.retain(|field| {
            let stays = index < first || !is_named(case, bytes, field, name);
            index += 1;
            stays
        });
    }

    fn touch(&mut self, bytes: Bytes<'_>, name: Span) {
        let known = self
            .touched
            .iter()
            .any(|touched| same(self.case, bytes.at(*touched), bytes.at(name)));
        if !known {
            self.touched.push(name);
        }
    }
}

/// Most names differ in their length, which is known without a look at the bytes.
#[inline]
fn is_named(case: Case, bytes: Bytes<'_>, field: &Field, name: &[u8]) -> bool {
    field.name.len() == name.len() && same(case, bytes.at(field.name), name)
}

fn same(case: Case, left: &[u8], right: &[u8]) -> bool {
    match case {
        Case::Ignored => left.eq_ignore_ascii_case(right),
        Case::Counts => left == right,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies changes to `a=1 B=2 a=3` and compares what stands there then, and what was touched.
    fn check(case: Case, change: impl FnOnce(&mut Fields, &mut Vec<u8>), now: &str, touched: &str) {
        let frame = b"a1B2a3";
        let mut fields = Fields::new(case);
        for pair in frame.chunks(2) {
            fields.push_received(Field {
                name: span_in_frame(frame, &pair[..1]),
                value: Some(span_in_frame(frame, &pair[1..])),
            });
        }
        let mut notes = Vec::new();
        change(&mut fields, &mut notes);
        let bytes = Bytes {
            frame,
            notes: &notes,
        };
        let text = |span: Span| String::from_utf8_lossy(bytes.at(span)).into_owned();
        let seen: Vec<String> = fields
            .now()
            .iter()
            .map(|field| {
                format!(
                    "{}={}",
                    text(field.name),
                    field.value.map(text).unwrap_or_default()
                )
            })
            .collect();
        assert_eq!(seen.join(" "), now);
        let names: Vec<String> = fields.touched().iter().copied().map(text).collect();
        assert_eq!(names.join(" "), touched);
    }

    fn noted(notes: &mut Vec<u8>, name: &str, value: &str) -> Field {
        Field {
            name: note(notes, name.as_bytes()),
            value: Some(note(notes, value.as_bytes())),
        }
    }

    fn bytes(notes: &[u8]) -> Bytes<'_> {
        Bytes {
            frame: b"a1B2a3",
            notes,
        }
    }

    #[test]
    fn reading_touches_nothing() {
        check(
            Case::Ignored,
            |fields, notes| {
                assert_eq!(fields.find(bytes(notes), b"b", 0), Some(1));
                assert_eq!(fields.find(bytes(notes), b"a", 1), Some(2));
                assert_eq!(fields.find(bytes(notes), b"a", 9), None);
            },
            "a=1 B=2 a=3",
            "",
        );
    }

    #[test]
    fn setting_replaces_every_field_of_the_name_in_the_place_of_the_first() {
        check(
            Case::Ignored,
            |fields, notes| {
                let field = noted(notes, "A", "9");
                fields.set(bytes(notes), field);
            },
            "A=9 B=2",
            "A",
        );
    }

    #[test]
    fn the_case_of_an_arguments_name_counts() {
        check(
            Case::Counts,
            |fields, notes| {
                let field = noted(notes, "b", "9");
                fields.set(bytes(notes), field);
            },
            "a=1 B=2 a=3 b=9",
            "b",
        );
    }

    #[test]
    fn appending_and_removing_touch_a_name_once() {
        check(
            Case::Ignored,
            |fields, notes| {
                let field = noted(notes, "a", "4");
                fields.append(bytes(notes), field);
                let name = note(notes, b"B");
                fields.remove(bytes(notes), name);
                let field = noted(notes, "A", "5");
                fields.append(bytes(notes), field);
            },
            "a=1 a=3 a=4 A=5",
            "a B",
        );
    }
}
