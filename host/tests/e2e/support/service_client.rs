//! Clients of plugins' HTTP services: one connection that stays, and requests on it, as bytes.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use super::{
    asking::read_until,
    host::{PATIENCE, wait_for},
    http::{Response, read_head},
};

/// A connection.
pub(crate) struct Client<S: Read + Write> {
    stream: BufReader<S>,
}

/// Connects, as soon as somebody listens.
pub(crate) fn connect(address: SocketAddr) -> Client<TcpStream> {
    let stream = wait_for("somebody serves HTTP", || TcpStream::connect(address).ok());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Client {
        stream: BufReader::new(stream),
    }
}

/// The same to a Unix socket.
pub(crate) fn connect_unix(path: &Path) -> Client<UnixStream> {
    let stream = wait_for("somebody serves HTTP", || UnixStream::connect(path).ok());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Client {
        stream: BufReader::new(stream),
    }
}

impl Client<TcpStream> {
    /// Waits so long for what has to come.
    pub(crate) fn patience(&mut self, patience: Duration) {
        let stream = self.stream.get_ref();
        stream.set_read_timeout(Some(patience)).unwrap();
    }
}

impl<S: Read + Write> Client<S> {
    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// A GET, and its answer.
    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.ask("GET", path, &[], b"")
    }

    /// A request with these lines in its head and this body, and its answer.
    pub(crate) fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &[u8],
    ) -> Response {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: h\r\n");
        for header in headers {
            head += &format!("{header}\r\n");
        }
        if !body.is_empty() {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        let mut request = format!("{head}\r\n").into_bytes();
        request.extend(body);
        self.send(request);
        self.answer()
    }

    /// The next answer.
    pub(crate) fn answer(&mut self) -> Response {
        self.try_answer().unwrap()
    }

    /// The same where the connection may end before its end.
    pub(crate) fn try_answer(&mut self) -> io::Result<Response> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if self.stream.read_until(b'\n', &mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let (status, headers) = read_head(&head[..head.len() - 4]);
        let mut response = Response {
            status,
            headers,
            raw_body: Vec::new(),
        };
        if response.header("transfer-encoding") == Some("chunked") {
            loop {
                let begin = response.raw_body.len();
                if self.stream.read_until(b'\n', &mut response.raw_body)? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let line = String::from_utf8_lossy(&response.raw_body[begin..]).into_owned();
                let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
                let begin = response.raw_body.len();
                response.raw_body.resize(begin + size + 2, 0);
                self.stream.read_exact(&mut response.raw_body[begin..])?;
                if size == 0 {
                    return Ok(response);
                }
            }
        }
        let length = response.header("content-length").unwrap_or("0");
        response.raw_body.resize(length.parse().unwrap(), 0);
        self.stream.read_exact(&mut response.raw_body)?;
        Ok(response)
    }

    /// Reads until this text has come.
    pub(crate) fn until(&mut self, text: &str) {
        read_until(&mut self.stream, text);
    }

    /// Waits until the other side closes; gives what came before.
    pub(crate) fn end(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A connection that is reset has ended, too.
        let _ = self.stream.read_to_end(&mut rest);
        rest
    }
}
