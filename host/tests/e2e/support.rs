//! What the tests share: a running host, and a client that plays the gateway's side.

mod gateway;
mod host;
mod libraries;

pub(crate) use gateway::{Answer, Call, Gateway, get, request, response};
pub(crate) use host::Host;
