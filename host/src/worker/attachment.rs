//! The worker's end of its supervisor: how it begins, what it is told, what it tells.
//!
//! A thread of its own serves the link, so that nothing that a plugin does on another one keeps the
//! worker from being replaced. Where the supervisor is gone, the worker ends at once: nobody would
//! ever end it otherwise. What is told is decided elsewhere.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    os::unix::net::UnixListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::process::Signal;
use tokio::{
    runtime::Builder,
    sync::{Notify, mpsc, oneshot, watch},
    time::Instant,
};

use super::inheritance::Testament;
use crate::{
    http_services::connection::HandedOver,
    link::{Link, PROTOCOL, Received, Start, ToSupervisor, ToWorker},
    server::{
        Shared, Shutdown,
        handover::{Given, Happened},
    },
    shared_memory::{connections::ConnectionSlots, threads::ThreadSlots},
    tokens::journal::Reader,
};

/// How often it is looked whether the last connection has been handed over, and the last execution
/// has ended.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(1);

/// How long a worker that has nothing else left to hand over waits for what its plugins leave.
const TESTAMENT_TIME: Duration = Duration::from_secs(4);

/// A worker that has been told how to begin.
#[derive(Debug)]
pub struct Attachment {
    /// What the supervisor said.
    pub start: Start,
    /// The socket that the gateway connects to.
    pub listener: UnixListener,
    /// What the connections are doing.
    pub connections: ConnectionSlots,
    /// What the threads are doing.
    pub threads: ThreadSlots,
    /// Token journals of other workers, oldest first, as [`Start::journals`] names them.
    pub journals: Vec<OwnedFd>,
    /// The socket that clients of HTTP services connect to.
    pub services: Option<OwnedFd>,
    link: OwnedFd,
}

/// This process was not started by a supervisor of its kind: the host's fault, or that of whoever
/// started it by hand.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Standard input is no link, or it broke.
    #[error("this command is started by `plugin-host run`, not by hand: {0}")]
    NoSupervisor(io::Error),
    /// The supervisor has gone meanwhile.
    #[error("the supervisor is gone")]
    Orphaned,
    /// The supervisor speaks another version.
    #[error(
        "the supervisor speaks version {theirs} of the protocol between them, this worker {PROTOCOL}"
    )]
    OtherProtocol {
        /// What it speaks.
        theirs: u32,
    },
}

/// Something to tell the supervisor.
#[derive(Debug)]
pub struct Told {
    pub(super) message: ToSupervisor,
    payload: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    /// Hears when it is on its way, from where this worker's death does not call it back.
    sent: Option<oneshot::Sender<()>>,
}

impl Told {
    /// A message with a descriptor.
    pub fn with(message: ToSupervisor, descriptor: OwnedFd) -> Self {
        Self {
            descriptors: vec![descriptor],
            ..Self::from(message)
        }
    }

    /// A client of HTTP services that somebody else has to serve.
    pub fn client((socket, read): HandedOver) -> Self {
        Self {
            payload: read,
            ..Self::with(ToSupervisor::HandOverClient, socket)
        }
    }

    /// A message whose sender waits until it cannot be lost any more.
    pub fn for_sure(message: ToSupervisor, sent: oneshot::Sender<()>) -> Self {
        Self {
            sent: Some(sent),
            ..Self::from(message)
        }
    }
}

impl From<ToSupervisor> for Told {
    fn from(message: ToSupervisor) -> Self {
        Self {
            message,
            payload: Vec::new(),
            descriptors: Vec::new(),
            sent: None,
        }
    }
}

