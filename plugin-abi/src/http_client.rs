//! Calling other services over HTTP and HTTPS, with the client that the host keeps for all plugins.
//!
//! The host has the connections (pooled, across calls), the roots of trust and the bounds; a plugin
//! brings neither a runtime nor a TLS library. A client that comes out of a call
//! ([`Request::http`](crate::Request::http)) gives up before the call itself ends.
//!
//! It follows no redirect, keeps no cookie, decodes no `content-encoding` and asks no proxy.

use std::{
    fmt,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    abi::{
        HttpFailure, HttpFailureKind, IncomingObject, OutgoingRequest, OutgoingRequest_TO,
        OwnedField, RResult, RSlice, RStr, RVec, TD_Opaque,
    },
    export::{self, host},
    time,
};

/// Time of an exchange for which nothing else says when it has to end.
pub const DEFAULT_TIME: Duration = Duration::from_secs(10);

/// Most bytes of a response's body, where the request does not say otherwise.
pub const DEFAULT_MAX_BODY: u64 = 1 << 20;

/// What is kept of a call's time, at most, for what the plugin does after an exchange that took too
/// long.
const MARGIN: Duration = Duration::from_millis(10);

/// The host's client for other services. It costs nothing to have; the connections are the host's.
///
/// ```no_run
/// use plugin_abi::prelude::*;
///
/// /// Who a token belongs to; none where the service does not know it.
/// async fn user_of(request: &Request, token: &str) -> Result<Option<String>> {
///     let answer = request
///         .http()
///         .get("https://auth.example.com/whoami")
///         .bearer(token)
///         .send()
///         .await?;
///     match answer.status() {
///         StatusCode::OK => Ok(Some(answer.text().await?)),
///         StatusCode::UNAUTHORIZED => Ok(None),
///         status => bail!("the auth service answered {status}"),
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct HttpClient {
    /// When the call ends that it belongs to; none outside of calls.
    ends: Option<Instant>,
}

impl HttpClient {
    /// A client for outside of calls, as in [`Plugin::on_load`](crate::Plugin::on_load): its
    /// exchanges may take [`DEFAULT_TIME`].
    #[must_use]
    pub const fn new() -> Self {
        Self { ends: None }
    }

    /// A client for a call that has so much time left.
    pub(crate) fn within(left: Duration) -> Self {
        let left = left.saturating_sub(MARGIN.min(left / 10));
        Self {
            ends: time::now().checked_add(left),
        }
    }

    /// A request with any method.
    pub fn request(&self, method: Method, url: impl Into<String>) -> HttpRequest {
        HttpRequest {
            method,
            url: url.into(),
            headers: HeaderMap::new(),
            body: Vec::new(),
            ends: self.ends,
            timeout: None,
            max_body: DEFAULT_MAX_BODY,
            mistake: None,
        }
    }

    /// A GET request.
    pub fn get(&self, url: impl Into<String>) -> HttpRequest {
        self.request(Method::GET, url)
    }

    /// A POST request.
    pub fn post(&self, url: impl Into<String>) -> HttpRequest {
        self.request(Method::POST, url)
    }

    /// A PUT request.
    pub fn put(&self, url: impl Into<String>) -> HttpRequest {
        self.request(Method::PUT, url)
    }

    /// A DELETE request.
    pub fn delete(&self, url: impl Into<String>) -> HttpRequest {
        self.request(Method::DELETE, url)
    }
}

/// A request that has not been sent. What is wrong with one of its parts is told by
/// [`HttpRequest::send`].
#[must_use = "a request does nothing unless it is sent"]
pub struct HttpRequest {
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Vec<u8>,
    ends: Option<Instant>,
    timeout: Option<Duration>,
    max_body: u64,
    mistake: Option<String>,
}

impl HttpRequest {
    /// Adds a header beside those of the same name.
    pub fn header(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        let name = HeaderName::from_bytes(name.as_ref());
        // The value may be a secret: it is not named.
        match (name, HeaderValue::from_bytes(value.as_ref())) {
            (Ok(name), Ok(value)) => _ = self.headers.append(name, value),
            (Ok(name), Err(_)) => self.wrong(format!("the value of header `{name}` is none")),
            (Err(_), _) => self.wrong("a header's name is no token".to_owned()),
        }
        self
    }

    /// Adds `Authorization: Bearer TOKEN`.
    pub fn bearer(self, token: impl AsRef<str>) -> Self {
        self.header("authorization", format!("Bearer {}", token.as_ref()))
    }

