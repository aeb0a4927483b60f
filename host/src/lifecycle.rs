//! When to stop: signals, and the end of standard input.
//!
//! SIGTERM and SIGINT mean it; so does the end of standard input where that is a pipe, since the
//! gateway holds its other end and nobody kills an orphan. SIGHUP asks for a look at the plugin
//! directory. This module says that the host stops and how long it may take; what stopping means is
//! the worker's affair.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::FileType;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, oneshot, watch};

use crate::listen::Binding;
use crate::worker::Shutdown;

/// How much longer than the drain time the host may live once it was told to stop.
const GRACE: Duration = Duration::from_millis(100);

/// Signal handlers, in place before the host can be reached, so that no signal is lost.
#[derive(Debug)]
pub struct Lifecycle {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Lifecycle {
    /// Takes the signals over. Those that arrive before [`Lifecycle::watch`] are kept for it.
    ///
    /// # Errors
    /// The operating system has no descriptors or threads left.
    pub fn install() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let entered = runtime.enter();
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let hangup = signal(SignalKind::hangup())?;
        drop(entered);
        Ok(Self {
            runtime,
            terminate,
            interrupt,
            hangup,
        })
    }

    /// Watches from a thread of its own, and says when and how to stop; a SIGHUP notifies `rescan`.
    ///
    /// Where the process still lives 100 ms after `drain_time` from then, `overdue` is called once:
    /// a plugin that does not return must not keep the host past the gateway's patience.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn watch(
        self,
        binding: Arc<Binding>,
        ignore_stdin: bool,
        drain_time: Duration,
        rescan: Arc<Notify>,
        overdue: impl FnOnce() + Send + 'static,
    ) -> io::Result<watch::Receiver<Shutdown>> {
        let input_ended = match ignore_stdin {
            true => None,
            false => watch_for_end(io::stdin())?,
        };
        let (say, shutdown) = watch::channel(Shutdown::Running);
        std::thread::Builder::new()
            .name("lifecycle".to_owned())
            .spawn(move || {
                let Self {
                    runtime,
                    terminate,
                    interrupt,
                    hangup,
                } = self;
                runtime.block_on(async {
                    let reason =
                        wait_for_reason(terminate, interrupt, hangup, input_ended, &rescan).await;
                    let how = if binding.has_successor() {
                        Shutdown::HandedOver
                    } else {
                        Shutdown::Drain
                    };
                    tracing::info!(reason, how = ?how, "stopping");
                    // Nobody listens any more only where the worker has ended by itself.
                    let _ = say.send(how);
                    tokio::time::sleep(drain_time + GRACE).await;
                    overdue();
                });
            })?;
        Ok(shutdown)
    }
}

async fn wait_for_reason(
    mut terminate: Signal,
    mut interrupt: Signal,
    mut hangup: Signal,
    input_ended: Option<oneshot::Receiver<()>>,
    rescan: &Notify,
) -> &'static str {
    let input_ended = async {
        // An error means that the thread gave up without having seen an end.
        if let Some(ended) = input_ended
            && ended.await.is_ok()
        {
            return;
        }
        std::future::pending().await
    };
    tokio::pin!(input_ended);
    loop {
        tokio::select! {
            _ = terminate.recv() => return "SIGTERM",
            _ = interrupt.recv() => return "SIGINT",
            () = &mut input_ended => return "standard input ended",
            _ = hangup.recv() => {
                tracing::info!("SIGHUP: looking at the plugin directory");
                rescan.notify_one();
            }
        }
    }
}

/// Tells when the last writer of a pipe is gone; `None` where `input` is not a pipe. Nothing is
/// read: whoever writes to it is not meant for us.
fn watch_for_end(input: impl AsFd + Send + 'static) -> io::Result<Option<oneshot::Receiver<()>>> {
    let is_pipe = rustix::fs::fstat(&input)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
    if !is_pipe {
        return Ok(None);
    }
    let (say, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || {
            // Without any event asked for, only a hang-up or an error ends the wait.
            let mut watched = [PollFd::new(&input, PollFlags::empty())];
            loop {
                match rustix::event::poll(&mut watched, None) {
                    Err(rustix::io::Errno::INTR) => {}
                    Err(_) => return,
                    Ok(_) => break,
                }
            }
            let _ = say.send(());
        })?;
    Ok(Some(ended))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::*;
    use crate::runtime_dir::RuntimeDir;

    /// What is said after a SIGTERM that came before anybody watched, with as many hosts bound
    /// after the first as `successors` says; and that `overdue` is called in the end.
    fn after_sigterm(successors: usize) -> Shutdown {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("runner.sock");
        let runtime = RuntimeDir::open(&directory.path().join("run"), &path).unwrap();
        let bind = || Binding::bind(&path, 0o600, 16, runtime.address_lock().unwrap()).unwrap();
        let lifecycle = Lifecycle::install().unwrap();
        let (binding, _listener) = bind();
        let _next: Vec<_> = (0..successors).map(|_| bind()).collect();

        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM)
            .unwrap();
        let (say, overdue) = std::sync::mpsc::channel();
        let mut shutdown = lifecycle
            .watch(
                Arc::new(binding),
                true,
                Duration::ZERO,
                Arc::default(),
                move || {
                    say.send(()).unwrap();
                },
            )
            .unwrap();
        let waiting = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let said = *waiting
            .block_on(shutdown.wait_for(|said| *said != Shutdown::Running))
            .unwrap();
        overdue.recv().unwrap();
        said
    }

    #[test]
    fn a_signal_drains_where_nobody_else_listens_and_hands_over_where_somebody_does() {
        assert_eq!(after_sigterm(0), Shutdown::Drain);
        assert_eq!(after_sigterm(1), Shutdown::HandedOver);
    }

    #[test]
    fn the_end_of_a_pipe_is_noticed_although_nobody_reads_it() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let mut ended = watch_for_end(reader).unwrap().unwrap();
        rustix::io::write(&writer, b"unread").unwrap();
        assert!(ended.try_recv().is_err());
        drop(writer);
        assert_eq!(ended.blocking_recv(), Ok(()));
    }

    #[test]
    fn what_is_not_a_pipe_is_not_watched() {
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(watch_for_end(null).unwrap().is_none());
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(watch_for_end(socket).unwrap().is_none());
    }
}
