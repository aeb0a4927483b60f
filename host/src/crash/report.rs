//! What is told about a death: to programs as JSON, to people as one line.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize, de};

use super::{autopsy::KnownGeneration, symbols::functions_at};
use crate::shared_memory::connections::{CallKind, State};

/// Frames that the line for people names.
const FRAMES_SHOWN: usize = 5;

/// Requests that it names.
const REQUESTS_SHOWN: usize = 10;

/// A worker's death.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// When it was judged, in UTC.
    pub at: String,
    /// The dead process.
    pub pid: u32,
    /// The version of its program.
    pub host_version: String,
    /// How long it lived, in milliseconds.
    pub uptime_ms: u64,
    /// What ended it.
    pub cause: Cause,
    /// Whose doing it was; absent where that is not certain.
    pub blamed: Option<Blamed>,
    /// Whose doing it may have been, where it is not certain.
    pub suspects: Vec<SuspectedGeneration>,
    /// Whether the instruction that ended it lies in the library of the plugin that is blamed.
    pub in_plugins_library: bool,
    /// The thread that ended it, where that was recorded.
    pub thread: Option<CrashedThread>,
    /// Every thread that was inside a plugin.
    pub inside_plugins: Vec<InsidePlugin>,
    /// The calls that were open, those of the plugin that is blamed first.
    pub open_calls: Vec<OpenCall>,
    /// How many more were open.
    pub calls_left_out: usize,
    /// The instruction that was executed, if it was a fault, and the callers, innermost first.
    pub backtrace: Vec<Frame>,
}

/// An address, or an offset in a file; written as tools take it: `0x1f`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(pub u64);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.strip_prefix("0x").unwrap_or_default();
        let address = u64::from_str_radix(digits, 16);
        address.map(Self).map_err(de::Error::custom)
    }
}

/// What ended a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    /// A signal that the process brought upon itself.
    Fault {
        /// The signal's number.
        signal: i32,
        /// Its name.
        name: String,
        /// Why it was sent, as the kernel says it.
        code: i32,
        /// The address that could not be accessed or executed, where there is one.
        address: Option<Address>,
        /// Whether it looks as if the stack had been too small.
        stack_overflow: bool,
    },
    /// A signal that somebody else sent, or nobody knows who: also the system, where memory is short.
    Killed {
        /// The signal's number.
        signal: i32,
        /// Its name.
        name: String,
        /// The process that sent it, where that was recorded.
        sender: Option<u32>,
    },
    /// It ended by itself.
    Exit {
        /// With this code.
        code: i32,
    },
    /// The supervisor killed it, since a plugin did not give an event loop back.
    StuckLoop,
}

/// A generation whose doing a death was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blamed {
    /// The generation.
    #[serde(flatten)]
    pub generation: SuspectedGeneration,
    /// How that is known.
    pub rule: Rule,
}

/// How it is known whose doing a death was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The thread that died, or called `exit`, was inside the plugin.
    ThreadInside,
    /// The thread was not seen to enter any plugin, and executed this one's code: its own thread.
    FrameInLibrary,
    /// There is no record, and no other plugin was being run by any thread.
    OnlyOneInside,
    /// It kept an event loop.
    StuckLoop,
}

/// A generation by its number, and as the worker told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuspectedGeneration {
    /// What names it in shared memory.
    pub number: u64,
    /// Absent where the worker died before it told.
    pub known: Option<KnownGeneration>,
}

/// The thread that ended a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrashedThread {
    /// As the kernel numbers it.
    pub thread: u32,
    /// The plugin that it was inside of.
    pub inside: Option<InsidePlugin>,
}

/// A thread inside a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InsidePlugin {
    /// As the kernel numbers it.
    pub thread: u32,
    /// The plugin.
    pub generation: SuspectedGeneration,
    /// What it did there.
    pub activity: String,
}

/// A call that was open when a worker died.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenCall {
    /// The gateway's id of the request.
    pub request_id: u32,
    /// `prepare`, `request` or `response`.
    pub phase: String,
    /// The number of the generation that had it; 0 for none.
    pub generation: u64,
    /// What the connection was doing.
    pub state: String,
    /// The generation, in a [`Report`].
    pub plugin: Option<SuspectedGeneration>,
}

impl OpenCall {
    /// The call of a connection's slot.
    pub fn of(slot: &crate::shared_memory::connections::Slot) -> Self {
        let call = slot.call();
        let phase = match call.kind {
            CallKind::Prepare => "prepare",
            CallKind::Request => "request",
            CallKind::Response => "response",
        };
        let state = match slot.state() {
            State::Free => "free",
            State::Idle => "idle",
            State::Reading => "reading",
            State::InCall => "in call",
            State::Writing => "writing",
        };
        Self {
            request_id: call.request,
            phase: phase.to_owned(),
            generation: call.plugin,
            state: state.to_owned(),
            plugin: None,
        }
    }
}

/// One place of a backtrace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The instruction, or what a call would have returned to.
    pub address: Address,
    /// The file with the code.
    pub library: Option<PathBuf>,
    /// Where in it, as `addr2line` takes it.
    pub offset: Option<Address>,
    /// The number of the generation whose library that is.
    pub plugin: Option<u64>,
    /// The function.
    pub function: Option<String>,
    /// Bytes from the function's start.
    pub into: Option<u64>,
}