    /// Adds arguments to the URL's query, encoded: the way for values that come from a client.
    ///
    /// ```
    /// # use plugin_abi::prelude::*;
    /// let request = HttpClient::new()
    ///     .get("http://quota/check?v=1")
    ///     .query([("user", "a b&admin=1")]);
    /// assert_eq!(request.url(), "http://quota/check?v=1&user=a+b%26admin%3D1");
    /// ```
    pub fn query<K: AsRef<str>, V: AsRef<str>>(
        mut self,
        arguments: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let encoded = encoded(arguments);
        if encoded.is_empty() {
            return self;
        }
        // A fragment is nobody's business but a browser's.
        let end = self.url.find('#').unwrap_or(self.url.len());
        self.url.truncate(end);
        match self.url.find('?') {
            None => self.url.push('?'),
            Some(_) if self.url.ends_with(['?', '&']) => {}
            Some(_) => self.url.push('&'),
        }
        self.url.push_str(&encoded);
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the body to a value's JSON, and `Content-Type` with it.
    pub fn json(mut self, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(json) => self.body = json,
            Err(error) => self.wrong(format!("its body cannot be written as JSON: {error}")),
        }
        self.content_type("application/json")
    }

    /// Sets the body to what an HTML form would send, and `Content-Type` with it.
    pub fn form<K: AsRef<str>, V: AsRef<str>>(
        mut self,
        fields: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.body = encoded(fields).into_bytes();
        self.content_type("application/x-www-form-urlencoded")
    }

    fn content_type(mut self, value: &'static str) -> Self {
        self.headers
            .insert(http::header::CONTENT_TYPE, HeaderValue::from_static(value));
        self
    }

    /// Bounds the whole exchange, the response's body included. The call's own end stays a bound.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Bounds the response's body, in bytes; [`DEFAULT_MAX_BODY`] otherwise. The host's own bound
    /// (`--http-client-max-body`) stays.
    pub fn max_body(mut self, bytes: u64) -> Self {
        self.max_body = bytes;
        self
    }

    /// The URL as it is so far.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends it, and waits for the head of the response. Dropping the future gives the request up.
    ///
    /// # Errors
    /// See [`HttpErrorKind`]. A status of 400 or 500 is none: it is an answer.
    pub async fn send(self) -> Result<HttpResponse, HttpError> {
        export::needs_http_client();
        if let Some(mistake) = self.mistake {
            return Err(HttpError::new(HttpErrorKind::Request, mistake));
        }
        let Some(host) = host() else {
            let message = "only a plugin that plugin-host has loaded has a client";
            return Err(HttpError::new(HttpErrorKind::Unavailable, message));
        };
        let left = self
            .ends
            .map(|ends| ends.saturating_duration_since(time::now()));
        let timeout = match (self.timeout, left) {
            (Some(timeout), Some(left)) => timeout.min(left),
            (Some(timeout), None) => timeout,
            (None, Some(left)) => left,
            (None, None) => DEFAULT_TIME,
        };
        let headers = self.headers.iter().map(|(name, value)| OwnedField {
            name: name.as_str().as_bytes().into(),
            value: value.as_bytes().into(),
        });
        let outgoing = Outgoing {
            headers: headers.collect(),
            method: self.method,
            url: self.url,
            body: self.body.into(),
            nanoseconds: u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX),
            max_body: self.max_body,
        };
        let outgoing = OutgoingRequest_TO::from_value(outgoing, TD_Opaque);
        match host.fetch(outgoing).await {
            RResult::ROk(incoming) => Ok(HttpResponse::new(incoming)),
            RResult::RErr(failure) => Err(failure.into()),
        }
    }

    fn wrong(&mut self, mistake: String) {
        self.mistake.get_or_insert(mistake);
    }
}

impl fmt::Debug for HttpRequest {
    /// No more than the method: the rest may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRequest")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

fn encoded<K: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (K, V)>) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

/// What the host asks a request for.
struct Outgoing {
    method: Method,
    url: String,
    headers: Vec<OwnedField>,
    body: RVec<u8>,
    nanoseconds: u64,
    max_body: u64,
}

impl OutgoingRequest for Outgoing {
    fn method(&self) -> RSlice<'_, u8> {
        self.method.as_str().as_bytes().into()
    }

    fn url(&self) -> RStr<'_> {
        self.url.as_str().into()
    }

    fn headers(&self) -> RSlice<'_, OwnedField> {
        self.headers.as_slice().into()
    }

    fn take_body(&mut self) -> RVec<u8> {
        std::mem::take(&mut self.body)
    }

    fn nanoseconds(&self) -> u64 {
        self.nanoseconds
    }

    fn max_body_bytes(&self) -> u64 {
        self.max_body
    }
}

/// A response whose head has arrived. Dropping it ends the exchange; a connection whose response was
/// read to its end is used again.
pub struct HttpResponse {
    status: StatusCode,
    headers: HeaderMap,
    incoming: IncomingObject,
}

