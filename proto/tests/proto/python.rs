//! The same messages through an implementation that is not ours: what we write it reads, what it builds we
//! read, and recorded frames read the same here and there.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use plugin_proto::frame::HEADER_LEN;
use plugin_proto::{FrameType, FrameWriter, Header};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::capture::{Capture, first_frame};
use crate::message::{Message, Side};
use crate::round_trips::messages;

/// Messages per test; enough that each kind comes some fifty times.
const MESSAGES: usize = 600;

#[test]
fn what_we_write_python_reads() {
    let messages = sample();
    let mut writer = FrameWriter::new();
    let tasks = messages.iter().map(|message| {
        let frame = message.write(&mut writer).unwrap().unwrap();
        read_task(message.side(), message.frame_type(), &frame[HEADER_LEN..])
    });
    let read: Vec<Message> = peer(tasks.collect());
    for (read, message) in read.iter().zip(&messages) {
        assert_eq!(read, message);
    }
    assert_eq!(read.len(), messages.len());
}

#[test]
fn what_python_builds_we_read() {
    let messages = sample();
    let built: Vec<String> = peer(
        messages
            .iter()
            .map(|message| json!({ "build": message }))
            .collect(),
    );
    assert_eq!(built.len(), messages.len());
    for (data, message) in built.iter().zip(messages) {
        let data = from_hex(data);
        let header = Header::new(message.frame_type(), data.len())
            .unwrap()
            .encode()
            .unwrap();
        let read = first_frame(&[&header, data.as_slice()].concat(), |frame| {
            Message::read(message.side(), message.frame_type(), frame.data()).unwrap()
        });
        assert_eq!(read, Some(message));
    }
}

#[test]
fn recorded_frames_read_the_same_in_python() {
    let captures = Capture::all();
    let frames: Vec<_> = captures
        .iter()
        .flat_map(|capture| &capture.frames)
        .collect();
    let tasks = frames
        .iter()
        .map(|frame| read_task(frame.from, frame.frame_type(), &frame.data));
    let there: Vec<Message> = peer(tasks.collect());
    assert_eq!(there.len(), frames.len());
    for (frame, there) in frames.into_iter().zip(there) {
        let here = first_frame(&frame.bytes(), |read| {
            Message::read(frame.from, frame.frame_type(), read.data()).unwrap()
        });
        assert_eq!(here, Some(there));
    }
}

/// The same messages in every run.
fn sample() -> Vec<Message> {
    let mut runner = TestRunner::deterministic();
    let strategy = messages();
    (0..MESSAGES)
        .map(|_| strategy.new_tree(&mut runner).unwrap().current())
        .collect()
}

fn read_task(side: Side, frame_type: FrameType, data: &[u8]) -> Value {
    json!({ "read": { "side": side, "type": u8::from(frame_type), "data": to_hex(data) } })
}

/// Has the Python side perform all tasks.
fn peer<T: DeserializeOwned>(tasks: Vec<Value>) -> Vec<T> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = package.join("../target/python/bin/python");
    assert!(
        python.exists(),
        "{} is missing, and with it the packages to compare with: run scripts/python-env first",
        python.display()
    );
    let mut child = Command::new(python)
        .arg(package.join("tests/python/peer.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Python reads all tasks before it writes, so neither side waits for the other.
    let mut input = child.stdin.take().unwrap();
    input
        .write_all(&serde_json::to_vec(&tasks).unwrap())
        .unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "tests/python/peer.py failed; its reason is above"
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}
