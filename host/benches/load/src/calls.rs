//! The gateway's side as bytes: recorded calls with the token of the server at hand, the answers to
//! what it asks back, and single exchanges to prepare a measurement and to check what will be measured.

use std::{
    collections::HashMap,
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use plugin_proto::{
    Entry, FrameBuffer, FrameType, FrameWriter, Header, err,
    extra_info::{self, Question},
    prepare_conf,
};
use serde::Deserialize;

/// How long an exchange outside of measurements may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which phase of a request the calls are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Phase {
    Request,
    Response,
}

impl Phase {
    pub(crate) fn frame_type(self) -> FrameType {
        match self {
            Self::Request => FrameType::HttpReqCall,
            Self::Response => FrameType::HttpRespCall,
        }
    }

    /// Where the offset of `conf_token` stands in the table of fields, in bytes: after the two lengths,
    /// two bytes for each field before it.
    fn token_field(self) -> usize {
        match self {
            Self::Request => 4 + 2 * 6,
            Self::Response => 4 + 2 * 3,
        }
    }
}

#[derive(Deserialize)]
struct Recording {
    frames: Vec<RecordedFrame>,
}

#[derive(Deserialize)]
struct RecordedFrame {
    from: String,
    #[serde(rename = "type")]
    type_byte: u8,
    data: String,
}

/// A call as a real gateway has sent it.
#[derive(Debug, Clone)]
pub(crate) struct RecordedCall {
    data: Vec<u8>,
    phase: Phase,
}

impl RecordedCall {
    /// The first call of this phase in a recording of `proto/tests/captures`.
    pub(crate) fn load(name: &str, phase: Phase) -> Result<Self> {
        let path = recordings().join(name).with_extension("json");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let recording: Recording =
            serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        let call = recording
            .frames
            .iter()
            .find(|frame| {
                frame.from == "gateway" && frame.type_byte == u8::from(phase.frame_type())
            })
            .with_context(|| format!("the recording {name} has no {phase:?} call"))?;
        Ok(Self {
            data: from_base64(&call.data)?,
            phase,
        })
    }

    /// The frame with another token: a number in its place, all other bytes as recorded.
    pub(crate) fn with_token(&self, token: u32) -> Result<Vec<u8>> {
        let mut data = self.data.clone();
        let place = self
            .place_of_token()
            .context("the recorded call carries no token")?;
        data.get_mut(place..place + 4)
            .context("the recorded call is cut short")?
            .copy_from_slice(&token.to_le_bytes());
        let header = Header::new(self.phase.frame_type(), data.len())?.encode()?;
        Ok([&header[..], &data].concat())
    }

    fn place_of_token(&self) -> Option<usize> {
        let table = usize::try_from(number(&self.data, 0)?).ok()?;
        let back = i32::from_le_bytes(self.data.get(table..table + 4)?.try_into().ok()?);
        let fields = usize::try_from(i64::try_from(table).ok()? - i64::from(back)).ok()?;
        let entry = fields + self.phase.token_field();
        let offset = self.data.get(entry..entry + 2)?;
        match u16::from_le_bytes(offset.try_into().ok()?) {
            0 => None,
            offset => Some(table + usize::from(offset)),
        }
    }
}

fn number(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(data.get(at..at + 4)?.try_into().ok()?))
}

fn recordings() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../proto/tests/captures")
}

fn from_base64(text: &str) -> Result<Vec<u8>> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut pending) = (Vec::new(), 0_u32, 0);
    for digit in text.bytes().filter(|digit| *digit != b'=') {
        let value = DIGITS.iter().position(|known| *known == digit);
        bits = bits << 6 | u32::try_from(value.context("not base64")?)?;
        pending += 6;
        if pending >= 8 {
            pending -= 8;
            bytes.push((bits >> pending & 0xFF) as u8);
        }
    }
    Ok(bytes)
}

/// What the gateway says when it is asked: frames, ready to be sent.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    body: Vec<u8>,
    absent: Vec<u8>,
    variables: HashMap<Vec<u8>, Vec<u8>>,
}

/// Which of the [`Replies`] answers a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Body,
    Absent,
    Variable(Vec<u8>),
}

impl Replies {
    /// A body of so many bytes, and variables by name.
    pub(crate) fn new(body_bytes: usize, variables: &[(String, String)]) -> Result<Self> {
        let mut writer = FrameWriter::new();
        let body = vec![b'x'; body_bytes];
        let body = (body_bytes > 0).then_some(&body[..]);
        Ok(Self {
            body: extra_info::write_answer(&mut writer, body)?.to_vec(),
            absent: extra_info::write_answer(&mut writer, None)?.to_vec(),
            variables: variables
                .iter()
                .map(|(name, value)| {
                    let frame = extra_info::write_answer(&mut writer, Some(value.as_bytes()))?;
                    Ok((name.clone().into_bytes(), frame.to_vec()))
                })
                .collect::<Result<_>>()?,
        })
    }