impl HttpResponse {
    fn new(incoming: IncomingObject) -> Self {
        let mut headers = HeaderMap::new();
        for field in incoming.headers().iter() {
            let name = HeaderName::from_bytes(&field.name);
            // The host has read them as such.
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(&field.value)) {
                headers.append(name, value);
            }
        }
        Self {
            // So it has the status.
            status: StatusCode::from_u16(incoming.status()).unwrap_or_default(),
            headers,
            incoming,
        }
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// All headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The first value of a header as text; none where it is absent or not visible ASCII.
    #[must_use]
    pub fn header_str(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The same response, or an error where its status is 400 or above.
    ///
    /// # Errors
    /// [`HttpErrorKind::Status`].
    pub fn error_for_status(self) -> Result<Self, HttpError> {
        if self.status.is_client_error() || self.status.is_server_error() {
            let message = format!("the answer was {}", self.status);
            return Err(HttpError::new(HttpErrorKind::Status(self.status), message));
        }
        Ok(self)
    }

    /// The next piece of the body as it arrives; none at its end.
    ///
    /// # Errors
    /// The connection broke, the time was over, or the body was larger than allowed.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, HttpError> {
        match self.incoming.chunk().await {
            RResult::ROk(chunk) => Ok(chunk.into_option().map(Into::into)),
            RResult::RErr(failure) => Err(failure.into()),
        }
    }

    /// The whole body.
    ///
    /// # Errors
    /// As for [`HttpResponse::chunk`].
    pub async fn bytes(mut self) -> Result<Vec<u8>, HttpError> {
        // Most bodies are one piece, which then is the whole.
        let mut whole = self.chunk().await?.unwrap_or_default();
        while let Some(chunk) = self.chunk().await? {
            whole.extend_from_slice(&chunk);
        }
        Ok(whole)
    }

    /// The whole body as text.
    ///
    /// # Errors
    /// As for [`HttpResponse::chunk`], and [`HttpErrorKind::Content`] where it is not UTF-8.
    pub async fn text(self) -> Result<String, HttpError> {
        String::from_utf8(self.bytes().await?).map_err(|_| {
            HttpError::new(
                HttpErrorKind::Content,
                "the answer's body is not UTF-8 text",
            )
        })
    }

    /// The whole body, read as JSON.
    ///
    /// # Errors
    /// As for [`HttpResponse::chunk`], and [`HttpErrorKind::Content`] where it does not fit the type;
    /// the message says where, and nothing of what was found there.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, HttpError> {
        serde_json::from_slice(&self.bytes().await?).map_err(|error| {
            // The error's own text may quote a value.
            let message = format!(
                "the answer's body is not the expected JSON: line {}, column {}",
                error.line(),
                error.column()
            );
            HttpError::new(HttpErrorKind::Content, message)
        })
    }
}

impl fmt::Debug for HttpResponse {
    /// No more than the status: the rest may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpResponse")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// Why an exchange with another service failed. The text names the service's host and port and
/// nothing else of the URL, so that it can be logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpError {
    kind: HttpErrorKind,
    message: String,
}

/// Kind of an [`HttpError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpErrorKind {
    /// It is no request that could be sent (URL, header); nothing was.
    Request,
    /// Nobody could be reached.
    Connect,
    /// The connection could not be secured: certificate, name, version.
    Tls,
    /// The time was over: its own or the call's.
    Timeout,
    /// The connection ended early, or what came over it was no HTTP.
    Broken,
    /// Headers or body are larger than allowed.
    TooLarge,
    /// The host's bound on requests or connections was reached until the time was over.
    Busy,
    /// The host has no client (it is older), or its operator has switched it off.
    Unavailable,
    /// The status that [`HttpResponse::error_for_status`] found.
    Status(StatusCode),
    /// The body is not what it was read as.
    Content,
    /// The host gave a reason that this version of `plugin-abi` does not know.
    Other(u8),
}

impl HttpError {
    fn new(kind: HttpErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> HttpErrorKind {
        self.kind
    }
}

impl From<HttpFailure> for HttpError {
    fn from(failure: HttpFailure) -> Self {
        let kind = match failure.kind {
            HttpFailureKind::REQUEST => HttpErrorKind::Request,
            HttpFailureKind::CONNECT => HttpErrorKind::Connect,
            HttpFailureKind::TLS => HttpErrorKind::Tls,
            HttpFailureKind::TIMEOUT => HttpErrorKind::Timeout,
            HttpFailureKind::BROKEN => HttpErrorKind::Broken,
            HttpFailureKind::TOO_LARGE => HttpErrorKind::TooLarge,
            HttpFailureKind::BUSY => HttpErrorKind::Busy,
            HttpFailureKind::UNAVAILABLE => HttpErrorKind::Unavailable,
            HttpFailureKind(other) => HttpErrorKind::Other(other),
        };
        Self::new(kind, failure.message)
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for HttpError {}
