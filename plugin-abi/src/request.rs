//! A request on its way to the upstream, as a plugin sees and changes it.
//!
//! Bytes are the truth: paths, argument and header values arrive with any byte in them. Beside each
//! accessor for bytes stands one for text. Reading never counts as changing.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use http::Method;

use crate::{
    AskError, HttpClient, RequestValues, RequestValuesMut, Values,
    abi::{CallObject, List, Question, Text},
    ask::ask,
    fields,
};

/// A request, with the changes that the plugins before this one made.
pub struct Request {
    call: CallObject,
}

impl Request {
    pub(crate) fn new(call: CallObject) -> Self {
        Self { call }
    }

    pub(crate) fn into_call(self) -> CallObject {
        self.call
    }

    /// The gateway's number of this call, for logs; it starts anew in each gateway worker.
    pub fn id(&self) -> u32 {
        self.call.id()
    }

    /// What plugins before this one have left: see [`crate::values`].
    pub fn values(&self) -> RequestValues<'_> {
        RequestValues::new(&self.call)
    }

    /// What to leave for plugins after this one, and for later phases: see [`crate::values`].
    pub fn values_mut(&mut self) -> RequestValuesMut<'_> {
        RequestValuesMut::new(&mut self.call)
    }

    /// How long the host goes on waiting for this plugin.
    pub fn time_left(&self) -> Duration {
        Duration::from_millis(self.call.milliseconds_left())
    }

    /// The host's client for other services. What it is asked for ends with this call, and a
    /// little before it, so that the plugin can still answer: a tenth of what is left, at most
    /// 10 ms.
    pub fn http(&self) -> HttpClient {
        HttpClient::within(self.time_left())
    }

    /// The method. The gateway knows GET, HEAD, POST, PUT, DELETE, MKCOL, COPY, MOVE, OPTIONS,
    /// PROPFIND, PROPPATCH, LOCK, UNLOCK, PATCH and TRACE.
    pub fn method(&self) -> Method {
        Method::from_bytes(self.call.text(Text::METHOD).as_slice()).unwrap_or_default()
    }

    /// The path, decoded and normalised, without the query.
    pub fn path(&self) -> &[u8] {
        self.call.text(Text::PATH).as_slice()
    }

    /// The path as text; none where it is not UTF-8.
    pub fn path_str(&self) -> Option<&str> {
        std::str::from_utf8(self.path()).ok()
    }

    /// The address that the request came from.
    pub fn client_ip(&self) -> Option<IpAddr> {
        let address = self.call.text(Text::CLIENT_ADDRESS).as_slice();
        if let Ok(v4) = <[u8; 4]>::try_from(address) {
            return Some(IpAddr::V4(Ipv4Addr::from(v4)));
        }
        let v6 = <[u8; 16]>::try_from(address).ok()?;
        Some(IpAddr::V6(Ipv6Addr::from(v6)))
    }

    /// The first value of a header; case of the name does not matter.
    pub fn header(&self, name: impl AsRef<[u8]>) -> Option<&[u8]> {
        fields::first(&self.call, List::HEADERS, name.as_ref())
    }

    /// The first value of a header as text; none where it is absent or not UTF-8.
    pub fn header_str(&self, name: impl AsRef<[u8]>) -> Option<&str> {
        std::str::from_utf8(self.header(name)?).ok()
    }

    /// Every value of a repeated header.
    pub fn header_values(&self, name: impl AsRef<[u8]>) -> Values<'_> {
        Values::new(&self.call, List::HEADERS, name.as_ref())
    }

    /// All headers: names as the gateway gives them (lower case), repeated ones repeated.
    pub fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        fields::entries(&self.call, List::HEADERS)
            .map(|(name, value)| (name, value.unwrap_or_default()))
    }

    /// The first value of a query argument, decoded; an argument without `=` gives an empty one.
    pub fn arg(&self, name: impl AsRef<[u8]>) -> Option<&[u8]> {
        fields::first(&self.call, List::ARGUMENTS, name.as_ref())
    }

    /// The first value of a query argument as text; none where it is absent or not UTF-8.
    pub fn arg_str(&self, name: impl AsRef<[u8]>) -> Option<&str> {
        std::str::from_utf8(self.arg(name)?).ok()
    }

    /// Every value of a repeated query argument.
    pub fn arg_values(&self, name: impl AsRef<[u8]>) -> Values<'_> {
        Values::new(&self.call, List::ARGUMENTS, name.as_ref())
    }

    /// All query arguments, decoded; `?flag` has no value, `?flag=` an empty one. The gateway does
    /// not keep their order.
    pub fn args(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        fields::entries(&self.call, List::ARGUMENTS)
    }

    /// Asks the gateway for a variable (`remote_addr`, `route_id`, `arg_NAME`, ...); none where it
    /// is not set. Each variable travels at most once per request, however often it is asked for.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn var(&self, name: &str) -> Result<Option<&[u8]>, AskError> {
        ask(&self.call, Question::Variable(name.as_bytes().into())).await
    }

    /// The request's body: what a plugin of this chain has set, else what the client sent; none
    /// where there is none. It travels at most once per request.
    ///
    /// # Errors
    /// See [`AskError`]; [`AskError::BodyTooLarge`] for bodies that no frame can carry.
    pub async fn body(&self) -> Result<Option<&[u8]>, AskError> {
        if let Some(body) = self.call.body_set().into_option() {
            return Ok(Some(body.as_slice()));
        }
        ask(&self.call, Question::RequestBody).await
    }

    /// Sends the request upstream under another path, which begins with `/`; the gateway encodes it
    /// and keeps the query.
    pub fn set_path(&mut self, path: impl AsRef<[u8]>) {
        self.call.set_path(path.as_ref().into());
    }

    /// Replaces a header by one value (the gateway's protocol cannot send a name twice upstream).
    /// `host` sets the upstream's host. An empty value removes the header.
    pub fn set_header(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.call
            .set(List::HEADERS, name.as_ref().into(), value.as_ref().into());
    }

    /// Removes a header.
    pub fn remove_header(&mut self, name: impl AsRef<[u8]>) {
        self.call.remove(List::HEADERS, name.as_ref().into());
    }

    /// Replaces every value of a query argument by one.
    pub fn set_arg(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.call
            .set(List::ARGUMENTS, name.as_ref().into(), value.as_ref().into());
    }

    /// Adds a value beside those that a query argument has.
    pub fn append_arg(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.call
            .append(List::ARGUMENTS, name.as_ref().into(), value.as_ref().into());
    }

    /// Removes a query argument.
    pub fn remove_arg(&mut self, name: impl AsRef<[u8]>) {
        self.call.remove(List::ARGUMENTS, name.as_ref().into());
    }

    /// Replaces the body; the gateway puts `Content-Length` right. A body cannot be emptied: the
    /// gateway takes an empty one for no change, and the host treats it as a failure of the plugin.
    pub fn set_body(&mut self, body: impl Into<Vec<u8>>) {
        self.call.set_body(body.into().into());
    }

    /// Sets a header of the client's response: replaces what plugins of this chain recorded under
    /// this name, and comes beside what the upstream sends. The gateway ignores `connection`,
    /// `content-length`, `transfer-encoding`, `location`, `server`, `www-authenticate` and the
    /// other `content-` ones.
    pub fn set_response_header(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.call.set(
            List::RESPONSE_HEADERS,
            name.as_ref().into(),
            value.as_ref().into(),
        );
    }

    /// Adds a header of the client's response beside those recorded under the same name.
    pub fn append_response_header(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.call.append(
            List::RESPONSE_HEADERS,
            name.as_ref().into(),
            value.as_ref().into(),
        );
    }
}