impl Report {
    /// Looks the functions' names up, in the files that were mapped. Takes its time.
    pub(super) fn symbolise(&mut self) {
        let mut libraries: Vec<PathBuf> = Vec::new();
        for library in self.backtrace.iter().filter_map(|it| it.library.as_ref()) {
            if !libraries.contains(library) {
                libraries.push(library.clone());
            }
        }
        for library in libraries {
            let frames = self.backtrace.iter_mut();
            let mut frames: Vec<&mut Frame> = frames
                .filter(|frame| frame.library.as_ref() == Some(&library))
                .collect();
            let offsets: Vec<u64> = frames
                .iter()
                .filter_map(|frame| Some(frame.offset?.0))
                .collect();
            for (frame, found) in frames.iter_mut().zip(functions_at(&library, &offsets)) {
                (frame.function, frame.into) = found.unzip();
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {} {}", self.pid, self.cause)?;
        match &self.blamed {
            Some(blamed) => {
                write!(f, " in {}", blamed.generation)?;
                let at_work = self.thread.iter().filter_map(|it| it.inside.as_ref());
                for inside in at_work {
                    write!(f, " while {}", inside.activity)?;
                }
                if blamed.rule == Rule::OnlyOneInside {
                    f.write_str(" (nothing was recorded; no other plugin was running)")?;
                }
                if blamed.rule == Rule::FrameInLibrary {
                    f.write_str(" (on a thread of the plugin's own)")?;
                }
            }
            None if self.suspects.is_empty() => f.write_str("; no plugin is to blame")?,
            None => write_list(
                f,
                "; it is not certain whose doing it was: ",
                &self.suspects,
            )?,
        }
        self.write_open_calls(f)?;
        let shown: Vec<_> = self.backtrace.iter().take(FRAMES_SHOWN).collect();
        if !shown.is_empty() {
            write_list_with(f, "; at ", &shown, " < ")?;
        }
        Ok(())
    }
}

impl Report {
    fn write_open_calls(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests: Vec<_> = self
            .open_calls
            .iter()
            .map(|call| format!("{} ({})", call.request_id, call.phase))
            .collect();
        if requests.is_empty() {
            return Ok(());
        }
        let shown = &requests[..requests.len().min(REQUESTS_SHOWN)];
        write_list(f, "; open calls: ", shown)?;
        match requests.len() - shown.len() + self.calls_left_out {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

fn write_list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, start: &str, of: &[T]) -> fmt::Result {
    write_list_with(f, start, of, ", ")
}

fn write_list_with<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    start: &str,
    of: &[T],
    between: &str,
) -> fmt::Result {
    for (index, item) in of.iter().enumerate() {
        write!(f, "{}{item}", if index == 0 { start } else { between })?;
    }
    Ok(())
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault {
                name,
                address,
                stack_overflow,
                ..
            } => {
                write!(f, "died of {name}")?;
                if let Some(address) = address {
                    write!(f, " at address {address}")?;
                }
                if *stack_overflow {
                    f.write_str(" (its stack overflowed)")?;
                }
                Ok(())
            }
            Self::Killed { name, sender, .. } => {
                write!(f, "was killed from outside with {name}")?;
                match sender {
                    Some(sender) => write!(f, " by process {sender}"),
                    None => Ok(()),
                }
            }
            Self::Exit { code } => write!(f, "ended by itself with exit code {code}"),
            Self::StuckLoop => f.write_str("was killed because an event loop was stuck"),
        }
    }
}

impl fmt::Display for SuspectedGeneration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.known {
            Some(known) => write!(f, "plugin {} {}", known.name, known.version),
            None => write!(f, "an unknown plugin, generation {}", self.number),
        }
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(function), Some(into)) = (&self.function, self.into) {
            return write!(f, "{function}+{into:#x}");
        }
        let library = self.library.as_ref().and_then(|path| path.file_name());
        match (library, self.offset) {
            (Some(library), Some(offset)) => write!(f, "{}+{offset}", library.display()),
            _ => write!(f, "{}", self.address),
        }
    }
}

/// The name that the system's manuals give a signal.
pub(super) fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGBUS => "SIGBUS",
        libc::SIGILL => "SIGILL",
        libc::SIGFPE => "SIGFPE",
        libc::SIGABRT => "SIGABRT",
        libc::SIGSYS => "SIGSYS",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGKILL => "SIGKILL",
        libc::SIGTERM => "SIGTERM",
        libc::SIGINT => "SIGINT",
        libc::SIGALRM => "SIGALRM",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

/// The time, in UTC, as `2026-11-20T22:13:28.123456Z`.
pub(super) fn now() -> String {
    let mut time = String::new();
    let timer = tracing_subscriber::fmt::time::SystemTime;
    let mut writer = tracing_subscriber::fmt::format::Writer::new(&mut time);
    let written = tracing_subscriber::fmt::time::FormatTime::format_time(&timer, &mut writer);
    debug_assert!(written.is_ok(), "writing into a text does not fail");
    time
}
