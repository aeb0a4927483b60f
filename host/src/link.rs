//! What supervisor and worker say to each other: small messages with descriptors, over a socket
//! pair that keeps message boundaries.
//!
//! A message is one JSON object, then, after a zero byte, bytes that belong to it. Fields that one
//! side does not know it ignores, so that their versions may differ by a release while a host
//! upgrades itself; what they must agree on is [`PROTOCOL`]. Nothing here decides what a message
//! means.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{io::Interest, net::UnixDatagram};

use crate::{
    crash::{KnownGeneration, Mapping, Quarantined},
    plugin::{disabled::DisabledPlugin, event::PluginEvent, log_levels::LogLevels},
    server::handover::{MAX_BYTES_ALONG, Passed},
};

/// Version of these messages. A supervisor works with workers of this version and the one before.
pub const PROTOCOL: u32 = 2;

/// The version from which on plugins leave states to the next worker.
pub const STATES_SINCE: u32 = 2;

/// Bytes of one message, at most: what the kernel takes by default is a little more.
const MAX_MESSAGE_BYTES: usize = MAX_BYTES_ALONG + 64 * 1024;

/// Descriptors in one message, at most; the kernel takes 253.
pub const MAX_DESCRIPTORS: usize = 250;

/// From the supervisor to a worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum ToWorker {
    /// The first message. Descriptors: the listening socket, the slots of connections, those of
    /// threads, then the token journals of earlier workers, oldest first, then as [`Start::services`] says.
    Start(Box<Start>),
    /// Accept connections, and serve those that were given.
    Serve,
    /// Accept no more, and hand each connection over at its next boundary.
    Leave,
    /// A connection to serve. Descriptor: the connection. Bytes: what has been read of its frame.
    Give(Passed),
    /// End.
    Stop {
        /// Whether a successor listens on the path, which makes idle connections useless.
        successor: bool,
    },
    /// Look at the plugin directory now.
    Rescan,
    /// Another worker gives tokens too. Descriptor: its journal.
    Follow {
        /// The worker.
        worker: u32,
    },
    /// The other workers are gone: their journals have come to their ends.
    FollowNobody,
    /// Whoever may need the worker's newest journal has it.
    JournalIsKept,
    /// What plugins have left in the worker before. Descriptor: a file of states.
    States,
    /// A client of HTTP services to serve. Descriptor: the connection. Bytes: what has been read of its
    /// next request.
    GiveClient,
    /// Something that a later release says.
    #[serde(other)]
    Unknown,
}

/// What a worker needs to know to begin.
#[derive(Debug, Serialize, Deserialize)]
pub struct Start {
    /// The supervisor's [`PROTOCOL`].
    pub protocol: u32,
    /// The supervisor's process number: a worker that has another parent is an orphan.
    pub supervisor: i32,
    /// The worker's own number, counted from 1.
    pub worker: u32,
    /// The operator's configuration file and a copy of what the supervisor read in it, where there
    /// is one.
    pub config_file: Option<(PathBuf, PathBuf)>,
    /// Bound that the open files limit puts on connections.
    pub max_connections: usize,
    /// Directory of this worker alone.
    pub private_dir: PathBuf,
    /// Directory of the good generations, which workers hand on.
    pub kept_dir: PathBuf,
    /// The worker of each journal that comes along, and whether it lives.
    pub journals: Vec<(u32, bool)>,
    /// Builds of plugins that must not be loaded.
    #[serde(default)]
    pub quarantined: Vec<Quarantined>,
    /// Plugins that an operator has taken out of service.
    #[serde(default)]
    pub disabled: Vec<DisabledPlugin>,
    /// What an operator wants to have logged now; absent where that is what is configured.
    #[serde(default)]
    pub log_levels: Option<LogLevels>,
    /// Whether log lines may have colours.
    pub colours: bool,
    /// Whether the last descriptor is the socket that clients of HTTP services connect to.
    #[serde(default)]
    pub services: bool,
    /// Whether to accept connections at once.
    pub serve: bool,
}