    /// The answer to the question in this data.
    pub(crate) fn to(&self, question: &[u8]) -> Result<Reply> {
        Ok(
            match extra_info::QuestionView::parse(question)?.question() {
                Question::RequestBody | Question::ResponseBody => Reply::Body,
                Question::Var(name) if self.variables.contains_key(name) => {
                    Reply::Variable(name.into())
                }
                Question::Var(_) => Reply::Absent,
            },
        )
    }

    pub(crate) fn frame(&self, reply: &Reply) -> &[u8] {
        match reply {
            Reply::Body => &self.body,
            Reply::Absent => &self.absent,
            Reply::Variable(name) => self.variables.get(name).unwrap_or(&self.absent),
        }
    }
}

/// One connection on which one thing happens after the other.
pub(crate) struct Exchange {
    stream: UnixStream,
    incoming: FrameBuffer,
    writer: FrameWriter,
}

impl Exchange {
    pub(crate) fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("cannot connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            incoming: FrameBuffer::new(),
            writer: FrameWriter::new(),
        })
    }

    /// The token for one plugin with a configuration.
    pub(crate) fn prepare(&mut self, key: &str, plugin: &str, configuration: &str) -> Result<u32> {
        let entry = Entry {
            name: plugin.as_bytes(),
            value: Some(configuration.as_bytes()),
        };
        let frame = prepare_conf::write_request(&mut self.writer, [entry], Some(key.as_bytes()))?;
        self.stream.write_all(frame)?;
        let frame_type = self.receive()?;
        ensure!(
            frame_type == FrameType::PrepareConf,
            "a prepare was answered with {frame_type:?}"
        );
        let token = prepare_conf::AnswerView::parse(self.data())?.conf_token();
        self.incoming.consume();
        Ok(token)
    }

    /// Makes a call; the bytes of the frame that answers it, header included.
    pub(crate) fn call(&mut self, call: &[u8], replies: &Replies) -> Result<usize> {
        self.stream.write_all(call)?;
        loop {
            let frame_type = self.receive()?;
            let bytes = self.incoming.received().len();
            match frame_type {
                FrameType::ExtraInfo => {
                    let reply = replies.to(self.data())?;
                    self.incoming.consume();
                    self.stream.write_all(replies.frame(&reply))?;
                }
                FrameType::HttpReqCall | FrameType::HttpRespCall => {
                    self.incoming.consume();
                    return Ok(bytes);
                }
                other => bail!("a call was answered with {other:?}"),
            }
        }
    }

    fn receive(&mut self) -> Result<FrameType> {
        loop {
            if let Some(frame) = self.incoming.frame() {
                let frame_type = frame.frame_type()?;
                if frame_type == FrameType::Error {
                    bail!(
                        "the runner answered with the error {:?}",
                        err::AnswerView::parse(frame.data())?
                    );
                }
                return Ok(frame_type);
            }
            match self
                .stream
                .read(self.incoming.spare())
                .context("no answer")?
            {
                0 => bail!("the runner closed the connection"),
                read => self.incoming.filled(read),
            }
        }
    }

    fn data(&self) -> &[u8] {
        self.incoming.frame().map_or(&[], plugin_proto::Frame::data)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use plugin_proto::{http_req_call, http_resp_call};

    use super::*;

    #[test]
    fn a_recorded_call_gets_another_token_and_nothing_else_changes() {
        let recorded = RecordedCall::load("say-browser", Phase::Request).unwrap();
        let frame = recorded.with_token(0xDEAD_BEEF).unwrap();
        let before = http_req_call::RequestView::parse(&recorded.data).unwrap();
        let after = http_req_call::RequestView::parse(&frame[4..]).unwrap();
        assert_eq!(after.conf_token(), 0xDEAD_BEEF);
        assert_eq!(after.path(), before.path());
        assert!(after.headers().iter().eq(before.headers().iter()));
        assert_eq!(frame.len(), recorded.data.len() + 4);
    }

    #[test]
    fn a_recorded_response_gets_another_token() {
        let recorded = RecordedCall::load("response-rewrite-body", Phase::Response).unwrap();
        let frame = recorded.with_token(7).unwrap();
        let view = http_resp_call::RequestView::parse(&frame[4..]).unwrap();
        assert_eq!((view.conf_token(), view.status()), (7, 200));
    }
}
