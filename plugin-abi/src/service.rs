//! HTTP services of a plugin: requests that the host takes on a listener of its own, as the
//! `http_services` of `plugin.json` say, and gives to [`Plugin::execute`](crate::Plugin::execute).
//!
//! The context's label is that of the route. What the path has in the places that the route names is
//! there as [`ServiceRequest::param`], and as text among the context's values. A plugin that sets
//! values and does not reply has them sent as a JSON object.
//!
//! ```
//! use plugin_abi::prelude::*;
//!
//! #[derive(Default)]
//! struct Echo;
//!
//! impl Plugin for Echo {
//!     type Config = ();
//!
//!     async fn execute(&self, context: &mut Context) -> Result<()> {
//!         let request = context.request().context("this is for HTTP clients")?;
//!         let kind = request.header_str("content-type").unwrap_or("text/plain").to_owned();
//!         let mut answer = context.stream(Reply::new(200).header("Content-Type", kind))?;
//!         // Piece by piece, at the pace of whoever is slower.
//!         while let Some(piece) = answer.context().chunk().await? {
//!             answer.send(piece).await?;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! export_plugin!(Echo);
//! ```

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use http::Method;

use crate::{
    Context, HttpError, Reply,
    abi::{ContextObject, HttpText, OwnedField, RResult, RespondStatus},
};

/// The HTTP request that asks for an execution.
#[derive(Clone, Copy)]
pub struct ServiceRequest<'a> {
    context: &'a ContextObject,
}

impl<'a> ServiceRequest<'a> {
    pub(crate) fn of(context: &'a ContextObject) -> Option<Self> {
        let is_one = context.http_text(HttpText::METHOD).is_some();
        is_one.then_some(Self { context })
    }

    /// The method.
    pub fn method(&self) -> Method {
        Method::from_bytes(self.text(HttpText::METHOD).unwrap_or_default()).unwrap_or_default()
    }

    /// The path as the client wrote it, percent-encoded, without the query.
    pub fn path(&self) -> &'a [u8] {
        self.text(HttpText::PATH).unwrap_or_default()
    }

    /// What stands behind the question mark, encoded as it came; none where there is no question mark.
    pub fn query(&self) -> Option<&'a [u8]> {
        self.text(HttpText::QUERY)
    }

    /// The route that the request has come by, as `plugin.json` has it.
    pub fn route(&self) -> &'a str {
        std::str::from_utf8(self.text(HttpText::ROUTE).unwrap_or_default()).unwrap_or_default()
    }

    /// What the path has in the place that the route calls so (`:name`, `*rest`), decoded.
    pub fn param(&self, name: &str) -> Option<&'a [u8]> {
        let parameters = self.context.http_parameters().as_slice();
        let found = parameters
            .iter()
            .find(|field| *field.name == *name.as_bytes());
        found.map(|field| field.value.as_slice())
    }

    /// The same as text; none where there is no such place, or no UTF-8 in it.
    pub fn param_str(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.param(name)?).ok()
    }

    /// The first value of a header; case of the name does not matter.
    pub fn header(&self, name: impl AsRef<[u8]>) -> Option<&'a [u8]> {
        let name = name.as_ref();
        let same = |field: &&OwnedField| field.name.eq_ignore_ascii_case(name);
        let mut headers = self.context.http_headers().as_slice().iter();
        headers.find(same).map(|field| field.value.as_slice())
    }

    /// The first value of a header as text; none where it is absent or not UTF-8.
    pub fn header_str(&self, name: impl AsRef<[u8]>) -> Option<&'a str> {
        std::str::from_utf8(self.header(name)?).ok()
    }

    /// All headers: names in lower case, repeated ones repeated.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let headers = self.context.http_headers().as_slice().iter();
        headers.map(|field| (field.name.as_slice(), field.value.as_slice()))
    }

    /// The address that the request came from; none where it came over a Unix socket.
    pub fn client_ip(&self) -> Option<IpAddr> {
        let address = self.text(HttpText::CLIENT_ADDRESS)?;
        if let Ok(v4) = <[u8; 4]>::try_from(address) {
            return Some(IpAddr::V4(Ipv4Addr::from(v4)));
        }
        let v6 = <[u8; 16]>::try_from(address).ok()?;
        Some(IpAddr::V6(Ipv6Addr::from(v6)))
    }

    fn text(&self, text: HttpText) -> Option<&'a [u8]> {
        let text = self.context.http_text(text).into_option();
        text.map(Into::into)
    }
}

