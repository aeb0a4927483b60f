//! The protocol between an Apache APISIX gateway and its external plugin runner, without I/O.
//!
//! A frame is four bytes of header and one Flatbuffers buffer. [`FrameBuffer`] collects bytes until a
//! frame is complete; each RPC has a module with views of what arrives and functions that write what
//! goes out through a [`FrameWriter`]. Both directions are there for both sides, because the tools of
//! this project also play the gateway.
//!
//! Everything textual is bytes: paths, argument and header values arrive with any byte in them.
//!
//! This crate never opens a socket, never waits, and knows nothing of plugins. The protocol itself is
//! described in `docs/protocol.md`.
//!
//! ```
//! use plugin_proto::{Entry, FrameBuffer, FrameWriter, http_req_call};
//!
//! let mut writer = FrameWriter::new();
//! let header = Entry { name: b"x-greeting", value: Some(b"hi") };
//! let frame = http_req_call::write_stop(&mut writer, 7, 200, [header], Some(b"hello"))?;
//!
//! let mut buffer = FrameBuffer::new();
//! buffer.spare()[..frame.len()].copy_from_slice(&frame.to_vec());
//! buffer.filled(frame.len());
//!
//! let received = buffer.frame().expect("the whole frame is there");
//! let answer = http_req_call::AnswerView::parse(received.data())?;
//! assert_eq!(answer.id(), 7);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod frame;

mod entries;
mod invalid;
mod method;
mod verify;
mod writer;

pub mod err;
pub mod extra_info;
pub mod http_req_call;
pub mod http_resp_call;
pub mod prepare_conf;

// Written by the compiler in `proto/codegen`. The numbers of fields and kinds are used; what verifies,
// reads and writes messages, with all of its `unsafe`, only by tests.
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
mod generated;

pub use entries::{Entries, EntriesIter, Entry};
pub use frame::{Frame, FrameBuffer, FrameTooLarge, FrameType, Header, UnknownFrameType};
pub use invalid::InvalidFrame;
pub use method::{Method, UnknownMethod};

pub use writer::{Answer, FrameWriter};
