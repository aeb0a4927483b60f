//! All metrics: those of the host as a whole, and behind them those of the worker that serves.
//!
//! Where no worker answers soon, the host's own are told alone, and say so: whoever reads them finds
//! out that something is wrong, and does not just miss them.

use std::{fmt, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use http_body_util::BodyExt;
use hyper::Method;
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, registry::Registry};

use super::{Api, Request, passing::Asked};
use crate::{
    control::{
        problem::{Problem, Refused},
        worker::METRICS,
    },
    metrics::{
        self, Format,
        writing::{Kind, number, series},
    },
    supervisor::{Overview, processes::ProcessUse, requests::WORKER_PHASES},
};

/// How long a reader waits for the worker's part: less than Prometheus waits for the whole.
const WORKER_TIME: Duration = Duration::from_secs(3);

/// Metrics
///
/// In the text format of Prometheus, or in that of OpenMetrics where `Accept` asks for it.
#[utoipa::path(
    get,
    path = METRICS,
    tag = "health",
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = 500, body = Problem, content_type = "application/problem+json", description = "They cannot be written"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "The host is stopping"),
    )
)]
pub(super) async fn show(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Refused> {
    let accept = headers.get(header::ACCEPT).and_then(|it| it.to_str().ok());
    let format = Format::accepted(accept.unwrap_or_default());
    let overview = api.ask(Request::Overview).await?;
    let of_worker = api.metrics_of_worker(&headers).await;
    let mut registry = Registry::default();
    registry.register_collector(Box::new(HostMetrics {
        overview,
        worker_answers: of_worker.is_some(),
    }));
    let exposition = metrics::expose(&registry, format).map_err(|error| {
        let detail = format!("the metrics cannot be written: {error}");
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    })?;
    let behind = of_worker.unwrap_or_else(|| format.end().to_owned());
    let body = exposition + &behind;
    Ok(([(header::CONTENT_TYPE, format.content_type())], body).into_response())
}

impl Api {
    /// The worker's part, with its end; none where it does not come soon.
    async fn metrics_of_worker(&self, headers: &HeaderMap) -> Option<String> {
        let uri = Uri::from_static(METRICS);
        let asked = Asked {
            accept: headers.get(header::ACCEPT),
            ..Asked::by_the_supervisor(&Method::GET, &uri)
        };
        let asking = async {
            let response = self.ask_worker(asked).await.ok()?;
            let is_fine = response.status().is_success();
            let body = response.into_body().collect().await.ok()?.to_bytes();
            let text = String::from_utf8(body.into()).ok()?;
            is_fine.then_some(text)
        };
        tokio::time::timeout(WORKER_TIME, asking).await.ok()?
    }
}

/// What the host as a whole tells.
#[derive(Debug)]
struct HostMetrics {
    overview: Overview,
    worker_answers: bool,
}

impl Collector for HostMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        self.encode_state(encoder)?;
        self.encode_workers(encoder)?;
        self.encode_hooks(encoder)?;
        self.encode_processes(encoder)
    }
}

impl HostMetrics {
    fn encode_state(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let overview = &self.overview;
        let about = ("pluginhost_build_info", "The release that runs");
        let release = [([("release", overview.release.as_str())], 1_u64)];
        series(encoder, Kind::Gauge, about, release)?;
        let gauges = [
            (
                "pluginhost_ready",
                "Whether the host is ready, as /readyz tells",
                u64::from(overview.readiness.ready),
            ),
            (
                "pluginhost_worker_answers",
                "Whether the worker that serves has told its metrics; where not, they are missing",
                u64::from(self.worker_answers),
            ),
            (
                "pluginhost_held_connections",
                "Connections that have come to stay",
                overview.connections as u64,
            ),
            (
                "pluginhost_open_calls",
                "Calls that are open",
                overview.open_calls as u64,
            ),
            (
                "pluginhost_quarantined_builds",
                "Builds of plugins in quarantine",
                overview.quarantined.len() as u64,
            ),
            (
                "pluginhost_disabled_plugins",
                "Plugins that an operator has taken out of service",
                overview.disabled.len() as u64,
            ),
        ];
        for (name, help, value) in gauges {
            number(encoder, Kind::Gauge, (name, help), value)?;
        }
        let counters = [
            (
                "pluginhost_calls_lost",
                "Calls that were inside a worker when it died",
                overview.calls_lost,
            ),
            (
                "pluginhost_connections_cut",
                "Connections closed because a frame was under way when their worker died",
                overview.connections_cut,
            ),
            (
                "pluginhost_log_lines_lost",
                "Lines that the log and the access log could not take",
                overview.log_lines_lost,
            ),
        ];
        for (name, help, value) in counters {
            number(encoder, Kind::Counter, (name, help), value)?;
        }
        Ok(())
    }

