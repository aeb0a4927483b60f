//! A stream of any bytes in pieces of any size through the read buffer: the frames are those of the stream,
//! aligned, and room follows what has arrived.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plugin_proto::FrameBuffer;
use plugin_proto::frame::HEADER_LEN;

fuzz_target!(|input: (Vec<u16>, Vec<u8>)| {
    let (pieces, stream) = input;
    let mut pieces = pieces
        .iter()
        .map(|piece| usize::from(*piece).max(1))
        .cycle();
    let mut buffer = FrameBuffer::new();
    let (mut arrived, mut consumed) = (0, 0);
    while arrived < stream.len() {
        let room = buffer.spare();
        let n = room
            .len()
            .min(pieces.next().unwrap_or(usize::MAX))
            .min(stream.len() - arrived);
        room[..n].copy_from_slice(&stream[arrived..arrived + n]);
        buffer.filled(n);
        arrived += n;
        assert!(buffer.capacity() <= (2 * arrived).max(4096));
        while let Some(frame) = buffer.frame() {
            assert!(frame.data().as_ptr().addr().is_multiple_of(4));
            assert_eq!(frame.type_byte(), stream[consumed]);
            let data = consumed + HEADER_LEN;
            assert_eq!(frame.data(), &stream[data..data + frame.data().len()]);
            consumed = data + frame.data().len();
            buffer.consume();
        }
        assert_eq!(buffer.is_empty(), arrived == consumed);
    }
});
