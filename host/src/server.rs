//! Accepts connections on an event loop and serves each until the gateway or a shutdown ends it.
//!
//! One call at a time runs on a connection, so connections are what bounds concurrency. Nothing
//! here looks into a frame; nothing here knows where plugins come from.

pub mod access_log;
pub mod connection;
pub mod conversation;
pub mod handover;
mod orders;
mod scratch;
mod spin;

use std::{
    future::poll_fn,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use plugin_proto::{FrameWriter, err};
use tokio::{
    io::AsyncWriteExt,
    net::{UnixListener, UnixStream},
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use crate::{
    memory::MemoryBudget, metrics::traffic::Traffic, pipeline::Pipeline, throttle::Throttle,
    tokens::Tokens,
};
use access_log::AccessLog;
use conversation::{Conversation, Ended};
use handover::{Given, Supervised};
use orders::Orders;
use spin::Pace;

/// How long accepting pauses after an error: most likely the process has run out of descriptors.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(50);

/// What the host is asked to do about its own end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Nothing.
    Running,
    /// Accept nothing, and hand each connection over at its next boundary: another worker serves.
    Standby,
    /// Serve what is open and what still comes, until the connections are closed or time is up.
    Drain,
    /// A successor listens on the path: end what is open, close idle connections at once.
    HandedOver,
}

/// What an error frame or a reply of ours stands for in the response phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResponseFailure {
    /// Status 503 with a body of ours.
    #[default]
    Status503,
    /// An error frame: the gateway lets the upstream's body through.
    ErrorFrame,
}

/// Bounds and options of every connection.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open connections, at most.
    pub max_connections: usize,
    /// Bytes of one frame's data.
    pub max_frame_bytes: usize,
    /// Bytes that the frames and bodies of one connection may hold.
    pub max_connection_memory: usize,
    /// Questions to the gateway during one call.
    pub max_extra_info_rounds: u32,
    /// Time that a frame may take from its first byte to its last, and an answer to be taken.
    pub frame_timeout: Duration,
    /// How long a loop waits for the next call before it sleeps; zero for not at all.
    pub spin: Duration,
    /// Whether the response phase asks for the method, so that HEAD is answered right.
    pub ask_method_for_head: bool,
    /// What a failed plugin means in the response phase.
    pub response_failure: ResponseFailure,
}

/// What all connections share.
#[derive(Debug)]
pub struct Shared {
    /// Configuration tokens.
    pub tokens: Arc<Tokens>,
    /// Runs chains.
    pub pipeline: Pipeline,
    /// Bounds and options.
    pub limits: Limits,
    /// Bound on the memory of large frames.
    pub memory: MemoryBudget,
    /// Keeps the reasons of failures from filling the log.
    pub throttle: Throttle,
    /// Counts what the gateway and this worker say to each other.
    pub traffic: Arc<Traffic>,
    /// Where one is kept.
    pub access_log: Option<AccessLog>,
    /// Open connections.
    pub connections: AtomicUsize,
    /// The supervisor of this worker, where it has one.
    pub supervised: Option<Supervised>,
}

/// Serves a listener, and the connections that are given, until `shutdown` says stop; then until
/// every connection has ended. The caller bounds how long that may take.
pub async fn serve(
    listener: UnixListener,
    mut given: mpsc::UnboundedReceiver<Given>,
    shared: Arc<Shared>,
    mut shutdown: watch::Receiver<Shutdown>,
) {
    // Drained is when every connection has dropped its sender.
    let (open, mut drained) = mpsc::channel::<()>(1);
    let orders = Orders::new(*shutdown.borrow());
    let pace = Pace::new(shared.limits.spin);
    // Ends with this function.
    let mut awake = JoinSet::new();
    awake.spawn(Arc::clone(&pace).keep_awake());
    let connections = Connections {
        shared: Arc::clone(&shared),
        orders: Arc::clone(&orders),
        pace,
        open,
    };
    // Whether another worker takes what waits in the backlog.
    let mut replaced = false;
    loop {
        let asked = *shutdown.borrow_and_update();
        orders.give(asked);
        if asked == Shutdown::HandedOver {
            break;
        }
        replaced = asked == Shutdown::Standby;
        let accepted = tokio::select! {
            biased;
            changed = shutdown.changed() => match changed {
                Ok(()) => continue,
                // Nobody can ask for anything any more.
                Err(_) => break,
            },
            Some(given) = given.recv() => {
                connections.take_over(given);
                continue;
            }
            accepted = listener.accept(), if asked != Shutdown::Standby => accepted,
            // Without a successor new connections are served to the end; it comes when the last
            // one is closed.
            () = all_closed(&shared), if asked == Shutdown::Drain => break,
        };
        match accepted {
            Ok((stream, _)) => connections.start(stream),
            Err(error) => pause_after(&error, &shared).await,
        }
    }
    // What connected before a successor took the path over waits in our backlog, not in its.
    while !replaced && let Some(Ok((stream, _))) = accept_waiting(&listener).await {
        connections.start(stream);
    }
    drop(listener);
    drop(connections);
    // Only the connections hold senders now. What they are asked may still become more urgent.
    loop {
        tokio::select! {
            _ = drained.recv() => return,
            changed = shutdown.changed() => match changed {
                Ok(()) => orders.give(*shutdown.borrow_and_update()),
                // Nobody can ask for anything any more: that is an end as well.
                Err(_) => {
                    orders.give(Shutdown::HandedOver);
                    let _ = drained.recv().await;
                    return;
                }
            },
        }
    }
}

