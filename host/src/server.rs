//! Accepts connections on an event loop and serves each until the gateway or a shutdown ends it.
//!
//! One call at a time runs on a connection, so connections are what bounds concurrency. Nothing
//! here looks into a frame; nothing here knows where plugins come from.

pub mod connection;
pub mod conversation;

use std::{
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
    time::Instant,
};

use crate::{memory::MemoryBudget, pipeline::Pipeline, throttle::Throttle, tokens::Tokens};
use conversation::{Conversation, Ended};

/// How long accepting pauses after an error: most likely the process has run out of descriptors.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(50);

/// What the host is asked to do about its own end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Nothing.
    Running,
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
    /// Questions to the gateway during one call.
    pub max_extra_info_rounds: u32,
    /// Time that a frame may take from its first byte to its last, and an answer to be taken.
    pub frame_timeout: Duration,
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
    /// Open connections.
    pub connections: AtomicUsize,
}

/// Serves a listener until `shutdown` says stop, then until every connection has ended. The caller
/// bounds how long that may take.
pub async fn serve(
    listener: UnixListener,
    shared: Arc<Shared>,
    mut shutdown: watch::Receiver<Shutdown>,
) {
    // Drained is when every connection has dropped its sender.
    let (open, mut drained) = mpsc::channel::<()>(1);
    let accept = |stream| {
        start_connection(stream, &shared, &shutdown, &open);
    };
    let mut stop = std::pin::pin!(handed_over(shutdown.clone()));
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
            // Without a successor new connections are served to the end; it comes when the last
            // one is closed.
            () = all_closed(&shared, shutdown.clone()) => break,
        };
        match accepted {
            Ok((stream, _)) => accept(stream),
            Err(error) => pause_after(&error, &shared).await,
        }
    }
    // What connected before a successor took the path over waits in our backlog, not in its.
    while let Some(Ok((stream, _))) = accept_waiting(&listener).await {
        accept(stream);
    }
    drop(listener);
    shutdown.mark_unchanged();
    drop(open);
    // Only the connections hold senders now.
    let _ = drained.recv().await;
}

async fn handed_over(mut shutdown: watch::Receiver<Shutdown>) {
    // An error means that nobody can ask for a shutdown any more, which is one.
    let _ = shutdown
        .wait_for(|state| *state == Shutdown::HandedOver)
        .await;
}

/// While draining: ready once no connection is open.
async fn all_closed(shared: &Shared, mut shutdown: watch::Receiver<Shutdown>) {
    const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(10);
    let _ = shutdown.wait_for(|state| *state != Shutdown::Running).await;
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

fn start_connection(
    stream: UnixStream,
    shared: &Arc<Shared>,
    shutdown: &watch::Receiver<Shutdown>,
    open: &mpsc::Sender<()>,
) {
    let count = Counted::new(Arc::clone(shared));
    if count.number > shared.limits.max_connections {
        tokio::spawn(refuse(stream, count));
        return;
    }
    let shutdown = shutdown.clone();
    let open = open.clone();
    tokio::spawn(async move {
        run_connection(stream, &count.shared, shutdown).await;
        drop(count);
        drop(open);
    });
}

/// Serves one connection until it ends.
async fn run_connection(
    stream: UnixStream,
    shared: &Arc<Shared>,
    shutdown: watch::Receiver<Shutdown>,
) {
    let mut conversation = Conversation::new(stream, Arc::clone(shared));
    let mut closing = std::pin::pin!(handed_over(shutdown));
    let mut closes = false;
    let ended = loop {
        // A call that the gateway has sent already is served to its end.
        if closes && !conversation.has_begun() {
            break Ended::ShutDown;
        }
        tokio::select! {
            biased;
            begun = conversation.next_call() => if let Err(ended) = begun {
                break ended;
            },
            () = &mut closing, if !closes => {
                closes = true;
                continue;
            }
        }
        if let Err(ended) = conversation.finish_call().await {
            break ended;
        }
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
