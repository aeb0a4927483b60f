//! The log: what goes into it, and its last lines.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Json,
    extract::State,
    response::sse::{Event, KeepAlive, Sse},
};
use futures_util::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use utoipa::{IntoParams, ToSchema};

use super::{Api, Request};
use crate::{
    config::check_filter,
    control::{
        extract::{Body, Query},
        problem::{Problem, Refused},
        worker,
    },
    logging::recent::{Line, Recent},
    plugin::log_levels::{self, LogLevels},
};

/// Lines of an answer, where the request does not say.
const TAIL: usize = 100;

/// Who may follow the log at a time.
pub(super) const MAX_FOLLOWERS: usize = 16;

/// The last lines of the log, and room for those who follow it.
#[derive(Debug)]
pub struct Log {
    recent: Option<Recent>,
    places: Arc<Semaphore>,
}

impl Log {
    pub(in crate::supervisor) fn new(recent: Option<Recent>) -> Self {
        Self {
            recent,
            places: Arc::new(Semaphore::new(MAX_FOLLOWERS)),
        }
    }
}

/// What is to be logged.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WantedLevels {
    /// Directives, as `--log` takes them: `debug`, or `info,plugin_host::server=debug`.
    filter: Option<String>,
    /// A plugin that gets a level of its own.
    plugin: Option<String>,
    /// That level: `error`, `warn`, `info`, `debug`, `trace` or `off`; none to take it back.
    level: Option<String>,
}

/// Which lines of the log.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Only lines about this plugin, its own among them.
    plugin: Option<String>,
    /// Only lines of this level and above: `error`, `warn`, `info`, `debug` or `trace`.
    level: Option<String>,
    /// How many of those that are there already, the newest; 100 where it is left out.
    tail: Option<usize>,
}

/// Lines of the log.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Lines {
    /// Oldest first.
    lines: Vec<Line>,
}

/// What is logged
#[utoipa::path(get, path = "/v1/log", tag = "log", responses((status = 200, body = LogLevels)))]
pub(super) async fn levels(State(api): State<Api>) -> Result<Json<LogLevels>, Refused> {
    api.ask(Request::Levels).await.map(Json)
}

/// Log something else
///
/// In the supervisor, the worker and those after it, until the host ends or another word. Without a
/// word, what is configured, and no plugin has a level of its own.
#[utoipa::path(
    post,
    path = "/v1/log",
    tag = "log",
    request_body = WantedLevels,
    responses(
        (status = 200, body = LogLevels),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "It cannot be understood"),
    )
)]
pub(super) async fn set_levels(
    State(mut api): State<Api>,
    Body(wanted): Body<WantedLevels>,
) -> Result<Json<LogLevels>, Refused> {
    // A worker that is about to take over was told before. An error means that the host stops.
    let _ = api.may_command.wait_for(|may| *may).await;
    let levels = match wanted {
        WantedLevels {
            filter: None,
            plugin: None,
            level: None,
        } => None,
        wanted => {
            let now = api.ask(Request::Levels).await?;
            Some(changed(now, wanted).map_err(Refused::bad_request)?)
        }
    };
    let now = api
        .ask(|done| Request::WantLevels { levels, done })
        .await?
        .map_err(Refused::bad_request)?;
    let told = api.tell_worker(worker::LOG, &now).await;
    let _ = api.supervisor.send(Request::Commanded).await;
    if let Err(error) = told {
        return Err(Refused::unavailable(format!(
            "the supervisor logs so, and the next worker will; this one does not: {error}"
        )));
    }
    Ok(Json(now))
}

fn changed(mut levels: LogLevels, wanted: WantedLevels) -> Result<LogLevels, String> {
    if let Some(filter) = wanted.filter {
        check_filter(&filter)?;
        levels.filter = filter;
    }
    match (wanted.plugin, wanted.level) {
        (Some(plugin), Some(level)) => {
            log_levels::level(&level)?;
            levels.plugins.insert(plugin, level);
        }
        (Some(plugin), None) => {
            levels.plugins.remove(&plugin);
        }
        (None, Some(_)) => return Err("`level` is a plugin's: name it as `plugin`".to_owned()),
        (None, None) => {}
    }
    Ok(levels)
}

/// The last lines of the log
///
/// Of supervisor and workers, in the log's own format. The last 2,000 are kept, as far as a mebibyte
/// holds them.
#[utoipa::path(
    get,
    path = "/v1/log/lines",
    tag = "log",
    params(Wanted),
    responses(
        (status = 200, body = Lines),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "It cannot be understood"),
    )
)]
pub(super) async fn lines(
    State(api): State<Api>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Lines>, Refused> {
    let takes = wanted.takes()?;
    let (kept, _) = api.recent()?.follow();
    let lines = last(kept, takes, &wanted);
    Ok(Json(Lines {
        lines: lines.iter().map(|line| Line::clone(line)).collect(),
    }))
}

/// The log, as it is written
///
/// Server-sent events named `line`, at first of lines that are there already. Whoever is too slow
/// misses some, which the numbers tell.
#[utoipa::path(
    get,
    path = "/v1/log/follow",
    tag = "log",
    params(Wanted),
    responses(
        (status = 200, body = Line, content_type = "text/event-stream"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "It cannot be understood"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "Too many follow already"),
    )
)]
pub(super) async fn follow(
    State(api): State<Api>,
    Query(wanted): Query<Wanted>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refused> {
    let takes = wanted.takes()?;
    let place = Arc::clone(&api.parts.log.places)
        .try_acquire_owned()
        .map_err(|_| Refused::unavailable(format!("{MAX_FOLLOWERS} follow the log already")))?;
    let (kept, new) = api.recent()?.follow();
    let first = stream::iter(last(kept, takes.clone(), &wanted));
    let lines = first.chain(new_lines(new, place).filter(move |line| {
        let is_wanted = takes(line);
        async move { is_wanted }
    }));
    let events = lines.map(|line| {
        let data = serde_json::to_string(&*line).unwrap_or_default();
        let event = Event::default().event("line");
        Ok(event.id(line.number.to_string()).data(data))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

/// Holds its place as long as somebody reads.
fn new_lines(
    new: broadcast::Receiver<Arc<Line>>,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = Arc<Line>> {
    stream::unfold((new, place), |(mut new, place)| async {
        loop {
            match new.recv().await {
                Ok(line) => return Some((line, (new, place))),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    })
}

fn last(
    mut lines: Vec<Arc<Line>>,
    takes: impl Fn(&Line) -> bool,
    wanted: &Wanted,
) -> Vec<Arc<Line>> {
    lines.retain(|line| takes(line));
    let tail = wanted.tail.unwrap_or(TAIL);
    lines.split_off(lines.len().saturating_sub(tail))
}

impl Wanted {
    fn takes(&self) -> Result<impl Fn(&Line) -> bool + Clone + Send + use<>, Refused> {
        let least = match &self.level {
            Some(level) => Some(log_levels::level(level).map_err(Refused::bad_request)?),
            None => None,
        };
        let plugin = self.plugin.clone();
        Ok(move |line: &Line| {
            let of_level = |level: &str| log_levels::level(level).ok();
            let level = line.level.as_deref().and_then(of_level);
            least.is_none_or(|least| level.is_some_and(|level| level <= least))
                && (plugin.is_none() || line.plugin == plugin)
        })
    }
}

impl Api {
    fn recent(&self) -> Result<&Recent, Refused> {
        let recent = self.parts.log.recent.as_ref();
        recent.ok_or_else(|| Refused::not_found("this host keeps no lines of its log"))
    }
}
