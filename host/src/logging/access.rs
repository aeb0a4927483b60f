//! The way of the access log from a worker to its supervisor, which owns the file: through the pipe of
//! the worker's lines, each with a mark before it.
//!
//! One process writes the file, so that it can be rotated, and workers may come and go. Calls never
//! wait: lines that find the queue full are lost and counted.

use std::io::{self, Write};

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};

use super::{QUEUE_LINES, sink::Losses};

/// Stands before each line: what begins so is none of the log. No line of text does.
pub(super) const MARK: u8 = 0x1e;

/// Bytes that a pipe takes in one piece, so that lines of the log do not come in between.
const AT_ONCE: usize = 4_096;

/// Takes lines of the access log; cheap to clone.
#[derive(Debug, Clone)]
pub struct AccessLines {
    queue: tracing_appender::non_blocking::NonBlocking,
    losses: Losses,
}

/// The way in for a worker's lines. Dropping the guard writes the last ones.
pub(super) fn open() -> (AccessLines, WorkerGuard) {
    let losses = Losses::unreported();
    let (queue, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(QUEUE_LINES)
        .lossy(true)
        .thread_name("access-log")
        .finish(Batches {
            to: io::stdout(),
            waiting: Vec::with_capacity(AT_ONCE),
        });
    losses.count_queue(queue.error_counter());
    (AccessLines { queue, losses }, guard)
}

impl AccessLines {
    /// Takes one whole line, or loses and counts it. Never waits.
    pub fn take(&self, line: &[u8]) {
        let mut marked = Vec::with_capacity(line.len() + 1);
        marked.push(MARK);
        marked.extend_from_slice(line);
        // What is lost is counted by the queue.
        let _ = self.queue.clone().write(&marked);
    }

    /// How many lines were lost so far.
    pub fn lost(&self) -> u64 {
        self.losses.total()
    }
}

/// Writes as many whole lines at once as a pipe takes in one piece.
struct Batches<W> {
    to: W,
    waiting: Vec<u8>,
}

impl<W: Write> Write for Batches<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.waiting.len() + line.len() > AT_ONCE {
            self.flush()?;
        }
        self.waiting.extend_from_slice(line);
        Ok(line.len())
    }

    /// Called whenever the queue has run empty, and at the end.
    fn flush(&mut self) -> io::Result<()> {
        let written = self.to.write_all(&self.waiting);
        self.waiting.clear();
        written.and_then(|()| self.to.flush())
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::*;

    /// Keeps what was written at once.
    #[derive(Default)]
    struct Pieces(Vec<usize>);

    impl Write for Pieces {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(bytes.len());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_together_as_far_as_a_pipe_takes_them_in_one_piece() {
        let mut batches = Batches {
            to: Pieces::default(),
            waiting: Vec::new(),
        };
        for _ in 0..5 {
            batches.write_all(&[b'x'; 1_500]).unwrap();
        }
        batches.flush().unwrap();
        assert_eq!(batches.to.0, [3_000, 3_000, 1_500]);
    }
}
