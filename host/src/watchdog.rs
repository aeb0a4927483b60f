//! The watchdog: a thread that looks at the event loops every few milliseconds and finds the plugins
//! that hold one up.
//!
//! What counts is what the plugin itself does: time asleep, and processor time that it used. Time in
//! which its thread waited for a core is the machine's, and no plugin is blamed for it. A generation
//! that holds a loop up is labelled at its first stall, and its calls run on the pool from then on;
//! a loop that does not come back at all is reported. The watchdog ends nothing by itself.

mod stall;
mod thread_file;

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::mpsc;

use crate::{
    pipeline::pool::{Pool, PoolUse},
    plugin::registry::{Generation, How, Registry, Stall},
    shared_memory::threads::{Activity, Inside, ThreadSlots},
};
use stall::{Sample, Verdict, Visit};
use thread_file::ThreadFile;

/// Between two looks at loops that a plugin seems to hold.
const LOOK_CLOSELY: Duration = Duration::from_millis(2);

/// Between two looks at loops that run plugins, which come back.
const LOOK_WHILE_BUSY: Duration = Duration::from_millis(5);

/// Between two looks at loops that run no plugin.
const LOOK_WHILE_IDLE: Duration = Duration::from_millis(50);

/// Between two looks at the threads of the pool: nobody is stuck there before a deadline.
const LOOK_AT_POOL: Duration = Duration::from_millis(250);

/// After a wish for a replacement that did not come to pass, until the next one.
const WISH_AGAIN: Duration = Duration::from_secs(60);

/// What the watchdog goes by.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many event loops there are.
    pub loops: usize,
    /// How long a plugin may hold a loop before that counts as stuck; zero for ever.
    pub loop_stall_limit: Duration,
    /// How many threads of the pool may be stuck before the worker should be replaced; zero for any
    /// number.
    pub stuck_threads: usize,
}

/// What somebody above the worker has to decide about.
#[derive(Debug, Clone)]
pub enum Finding {
    /// An event loop does not come back from a plugin: its connections hang.
    LoopStuck(Stuck),
    /// Too many threads of the pool do not come back: a worker without them should follow this one.
    PoolStuck {
        /// For the log.
        reason: String,
    },
}

/// An event loop that does not come back from a plugin.
#[derive(Debug, Clone)]
pub struct Stuck {
    /// The loop's thread, as the kernel numbers it.
    pub thread: u32,
    /// Number of the generation.
    pub generation: u64,
    /// Its name and version, where it still serves.
    pub plugin: Option<String>,
    /// What it does there.
    pub activity: Activity,
    /// Since when the watchdog has seen it there.
    pub since: Instant,
}

/// Starts the watchdog over the loops of this process, which are found in `slots` when they have
/// said that they are loops. It ends when the receiver is dropped.
///
/// # Errors
/// There is no thread for it.
pub fn start(
    options: Options,
    slots: ThreadSlots,
    registry: Arc<Registry>,
    pool: Pool,
) -> io::Result<mpsc::UnboundedReceiver<Finding>> {
    let (report, findings) = mpsc::unbounded_channel();
    let mut watchdog = Watchdog {
        options,
        slots,
        registry,
        pool,
        report,
        loops: Vec::new(),
        pool_looked_at: Instant::now(),
        wished: None,
    };
    thread::Builder::new()
        .name("watchdog".to_owned())
        .spawn(move || {
            while !watchdog.report.is_closed() {
                thread::sleep(watchdog.look());
            }
        })?;
    Ok(findings)
}

struct Watchdog {
    options: Options,
    slots: ThreadSlots,
    registry: Arc<Registry>,
    pool: Pool,
    report: mpsc::UnboundedSender<Finding>,
    loops: Vec<Loop>,
    pool_looked_at: Instant,
    /// When a replacement was wished for, while the reason lasts.
    wished: Option<Instant>,
}

/// One event loop.
struct Loop {
    slot: usize,
    file: ThreadFile,
    entries: u64,
    visit: Option<Visit>,
}

/// How a loop seems to be, from the calmest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Pulse {
    Idle,
    Busy,
    Suspect,
}

impl Watchdog {
    /// Looks once at everything; returns the time until the next look.
    fn look(&mut self) -> Duration {
        if self.loops.len() < self.options.loops {
            self.find_loops();
        }
        let mut loops = std::mem::take(&mut self.loops);
        let pulse = loops.iter_mut().map(|watched| self.look_at(watched)).max();
        self.loops = loops;
        let now = Instant::now();
        if now - self.pool_looked_at >= LOOK_AT_POOL {
            self.pool_looked_at = now;
            self.look_at_pool(now);
        }
        match pulse.unwrap_or(Pulse::Idle) {
            Pulse::Idle => LOOK_WHILE_IDLE,
            Pulse::Busy => LOOK_WHILE_BUSY,
            Pulse::Suspect => LOOK_CLOSELY,
        }
    }

