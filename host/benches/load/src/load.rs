//! The load: one thread that plays a gateway with many connections, and a clock beside it.
//!
//! Closed loop: every connection sends its next call as soon as the last one is answered. Fixed rate: calls
//! have times at which they should begin, and latency counts from there, also where no connection was free
//! then: a server that stalls pays for every call that it kept from beginning.

use std::{
    collections::VecDeque,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use plugin_proto::{FrameType, Header, frame::HEADER_LEN};
use rustix::{
    buffer::spare_capacity,
    event::epoll,
    io::{Errno, read, write},
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};

use crate::calls::{Replies, Reply};

/// Bytes that are read at once.
const ROOM: usize = 256 * 1024;

/// Data of a question that is kept: longer names of variables there are not.
const MAX_QUESTION: usize = 4096;

/// Without a single event for so long, the server is taken to be stuck.
const PATIENCE: Duration = Duration::from_secs(20);

/// The longest latency that is told apart.
const LONGEST: Duration = Duration::from_secs(60);

/// When calls begin.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// As soon as the one before is answered.
    Closed,
    /// So many in a second, at even distances.
    PerSecond(u32),
}

/// What is sent, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) connections: usize,
    pub(crate) pace: Pace,
    /// Time before the measurement.
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    /// Frames that are sent in turn.
    pub(crate) calls: &'a [Vec<u8>],
    pub(crate) replies: &'a Replies,
}

/// What was seen from outside.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Nanoseconds from when a call was to begin to its answer.
    pub(crate) latency: Histogram<u64>,
    pub(crate) elapsed: Duration,
    /// Bytes of bodies that the server has asked for.
    pub(crate) body_bytes: u64,
}

impl Seen {
    pub(crate) fn per_second(&self) -> f64 {
        self.latency.len() as f64 / self.elapsed.as_secs_f64()
    }
}

/// Data of the timer's event; connections have their index.
const TIMER: u64 = u64::MAX;

/// Drives a server. `at_edge` is called when the measured time begins and when it ends.
pub(crate) fn drive(
    socket: &Path,
    load: &Load<'_>,
    mut at_edge: impl FnMut() -> Result<()>,
) -> Result<Seen> {
    let mut driver = Driver::connect(socket, load)?;
    let start = Instant::now();
    let (from, to) = (start + load.warm_up, start + load.warm_up + load.duration);
    driver.window = (from, to);
    driver.begin(start)?;
    driver.run_until(from)?;
    at_edge()?;
    driver.run_until(to)?;
    at_edge()?;
    driver.run_dry()?;
    Ok(Seen {
        latency: driver.latency,
        elapsed: driver.last_counted.max(to) - from,
        body_bytes: driver.body_bytes,
    })
}

struct Driver<'a> {
    load: &'a Load<'a>,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    /// Those without an open call (fixed rate); the last one used is the next one used, as in a pool.
    idle: Vec<usize>,
    /// Calls that should have begun but found no connection.
    late: VecDeque<Instant>,
    timer: Option<(OwnedFd, Duration)>,
    next_due: Instant,
    next_call: usize,
    open: usize,
    stopping: bool,
    /// The measured time.
    window: (Instant, Instant),
    /// When the last call that counts was answered.
    last_counted: Instant,
    latency: Histogram<u64>,
    body_bytes: u64,
    room: Vec<u8>,
}

struct Connection {
    stream: UnixStream,
    began: Instant,
    incoming: Incoming,
    /// What is not yet written.
    outgoing: Option<(Outgoing, usize)>,
    waits_for_room: bool,
}

#[derive(Debug, Clone)]
enum Outgoing {
    Call(usize),
    Reply(Reply),
}

