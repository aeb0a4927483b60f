//! Web servers of a test's own, alone or over TLS: they answer what a function says, and remember what they
//! were asked.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{
    http::{latin1, read_head},
    service::Authority,
};

/// The names under which a server of a test is reached: the last one is no loopback address by its name,
/// but the system takes it for one.
pub(crate) const NAMES: [&str; 3] = ["127.0.0.1", "localhost", "0.0.0.0"];

/// A server, until its test ends.
pub(crate) struct Web {
    address: SocketAddr,
    scheme: &'static str,
    seen: Arc<Mutex<Vec<Asked>>>,
}

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// The path and what follows it.
    pub(crate) target: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// An answer.
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    says_length: bool,
}

impl Web {
    /// A server that this answers for, with a certificate of an authority where there is one.
    pub(crate) fn start(
        authority: Option<&Authority>,
        answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tls = authority.map(|authority| authority.tls(&NAMES));
        let web = Self {
            address: listener.local_addr().unwrap(),
            scheme: if tls.is_some() { "https" } else { "http" },
            seen: Arc::default(),
        };
        let (seen, answer) = (Arc::clone(&web.seen), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                let (stream, tls) = (stream.unwrap(), tls.clone());
                // Who has gone away, or does not trust it, does not want an answer.
                thread::spawn(move || serve(stream, tls, &seen, &*answer));
            }
        });
        web
    }

    /// Its address as URLs have it.
    pub(crate) fn authority(&self) -> String {
        self.address.to_string()
    }

    /// The URL of a path of it.
    pub(crate) fn url(&self, path: &str) -> String {
        self.url_of(NAMES[0], path)
    }

    /// The same under another name of this machine.
    pub(crate) fn url_of(&self, name: &str, path: &str) -> String {
        format!("{}://{name}:{}{path}", self.scheme, self.address.port())
    }

    /// What it was asked since the last time.
    pub(crate) fn seen(&self) -> Vec<Asked> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.drain(..).collect()
    }
}

fn serve(
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    seen: &Mutex<Vec<Asked>>,
    answer: &dyn Fn(&Asked) -> Reply,
) -> io::Result<()> {
    match tls {
        None => exchange(stream, seen, answer),
        Some(tls) => {
            let connection = ServerConnection::new(tls).unwrap();
            let mut stream = StreamOwned::new(connection, stream);
            exchange(&mut stream, seen, answer)?;
            stream.conn.send_close_notify();
            stream.flush()
        }
    }
}

/// One request and its answer.
fn exchange(
    mut stream: impl Read + Write,
    seen: &Mutex<Vec<Asked>>,
    answer: &dyn Fn(&Asked) -> Reply,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") {
            break end;
        }
        more(&mut stream, &mut bytes)?;
    };
    let (line, headers) = read_head(&bytes[..end]);
    let mut asked = Asked {
        method: line.split(' ').next().unwrap().to_owned(),
        target: line.split(' ').nth(1).unwrap().to_owned(),
        headers,
        body: Vec::new(),
    };
    let length = asked.header("content-length").unwrap_or("0");
    let length: usize = length.parse().unwrap();
    while bytes.len() < end + 4 + length {
        more(&mut stream, &mut bytes)?;
    }
    asked.body = bytes.split_off(end + 4);
    let reply = answer(&asked);
    seen.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(asked);
    let mut head = format!("HTTP/1.1 {} x\r\nconnection: close\r\n", reply.status);
    if reply.says_length {
        head += &format!("content-length: {}\r\n", reply.body.len());
    }
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(&reply.body)?;
    stream.flush()
}

fn more(stream: &mut impl Read, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut piece = [0; 4096];
    match stream.read(&mut piece)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        read => {
            bytes.extend_from_slice(&piece[..read]);
            Ok(())
        }
    }
}

impl Asked {
    /// The path alone.
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }

    /// What follows it.
    pub(crate) fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// The first header of a name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            says_length: true,
        }
    }

    /// Leads somewhere else.
    pub(crate) fn redirect(location: &str) -> Self {
        Self::new(307, "").header("location", location)
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// It ends with its connection.
    pub(crate) fn without_length(mut self) -> Self {
        self.says_length = false;
        self
    }

    /// What a CGI program has printed.
    pub(crate) fn of_cgi(printed: &[u8]) -> Self {
        let end = printed.windows(4).position(|part| part == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no head: {}", latin1(printed)));
        let head = [b"CGI\r\n", &printed[..end]].concat();
        let (_, mut headers) = read_head(&head);
        let status = headers.iter().position(|(name, _)| name == "status");
        let status = status.map_or("200".to_owned(), |index| headers.remove(index).1);
        Self {
            status: status.split(' ').next().unwrap().parse().unwrap(),
            headers,
            body: printed[end + 4..].to_vec(),
            says_length: true,
        }
    }
}
