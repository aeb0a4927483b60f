//! Our verification against the generated one: whatever happens to a message, both give the same fields or
//! both refuse. `scripts/fuzz differential` does the same without an end.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::num::NonZero;

use plugin_proto::frame::HEADER_LEN;
use plugin_proto::{FrameBuffer, FrameType, FrameWriter, Header};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;

use crate::capture::{Capture, feed};
use crate::damage::{Random, damage};
use crate::message::{EVERY_VIEW, Side};
use crate::reference::agree;
use crate::round_trips::messages;

/// Damaged messages in one run. The environment's `PROTO_MUTATIONS` asks for another number.
const MUTATIONS: usize = 500_000;

/// Messages of our own writer that take part.
const WRITTEN: usize = 500;

/// Recorded messages longer than this take part shortened: their length only costs time.
const LONGEST: usize = 2048;

#[test]
fn recorded_messages_are_read_the_same_both_ways() {
    let mut buffer = FrameBuffer::new();
    for frame in Capture::all().iter().flat_map(|capture| &capture.frames) {
        let (own_type, from) = (frame.frame_type(), frame.from);
        let accepted = with_data(&mut buffer, own_type, &frame.data, |data| {
            for (frame_type, side) in EVERY_VIEW {
                agree(side, frame_type, data);
            }
            agree(from, own_type, data)
        });
        assert!(
            accepted,
            "{own_type:?} from the {from:?}: {:02x?}",
            frame.data
        );
    }
}

#[test]
fn damaged_messages_are_read_or_refused_the_same_both_ways() {
    let mutations = match std::env::var("PROTO_MUTATIONS") {
        Ok(number) => number.parse().unwrap(),
        Err(_) => MUTATIONS,
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let samples = [recorded(), written()].concat();
    let run = |seed| run(&samples, seed, mutations / threads);
    let counts: Vec<Counts> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=threads as u64)
            .map(|seed| scope.spawn(move || run(seed)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let accepted: usize = counts.iter().map(|counts| counts.accepted).sum();
    let refused: usize = counts.iter().map(|counts| counts.refused).sum();
    println!("{mutations} mutations: {accepted} accepted, {refused} refused, by both");
    // The run is worth something only if damage goes unnoticed often, and is noticed often.
    assert!(
        accepted > mutations / 10 && refused > mutations / 10,
        "{counts:?}"
    );
}

/// A message, and how it is meant to be read.
#[derive(Clone)]
struct Sample {
    frame_type: FrameType,
    side: Side,
    data: Vec<u8>,
}

fn recorded() -> Vec<Sample> {
    let captures = Capture::all();
    let frames = captures.iter().flat_map(|capture| &capture.frames);
    frames
        .map(|frame| Sample {
            frame_type: frame.frame_type(),
            side: frame.from,
            data: frame.data[..frame.data.len().min(LONGEST)].to_vec(),
        })
        .collect()
}

fn written() -> Vec<Sample> {
    let (mut runner, mut writer) = (TestRunner::deterministic(), FrameWriter::new());
    let mut write = || {
        let message = messages().new_tree(&mut runner).unwrap().current();
        Sample {
            frame_type: message.frame_type(),
            side: message.side(),
            data: message.write(&mut writer).unwrap().unwrap()[HEADER_LEN..].to_vec(),
        }
    };
    (0..WRITTEN).map(|_| write()).collect()
}

#[derive(Debug, Default)]
struct Counts {
    accepted: usize,
    refused: usize,
}

fn run(samples: &[Sample], seed: u64, mutations: usize) -> Counts {
    let others: Vec<Vec<u8>> = samples.iter().map(|sample| sample.data.clone()).collect();
    let (mut random, mut buffer) = (Random(seed), FrameBuffer::new());
    let mut counts = Counts::default();
    for _ in 0..mutations {
        let Sample {
            frame_type,
            side,
            mut data,
        } = samples[random.below(samples.len())].clone();
        for _ in 0..=random.below(3) {
            damage(&mut data, &others, &mut random);
        }
        let (other_type, other_side) = EVERY_VIEW[random.below(EVERY_VIEW.len())];
        let accepted = with_data(&mut buffer, frame_type, &data, |data| {
            agree(other_side, other_type, data);
            agree(side, frame_type, data)
        });
        if accepted {
            counts.accepted += 1;
        } else {
            counts.refused += 1;
        }
    }
    counts
}

/// Puts data where a connection would have it, so that it is aligned.
fn with_data<T>(
    buffer: &mut FrameBuffer,
    frame_type: FrameType,
    data: &[u8],
    read: impl FnOnce(&[u8]) -> T,
) -> T {
    let header = Header::new(frame_type, data.len())
        .unwrap()
        .encode()
        .unwrap();
    feed(buffer, &header);
    feed(buffer, data);
    let outcome = read(buffer.frame().unwrap().data());
    buffer.consume();
    outcome
}
