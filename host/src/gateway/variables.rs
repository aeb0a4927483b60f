//! The value of an Nginx or gateway variable for one request.
//!
//! Names and values are those of the real gateway, as bytes. A variable that is not set is not the
//! same as an empty one. This module never changes a request.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::routes::{Node, Route};
use crate::client::{Field, joined, target, without_port};

/// What the gateway knows of a request when a variable is asked for. Cheap to make anew for each
/// question, since the request changes between them.
#[derive(Debug, Clone, Copy)]
pub struct Context<'r> {
    /// The client's end of the connection.
    pub client: SocketAddr,
    /// Our end of it.
    pub server: SocketAddr,
    /// `HTTP/1.0` or `HTTP/1.1`.
    pub protocol: &'r str,
    /// The method.
    pub method: &'r str,
    /// Path and query as the client sent them; no rewrite changes them.
    pub request_uri: &'r [u8],
    /// The client's path, decoded and in order; no rewrite changes it.
    pub path: &'r [u8],
    /// The query as it stands now, still encoded; none where there is no question mark.
    pub query: Option<&'r [u8]>,
    /// The request's headers as they stand now.
    pub headers: &'r [Field],
    /// The body, once somebody has asked for it: until then a real gateway has not read it.
    pub body: Option<&'r [u8]>,
    /// Bytes that the request has taken: request line, headers and body.
    pub request_length: u64,
    /// When the request came.
    pub received: SystemTime,
    /// 32 hexadecimal digits.
    pub request_id: &'r str,
    /// Counts the connections.
    pub connection: u64,
    /// Counts the requests of this connection, from 1.
    pub connection_requests: u64,
    /// The route that was found.
    pub route: Option<&'r Route>,
    /// Path and query for the upstream, where they differ from the client's.
    pub upstream_uri: Option<&'r [u8]>,
    /// The `Host` header for the upstream, as far as it is decided.
    pub upstream_host: Option<&'r [u8]>,
    /// The upstream's node, once it is chosen.
    pub node: Option<&'r Node>,
}

impl Context<'_> {
    /// The value of a variable; none where it is not set, or unknown.
    #[must_use]
    pub fn variable(&self, name: &[u8]) -> Option<Vec<u8>> {
        let name = std::str::from_utf8(name).ok()?;
        let value = match name {
            "remote_addr" | "realip_remote_addr" => self.client.ip().to_string().into(),
            "remote_port" | "realip_remote_port" => self.client.port().to_string().into(),
            "binary_remote_addr" => octets(self.client.ip()),
            "server_addr" => self.server.ip().to_string().into(),
            "server_port" => self.server.port().to_string().into(),
            "server_name" => b"_".to_vec(),
            "server_protocol" => self.protocol.into(),
            "hostname" => hostname(),
            "scheme" | "upstream_scheme" => b"http".to_vec(),
            "https" => Vec::new(),
            "request_method" | "method" => self.method.into(),
            "request_uri" | "real_request_uri" => self.request_uri.into(),
            "request" => [
                self.method.as_bytes(),
                self.request_uri,
                self.protocol.as_bytes(),
            ]
            .join(&b' '),
            "uri" | "document_uri" => self.path.into(),
            "args" | "query_string" => self.query?.into(),
            "is_args" => self
                .query
                .filter(|query| !query.is_empty())
                .map_or_else(Vec::new, |_| b"?".to_vec()),
            "host" => self.host(),
            "content_type" => self.header("content_type")?,
            "content_length" => self.header("content_length")?,
            "request_body" => self.body.filter(|body| !body.is_empty())?.into(),
            "request_length" => self.request_length.to_string().into(),
            "request_id" => self.request_id.into(),
            "request_time" => seconds(self.received.elapsed().unwrap_or_default()).into(),
            "msec" => seconds(
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default(),
            )
            .into(),
            "time_iso8601" => iso8601(SystemTime::now()).into(),
            "pid" => std::process::id().to_string().into(),
            "connection" => self.connection.to_string().into(),
            "connection_requests" => self.connection_requests.to_string().into(),
            // Nothing has been sent yet while a plugin runs, in the response phase either.
            "status" | "bytes_sent" | "body_bytes_sent" => b"0".to_vec(),
            "route_id" => self.route?.id.clone().into(),
            "route_name" => self.route?.name.clone()?.into(),
            "upstream_uri" => self.upstream_uri.unwrap_or_default().into(),
            "upstream_host" => self.upstream_host?.into(),
            "balancer_ip" => self.node?.host.clone().into(),
            "balancer_port" => self.node?.port.to_string().into(),
            _ => {
                if let Some(name) = name.strip_prefix("arg_") {
                    return self.argument(name.as_bytes());
                }
                if let Some(name) = name.strip_prefix("cookie_") {
                    return self.cookie(name.as_bytes());
                }
                return self.header(name.strip_prefix("http_")?);
            }
        };
        Some(value)
    }
}

