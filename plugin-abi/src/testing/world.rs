//! What surrounds the plugins of one test: its clock, its log, its background tasks, and the host's
//! services that lead to them.
//!
//! A library has one host for its life; a test process has a library for many tests. So the one host
//! ([`Services`]) has nothing of its own: it serves whatever world the calling thread is in. A thread
//! that a plugin has started is in none; what it logs is lost.

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use log::Level;

use super::service::{self, Service};
use crate::abi::{
    FfiFuture, Host, HostServices, HostServices_TO, HttpFailure, HttpFailureKind, IncomingObject,
    LogLevel, LogRecord, MetricArguments, MetricCells, MetricSeries, OutgoingObject, RArc, RResult,
    RStr, RString, SpawnStatus, TD_Opaque,
};

/// A line that a plugin has logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Its severity.
    pub level: Level,
    /// The plugin, by the name under which the test has loaded it.
    pub plugin: String,
    /// Where in the plugin, mostly a module.
    pub target: String,
    /// The message.
    pub message: String,
    /// Names and values of the fields.
    pub fields: Vec<(String, String)>,
}

impl Logged {
    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl fmt::Display for Logged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.level, self.plugin, self.message)?;
        for (name, value) in &self.fields {
            write!(f, " {name}={value}")?;
        }
        Ok(())
    }
}

/// Clock, log and timers of one test.
pub(super) struct World {
    /// Where the clock began, in the system's time.
    began: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Time that has passed.
    now: Duration,
    timers: Vec<Timer>,
    next_timer: u64,
    log: Vec<Logged>,
    tasks: Vec<Task>,
    /// What is kept for later calls of a request, by its `request_id`.
    kept: HashMap<Vec<u8>, Values>,
    /// By plugin, name, and names and values of labels.
    metrics: HashMap<Vec<String>, RArc<MetricCells>>,
    /// Whom plugins can call over HTTP.
    services: Vec<Service>,
}

/// Names and values.
pub(super) type Values = Vec<(Vec<u8>, Vec<u8>)>;

/// A background task of a plugin.
struct Task {
    plugin: Arc<str>,
    future: FfiFuture<()>,
}

struct Timer {
    number: u64,
    due: Duration,
    waker: Waker,
}

thread_local! {
    /// The world that this thread is in, and the plugin that runs.
    static CURRENT: RefCell<Option<Place>> = const { RefCell::new(None) };
}

#[derive(Clone)]
struct Place {
    world: Arc<World>,
    plugin: Arc<str>,
}

/// The time for plugins: the test's, where one is being tested on this thread.
pub(crate) fn now() -> Option<Instant> {
    let place = current()?;
    Some(place.world.began + place.world.now())
}

fn current() -> Option<Place> {
    CURRENT
        .try_with(|current| current.borrow().clone())
        .ok()
        .flatten()
}

