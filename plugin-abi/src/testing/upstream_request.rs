//! A request as it reaches the upstream, after the plugins and the gateway.

use http::Method;
use serde_json::Value;

use super::{
    encoding,
    fields::{Case, Field, text, texts},
};

/// A request as the upstream gets it. What the gateway adds of its own (`x-forwarded-for`,
/// `x-real-ip` and their like) is not here.
#[derive(Debug, Clone)]
pub struct UpstreamRequest {
    pub(super) method: Method,
    /// Path and query as they travel.
    pub(super) uri: String,
    pub(super) headers: Vec<Field>,
    pub(super) body: Vec<u8>,
    /// What it adds to the client's response.
    pub(super) response_headers: Vec<Field>,
}

impl UpstreamRequest {
    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Path and query as they travel: the client's own bytes where no plugin has changed them.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The path, decoded, as the plugin has set it.
    ///
    /// # Panics
    /// It is no text.
    #[track_caller]
    pub fn path(&self) -> String {
        let path = self.uri.split('?').next().unwrap_or_default();
        text("the path", &encoding::decoded(path.as_bytes())).to_owned()
    }

    /// The first value of an argument, decoded; an argument without a value gives an empty one.
    pub fn arg(&self, name: &str) -> Option<String> {
        self.args(name).into_iter().next()
    }

    /// Every value of an argument.
    pub fn args(&self, name: &str) -> Vec<String> {
        let query = self.uri.split_once('?').map_or("", |(_, query)| query);
        encoding::arguments(query)
            .iter()
            .filter(|argument| argument.name == name.as_bytes())
            .map(|argument| String::from_utf8_lossy(argument.value()).into_owned())
            .collect()
    }

    /// The first value of a header.
    ///
    /// # Panics
    /// It is no text: see [`UpstreamRequest::header_bytes`].
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).into_iter().next()
    }

    /// Every value of a header.
    ///
    /// # Panics
    /// One is no text.
    #[track_caller]
    pub fn headers(&self, name: &str) -> Vec<&str> {
        texts(&self.headers, Case::Ignored, name)
    }

    /// The first value of a header, which may be any bytes.
    pub fn header_bytes(&self, name: &str) -> Option<&[u8]> {
        let found = self
            .headers
            .iter()
            .find(|header| Case::Ignored.same(&header.name, name.as_bytes()));
        found.map(Field::value)
    }

    /// Names and values of all headers.
    pub fn all_headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let headers = self.headers.iter();
        headers.map(|header| (header.name.as_slice(), header.value()))
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body as text.
    ///
    /// # Panics
    /// It is none.
    #[track_caller]
    pub fn text(&self) -> &str {
        text("the body", &self.body)
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// It is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        json(&self.body)
    }

    /// What it adds to the client's response under this name, beside what the upstream sends.
    ///
    /// # Panics
    /// A value is no text.
    #[track_caller]
    pub fn response_headers(&self, name: &str) -> Vec<&str> {
        texts(&self.response_headers, Case::Ignored, name)
    }
}

#[track_caller]
pub(super) fn json(body: &[u8]) -> Value {
    match serde_json::from_slice(body) {
        Ok(json) => json,
        Err(error) => panic!("the body is no JSON ({error}): {}", body.escape_ascii()),
    }
}
