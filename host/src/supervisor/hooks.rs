//! Hooks of operators: who wants to hear of an event is told, on threads that do nothing else.
//!
//! They are the supervisor's, since a worker may be what an event is about. Events of one plugin are told
//! one after the other, those of others beside them. What waits is bounded, and an event that finds no room
//! is lost, which the log says: nothing ever waits for a hook. None of these threads starts a worker.

mod command;
mod news;

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
    thread,
};

use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    config::{
        Config,
        hooks::{Hook, HooksConfig, Target},
    },
    http_client::{self, HttpClient},
    plugin::event::{EventKind, PluginEvent},
};
use news::News;

/// Version of what hooks are told. Fields are added within it, and never changed.
const VERSION: u32 = 1;

/// Events that wait to be told.
const MAX_WAITING: usize = 256;

/// Hooks that run at a time.
const MAX_RUNNING: usize = 4;

/// Tells hooks of events. Dropping it gives up what waits.
#[derive(Debug)]
pub(super) struct Hooks(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: HooksConfig,
    host: HostFacts,
    client: HttpClient,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    news: News,
    waiting: VecDeque<PluginEvent>,
    /// Plugins whose hooks run.
    busy: HashSet<Option<String>>,
    threads: usize,
    counts: BTreeMap<EventKind, Counts>,
    has_ended: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    done: u64,
    failed: u64,
    lost: u64,
}

/// What became of events of one kind, since this program began.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct HookCounts {
    /// The kind.
    pub event: String,
    /// Hooks that have run.
    pub done: u64,
    /// Hooks that have failed, or taken too long.
    pub failed: u64,
    /// Events that no hook has heard of, because too many waited.
    pub lost: u64,
}

/// Which host it is, for those who hear of several.
#[derive(Debug, Clone, Serialize)]
struct HostFacts {
    release: &'static str,
    pid: u32,
    listen: String,
    plugin_dir: String,
}

/// What a hook is told.
#[derive(Serialize)]
struct Message<'a> {
    version: u32,
    #[serde(flatten)]
    event: &'a PluginEvent,
    host: &'a HostFacts,
}

impl Hooks {
    pub(super) fn new(config: &Config) -> Self {
        Self(Arc::new(Shared {
            config: config.hooks.clone(),
            host: HostFacts {
                release: env!("CARGO_PKG_VERSION"),
                pid: std::process::id(),
                listen: config.listen.to_string(),
                plugin_dir: config.plugin_dir.display().to_string(),
            },
            // Switched off or not: that is about plugins. It starts with the first post.
            client: HttpClient::new(http_client::Settings {
                enabled: true,
                ..config.http_client.clone()
            }),
            state: Mutex::default(),
            changed: Condvar::new(),
        }))
    }

    /// Tells whoever wants to hear of it, later and elsewhere.
    pub(super) fn tell(&self, event: PluginEvent) {
        let mut state = self.0.state.lock();
        if !state.news.take(&event) || self.0.config.of(event.event).next().is_none() {
            return;
        }
        if state.waiting.len() >= MAX_WAITING {
            state.counts.entry(event.event).or_default().lost += 1;
            let lost: u64 = state.counts.values().map(|counts| counts.lost).sum();
            tracing::error!(
                event = event.event.name(),
                plugin = event.plugin,
                lost,
                "no hook hears of an event: {MAX_WAITING} wait already"
            );
            return;
        }
        state.waiting.push_back(event);
        // Threads that are there may all be about to take another one.
        let wanted = state.waiting.len() + state.busy.len();
        if state.threads < wanted.min(MAX_RUNNING) {
            let shared = Arc::clone(&self.0);
            let name = format!("hook-{}", state.threads + 1);
            match thread::Builder::new()
                .name(name)
                .spawn(move || shared.run_all())
            {
                Ok(_) => state.threads += 1,
                Err(error) => tracing::error!(%error, "there is no thread for hooks"),
            }
        }
        drop(state);
        self.0.changed.notify_one();
    }
}

impl Hooks {
    /// What became of the events that somebody wants to hear of, by kind.
    pub(super) fn counts(&self) -> Vec<HookCounts> {
        let state = self.0.state.lock();
        let heard = EventKind::ALL.into_iter();
        let heard = heard.filter(|event| self.0.config.of(*event).next().is_some());
        heard
            .map(|event| {
                let counts = state.counts.get(&event).copied().unwrap_or_default();
                HookCounts {
                    event: event.name().to_owned(),
                    done: counts.done,
                    failed: counts.failed,
                    lost: counts.lost,
                }
            })
            .collect()
    }

