//! The log of the host: where lines go, how they look, and that writing one never waits.
//!
//! Lines are put into a bounded queue that a thread of its own empties. Where that thread cannot
//! keep up, or standard error is gone with the gateway, lines are lost and counted; the host goes
//! on. This module never decides what is worth a line.

mod access;
mod by_size;
mod levels;
pub mod recent;
mod sink;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use tracing::Subscriber;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, layer::Layered, reload};

use crate::config::{LogConfig, LogFormat, LogRotation};
use by_size::BySize;
use recent::Recent;
use sink::{Losses, Sink};

pub use access::AccessLines;
pub use levels::Levels;

/// Most lines that wait to be written; with lines of a few hundred bytes, a few megabytes.
const QUEUE_LINES: usize = 8_192;

/// Longest time that the end of the host waits for the last lines: standard error may be a pipe
/// that nobody reads, and the gateway kills a host that takes its time.
const FLUSH_TIME: Duration = Duration::from_millis(50);

/// Keeps the log alive. Dropping it writes the last lines, for at most 50 ms.
#[derive(Debug)]
pub struct Logging {
    guards: Vec<WorkerGuard>,
    lines: Lines,
    levels: Levels,
    recent: Option<Recent>,
}

/// The way into the log for lines that another process has made.
#[derive(Debug, Clone)]
pub struct Lines {
    queue: NonBlocking,
    losses: Losses,
    colours: bool,
    /// Where the last lines are kept; nowhere in a worker, whose lines its supervisor keeps.
    recent: Option<Recent>,
    /// Where lines of the access log go that workers have made, where one is kept.
    access: Option<Access>,
}

/// The way into the access log's file.
#[derive(Debug, Clone)]
struct Access {
    queue: NonBlocking,
    losses: Losses,
}

impl Lines {
    /// Whether lines may have colours: somebody looks at them in a terminal.
    pub fn has_colours(&self) -> bool {
        self.colours
    }

    /// How many lines were lost so far, to a full queue or a failing write.
    pub fn lost(&self) -> u64 {
        self.losses.total()
    }

    /// How many lines of the access log this process has lost so far.
    pub fn lost_of_access_log(&self) -> u64 {
        self.access
            .as_ref()
            .map_or(0, |access| access.losses.total())
    }
}

impl Write for Lines {
    /// Takes one whole line, or loses and counts it. Never waits.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let (Some(access), [access::MARK, line @ ..]) = (&mut self.access, line) {
            return access.queue.write(line).map(|written| written + 1);
        }
        if let Some(recent) = &self.recent {
            recent.take(line);
        }
        self.queue.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.queue.flush()
    }
}

