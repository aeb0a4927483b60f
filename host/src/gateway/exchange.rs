//! One request on its way through the gateway, and the changes that plugins make to it.
//!
//! Everything is bytes until it leaves. This module sends nothing, and never answers a client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use hyper::body::Bytes;

use super::encoding;
use super::routes::{Node, ProxyRewrite, Route};
use super::variables::{Context, resolve};
use crate::client::target::{Target, arguments};
use crate::client::{Field, Question, Request, Rewrite};

/// Headers of a call, at most; the real gateway looks at no more.
const MAX_CALL_HEADERS: usize = 100;

/// What belongs to a connection of a client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    /// The client's end.
    pub(super) client: SocketAddr,
    /// Our end.
    pub(super) server: SocketAddr,
    /// Counts connections.
    pub(super) connection: u64,
    /// Counts the requests of this one, from 1.
    pub(super) requests: u64,
}

/// A request as it stands now.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) peer: Client,
    pub(super) protocol: &'static str,
    pub(super) method: hyper::Method,
    /// As the client sent it.
    pub(super) target: Target,
    /// As it stands now; names as the client or a plugin wrote them, the client's in lower case.
    pub(super) headers: Vec<Field>,
    pub(super) body: Bytes,
    pub(super) route: Arc<Route>,
    pub(super) received: SystemTime,
    pub(super) request_id: String,
    pub(super) request_length: u64,
    /// Headers for the client's response that plugins have set.
    pub(super) response_headers: Vec<Field>,
    /// Path for the upstream, encoded, once somebody has changed it; without the query.
    path: Option<String>,
    /// Query as it stands now.
    query: Option<Vec<u8>>,
    /// The `Host` header for the upstream, once somebody has changed it.
    pub(super) upstream_host: Option<Vec<u8>>,
    pub(super) node: Option<Node>,
    /// Where it went upstream, for people.
    pub(super) reached: Option<String>,
    body_was_read: bool,
}