impl Context {
    /// The next piece of the request's body as it arrives; none at its end, and where no HTTP request
    /// asks.
    ///
    /// # Errors
    /// The client broke off, its time was over, or the body is larger than the host takes.
    pub async fn chunk(&self) -> Result<Option<Vec<u8>>, HttpError> {
        match self.context.http_chunk().await {
            RResult::ROk(piece) => Ok(piece.into_option().map(Into::into)),
            RResult::RErr(failure) => Err(failure.into()),
        }
    }

    /// The whole body of the request, or what is left of it; the host bounds its length.
    ///
    /// # Errors
    /// As for [`Context::chunk`].
    pub async fn body(&self) -> Result<Vec<u8>, HttpError> {
        let mut whole = self.chunk().await?.unwrap_or_default();
        while let Some(piece) = self.chunk().await? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }

    /// Answers the HTTP request. A reply without `Content-Type` has none.
    ///
    /// # Errors
    /// See [`RespondError`].
    pub fn reply(&mut self, reply: Reply) -> Result<(), RespondError> {
        sent(self.context.http_respond(reply.into_parts(), false))
    }

    /// Begins to answer the HTTP request. The reply's body, where it has one, is the first piece.
    ///
    /// # Errors
    /// See [`RespondError`].
    pub fn stream(&mut self, reply: Reply) -> Result<Stream<'_>, RespondError> {
        sent(self.context.http_respond(reply.into_parts(), true))?;
        Ok(Stream { context: self })
    }
}

/// An answer on its way. It ends well when [`Plugin::execute`](crate::Plugin::execute) does; where that
/// fails, the connection breaks off, so that the client knows that there should have been more.
#[derive(Debug)]
pub struct Stream<'a> {
    context: &'a mut Context,
}

impl Stream<'_> {
    /// Sends the next piece; waits while the client takes none.
    ///
    /// # Errors
    /// [`RespondError::Gone`].
    pub async fn send(&mut self, piece: impl Into<Vec<u8>>) -> Result<(), RespondError> {
        sent(self.context.context.http_send(piece.into().into()).await)
    }

    /// The context, to read on in the request.
    pub fn context(&self) -> &Context {
        self.context
    }
}

/// Why an answer did not go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RespondError {
    /// The client has gone, or the time is over.
    Gone,
    /// No HTTP request asks: this is an execution by a command.
    NoRequest,
    /// It has been answered already.
    Answered,
    /// A status, header name or header value is none. Statuses are 200 to 599.
    Invalid,
    /// The host gave a reason that this version of `plugin-abi` does not know.
    Other(u8),
}

impl fmt::Display for RespondError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("nobody takes the answer any more"),
            Self::NoRequest => f.write_str("there is no HTTP request to be answered"),
            Self::Answered => f.write_str("the request has been answered already"),
            Self::Invalid => {
                f.write_str("a status, header name or header value is none that HTTP could carry")
            }
            Self::Other(code) => write!(f, "the host refused the answer with code {code}"),
        }
    }
}

impl std::error::Error for RespondError {}

fn sent(status: RespondStatus) -> Result<(), RespondError> {
    match status {
        RespondStatus::SENT => Ok(()),
        RespondStatus::GONE => Err(RespondError::Gone),
        RespondStatus::NO_REQUEST => Err(RespondError::NoRequest),
        RespondStatus::ANSWERED => Err(RespondError::Answered),
        RespondStatus::INVALID => Err(RespondError::Invalid),
        RespondStatus(code) => Err(RespondError::Other(code)),
    }
}
