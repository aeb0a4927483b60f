//! What crosses when a plugin calls another server through the host's HTTP client: a request that
//! the library implements, and a response that the host does. Both are objects, so that they can grow.

use abi_stable::{
    StableAbi, sabi_trait,
    std_types::{RBox, ROption, RResult, RSlice, RStr, RString, RVec},
};
use async_ffi::FfiFuture;

use super::OwnedField;

/// A request to another server. The library implements it; the host owns it from
/// [`HostServices::fetch`](crate::abi::HostServices::fetch) on, asks it where the future is first
/// polled, and drops it.
#[sabi_trait]
pub trait OutgoingRequest: Send + Sync + 'static {
    /// Method, in upper case.
    fn method(&self) -> RSlice<'_, u8>;

    /// Absolute URL: `http` or `https`.
    fn url(&self) -> RStr<'_>;

    /// Header names and values in order; repeated names are repeated.
    fn headers(&self) -> RSlice<'_, OwnedField>;

    /// The body, may be empty. Asked once: it is moved out.
    fn take_body(&mut self) -> RVec<u8>;

    /// Nanoseconds for all of it, from now until the body of the response has been read.
    fn nanoseconds(&self) -> u64;

    /// Most bytes of the response's body; the host's own bound holds beside it.
    #[sabi(last_prefix_field)]
    fn max_body_bytes(&self) -> u64;
}

/// Owned handle of a request; its drop runs inside the library.
pub type OutgoingObject = OutgoingRequest_TO<RBox<()>>;

/// The response to an [`OutgoingRequest`], whose head has arrived. The host implements it; dropping
/// it ends the exchange, wherever that is.
#[sabi_trait]
pub trait IncomingResponse: Send + Sync + 'static {
    /// Status.
    fn status(&self) -> u16;

    /// Header names, in lower case, and values in order; repeated names are repeated.
    fn headers(&self) -> RSlice<'_, OwnedField>;

    /// The next piece of the body as it arrives, decoded from the transfer's own coding only; none
    /// at its end, and from then on. One future at a time; the future may outlive this object, and
    /// what it took and did not give back is lost with it.
    #[sabi(last_prefix_field)]
    fn chunk(&self) -> FfiFuture<RResult<ROption<RVec<u8>>, HttpFailure>>;
}

/// Owned handle of a response.
pub type IncomingObject = IncomingResponse_TO<RBox<()>>;

/// Why there is no response, or no more of one.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, PartialEq, Eq)]
pub struct HttpFailure {
    /// What kind of failure it is.
    pub kind: HttpFailureKind,
    /// Whom it was about and what happened, without path, query or anything else that may be secret.
    pub message: RString,
}

impl HttpFailure {
    /// What a plugin is told by a host that knows no client.
    pub(super) fn no_client() -> Self {
        Self {
            kind: HttpFailureKind::UNAVAILABLE,
            message: "this host has no HTTP client".into(),
        }
    }
}

/// Kind of an [`HttpFailure`].
#[repr(transparent)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpFailureKind(pub u8);

impl HttpFailureKind {
    /// It is no request that could be sent; nothing was.
    pub const REQUEST: Self = Self(0);
    /// Nobody could be reached.
    pub const CONNECT: Self = Self(1);
    /// The connection could not be secured: certificate, name, version.
    pub const TLS: Self = Self(2);
    /// The time was over.
    pub const TIMEOUT: Self = Self(3);
    /// The connection ended early, or what came over it was no HTTP.
    pub const BROKEN: Self = Self(4);
    /// Headers or body are larger than allowed.
    pub const TOO_LARGE: Self = Self(5);
    /// The host's bound on requests or connections was reached until the time was over.
    pub const BUSY: Self = Self(6);
    /// The host has no client, or its operator has switched it off.
    pub const UNAVAILABLE: Self = Self(7);
}
