//! The end of the log: what the writing thread does with each line.
//!
//! Lines come over a bounded queue; this end may block, the other never does. Nothing that goes
//! wrong here reaches the host: a line that cannot be written is counted, like one that found the
//! queue full, and the count is written as soon as that works again.

use std::borrow::Cow;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tracing_appender::non_blocking::ErrorCounter;

use crate::config::LogFormat;

/// What got lost on the way to the log.
#[derive(Debug, Clone, Default)]
pub(super) struct Losses {
    /// Lines that found the queue full; known once the queue exists.
    queue: Arc<OnceLock<ErrorCounter>>,
    /// Lines that could not be written.
    failed: Arc<AtomicU64>,
    /// Whether no line tells of them: a file whose lines all have one shape is read by programs.
    unreported: bool,
}

impl Losses {
    /// Losses that only metrics tell of.
    pub(super) fn unreported() -> Self {
        Self {
            unreported: true,
            ..Self::default()
        }
    }

    pub(super) fn count_queue(&self, counter: ErrorCounter) {
        // Called once, right after the queue was made.
        let _ = self.queue.set(counter);
    }

    pub(super) fn total(&self) -> u64 {
        let queue = self.queue.get().map_or(0, ErrorCounter::dropped_lines);
        self.failed.load(Ordering::Relaxed) + queue as u64
    }
}

/// Writes lines, and between them how many were lost.
pub(super) struct Sink<W> {
    to: W,
    format: LogFormat,
    losses: Losses,
    reported: u64,
}

impl<W: Write> Sink<W> {
    pub(super) fn new(to: W, format: LogFormat, losses: Losses) -> Self {
        Self {
            to,
            format,
            losses,
            reported: 0,
        }
    }

    /// The rotating file complains to standard error, and panics where that is gone too. The
    /// thread has to survive it: standard error may be the gateway's, the file may come back.
    fn try_write(&mut self, line: &[u8]) -> io::Result<()> {
        catch_unwind(AssertUnwindSafe(|| self.to.write_all(line)))
            .unwrap_or_else(|_| Err(io::Error::other("the log's writer panicked")))
    }

    fn report_losses(&mut self) {
        let total = self.losses.total();
        if total == self.reported || self.losses.unreported {
            return;
        }
        let line = loss_line(self.format, total - self.reported);
        if self.try_write(line.as_bytes()).is_ok() {
            self.reported = total;
        }
    }
}

impl<W: Write> Write for Sink<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let whole = match self.format {
            LogFormat::Text => in_one_line(line),
            LogFormat::Json => Cow::Borrowed(line),
        };
        if self.try_write(&whole).is_err() {
            self.losses.failed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    /// Called whenever the queue has run empty, and at the end.
    fn flush(&mut self) -> io::Result<()> {
        self.report_losses();
        let _ = catch_unwind(AssertUnwindSafe(|| self.to.flush()));
        Ok(())
    }
}

/// An event of text, which comes with its closing newline, without any other: what a plugin quotes
/// from a request must not look like a line of its own.
fn in_one_line(event: &[u8]) -> Cow<'_, [u8]> {
    let text = event.strip_suffix(b"\n").unwrap_or(event);
    if !text.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        return Cow::Borrowed(event);
    }
    let mut line = Vec::with_capacity(event.len() + 16);
    for byte in text {
        match byte {
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            other => line.push(*other),
        }
    }
    line.push(b'\n');
    Cow::Owned(line)
}

fn loss_line(format: LogFormat, lost: u64) -> String {
    let mut time = String::new();
    let timer = tracing_subscriber::fmt::time::SystemTime;
    let written = tracing_subscriber::fmt::time::FormatTime::format_time(
        &timer,
        &mut tracing_subscriber::fmt::format::Writer::new(&mut time),
    );
    if written.is_err() {
        time.clear();
    }
    let target = module_path!();
    match format {
        LogFormat::Text => {
            format!("{time}  WARN {target}: log lines were lost before this one lost={lost}\n")
        }
        LogFormat::Json => {
            let line = serde_json::json!({
                "timestamp": time,
                "level": "WARN",
                "fields": {"message": "log lines were lost before this one", "lost": lost},
                "target": target,
            });
            format!("{line}\n")
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::*;

    /// Fails, panics or writes, as each turn says.
    struct Moody {
        turns: Vec<&'static str>,
        written: Vec<u8>,
    }

    impl Write for Moody {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            match self.turns.pop() {
                Some("fail") => Err(io::ErrorKind::BrokenPipe.into()),
                Some("panic") => panic!("failed printing to stderr: Broken pipe"),
                _ => self.written.write(line),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn sink(format: LogFormat, turns: &[&'static str]) -> Sink<Moody> {
        let to = Moody {
            turns: turns.iter().rev().copied().collect(),
            written: Vec::new(),
        };
        Sink::new(to, format, Losses::default())
    }

    #[test]
    fn lines_that_fail_or_panic_are_counted_and_the_count_is_written_later() {
        let mut sink = sink(LogFormat::Text, &["ok", "fail", "panic", "fail", "ok"]);
        for line in ["one\n", "two\n", "three\n"] {
            sink.write_all(line.as_bytes()).unwrap();
        }
        sink.flush().unwrap();
        let text = String::from_utf8(sink.to.written.clone()).unwrap();
        assert_eq!(text, "one\n", "the count could not be written yet");

        sink.flush().unwrap();
        sink.flush().unwrap();
        let text = String::from_utf8(sink.to.written).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(
            lines[1].ends_with("log lines were lost before this one lost=2"),
            "{text}"
        );
    }

    #[test]
    fn an_event_of_text_is_one_line_whatever_is_in_it() {
        let mut sink = sink(LogFormat::Text, &[]);
        sink.write_all(b"plain\n").unwrap();
        sink.write_all(b"one\r\ntwo\n\n").unwrap();
        let text = String::from_utf8(sink.to.written).unwrap();
        assert_eq!(text, "plain\none\\r\\ntwo\\n\n");
    }

    #[test]
    fn the_count_has_the_log_s_own_format() {
        let mut sink = sink(LogFormat::Json, &["fail"]);
        sink.write_all(b"{}\n").unwrap();
        sink.flush().unwrap();
        let line: serde_json::Value = serde_json::from_slice(&sink.to.written).unwrap();
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["fields"]["lost"], 1);
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    }
}
