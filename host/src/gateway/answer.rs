//! Answers for clients: from a plugin, of the gateway's own, and the headers of both.

use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Frame};
use hyper::ext::ReasonPhrase;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, SERVER};
use hyper::{Response, StatusCode};

use super::encoding;
use crate::client::{Field, Stop};

/// A body on its way to a client.
pub(super) type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// What the gateway calls itself: not by the real one's name.
pub(super) const SERVER_NAME: &str = concat!("plugin-host-gateway/", env!("CARGO_PKG_VERSION"));

/// What the real gateway says of a body whose type nobody has named.
const DEFAULT_TYPE: &str = "text/plain; charset=utf-8";

/// Response headers that plugins cannot add, and that are lost where a plugin for responses gives
/// none of its own; in lower case.
const IGNORED: [&[u8]; 10] = [
    b"connection",
    b"content-length",
    b"transfer-encoding",
    b"location",
    b"server",
    b"www-authenticate",
    b"content-encoding",
    b"content-type",
    b"content-location",
    b"content-language",
];

/// Whether a header is one of those that cannot be added. In lower case.
pub(super) fn is_ignored(name: &[u8]) -> bool {
    IGNORED.contains(&name)
}

/// A body of a length that is not told in a header, as the real gateway sends what a plugin says.
pub(super) fn chunked(body: impl Into<Bytes>) -> Body {
    let body: Bytes = body.into();
    let frame = (!body.is_empty()).then(|| Ok(Frame::data(body)));
    StreamBody::new(futures_util::stream::iter(frame)).boxed_unsync()
}

