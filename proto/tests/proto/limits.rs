//! Messages that swell: one small table used again and again. Our verification stops them at the same table
//! and at the same byte as the generated one with the same limits.
//!
//! The messages are put together by hand, since no writer shares what is not a vtable.

use plugin_proto::frame::{HEADER_LEN, MAX_DATA_LEN};
use plugin_proto::{FrameBuffer, FrameType, Header, http_req_call, http_resp_call, prepare_conf};

use crate::capture::feed;
use crate::reference::{self, generated::a6};

/// Tables that a message may have, shared ones counted each time: as in `proto/src/verify.rs`.
const MAX_TABLES: usize = (MAX_DATA_LEN + HEADER_LEN) / 8;

/// A message with a list and a string.
struct Shape {
    name: &'static str,
    /// Tables that are no entries.
    tables: usize,
    /// Builds the message around list and string; tells where the uoffsets to them belong.
    build: fn(&mut Raw) -> (usize, usize),
    ours: fn(&[u8]) -> bool,
    generated: fn(&[u8]) -> bool,
}

/// Between them they have every kind of field.
const SHAPES: [Shape; 4] = [
    Shape {
        name: "PrepareConf.Req",
        tables: 1,
        build: |raw| {
            let request = raw.table(0, &[true; 2]);
            (field(request, 0), field(request, 1))
        },
        ours: |data| prepare_conf::RequestView::parse(data).is_ok(),
        generated: |data| reference::root::<a6::prepare_conf::Req<'_>>(data).is_ok(),
    },
    Shape {
        name: "HTTPReqCall.Req",
        tables: 1,
        build: |raw| {
            let request = raw.table(0, &[true; 7]);
            (field(request, 5), field(request, 3))
        },
        ours: |data| http_req_call::RequestView::parse(data).is_ok(),
        generated: |data| reference::root::<a6::httpreq_call::Req<'_>>(data).is_ok(),
    },
    Shape {
        name: "HTTPReqCall.Resp",
        tables: 2,
        build: |raw| {
            let answer = raw.table(0, &[true; 3]);
            raw.write(field(answer, 1), a6::httpreq_call::Action::Stop.0.into());
            let stop = raw.table(field(answer, 2), &[true; 3]);
            (field(stop, 1), field(stop, 2))
        },
        ours: |data| http_req_call::AnswerView::parse(data).is_ok(),
        generated: |data| reference::root::<a6::httpreq_call::Resp<'_>>(data).is_ok(),
    },
    Shape {
        name: "HTTPRespCall.Resp",
        tables: 1,
        build: |raw| {
            let answer = raw.table(0, &[true; 4]);
            (field(answer, 2), field(answer, 3))
        },
        ours: |data| http_resp_call::AnswerView::parse(data).is_ok(),
        generated: |data| reference::root::<a6::httpresp_call::Resp<'_>>(data).is_ok(),
    },
];

impl Shape {
    /// The message with one entry so many times in its list, and a string of so many bytes.
    fn message(&self, entries: usize, value: Option<usize>, string: usize) -> Raw {
        let mut raw = Raw(vec![0; 4]);
        let (list_at, string_at) = (self.build)(&mut raw);
        let uoffsets = raw.list(list_at, entries);
        let entry = raw.table(uoffsets, &[false, value.is_some()]);
        for index in 1..entries {
            raw.point(uoffsets + 4 * index, entry);
        }
        if let Some(len) = value {
            raw.string(field(entry, 1), len);
        }
        raw.string(string_at, string);
        raw
    }

    fn accepted(&self, message: &Raw) -> bool {
        let mut buffer = FrameBuffer::with_capacity(HEADER_LEN + message.0.len());
        let header = Header::new(FrameType::Error, message.0.len()).and_then(Header::encode);
        feed(&mut buffer, &header.expect("it fits a frame"));
        feed(&mut buffer, &message.0);
        let frame = buffer.frame().expect("all of it is there");
        let ours = (self.ours)(frame.data());
        assert_eq!(ours, (self.generated)(frame.data()), "{}", self.name);
        ours
    }
}

#[test]
fn both_count_tables_alike() {
    for shape in &SHAPES {
        let most = MAX_TABLES - shape.tables;
        for (entries, accepted) in [(most - 1, true), (most, true), (most + 1, false)] {
            let message = shape.message(entries, None, 0);
            assert_eq!(shape.accepted(&message), accepted, "{}", shape.name);
        }
    }
}

#[test]
fn both_count_bytes_alike() {
    for shape in &SHAPES {
        let accepted = |string| shape.accepted(&shape.message(1000, Some(65_000), string));
        // Between these two is the first length that is too much.
        let (mut enough, mut too_much) = (0, 4 << 20);
        assert!(accepted(enough) && !accepted(too_much), "{}", shape.name);
        while too_much - enough > 1 {
            let middle = enough.midpoint(too_much);
            if accepted(middle) {
                enough = middle;
            } else {
                too_much = middle;
            }
        }
        assert!(accepted(enough) && !accepted(too_much), "{}", shape.name);
    }
}

#[test]
fn neither_looks_for_the_nul_behind_a_string() {
    for shape in &SHAPES {
        let mut message = shape.message(2, Some(3), 5);
        assert_ne!(message.0.last(), Some(&0), "{}", shape.name);
        assert!(shape.accepted(&message), "{}", shape.name);
        message.0.pop();
        assert!(!shape.accepted(&message), "{}", shape.name);
    }
}

/// A message in the making. All fields take four bytes, whatever they hold; zeros make a number 0, and a
/// uoffset one to an empty string or list.
struct Raw(Vec<u8>);

/// Where a field of a table of [`Raw`] lies.
fn field(table: usize, number: usize) -> usize {
    table + 4 + 4 * number
}

impl Raw {
    /// Adds a table with its vtable in front; `uoffset_at` is to point to it.
    fn table(&mut self, uoffset_at: usize, present: &[bool]) -> usize {
        self.align();
        let vtable = self.0.len();
        let mut numbers = vec![4 + 2 * present.len(), 4 + 4 * present.len()];
        numbers.extend(
            (0..)
                .zip(present)
                .map(|(number, present)| if *present { field(0, number) } else { 0 }),
        );
        for number in numbers {
            self.0.extend((number as u16).to_le_bytes());
        }
        self.align();
        let table = self.0.len();
        self.0.extend(((table - vtable) as u32).to_le_bytes());
        self.0.resize(field(table, present.len()), 0);
        self.point(uoffset_at, table);
        table
    }

    /// Adds a list; tells where its first uoffset belongs.
    fn list(&mut self, uoffset_at: usize, len: usize) -> usize {
        self.align();
        self.point(uoffset_at, self.0.len());
        self.0.extend((len as u32).to_le_bytes());
        let first = self.0.len();
        self.0.resize(first + 4 * len, 0);
        first
    }

    /// Adds a string without its NUL.
    fn string(&mut self, uoffset_at: usize, len: usize) {
        self.align();
        self.point(uoffset_at, self.0.len());
        self.0.extend((len as u32).to_le_bytes());
        self.0.resize(self.0.len() + len, b'x');
    }

    fn point(&mut self, uoffset_at: usize, to: usize) {
        self.write(uoffset_at, (to - uoffset_at) as u32);
    }

    fn write(&mut self, at: usize, number: u32) {
        self.0[at..at + 4].copy_from_slice(&number.to_le_bytes());
    }

    fn align(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}
