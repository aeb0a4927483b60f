//! Asking a host as operators, probes and browsers do: over its control socket, or an address.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    time::Duration,
};

use serde_json::Value;

use super::{
    host::{Host, PATIENCE, wait_for},
    workers::control_socket,
};

/// What a host has answered.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    /// A header, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find_map(|(known, value)| (known == name).then_some(value.as_str()))
    }

    /// The body.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The detail of a refusal, which is a problem with this status and all that belongs to one.
    pub(crate) fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        let media_type = self.header("content-type");
        assert_eq!(media_type, Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["type"], "about:blank");
        assert_eq!(problem["status"], status);
        assert!(problem["title"].is_string(), "{problem}");
        problem["detail"].as_str().unwrap().to_owned()
    }
}

/// A request, for one connection of its own.
#[derive(Clone)]
pub(crate) struct Ask {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
    /// That the body has, as the request says.
    length: Option<usize>,
}

/// Asks for a path.
pub(crate) fn get(path: &str) -> Ask {
    ask("GET", path)
}

/// Asks for an action.
pub(crate) fn post(path: &str) -> Ask {
    ask("POST", path)
}

/// Asks with any method.
pub(crate) fn ask(method: &str, path: &str) -> Ask {
    Ask {
        method: method.to_owned(),
        path: path.to_owned(),
        headers: Vec::new(),
        body: String::new(),
        length: None,
    }
}

impl Ask {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(self, body: impl ToString) -> Self {
        Self {
            body: body.to_string(),
            ..self.header("Content-Type", "application/json")
        }
    }

    /// Over a host's control socket.
    pub(crate) fn of(&self, host: &Host) -> Reply {
        let socket = wait_for("the control socket", || control_socket(host.directory()));
        self.over(UnixStream::connect(socket).unwrap(), "localhost")
    }

    /// The same without waiting for the answer.
    pub(crate) fn begin(&self, host: &Host) -> UnixStream {
        let socket = wait_for("the control socket", || control_socket(host.directory()));
        let mut stream = UnixStream::connect(socket).unwrap();
        self.send(&mut stream, "localhost").unwrap();
        stream
    }

    /// Over a host's control socket, promising a body that never comes.
    pub(crate) fn of_a_length(mut self, host: &Host, length: usize) -> Reply {
        self.length = Some(length);
        self.of(host)
    }

    /// Over an address, as soon as somebody listens there.
    pub(crate) fn at(&self, address: SocketAddr) -> Reply {
        let stream = wait_for("somebody listens", || TcpStream::connect(address).ok());
        self.over(stream, &address.to_string())
    }

    fn over(&self, mut stream: impl Read + Write, host: &str) -> Reply {
        self.send(&mut stream, host).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        reply(&answer)
    }

    fn send(&self, stream: &mut impl Write, host: &str) -> io::Result<()> {
        let Self {
            method, path, body, ..
        } = self;
        let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !self.headers.iter().any(|(name, _)| name == "Host") {
            text += &format!("Host: {host}\r\n");
        }
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        let length = self.length.unwrap_or(body.len());
        text += &format!("Content-Length: {length}\r\n\r\n{body}");
        stream.write_all(text.as_bytes())
    }

    /// Over a host's control socket, reading until the answer has this text in it.
    pub(crate) fn follow(&self, host: &Host, until: &str) -> String {
        let socket = wait_for("the control socket", || control_socket(host.directory()));
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        self.send(&mut stream, "localhost").unwrap();
        read_until(&mut stream, until)
    }
}

/// Reads until this text has come.
pub(crate) fn read_until(stream: &mut impl Read, until: &str) -> String {
    let mut text = Vec::new();
    let mut part = [0; 4_096];
    while !String::from_utf8_lossy(&text).contains(until) {
        let read = stream.read(&mut part).unwrap();
        let so_far = String::from_utf8_lossy(&text);
        assert!(read > 0, "{until:?} did not come: {so_far}");
        text.extend_from_slice(&part[..read]);
    }
    String::from_utf8(text).unwrap()
}

fn reply(answer: &str) -> Reply {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap();
    let headers = lines.map(|line| line.split_once(':').unwrap());
    Reply {
        status: status.parse().unwrap(),
        headers: headers
            .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
            .collect(),
        body: body.to_owned(),
    }
}

/// An address of this machine on which nobody listens.
pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// How long a test waits to see that something does not happen.
pub(crate) const MOMENT: Duration = Duration::from_millis(300);
