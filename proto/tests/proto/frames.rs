//! Headers and the read buffer: where frames begin and end, and what they cost before they are complete.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use plugin_proto::frame::{HEADER_LEN, MAX_DATA_LEN};
use plugin_proto::{FrameBuffer, FrameTooLarge, FrameType, Header, UnknownFrameType};
use proptest::prelude::*;

use crate::capture::feed;

#[test]
fn a_header_is_a_type_and_a_big_endian_length() {
    let header = Header::new(FrameType::HttpReqCall, 0x01_0203).unwrap();
    assert_eq!(header.encode(), Ok([2, 1, 2, 3]));
    assert_eq!(Header::decode([2, 1, 2, 3]), header);
    assert_eq!(header.frame_len(), HEADER_LEN + 0x01_0203);
}

#[test]
fn the_types_0_to_4_are_known_and_all_others_are_not() {
    let known = [
        FrameType::Error,
        FrameType::PrepareConf,
        FrameType::HttpReqCall,
        FrameType::ExtraInfo,
        FrameType::HttpRespCall,
    ];
    for byte in 0..=u8::MAX {
        let header = Header::decode([byte, 0, 0, 0]);
        match known.get(usize::from(byte)) {
            Some(frame_type) => {
                assert_eq!(header.frame_type(), Ok(*frame_type));
                assert_eq!(u8::from(*frame_type), byte);
            }
            None => assert_eq!(header.frame_type(), Err(UnknownFrameType(byte))),
        }
    }
}

#[test]
fn a_frame_longer_than_24_bits_is_refused() {
    let longest = Header::new(FrameType::ExtraInfo, MAX_DATA_LEN).unwrap();
    assert_eq!(longest.encode(), Ok([3, 0xFF, 0xFF, 0xFF]));

    let too_long = MAX_DATA_LEN + 1;
    assert_eq!(
        Header::new(FrameType::ExtraInfo, too_long),
        Err(FrameTooLarge { at_least: too_long })
    );
    let by_hand = Header {
        type_byte: 3,
        data_len: 0x0100_0000,
    };
    assert_eq!(by_hand.encode(), Err(FrameTooLarge { at_least: too_long }));
}

#[test]
fn an_empty_buffer_holds_no_frame_but_has_room() {
    let mut buffer = FrameBuffer::new();
    assert!(buffer.is_empty());
    assert_eq!(buffer.capacity(), 0);
    assert_eq!(buffer.header(), None);
    assert!(buffer.frame().is_none());
    assert!(!buffer.spare().is_empty());
    assert!(FrameBuffer::with_capacity(100).spare().len() >= 100);
}

#[test]
fn half_a_frame_is_none() {
    let mut buffer = FrameBuffer::new();
    feed(&mut buffer, &[1, 0, 0]);
    assert!(!buffer.is_empty());
    assert_eq!(buffer.header(), None);

    feed(&mut buffer, &[4, 9, 9, 9]);
    assert_eq!(
        buffer.header(),
        Some(Header {
            type_byte: 1,
            data_len: 4
        })
    );
    assert!(buffer.frame().is_none());
    buffer.consume();
    assert_eq!(
        buffer.header(),
        Some(Header {
            type_byte: 1,
            data_len: 4
        }),
        "nothing was consumed"
    );

    feed(&mut buffer, &[9]);
    assert_eq!(buffer.frame().unwrap().data(), [9, 9, 9, 9]);
    buffer.consume();
    assert!(buffer.is_empty());
}

#[test]
fn a_frame_without_data_is_complete_with_its_header() {
    let mut buffer = FrameBuffer::new();
    feed(&mut buffer, &[250, 0, 0, 0]);
    let frame = buffer.frame().unwrap();
    assert_eq!((frame.type_byte(), frame.data()), (250, &[][..]));
    assert_eq!(frame.frame_type(), Err(UnknownFrameType(250)));
}

#[test]
fn memory_follows_the_bytes_that_came_and_not_the_length_that_was_claimed() {
    let mut buffer = FrameBuffer::new();
    feed(&mut buffer, &[2, 0xFF, 0xFF, 0xFF]);
    buffer.spare();
    let first_room = buffer.capacity();
    assert!(
        first_room <= 8192,
        "a header alone made room for {first_room} bytes"
    );

    let mut received = HEADER_LEN;
    while buffer.frame().is_none() {
        let room = buffer.spare().len();
        buffer.filled(room);
        received += room;
        assert!(buffer.capacity() <= (2 * received).max(first_room));
    }
    assert_eq!(
        buffer.capacity(),
        HEADER_LEN + MAX_DATA_LEN,
        "a large frame fills its buffer"
    );
}

