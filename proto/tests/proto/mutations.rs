//! A short fuzz run with a fixed seed: recorded frames, damaged in many ways, through the buffer and through
//! every view. `proto/fuzz` does the same without an end.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use plugin_proto::frame::HEADER_LEN;
use plugin_proto::{FrameBuffer, FrameWriter, Header};

use crate::capture::{Capture, feed};
use crate::damage::{Random, damage};
use crate::message::{EVERY_VIEW, Message};

/// Damaged frames in one run.
const FRAMES: usize = 240_000;

/// Runs side by side, each with its own seed.
const THREADS: u64 = 2;

/// Recorded frames longer than this take part shortened: their length only costs time.
const LONGEST: usize = 2048;

#[test]
fn damaged_frames_are_refused_or_read_to_their_last_byte() {
    let recorded: Vec<Vec<u8>> = Capture::all()
        .iter()
        .flat_map(|capture| &capture.frames)
        .map(|frame| {
            let mut bytes = frame.bytes();
            bytes.truncate(LONGEST);
            bytes
        })
        .collect();
    let run = |seed| run(&recorded, seed, FRAMES / THREADS as usize);
    let counts: Vec<Counts> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=THREADS)
            .map(|seed| scope.spawn(move || run(seed)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    // The run is worth something only if damage goes unnoticed often enough to reach the views' accessors.
    for count in counts {
        assert!(
            count.read > 10_000 && count.refused > 10_000 && count.incomplete > 1_000,
            "{count:?}"
        );
    }
}

#[derive(Debug, Default)]
struct Counts {
    incomplete: usize,
    read: usize,
    refused: usize,
}

fn run(recorded: &[Vec<u8>], seed: u64, frames: usize) -> Counts {
    let mut random = Random(seed);
    let mut counts = Counts::default();
    let (mut buffer, mut writer) = (FrameBuffer::new(), FrameWriter::new());
    for _ in 0..frames {
        let mut stream = recorded[random.below(recorded.len())].clone();
        for _ in 0..=random.below(3) {
            damage(&mut stream, recorded, &mut random);
        }
        // Mostly the header fits what follows, so that the damage reaches the views.
        if random.below(8) != 0 && stream.len() >= HEADER_LEN {
            let data_len = u32::try_from(stream.len() - HEADER_LEN).unwrap();
            let header = Header {
                type_byte: stream[0],
                data_len,
            }
            .encode()
            .unwrap();
            stream[..HEADER_LEN].copy_from_slice(&header);
        }
        feed(&mut buffer, &stream);
        assert!(buffer.capacity() <= 4096.max(2 * stream.len()));
        match buffer.frame() {
            Some(frame) => {
                for (frame_type, side) in EVERY_VIEW {
                    match Message::read(side, frame_type, frame.data()) {
                        Ok(message) => {
                            counts.read += 1;
                            reads_the_same_again(&message, &mut writer);
                        }
                        Err(_) => counts.refused += 1,
                    }
                }
            }
            None => counts.incomplete += 1,
        }
        // What is left may pass for further frames, or for the beginning of one.
        while buffer.frame().is_some() {
            buffer.consume();
        }
        buffer = if buffer.is_empty() {
            buffer
        } else {
            FrameBuffer::new()
        };
    }
    counts
}

/// Whatever could be read can be written, and is then the same message.
fn reads_the_same_again(message: &Message, writer: &mut FrameWriter) {
    // Not every method or error code that can be read can be written; and parts that a damaged message
    // uses twice may not fit when they are written twice.
    let Some(Ok(written)) = message.write(writer) else {
        return;
    };
    let mut buffer = FrameBuffer::with_capacity(written.len());
    feed(&mut buffer, &written);
    let frame = buffer.frame().unwrap();
    let again = Message::read(message.side(), message.frame_type(), frame.data()).unwrap();
    assert_eq!(again, *message);
}
