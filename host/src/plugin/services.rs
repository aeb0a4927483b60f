//! What the host does for one generation of a plugin: writes its log, keeps its time, polls its
//! tasks, shows its metrics, calls other services.
//!
//! The plugin may call it from any thread, and a panic must not leave it: nothing of the plugin's
//! could catch it. A library keeps it for ever, so what ends with the generation is ended
//! ([`Services::end`]), not dropped.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use plugin_abi::abi::{
    FfiFuture, HostServices, HttpFailure, IncomingObject, LogLevel, LogRecord, MetricArguments,
    MetricSeries, OutgoingObject, RResult, RStr, RString, SpawnStatus,
};
use semver::Version;
use tokio::runtime::Handle;
use tracing::Level;

use super::{
    log_levels::{self, Admitted, OWN_TARGET, TARGET},
    metadata::PluginName,
    tasks::Tasks,
};
use crate::{
    current_call::CurrentCall,
    http_client::{HttpClient, PluginHttp},
    metrics::{
        plugin_calls::PluginCalls,
        plugins::{GenerationMetrics, PluginMetrics},
    },
};

/// Names the route that a configuration token stands for; none for a token that is gone.
#[derive(Clone)]
pub struct RouteNames(Arc<dyn Fn(u32) -> Option<String> + Send + Sync>);

impl RouteNames {
    /// Asks this function.
    pub fn new(name_of: impl Fn(u32) -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(name_of))
    }

    /// Where there are no routes.
    pub fn none() -> Self {
        Self::new(|_| None)
    }
}

impl fmt::Debug for RouteNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RouteNames")
    }
}

/// What the host does for one generation.
#[derive(Debug, Clone)]
pub struct Services {
    plugin: PluginName,
    version: Arc<Version>,
    /// Keeps the time for threads that are none of the host's.
    clock: Handle,
    routes: RouteNames,
    tasks: Tasks,
    metrics: Arc<GenerationMetrics>,
    http: PluginHttp,
    threads_left: Arc<AtomicUsize>,
}

/// What a host has for the services of all its generations.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// Names of routes.
    pub routes: RouteNames,
    /// Where the plugins' own metrics are shown.
    pub metrics: &'a PluginMetrics,
    /// With which plugins call other services.
    pub http_client: &'a HttpClient,
    /// Counts the threads of runtimes of plugins' own that did not end with them.
    pub threads_left: Arc<AtomicUsize>,
}

impl Services {
    /// For the generation of this number, on the current runtime, whose clock it takes.
    pub fn new(
        plugin: PluginName,
        version: Version,
        number: u64,
        surroundings: Surroundings<'_>,
    ) -> Self {
        let metrics = surroundings.metrics;
        Self {
            metrics: metrics.begin(plugin.as_str(), &version.to_string()),
            plugin,
            version: Arc::new(version),
            clock: Handle::current(),
            routes: surroundings.routes,
            tasks: Tasks::new(number),
            http: surroundings.http_client.for_plugin(),
            threads_left: surroundings.threads_left,
        }
    }

    /// The plugin that it is for.
    pub fn plugin(&self) -> &PluginName {
        &self.plugin
    }

    /// Its version.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// What became of its calls.
    pub fn calls(&self) -> &PluginCalls {
        self.metrics.calls()
    }

    /// Its background tasks.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// The generation is gone: its tasks are dropped, and its metrics stay as they are for a while.
    pub fn end(&self) {
        self.tasks.end();
        self.metrics.end();
    }
}

/// Writes one record; level and target must be constants, and the fields are the same for each.
macro_rules! write_record {
    ($target:expr, $level:ident, $services:expr, $record:expr, $fields:expr, $left_out:expr) => {{
        let call = CurrentCall::of_this_thread();
        let route = call.and_then(|call| $services.routes.0(call.token));
        tracing::event!(
            target: $target,
            Level::$level,
            plugin = %$services.plugin,
            version = %$services.version,
            module = $record.target.as_str(),
            route = route.as_deref(),
            request_id = call.map(|call| call.id),
            fields = $fields,
            left_out = $left_out,
            "{}",
            $record.message.as_str()
        )
    }};
}

