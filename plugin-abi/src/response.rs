//! An upstream's response on its way to the client, as a plugin sees and changes it.
//!
//! Bytes are the truth, as in [`crate::request`]. Reading never counts as changing.

use std::time::Duration;

use crate::{
    AskError, HttpClient, RequestValues, RequestValuesMut, Values,
    abi::{CallObject, List, Question},
    ask::ask,
    fields,
};

/// A response, with the changes that the plugins before this one made.
pub struct Response {
    call: CallObject,
}

impl Response {
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

    /// The status.
    pub fn status(&self) -> u16 {
        self.call.status()
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

    /// All headers, in the upstream's order and case, repeated ones repeated.
    pub fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        fields::entries(&self.call, List::HEADERS)
            .map(|(name, value)| (name, value.unwrap_or_default()))
    }

    /// Asks the gateway for a variable; none where it is not set. Each variable travels at most
    /// once per response.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn var(&self, name: &str) -> Result<Option<&[u8]>, AskError> {
        ask(&self.call, Question::Variable(name.as_bytes().into())).await
    }

    /// The response's body: what a plugin of this chain has set, else what the upstream sent; none
    /// where there is none. It travels at most once per response.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn body(&self) -> Result<Option<&[u8]>, AskError> {
        if let Some(body) = self.call.body_set().into_option() {
            return Ok(Some(body.as_slice()));
        }
        ask(&self.call, Question::ResponseBody).await
    }

    /// Sets the status: 200 to 599. The host treats any other as a failure of the plugin.
    pub fn set_status(&mut self, status: u16) {
        self.call.set_status(status);
    }

    /// Replaces every value of a header by one.
    pub fn set_header(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.call
            .set(List::HEADERS, name.as_ref().into(), value.as_ref().into());
    }

    /// Adds a value beside those that a header has.
    pub fn append_header(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.call
            .append(List::HEADERS, name.as_ref().into(), value.as_ref().into());
    }

    /// Removes a header.
    pub fn remove_header(&mut self, name: impl AsRef<[u8]>) {
        self.call.remove(List::HEADERS, name.as_ref().into());
    }

    /// Replaces the body. A body cannot be emptied: the gateway takes an empty one for no change,
    /// and the host treats it as a failure of the plugin.
    pub fn set_body(&mut self, body: impl Into<Vec<u8>>) {
        self.call.set_body(body.into().into());
    }
}