    /// Says what no hook will hear of, since this program ends.
    pub(super) fn take_leave(&self) {
        let state = self.0.state.lock();
        let (waiting, running) = (state.waiting.len(), state.busy.len());
        if waiting + running > 0 {
            tracing::warn!(waiting, running, "this program ends before its hooks do");
        }
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.take_leave();
        self.0.state.lock().has_ended = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    /// One thread's life: event after event, but none of a plugin whose hooks run elsewhere.
    fn run_all(&self) {
        let mut state = self.state.lock();
        while !state.has_ended {
            let is_free = |event: &PluginEvent| !state.busy.contains(&event.plugin);
            let Some(at) = state.waiting.iter().position(is_free) else {
                self.changed.wait(&mut state);
                continue;
            };
            let event = state.waiting.remove(at).expect("it is at that place");
            state.busy.insert(event.plugin.clone());
            drop(state);
            for hook in self.config.of(event.event) {
                self.run(hook, &event);
            }
            state = self.state.lock();
            state.busy.remove(&event.plugin);
            // Another event of that plugin may have waited for this.
            self.changed.notify_all();
        }
    }

    fn run(&self, hook: &Hook, event: &PluginEvent) {
        let message = Message {
            version: VERSION,
            event,
            host: &self.host,
        };
        let json = serde_json::to_vec(&message).expect("it is plain data");
        let time = self.config.time;
        let ran = match &hook.target {
            Target::Command(command) => command::run(command, event, &json, time),
            Target::Post(url) => match self.client.post(url, json, time) {
                Ok(status) if status.is_success() => Ok(()),
                Ok(status) => Err(format!("the answer is {status}")),
                Err(reason) => Err(reason),
            },
        };
        let (name, plugin) = (event.event.name(), event.plugin.as_deref());
        {
            let mut state = self.state.lock();
            let counts = state.counts.entry(event.event).or_default();
            match ran {
                Ok(()) => counts.done += 1,
                Err(_) => counts.failed += 1,
            }
        }
        match ran {
            Ok(()) => tracing::debug!(hook = hook.flag, event = name, plugin, "a hook has run"),
            Err(reason) => tracing::warn!(
                hook = hook.flag,
                event = name,
                plugin,
                version = event.plugin_version,
                reason,
                "a hook has failed"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use std::{net::TcpListener, time::Duration};

    use super::*;
    use crate::config::{Environment, Flags, settings};

    /// Hooks that post to somebody who does not answer; dropped, they end.
    fn posting_to(listener: &TcpListener) -> Hooks {
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let flags = Flags::new()
            .with(&settings::LISTEN, "/run/s")
            .with(&settings::hooks::HOOK_ALL, url)
            .with(&settings::hooks::HOOK_TIMEOUT, "600s");
        Hooks::new(&Config::load(&flags, &Environment::empty()).unwrap())
    }

    fn crash_of(plugin: impl ToString) -> PluginEvent {
        PluginEvent::now(EventKind::Crash).about(plugin, "1.0.0", "d")
    }

    fn until(hooks: &Hooks, is_so: impl Fn(&State) -> bool) {
        for _ in 0..2_000 {
            if is_so(&hooks.0.state.lock()) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("waited in vain: {:?}", hooks.0.state.lock().busy);
    }

    #[test]
    fn events_beyond_what_may_wait_are_lost_and_counted_and_one_plugins_are_told_one_by_one() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hooks = posting_to(&listener);
        hooks.tell(crash_of("one"));
        until(&hooks, |state| state.busy.len() == 1);
        for _ in 0..MAX_WAITING + 3 {
            hooks.tell(crash_of("one"));
        }
        let state = hooks.0.state.lock();
        assert_eq!((state.busy.len(), state.waiting.len()), (1, MAX_WAITING));
        assert_eq!(state.counts[&EventKind::Crash].lost, 3);
    }

    #[test]
    fn no_more_than_so_many_hooks_run_at_a_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hooks = posting_to(&listener);
        for number in 0..10 {
            hooks.tell(crash_of(number));
        }
        until(&hooks, |state| state.busy.len() == MAX_RUNNING);
        let state = hooks.0.state.lock();
        assert_eq!((state.threads, state.waiting.len()), (MAX_RUNNING, 6));
    }
}
