//! A response as the upstream sends it, and as the client gets it.

use std::fmt;

use serde_json::Value;

use super::{
    client_request::{ClientRequest, get, joined},
    fields::{self, Case, Field, text, texts},
    upstream_request::json,
};

/// A response of the upstream with this status: `response(404).header("X-A", "1").body("not here")`.
pub fn response(status: u16) -> UpstreamResponse {
    UpstreamResponse {
        status,
        headers: Vec::new(),
        body: Vec::new(),
        request: get("/"),
    }
}

/// A response as the upstream sends it.
#[derive(Debug, Clone)]
pub struct UpstreamResponse {
    pub(super) status: u16,
    pub(super) headers: Vec<Field>,
    pub(super) body: Vec<u8>,
    pub(super) request: ClientRequest,
}

impl UpstreamResponse {
    /// Adds a header; the same name may come more than once, but for `content-length`.
    #[must_use]
    pub fn header(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        let field = Field::new(name, value);
        match field.name.eq_ignore_ascii_case(b"content-length") {
            true => fields::put(&mut self.headers, Case::Ignored, field),
            false => self.headers.push(field),
        }
        self
    }

    /// Sets the body, and its length as a header.
    #[must_use]
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        let length = self.body.len().to_string();
        self.header("Content-Length", length)
    }

    /// Sets a body of JSON, and its type.
    #[must_use]
    pub fn json(self, body: Value) -> Self {
        self.header("Content-Type", "application/json")
            .body(body.to_string())
    }

    /// A body of so many bytes is announced, of which nothing is there: as
    /// [`ClientRequest::announced_body`].
    #[must_use]
    pub fn announced_body(self, bytes: u64) -> Self {
        self.header("Content-Length", bytes.to_string())
    }

    /// The request that it answers, for variables; `get("/")` if nothing is said.
    #[must_use]
    pub fn to(mut self, request: ClientRequest) -> Self {
        self.request = request;
        self
    }

    /// A variable, as the gateway would answer.
    pub(super) fn variable(&self, name: &str) -> Option<Vec<u8>> {
        if let Some(value) = self.request.variable(name) {
            return Some(value);
        }
        match name {
            "status" | "upstream_status" => Some(self.status.to_string().into_bytes()),
            _ => joined(&self.headers, name.strip_prefix("sent_http_")?),
        }
    }
}

/// A response as the client gets it.
#[derive(Debug, Clone)]
pub struct ClientResponse {
    pub(super) status: u16,
    pub(super) headers: Vec<Field>,
    pub(super) body: Vec<u8>,
    pub(super) is_error_page: bool,
}

impl ClientResponse {
    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The first value of a header.
    ///
    /// # Panics
    /// It is no text: see [`ClientResponse::header_bytes`].
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

    /// Whether the client sees the gateway's own page for an error: so it is where a reply from 400
    /// on has no body, and where a plugin failed.
    pub fn is_error_page(&self) -> bool {
        self.is_error_page
    }
}

impl fmt::Display for ClientResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 200;
        let body = &self.body[..self.body.len().min(LONGEST)];
        write!(f, "{}", self.status)?;
        if !body.is_empty() {
            write!(f, " {:?}", String::from_utf8_lossy(body))?;
        }
        Ok(())
    }
}
