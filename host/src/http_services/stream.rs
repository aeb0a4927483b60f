//! The bytes of one client: over TCP or a Unix socket, those first that another worker has read.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    task::{Context, Poll},
};

use hyper::body::{Buf, Bytes};
use rustix::net::AddressFamily;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};

/// A listener of either kind.
#[derive(Debug)]
pub enum Listener {
    /// Over TCP.
    Tcp(TcpListener),
    /// Over a Unix socket.
    Unix(UnixListener),
}

impl Listener {
    /// A socket that listens, on the current runtime.
    ///
    /// # Errors
    /// It is no such socket, or cannot be watched.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(match is_unix(&socket)? {
            true => {
                let listener = std::os::unix::net::UnixListener::from(socket);
                listener.set_nonblocking(true)?;
                Self::Unix(UnixListener::from_std(listener)?)
            }
            false => {
                let listener = std::net::TcpListener::from(socket);
                listener.set_nonblocking(true)?;
                Self::Tcp(TcpListener::from_std(listener)?)
            }
        })
    }

    /// The next client.
    ///
    /// # Errors
    /// The system's reason, mostly that there are no descriptors left.
    pub async fn accept(&self) -> io::Result<Stream> {
        let kind = match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Kind::Tcp(stream)
            }
            Self::Unix(listener) => Kind::Unix(listener.accept().await?.0),
        };
        Ok(Stream {
            read: Bytes::new(),
            kind,
        })
    }
}

/// A client.
#[derive(Debug)]
pub struct Stream {
    /// What has been read of it already.
    read: Bytes,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// A client whom another worker has served, and what that one has read of its next request; on the
    /// current runtime.
    ///
    /// # Errors
    /// It is no socket, or cannot be watched.
    pub fn given(socket: OwnedFd, read: Vec<u8>) -> io::Result<Self> {
        let kind = match is_unix(&socket)? {
            true => {
                let stream = std::os::unix::net::UnixStream::from(socket);
                Kind::Unix(UnixStream::from_std(stream)?)
            }
            false => Kind::Tcp(TcpStream::from_std(std::net::TcpStream::from(socket))?),
        };
        Ok(Self {
            read: read.into(),
            kind,
        })
    }

    /// The socket, and what has been read of it and not been used, for another worker.
    ///
    /// # Errors
    /// The system's reason.
    pub fn into_parts(self) -> io::Result<(OwnedFd, Bytes)> {
        let socket = match self.kind {
            Kind::Tcp(stream) => stream.into_std()?.into(),
            Kind::Unix(stream) => stream.into_std()?.into(),
        };
        Ok((socket, self.read))
    }

    /// The client's address; none over a Unix socket.
    pub fn client(&self) -> Option<IpAddr> {
        match &self.kind {
            Kind::Tcp(stream) => Some(stream.peer_addr().ok()?.ip().to_canonical()),
            Kind::Unix(_) => None,
        }
    }
}

fn is_unix(socket: impl AsFd) -> io::Result<bool> {
    Ok(rustix::net::sockopt::socket_domain(socket)? == AddressFamily::UNIX)
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.read.is_empty() {
            let some = self.read.len().min(into.remaining());
            into.put_slice(&self.read[..some]);
            self.read.advance(some);
            return Poll::Ready(Ok(()));
        }
        match &mut self.kind {
            Kind::Tcp(stream) => Pin::new(stream).poll_read(context, into),
            Kind::Unix(stream) => Pin::new(stream).poll_read(context, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.kind {
            Kind::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Kind::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.kind {
            Kind::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Kind::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.kind {
            Kind::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Kind::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.kind {
            Kind::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Kind::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
