//! Every message of the protocol as one owned value: read through the views, written through the writer,
//! compared, printed on one line, and exchanged with the Python side as JSON.

// The path is written out because the fuzz targets take this file in from elsewhere.
#[path = "message/print.rs"]
mod print;

use plugin_proto::http_req_call::{self, Action, Rewrite};
use plugin_proto::{
    Answer, Entries, Entry, FrameTooLarge, FrameType, FrameWriter, InvalidFrame, Method, err,
    extra_info, http_resp_call, prepare_conf,
};
use serde::{Deserialize, Serialize};

/// Who sent a frame: in both directions the same type means different messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    Gateway,
    Runner,
}

/// Everything that a frame can be read as.
#[allow(dead_code, reason = "only damaged frames are read as everything")]
pub(crate) const EVERY_VIEW: [(FrameType, Side); 9] = [
    (FrameType::Error, Side::Runner),
    (FrameType::PrepareConf, Side::Gateway),
    (FrameType::PrepareConf, Side::Runner),
    (FrameType::HttpReqCall, Side::Gateway),
    (FrameType::HttpReqCall, Side::Runner),
    (FrameType::ExtraInfo, Side::Gateway),
    (FrameType::ExtraInfo, Side::Runner),
    (FrameType::HttpRespCall, Side::Gateway),
    (FrameType::HttpRespCall, Side::Runner),
];

/// Any bytes. In JSON a string with one character per byte.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

/// Name and value of an entry.
pub(crate) type Pair = (Bytes, Option<Bytes>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "message")]
pub(crate) enum Message {
    Error {
        code: u8,
    },
    Prepare {
        conf: Vec<Pair>,
        key: Option<Bytes>,
    },
    Token {
        conf_token: u32,
    },
    RequestCall {
        id: u32,
        src_ip: Option<Bytes>,
        method: u8,
        path: Bytes,
        args: Vec<Pair>,
        headers: Vec<Pair>,
        conf_token: u32,
    },
    Unchanged {
        id: u32,
    },
    Stop {
        id: u32,
        status: u16,
        headers: Vec<Pair>,
        body: Option<Bytes>,
    },
    Rewrite {
        id: u32,
        path: Option<Bytes>,
        headers: Vec<Pair>,
        args: Vec<Pair>,
        resp_headers: Vec<Pair>,
        body: Option<Bytes>,
    },
    AskVariable {
        name: Bytes,
    },
    AskRequestBody,
    AskResponseBody,
    Info {
        result: Option<Bytes>,
    },
    ResponseCall {
        id: u32,
        status: u16,
        headers: Vec<Pair>,
        conf_token: u32,
    },
    ResponseAnswer {
        id: u32,
        status: u16,
        headers: Vec<Pair>,
        body: Option<Bytes>,
    },
}

impl Message {
    /// Reads every byte of a message through its view.
    pub(crate) fn read(
        side: Side,
        frame_type: FrameType,
        data: &[u8],
    ) -> Result<Self, InvalidFrame> {
        Ok(match (frame_type, side) {
            (FrameType::Error, _) => Self::Error {
                code: err::AnswerView::parse(data)?.code_byte(),
            },
            (FrameType::PrepareConf, Side::Gateway) => {
                let view = prepare_conf::RequestView::parse(data)?;
                Self::Prepare {
                    conf: pairs(view.conf()),
                    key: view.key().map(Bytes::from),
                }
            }
            (FrameType::PrepareConf, Side::Runner) => Self::Token {
                conf_token: prepare_conf::AnswerView::parse(data)?.conf_token(),
            },
            (FrameType::HttpReqCall, Side::Gateway) => {
                let view = http_req_call::RequestView::parse(data)?;
                Self::RequestCall {
                    id: view.id(),
                    src_ip: view.src_ip().map(Bytes::from),
                    method: view.method_byte(),
                    path: view.path().into(),
                    args: pairs(view.args()),
                    headers: pairs(view.headers()),
                    conf_token: view.conf_token(),
                }
            }
            (FrameType::HttpReqCall, Side::Runner) => {
                let view = http_req_call::AnswerView::parse(data)?;
                Self::read_action(view.id(), view.action())
            }
            (FrameType::ExtraInfo, Side::Runner) => {
                match extra_info::QuestionView::parse(data)?.question() {
                    extra_info::Question::Var(name) => Self::AskVariable { name: name.into() },
                    extra_info::Question::RequestBody => Self::AskRequestBody,
                    extra_info::Question::ResponseBody => Self::AskResponseBody,
                }
            }
            (FrameType::ExtraInfo, Side::Gateway) => Self::Info {
                result: extra_info::AnswerView::parse(data)?
                    .result()
                    .map(Bytes::from),
            },
            (FrameType::HttpRespCall, Side::Gateway) => {
                let view = http_resp_call::RequestView::parse(data)?;
                Self::ResponseCall {
                    id: view.id(),
                    status: view.status(),
                    headers: pairs(view.headers()),
                    conf_token: view.conf_token(),
                }
            }
            (FrameType::HttpRespCall, Side::Runner) => {
                let view = http_resp_call::AnswerView::parse(data)?;
                Self::ResponseAnswer {
                    id: view.id(),
                    status: view.status(),
                    headers: pairs(view.headers()),
                    body: view.body().map(Bytes::from),
                }
            }
        })
    }

