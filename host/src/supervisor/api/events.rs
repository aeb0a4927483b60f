//! A stream of what changes, for whoever looks on: the console.
//!
//! Once a second, as long as anybody listens, one look at the host serves all of them.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use axum::{
    extract::State,
    response::sse::{Event, KeepAlive, Sse},
};
use futures_util::{Stream, stream};
use serde::Serialize;
use tokio::sync::broadcast;
use utoipa::ToSchema;

use super::{Api, overview::HostStatus};
use crate::{
    control::problem::{Problem, Refused},
    plugin::{
        manager::{PluginStatus, utc},
        registry::CallDurations,
    },
};

/// Streams at a time.
pub(super) const MAX_STREAMS: usize = 16;

/// How often the host is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Events that a slow listener may be behind; it misses the others.
const BEHIND: usize = 16;

/// Whoever listens.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Where events come from, while anybody listens.
    events: Mutex<Option<broadcast::Sender<Arc<Happened>>>>,
}

/// One event.
#[derive(Debug)]
struct Happened {
    name: &'static str,
    data: String,
}

/// How it goes, once a second.
#[derive(Debug, Serialize, ToSchema)]
struct Pulse<'a> {
    /// When, in UTC.
    at: String,
    /// Whether the host is ready.
    ready: bool,
    /// Connections that have come to stay.
    connections: usize,
    /// Calls that are open.
    open_calls: usize,
    /// What became of the calls of each place of the plugin directory so far.
    calls: BTreeMap<&'a str, Calls>,
}

/// What became of the calls of a plugin since it was loaded.
#[derive(Debug, Serialize, ToSchema)]
struct Calls {
    /// All of them.
    calls: u64,
    /// Those on which it has failed, in whatever way.
    failed: u64,
    /// Live configurations of routes.
    configurations: u64,
    /// How long those took that have ended; none where nothing serves.
    duration: Option<CallDurations>,
}

/// What changes
///
/// Server-sent events: `status` with everything that `/v1/status` tells, at first and whenever anything
/// but numbers has changed; `pulse` once a second, with numbers. A listener that is too slow misses
/// some of them.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "host",
    responses(
        (status = 200, body = String, content_type = "text/event-stream"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "Too many listen already"),
    )
)]
pub(super) async fn follow(
    State(api): State<Api>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refused> {
    let events = api.listen()?;
    let first = Arc::new(Happened::status(&api.status().await?));
    let stream = stream::unfold((Some(first), events), |(first, mut events)| async {
        if let Some(first) = first {
            return Some((Ok(first.event()), (None, events)));
        }
        loop {
            match events.recv().await {
                Ok(happened) => return Some((Ok(happened.event()), (None, events))),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()))
}

impl Api {
    /// Listens; the first who does has somebody look.
    fn listen(&self) -> Result<broadcast::Receiver<Arc<Happened>>, Refused> {
        let listeners = &self.parts.listeners;
        let mut known = listeners
            .events
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(events) = &*known {
            if events.receiver_count() >= MAX_STREAMS {
                return Err(Refused::unavailable(format!(
                    "{MAX_STREAMS} streams of events are open already"
                )));
            }
            return Ok(events.subscribe());
        }
        let (events, first) = broadcast::channel(BEHIND);
        *known = Some(events.clone());
        tokio::spawn(look_on(self.clone(), events));
        Ok(first)
    }
}

/// Looks until nobody listens any more.
async fn look_on(api: Api, events: broadcast::Sender<Arc<Happened>>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = None;
    loop {
        ticks.tick().await;
        {
            let listeners = &api.parts.listeners;
            let mut known = listeners
                .events
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if events.receiver_count() == 0 {
                *known = None;
                return;
            }
        }
        let Ok(status) = api.status().await else {
            continue;
        };
        let shape = shape(&status);
        if told.as_ref() != Some(&shape) {
            told = Some(shape);
            // Nobody may listen any more, which the next tick sees.
            let _ = events.send(Arc::new(Happened::status(&status)));
        }
        let _ = events.send(Arc::new(Happened::pulse(&status)));
    }
}

/// What of a status is no mere number.
fn shape(status: &HostStatus) -> serde_json::Value {
    let mut shape = serde_json::to_value(status).unwrap_or_default();
    let numbers = ["connections", "open_calls"];
    for number in numbers {
        shape["host"][number].take();
    }
    shape["pool"].take();
    for plugin in shape["plugins"].as_array_mut().into_iter().flatten() {
        for number in ["calls", "duration", "configurations", "stalls"] {
            plugin[number].take();
        }
    }
    shape
}

impl Happened {
    fn status(status: &HostStatus) -> Self {
        Self::new("status", status)
    }

    fn pulse(status: &HostStatus) -> Self {
        let calls = status.plugins.iter().filter_map(|plugin| {
            let place = plugin.place.to_str()?;
            Some((place, Calls::of(plugin)))
        });
        let pulse = Pulse {
            at: utc(SystemTime::now()),
            ready: status.readiness.ready,
            connections: status.host.connections,
            open_calls: status.host.open_calls,
            calls: calls.collect(),
        };
        Self::new("pulse", &pulse)
    }

    fn new(name: &'static str, data: &impl Serialize) -> Self {
        Self {
            name,
            // Plain data: it can be written.
            data: serde_json::to_string(data).unwrap_or_default(),
        }
    }

    fn event(&self) -> Event {
        Event::default().event(self.name).data(&self.data)
    }
}

impl Calls {
    fn of(plugin: &PluginStatus) -> Self {
        Self {
            calls: plugin.calls.calls,
            failed: plugin.calls.failed(),
            configurations: plugin.configurations,
            duration: plugin.duration,
        }
    }
}
