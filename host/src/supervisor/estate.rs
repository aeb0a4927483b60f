//! What one release of the supervisor leaves to the next, in the same process: a new program takes the
//! place of the old one by `exec`, so that the gateway's child stays the same process.
//!
//! Descriptors travel as messages in a socket that is the new program's standard input at first;
//! among them is the standard input that it gets back. So nothing has to be known by its number.
//! Nothing here decides whether the time for it has come.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::File,
    io::{self, Read, Seek, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use rustix::fs::MemfdFlags;
use serde::{Deserialize, Serialize};

use super::Counts;
use crate::{
    crash::{KnownGeneration, Mapping, Quarantined},
    link::{self, Condition, MAX_DESCRIPTORS},
    plugin::log_levels::LogLevels,
    server::handover::Passed,
};

/// Version of what is left. A release takes over from this version alone.
pub const ESTATE: u32 = 1;

/// The hidden command that takes an estate over.
pub const COMMAND: &str = "resume";

/// Bytes of the written part, at most: some ten thousand connections take a megabyte.
const MAX_BYTES: u64 = 64 << 20;

/// The written part of an estate.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Written {
    /// The version of what is left.
    pub(super) estate: u32,
    /// Directory of the listen address, and that of this process.
    pub(super) directories: (PathBuf, PathBuf),
    pub(super) workers: Vec<WrittenWorker>,
    pub(super) last_worker: u32,
    pub(super) serving: Option<u32>,
    /// The worker of each journal.
    pub(super) journals: Vec<u32>,
    /// Each connection and the worker that has it.
    pub(super) connections: Vec<(Passed, u32)>,
    pub(super) counts: Counts,
    pub(super) quarantined: Vec<Quarantined>,
    /// Where clients of HTTP services connect. Its socket, and its file's where it has one, come last.
    #[serde(default)]
    pub(super) services: Option<String>,
    #[serde(default)]
    pub(super) wanted_levels: Option<LogLevels>,
}

/// A worker that goes on.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WrittenWorker {
    pub(super) worker: u32,
    pub(super) pid: i32,
    pub(super) private_dir: PathBuf,
    pub(super) version: Option<String>,
    pub(super) generations: Vec<KnownGeneration>,
    pub(super) mappings: Vec<Mapping>,
    pub(super) lived_millis: u64,
    #[serde(default)]
    pub(super) condition: Condition,
}

/// An estate that was received.
#[derive(Debug)]
pub struct Estate {
    pub(super) written: Written,
    descriptors: VecDeque<OwnedFd>,
}

/// A message of the socket: how many descriptors of the estate are still to come after it.
#[derive(Debug, Serialize, Deserialize)]
struct Part {
    to_come: usize,
}

/// Runs `program` in place of this one, with this estate. Returns only where that failed: then
/// everything is as it was.
pub(super) fn leave_to(
    program: &Path,
    arguments: &[OsString],
    written: &Written,
    descriptors: &[BorrowedFd<'_>],
) -> io::Error {
    match hand_down(program, arguments, written, descriptors) {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

fn hand_down(
    program: &Path,
    arguments: &[OsString],
    written: &Written,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<std::convert::Infallible> {
    let mut file = File::from(rustix::fs::memfd_create("estate", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(written)?)?;
    let input = io::stdin().as_fd().try_clone_to_owned()?;
    let mut all = vec![file.as_fd(), input.as_fd()];
    all.extend_from_slice(descriptors);

    let (ours, theirs) = link::pair()?;
    let mut to_come = all.len();
    for some in all.chunks(MAX_DESCRIPTORS) {
        to_come -= some.len();
        link::send_now(ours.as_fd(), &Part { to_come }, some)?;
    }
    rustix::stdio::dup2_stdin(&theirs)?;
    let error = Command::new(program).arg(COMMAND).args(arguments).exec();
    rustix::stdio::dup2_stdin(&input)?;
    Err(error)
}

impl Estate {
    /// Takes over what the program before this one has left on standard input, and puts the standard
    /// input back that it had.
    ///
    /// # Errors
    /// Standard input has no estate, or one of another version.
    pub fn receive() -> io::Result<Self> {
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        let mut descriptors = VecDeque::new();
        loop {
            let part =
                link::receive_now::<Part>(socket.as_fd())?.ok_or(io::ErrorKind::UnexpectedEof)?;
            descriptors.extend(part.descriptors);
            if part.message.to_come == 0 {
                break;
            }
        }
        let mut next = || descriptors.pop_front().ok_or(io::ErrorKind::UnexpectedEof);
        let mut file = File::from(next()?);
        rustix::stdio::dup2_stdin(next()?)?;
        file.rewind()?;
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes)?;
        let written: Written = serde_json::from_slice(&bytes)?;
        if written.estate != ESTATE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "what is left has version {}, this release takes {ESTATE}",
                    written.estate
                ),
            ));
        }
        Ok(Self {
            written,
            descriptors,
        })
    }

    /// The directory of the listen address, and that of this process.
    pub fn directories(&self) -> (&Path, &Path) {
        let (shared, private) = &self.written.directories;
        (shared, private)
    }

    /// The socket of HTTP services is wanted no more, or elsewhere.
    pub fn forget_services(&mut self) {
        self.written.services = None;
    }

    /// Where clients of HTTP services connect.
    pub fn services(&self) -> Option<&str> {
        self.written.services.as_deref()
    }

    /// The next descriptor, in the order in which they were left.
    ///
    /// # Errors
    /// There is none left.
    pub fn take(&mut self) -> io::Result<OwnedFd> {
        let next = self.descriptors.pop_front();
        next.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}