#[test]
fn a_large_frame_is_moved_a_few_times_only() {
    let mut buffer = FrameBuffer::new();
    feed(
        &mut buffer,
        &Header::new(FrameType::ExtraInfo, 8 << 20)
            .unwrap()
            .encode()
            .unwrap(),
    );
    let (mut sizes, mut reads) = (vec![buffer.capacity()], 0);
    while buffer.frame().is_none() {
        // A socket rarely gives more at once.
        let n = buffer.spare().len().min(64 << 10);
        buffer.filled(n);
        reads += 1;
        if sizes.last() != Some(&buffer.capacity()) {
            sizes.push(buffer.capacity());
        }
    }
    assert!(reads > 128);
    assert!(sizes.len() <= 13, "the buffer grew through {sizes:?}");
}

#[test]
fn a_shrunk_buffer_keeps_what_it_has_received() {
    let mut buffer = FrameBuffer::new();
    feed(&mut buffer, &[1, 0, 0, 2, 7, 8, 1, 0]);
    buffer.shrink(0);
    assert_eq!(buffer.capacity(), 8);
    assert_eq!(buffer.frame().unwrap().data(), [7, 8]);

    buffer.consume();
    feed(&mut buffer, &[0, 1, 9]);
    assert_eq!(buffer.frame().unwrap().data(), [9]);

    buffer.consume();
    buffer.shrink(0);
    assert_eq!(buffer.capacity(), 0);
}

#[test]
fn an_empty_buffer_shrinks_to_what_is_asked_and_never_grows_by_it() {
    let mut buffer = FrameBuffer::with_capacity(1 << 20);
    buffer.shrink(1 << 16);
    assert_eq!(buffer.capacity(), 1 << 16);
    buffer.shrink(1 << 20);
    assert_eq!(buffer.capacity(), 1 << 16);
}

#[test]
fn a_buffer_may_go_to_another_thread_with_its_frame() {
    let mut buffer = FrameBuffer::new();
    feed(&mut buffer, &[4, 0, 0, 1, 5]);
    let there = std::thread::spawn(move || buffer.frame().unwrap().data().to_vec());
    assert_eq!(there.join().unwrap(), [5]);
}

#[test]
#[should_panic(expected = "more bytes filled than there was room for")]
fn filling_more_than_there_was_room_for_is_a_mistake() {
    FrameBuffer::with_capacity(10).filled(11);
}

/// A stream of frames, and the sizes of the pieces in which it arrives.
fn streams() -> impl Strategy<Value = (Vec<(u8, Vec<u8>)>, Vec<usize>)> {
    let frame = (any::<u8>(), prop_oneof![vec_of(0..40), vec_of(4000..9000)]);
    (
        prop::collection::vec(frame, 1..6),
        prop::collection::vec(1..6000_usize, 1..20),
    )
}

fn vec_of(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), len)
}

proptest! {
    #[test]
    fn frames_come_out_as_they_went_in_however_the_stream_is_cut((frames, pieces) in streams()) {
        let mut stream = Vec::new();
        for (type_byte, data) in &frames {
            let header = Header { type_byte: *type_byte, data_len: u32::try_from(data.len()).unwrap() };
            stream.extend(header.encode().unwrap());
            stream.extend(data);
        }
        let mut buffer = FrameBuffer::new();
        let (mut rest, mut pieces, mut found) = (stream.as_slice(), pieces.iter().cycle(), Vec::new());
        while !rest.is_empty() {
            let piece = rest.len().min(*pieces.next().unwrap());
            let (now, later) = rest.split_at(piece);
            feed(&mut buffer, now);
            rest = later;
            while let Some(frame) = buffer.frame() {
                prop_assert_eq!(frame.data().as_ptr().addr() % 4, 0);
                found.push((frame.type_byte(), frame.data().to_vec()));
                buffer.consume();
            }
        }
        prop_assert!(buffer.is_empty());
        prop_assert_eq!(found, frames);
    }
}
