//! A request as a client sends it, with everything that the gateway knows of it beside.

use std::net::{IpAddr, Ipv4Addr};

use http::Method;
use serde_json::Value;

use super::{
    encoding,
    fields::{self, Case, Field, text},
};
use crate::AskError;

/// A request of this method for a path with its query, or the message says what is wrong with it:
/// `request(Method::PATCH, "/orders/7?dry-run")`.
///
/// # Panics
/// The target does not begin with `/`, or leads above the root: no gateway would take it.
#[track_caller]
pub fn request(method: Method, target: &str) -> ClientRequest {
    ClientRequest::new(method, target)
}

/// `GET` of a path with its query.
///
/// # Panics
/// As [`request`].
#[track_caller]
pub fn get(target: &str) -> ClientRequest {
    ClientRequest::new(Method::GET, target)
}

/// `POST` to a path with its query; the body comes with [`ClientRequest::body`].
///
/// # Panics
/// As [`request`].
#[track_caller]
pub fn post(target: &str) -> ClientRequest {
    ClientRequest::new(Method::POST, target)
}

/// `PUT` to a path with its query.
///
/// # Panics
/// As [`request`].
#[track_caller]
pub fn put(target: &str) -> ClientRequest {
    ClientRequest::new(Method::PUT, target)
}

/// `DELETE` of a path with its query.
///
/// # Panics
/// As [`request`].
#[track_caller]
pub fn delete(target: &str) -> ClientRequest {
    ClientRequest::new(Method::DELETE, target)
}

/// A request as a client sends it.
///
/// ```
/// use plugin_abi::testing::{json, post};
///
/// let request = post("/orders?dry-run")
///     .header("authorization", "Bearer abc")
///     .json(json!({ "item": 7 }))
///     .client_ip("192.0.2.7")
///     .var("route_id", "orders");
/// # let _ = request;
/// ```
#[derive(Debug, Clone)]
pub struct ClientRequest {
    pub(super) method: Method,
    /// Path and query as they travel.
    pub(super) raw: String,
    pub(super) path: Vec<u8>,
    pub(super) query: Option<String>,
    pub(super) headers: Vec<Field>,
    pub(super) body: Vec<u8>,
    pub(super) client_ip: IpAddr,
    pub(super) id: u32,
    variables: Vec<Field>,
    pub(super) refusal: Option<AskError>,
}

impl ClientRequest {
    #[track_caller]
    fn new(method: Method, target: &str) -> Self {
        assert!(
            target.starts_with('/'),
            "{target:?} is no path: write it from the / on, with its query"
        );
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        let Some(path) = encoding::normal_path(path) else {
            panic!("{target:?} leads above the root: a gateway refuses it");
        };
        Self {
            method,
            raw: target.to_owned(),
            path,
            query,
            headers: vec![Field::new("host", "localhost")],
            body: Vec::new(),
            client_ip: Ipv4Addr::LOCALHOST.into(),
            id: 1,
            variables: Vec::new(),
            refusal: None,
        }
    }

    /// Adds a header; the same name may come more than once, but for `host` and `content-length`,
    /// of which the last one stands.
    #[must_use]
    pub fn header(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        // The gateway's way to write names.
        let field = Field::new(name.as_ref().to_ascii_lowercase(), value);
        match field.name.as_slice() {
            b"host" | b"content-length" => fields::put(&mut self.headers, Case::Ignored, field),
            _ => self.headers.push(field),
        }
        self
    }

    /// Sets the body, and its length as a header.
    #[must_use]
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        let length = self.body.len().to_string();
        self.header("content-length", length)
    }

    /// Sets a body of JSON, and its type.
    #[must_use]
    pub fn json(self, body: Value) -> Self {
        self.header("content-type", "application/json")
            .body(body.to_string())
    }

    /// A body of so many bytes is announced, of which nothing is there: one that does not fit a
    /// frame (16,777,151 bytes and more) is [`AskError::BodyTooLarge`] for who asks for it.
    #[must_use]
    pub fn announced_body(self, bytes: u64) -> Self {
        self.header("content-length", bytes.to_string())
    }

    /// Where it comes from; 127.0.0.1 if nothing is said.
    ///
    /// # Panics
    /// It is no address.
    #[must_use]
    #[track_caller]
    pub fn client_ip(mut self, address: &str) -> Self {
        self.client_ip = match address.parse() {
            Ok(address) => address,
            Err(error) => panic!("{address:?} is no IP address: {error}"),
        };
        self
    }

    /// The gateway's number of the call.
    #[must_use]
    pub fn id(mut self, id: u32) -> Self {
        self.id = id;
        self
    }

    /// A variable of the gateway. Those that follow from the request (`request_method`, `uri`,
    /// `arg_NAME`, `http_NAME`, `remote_addr`, ...) are there by themselves; this one wins. All
    /// others are not set.
    #[must_use]
    pub fn var(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        fields::put(&mut self.variables, Case::Counts, Field::new(name, value));
        self
    }

    /// Whatever a plugin asks of the gateway ends with this error.
    #[must_use]
    pub fn refuse_questions(mut self, error: AskError) -> Self {
        self.refusal = Some(error);
        self
    }

    /// A variable, as the gateway would answer.
    pub(super) fn variable(&self, name: &str) -> Option<Vec<u8>> {
        let given = self
            .variables
            .iter()
            .find(|variable| variable.name == name.as_bytes());
        if let Some(given) = given {
            return given.value.clone();
        }
        let text = |text: &str| Some(text.as_bytes().to_vec());
        match name {
            "request_method" => text(self.method.as_str()),
            "request_uri" => text(&self.raw),
            "uri" => Some(self.path.clone()),
            "args" | "query_string" => self.query.as_deref().and_then(text),
            "is_args" => text(match self.query.as_deref() {
                None | Some("") => "",
                Some(_) => "?",
            }),
            "scheme" => text("http"),
            "host" => {
                let host = joined(&self.headers, "host")?;
                let name = text_before_port(&host);
                Some(name.to_ascii_lowercase())
            }
            "remote_addr" => text(&self.client_ip.to_string()),
            "content_type" => joined(&self.headers, "content_type"),
            "content_length" => joined(&self.headers, "content_length"),
            _ => {
                if let Some(argument) = name.strip_prefix("arg_") {
                    return self.argument(argument);
                }
                joined(&self.headers, name.strip_prefix("http_")?)
            }
        }
    }

    /// The first argument of a name; the gateway says `true` of one without a value.
    fn argument(&self, name: &str) -> Option<Vec<u8>> {
        let arguments = self.arguments();
        let found = arguments
            .into_iter()
            .find(|argument| argument.name == name.as_bytes())?;
        Some(found.value.unwrap_or_else(|| b"true".to_vec()))
    }

    pub(super) fn arguments(&self) -> Vec<Field> {
        let query = self.query.as_deref();
        query.map(encoding::arguments).unwrap_or_default()
    }
}

/// All values of a header by the name of its variable, which has `_` for `-`.
pub(super) fn joined(headers: &[Field], name: &str) -> Option<Vec<u8>> {
    let is = |header: &&Field| {
        let variable = text("a header's name", &header.name).replace('-', "_");
        variable.eq_ignore_ascii_case(name)
    };
    let values: Vec<_> = headers.iter().filter(is).map(Field::value).collect();
    (!values.is_empty()).then(|| values.join(&b", "[..]))
}

fn text_before_port(host: &[u8]) -> &[u8] {
    match host.iter().rposition(|byte| *byte == b':') {
        Some(colon) if !host.ends_with(b"]") => &host[..colon],
        _ => host,
    }
}