impl HostServices for Services {
    fn log_enabled(&self, level: LogLevel, _target: RStr<'_>) -> bool {
        if let Some(own) = log_levels::own(self.plugin.as_str()) {
            return level_of(level) <= own;
        }
        match level {
            LogLevel::ERROR => tracing::enabled!(target: TARGET, Level::ERROR),
            LogLevel::WARN => tracing::enabled!(target: TARGET, Level::WARN),
            LogLevel::INFO => tracing::enabled!(target: TARGET, Level::INFO),
            LogLevel::DEBUG => tracing::enabled!(target: TARGET, Level::DEBUG),
            _ => tracing::enabled!(target: TARGET, Level::TRACE),
        }
    }

    fn log(&self, record: LogRecord<'_>) {
        // Rendering fields runs no code of the plugin's, but the log's own.
        let written = catch_unwind(AssertUnwindSafe(|| self.write(record)));
        debug_assert!(written.is_ok(), "the log does not panic");
    }

    fn sleep(&self, nanoseconds: u64) -> FfiFuture<()> {
        let _clock = Handle::try_current().is_err().then(|| self.clock.enter());
        FfiFuture::new(tokio::time::sleep(Duration::from_nanos(nanoseconds)))
    }

    fn spawn(&self, task: FfiFuture<()>) -> SpawnStatus {
        self.tasks.spawn(task)
    }

    fn metric(&self, metric: MetricArguments<'_>) -> RResult<MetricSeries, RString> {
        let series = self.metrics.series(&metric);
        series.map_err(|refused| refused.to_string().into()).into()
    }

    fn fetch(&self, request: OutgoingObject) -> FfiFuture<RResult<IncomingObject, HttpFailure>> {
        let fetching = self.http.clone().fetch(request);
        FfiFuture::new(async move { fetching.await.into() })
    }

    fn threads_left(&self, threads: usize) {
        self.threads_left.fetch_add(threads, Ordering::Relaxed);
        let written = catch_unwind(AssertUnwindSafe(|| {
            tracing::error!(
                plugin = %self.plugin,
                version = %self.version,
                threads,
                "threads of the plugin's own runtime go on after its end: something in it blocks them"
            );
        }));
        debug_assert!(written.is_ok(), "the log does not panic");
    }
}

impl Services {
    fn write(&self, record: LogRecord<'_>) {
        let fields = (!record.fields.is_empty()).then(|| {
            let rendered: Vec<String> = record
                .fields
                .iter()
                .map(|field| format!("{}={}", field.name, field.value))
                .collect();
            rendered.join(" ")
        });
        let fields = fields.as_deref();
        let level = level_of(record.level);
        let (module, message) = (record.target.as_str(), record.message.as_str());
        let admitted = log_levels::admit(self.plugin.as_str(), level, module, message);
        let Some(Admitted { own, left_out }) = admitted else {
            return;
        };
        macro_rules! write_at {
            ($level:ident) => {
                match own {
                    true => write_record!(OWN_TARGET, $level, self, record, fields, left_out),
                    false => write_record!(TARGET, $level, self, record, fields, left_out),
                }
            };
        }
        match record.level {
            LogLevel::ERROR => write_at!(ERROR),
            LogLevel::WARN => write_at!(WARN),
            LogLevel::INFO => write_at!(INFO),
            LogLevel::DEBUG => write_at!(DEBUG),
            _ => write_at!(TRACE),
        }
    }
}

fn level_of(level: LogLevel) -> Level {
    match level {
        LogLevel::ERROR => Level::ERROR,
        LogLevel::WARN => Level::WARN,
        LogLevel::INFO => Level::INFO,
        LogLevel::DEBUG => Level::DEBUG,
        _ => Level::TRACE,
    }
}
