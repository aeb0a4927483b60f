//! The recorded frames in `tests/captures`.

#![allow(
    clippy::unwrap_used,
    reason = "a fixture that cannot be read is a failed test"
)]

use std::path::Path;

use plugin_proto::{Frame, FrameBuffer, FrameType, Header};
use serde::Deserialize;

use crate::message::{Bytes, Side};

/// One HTTP request through a real gateway, and the frames exchanged because of it.
#[derive(Clone, Deserialize)]
pub(crate) struct Capture {
    pub(crate) name: String,
    /// What the HTTP client sent; long ones are cut.
    #[allow(dead_code, reason = "only the development gateway's tests need it")]
    pub(crate) http_request: Bytes,
    /// What it got: the head without its last line end.
    #[allow(dead_code, reason = "only the development gateway's tests need it")]
    pub(crate) http_response_head: Bytes,
    /// As it travelled; long ones are cut.
    #[allow(dead_code, reason = "only the development gateway's tests need it")]
    pub(crate) http_response_body: Bytes,
    pub(crate) frames: Vec<RecordedFrame>,
}

#[derive(Clone, Deserialize)]
pub(crate) struct RecordedFrame {
    #[allow(dead_code, reason = "only a replay needs it")]
    pub(crate) connection: u32,
    pub(crate) from: Side,
    #[serde(rename = "type")]
    pub(crate) type_byte: u8,
    #[serde(deserialize_with = "base64")]
    pub(crate) data: Vec<u8>,
}

impl Capture {
    /// The recording of this name.
    pub(crate) fn load(name: &str) -> Self {
        let path = directory().join(name).with_extension("json");
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// All recordings, by name.
    pub(crate) fn all() -> Vec<Self> {
        let files = std::fs::read_dir(directory())
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let recordings = files.filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        });
        let mut names: Vec<_> = recordings
            .map(|path| path.file_stem().unwrap().to_owned())
            .collect();
        names.sort();
        names
            .iter()
            .map(|name| Self::load(name.to_str().unwrap()))
            .collect()
    }
}

impl RecordedFrame {
    pub(crate) fn frame_type(&self) -> FrameType {
        FrameType::try_from(self.type_byte).unwrap()
    }

    /// The frame as it travelled, header included.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let header = Header::new(self.frame_type(), self.data.len())
            .unwrap()
            .encode()
            .unwrap();
        [&header, self.data.as_slice()].concat()
    }
}

/// Puts a stream of bytes into a buffer and hands its first frame to `read`.
pub(crate) fn first_frame<T>(stream: &[u8], read: impl FnOnce(Frame<'_>) -> T) -> Option<T> {
    let mut buffer = FrameBuffer::new();
    feed(&mut buffer, stream);
    buffer.frame().map(read)
}

/// Receives a stream of bytes as a socket would give it.
pub(crate) fn feed(buffer: &mut FrameBuffer, mut stream: &[u8]) {
    while !stream.is_empty() {
        let room = buffer.spare();
        let n = room.len().min(stream.len());
        room[..n].copy_from_slice(&stream[..n]);
        buffer.filled(n);
        stream = &stream[n..];
    }
}

fn directory() -> &'static Path {
    // From the top, since the host's end-to-end tests take this file in.
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../proto/tests/captures"
    ))
}

fn base64<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let text = String::deserialize(deserializer)?;
    let (mut bytes, mut bits, mut pending) = (Vec::new(), 0_u32, 0);
    for digit in text.bytes().filter(|digit| *digit != b'=') {
        let value = ALPHABET.iter().position(|known| *known == digit);
        let value = value.ok_or_else(|| serde::de::Error::custom("not base64"))?;
        bits = bits << 6 | u32::try_from(value).unwrap();
        pending += 6;
        if pending >= 8 {
            pending -= 8;
            bytes.push((bits >> pending & 0xFF) as u8);
        }
    }
    Ok(bytes)
}
