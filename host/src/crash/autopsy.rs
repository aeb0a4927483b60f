//! Judges a death by what was found: what it was, and whose doing.
//!
//! Nobody is blamed where more than one could be meant, and nobody for what came from outside. What
//! is needed here is in memory: this is quick, and reads no file.

use std::{
    collections::BTreeSet,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    handler::FAULTS,
    mappings::{Mapping, as_mapped},
    record::{self, Record},
    report::{
        Address, Blamed, Cause, CrashedThread, Frame, InsidePlugin, OpenCall, Report, Rule,
        SuspectedGeneration, now, signal_name,
    },
};
use crate::shared_memory::threads::{Inside, ThreadSlots};

/// Innermost frames in which a plugin's library counts: what a plugin calls to its own ruin, such as
/// `free` or `abort`, is not deep, and whoever waits far up the stack is innocent.
const FRAMES_THAT_COUNT: usize = 16;

/// Open calls, and threads inside plugins, that a report lists: those of the plugin that is blamed
/// first.
const MAX_LISTED: usize = 256;

/// How far from the end of the stack an address is taken for an overflow of it, in bytes.
const NEAR_THE_STACK: u64 = 64 << 10;

/// A plugin generation as a worker tells of it, before its library is opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownGeneration {
    /// What names it in shared memory.
    pub number: u64,
    /// The plugin's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The SHA-256 of its library, in hexadecimal digits.
    pub digest: String,
    /// The private copy of its library, as [`Mapping::path`] names it.
    pub copy: PathBuf,
}

impl KnownGeneration {
    /// A generation whose library is mapped from this private copy. For the worker: a copy in memory
    /// has a path in this process only, and another one in [`mappings`](super::mappings()).
    pub fn new(number: u64, name: &str, version: &str, digest: &str, copy: &Path) -> Self {
        Self {
            number,
            name: name.to_owned(),
            version: version.to_owned(),
            digest: digest.to_owned(),
            // A copy that is gone already is mapped nowhere.
            copy: as_mapped(copy).unwrap_or_else(|_| copy.to_owned()),
        }
    }
}

/// Why the supervisor itself killed a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KilledFor {
    /// A plugin did not give an event loop back.
    StuckLoop {
        /// The number of its generation.
        plugin: u64,
    },
    /// Some other reason of the supervisor's: no plugin's doing.
    Other,
}

/// What is known of a death.
#[derive(Debug)]
pub struct Autopsy<'a> {
    /// The dead process.
    pub pid: u32,
    /// How it ended.
    pub status: ExitStatus,
    /// Its table of threads.
    pub threads: &'a ThreadSlots,
    /// The generations that it told of.
    pub generations: &'a [KnownGeneration],
    /// Its code, as it told last.
    pub mappings: &'a [Mapping],
    /// The calls that were open in it.
    pub open_calls: Vec<OpenCall>,
    /// How long it lived.
    pub uptime: Duration,
    /// The version of its program.
    pub host_version: String,
    /// Set where the supervisor killed it.
    pub killed_for: Option<KilledFor>,
}

