//! Just enough of HTTP/1.1 to send one request to the development gateway, or to a host's listener for
//! services, and read its answer.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use super::{client_request::ClientRequest, fields::Field, response::ClientResponse};

/// How long the gateway may take for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends a request on a connection of its own and reads the whole answer.
pub(super) fn exchange(address: SocketAddr, request: &ClientRequest) -> io::Result<ClientResponse> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    exchange_on(stream, request)
}

/// The same over a Unix socket.
pub(super) fn exchange_at(socket: &Path, request: &ClientRequest) -> io::Result<ClientResponse> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    exchange_on(stream, request)
}

fn exchange_on(
    mut stream: impl Read + Write,
    request: &ClientRequest,
) -> io::Result<ClientResponse> {
    let mut sent = format!("{} {} HTTP/1.1\r\n", request.method, request.raw).into_bytes();
    for header in &request.headers {
        for part in [&header.name, &b": "[..], header.value(), b"\r\n"] {
            sent.extend_from_slice(part);
        }
    }
    sent.extend_from_slice(b"connection: close\r\n\r\n");
    sent.extend_from_slice(&request.body);
    stream.write_all(&sent)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    read(&answer).ok_or_else(|| {
        let shown = answer.escape_ascii();
        io::Error::new(io::ErrorKind::InvalidData, format!("no HTTP: {shown}"))
    })
}

fn read(answer: &[u8]) -> Option<ClientResponse> {
    let end = position(answer, b"\r\n\r\n")?;
    let (head, rest) = (&answer[..end], &answer[end + 4..]);
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let status_line = std::str::from_utf8(lines.next()?).ok()?;
    let status = status_line.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<Field> = lines
        .filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            Some(Field::new(&line[..colon], line[colon + 1..].trim_ascii()))
        })
        .collect();
    let has = |name: &str, value: &str| {
        let is = |header: &&Field| header.name.eq_ignore_ascii_case(name.as_bytes());
        let found = headers.iter().find(is);
        found.is_some_and(|header| header.value().starts_with(value.as_bytes()))
    };
    let body = match has("transfer-encoding", "chunked") {
        true => chunks(rest)?,
        false => rest.to_vec(),
    };
    let is_error_page =
        status >= 400 && has("content-type", "text/html") && has("server", "plugin-host-gateway");
    Some(ClientResponse {
        status,
        headers,
        body,
        is_error_page,
    })
}

fn chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = position(rest, b"\r\n")?;
        let size = std::str::from_utf8(&rest[..end]).ok()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        let begin = end + 2;
        body.extend_from_slice(rest.get(begin..begin + size)?);
        rest = rest.get(begin + size + 2..)?;
    }
}

fn position(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test says where it failed")]
    use super::*;

    #[test]
    fn an_answer_is_read_with_its_headers_and_chunks() {
        let answer = b"HTTP/1.1 418 I'm a teapot\r\nX-A: 1\r\nx-a:2\r\n\
            Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n";
        let read = read(answer).unwrap();
        assert_eq!((read.status(), read.text()), (418, "abc0123456789"));
        assert_eq!(read.headers("x-a"), ["1", "2"]);
        assert!(!read.is_error_page());
    }
}
