//! The floor: servers that do nothing but take a frame and send one back, over the same kind of socket.
//!
//! What a call costs here is what the kernel takes for it, and no runner can be cheaper. A floor knows no
//! message: a call (type 2) is answered with a fixed frame, or with a question first where it is told to
//! ask, and the answer to that (type 3) with the fixed frame.

use std::{
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result};
use plugin_proto::{
    FrameType, FrameWriter, Header,
    extra_info::{self, Question},
    frame::HEADER_LEN,
};
use rustix::{
    buffer::spare_capacity,
    event::epoll,
    io::{Errno, read, write},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes that are read at once: a usual call fits.
const ROOM: usize = 64 * 1024;

/// How a floor waits for its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Model {
    /// One thread with an epoll instance.
    Epoll,
    /// One thread with a tokio runtime.
    Tokio,
    /// A thread for each connection.
    Threads,
}

impl Model {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Epoll => "epoll echo",
            Self::Tokio => "tokio echo",
            Self::Threads => "threads echo",
        }
    }

    /// As it is typed.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Epoll => "epoll",
            Self::Tokio => "tokio",
            Self::Threads => "threads",
        }
    }
}

/// What the process of a floor is started with.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct FloorArgs {
    model: Model,
    socket: PathBuf,
    /// Bytes of an answer, header included
    #[arg(long)]
    answer_bytes: usize,
    /// Ask for the body before answering
    #[arg(long)]
    ask: bool,
}

#[cfg(test)]
impl FloorArgs {
    /// One that asks for bodies.
    pub(crate) fn asking(socket: &Path) -> Self {
        Self {
            model: Model::Epoll,
            socket: socket.to_owned(),
            answer_bytes: 100,
            ask: true,
        }
    }
}

/// The frames of a floor.
struct Frames {
    answer: Vec<u8>,
    question: Option<Vec<u8>>,
}

impl Frames {
    fn new(args: &FloorArgs) -> Result<Self> {
        let data = args.answer_bytes.saturating_sub(HEADER_LEN);
        let header = Header::new(FrameType::HttpReqCall, data)?.encode()?;
        let question = args.ask.then(|| {
            let mut writer = FrameWriter::new();
            extra_info::write_question(&mut writer, Question::RequestBody).map(<[u8]>::to_vec)
        });
        Ok(Self {
            answer: [&header[..], &vec![0; data]].concat(),
            question: question.transpose()?,
        })
    }

    /// What a frame of this type is answered with.
    fn to(&self, type_byte: u8) -> &[u8] {
        match &self.question {
            Some(question) if type_byte != u8::from(FrameType::ExtraInfo) => question,
            _ => &self.answer,
        }
    }
}

/// How far a connection is in the frame that it receives.
#[derive(Default)]
struct Incoming {
    header: [u8; HEADER_LEN],
    headed: usize,
    missing: usize,
}

impl Incoming {
    /// Takes in bytes of one frame at most; its type once it is complete.
    fn take(&mut self, mut bytes: &[u8]) -> Option<u8> {
        while self.headed < HEADER_LEN {
            let (first, rest) = bytes.split_first()?;
            self.header[self.headed] = *first;
            self.headed += 1;
            bytes = rest;
            if self.headed == HEADER_LEN {
                self.missing = Header::decode(self.header).data_len as usize;
            }
        }
        self.missing = self.missing.saturating_sub(bytes.len());
        (self.missing == 0).then(|| {
            self.headed = 0;
            self.header[0]
        })
    }
}

/// Serves until the process is killed.
pub(crate) fn run(args: &FloorArgs) -> Result<()> {
    let frames = Frames::new(args)?;
    let listener = listen(&args.socket)?;
    match args.model {
        Model::Epoll => serve_with_epoll(&listener, &frames),
        Model::Tokio => serve_with_tokio(listener, frames),
        Model::Threads => serve_with_threads(&listener, &frames),
    }
}

