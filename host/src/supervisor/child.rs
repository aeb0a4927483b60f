//! A worker process as its supervisor has it: started, spoken to, waited for.
//!
//! A worker inherits three descriptors: its link as standard input, and one pipe as standard output
//! and error, whose lines go into the host's log. So nothing of the gateway's is ever held open by a
//! worker, or by what a plugin starts. What a worker is told is decided elsewhere.

use std::{
    ffi::OsString,
    io::{self, BufRead, BufReader, PipeReader, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions};
use tokio::sync::{mpsc, oneshot};

use crate::{
    config::settings::{NOTIFY_VARIABLE, WATCHDOG_VARIABLE},
    link::{self, Link, Received, Start, ToSupervisor, ToWorker},
    shared_memory::threads::ThreadSlots,
};

/// The hidden command that a worker runs.
pub const COMMAND: &str = "worker";

/// This very program, also where its file has been replaced meanwhile.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Bytes of one line that a worker or a plugin in it writes; the rest comes as further lines.
const MAX_LINE_BYTES: u64 = 16 * 1024;

/// Bytes from which the C library gives an allocation's memory back as soon as it is free. Left to
/// itself it learns from the first library that is read to keep twice as much for ever.
const LARGE_ALLOCATION: &str = "1048576";

/// A message to a worker, with what goes along.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) message: ToWorker,
    pub(super) payload: Vec<u8>,
    pub(super) descriptors: Vec<Arc<OwnedFd>>,
}

/// What comes from a worker.
#[derive(Debug)]
pub(super) enum FromWorker {
    /// It says something.
    Said(Received<ToSupervisor>),
    /// It is dead, and everything that it said before has been delivered.
    Died(ExitStatus),
}

/// A worker process.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) pid: Pid,
    pub(super) started: Instant,
    pub(super) threads: ThreadSlots,
    link: Arc<Link>,
    /// The pipe that its lines come through.
    lines: OwnedFd,
    queue: mpsc::UnboundedSender<Outgoing>,
    /// Messages that are still to be sent.
    unsent: Arc<AtomicUsize>,
}

/// A worker process as it passes from one release of the supervisor to the next.
pub(super) struct Parts {
    pub(super) pid: Pid,
    pub(super) started: Instant,
    pub(super) link: OwnedFd,
    pub(super) lines: OwnedFd,
    pub(super) threads: OwnedFd,
}

/// What a worker is started with.
pub(super) struct Recipe<'a> {
    /// Everything that was typed after `plugin-host run`.
    pub(super) arguments: &'a [OsString],
    /// What it is told first.
    pub(super) start: Start,
    /// Its descriptors, but for its own table of threads: before it, and after it.
    pub(super) before: Vec<Arc<OwnedFd>>,
    pub(super) after: Vec<Arc<OwnedFd>>,
    /// Where its lines go.
    pub(super) log: Box<dyn Write + Send>,
    /// Where what comes from it goes, with its number.
    pub(super) events: mpsc::Sender<(u32, FromWorker)>,
}

impl Child {
    /// Starts a worker. To be called on the thread that ends last: the kernel ends a worker with the
    /// thread that started it.
    ///
    /// # Errors
    /// The machine has no processes, memory or descriptors left.
    pub(super) fn start(recipe: Recipe<'_>) -> io::Result<Self> {
        let number = recipe.start.worker;
        let threads = ThreadSlots::create()?;
        let (ours, theirs) = link::pair()?;
        let (reader, writer) = io::pipe()?;
        let process = Command::new(THIS_PROGRAM)
            .arg(COMMAND)
            .args(recipe.arguments)
            .stdin(Stdio::from(theirs))
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .env("MALLOC_MMAP_THRESHOLD_", LARGE_ALLOCATION)
            .env("MALLOC_TRIM_THRESHOLD_", LARGE_ALLOCATION)
            // It is the supervisor's to tell, and no plugin's.
            .env_remove(NOTIFY_VARIABLE)
            .env_remove(WATCHDOG_VARIABLE)
            // What a plugin starts can be ended with it; and the keyboard's signals are ours.
            .process_group(0)
            .spawn()?;
        let mut descriptors = recipe.before;
        descriptors.push(Arc::new(threads.file().try_clone_to_owned()?));
        descriptors.extend(recipe.after);
        let parts = Parts {
            pid: Pid::from_child(&process),
            started: Instant::now(),
            link: ours,
            lines: reader.into(),
            threads: threads.file().try_clone_to_owned()?,
        };
        let child = Self::of(number, parts, recipe.log, recipe.events)?;
        child.tell_with(
            ToWorker::Start(Box::new(recipe.start)),
            Vec::new(),
            descriptors,
        );
        Ok(child)
    }

