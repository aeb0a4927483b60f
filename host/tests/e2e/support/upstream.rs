//! An upstream that answers what the test has laid out, and keeps what it was asked.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use parking_lot::Mutex;

use super::http::{chunks, read_head};

/// A request as the upstream got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) uri: String,
    /// In their order, with names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// An upstream on a port of its own, which serves one request on each connection.
pub(crate) struct Upstream {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    response: Vec<u8>,
    received: Vec<Received>,
}

impl Upstream {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared: Arc<Mutex<Shared>> = Arc::default();
        thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for stream in listener.incoming() {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || serve(&mut stream.unwrap(), &shared));
                }
            }
        });
        Self { address, shared }
    }

    /// Host and port, as a route file names them.
    pub(crate) fn node(&self) -> String {
        self.address.to_string()
    }

    /// The port of its node.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// What it sends from now on.
    pub(crate) fn answer(&self, response: Vec<u8>) {
        self.shared.lock().response = response;
    }

    /// What it got since it was asked last.
    pub(crate) fn received(&self) -> Vec<Received> {
        std::mem::take(&mut self.shared.lock().received)
    }
}

fn serve(stream: &mut TcpStream, shared: &Mutex<Shared>) {
    let mut bytes = Vec::new();
    let mut end = None;
    // Somebody who connects and sends nothing wants nothing.
    while end.is_none() && read_more(stream, &mut bytes) {
        end = bytes.windows(4).position(|part| part == b"\r\n\r\n");
    }
    let Some(end) = end else {
        return;
    };
    let (first, headers) = read_head(&bytes[..end]);
    let value = |name: &str| {
        let found = headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    };
    let body = if value("transfer-encoding") == Some("chunked") {
        while !bytes[end + 2..].ends_with(b"\r\n0\r\n\r\n") && read_more(stream, &mut bytes) {}
        chunks(&bytes[end + 4..]).concat()
    } else {
        let length = value("content-length").map_or(0, |length| length.parse().unwrap());
        while bytes.len() < end + 4 + length && read_more(stream, &mut bytes) {}
        bytes[end + 4..].to_vec()
    };
    let mut words = first.split(' ').map(str::to_owned);
    let response = {
        let mut shared = shared.lock();
        shared.received.push(Received {
            method: words.next().unwrap(),
            uri: words.next().unwrap(),
            headers,
            body,
        });
        shared.response.clone()
    };
    // The gateway may have seen enough.
    let _ = stream.write_all(&response);
}

fn read_more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> bool {
    let mut part = [0; 16_384];
    let read = stream.read(&mut part).unwrap_or(0);
    bytes.extend_from_slice(&part[..read]);
    read > 0
}