impl Context<'_> {
    /// The `Host` header without its port, in lower case.
    fn host(&self) -> Vec<u8> {
        let host = self.header("host").unwrap_or_default();
        without_port(&host).to_ascii_lowercase()
    }

    /// A header by its name with underscores for dashes; repeated ones in one.
    fn header(&self, name: &str) -> Option<Vec<u8>> {
        joined(self.headers, &name.to_ascii_lowercase())
    }

    /// The first argument of a name, decoded. The gateway, other than Nginx, cares about case, and
    /// says `true` of one without a value.
    fn argument(&self, name: &[u8]) -> Option<Vec<u8>> {
        let arguments = target::arguments(self.query?);
        let found = arguments
            .into_iter()
            .find(|argument| argument.name == name)?;
        Some(found.value.unwrap_or_else(|| b"true".to_vec()))
    }

    /// The first cookie of a name.
    fn cookie(&self, name: &[u8]) -> Option<Vec<u8>> {
        let cookies = self.header("cookie")?;
        cookies.split(|byte| *byte == b';').find_map(|cookie| {
            let at = cookie.iter().position(|byte| *byte == b'=')?;
            (cookie[..at].trim_ascii() == name).then(|| cookie[at + 1..].trim_ascii().to_vec())
        })
    }
}

/// Replaces `$name` and `${name}` by the variables' values, as `proxy-rewrite` does; a variable
/// that is not set leaves nothing, and `\$` is a dollar.
#[must_use]
pub fn resolve(template: &str, context: &Context<'_>) -> Vec<u8> {
    let mut resolved = Vec::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        if let Some(literal) = rest[..at].strip_suffix('\\') {
            resolved.extend_from_slice(literal.as_bytes());
            resolved.push(b'$');
            rest = &rest[at + 1..];
            continue;
        }
        resolved.extend_from_slice(&rest.as_bytes()[..at]);
        let after = &rest[at + 1..];
        let (inner, braces) = match after.strip_prefix('{') {
            Some(inner) => (inner, true),
            None => (after, false),
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let length = inner.find(|c| !is_name(c)).unwrap_or(inner.len());
        let (name, end) = inner.split_at(length);
        let end = if braces {
            end.strip_prefix('}')
        } else {
            Some(end)
        };
        match end.filter(|_| !name.is_empty()) {
            Some(end) => {
                resolved.extend(context.variable(name.as_bytes()).unwrap_or_default());
                rest = end;
            }
            None => {
                resolved.push(b'$');
                rest = after;
            }
        }
    }
    resolved.extend_from_slice(rest.as_bytes());
    resolved
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

fn hostname() -> Vec<u8> {
    let name = std::fs::read("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim_ascii().to_vec()
}

/// Seconds with milliseconds, as Nginx writes times.
fn seconds(time: Duration) -> String {
    format!("{}.{:03}", time.as_secs(), time.subsec_millis())
}

/// A time in UTC: `2026-11-20T17:54:37+00:00`.
pub(crate) fn iso8601(time: SystemTime) -> String {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}+00:00")
}

/// Year, month and day, the given number of days after 1 January 1970.
fn date(mut days: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests;