    /// A worker that runs: its lines are copied, its messages taken, its death waited for.
    ///
    /// # Errors
    /// The machine has no memory, threads or descriptors left.
    pub(super) fn of(
        number: u32,
        parts: Parts,
        mut log: Box<dyn Write + Send>,
        events: mpsc::Sender<(u32, FromWorker)>,
    ) -> io::Result<Self> {
        let pid = parts.pid;
        let link = Arc::new(Link::new(parts.link)?);
        let reader = PipeReader::from(parts.lines.try_clone()?);
        thread::Builder::new()
            .name(format!("log-{number}"))
            .spawn(move || copy_lines(reader, &mut *log))?;
        let (say, died) = oneshot::channel();
        thread::Builder::new()
            .name(format!("wait-{number}"))
            .spawn(move || {
                // Nobody listens only where this process is about to end.
                let _ = say.send(wait_for(pid));
            })?;
        let (queue, outgoing) = mpsc::unbounded_channel();
        let unsent = Arc::new(AtomicUsize::new(0));
        tokio::spawn(send_all(Arc::clone(&link), outgoing, Arc::clone(&unsent)));
        tokio::spawn(follow(number, Arc::clone(&link), died, events));
        Ok(Self {
            pid,
            started: parts.started,
            threads: ThreadSlots::open(parts.threads)?,
            link,
            lines: parts.lines,
            queue,
            unsent,
        })
    }

    /// What another program needs to go on with it: link, lines and table of threads.
    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        [self.link.socket(), self.lines.as_fd(), self.threads.file()]
    }

    /// Whether everything that it was told is on its way.
    pub(super) fn is_told(&self) -> bool {
        self.unsent.load(Ordering::Acquire) == 0
    }

    pub(super) fn tell(&self, message: ToWorker) {
        self.tell_with(message, Vec::new(), Vec::new());
    }

    pub(super) fn tell_with(
        &self,
        message: ToWorker,
        payload: Vec<u8>,
        descriptors: Vec<Arc<OwnedFd>>,
    ) {
        self.unsent.fetch_add(1, Ordering::AcqRel);
        // Nobody takes it only where the worker is dead, which is told in another way.
        let _ = self.queue.send(Outgoing {
            message,
            payload,
            descriptors,
        });
    }

    /// Ends it at once, together with what its plugins have started.
    pub(super) fn kill(&self) {
        let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
    }
}

async fn send_all(
    link: Arc<Link>,
    mut outgoing: mpsc::UnboundedReceiver<Outgoing>,
    unsent: Arc<AtomicUsize>,
) {
    while let Some(next) = outgoing.recv().await {
        let descriptors: Vec<_> = next.descriptors.iter().map(|d| d.as_fd()).collect();
        let sent = link.send(&next.message, &next.payload, &descriptors).await;
        unsent.fetch_sub(1, Ordering::AcqRel);
        if let Err(error) = sent {
            tracing::debug!(%error, "a worker takes no message any more");
            return;
        }
    }
}

async fn follow(
    number: u32,
    link: Arc<Link>,
    mut died: oneshot::Receiver<ExitStatus>,
    events: mpsc::Sender<(u32, FromWorker)>,
) {
    let mut open = true;
    let status = loop {
        let received = tokio::select! {
            biased;
            status = &mut died => break status,
            received = link.receive(), if open => received,
        };
        match received {
            Ok(Some(received)) => {
                if events
                    .send((number, FromWorker::Said(received)))
                    .await
                    .is_err()
                {
                    return;
                }
            }
            // Its death follows; a plugin may have closed the descriptor, and ends it with that.
            Ok(None) => open = false,
            Err(error) => {
                tracing::error!(worker = number, %error, "a worker says what nobody understands");
                open = false;
            }
        }
    };
    // What it said before it died still counts: connections that it registered, or handed over.
    while let Ok(Some(received)) = link.try_receive() {
        let _ = events.send((number, FromWorker::Said(received))).await;
    }
    let status = status.unwrap_or_else(|_| ExitStatus::from_raw(0));
    let _ = events.send((number, FromWorker::Died(status))).await;
}

/// Waits for a worker's death, and ends what it leaves behind.
fn wait_for(pid: Pid) -> ExitStatus {
    // Without reaping: until then its number, which is that of its group, is nobody else's.
    let seen = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while let Err(rustix::io::Errno::INTR) = rustix::process::waitid(WaitId::Pid(pid), seen) {}
    let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    loop {
        match rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => return ExitStatus::from_raw(status.as_raw()),
            Err(rustix::io::Errno::INTR) | Ok(None) => {}
            // Somebody else has reaped it: this never happens, and is no reason to hang.
            Err(_) => return ExitStatus::from_raw(0),
        }
    }
}

fn copy_lines(pipe: PipeReader, log: &mut (dyn Write + Send)) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut pipe)
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut line)
        {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                if line.last() != Some(&b'\n') {
                    line.push(b'\n');
                }
                // The log counts what it cannot take.
                let _ = log.write_all(&line);
            }
        }
    }
}
