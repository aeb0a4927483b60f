//! What operators ask the supervisor for, and what it tells them.

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use utoipa::ToSchema;

use super::{Phase, Supervisor, hooks::HookCounts, processes::own_memory, readiness::Readiness};
use crate::{
    crash::{Culprit, Quarantined},
    plugin::{
        disabled::DisabledPlugin,
        event::{EventKind, PluginEvent},
        log_levels::LogLevels,
        manager::utc_of,
    },
    shared_memory::connections::State,
};

/// What operators ask the supervisor for.
#[derive(Debug)]
pub(super) enum Request {
    /// Replace the worker now.
    Replace(oneshot::Sender<Result<(), String>>),
    /// An operator has asked something of the worker: a standby may know it otherwise.
    Commanded,
    /// Go on as the program that is at [`Host::program`](super::Host::program) now.
    Renew(oneshot::Sender<Result<(), String>>),
    /// Let a plugin go that is in quarantine, with a clean record.
    Lift {
        /// Its name.
        plugin: String,
        /// By whose word.
        by: String,
        /// Told when that is done.
        done: oneshot::Sender<()>,
    },
    /// Keep in mind that a plugin is out of service.
    Disable {
        /// Which, and by whose word.
        plugin: DisabledPlugin,
        /// Told when that is done, or why it is not.
        done: oneshot::Sender<Result<(), String>>,
    },
    /// Keep in mind that it may serve again.
    Enable {
        /// Its name.
        plugin: String,
        /// By whose word.
        by: String,
        /// Told when that is done, or why it is not.
        done: oneshot::Sender<Result<(), String>>,
    },
    /// Keep in mind that a build is in quarantine by an operator's word.
    Quarantine {
        /// Which.
        culprit: Culprit,
        /// By whose word.
        by: String,
        /// Told when that is done.
        done: oneshot::Sender<()>,
    },
    /// Log other lines from now on; what is configured where it is not said which.
    WantLevels {
        /// Which.
        levels: Option<LogLevels>,
        /// What is logged now, or why nothing has changed.
        done: oneshot::Sender<Result<LogLevels, String>>,
    },
    /// Tell what is logged.
    Levels(oneshot::Sender<LogLevels>),
    /// Tell how it stands with the workers.
    Overview(oneshot::Sender<Overview>),
}

/// How it stands with the workers.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Overview {
    /// Every worker that lives.
    pub workers: Vec<WorkerOverview>,
    /// Whether the host is ready.
    pub readiness: Readiness,
    /// Connections that have come to stay.
    pub connections: usize,
    /// How many of them do nothing at this moment.
    pub idle_connections: usize,
    /// Calls that are open on the others.
    pub open_calls: usize,
    /// Builds of plugins that have ended too many workers, or that an operator has put aside.
    pub quarantined: Vec<Quarantined>,
    /// Plugins that an operator has taken out of service.
    pub disabled: Vec<DisabledPlugin>,
    /// The supervisor's release.
    pub release: String,
    /// The supervisor's process.
    pub pid: u32,
    /// Times that a next release took over.
    pub renewals: u64,
    /// Workers that died without having been told to.
    pub crashes: u64,
    /// Times that one worker took over from another.
    pub replacements: u64,
    /// Calls that were inside a worker when it died.
    pub calls_lost: u64,
    /// Connections closed because a frame was under way when their worker died.
    pub connections_cut: u64,
    /// How many of the workers that died were ended because a plugin kept an event loop.
    #[serde(default)]
    pub stuck_loops: u64,
    /// Lines that the log and the access log could not take.
    #[serde(default)]
    pub log_lines_lost: u64,
    /// What became of events that have a hook, by kind.
    #[serde(default)]
    pub hooks: Vec<HookCounts>,
}

/// One worker.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WorkerOverview {
    /// Its number, counted from 1.
    pub worker: u32,
    /// Its process.
    pub pid: i32,
    /// `starting`, `ready`, `serving`, `leaving` or `stopping`.
    pub phase: String,
    /// Its release, once it has said it.
    pub version: Option<String>,
    /// When it was started, in UTC.
    pub since: String,
    /// Seconds since then.
    pub uptime_seconds: u64,
    /// Memory of its own that it has in use, in bytes; absent where the system does not tell.
    pub memory_bytes: Option<u64>,
    /// Libraries that stay mapped in it and serve no more.
    pub retired_mappings: usize,
    /// What they occupy, in bytes.
    pub retired_bytes: u64,
}