/// What tells a running worker what to do.
#[derive(Debug)]
pub struct Orders {
    /// Where the event loops hear it.
    pub shutdown: watch::Sender<Shutdown>,
    /// Asks for a look at the plugin directory.
    pub rescan: Arc<Notify>,
    /// What has been told from this side, with descriptors.
    pub told: mpsc::UnboundedReceiver<Told>,
    /// What happens to connections.
    pub happened: mpsc::UnboundedReceiver<Happened>,
    /// The event loops, to give connections to.
    pub loops: Vec<mpsc::UnboundedSender<Given>>,
    /// What they share.
    pub shared: Arc<Shared>,
    /// Workers whose journals are followed.
    pub followed: Vec<u32>,
    /// Executions that have not ended, and clients of HTTP services that are still served here.
    pub executions: [Arc<AtomicUsize>; 2],
    /// Where clients of HTTP services are given to.
    pub clients: mpsc::UnboundedSender<HandedOver>,
    /// Takes what plugins have left in the worker before.
    pub states: mpsc::UnboundedSender<OwnedFd>,
    /// Whether what plugins leave here has been told.
    pub(super) testament: Testament,
}

impl Attachment {
    /// Waits on standard input for the supervisor's first message, and ties this process's life to
    /// the supervisor's.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn receive(standard_input: OwnedFd) -> Result<Self, AttachError> {
        let broken = |error: io::Error| AttachError::NoSupervisor(error);
        // Asked for before the parent is looked at, so that no death falls in between.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|error| broken(error.into()))?;
        let runtime = Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(broken)?;
        let received: Option<Received<ToWorker>> = runtime
            .block_on(async {
                let copy = standard_input.as_fd().try_clone_to_owned()?;
                Link::new(copy)?.receive().await
            })
            .map_err(broken)?;
        let Some(received) = received else {
            return Err(AttachError::Orphaned);
        };
        let ToWorker::Start(start) = received.message else {
            return Err(broken(io::ErrorKind::InvalidData.into()));
        };
        // The supervisor may be one version behind, or ahead, while a host upgrades itself.
        if start.protocol.abs_diff(PROTOCOL) > 1 {
            return Err(AttachError::OtherProtocol {
                theirs: start.protocol,
            });
        }
        let parent = rustix::process::getppid().map(|parent| parent.as_raw_nonzero().get());
        if parent != Some(start.supervisor) {
            return Err(AttachError::Orphaned);
        }
        let mut descriptors = received.descriptors.into_iter();
        let mut next = || {
            descriptors
                .next()
                .ok_or_else(|| broken(io::ErrorKind::InvalidData.into()))
        };
        let listener = UnixListener::from(next()?);
        let connections = ConnectionSlots::open(next()?).map_err(broken)?;
        let threads = ThreadSlots::open(next()?).map_err(broken)?;
        let mut journals: Vec<OwnedFd> = descriptors.collect();
        let services = start.services.then(|| journals.pop()).flatten();
        Ok(Self {
            listener,
            connections,
            threads,
            journals,
            services,
            start: *start,
            link: standard_input,
        })
    }
}

/// Serves the link from a thread of its own until the process ends.
///
/// # Errors
/// The thread cannot be started, or the link cannot be watched.
pub(super) fn serve(link: OwnedFd, orders: Orders) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let link = Link::new(link)?;
    drop(entered);
    thread::Builder::new()
        .name("link".to_owned())
        .spawn(move || {
            let ended = runtime.block_on(obey(&link, orders));
            if let Err(error) = ended {
                tracing::error!(%error, "the link to the supervisor broke");
            }
            // Without a supervisor nobody would end this process, and the gateway would wait for
            // it. A signal, since whatever else runs at an exit may hang.
            let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
        })?;
    Ok(())
}

impl Attachment {
    /// The link, for [`serve`].
    pub(super) fn take_link(&mut self) -> io::Result<OwnedFd> {
        self.link.as_fd().try_clone_to_owned()
    }
}

