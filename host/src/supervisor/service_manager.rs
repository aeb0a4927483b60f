//! What the service manager hears that has started the host: when it is ready, that it lives, and when
//! it stops (`sd_notify`).
//!
//! A datagram to its socket, which never waits. Whether anything of it is true is decided elsewhere.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Instant,
};

use crate::config::ServiceManager;

/// Tells the service manager, each thing once.
#[derive(Debug)]
pub(super) struct Announcer {
    manager: ServiceManager,
    is_ready: bool,
    is_stopping: bool,
    status: String,
    last_sign: Option<Instant>,
}

impl Announcer {
    pub(super) fn new(manager: ServiceManager) -> Self {
        Self {
            manager,
            is_ready: false,
            is_stopping: false,
            status: String::new(),
            last_sign: None,
        }
    }

    /// The host could serve; a host that is no longer ready stays started.
    pub(super) fn is_ready(&mut self) {
        if !std::mem::replace(&mut self.is_ready, true) {
            self.tell("READY=1");
        }
    }

    /// The host is ending.
    pub(super) fn is_stopping(&mut self) {
        if !std::mem::replace(&mut self.is_stopping, true) {
            self.tell("STOPPING=1");
        }
    }

    /// What people are shown.
    pub(super) fn status(&mut self, status: String) {
        if self.status != status {
            self.tell(&format!("STATUS={status}"));
            self.status = status;
        }
    }

    /// The supervisor still does its work: told often enough for the manager's watchdog.
    pub(super) fn lives(&mut self) {
        let Some(every) = self.manager.watchdog else {
            return;
        };
        let is_due = |last: Instant| last.elapsed() >= every / 3;
        if self.last_sign.is_none_or(is_due) {
            self.last_sign = Some(Instant::now());
            self.tell("WATCHDOG=1");
        }
    }

    fn tell(&self, message: &str) {
        if let Err(error) = send(&self.manager.socket, message.as_bytes()) {
            tracing::debug!(message, %error, "the service manager does not listen");
        }
    }
}

fn send(socket: &OsStr, message: &[u8]) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let datagram = UnixDatagram::unbound()?;
    datagram.set_nonblocking(true)?;
    datagram.send_to_addr(message, &address)?;
    Ok(())
}