/// While draining: ready once no connection is open.
async fn all_closed(shared: &Shared) {
    const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(10);
    loop {
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        if shared.connections.load(Ordering::Relaxed) == 0 {
            return;
        }
    }
}

/// A connection that is in the backlog already.
async fn accept_waiting(
    listener: &UnixListener,
) -> Option<io::Result<(UnixStream, tokio::net::unix::SocketAddr)>> {
    futures_util::future::poll_immediate(listener.accept()).await
}

async fn pause_after(error: &io::Error, shared: &Shared) {
    if let Some(left_out) = shared.throttle.allow("accept", Instant::now().into_std()) {
        tracing::error!(
            %error,
            left_out,
            "cannot accept a connection; where open files are short, raise their limit"
        );
    }
    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
}

/// Starts the connections of one event loop.
struct Connections {
    shared: Arc<Shared>,
    orders: Arc<Orders>,
    pace: Arc<Pace>,
    /// Each connection holds a copy for as long as it is open.
    open: mpsc::Sender<()>,
}

impl Connections {
    fn start(&self, stream: UnixStream) {
        let count = Counted::new(Arc::clone(&self.shared));
        let followed = self.shared.supervised.as_ref().map(Supervised::begin);
        let has_room =
            count.number <= self.shared.limits.max_connections && !matches!(followed, Some(None));
        self.shared.traffic.count_connection(has_room);
        // There are as many slots as connections are allowed, and more.
        if !has_room {
            tokio::spawn(refuse(stream, count));
            return;
        }
        let conversation = Conversation::new(stream, Arc::clone(&self.shared), followed.flatten());
        self.run(conversation, count);
    }

    /// Goes on with a connection that another worker has served so far; it is never refused.
    fn take_over(&self, given: Given) {
        let stream = std::os::unix::net::UnixStream::from(given.socket);
        let supervised = self.shared.supervised.as_ref();
        let followed = supervised.and_then(|supervised| supervised.take_over(given.passed));
        let stream = match UnixStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::error!(%error, "cannot watch a connection that was handed over");
                return;
            }
        };
        let mut conversation = Conversation::new(stream, Arc::clone(&self.shared), followed);
        conversation.resume(&given.bytes, given.passed.unread_answers);
        self.run(conversation, given.count);
    }

    fn run(&self, conversation: Conversation, count: Counted) {
        let (orders, pace) = (Arc::clone(&self.orders), Arc::clone(&self.pace));
        let open = self.open.clone();
        tokio::spawn(async move {
            run_connection(conversation, &count.shared, &orders, &pace).await;
            drop(count);
            drop(open);
        });
    }
}

/// Serves one connection until it ends, or is handed over.
async fn run_connection(
    mut conversation: Conversation,
    shared: &Shared,
    orders: &Arc<Orders>,
    pace: &Pace,
) {
    let mut ear = orders.ear();
    let mut asked = orders.asked();
    let ended = loop {
        match asked {
            // A call that the gateway has sent already is served to its end.
            Shutdown::HandedOver if !conversation.has_begun() => break Ended::ShutDown,
            Shutdown::Standby if conversation.can_be_handed_over() => {
                conversation.hand_over();
                return;
            }
            _ => {}
        }
        tokio::select! {
            biased;
            begun = conversation.next_call() => if let Err(ended) = begun {
                break ended;
            },
            other = poll_fn(|context| ear.poll_other_than(asked, context)) => {
                asked = other;
                continue;
            }
        }
        if let Err(ended) = conversation.finish_call().await {
            break ended;
        }
        pace.answered();
    };
    if let Ended::Gateway(error) = ended
        && let Some(left_out) = shared
            .throttle
            .allow("connection", Instant::now().into_std())
    {
        tracing::warn!(
            %error,
            left_out,
            "closing a connection: the other side hung up in the middle of a call, or is no gateway"
        );
    }
}

/// Tells the gateway at once that there is no room, instead of letting its call time out.
async fn refuse(mut stream: UnixStream, count: Counted) {
    if let Some(left_out) = count
        .shared
        .throttle
        .allow("connections", Instant::now().into_std())
    {
        tracing::error!(
            max_connections = count.shared.limits.max_connections,
            left_out,
            "too many connections: refusing one; raise --max-connections"
        );
    }
    let mut writer = FrameWriter::new();
    let frame = err::write(&mut writer, err::Code::ServiceUnavailable);
    // A fresh socket takes twenty bytes; where not, the close says the same.
    let _ = stream.write_all(frame).await;
}

/// Counts a connection for as long as it is open.
#[derive(Debug)]
struct Counted {
    shared: Arc<Shared>,
    number: usize,
}

impl Counted {
    fn new(shared: Arc<Shared>) -> Self {
        let number = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
        Self { shared, number }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