    fn find_loops(&mut self) {
        for (slot, thread) in self.slots.loops() {
            if self.loops.iter().all(|known| known.slot != slot) {
                self.loops.push(Loop {
                    slot,
                    file: ThreadFile::of(thread),
                    entries: 0,
                    visit: None,
                });
            }
        }
    }

    fn look_at(&self, watched: &mut Loop) -> Pulse {
        let entries = self.slots.entries_at(watched.slot);
        let came_back = std::mem::replace(&mut watched.entries, entries) != entries;
        let inside = self.slots.inside_at(watched.slot);
        // A loop that has ended gives its slot back, to whichever thread wants one.
        let Some(inside) = inside.filter(|inside| inside.is_loop) else {
            end(watched.visit.take());
            return if came_back { Pulse::Busy } else { Pulse::Idle };
        };
        if !watched
            .visit
            .as_ref()
            .is_some_and(|visit| visit.is(&inside))
        {
            end(watched.visit.take());
        }
        let Some(visit) = &mut watched.visit else {
            watched.visit = Some(Visit::begin(inside, Instant::now()));
            return Pulse::Busy;
        };
        let Ok((asleep, processor)) = watched.file.read() else {
            // A kernel that tells nothing: then only what is certain counts, which is nothing.
            return Pulse::Idle;
        };
        // What was read is the plugin's only if it was there all the time.
        if !self
            .slots
            .inside_at(watched.slot)
            .is_some_and(|inside| visit.is(&inside))
        {
            return Pulse::Busy;
        }
        visit.take(Sample {
            at: Instant::now(),
            asleep,
            processor,
        });
        let verdict = visit.judge(self.options.loop_stall_limit);
        match verdict {
            Some(Verdict::Holds(how, after)) => self.label(visit.inside(), how, after),
            Some(Verdict::Stuck) => self.report_stuck(visit.inside(), visit.since()),
            None => {}
        }
        Pulse::Suspect
    }

    fn generation(&self, number: u64) -> Option<Arc<Generation>> {
        let snapshot = self.registry.current();
        let mut generations = snapshot.generations();
        generations
            .find(|generation| generation.number() == number)
            .cloned()
    }

    fn label(&self, inside: &Inside, how: How, after: Duration) {
        // One that serves no more gets no further calls, so that it needs no label.
        let Some(generation) = self.generation(inside.plugin) else {
            return;
        };
        let new = generation.label_blocking(Stall {
            how,
            after,
            found: SystemTime::now(),
        });
        if new {
            tracing::warn!(
                plugin = %generation.name(),
                version = %generation.version(),
                thread = inside.thread,
                milliseconds = milliseconds(after),
                "the plugin holds an event loop up while {} ({how}): its calls run on the pool \
                 from now on; write \"execution\": \"blocking\" into its plugin.json, or mend it",
                inside.activity.name(),
            );
        }
    }

    fn report_stuck(&self, inside: &Inside, since: Instant) {
        let plugin = self
            .generation(inside.plugin)
            .map(|generation| format!("{generation:?}"));
        tracing::error!(
            plugin,
            generation = inside.plugin,
            thread = inside.thread,
            milliseconds = milliseconds(since.elapsed()),
            "an event loop is stuck in a plugin while {}: the calls on it are lost \
             (--loop-stall-limit)",
            inside.activity.name(),
        );
        // Nobody listens any more where the worker is about to end.
        let _ = self.report.send(Finding::LoopStuck(Stuck {
            thread: inside.thread,
            generation: inside.plugin,
            plugin,
            activity: inside.activity,
            since,
        }));
    }

    fn look_at_pool(&mut self, now: Instant) {
        let pool = self.pool.in_use();
        let bound = self.options.stuck_threads;
        if bound == 0 || pool.stuck < bound {
            self.wished = None;
            return;
        }
        if self.wished.is_some_and(|wished| now - wished < WISH_AGAIN) {
            return;
        }
        self.wished = Some(now);
        let reason = too_many_stuck(&pool);
        tracing::error!("{reason}");
        let _ = self.report.send(Finding::PoolStuck { reason });
    }
}

fn too_many_stuck(pool: &PoolUse) -> String {
    let plugins: Vec<String> = pool
        .stuck_in
        .iter()
        .map(|(plugin, threads)| format!("{plugin}: {threads}"))
        .collect();
    format!(
        "{} of {} threads of the pool are inside plugins past their calls' deadlines ({}): the \
         worker should be replaced (--stuck-threads)",
        pool.stuck,
        pool.threads,
        plugins.join(", ")
    )
}

/// Says what a stall has cost in the end.
fn end(visit: Option<Visit>) {
    if let Some(visit) = visit
        && visit.was_a_stall()
    {
        tracing::info!(
            generation = visit.inside().plugin,
            thread = visit.inside().thread,
            milliseconds = milliseconds(visit.since().elapsed()),
            "the event loop has come back from the plugin"
        );
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
