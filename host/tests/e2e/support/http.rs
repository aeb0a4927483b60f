//! HTTP as bytes on a socket, and the development gateway in a process of its own.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::host::{PATIENCE, wait_for};

/// A running `plugin-host gateway`. Dropped, it is killed; where the test has failed, its log is
/// shown.
pub(crate) struct HttpGateway {
    directory: TempDir,
    address: SocketAddr,
    process: Child,
}

/// A response as it came.
#[derive(Debug)]
pub(crate) struct Response {
    /// The status line.
    pub(crate) status: String,
    /// The headers in their order, with names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// Everything after the head, as it travelled.
    pub(crate) raw_body: Vec<u8>,
}

impl HttpGateway {
    /// Starts a gateway with this route file, which talks to the host on this socket.
    pub(crate) fn start(routes: &str, socket: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("apisix.yaml"), routes).unwrap();
        Self::start_in(directory, &[&format!("--socket={}", socket.display())])
    }

    /// Starts a gateway with the route file in a directory, and these arguments.
    pub(crate) fn start_in(directory: TempDir, arguments: &[&str]) -> Self {
        let address = free_address();
        let log = File::create(directory.path().join("log")).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_plugin-host"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            // What it leaves behind when it is killed goes with the directory.
            .env("TMPDIR", directory.path())
            .arg("gateway")
            .arg("--routes")
            .arg(directory.path().join("apisix.yaml"))
            .arg(format!("--listen={address}"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut gateway = Self {
            directory,
            address,
            process,
        };
        wait_for("the gateway accepts connections", || {
            if let Some(status) = gateway.process.try_wait().unwrap() {
                panic!("the gateway has ended with {status}");
            }
            TcpStream::connect(address).ok()
        });
        gateway
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks it to stop and waits until it has.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        wait_for("the gateway ends", || self.process.try_wait().unwrap())
    }

    /// Its route file.
    pub(crate) fn routes(&self) -> PathBuf {
        self.directory.path().join("apisix.yaml")
    }

    /// What it has written so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Waits for a line of what it writes that has all of these in it.
    pub(crate) fn log_line(&self, parts: &[&str]) -> String {
        let has_all = |line: &&str| parts.iter().all(|part| line.contains(part));
        wait_for(&format!("a line of the log with {parts:?}"), || {
            self.log().lines().find(has_all).map(str::to_owned)
        })
    }

    /// Sends a request as it stands and reads until the connection's end.
    pub(crate) fn send(&self, request: &[u8]) -> Response {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let _ = stream.shutdown(Shutdown::Both);
        Response::read(&answer)
    }

    /// Sends a GET of this path, with these further lines in its head.
    pub(crate) fn get(&self, path: &str, headers: &[&str]) -> Response {
        let mut head = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|line| line.starts_with("Host:")) {
            head += "Host: gw.example\r\n";
        }
        for line in headers {
            head += &format!("{line}\r\n");
        }
        self.send(format!("{head}\r\n").as_bytes())
    }
}

impl Drop for HttpGateway {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            eprintln!("--- log of the gateway ---\n{}--- end ---", self.log());
        }
    }
}

impl Response {
    /// Reads a whole response from its bytes.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|part| part == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no head: {}", bytes.escape_ascii()));
        let (status, headers) = read_head(&bytes[..end]);
        Self {
            status,
            headers,
            raw_body: bytes[end + 4..].to_vec(),
        }
    }

    /// The status code.
    pub(crate) fn code(&self) -> u16 {
        let code = self.status.split(' ').nth(1);
        code.and_then(|code| code.parse().ok()).unwrap()
    }

    /// The first header of a name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body without the framing of its chunks.
    pub(crate) fn body(&self) -> String {
        let body = match self.header("transfer-encoding") {
            Some("chunked") => chunks(&self.raw_body).concat(),
            _ => self.raw_body.clone(),
        };
        latin1(&body)
    }
}

/// First line and headers of a head, each byte a character; names in lower case.
pub(crate) fn read_head(head: &[u8]) -> (String, Vec<(String, String)>) {
    let head = latin1(head);
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap().to_owned();
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(':').unwrap();
        let value = value.strip_prefix(' ').unwrap_or(value);
        (name.to_ascii_lowercase(), value.to_owned())
    });
    (first, headers.collect())
}

/// The chunks of a body that travels in chunks.
pub(crate) fn chunks(mut body: &[u8]) -> Vec<&[u8]> {
    let mut chunks = Vec::new();
    loop {
        let end = body.windows(2).position(|part| part == b"\r\n").unwrap();
        let size = usize::from_str_radix(&latin1(&body[..end]), 16).unwrap();
        if size == 0 {
            return chunks;
        }
        let (chunk, rest) = body[end + 2..].split_at(size);
        chunks.push(chunk);
        body = &rest[2..];
    }
}

/// Each byte as the character of its number.
pub(crate) fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// An address that nobody listens on. Somebody else may take it before it is used, in theory: the
/// system gives out others first.
pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}
