//! What host and gateway make of a call when its plugins are through: the request for the upstream,
//! the response for the client.

use http::Method;

use super::{
    call::{Call, reply_headers},
    client_request::ClientRequest,
    encoding,
    fields::{Case, Field, put},
    response::{ClientResponse, UpstreamResponse},
    upstream_request::UpstreamRequest,
};
use crate::abi::ReplyParts;

/// Response headers that the gateway takes from the upstream only.
const UPSTREAM_ONLY: [&str; 10] = [
    "connection",
    "content-length",
    "transfer-encoding",
    "location",
    "server",
    "www-authenticate",
    "content-encoding",
    "content-type",
    "content-location",
    "content-language",
];

const DEFAULT_TYPE: &str = "text/plain; charset=utf-8";

/// What the client gets where a plugin fails on a response.
const RESPONSE_FAILED: &str = "503 Service Unavailable: this response could not be processed.\n";

/// A request that goes on, with the changes of its plugins.
pub(super) fn passed(request: &ClientRequest, call: Option<&Call>) -> UpstreamRequest {
    let mut upstream = UpstreamRequest {
        method: request.method.clone(),
        uri: request.raw.clone(),
        headers: request.headers.clone(),
        body: request.body.clone(),
        response_headers: Vec::new(),
    };
    let Some(call) = call else { return upstream };
    for name in &call.headers.touched {
        let last = call
            .headers
            .now
            .iter()
            .rfind(|header| Case::Ignored.same(&header.name, name));
        match last {
            Some(header) => {
                let header = Field::new(&header.name, encoding::header_value(header.value()));
                put(&mut upstream.headers, Case::Ignored, header);
            }
            // There is no request without a host.
            None if Case::Ignored.same(name, b"host") => {}
            None => upstream
                .headers
                .retain(|header| !Case::Ignored.same(&header.name, name)),
        }
    }
    if call.path.is_some() || !call.arguments.touched.is_empty() {
        upstream.uri = uri(request, call);
    }
    if let Some(body) = &call.body {
        upstream.body.clone_from(body);
        let length = Field::new("content-length", body.len().to_string());
        put(&mut upstream.headers, Case::Ignored, length);
    }
    let recorded = call.response_headers.now.iter();
    upstream.response_headers = recorded
        .filter(|header| !upstream_only(&header.name))
        .cloned()
        .collect();
    upstream
}

/// Path and query after changes: arguments that nobody has touched first.
fn uri(request: &ClientRequest, call: &Call) -> String {
    let path = encoding::path(call.path.as_ref().unwrap_or(&request.path));
    if call.arguments.touched.is_empty() {
        return match &request.query {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
    }
    let (touched, rest): (Vec<_>, Vec<_>) = call
        .arguments
        .now
        .iter()
        .cloned()
        .partition(|argument| call.arguments.was_touched(&argument.name));
    let mut all = rest;
    for name in &call.arguments.touched {
        let named = touched.iter().filter(|argument| argument.name == *name);
        // No value would delete them all, so a flag beside others of its name becomes `name=`.
        all.extend(named.map(|argument| Field::new(name, argument.value())));
    }
    match all.as_slice() {
        [] => path,
        all => format!("{path}?{}", encoding::query(all)),
    }
}

/// A plugin's answer to the client.
pub(super) fn stopped(call: &Call, reply: &ReplyParts) -> ClientResponse {
    let mut headers = reply_headers(reply);
    // What earlier plugins recorded for the client's response would be lost: this is that response.
    headers.extend(call.response_headers.now.iter().cloned());
    headers.retain(|header| !written_by_the_gateway(&header.name));
    if reply.body.is_empty() && reply.status >= 400 {
        headers.retain(|header| !Case::Ignored.same(&header.name, b"content-type"));
        let mut page = error_page(reply.status);
        page.headers.extend(headers);
        return page;
    }
    answer(reply.status, headers, reply.body.to_vec())
}

/// A response with the changes of its plugins.
pub(super) fn responded(response: &UpstreamResponse, call: &Call) -> ClientResponse {
    let mut headers = call.headers.now.clone();
    headers.retain(|header| !written_by_the_gateway(&header.name));
    let status = call.status.unwrap_or(response.status);
    let body = match &call.body {
        _ if bodiless(status) || response.request.method == Method::HEAD => &[],
        Some(body) => body.as_slice(),
        // Without a byte, the gateway would send the request upstream a second time.
        None if bodiless(response.status) => b" ",
        None => &response.body,
    };
    answer(status, headers, body.to_vec())
}

/// A response that no plugin has looked at, with the headers that plugins recorded for it.
pub(super) fn proxied(response: &UpstreamResponse, recorded: &[Field]) -> ClientResponse {
    let mut headers = response.headers.clone();
    headers.extend(recorded.iter().cloned());
    let none = bodiless(response.status) || response.request.method == Method::HEAD;
    ClientResponse {
        status: response.status,
        headers,
        body: if none {
            Vec::new()
        } else {
            response.body.clone()
        },
        is_error_page: false,
    }
}

/// Adds what plugins recorded in the request phase to a response that other plugins have seen.
pub(super) fn add_recorded(response: &mut ClientResponse, recorded: &[Field]) {
    let is_there = |header: &&Field| {
        let same = |own: &Field| Case::Ignored.same(&own.name, &header.name);
        response.headers.iter().any(same)
    };
    let added: Vec<_> = recorded
        .iter()
        .filter(|header| !is_there(header))
        .cloned()
        .collect();
    response.headers.extend(added);
}

/// What the client gets where a request's plugin failed.
pub(super) fn request_failed() -> ClientResponse {
    error_page(503)
}

/// What the client gets where a response's plugin failed.
pub(super) fn response_failed() -> ClientResponse {
    answer(503, Vec::new(), RESPONSE_FAILED.into())
}

/// An answer that a plugin has made: it has a type, whoever forgot to name it.
fn answer(status: u16, mut headers: Vec<Field>, body: Vec<u8>) -> ClientResponse {
    for header in &mut headers {
        header.value = Some(encoding::header_value(header.value()));
    }
    let named = headers
        .iter()
        .any(|header| Case::Ignored.same(&header.name, b"content-type"));
    if !named && !bodiless(status) {
        headers.push(Field::new("content-type", DEFAULT_TYPE));
    }
    ClientResponse {
        status,
        headers,
        body,
        is_error_page: false,
    }
}

fn error_page(status: u16) -> ClientResponse {
    ClientResponse {
        status,
        headers: vec![Field::new("content-type", "text/html; charset=utf-8")],
        body: format!("<html><body><h1>{status}</h1>the gateway's own page</body></html>").into(),
        is_error_page: true,
    }
}

fn bodiless(status: u16) -> bool {
    matches!(status, 204 | 304)
}

fn upstream_only(name: &[u8]) -> bool {
    UPSTREAM_ONLY
        .iter()
        .any(|other| Case::Ignored.same(name, other.as_bytes()))
}

/// What a plugin says about these does not count: they are the connection's.
fn written_by_the_gateway(name: &[u8]) -> bool {
    [
        "connection",
        "content-length",
        "transfer-encoding",
        "server",
    ]
    .iter()
    .any(|other| Case::Ignored.same(name, other.as_bytes()))
}