impl Exchange {
    #[allow(
        clippy::too_many_arguments,
        reason = "the parts of a request, put together in one place"
    )]
    pub(super) fn new(
        peer: Client,
        protocol: &'static str,
        method: hyper::Method,
        target: Target,
        headers: Vec<Field>,
        body: Bytes,
        route: Arc<Route>,
        request_id: String,
    ) -> Self {
        let query = target
            .query
            .as_ref()
            .map(|query| query.clone().into_bytes());
        let fields = headers.iter().map(|header| {
            let value = header.value.as_ref().map_or(0, Vec::len);
            header.name.len() + value + 4
        });
        let request_line = method.as_str().len() + target.raw.len() + protocol.len() + 4;
        let length = request_line + fields.sum::<usize>() + 2 + body.len();
        let mut exchange = Self {
            peer,
            protocol,
            method,
            target,
            headers,
            body,
            route,
            received: SystemTime::now(),
            request_id,
            request_length: u64::try_from(length).unwrap_or(u64::MAX),
            response_headers: Vec::new(),
            path: None,
            query,
            upstream_host: None,
            node: None,
            reached: None,
            body_was_read: false,
        };
        let host = exchange.context(|context| context.variable(b"host"));
        // The client's own are not believed.
        exchange.set_header("x-forwarded-proto", b"http");
        exchange.set_header("x-forwarded-host", &host.unwrap_or_default());
        let port = peer.server.port().to_string();
        exchange.set_header("x-forwarded-port", port.as_bytes());
        exchange
    }

    /// Makes a context for variables of the request as it stands now.
    pub(super) fn context<T>(&self, look: impl FnOnce(&Context<'_>) -> T) -> T {
        let upstream_uri = self.path.as_ref().map(|_| self.upstream_uri());
        look(&Context {
            client: self.peer.client,
            server: self.peer.server,
            protocol: self.protocol,
            method: self.method.as_str(),
            request_uri: self.target.raw.as_bytes(),
            path: &self.target.path,
            query: self.query.as_deref(),
            headers: &self.headers,
            body: self.body_was_read.then_some(&self.body[..]),
            request_length: self.request_length,
            received: self.received,
            request_id: &self.request_id,
            connection: self.peer.connection,
            connection_requests: self.peer.requests,
            route: Some(&self.route),
            upstream_uri: upstream_uri.as_deref().map(str::as_bytes),
            upstream_host: self.upstream_host.as_deref(),
            node: self.node.as_ref(),
        })
    }

    /// Answers what a plugin asks. The response's body is there once.
    pub(super) fn answer(
        &mut self,
        question: Question<'_>,
        response_body: &mut Option<Bytes>,
    ) -> Option<Vec<u8>> {
        match question {
            Question::Var(name) => self.context(|context| context.variable(name)),
            Question::RequestBody => {
                self.body_was_read = true;
                (!self.body.is_empty()).then(|| self.body.to_vec())
            }
            Question::ResponseBody => response_body.take().map(|body| body.to_vec()),
        }
    }

    /// What a plugin gets to see; none where the protocol has no name for the method.
    pub(super) fn as_call(&self) -> Option<Request> {
        let mut headers = self.headers.clone();
        for header in &mut headers {
            header.name.make_ascii_lowercase();
        }
        if let Some(host) = &self.upstream_host {
            headers.retain(|header| header.name != b"host");
            headers.push(Field::new("host", host.clone()));
        }
        headers.truncate(MAX_CALL_HEADERS);
        let path = match &self.path {
            Some(path) => Target::parse(path).map_or_else(|_| path.clone().into(), |t| t.path),
            None => self.target.path.clone(),
        };
        Some(Request {
            id: 0,
            method: self.method.as_str().parse().ok()?,
            path,
            args: self.query.as_deref().map(arguments).unwrap_or_default(),
            headers,
            client: self.peer.client.ip(),
        })
    }

    /// Changes the request as the gateway's own `proxy-rewrite` says.
    pub(super) fn proxy_rewrite(&mut self, rewrite: &ProxyRewrite) {
        let resolved = |exchange: &Self, template: &str| {
            exchange.context(|context| resolve(template, context))
        };
        if let Some(uri) = &rewrite.uri {
            let uri = resolved(self, uri);
            let at = uri.iter().position(|byte| *byte == b'?');
            let (path, query) = match at {
                Some(at) => (&uri[..at], Some(&uri[at + 1..])),
                None => (&uri[..], None),
            };
            self.path = Some(encoding::path(path));
            let own = self.query.take().filter(|query| !query.is_empty());
            self.query = match (query.map(<[u8]>::to_vec), own) {
                (Some(query), Some(own)) => Some([query, own].join(&b'&')),
                (query, own) => query.or(own),
            };
        }
        for (name, value) in &rewrite.add {
            let value = resolved(self, value);
            self.headers.push(Field::new(name.as_str(), value));
        }
        for (name, value) in &rewrite.set {
            let value = resolved(self, value);
            self.change_header(name.as_bytes(), Some(&value));
        }
        for name in &rewrite.remove {
            self.change_header(name.as_bytes(), None);
        }
    }

    /// Changes the request as a plugin says.
    pub(super) fn rewrite(&mut self, rewrite: Rewrite) {
        if let Some(path) = rewrite.path.filter(|path| !path.is_empty()) {
            self.path = Some(encoding::path(&path));
        }
        for header in &rewrite.headers {
            let value = header.value.as_deref().filter(|value| !value.is_empty());
            self.change_header(&header.name, value);
        }
        self.rewrite_arguments(rewrite.args);
        let mut named: Vec<Vec<u8>> = Vec::new();
        for header in rewrite.response_headers {
            let name = header.name.to_ascii_lowercase();
            if header.value.is_none() || super::answer::is_ignored(&name) {
                continue;
            }
            if !named.contains(&name) {
                self.response_headers.retain(|other| other.name != name);
                named.push(name.clone());
            }
            let value = header.value;
            self.response_headers.push(Field { name, value });
        }
        if let Some(body) = rewrite.body.filter(|body| !body.is_empty()) {
            // Headers stay as they are: the next plugin gets to see those of the old body, and the
            // upstream's are made from the new one.
            self.body = body.into();
        }
    }

    fn rewrite_arguments(&mut self, changes: Vec<Field>) {
        if changes.is_empty() {
            return;
        }
        let mut all = self.query.as_deref().map(arguments).unwrap_or_default();
        let mut named: Vec<Vec<u8>> = Vec::new();
        for change in changes {
            if !named.contains(&change.name) || change.value.is_none() {
                all.retain(|argument| argument.name != change.name);
                named.push(change.name.clone());
            }
            if change.value.is_some() {
                all.push(change);
            }
        }
        self.query = (!all.is_empty()).then(|| encoding::query(&all).into_bytes());
    }

    /// Sets or removes a header; `Host` is the upstream's.
    fn change_header(&mut self, name: &[u8], value: Option<&[u8]>) {
        if name.eq_ignore_ascii_case(b"host") {
            if let Some(value) = value {
                self.upstream_host = Some(value.to_vec());
            }
            return;
        }
        self.headers
            .retain(|header| !header.name.eq_ignore_ascii_case(name));
        if let Some(value) = value {
            self.headers.push(Field::new(name, value));
        }
    }

    fn set_header(&mut self, name: &str, value: &[u8]) {
        self.change_header(name.as_bytes(), Some(value));
    }

    /// The first header of a name.
    pub(super) fn header(&self, name: &str) -> Option<&[u8]> {
        let found = self
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name.as_bytes()));
        found.and_then(|header| header.value.as_deref())
    }

    /// Path and query for the upstream: the client's own bytes as long as nobody changes them.
    pub(super) fn upstream_uri(&self) -> String {
        let own = self.target.query.as_ref().map(String::as_bytes);
        if self.path.is_none() && own == self.query.as_deref() {
            return self.target.raw.clone();
        }
        let path = match &self.path {
            Some(path) => path.clone(),
            None => encoding::path(&self.target.path),
        };
        match &self.query {
            // Arguments are encoded, by the client or by us.
            Some(query) => format!("{path}?{}", String::from_utf8_lossy(query)),
            None => path,
        }
    }
}