/// A body of known length.
pub(super) fn whole(body: impl Into<Bytes>) -> Body {
    Full::new(body.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// An upstream's answer with its headers.
pub(super) fn passed(status: u16, headers: &[Field], body: Body) -> Response<Body> {
    let mut response = of_status(status_code(status), body);
    for header in headers {
        add(response.headers_mut(), header);
    }
    response
}

/// An answer that a plugin or the gateway has made: it has a type, whoever forgot to name it.
pub(super) fn response(status: u16, headers: &[Field], body: Body) -> Response<Body> {
    let mut response = passed(status, headers, body);
    let bare = matches!(response.status().as_u16(), 204 | 304);
    if !bare {
        let default = || HeaderValue::from_static(DEFAULT_TYPE);
        let headers = response.headers_mut();
        headers.entry(CONTENT_TYPE).or_insert_with(default);
    }
    response
}

/// A plugin's answer in place of the upstream's.
pub(super) fn stop(stop: Stop, pending: &[Field]) -> Response<Body> {
    let status = if stop.status == 0 { 200 } else { stop.status };
    let body = stop.body.unwrap_or_default();
    let named = |name: &[u8]| {
        let same =
            |header: &&Field| header.value.is_some() && header.name.eq_ignore_ascii_case(name);
        stop.headers.iter().find(same)
    };
    let mut headers: Vec<Field> = pending.to_vec();
    headers.retain(|header| named(&header.name).is_none());
    headers.extend(stop.headers.iter().cloned());
    if body.is_empty() && status >= 400 {
        let mut page = error_page(status);
        for header in headers.iter().filter(|header| {
            !header.name.eq_ignore_ascii_case(b"content-type")
                && !header.name.eq_ignore_ascii_case(b"content-length")
        }) {
            add(page.headers_mut(), header);
        }
        return page;
    }
    response(status, &headers, chunked(body))
}

/// The gateway's own page for an error.
pub(super) fn error_page(status: u16) -> Response<Body> {
    let code = status_code(status);
    let title = format!("{status} {}", reason(code));
    let title = title.trim();
    let page = format!(
        "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n\
         <hr><center>{SERVER_NAME}, for development</center>\r\n</body>\r\n</html>\r\n"
    );
    let mut response = of_status(code, whole(page));
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, html);
    response
}

/// Without headers; the status line is Nginx's.
fn of_status(code: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    if code.canonical_reason() != Some(reason(code)) {
        let words = ReasonPhrase::from_static(reason(code).as_bytes());
        response.extensions_mut().insert(words);
    }
    response
}

/// What the real gateway answers where no route matches.
pub(super) fn no_route() -> Response<Body> {
    response(
        404,
        &[],
        chunked("{\"error_msg\":\"404 Route Not Found\"}\n"),
    )
}

/// What every answer has, whoever made it.
pub(super) fn finish(response: &mut Response<Body>) {
    let name = HeaderValue::from_static(SERVER_NAME);
    response.headers_mut().insert(SERVER, name);
}

/// Adds a header to an answer, but none that is about the connection, which is ours.
pub(super) fn add(headers: &mut HeaderMap, header: &Field) {
    let is = |ours: &str| header.name.eq_ignore_ascii_case(ours.as_bytes());
    if !is("connection") && !is("transfer-encoding") && !is("keep-alive") {
        append(headers, header);
    }
}

/// Adds a header; one without value, or that HTTP has no place for, is left out.
pub(super) fn append(headers: &mut HeaderMap, header: &Field) {
    let Some(value) = &header.value else { return };
    let name = HeaderName::from_bytes(&header.name);
    let value = HeaderValue::from_bytes(&encoding::header_value(value));
    match (name, value) {
        (Ok(name), Ok(value)) => {
            headers.append(name, value);
        }
        _ => tracing::warn!(
            name = %header.name.escape_ascii(),
            "a header that HTTP cannot carry is left out"
        ),
    }
}

/// As the real gateway passes a status on; hyper writes none below 100 or above 999.
fn status_code(status: u16) -> StatusCode {
    match StatusCode::from_u16(status) {
        // A client would wait for the answer after these; the real gateway's clients do.
        Ok(code) if code.is_informational() => StatusCode::BAD_GATEWAY,
        Ok(code) => code,
        Err(_) if status < 100 => StatusCode::BAD_GATEWAY,
        Err(_) => StatusCode::OK,
    }
}

/// The words of a status, as Nginx puts them.
fn reason(code: StatusCode) -> &'static str {
    match code.as_u16() {
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Large",
        503 => "Service Temporarily Unavailable",
        504 => "Gateway Time-out",
        _ => code.canonical_reason().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::*;

    fn stopped(
        status: u16,
        headers: &[(&str, &str)],
        body: &str,
        pending: &[(&str, &str)],
    ) -> Response<Body> {
        let fields = |list: &[(&str, &str)]| -> Vec<Field> {
            list.iter()
                .map(|(name, value)| Field::new(*name, *value))
                .collect()
        };
        let answer = Stop {
            status,
            headers: fields(headers),
            body: Some(body.into()),
        };
        let mut response = stop(answer, &fields(pending));
        finish(&mut response);
        response
    }

    fn values<'r>(response: &'r Response<Body>, name: &str) -> Vec<&'r str> {
        let values = response.headers().get_all(name).iter();
        values.map(|value| value.to_str().unwrap()).collect()
    }

    #[test]
    fn repeated_headers_of_a_stop_are_all_sent_and_the_server_is_ours() {
        let response = stopped(
            0,
            &[
                ("Set-Cookie", "a=1"),
                ("set-cookie", "b=2"),
                ("Server", "x"),
                ("X", "a\r\nb"),
            ],
            "body",
            &[("set-cookie", "old=1"), ("x-kept", "1")],
        );
        assert_eq!(response.status(), 200);
        assert_eq!(values(&response, "set-cookie"), ["a=1", "b=2"]);
        assert_eq!(values(&response, "server"), [SERVER_NAME]);
        assert_eq!(values(&response, "x"), ["a%0D%0Ab"]);
        assert_eq!(values(&response, "x-kept"), ["1"]);
        assert_eq!(values(&response, "content-type"), [DEFAULT_TYPE]);
    }

    #[test]
    fn a_refusal_without_a_body_is_the_gateways_page() {
        let response = stopped(503, &[("x-why", "tired")], "", &[]);
        assert_eq!(
            values(&response, "content-type"),
            ["text/html; charset=utf-8"]
        );
        assert_eq!(values(&response, "x-why"), ["tired"]);
        let response = stopped(302, &[("location", "/")], "", &[]);
        assert_eq!(values(&response, "content-type"), [DEFAULT_TYPE]);
        assert_eq!(values(&response, "location"), ["/"]);
    }

    #[test]
    fn a_status_that_hyper_cannot_write_does_not_end_the_gateway() {
        for (status, expected) in [(99, 502), (101, 502), (65_535, 200), (600, 600), (0, 200)] {
            assert_eq!(
                stopped(status, &[], "b", &[]).status(),
                expected,
                "{status}"
            );
        }
    }
}