impl World {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            state: Mutex::default(),
        })
    }

    /// Runs a plugin's code in this world.
    pub(super) fn enter<R>(self: &Arc<Self>, plugin: &Arc<str>, code: impl FnOnce() -> R) -> R {
        struct Leave(Option<Place>);
        impl Drop for Leave {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }
        let place = Place {
            world: Arc::clone(self),
            plugin: Arc::clone(plugin),
        };
        let _leave = Leave(CURRENT.replace(Some(place)));
        code()
    }

    pub(super) fn now(&self) -> Duration {
        self.state().now
    }

    /// Lets time pass; timers that are due then wake whoever waits for them, and tasks go on.
    pub(super) fn pass_to(self: &Arc<Self>, now: Duration) {
        let due = {
            let mut state = self.state();
            state.now = state.now.max(now);
            let now = state.now;
            state
                .timers
                .extract_if(.., |timer| timer.due <= now)
                .collect::<Vec<_>>()
        };
        due.into_iter().for_each(|timer| timer.waker.wake());
        self.poll_tasks();
    }

    /// Lets each background task go on as far as it can.
    pub(super) fn poll_tasks(self: &Arc<Self>) {
        let tasks = std::mem::take(&mut self.state().tasks);
        for mut task in tasks {
            let plugin = Arc::clone(&task.plugin);
            self.enter(&plugin, || {
                let mut context = Context::from_waker(Waker::noop());
                if Pin::new(&mut task.future).poll(&mut context).is_pending() {
                    self.state().tasks.push(task);
                }
            });
        }
    }

    /// Drops the background tasks of a plugin that is gone.
    pub(super) fn end_tasks(self: &Arc<Self>, plugin: &Arc<str>) {
        let ended: Vec<Task> = self
            .state()
            .tasks
            .extract_if(.., |task| Arc::ptr_eq(&task.plugin, plugin))
            .collect();
        self.enter(plugin, || drop(ended));
    }

    /// What earlier calls of a request have kept.
    pub(super) fn kept(&self, request_id: &[u8]) -> Values {
        self.state()
            .kept
            .get(request_id)
            .cloned()
            .unwrap_or_default()
    }

    /// Keeps values for later calls of a request.
    pub(super) fn keep(&self, request_id: &[u8], values: Values) {
        self.state().kept.insert(request_id.to_vec(), values);
    }

    /// Adds whom plugins can call over HTTP.
    pub(super) fn add_service(&self, service: Service) {
        self.state().services.push(service);
    }

    /// When the next timer is due, and how many there are.
    pub(super) fn timers(&self) -> (Option<Duration>, usize) {
        let state = self.state();
        let next = state.timers.iter().map(|timer| timer.due).min();
        (next, state.timers.len())
    }

    /// Is ready at this time.
    pub(super) fn until(self: &Arc<Self>, due: Duration) -> Sleep {
        Sleep {
            world: Arc::clone(self),
            due,
            number: None,
        }
    }

    pub(super) fn log(&self) -> Vec<Logged> {
        self.state().log.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for a time of a world's clock.
pub(super) struct Sleep {
    world: Arc<World>,
    due: Duration,
    /// Its timer's, once it has one.
    number: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut state = this.world.state();
        if this.due <= state.now {
            return Poll::Ready(());
        }
        let known = state
            .timers
            .iter_mut()
            .find(|timer| Some(timer.number) == this.number);
        match known {
            Some(timer) => timer.waker.clone_from(context.waker()),
            None => {
                let number = state.next_timer;
                state.next_timer += 1;
                state.timers.push(Timer {
                    number,
                    due: this.due,
                    waker: context.waker().clone(),
                });
                this.number = Some(number);
            }
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let number = self.number;
        let mut state = self.world.state();
        let gone = state
            .timers
            .extract_if(.., |timer| Some(timer.number) == number)
            .collect::<Vec<_>>();
        drop(state);
        drop(gone);
    }
}

/// The host of every plugin that this process tests.
pub(super) struct Services;

impl Services {
    pub(super) fn as_host() -> Host {
        HostServices_TO::from_value(Self, TD_Opaque)
    }
}

impl HostServices for Services {
    fn log_enabled(&self, _level: LogLevel, _target: RStr<'_>) -> bool {
        current().is_some()
    }

    fn log(&self, record: LogRecord<'_>) {
        let Some(place) = current() else { return };
        let fields = record.fields.iter();
        let logged = Logged {
            level: level(record.level),
            plugin: place.plugin.to_string(),
            target: record.target.to_string(),
            message: record.message.to_string(),
            fields: fields
                .map(|field| (field.name.to_string(), field.value.to_string()))
                .collect(),
        };
        place.world.state().log.push(logged);
    }

    fn sleep(&self, nanoseconds: u64) -> FfiFuture<()> {
        let duration = Duration::from_nanos(nanoseconds);
        match current() {
            Some(Place { world, .. }) => {
                let due = world.now().saturating_add(duration);
                FfiFuture::new(world.until(due))
            }
            // Outside of a call nobody else keeps the time.
            None => FfiFuture::new(async move { std::thread::sleep(duration) }),
        }
    }

    fn spawn(&self, task: FfiFuture<()>) -> SpawnStatus {
        let Some(place) = current() else {
            return SpawnStatus::UNLOADING;
        };
        place.world.state().tasks.push(Task {
            plugin: place.plugin,
            future: task,
        });
        SpawnStatus::SPAWNED
    }

    fn fetch(&self, request: OutgoingObject) -> FfiFuture<RResult<IncomingObject, HttpFailure>> {
        if let Some(Place { world, .. }) = current() {
            let services = world.state().services.clone();
            return service::fetch(&world, &services, request);
        }
        FfiFuture::new(std::future::ready(RResult::RErr(HttpFailure {
            kind: HttpFailureKind::UNAVAILABLE,
            message: "only what runs in a gateway of a test has a client".into(),
        })))
    }

    fn metric(&self, metric: MetricArguments<'_>) -> RResult<MetricSeries, RString> {
        let new = || {
            RArc::new(MetricCells {
                buckets: (0..=metric.bounds.len())
                    .map(|_| Default::default())
                    .collect(),
                ..MetricCells::default()
            })
        };
        let cells = match current() {
            Some(place) if !metric.only_check => {
                let labels = metric.labels.iter();
                let labels = labels.flat_map(|label| [label.name, label.value]);
                let key = [RStr::from(&*place.plugin), metric.name]
                    .into_iter()
                    .chain(labels);
                let key = key.map(|part| part.to_string()).collect();
                place
                    .world
                    .state()
                    .metrics
                    .entry(key)
                    .or_insert_with(new)
                    .clone()
            }
            _ => new(),
        };
        RResult::ROk(MetricSeries {
            cells,
            is_overflow: metric.only_check,
        })
    }
}

fn level(level: LogLevel) -> Level {
    match level {
        LogLevel::ERROR => Level::Error,
        LogLevel::WARN => Level::Warn,
        LogLevel::INFO => Level::Info,
        LogLevel::DEBUG => Level::Debug,
        _ => Level::Trace,
    }
}
