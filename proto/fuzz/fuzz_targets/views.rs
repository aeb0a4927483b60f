//! Any bytes through every view: refused, or read to the last byte; and what was read can be written and reads
//! the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plugin_proto::{FrameBuffer, FrameType, FrameWriter, Header};

#[path = "../../tests/proto/message.rs"]
mod message;

use message::{Message, Side};

// A whole frame, so that a corpus is made of frames: its type byte says which views read the data.
fuzz_target!(|frame: &[u8]| {
    let Some((&type_byte, rest)) = frame.split_first() else {
        return;
    };
    let Some(data) = rest.get(3..) else { return };
    let Ok(frame_type) = FrameType::try_from(type_byte) else {
        return;
    };
    let Ok(header) = Header::new(frame_type, data.len()).and_then(Header::encode) else {
        return;
    };
    let buffer = filled(&[&header, data].concat());
    let frame = buffer.frame().expect("the header fits the data");
    let mut writer = FrameWriter::new();
    for side in [Side::Gateway, Side::Runner] {
        let Ok(read) = Message::read(side, frame_type, frame.data()) else {
            continue;
        };
        // A message may use a part twice that does not fit twice, and name a method that we cannot.
        let Some(Ok(written)) = read.write(&mut writer) else {
            continue;
        };
        let written = filled(written);
        let again = written.frame().expect("the writer writes whole frames");
        assert_eq!(
            Message::read(read.side(), read.frame_type(), again.data()).as_ref(),
            Ok(&read)
        );
    }
});

fn filled(frame: &[u8]) -> FrameBuffer {
    let mut buffer = FrameBuffer::with_capacity(frame.len());
    buffer.spare()[..frame.len()].copy_from_slice(frame);
    buffer.filled(frame.len());
    buffer
}
