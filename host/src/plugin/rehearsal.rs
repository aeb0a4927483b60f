//! Loads a plugin in a throw-away process, to see what would happen if a host loaded it.
//!
//! Whatever the plugin does there (refuse, crash, exit, hang) happens to that process only, and is
//! told as a value. The process gets the very bytes that were judged, keeps its copy of them in
//! memory, and leaves nothing behind. It dies with the process that started it, and of that
//! inherits the environment and nothing else: what it prints is caught.
//!
//! Nothing here judges files, and nothing here decides what a failure means.

mod process;
mod stage;
mod task;

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use semver::Version;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::metadata::PluginName;
use crate::http_client;

pub use stage::perform;
pub use task::Stage;

/// Argument with which a program that this library is part of has to call [`perform`].
pub const COMMAND: &str = "rehearse";

/// Time that a rehearsal may take: longer than a host gives a plugin to load.
pub const TIME: Duration = Duration::from_secs(15);

/// Bytes of what a plugin prints that are kept.
pub const MAX_OUTPUT_BYTES: usize = 16 << 10;

/// What to rehearse.
#[derive(Debug, Clone, Copy)]
pub struct Rehearsal<'a> {
    /// The program to start, which calls [`perform`] where its only argument is [`COMMAND`].
    /// `/proc/self/exe` is this very program, also where its file has been replaced.
    pub program: &'a Path,
    /// The plugin's name.
    pub plugin: &'a PluginName,
    /// Its version.
    pub version: &'a Version,
    /// Its library: bytes that have been judged.
    pub library: &'a [u8],
    /// Whether the library's own schema counts, because its `plugin.json` has none.
    pub own_schema: bool,
    /// How far to go.
    pub extent: Extent,
    /// Settings for its `on_load`, complete.
    pub settings: &'a Value,
    /// Routes' configurations for it to parse.
    pub configurations: &'a [&'a [u8]],
    /// What the HTTP client is that it gets.
    pub http_client: &'a http_client::Settings,
    /// Bound on all of it.
    pub time: Duration,
}

/// How far a rehearsal goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extent {
    /// The library is opened and asked for its schema; nothing is constructed.
    Schema,
    /// From the library's constructors to `on_unload`.
    All,
}

/// How a rehearsal went.
#[derive(Debug)]
pub struct Rehearsed {
    /// Whether the plugin did all that it was asked to.
    pub result: Result<(), RehearsalError>,
    /// The library's own JSON Schema of a route's configuration, where it counts and there is one.
    pub config_schema: Option<Value>,
    /// How long it took, start of the process included.
    pub took: Duration,
    /// What the plugin logged and printed, as far as it is kept.
    pub output: String,
}

/// A plugin did not get through its rehearsal: its author's fault, but for
/// [`RehearsalError::NotTried`].
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    /// Library or plugin said no.
    #[error("{stage}: {reason}")]
    Refused {
        /// To what.
        stage: Stage,
        /// In its own words.
        reason: String,
    },
    /// It killed its process.
    #[error("{stage}: it crashed with {}", signal_name(*signal))]
    Crashed {
        /// During what.
        stage: Stage,
        /// The signal's number.
        signal: i32,
    },
    /// It ended its process.
    #[error("{stage}: it ended the process with exit code {code}")]
    Exited {
        /// During what.
        stage: Stage,
        /// The exit code.
        code: i32,
    },
    /// It did not come to an end.
    #[error("{stage}: it had not ended after {} s", after.as_secs())]
    Hung {
        /// During what.
        stage: Stage,
        /// The bound that it passed.
        after: Duration,
    },
    /// There is no process to try it in: the machine's fault.
    #[error("cannot start a process to load it in: {0}")]
    NotTried(#[source] io::Error),
}

impl Rehearsal<'_> {
    /// Rehearses, and waits for the end of it.
    ///
    /// The thread that calls this is what the process dies with, so that it must not be one that
    /// ends meanwhile.
    #[must_use]
    pub fn run(&self) -> Rehearsed {
        process::run(self)
    }
}

impl RehearsalError {
    /// What to do about it.
    #[must_use]
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Refused { stage, .. } => match stage {
                Stage::Start | Stage::Open => {
                    "build the library for this system, with the plugin-abi of this host"
                }
                Stage::Schema => {
                    "correct the `JsonSchema` of the configuration type, or write `config_schema` into plugin.json, which wins"
                }
                Stage::Load => {
                    "correct the plugin's settings (`settings` of its plugin.json, the operator's `[plugins.NAME.settings]`), or mend its `on_load`"
                }
                Stage::Fit | Stage::Configure => "correct the configuration",
                Stage::Unload => "mend its `on_unload`",
            },
            Self::Crashed { .. } | Self::Exited { .. } => {
                "mend the plugin: in a host this ends the process, with every other plugin in it"
            }
            Self::Hung { .. } => "mend the plugin: a host gives up on it, and its thread is lost",
            Self::NotTried(_) => "see whether this user may start processes",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "before the library was opened",
            Self::Open => "when the library was opened",
            Self::Schema => "when it was asked for the schema of its configuration",
            Self::Load => "in the plugin's constructor or `on_load`",
            Self::Fit => "the configuration does not fit the plugin's schema",
            Self::Configure => "when it parsed a configuration",
            Self::Unload => "in its `on_unload`",
        })
    }
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        4 => "SIGILL, an illegal instruction",
        5 => "SIGTRAP",
        6 => "SIGABRT, an abort",
        7 => "SIGBUS, a bad memory access",
        8 => "SIGFPE, an arithmetic fault",
        9 => "SIGKILL",
        11 => "SIGSEGV, a bad memory access",
        15 => "SIGTERM",
        31 => "SIGSYS, a forbidden system call",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}