/// With the backlog of a runner: a thousand connections come at once.
fn listen(socket: &Path) -> Result<UnixListener> {
    let _ = fs::remove_file(socket);
    let listener = rustix::net::socket(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        None,
    )?;
    rustix::net::bind(&listener, &rustix::net::SocketAddrUnix::new(socket)?)
        .with_context(|| format!("cannot listen on {}", socket.display()))?;
    rustix::net::listen(&listener, 4096)?;
    Ok(listener.into())
}

fn serve_with_epoll(listener: &UnixListener, frames: &Frames) -> Result<()> {
    const LISTENER: u64 = u64::MAX;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let add = |fd: &dyn AsFdDyn, number| {
        epoll::add(
            &epoll,
            fd.fd(),
            epoll::EventData::new_u64(number),
            epoll::EventFlags::IN,
        )
    };
    add(listener, LISTENER)?;
    let mut connections: Vec<Option<(UnixStream, Incoming)>> = Vec::new();
    let mut events = Vec::with_capacity(256);
    let mut room = Vec::with_capacity(ROOM);
    loop {
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), None)?;
        for event in &events {
            let number = event.data.u64();
            if number == LISTENER {
                let Ok((stream, _)) = listener.accept() else {
                    continue;
                };
                stream.set_nonblocking(true)?;
                let free = connections.iter().position(Option::is_none);
                let place = free.unwrap_or(connections.len());
                if place == connections.len() {
                    connections.push(None);
                }
                add(&stream, place as u64)?;
                connections[place] = Some((stream, Incoming::default()));
                continue;
            }
            let place = usize::try_from(number)?;
            let Some((stream, incoming)) = &mut connections[place] else {
                continue;
            };
            room.clear();
            match read(&*stream, spare_capacity(&mut room)) {
                Ok(0) => connections[place] = None,
                Ok(_) => {
                    if let Some(type_byte) = incoming.take(&room) {
                        // Answers are far smaller than a socket's buffer.
                        write(&*stream, frames.to(type_byte))?;
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => connections[place] = None,
            }
        }
    }
}

/// Listener and connections alike.
trait AsFdDyn {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_>;
}

impl<T: AsFd> AsFdDyn for T {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.as_fd()
    }
}

fn serve_with_threads(listener: &UnixListener, frames: &Frames) -> Result<()> {
    thread::scope(|scope| {
        loop {
            let (stream, _) = listener.accept()?;
            thread::Builder::new()
                .stack_size(64 * 1024)
                .spawn_scoped(scope, move || {
                    let stream = OwnedFd::from(stream);
                    let mut incoming = Incoming::default();
                    let mut room = Vec::with_capacity(ROOM);
                    loop {
                        room.clear();
                        match read(&stream, spare_capacity(&mut room)) {
                            Ok(0) | Err(_) => return,
                            Ok(_) => {}
                        }
                        if let Some(type_byte) = incoming.take(&room)
                            && write(&stream, frames.to(type_byte)).is_err()
                        {
                            return;
                        }
                    }
                })?;
        }
    })
}

fn serve_with_tokio(listener: UnixListener, frames: Frames) -> Result<()> {
    let frames: &'static Frames = Box::leak(Box::new(frames));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        loop {
            let (mut stream, _) = listener.accept().await?;
            tokio::spawn(async move {
                let mut incoming = Incoming::default();
                let mut room = Vec::with_capacity(ROOM);
                loop {
                    room.clear();
                    match stream.read_buf(&mut room).await {
                        Ok(0) | Err(_) => return,
                        Ok(_) => {}
                    }
                    if let Some(type_byte) = incoming.take(&room)
                        && stream.write_all(frames.to(type_byte)).await.is_err()
                    {
                        return;
                    }
                }
            });
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_complete_with_its_last_byte_however_it_arrives() {
        let frame = [2, 0, 0, 3, b'a', b'b', b'c'];
        for cut in 1..frame.len() {
            let mut incoming = Incoming::default();
            assert_eq!(incoming.take(&frame[..cut]), None, "{cut}");
            assert_eq!(incoming.take(&frame[cut..]), Some(2), "{cut}");
            assert_eq!(incoming.take(&frame), Some(2), "{cut}");
        }
    }
}
