//! The workers of a running host, as its control socket tells of them, and as the system does.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::host::PATIENCE;

/// What `GET /v1/workers` tells.
#[derive(Debug, Clone)]
pub(crate) struct Overview(pub(crate) Value);

impl Overview {
    /// Of the host that has this runtime directory to itself.
    pub(crate) fn of(runtime_dir: &Path) -> Option<Self> {
        let (status, body) = ask(runtime_dir, "GET", "/v1/workers").ok()?;
        (status == 200).then_some(Self(body))
    }

    /// The process of the worker that serves.
    pub(crate) fn serving(&self) -> Option<u32> {
        let workers = self.0["workers"].as_array()?;
        let serving = workers.iter().find(|worker| worker["phase"] == "serving")?;
        u32::try_from(serving["pid"].as_i64()?).ok()
    }

    /// A number, by its name.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let count = self.0[name].as_u64();
        count.unwrap_or_else(|| panic!("no {name} in {}", self.0))
    }
}

/// The control socket below a runtime directory that one host has to itself.
pub(crate) fn control_socket(runtime_dir: &Path) -> Option<PathBuf> {
    let addresses = fs::read_dir(runtime_dir.join("plugin-host")).ok()?;
    let mut sockets = addresses.map(|address| address.unwrap().path().join("control.sock"));
    sockets.find(|socket| socket.exists())
}

/// Asks the control socket; gives the status and the body.
pub(crate) fn ask(runtime_dir: &Path, method: &str, target: &str) -> io::Result<(u16, Value)> {
    let (head, body) = ask_for_text(runtime_dir, method, target, "application/json")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((
        status.ok_or(io::ErrorKind::InvalidData)?,
        serde_json::from_str(&body).unwrap_or(Value::Null),
    ))
}

/// The same for what is no JSON; gives the answer's head and its body.
pub(crate) fn ask_for_text(
    runtime_dir: &Path,
    method: &str,
    target: &str,
    accept: &str,
) -> io::Result<(String, String)> {
    let socket = control_socket(runtime_dir).ok_or(io::ErrorKind::NotFound)?;
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: host\r\nAccept: {accept}\r\nConnection: close\r\n\
         Content-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    Ok((head.to_owned(), body.to_owned()))
}

/// Every process that has this one above it, however far.
pub(crate) fn descendants(process: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut left = vec![process];
    while let Some(parent) = left.pop() {
        let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else {
            continue;
        };
        for thread in threads.filter_map(Result::ok) {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            let children = children
                .split_whitespace()
                .filter_map(|pid| pid.parse::<u32>().ok());
            left.extend(children.clone());
            found.extend(children);
        }
    }
    found
}

/// Memory of a process that is in use, in bytes: its proportional share, where the system tells.
pub(crate) fn memory(process: u32) -> u64 {
    let read = |file: &str, name: &str| {
        let text = fs::read_to_string(format!("/proc/{process}/{file}")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    1_024
        * read("smaps_rollup", "Pss:")
            .or_else(|| read("status", "VmRSS:"))
            .unwrap_or(0)
}