impl Autopsy<'_> {
    /// The judgement, without names of functions: those take longer
    /// ([`publish`](super::publish)).
    pub fn report(self) -> Report {
        let fault = record::of_faults(self.threads.crash_words()).read();
        let exit = record::of_exits(self.threads.crash_words()).read();
        // A fault while `exit` ends the process is what comes of calling it.
        let record = match self.status.signal() {
            Some(_) => fault.or(exit),
            None => exit,
        };
        let inside: Vec<Inside> = self.threads.inside().collect();
        let frames = record
            .as_ref()
            .map_or_else(Vec::new, |record| self.frames(record));
        let cause = self.cause(record.as_ref());
        let judged = self.judge(&cause, record.as_ref(), &frames, &inside);
        let at_plugin = frames.first().and_then(|frame| frame.plugin);
        let blamed = judged.blamed.as_ref();
        let blamed = blamed.map_or(0, |blamed| blamed.generation.number);
        let (open_calls, calls_left_out) = listed(self.open_calls.clone(), |call| {
            blamed != 0 && call.generation == blamed
        });
        let (inside, _) = listed(inside, |inside| inside.plugin == blamed);
        Report {
            at: now(),
            pid: self.pid,
            host_version: self.host_version.clone(),
            uptime_ms: u64::try_from(self.uptime.as_millis()).unwrap_or(u64::MAX),
            thread: record.as_ref().map(|record| CrashedThread {
                thread: record.thread,
                inside: record
                    .inside()
                    .map(|(number, activity)| self.inside(record.thread, number, activity.name())),
            }),
            in_plugins_library: judged.blamed.is_some() && at_plugin == Some(blamed),
            cause,
            blamed: judged.blamed,
            suspects: judged.suspects,
            inside_plugins: inside
                .iter()
                .map(|inside| self.inside(inside.thread, inside.plugin, inside.activity.name()))
                .collect(),
            open_calls: self.named(open_calls),
            calls_left_out,
            backtrace: frames,
        }
    }

    /// Why the supervisor killed it, unless it was dead by then.
    fn killed_for(&self) -> Option<KilledFor> {
        let killed = self.status.signal() == Some(libc::SIGKILL);
        self.killed_for.filter(|_| killed)
    }

    fn cause(&self, record: Option<&Record>) -> Cause {
        if let Some(KilledFor::StuckLoop { .. }) = self.killed_for() {
            return Cause::StuckLoop;
        }
        let fault = record.filter(|record| record.essentials.signal != 0);
        // The record knows better: where a handler hung, another signal ended the process.
        let recorded = fault.map(|record| record.essentials.signal);
        let Some(signal) = recorded.or_else(|| self.status.signal()) else {
            return Cause::Exit {
                code: self.status.code().unwrap_or(0),
            };
        };
        let essentials = fault.map(|record| record.essentials).unwrap_or_default();
        let name = signal_name(signal);
        let is_ours = self.killed_for().is_some();
        let sender = essentials.sender;
        let was_sent = fault.is_some() && essentials.code <= 0;
        let sent_by_another = was_sent && sender != self.pid;
        if is_ours || sent_by_another || (fault.is_none() && !FAULTS.contains(&signal)) {
            return Cause::Killed {
                signal,
                name,
                sender: sent_by_another.then_some(sender),
            };
        }
        let has_address = fault.is_some() && !was_sent;
        Cause::Fault {
            signal,
            name,
            code: essentials.code,
            address: has_address.then_some(Address(essentials.address)),
            stack_overflow: has_address
                && signal == libc::SIGSEGV
                && essentials.address.abs_diff(essentials.stack) < NEAR_THE_STACK,
        }
    }

    fn judge(
        &self,
        cause: &Cause,
        record: Option<&Record>,
        frames: &[Frame],
        inside: &[Inside],
    ) -> Judged {
        if let Some(KilledFor::StuckLoop { plugin }) = self.killed_for() {
            return self.blame(plugin, Rule::StuckLoop);
        }
        if let Cause::Killed { .. } = cause {
            return Judged::default();
        }
        let everyone: BTreeSet<u64> = inside.iter().map(|inside| inside.plugin).collect();
        let Some(record) = record else {
            // Only native code ends a worker without a word.
            return match everyone.iter().collect::<Vec<_>>()[..] {
                [only] => self.blame(*only, Rule::OnlyOneInside),
                _ => self.suspect(everyone),
            };
        };
        let entered = record.inside().map(|(number, _)| number);
        let counting = frames.iter().take(FRAMES_THAT_COUNT);
        let executed = counting.filter_map(|frame| frame.plugin).next();
        match (entered, executed) {
            (Some(entered), None) => self.blame(entered, Rule::ThreadInside),
            (Some(entered), Some(executed)) if entered == executed => {
                self.blame(entered, Rule::ThreadInside)
            }
            (None, Some(executed)) => self.blame(executed, Rule::FrameInLibrary),
            // Its code ran where another plugin was called: either may have brought it about.
            (Some(entered), Some(executed)) => self.suspect([entered, executed]),
            (None, None) => self.suspect(everyone),
        }
    }

    fn blame(&self, number: u64, rule: Rule) -> Judged {
        Judged {
            blamed: Some(Blamed {
                generation: self.generation(number),
                rule,
            }),
            suspects: Vec::new(),
        }
    }

    fn suspect(&self, numbers: impl IntoIterator<Item = u64>) -> Judged {
        Judged {
            blamed: None,
            suspects: numbers
                .into_iter()
                .map(|number| self.generation(number))
                .collect(),
        }
    }

    fn generation(&self, number: u64) -> SuspectedGeneration {
        let mut known = self.generations.iter();
        SuspectedGeneration {
            number,
            known: known.find(|known| known.number == number).cloned(),
        }
    }

    fn inside(&self, thread: u32, number: u64, activity: &str) -> InsidePlugin {
        InsidePlugin {
            thread,
            generation: self.generation(number),
            activity: activity.to_owned(),
        }
    }

    fn named(&self, mut calls: Vec<OpenCall>) -> Vec<OpenCall> {
        for call in &mut calls {
            call.plugin = (call.generation != 0).then(|| self.generation(call.generation));
        }
        calls
    }

    /// The instruction, where there is one, and its callers.
    fn frames(&self, record: &Record) -> Vec<Frame> {
        let instruction = record.essentials.instruction;
        let is_fault = record.essentials.signal != 0;
        let instruction = is_fault.then(|| self.frame(instruction, instruction));
        // What a call returns to may be another function's first instruction.
        let callers = record.frames.iter();
        let callers = callers.map(|address| self.frame(*address, address.saturating_sub(1)));
        instruction.into_iter().chain(callers).collect()
    }

    fn frame(&self, address: u64, executed: u64) -> Frame {
        let mapping = self.mappings.iter().find(|mapping| mapping.holds(executed));
        let plugin = mapping.and_then(|mapping| {
            let mut generations = self.generations.iter();
            generations.find(|generation| generation.copy == mapping.path)
        });
        Frame {
            address: Address(address),
            library: mapping.map(|mapping| mapping.path.clone()),
            offset: mapping.map(|mapping| Address(executed.saturating_sub(mapping.base))),
            plugin: plugin.map(|plugin| plugin.number),
            function: None,
            into: None,
        }
    }
}

/// As many as a report lists, those that matter most first; and how many are left out.
fn listed<T>(mut all: Vec<T>, matters: impl Fn(&T) -> bool) -> (Vec<T>, usize) {
    all.sort_by_key(|item| !matters(item));
    let left_out = all.len().saturating_sub(MAX_LISTED);
    all.truncate(MAX_LISTED);
    (all, left_out)
}

#[derive(Debug, Default)]
struct Judged {
    blamed: Option<Blamed>,
    suspects: Vec<SuspectedGeneration>,
}