async fn obey(link: &Link, mut orders: Orders) -> io::Result<()> {
    let hello = ToSupervisor::Hello {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    link.send(&hello, &[], &[]).await?;
    let mut next_loop = 0;
    let mut leaving = None;
    loop {
        tokio::select! {
            biased;
            // First: that nothing is left is true only when all that happened has been told.
            Some(happened) = orders.happened.recv() => tell(link, happened).await?,
            Some(told) = orders.told.recv() => {
                let descriptors: Vec<_> = told.descriptors.iter().map(AsFd::as_fd).collect();
                link.send(&told.message, &told.payload, &descriptors).await?;
                if let Some(sent) = told.sent {
                    // Who asked may have given up.
                    let _ = sent.send(());
                }
            }
            received = link.receive::<ToWorker>() => {
                let Some(received) = received? else {
                    return Ok(());
                };
                match received.message {
                    ToWorker::Start(_) => {}
                    ToWorker::Serve => {
                        leaving = None;
                        orders.shutdown.send_replace(Shutdown::Running);
                    }
                    ToWorker::Leave => {
                        leaving = Some(Instant::now());
                        orders.testament.is_awaited();
                        orders.shutdown.send_replace(Shutdown::Standby);
                    }
                    ToWorker::Stop { successor } => {
                        leaving = None;
                        orders.shutdown.send_replace(if successor {
                            Shutdown::HandedOver
                        } else {
                            Shutdown::Drain
                        });
                    }
                    ToWorker::Rescan => orders.rescan.notify_one(),
                    ToWorker::Follow { worker } => {
                        if let Some(journal) = received.descriptors.into_iter().next() {
                            let journal = Reader::new(journal);
                            orders.shared.tokens.follow(journal, Instant::now());
                            orders.followed.push(worker);
                        }
                    }
                    ToWorker::FollowNobody => {
                        orders.shared.tokens.follow_nobody(Instant::now());
                        let workers = std::mem::take(&mut orders.followed);
                        link.send(&ToSupervisor::Absorbed { workers }, &[], &[])
                            .await?;
                    }
                    ToWorker::States => {
                        if let Some(states) = received.descriptors.into_iter().next() {
                            // Nobody takes them only where this process is about to end.
                            let _ = orders.states.send(states);
                        }
                    }
                    ToWorker::GiveClient => {
                        if let Some(client) = received.descriptors.into_iter().next() {
                            // Its loop ends only with the process.
                            let _ = orders.clients.send((client, received.payload));
                        }
                    }
                    ToWorker::Unknown => {}
                    ToWorker::JournalIsKept => orders.shared.tokens.journal_is_passed_on(),
                    ToWorker::Give(passed) => {
                        let Some(socket) = received.descriptors.into_iter().next() else {
                            continue;
                        };
                        let given = Given::new(&orders.shared, passed, socket, received.payload);
                        next_loop = (next_loop + 1) % orders.loops.len();
                        // A loop ends only with the process.
                        let _ = orders.loops[next_loop].send(given);
                    }
                }
            }
            () = tokio::time::sleep(LOOK_AGAIN_AFTER), if leaving.is_some() => {
                let open = orders.shared.connections.load(Ordering::Acquire)
                    + orders
                        .executions
                        .iter()
                        .map(|open| open.load(Ordering::Acquire))
                        .sum::<usize>();
                let waited = leaving.is_some_and(|since| since.elapsed() > TESTAMENT_TIME);
                let is_told = orders.testament.is_told() && orders.told.is_empty();
                if open == 0 && orders.happened.is_empty() && (is_told || waited) {
                    leaving = None;
                    link.send(&ToSupervisor::Left, &[], &[]).await?;
                }
            }
        }
    }
}

async fn tell(link: &Link, happened: Happened) -> io::Result<()> {
    match happened {
        Happened::Stays(passed, duplicate) => {
            let message = ToSupervisor::Register(passed);
            link.send(&message, &[], &[duplicate.as_fd()]).await
        }
        Happened::Ended(passed) => link.send(&ToSupervisor::Closed(passed), &[], &[]).await,
        Happened::HandedOver(passed, socket, bytes) => {
            let socket: Vec<_> = socket.iter().map(AsFd::as_fd).collect();
            link.send(&ToSupervisor::HandOver(passed), &bytes, &socket)
                .await
        }
    }
}