/// From a worker to the supervisor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum ToSupervisor {
    /// The first message, in answer to [`ToWorker::Start`].
    Hello {
        /// The worker's [`PROTOCOL`].
        protocol: u32,
        /// Its release.
        version: String,
    },
    /// What its predecessor served serves here too.
    Ready,
    /// A library is about to be opened.
    Loading(KnownGeneration),
    /// The code that the worker has mapped, or the next part of that.
    Mappings {
        /// Whether this is the first part.
        first: bool,
        /// The part.
        mappings: Vec<Mapping>,
    },
    /// A plugin does not give an event loop back: the worker cannot go on.
    StuckLoop {
        /// The number of its generation.
        plugin: u64,
    },
    /// A connection that has come to stay. Descriptor: a duplicate of it.
    Register(Passed),
    /// A registered connection has ended.
    Closed(Passed),
    /// A connection that somebody else has to serve. Descriptor, where it was not registered: the
    /// connection. Bytes: what has been read of its frame.
    HandOver(Passed),
    /// Nothing is left to hand over.
    Left,
    /// The worker writes its tokens there from now on. Descriptor: the journal.
    Journal,
    /// What stands in the journals of these workers stands in this worker's own too.
    Absorbed {
        /// Their numbers.
        workers: Vec<u32>,
    },
    /// How it stands with the worker, whenever that changes. Since version 2.
    Condition(Condition),
    /// The worker should be replaced when that is convenient.
    Wish {
        /// Why, for the log.
        reason: String,
    },
    /// What plugins leave to the worker that has taken over. Descriptor: a file of states.
    States,
    /// Something has happened to a plugin.
    Event(Box<PluginEvent>),
    /// A client of HTTP services that somebody else has to serve. Descriptor: the connection. Bytes: what
    /// has been read of its next request.
    HandOverClient,
    /// Something that a later release says.
    #[serde(other)]
    Unknown,
}

/// How it stands with a worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Whether everything that the plugin directory held at the start has been tried, or an earlier
    /// worker knew what serves.
    pub scanned: bool,
    /// Required plugins that do not serve, each with the reason.
    pub missing: Vec<String>,
    /// Libraries that stay mapped and serve no more.
    pub retired_mappings: usize,
    /// What they occupy.
    pub retired_bytes: u64,
}

/// One end of the socket pair.
#[derive(Debug)]
pub struct Link {
    /// Not a datagram socket, but what the runtime knows to watch without looking closer.
    socket: UnixDatagram,
}

/// A message that has arrived.
#[derive(Debug)]
pub struct Received<M> {
    /// What it says.
    pub message: M,
    /// Its bytes.
    pub payload: Vec<u8>,
    /// Its descriptors.
    pub descriptors: Vec<OwnedFd>,
}

/// The two ends of a new link; both are closed on `exec`.
///
/// # Errors
/// The operating system has no descriptors left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

impl Link {
    /// An end, on the current runtime.
    ///
    /// # Errors
    /// It cannot be watched.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = std::os::unix::net::UnixDatagram::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: UnixDatagram::from_std(socket)?,
        })
    }

    /// The socket, to be kept over an `exec`.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends a message; waits while the other side's queue is full.
    ///
    /// # Errors
    /// The other side is gone, or the message is too large.
    pub async fn send(
        &self,
        message: &impl Serialize,
        payload: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(message)?;
        bytes.push(0);
        bytes.extend_from_slice(payload);
        self.socket
            .async_io(Interest::WRITABLE, || {
                send_once(self.socket(), &bytes, descriptors)
            })
            .await
    }

    /// Waits for the next message; `None` where the other side is gone.
    ///
    /// # Errors
    /// What arrives is no message.
    pub async fn receive<M: DeserializeOwned>(&self) -> io::Result<Option<Received<M>>> {
        self.socket
            .async_io(Interest::READABLE, || receive_once(self.socket()))
            .await
    }

    /// A message that has arrived already; `None` where there is none, or never will be.
    ///
    /// # Errors
    /// What has arrived is no message.
    pub fn try_receive<M: DeserializeOwned>(&self) -> io::Result<Option<Received<M>>> {
        match receive_once(self.socket()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            received => received,
        }
    }
}

