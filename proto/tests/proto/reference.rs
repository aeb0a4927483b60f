//! The reading side that the schema's compiler generates, as the measure of ours: the same buffer gives the
//! same message or is refused by both.

use flatbuffers::{
    Follow, ForwardsUOffset, InvalidFlatbuffer, Vector, Verifiable, VerifierOptions,
};
use plugin_proto::frame::{HEADER_LEN, MAX_DATA_LEN};
use plugin_proto::{FrameType, InvalidFrame};

use crate::message::{Bytes, Message, Pair, Side};

#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used,
    dead_code,
    missing_docs,
    non_camel_case_types,
    rustdoc::all,
    unreachable_pub,
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    unused_imports,
    reason = "written by the schema's compiler, in its own style"
)]
#[rustfmt::skip]
#[path = "../../src/generated.rs"]
pub(crate) mod generated;

use generated::a6::{TextEntry, err, extra_info, httpreq_call, httpresp_call, prepare_conf};

/// The limits of `proto/src/verify.rs`, and a depth that no message of the schema reaches.
const LIMITS: VerifierOptions = VerifierOptions {
    max_depth: 8,
    max_tables: (MAX_DATA_LEN + HEADER_LEN) / 8,
    max_apparent_size: 4 * (MAX_DATA_LEN + 1),
    ignore_missing_null_terminator: true,
};

/// Why the generated code, or what a view adds to it, gives no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Verification(InvalidFlatbuffer),
    /// A union's kind that the protocol does not know.
    UnknownKind(u8),
    /// A question that asks nothing.
    NoQuestion,
}

/// Reads a message both ways, which have to agree; tells whether they accept.
pub(crate) fn agree(side: Side, frame_type: FrameType, data: &[u8]) -> bool {
    let ours = Message::read(side, frame_type, data);
    let theirs = read(side, frame_type, data);
    let same = match (&ours, &theirs) {
        (Ok(ours), Ok(theirs)) => ours == theirs,
        (Err(InvalidFrame::Malformed { .. }), Err(Refused::Verification(_)))
        | (Err(InvalidFrame::Missing { .. }), Err(Refused::NoQuestion)) => true,
        (Err(InvalidFrame::UnknownKind { kind, .. }), Err(Refused::UnknownKind(theirs))) => {
            kind == theirs
        }
        _ => false,
    };
    assert!(
        same,
        "{frame_type:?} from the {side:?}\nours: {ours:?}\ngenerated: {theirs:?}\ndata: {data:02x?}"
    );
    ours.is_ok()
}

/// Reads every byte of a message through generated code.
fn read(side: Side, frame_type: FrameType, data: &[u8]) -> Result<Message, Refused> {
    Ok(match (frame_type, side) {
        (FrameType::Error, _) => Message::Error {
            code: root::<err::Resp<'_>>(data)?.code().0,
        },
        (FrameType::PrepareConf, Side::Gateway) => {
            let table = root::<prepare_conf::Req<'_>>(data)?;
            Message::Prepare {
                conf: pairs(table.conf()),
                key: optional(table.key()),
            }
        }
        (FrameType::PrepareConf, Side::Runner) => Message::Token {
            conf_token: root::<prepare_conf::Resp<'_>>(data)?.conf_token(),
        },
        (FrameType::HttpReqCall, Side::Gateway) => {
            let table = root::<httpreq_call::Req<'_>>(data)?;
            Message::RequestCall {
                id: table.id(),
                src_ip: optional(table.src_ip()),
                method: table.method().0,
                path: or_empty(table.path()),
                args: pairs(table.args()),
                headers: pairs(table.headers()),
                conf_token: table.conf_token(),
            }
        }
        (FrameType::HttpReqCall, Side::Runner) => {
            read_action(root::<httpreq_call::Resp<'_>>(data)?)?
        }
        (FrameType::ExtraInfo, Side::Runner) => read_question(root::<extra_info::Req<'_>>(data)?)?,
        (FrameType::ExtraInfo, Side::Gateway) => Message::Info {
            result: optional(root::<extra_info::Resp<'_>>(data)?.result()),
        },
        (FrameType::HttpRespCall, Side::Gateway) => {
            let table = root::<httpresp_call::Req<'_>>(data)?;
            Message::ResponseCall {
                id: table.id(),
                status: table.status(),
                headers: pairs(table.headers()),
                conf_token: table.conf_token(),
            }
        }
        (FrameType::HttpRespCall, Side::Runner) => {
            let table = root::<httpresp_call::Resp<'_>>(data)?;
            Message::ResponseAnswer {
                id: table.id(),
                status: table.status(),
                headers: pairs(table.headers()),
                body: optional(table.body()),
            }
        }
    })
}

fn read_action(table: httpreq_call::Resp<'_>) -> Result<Message, Refused> {
    let id = table.id();
    let action_type = table.action_type();
    Ok(match action_type {
        httpreq_call::Action::NONE => Message::Unchanged { id },
        httpreq_call::Action::Stop => {
            let stop = table.action_as_stop().expect("verified with its kind");
            Message::Stop {
                id,
                status: stop.status(),
                headers: pairs(stop.headers()),
                body: optional(stop.body()),
            }
        }
        httpreq_call::Action::Rewrite => {
            let rewrite = table.action_as_rewrite().expect("verified with its kind");
            Message::Rewrite {
                id,
                path: optional(rewrite.path()),
                headers: pairs(rewrite.headers()),
                args: pairs(rewrite.args()),
                resp_headers: pairs(rewrite.resp_headers()),
                body: optional(rewrite.body()),
            }
        }
        unknown => return Err(Refused::UnknownKind(unknown.0)),
    })
}

fn read_question(table: extra_info::Req<'_>) -> Result<Message, Refused> {
    Ok(match table.info_type() {
        extra_info::Info::NONE => return Err(Refused::NoQuestion),
        extra_info::Info::Var => {
            let var = table.info_as_var().expect("verified with its kind");
            Message::AskVariable {
                name: or_empty(var.name()),
            }
        }
        extra_info::Info::ReqBody => Message::AskRequestBody,
        extra_info::Info::RespBody => Message::AskResponseBody,
        unknown => return Err(Refused::UnknownKind(unknown.0)),
    })
}

/// The root table of a verified message.
pub(crate) fn root<'a, T>(data: &'a [u8]) -> Result<T::Inner, Refused>
where
    T: Follow<'a> + Verifiable + 'a,
{
    flatbuffers::root_with_opts::<T>(&LIMITS, data).map_err(Refused::Verification)
}

fn pairs(list: Option<Vector<'_, ForwardsUOffset<TextEntry<'_>>>>) -> Vec<Pair> {
    list.into_iter()
        .flatten()
        .map(|entry| (or_empty(entry.name()), optional(entry.value())))
        .collect()
}

fn optional(bytes: Option<Vector<'_, u8>>) -> Option<Bytes> {
    bytes.map(|bytes| bytes.bytes().into())
}

fn or_empty(bytes: Option<Vector<'_, u8>>) -> Bytes {
    optional(bytes).unwrap_or(Bytes(Vec::new()))
}