impl Supervisor {
    pub(super) fn answer(&mut self, request: Request) {
        // Whoever asked may have gone away meanwhile.
        match request {
            Request::Replace(asked) => self.replace(Some(asked)),
            Request::Commanded => {
                if self.standby.is_some() {
                    self.discard_spares();
                }
            }
            Request::Renew(asked) => {
                let _ = asked.send(self.begin_to_renew());
            }
            Request::Lift { plugin, by, done } => {
                for lifted in self.quarantine.lift(&plugin) {
                    let Culprit {
                        name,
                        version,
                        digest,
                    } = lifted.culprit;
                    let event = PluginEvent {
                        by: Some(by.clone()),
                        ..PluginEvent::now(EventKind::Lift)
                    };
                    self.hooks.tell(event.about(name, version, digest));
                }
                let _ = done.send(());
            }
            Request::Disable { plugin, done } => {
                let event = PluginEvent {
                    plugin: Some(plugin.name.to_string()),
                    by: Some(plugin.by.clone()),
                    ..PluginEvent::now(EventKind::Disable)
                };
                let is_news = !self.disabled.has(plugin.name.as_str());
                let written = self.disabled.add(plugin);
                if is_news && written.is_ok() {
                    self.hooks.tell(event);
                }
                let _ = done.send(written);
            }
            Request::Enable { plugin, by, done } => {
                let is_news = self.disabled.has(&plugin);
                let written = self.disabled.remove(&plugin);
                if is_news && written.is_ok() {
                    self.hooks.tell(PluginEvent {
                        plugin: Some(plugin),
                        by: Some(by),
                        ..PluginEvent::now(EventKind::Enable)
                    });
                }
                let _ = done.send(written);
            }
            Request::Quarantine { culprit, by, done } => {
                let event = PluginEvent {
                    by: Some(by.clone()),
                    ..PluginEvent::now(EventKind::Quarantine)
                };
                let Culprit {
                    name,
                    version,
                    digest,
                } = &culprit;
                self.hooks.tell(event.about(name, version, digest));
                self.quarantine.put(culprit, by);
                let _ = done.send(());
            }
            Request::WantLevels { levels, done } => {
                let configured = LogLevels {
                    filter: self.config.log.filter.clone(),
                    ..LogLevels::default()
                };
                let wanted = self.want_levels(levels.unwrap_or(configured));
                let _ = done.send(wanted.map(|()| self.levels.get()));
            }
            Request::Levels(asked) => {
                let _ = asked.send(self.levels.get());
            }
            Request::Overview(asked) => {
                let _ = asked.send(self.overview());
            }
        }
    }

    /// Logs other lines, here and in workers that are started from now on.
    pub(super) fn want_levels(&mut self, levels: LogLevels) -> Result<(), String> {
        self.levels.set(&levels)?;
        self.wanted_levels = Some(levels);
        Ok(())
    }

    fn overview(&self) -> Overview {
        Overview {
            workers: self
                .workers
                .iter()
                .map(|(number, worker)| {
                    let pid = worker.child.pid.as_raw_nonzero().get();
                    WorkerOverview {
                        worker: *number,
                        pid,
                        phase: worker.phase.name().to_owned(),
                        version: worker.version.clone(),
                        since: utc_of(worker.child.started),
                        uptime_seconds: worker.child.started.elapsed().as_secs(),
                        memory_bytes: own_memory(pid.unsigned_abs()),
                        retired_mappings: worker.condition.retired_mappings,
                        retired_bytes: worker.condition.retired_bytes,
                    }
                })
                .collect(),
            readiness: self.readiness(),
            connections: self.connections.len(),
            idle_connections: self.connections.count(State::Idle),
            open_calls: self.connections.count(State::InCall),
            quarantined: self.quarantine.list().to_vec(),
            disabled: self.disabled.list().to_vec(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            renewals: self.counts.renewals,
            crashes: self.counts.crashes,
            replacements: self.counts.replacements,
            calls_lost: self.counts.calls_lost,
            connections_cut: self.counts.connections_cut,
            stuck_loops: self.counts.stuck_loops,
            log_lines_lost: self.log.lost() + self.log.lost_of_access_log(),
            hooks: self.hooks.counts(),
        }
    }
}

/// What a worker can be there for, as operators see it.
pub(super) const WORKER_PHASES: [&str; 5] = ["starting", "ready", "serving", "leaving", "stopping"];

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Serving => "serving",
            Self::Leaving(_) => "leaving",
            Self::Stopping => "stopping",
        }
    }
}