    fn read_action(id: u32, action: Action<'_>) -> Self {
        match action {
            Action::None => Self::Unchanged { id },
            Action::Stop {
                status,
                headers,
                body,
            } => Self::Stop {
                id,
                status,
                headers: pairs(headers),
                body: body.map(Bytes::from),
            },
            Action::Rewrite {
                path,
                headers,
                args,
                resp_headers,
                body,
            } => Self::Rewrite {
                id,
                path: path.map(Bytes::from),
                headers: pairs(headers),
                args: pairs(args),
                resp_headers: pairs(resp_headers),
                body: body.map(Bytes::from),
            },
        }
    }

    /// Writes the whole frame. `None` where our side has no way to say it: a method or an error code that
    /// the protocol does not know.
    pub(crate) fn write(&self, writer: &mut FrameWriter) -> Option<Result<Vec<u8>, FrameTooLarge>> {
        let written = match self {
            Self::Error { code } => {
                let known = [
                    err::Code::BadRequest,
                    err::Code::ServiceUnavailable,
                    err::Code::ConfTokenNotFound,
                ];
                Ok(err::write(writer, *known.get(usize::from(*code))?).into())
            }
            Self::Prepare { conf, key } => {
                prepare_conf::write_request(writer, entries(conf), optional(key)).map(Answer::from)
            }
            Self::Token { conf_token } => {
                Ok(prepare_conf::write_answer(writer, *conf_token).into())
            }
            Self::RequestCall {
                id,
                src_ip,
                method,
                path,
                args,
                headers,
                conf_token,
            } => {
                let request = http_req_call::Request {
                    id: *id,
                    src_ip: optional(src_ip),
                    method: Method::try_from(*method).ok()?,
                    path: &path.0,
                    args: entries(args),
                    headers: entries(headers),
                    conf_token: *conf_token,
                };
                http_req_call::write_request(writer, request).map(Answer::from)
            }
            Self::Unchanged { id } => Ok(http_req_call::write_unchanged(writer, *id).into()),
            Self::Stop {
                id,
                status,
                headers,
                body,
            } => http_req_call::write_stop(writer, *id, *status, entries(headers), optional(body)),
            Self::Rewrite {
                id,
                path,
                headers,
                args,
                resp_headers,
                body,
            } => {
                let rewrite = Rewrite {
                    path: optional(path),
                    headers: entries(headers),
                    args: entries(args),
                    resp_headers: entries(resp_headers),
                    body: optional(body),
                };
                http_req_call::write_rewrite(writer, *id, rewrite)
            }
            Self::AskVariable { name } => {
                extra_info::write_question(writer, extra_info::Question::Var(&name.0))
                    .map(Answer::from)
            }
            Self::AskRequestBody => {
                extra_info::write_question(writer, extra_info::Question::RequestBody)
                    .map(Answer::from)
            }
            Self::AskResponseBody => {
                extra_info::write_question(writer, extra_info::Question::ResponseBody)
                    .map(Answer::from)
            }
            Self::Info { result } => {
                extra_info::write_answer(writer, optional(result)).map(Answer::from)
            }
            Self::ResponseCall {
                id,
                status,
                headers,
                conf_token,
            } => http_resp_call::write_request(writer, *id, *status, entries(headers), *conf_token)
                .map(Answer::from),
            Self::ResponseAnswer {
                id,
                status,
                headers,
                body,
            } => {
                let status = (*status != 0).then_some(*status);
                http_resp_call::write_answer(writer, *id, status, entries(headers), optional(body))
            }
        };
        Some(written.map(|frame| frame.to_vec()))
    }

    /// The type of the frame that carries this message.
    pub(crate) fn frame_type(&self) -> FrameType {
        match self {
            Self::Error { .. } => FrameType::Error,
            Self::Prepare { .. } | Self::Token { .. } => FrameType::PrepareConf,
            Self::RequestCall { .. }
            | Self::Unchanged { .. }
            | Self::Stop { .. }
            | Self::Rewrite { .. } => FrameType::HttpReqCall,
            Self::AskVariable { .. }
            | Self::AskRequestBody
            | Self::AskResponseBody
            | Self::Info { .. } => FrameType::ExtraInfo,
            Self::ResponseCall { .. } | Self::ResponseAnswer { .. } => FrameType::HttpRespCall,
        }
    }

    /// Who sends this message.
    pub(crate) fn side(&self) -> Side {
        match self {
            Self::Prepare { .. }
            | Self::RequestCall { .. }
            | Self::Info { .. }
            | Self::ResponseCall { .. } => Side::Gateway,
            _ => Side::Runner,
        }
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl From<&str> for Bytes {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

impl From<String> for Bytes {
    fn from(text: String) -> Self {
        Self(
            text.chars()
                .map(|c| u8::try_from(c).expect("one character per byte"))
                .collect(),
        )
    }
}

impl From<Bytes> for String {
    fn from(bytes: Bytes) -> Self {
        bytes.0.into_iter().map(char::from).collect()
    }
}

/// Reads a list forwards, backwards and by place, which have to agree.
fn pairs(entries: Entries<'_>) -> Vec<Pair> {
    let forwards: Vec<Entry<'_>> = entries.iter().collect();
    let backwards = entries.iter().rev();
    assert!(
        backwards.eq(forwards.iter().rev().copied()),
        "the list reads the same from both ends"
    );
    assert_eq!(forwards.len(), entries.len());
    assert_eq!(entries.get(entries.len()), None);
    forwards
        .iter()
        .map(|entry| (entry.name.into(), entry.value.map(Bytes::from)))
        .collect()
}

fn entries(pairs: &[Pair]) -> impl Iterator<Item = Entry<'_>> {
    pairs.iter().map(|(name, value)| Entry {
        name: &name.0,
        value: optional(value),
    })
}

fn optional(bytes: &Option<Bytes>) -> Option<&[u8]> {
    bytes.as_ref().map(|bytes| bytes.0.as_slice())
}