/// Sends a message without bytes, or fails where the queue is full.
///
/// # Errors
/// The queue is full, or the other side is gone.
pub fn send_now(
    socket: BorrowedFd<'_>,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    send_once(socket, &serde_json::to_vec(message)?, descriptors)
}

/// Takes a message that has arrived already; `None` where the other side is gone.
///
/// # Errors
/// Nothing has arrived, or what has is no message.
pub fn receive_now<M: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<Received<M>>> {
    receive_once(socket)
}

fn send_once(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "more descriptors than a message takes",
        ));
    }
    // Without the flag, a worker that is gone would end this process with a signal.
    rustix::net::sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut ancillary,
        SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
    )?;
    Ok(())
}

fn receive_once<M: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<Received<M>>> {
    let mut bytes = vec![0; MAX_MESSAGE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    );
    let received = match received {
        Err(rustix::io::Errno::CONNRESET) => return Ok(None),
        other => other?,
    };
    let descriptors: Vec<OwnedFd> = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    if received.bytes == 0 {
        return Ok(None);
    }
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a message was cut: is the limit on open files reached?",
        ));
    }
    bytes.truncate(received.bytes);
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    let payload = bytes.split_off((end + 1).min(bytes.len()));
    Ok(Some(Received {
        message: serde_json::from_slice(&bytes[..end])?,
        payload,
        descriptors,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::*;

    fn passed(slot: usize) -> Passed {
        Passed {
            slot,
            number: 8,
            unread_answers: 1,
        }
    }

    #[tokio::test]
    async fn a_message_brings_its_bytes_and_its_descriptors() {
        let (one, other) = pair().unwrap();
        let (one, other) = (Link::new(one).unwrap(), Link::new(other).unwrap());
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let payload = vec![0; MAX_BYTES_ALONG];
        one.send(&ToWorker::Give(passed(7)), &payload, &[writer.as_fd()])
            .await
            .unwrap();
        drop(writer);
        let received = other.receive::<ToWorker>().await.unwrap().unwrap();
        let ToWorker::Give(given) = received.message else {
            panic!("{received:?}");
        };
        assert_eq!((given.slot, given.number, given.unread_answers), (7, 8, 1));
        assert_eq!(received.payload, payload);
        rustix::io::write(&received.descriptors[0], b"x").unwrap();
        assert_eq!(rustix::io::read(&reader, &mut [0; 2][..]).unwrap(), 1);
    }

    #[test]
    fn what_a_later_release_says_is_read_as_something_unknown() {
        let later = r#"{"message":"sing","song":{"verses":3}}"#;
        let told: ToWorker = serde_json::from_str(later).unwrap();
        assert!(matches!(told, ToWorker::Unknown), "{told:?}");
        let told: ToSupervisor = serde_json::from_str(later).unwrap();
        assert!(matches!(told, ToSupervisor::Unknown), "{told:?}");
    }

    #[tokio::test]
    async fn a_full_queue_is_waited_for_and_an_end_is_told() {
        let (one, other) = pair().unwrap();
        let (one, other) = (Link::new(one).unwrap(), Link::new(other).unwrap());
        assert!(other.try_receive::<ToWorker>().unwrap().is_none());
        let sending = tokio::spawn(async move {
            for slot in 0..2_000 {
                one.send(&ToWorker::Give(passed(slot)), &[0; 2_000], &[])
                    .await
                    .unwrap();
            }
        });
        let mut slots = Vec::new();
        while let Some(received) = other.receive::<ToWorker>().await.unwrap() {
            if let ToWorker::Give(given) = received.message {
                slots.push(given.slot);
            }
        }
        sending.await.unwrap();
        assert_eq!(slots, (0..2_000).collect::<Vec<_>>());
    }
}