    fn encode_workers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let overview = &self.overview;
        let about = ("pluginhost_workers", "Worker processes, by what they do");
        let phases = WORKER_PHASES.map(|phase| {
            let workers = overview.workers.iter();
            let count = workers.filter(|worker| worker.phase == phase).count();
            ([("phase", phase)], count as u64)
        });
        series(encoder, Kind::Gauge, about, phases)?;
        let about = (
            "pluginhost_worker_restarts",
            "Times that another worker began to serve, by why",
        );
        let crashes = overview.crashes - overview.stuck_loops.min(overview.crashes);
        let causes = [
            ([("cause", "crash")], crashes),
            ([("cause", "stuck_loop")], overview.stuck_loops),
            ([("cause", "replacement")], overview.replacements),
        ];
        series(encoder, Kind::Counter, about, causes)?;
        let about = (
            "pluginhost_renewals",
            "Times that the next release took over",
        );
        number(encoder, Kind::Counter, about, overview.renewals)
    }

    /// Of events that have a hook.
    fn encode_hooks(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let hooks = &self.overview.hooks;
        let about = (
            "pluginhost_hook_runs",
            "Hooks of operators that were run, by event and what became of them",
        );
        let runs = hooks.iter().flat_map(|of| {
            let outcomes = [("done", of.done), ("failed", of.failed)];
            outcomes
                .map(|(outcome, runs)| ([("event", of.event.as_str()), ("outcome", outcome)], runs))
        });
        series(encoder, Kind::Counter, about, runs)?;
        let about = (
            "pluginhost_hook_events_lost",
            "Events that no hook has heard of, because too many waited",
        );
        let lost = hooks
            .iter()
            .map(|of| ([("event", of.event.as_str())], of.lost));
        series(encoder, Kind::Counter, about, lost)
    }

    fn encode_processes(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let supervisor = ("supervisor", "0".to_owned(), self.overview.pid);
        let workers = self.overview.workers.iter().map(|worker| {
            let number = worker.worker.to_string();
            ("worker", number, worker.pid.unsigned_abs())
        });
        let processes: Vec<_> = std::iter::once(supervisor)
            .chain(workers)
            .map(|(kind, number, pid)| {
                let labels = [("process", kind.to_owned()), ("worker", number)];
                (labels, ProcessUse::of(pid))
            })
            .collect();
        let of = |pick: fn(&ProcessUse) -> Option<f64>| {
            let known = processes.iter();
            known.filter_map(move |(labels, used)| Some((labels.clone(), pick(used)?)))
        };
        let about = (
            "pluginhost_process_resident_memory_bytes",
            "Memory that a process has in use, what is shared with files included",
        );
        let bytes = of(|used| used.resident_bytes.map(|bytes| bytes as f64));
        series(encoder, Kind::Gauge, about, bytes)?;
        let about = (
            "pluginhost_process_open_fds",
            "Descriptors that a process has open",
        );
        let open = of(|used| used.open_descriptors.map(|open| open as f64));
        series(encoder, Kind::Gauge, about, open)?;
        let about = (
            "pluginhost_process_cpu_seconds",
            "Processor time that a process has used",
        );
        series(
            encoder,
            Kind::Counter,
            about,
            of(|used| used.processor_seconds),
        )
    }
}