/// Why there is no log; the operator's to put right.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is not one.
    #[error("the log filter `{filter}` cannot be read: {source}")]
    Filter {
        /// As it was given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The file cannot be written.
    #[error("cannot log to {}: {reason}", path.display())]
    File {
        /// The file that was named.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Another log is already set up in this process.
    #[error("this process has a log already")]
    AlreadySet,
}

/// Sets the log of this process up; lines from anywhere in it go there from now on. Colours only
/// where somebody looks: the gateway copies standard error into its own log.
///
/// # Errors
/// The log's file cannot be written, or the process has a log already.
pub fn init(config: &LogConfig) -> Result<Logging, LoggingError> {
    let colours = config.file.is_none() && io::stderr().is_terminal();
    start(config, colours, Some(Recent::new(config.format)))
}

/// Sets the log of a worker up: its standard error is its supervisor's to copy into the log.
///
/// # Errors
/// As for [`init`].
pub fn init_worker(config: &LogConfig, colours: bool) -> Result<Logging, LoggingError> {
    let config = LogConfig {
        file: None,
        access_file: None,
        ..config.clone()
    };
    start(&config, colours, None)
}

fn start(
    config: &LogConfig,
    colours: bool,
    recent: Option<Recent>,
) -> Result<Logging, LoggingError> {
    let (subscriber, logging) = make(config, colours, recent)?;
    subscriber
        .try_init()
        .map_err(|_| LoggingError::AlreadySet)?;
    Ok(logging)
}

/// A log, and what has to be told of events for it.
fn make(
    config: &LogConfig,
    colours: bool,
    recent: Option<Recent>,
) -> Result<(impl Subscriber + Send + Sync, Logging), LoggingError> {
    let losses = Losses::default();
    let (queue, guard) = open(config.file.as_deref(), config, &losses, "log")?;
    let mut guards = vec![guard];
    let access = match &config.access_file {
        None => None,
        Some(file) => {
            let losses = Losses::unreported();
            let (queue, guard) = open(Some(file), config, &losses, "access-log")?;
            guards.push(guard);
            Some(Access { queue, losses })
        }
    };
    let filter = levels::filter(&config.filter).map_err(|source| LoggingError::Filter {
        filter: config.filter.clone(),
        source,
    })?;
    let (filter, handle) = reload::Layer::new(filter);
    let way_in = Lines {
        queue,
        losses: losses.clone(),
        colours,
        recent: recent.clone(),
        access,
    };
    let logging = Logging {
        guards,
        lines: way_in.clone(),
        recent,
        levels: Levels::new(handle, &config.filter),
    };
    let subscriber = tracing_subscriber::registry()
        .with(filter)
        .with(lines(config.format, way_in));
    Ok((subscriber, logging))
}

impl Logging {
    /// The way in for lines that another process has made.
    pub fn lines(&self) -> Lines {
        self.lines.clone()
    }

    /// Opens the way into the access log for a worker's lines.
    pub fn open_access_log(&mut self) -> AccessLines {
        let (lines, guard) = access::open();
        self.guards.push(guard);
        lines
    }

    /// What is logged, to be changed while the process runs.
    pub fn levels(&self) -> Levels {
        self.levels.clone()
    }

    /// The last lines, where this process keeps them.
    pub fn recent(&self) -> Option<Recent> {
        self.recent.clone()
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        let guards = std::mem::take(&mut self.guards);
        // The guard's own patience, over a second, is more than a host has at its end.
        let (done, finished) = mpsc::channel();
        let flush = std::thread::Builder::new()
            .name("log-flush".to_owned())
            .spawn(move || {
                drop(guards);
                let _ = done.send(());
            });
        if flush.is_ok() {
            let _ = finished.recv_timeout(FLUSH_TIME);
        }
    }
}

/// What layers stand on.
type Filtered = Layered<reload::Layer<EnvFilter, Registry>, Registry>;

fn lines(format: LogFormat, way_in: Lines) -> Box<dyn Layer<Filtered> + Send + Sync> {
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(way_in.colours)
        .with_writer(move || way_in.clone())
        // It would report with a macro that panics where standard error is gone.
        .log_internal_errors(false);
    match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().boxed(),
    }
}

/// Starts the thread that writes to a file, or to standard error where none is named.
fn open(
    file: Option<&Path>,
    config: &LogConfig,
    losses: &Losses,
    thread: &str,
) -> Result<(NonBlocking, WorkerGuard), LoggingError> {
    let builder = NonBlockingBuilder::default()
        .buffered_lines_limit(QUEUE_LINES)
        .lossy(true)
        .thread_name(thread);
    let (queue, guard) = match file {
        None => builder.finish(Sink::new(io::stderr(), config.format, losses.clone())),
        Some(path) => match config.rotation {
            LogRotation::Size(max_bytes) => {
                let file = BySize::open(path, max_bytes, config.keep_files);
                let file = file.map_err(|error| LoggingError::File {
                    path: path.to_owned(),
                    reason: error.to_string(),
                })?;
                builder.finish(Sink::new(file, config.format, losses.clone()))
            }
            _ => {
                let file = open_file(path.to_owned(), config)?;
                builder.finish(Sink::new(file, config.format, losses.clone()))
            }
        },
    };
    losses.count_queue(queue.error_counter());
    Ok((queue, guard))
}

fn open_file(path: PathBuf, config: &LogConfig) -> Result<RollingFileAppender, LoggingError> {
    let failed = |reason: String| LoggingError::File {
        path: path.clone(),
        reason,
    };
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(failed("it does not name a file".to_owned()));
    };
    let name = name
        .to_str()
        .ok_or_else(|| failed("its name is not UTF-8".to_owned()))?;
    // The whole name is the prefix: old files are found by it, and with `host` out of `host.log`
    // another program's `hostname.log` would be taken for one of ours and deleted.
    let builder = RollingFileAppender::builder().filename_prefix(name);
    let builder = match config.rotation {
        LogRotation::Never | LogRotation::Size(_) => builder.rotation(Rotation::NEVER),
        LogRotation::Hourly => builder
            .rotation(Rotation::HOURLY)
            .max_log_files(config.keep_files),
        LogRotation::Daily => builder
            .rotation(Rotation::DAILY)
            .max_log_files(config.keep_files),
    };
    builder.build(directory).map_err(|error| {
        let source = std::error::Error::source(&error);
        failed(source.map_or_else(|| error.to_string(), ToString::to_string))
    })
}

#[cfg(test)]
mod tests;
