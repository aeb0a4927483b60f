//! What the gateway tells whoever runs it: one event per plugin call, and one per request.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use plugin_proto::Method;

pub use super::runner::Effect;
use crate::client::Response;

/// Who is told. Called from the threads that serve: it must not wait for long.
pub type Listener = dyn for<'e> Fn(Event<'e>) + Send + Sync;

/// Something is done.
#[derive(Debug)]
pub enum Event<'e> {
    /// The host was called.
    Call(&'e CallDone),
    /// A client has its answer.
    Request(&'e RequestDone),
}

/// One call of the host.
#[derive(Debug)]
pub struct CallDone {
    /// Which of the gateway's plugins made it.
    pub phase: Phase,
    /// Method and target as the client sent them.
    pub request: String,
    /// The route's id.
    pub route: String,
    /// The request's method, where the protocol has a name for it.
    pub method: Option<Method>,
    /// The upstream's response, in that phase.
    pub response: Option<Response>,
    /// Names of the plugins, in order.
    pub plugins: Vec<String>,
    /// How long it took, with everything before the answer.
    pub took: Duration,
    /// What the plugins want, or why nobody knows.
    pub result: Result<Effect, String>,
    /// Whether the request goes on without them.
    pub degraded: bool,
}

/// One of the gateway's plugins that call the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Before everything else.
    PreReq,
    /// Last before the upstream.
    PostReq,
    /// Before the response goes to the client.
    PostResp,
}

impl Phase {
    /// As in the route file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PreReq => "ext-plugin-pre-req",
            Self::PostReq => "ext-plugin-post-req",
            Self::PostResp => "ext-plugin-post-resp",
        }
    }
}

/// One request, to its end.
#[derive(Debug, Clone)]
pub struct RequestDone {
    /// Where it came from.
    pub client: IpAddr,
    /// When it came.
    pub received: SystemTime,
    /// Method, target and protocol.
    pub request: String,
    /// The client's `Host`, `Referer` and `User-Agent`.
    pub headers: [Option<Vec<u8>>; 3],
    /// Status of the answer.
    pub status: u16,
    /// Bytes of its body that were sent.
    pub sent: u64,
    /// From the request's head to the end of the answer.
    pub took: Duration,
    /// Where it went: a node, `echo`, or nowhere.
    pub upstream: Option<String>,
}
