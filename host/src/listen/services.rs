//! The socket that HTTP clients of plugins' services connect to. The supervisor has it; workers accept.
//!
//! A reload of the gateway starts the next host before this one is told to stop, so a TCP address is
//! shared with it for that moment; a Unix socket is replaced, as the gateway's is.

use std::{
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::{BindError, Binding};
use crate::{
    config::{Config, HttpAddress},
    runtime_dir::AddressLock,
};

/// A socket that listens.
#[derive(Debug)]
pub struct ServicesListener {
    /// Where, as it was written.
    address: String,
    socket: Arc<OwnedFd>,
    /// The file, where it is a Unix socket.
    file: Option<Binding>,
}

/// Why HTTP services cannot be served; the operator's to put right.
#[derive(Debug, thiserror::Error)]
pub enum ServicesError {
    /// The address cannot be had.
    #[error("cannot listen on {address} for HTTP services (--http-listen): {source}")]
    Tcp {
        /// Which.
        address: SocketAddr,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The path cannot be had.
    #[error("HTTP services (--http-listen): {0}")]
    Unix(#[from] BindError),
}

impl ServicesListener {
    /// Listens where the operator wants it.
    ///
    /// # Errors
    /// The address or the path cannot be had.
    pub fn bind(
        address: &HttpAddress,
        config: &Config,
        lock: AddressLock,
    ) -> Result<Self, ServicesError> {
        let (socket, file) = match address {
            HttpAddress::Tcp(address) => (bind_tcp(*address, config.backlog)?, None),
            HttpAddress::Unix(path) => {
                let mode = config.socket_mode;
                let (file, socket) = Binding::bind(path.path(), mode, config.backlog, lock)?;
                (socket.into(), Some(file))
            }
        };
        Ok(Self {
            address: address.to_string(),
            socket: Arc::new(socket),
            file,
        })
    }

    /// What the program before this one had bound, in the same process: [`ServicesListener::descriptors`].
    pub fn adopt(
        address: String,
        socket: OwnedFd,
        inode: Option<OwnedFd>,
        lock: AddressLock,
    ) -> Self {
        let path = address.strip_prefix("unix:").map(Path::new);
        let file = path.zip(inode);
        Self {
            file: file.map(|(path, inode)| Binding::adopt(path, inode, lock)),
            socket: Arc::new(socket),
            address,
        }
    }

    /// Where, as it was written.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The socket.
    pub fn socket(&self) -> &Arc<OwnedFd> {
        &self.socket
    }

    /// The socket, and what its file is known by where it has one.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let file = self.file.as_ref().map(Binding::inode);
        std::iter::once(self.socket.as_fd()).chain(file)
    }
}

fn bind_tcp(address: SocketAddr, backlog: u32) -> Result<OwnedFd, ServicesError> {
    let bind = || {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        // The kernel lets sockets of the same user share it, and nobody else's.
        sockopt::set_socket_reuseport(&socket, true)?;
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, i32::try_from(backlog).unwrap_or(i32::MAX))?;
        Ok::<_, rustix::io::Errno>(socket)
    };
    bind().map_err(|error| ServicesError::Tcp {
        address,
        source: error.into(),
    })
}
