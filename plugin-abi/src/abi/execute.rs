//! What crosses when a plugin executes something that is asked for by name: a context that the host
//! implements, which the plugin owns meanwhile and gives back. Since ABI 1.2.

use std::fmt;

use abi_stable::{
    StableAbi, sabi_trait,
    std_types::{RBox, ROption, RResult, RSlice, RStr, RString, RVec},
};
use async_ffi::FfiFuture;

use super::{HttpFailure, OwnedField, ReplyParts, ValueStatus};

/// What is to be executed, and what comes of it. The host implements it; the plugin owns it while its
/// future runs.
#[sabi_trait]
pub trait HostContext: Send + Sync + 'static {
    /// What is wanted, in words of the plugin's; empty where nobody said.
    fn label(&self) -> RStr<'_>;

    /// Nanoseconds until the host stops waiting.
    fn nanoseconds_left(&self) -> u64;

    /// Whether nobody wants the result any more.
    fn is_cancelled(&self) -> bool;

    /// Is ready as soon as nobody wants the result any more. The future may outlive the context.
    fn cancelled(&self) -> FfiFuture<()>;

    /// Number of values.
    fn count(&self) -> usize;

    /// The name of a value at an index below [`HostContext::count`]; none beyond.
    fn name_at(&self, index: usize) -> ROption<RStr<'_>>;

    /// A value as JSON text; none where there is none.
    fn value(&self, name: RStr<'_>) -> ROption<RSlice<'_, u8>>;

    /// Sets a value, which is JSON text, or removes it. What has been set is a part of the answer.
    fn set_value(&mut self, name: RStr<'_>, value: ROption<RVec<u8>>) -> ValueStatus;

    /// A text of the HTTP request that asks; none where it is none, or has none.
    fn http_text(&self, text: HttpText) -> ROption<RSlice<'_, u8>>;

    /// Header names, in lower case, and values of that request in order; repeated names are repeated.
    fn http_headers(&self) -> RSlice<'_, OwnedField>;

    /// What stands in that request's path in the places that its route names.
    fn http_parameters(&self) -> RSlice<'_, OwnedField>;

    /// The next piece of that request's body as it arrives; none at its end, and from then on. One
    /// future at a time; the future may outlive the context.
    fn http_chunk(&self) -> FfiFuture<RResult<ROption<RVec<u8>>, HttpFailure>>;

    /// Begins the answer to that request; its body is all of it, or where it streams the first piece.
    fn http_respond(&mut self, reply: ReplyParts, streams: bool) -> RespondStatus;

    /// The next piece of an answer that streams: ready when there is room for one more. One future at
    /// a time; the future may outlive the context.
    #[sabi(last_prefix_field)]
    fn http_send(&self, piece: RVec<u8>) -> FfiFuture<RespondStatus>;
}

/// Owned handle of a context.
pub type ContextObject = HostContext_TO<RBox<()>>;

/// A single text of an HTTP request.
#[repr(transparent)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpText(pub u8);

impl HttpText {
    /// The method, in upper case.
    pub const METHOD: Self = Self(0);
    /// The path as the client wrote it, percent-encoded.
    pub const PATH: Self = Self(1);
    /// What stands behind the question mark.
    pub const QUERY: Self = Self(2);
    /// The route, as the plugin's metadata has it.
    pub const ROUTE: Self = Self(3);
    /// The client's address: 4 or 16 bytes in network order.
    pub const CLIENT_ADDRESS: Self = Self(4);
}

/// What became of an answer, or of a piece of it.
#[repr(transparent)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
pub struct RespondStatus(pub u8);

impl RespondStatus {
    /// It is on its way.
    pub const SENT: Self = Self(0);
    /// Nobody takes it any more.
    pub const GONE: Self = Self(1);
    /// There is no request to be answered.
    pub const NO_REQUEST: Self = Self(2);
    /// It has been answered already.
    pub const ANSWERED: Self = Self(3);
    /// It is no answer that HTTP could carry.
    pub const INVALID: Self = Self(4);
    /// The answer does not stream, or has not begun.
    pub const NO_STREAM: Self = Self(5);
}

/// Why nothing came of an execution.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, PartialEq, Eq)]
pub struct ExecuteFailure {
    /// What kind of failure it is.
    pub kind: ExecuteFailureKind,
    /// The error with its causes, or the panic's message and place.
    pub message: RString,
}

/// Kind of an [`ExecuteFailure`].
#[repr(transparent)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecuteFailureKind(pub u8);

impl ExecuteFailureKind {
    /// The plugin returned an error.
    pub const ERROR: Self = Self(0);
    /// The plugin panicked.
    pub const PANIC: Self = Self(1);
    /// The plugin has nothing that could be executed.
    pub const UNSUPPORTED: Self = Self(2);
}

impl ExecuteFailure {
    /// What a plugin answers that has no such entry.
    pub(crate) fn unsupported() -> Self {
        Self {
            kind: ExecuteFailureKind::UNSUPPORTED,
            message: "the plugin has no `execute`".into(),
        }
    }
}

impl fmt::Display for ExecuteFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ExecuteFailureKind::PANIC => write!(f, "panicked: {}", self.message),
            _ => f.write_str(&self.message),
        }
    }
}
