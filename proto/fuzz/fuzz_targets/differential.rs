//! Any bytes through our verification and through the generated one: both refuse, or both read the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plugin_proto::{FrameBuffer, FrameType, Header};

#[path = "../../tests/proto/message.rs"]
mod message;
#[path = "../../tests/proto/reference.rs"]
mod reference;

use message::EVERY_VIEW;

// A whole frame, so that the corpus of the views serves here too. Its header is put right.
fuzz_target!(|frame: &[u8]| {
    let Some(data) = frame.get(4..) else { return };
    let Ok(header) = Header::new(FrameType::Error, data.len()).and_then(Header::encode) else {
        return;
    };
    // The buffer is what aligns the data.
    let mut buffer = FrameBuffer::with_capacity(frame.len());
    buffer.spare()[..4].copy_from_slice(&header);
    buffer.spare()[4..frame.len()].copy_from_slice(data);
    buffer.filled(frame.len());
    let received = buffer.frame().expect("the header fits the data");
    for (frame_type, side) in EVERY_VIEW {
        reference::agree(side, frame_type, received.data());
    }
});