impl<'a> Driver<'a> {
    fn connect(socket: &Path, load: &'a Load<'a>) -> Result<Self> {
        ensure!(!load.calls.is_empty(), "there is no call to send");
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let now = Instant::now();
        let mut connections = Vec::with_capacity(load.connections);
        for index in 0..load.connections {
            let stream = UnixStream::connect(socket)
                .with_context(|| format!("cannot connect to {}", socket.display()))?;
            stream.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&epoll, &stream, data, epoll::EventFlags::IN)?;
            connections.push(Connection {
                stream,
                began: now,
                incoming: Incoming::default(),
                outgoing: None,
                waits_for_room: false,
            });
        }
        Ok(Self {
            load,
            epoll,
            idle: (0..connections.len()).rev().collect(),
            connections,
            late: VecDeque::new(),
            timer: None,
            next_due: now,
            next_call: 0,
            open: 0,
            stopping: false,
            window: (now, now),
            last_counted: now,
            latency: Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, 3)?,
            body_bytes: 0,
            room: Vec::with_capacity(ROOM),
        })
    }

    fn begin(&mut self, now: Instant) -> Result<()> {
        match self.load.pace {
            Pace::Closed => {
                while let Some(index) = self.idle.pop() {
                    self.call(index, now)?;
                }
            }
            Pace::PerSecond(rate) => {
                let distance = Duration::from_secs(1) / rate;
                let timer = timerfd_create(
                    TimerfdClockId::Monotonic,
                    TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
                )?;
                let spec = Timespec::try_from(distance)?;
                let every = Itimerspec {
                    it_interval: spec,
                    it_value: spec,
                };
                timerfd_settime(&timer, TimerfdTimerFlags::empty(), &every)?;
                let data = epoll::EventData::new_u64(TIMER);
                epoll::add(&self.epoll, timer.as_fd(), data, epoll::EventFlags::IN)?;
                self.next_due = now + distance;
                self.timer = Some((timer, distance));
            }
        }
        Ok(())
    }

    fn run_until(&mut self, end: Instant) -> Result<()> {
        let mut events = Vec::with_capacity(512);
        while Instant::now() < end {
            self.turn(&mut events)?;
        }
        Ok(())
    }

    /// Waits for the calls that are open or late: those count, and the next measurement finds a quiet server.
    fn run_dry(&mut self) -> Result<()> {
        self.stopping = true;
        self.timer = None;
        let mut events = Vec::with_capacity(512);
        while self.open > 0 {
            self.turn(&mut events)?;
        }
        Ok(())
    }

    fn turn(&mut self, events: &mut Vec<epoll::Event>) -> Result<()> {
        events.clear();
        let patience = Timespec::try_from(PATIENCE)?;
        match epoll::wait(&self.epoll, spare_capacity(events), Some(&patience)) {
            Ok(0) => bail!("nothing has happened for {} s", PATIENCE.as_secs()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.iter() {
            match event.data.u64() {
                TIMER => self.begin_due()?,
                index => {
                    let index = usize::try_from(index)?;
                    let flags = event.flags;
                    if flags.contains(epoll::EventFlags::OUT) {
                        self.write_on(index)?;
                    }
                    if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP) {
                        self.read_from(index)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn begin_due(&mut self) -> Result<()> {
        let Some((timer, distance)) = &self.timer else {
            return Ok(());
        };
        let distance = *distance;
        let mut expirations = [0; 8];
        match read(timer, &mut expirations) {
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        let now = Instant::now();
        while self.next_due <= now {
            let due = self.next_due;
            self.next_due += distance;
            match self.idle.pop() {
                Some(index) => self.call(index, due)?,
                None => self.late.push_back(due),
            }
        }
        Ok(())
    }

    fn call(&mut self, index: usize, begins: Instant) -> Result<()> {
        let number = self.next_call;
        self.next_call = (number + 1) % self.load.calls.len();
        self.open += 1;
        let connection = &mut self.connections[index];
        connection.began = begins;
        connection.outgoing = Some((Outgoing::Call(number), 0));
        self.write_on(index)
    }

    fn write_on(&mut self, index: usize) -> Result<()> {
        let connection = &mut self.connections[index];
        while let Some((what, written)) = &mut connection.outgoing {
            let bytes = match what {
                Outgoing::Call(number) => &self.load.calls[*number],
                Outgoing::Reply(reply) => self.load.replies.frame(reply),
            };
            match write(&connection.stream, &bytes[*written..]) {
                Ok(more) => {
                    *written += more;
                    if *written == bytes.len() {
                        connection.outgoing = None;
                    }
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot write to the server"),
            }
        }
        let waits = connection.outgoing.is_some();
        if waits != connection.waits_for_room {
            connection.waits_for_room = waits;
            let mut flags = epoll::EventFlags::IN;
            flags.set(epoll::EventFlags::OUT, waits);
            let data = epoll::EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, &connection.stream, data, flags)?;
        }
        Ok(())
    }

    fn read_from(&mut self, index: usize) -> Result<()> {
        self.room.clear();
        let connection = &mut self.connections[index];
        match read(&connection.stream, spare_capacity(&mut self.room)) {
            Ok(0) => bail!("the server has closed a connection"),
            Ok(_) => {}
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(error).context("cannot read from the server"),
        }
        match connection.incoming.take(&self.room)? {
            None => Ok(()),
            Some(FrameType::ExtraInfo) => {
                let reply = self.load.replies.to(&connection.incoming.question)?;
                let began = connection.began;
                connection.outgoing = Some((Outgoing::Reply(reply.clone()), 0));
                if reply == Reply::Body && self.counts(Instant::now(), began) {
                    self.body_bytes += self.load.replies.frame(&reply).len() as u64;
                }
                self.write_on(index)
            }
            Some(FrameType::Error) => bail!("the server answered with an error frame"),
            Some(_) => self.answered(index),
        }
    }

    /// Whether what happens now belongs to the measurement. Where calls have a time to begin at, that decides:
    /// one that was held up must not escape by being answered too late.
    fn counts(&self, now: Instant, began: Instant) -> bool {
        let (from, to) = self.window;
        let time = match self.load.pace {
            Pace::Closed => now,
            Pace::PerSecond(_) => began,
        };
        (from..to).contains(&time)
    }

    fn answered(&mut self, index: usize) -> Result<()> {
        let now = Instant::now();
        self.open -= 1;
        let began = self.connections[index].began;
        if self.counts(now, began) {
            let latency = now.saturating_duration_since(began);
            self.latency.saturating_record(latency.as_nanos() as u64);
            self.last_counted = now;
        }
        match self.load.pace {
            Pace::Closed if self.stopping => Ok(()),
            Pace::Closed => self.call(index, now),
            Pace::PerSecond(_) => match self.late.pop_front() {
                Some(due) => self.call(index, due),
                None => {
                    self.idle.push(index);
                    Ok(())
                }
            },
        }
    }
}

/// How far a connection is in the frame that comes; only the data of questions is kept.
#[derive(Default)]
struct Incoming {
    header: [u8; HEADER_LEN],
    headed: usize,
    missing: usize,
    question: Vec<u8>,
}

impl Incoming {
    /// Takes in what has come; the type of a frame that is complete with it. A server sends one frame,
    /// then waits for ours.
    fn take(&mut self, mut bytes: &[u8]) -> Result<Option<FrameType>> {
        while self.headed < HEADER_LEN {
            let Some((first, rest)) = bytes.split_first() else {
                return Ok(None);
            };
            self.header[self.headed] = *first;
            self.headed += 1;
            bytes = rest;
            if self.headed == HEADER_LEN {
                self.missing = Header::decode(self.header).data_len as usize;
                self.question.clear();
            }
        }
        ensure!(
            bytes.len() <= self.missing,
            "the server sent more than one frame at once"
        );
        self.missing -= bytes.len();
        let frame_type = Header::decode(self.header).frame_type()?;
        if frame_type == FrameType::ExtraInfo {
            ensure!(
                self.question.len() + bytes.len() <= MAX_QUESTION,
                "the server asks a long question"
            );
            self.question.extend_from_slice(bytes);
        }
        if self.missing > 0 {
            return Ok(None);
        }
        self.headed = 0;
        Ok(Some(frame_type))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::{
        io::{Read, Write},
        os::unix::net::UnixListener,
        thread,
    };

    use plugin_proto::{FrameWriter, http_req_call};

    use super::*;

    fn call() -> Vec<u8> {
        let header = Header::new(FrameType::HttpReqCall, 8).unwrap();
        [&header.encode().unwrap()[..], &[0; 8]].concat()
    }

    /// Answers one connection, whose first call has to wait.
    fn serve_after(wait: Duration, listener: &UnixListener) {
        let (mut stream, _) = listener.accept().unwrap();
        let mut room = [0; 12];
        let mut writer = FrameWriter::new();
        thread::sleep(wait);
        while stream.read_exact(&mut room).is_ok() {
            let answer = http_req_call::write_unchanged(&mut writer, 1);
            stream.write_all(answer).unwrap();
        }
    }

    #[test]
    fn calls_that_a_stall_kept_from_beginning_count_from_when_they_should_have() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = thread::spawn(move || serve_after(Duration::from_millis(300), &listener));
        let load = Load {
            connections: 1,
            pace: Pace::PerSecond(1_000),
            warm_up: Duration::ZERO,
            duration: Duration::from_millis(600),
            calls: &[call()],
            replies: &Replies::default(),
        };
        let seen = drive(&socket, &load, || Ok(())).unwrap();
        server.join().unwrap();
        // Some 200 calls should have begun in the first 200 ms, and had to wait for 100 ms or more. A closed
        // loop would have seen one.
        let waited = seen.latency.count_between(100_000_000, u64::MAX);
        assert!(waited >= 100, "{waited}");
    }

    #[test]
    fn what_a_server_asks_for_is_answered_and_counted() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let floor = crate::floor::FloorArgs::asking(&socket);
        // It serves until the tests end.
        thread::spawn(move || crate::floor::run(&floor));
        while UnixStream::connect(&socket).is_err() {
            thread::sleep(Duration::from_millis(1));
        }
        let body = 300_000;
        let load = Load {
            connections: 3,
            pace: Pace::Closed,
            warm_up: Duration::ZERO,
            duration: Duration::from_millis(50),
            calls: &[call()],
            replies: &Replies::new(body, &[]).unwrap(),
        };
        let seen = drive(&socket, &load, || Ok(())).unwrap();
        assert!(seen.latency.len() >= 3);
        assert!(seen.body_bytes >= seen.latency.len() * body as u64);
    }
}
