//! What a worker answers: for the plugins that it runs, and the routes that they serve. Only its
//! supervisor asks it, over a socket of its own, and has decided that whoever is behind it may.

use std::{
    os::unix::net::UnixListener,
    sync::{Arc, OnceLock},
};

use axum::{
    Json, Router,
    extract::State,
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    caller::ASKED_BY,
    execute,
    extract::{Body, Force, Named, Query},
    problem::{Problem, Refused, no_such_method, no_such_path},
    routes::{Chains, Page, TokenList, chains, token_list},
    trial,
};
use crate::{
    keeper::{Reloaded, Request},
    logging::Levels,
    metrics::{Format, Metrics},
    pipeline::{execute::Executor, pool::Pool},
    plugin::{
        disabled::DisabledPlugin,
        log_levels::LogLevels,
        manager::{
            About, Manager, PlaceProblem, PluginStatus, QuarantineError, RollbackError,
            ServiceRoute, Status, utc,
        },
        metadata::PluginName,
        registry::Missing,
    },
    tokens::Tokens,
};

/// The plugins of one name.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Plugins {
    /// One for each place of the plugin directory: several where versions stand side by side.
    pub plugins: Vec<PluginStatus>,
}

/// What the plugins of one name say about themselves.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Abouts {
    /// One for each version that serves.
    pub plugins: Vec<About>,
}

/// What came of a roll-back.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RolledBack {
    /// Name and version that serve now.
    pub serving: String,
}

/// What came of trusting a plugin with the event loops again.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Unblocked {
    /// Name and version of what had been found to hold them up.
    pub unblocked: Vec<String>,
}

/// What came of disabling a plugin.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TakenOut {
    /// The plugin.
    pub name: String,
    /// Name and version of what served until now.
    pub served: Vec<String>,
}

/// What came of putting a build into quarantine.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PutAside {
    /// The plugin.
    pub name: String,
    /// The version.
    pub version: String,
    /// Digest of its library.
    pub digest: String,
    /// Name and version of what serves in its place; none where its routes fail closed.
    pub serving_instead: Option<String>,
}

/// What requests are answered from.
#[derive(Debug, Clone)]
pub struct Desk {
    /// Does what operators ask for.
    pub keeper: mpsc::Sender<Request>,
    /// Has plugins execute something.
    pub executor: Executor,
    /// Knows the plugins.
    pub manager: Arc<Manager>,
    /// The routes' configurations.
    pub tokens: Arc<Tokens>,
    /// Threads for plugins that block.
    pub pool: Pool,
    /// What is wrong in the plugin directory.
    pub problems: watch::Receiver<Vec<PlaceProblem>>,
    /// Whether anybody can ask for HTTP services.
    pub serves_http: bool,
    /// What this process logs.
    pub levels: Levels,
    /// What plugins count.
    pub metrics: Arc<Metrics>,
}

/// Where metrics are.
pub const METRICS: &str = "/metrics";

/// Where the supervisor says what is to be logged; nobody else is told of it.
pub const LOG: &str = "/internal/log";

/// Where the supervisor has a trial begun and ended; nobody else is told of it.
pub const BEGIN_TRIAL: &str = "/internal/trial/begin";
/// See [`BEGIN_TRIAL`].
pub const END_TRIAL: &str = "/internal/trial/end";

/// Serves a worker's control socket until the listener fails.
pub async fn serve(listener: UnixListener, desk: Desk) {
    let served = match tokio::net::UnixListener::from_std(listener) {
        Ok(listener) => axum::serve(listener, router(desk)).await,
        Err(error) => Err(error),
    };
    if let Err(error) = served {
        tracing::error!(%error, "the worker's control socket has failed; calls are served all the same");
    }
}

fn router(desk: Desk) -> Router {
    described()
        .split_for_parts()
        .0
        .route(METRICS, axum::routing::get(metrics))
        .route(LOG, axum::routing::post(set_log_levels))
        .route(BEGIN_TRIAL, axum::routing::post(begin_trial))
        .route(END_TRIAL, axum::routing::post(end_trial))
        .method_not_allowed_fallback(no_such_method)
        .fallback(no_such_path)
        .with_state(desk)
}

/// What a worker answers, with its description.
pub fn described() -> OpenApiRouter<Desk> {
    OpenApiRouter::new()
        .routes(routes!(list_plugins))
        .routes(routes!(show_plugin))
        .routes(routes!(about_plugin))
        .routes(routes!(rescan))
        .routes(routes!(upgrade))
        .routes(routes!(rollback))
        .routes(routes!(disable))
        .routes(routes!(enable))
        .routes(routes!(quarantine))
        .routes(routes!(lift))
        .routes(routes!(unblock))
        .routes(routes!(execute::execute))
        .routes(routes!(list_chains))
        .routes(routes!(list_tokens))
}

/// What a worker answers that nobody else is told of: paths, and what they take.
pub fn description() -> &'static utoipa::openapi::OpenApi {
    static DESCRIPTION: OnceLock<utoipa::openapi::OpenApi> = OnceLock::new();
    DESCRIPTION.get_or_init(|| described().into_openapi())
}

/// Every plugin
///
/// One entry for each place of the plugin directory, with what serves, since when, how its calls went,
/// and what became of the last tries to load something; beside them everything that does not serve and
/// why.
#[utoipa::path(get, path = "/v1/plugins", tag = "plugins", responses((status = 200, body = Status)))]
async fn list_plugins(State(desk): State<Desk>) -> Json<Status> {
    Json(desk.status())
}

/// The plugins of one name
#[utoipa::path(
    get,
    path = "/v1/plugins/{name}",
    tag = "plugins",
    params(("name", description = "The plugin's name")),
    responses(
        (status = 200, body = Plugins),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No place has ever given such a plugin"),
    )
)]
async fn show_plugin(
    State(desk): State<Desk>,
    Named(name): Named,
) -> Result<Json<Plugins>, Refused> {
    let mut plugins = desk.status().plugins;
    plugins.retain(|plugin| plugin.name.as_deref() == Some(&name));
    if plugins.is_empty() {
        return Err(Refused::not_found(format!(
            "no place of the plugin directory has ever given a plugin `{name}`"
        )));
    }
    Ok(Json(Plugins { plugins }))
}

/// What a plugin says about itself
///
/// Description, needs and schemas of what serves of one name.
#[utoipa::path(
    get,
    path = "/v1/plugins/{name}/about",
    tag = "plugins",
    params(("name", description = "The plugin's name")),
    responses(
        (status = 200, body = Abouts),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "Nothing of it serves"),
    )
)]
async fn about_plugin(
    State(desk): State<Desk>,
    Named(name): Named,
) -> Result<Json<Abouts>, Refused> {
    let plugins = desk.manager.about(&name);
    if plugins.is_empty() {
        return Err(Refused::not_found(format!("no plugin `{name}` serves")));
    }
    Ok(Json(Abouts { plugins }))
}

/// Look at the plugin directory now
///
/// Waits until everything that is new there has been tried; what failed before is tried again.
#[utoipa::path(post, path = "/v1/rescan", tag = "plugins", params(Force), responses((status = 200, body = Reloaded)))]
async fn rescan(
    State(desk): State<Desk>,
    Query(force): Query<Force>,
) -> Result<Json<Reloaded>, Refused> {
    let vetoes = force.vetoes();
    desk.ask(|done| Request::Reload { vetoes, done })
        .await
        .map(Json)
}

/// Try the files of one plugin now
///
/// Also where they have failed before. What is the same as what serves is not loaded again.
#[utoipa::path(
    post,
    path = "/v1/plugins/{name}/upgrade",
    tag = "plugins",
    params(("name", description = "The plugin: `name` or `name@requirement`"), Force),
    responses(
        (status = 200, body = Reloaded),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "That is no plugin name"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "Nothing of it is there"),
    )
)]
async fn upgrade(
    State(desk): State<Desk>,
    Named(plugin): Named,
    Query(force): Query<Force>,
) -> Result<Json<Reloaded>, Refused> {
    let vetoes = force.vetoes();
    let upgraded = desk
        .ask(|done| Request::Upgrade {
            plugin,
            vetoes,
            done,
        })
        .await?;
    upgraded.map(Json).map_err(missing)
}

/// Go back to what served before
///
/// From the copy that the host has kept. The operator's files are not loaded again until they change.
#[utoipa::path(
    post,
    path = "/v1/plugins/{name}/rollback",
    tag = "plugins",
    params(("name", description = "The plugin: `name` or `name@requirement`"), Force),
    responses(
        (status = 200, body = RolledBack),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "That is no plugin name"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such plugin"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "There is nothing to go back to, or it does not load"),
        (status = 500, body = Problem, content_type = "application/problem+json", description = "The copy cannot be read"),
    )
)]
async fn rollback(
    State(desk): State<Desk>,
    Named(plugin): Named,
    Query(force): Query<Force>,
    headers: HeaderMap,
) -> Result<Json<RolledBack>, Refused> {
    let (vetoes, by) = (force.vetoes(), asked_by(&headers));
    let rolled_back = desk
        .ask(|done| Request::Rollback {
            plugin,
            vetoes,
            by,
            done,
        })
        .await?;
    match rolled_back {
        Ok(serving) => Ok(Json(RolledBack { serving })),
        Err(RollbackError::Missing(error)) => Err(missing(error)),
        Err(error @ RollbackError::Copy(_)) => Err(Refused::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            error.to_string(),
        )),
        Err(error) => Err(Refused::conflict(error)),
    }
}

/// Take a plugin out of service
///
/// Every version of it; its routes fail closed until it is enabled. That outlives workers and, until
/// the machine starts anew, the host.
#[utoipa::path(
    post,
    path = "/v1/plugins/{name}/disable",
    tag = "plugins",
    params(("name", description = "The plugin's name")),
    responses(
        (status = 200, body = TakenOut),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "No plugin can have that name"),
    )
)]
async fn disable(
    State(desk): State<Desk>,
    Named(name): Named,
    headers: HeaderMap,
) -> Result<Json<TakenOut>, Refused> {
    let plugin = DisabledPlugin {
        name: plugin_name(&name)?,
        since: utc(std::time::SystemTime::now()),
        by: asked_by(&headers),
    };
    let served = desk.ask(|done| Request::Disable { plugin, done }).await?;
    Ok(Json(TakenOut { name, served }))
}

/// Let a plugin serve again that was disabled
#[utoipa::path(
    post,
    path = "/v1/plugins/{name}/enable",
    tag = "plugins",
    params(("name", description = "The plugin's name")),
    responses(
        (status = 200, body = Reloaded),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "No plugin can have that name"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "It is not disabled"),
    )
)]
async fn enable(State(desk): State<Desk>, Named(name): Named) -> Result<Json<Reloaded>, Refused> {
    let plugin = plugin_name(&name)?;
    let enabled = desk.ask(|done| Request::Enable { plugin, done }).await?;
    enabled.map(Json).map_err(Refused::not_found)
}

/// Put the build of a plugin that serves into quarantine
///
/// It is not loaded again until that is lifted or another file comes. What served before it serves in
/// its place, or its routes fail closed.
#[utoipa::path(
    post,
    path = "/v1/plugins/{name}/quarantine",
    tag = "plugins",
    params(("name", description = "The plugin: `name` or `name@requirement`")),
    responses(
        (status = 200, body = PutAside),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "That is no plugin name"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such plugin serves"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Several versions serve: say which"),
    )
)]
async fn quarantine(
    State(desk): State<Desk>,
    Named(plugin): Named,
) -> Result<Json<PutAside>, Refused> {
    let put = desk
        .ask(|done| Request::Quarantine { plugin, done })
        .await?;
    let put = put.map_err(|error| match error {
        QuarantineError::Missing(error) => missing(error),
        QuarantineError::Several { .. } => Refused::conflict(error),
    })?;
    Ok(Json(PutAside {
        name: put.build.name.to_string(),
        version: put.build.version.to_string(),
        digest: put.build.digest.to_string(),
        serving_instead: put.serving_instead,
    }))
}

/// End the quarantine of a plugin
///
/// Every build of it may be loaded again, with a clean record; its files are tried at once.
#[utoipa::path(
    post,
    path = "/v1/plugins/{name}/lift",
    tag = "plugins",
    params(("name", description = "The plugin's name")),
    responses(
        (status = 200, body = Reloaded),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No version of it is in quarantine"),
    )
)]
async fn lift(State(desk): State<Desk>, Named(plugin): Named) -> Result<Json<Reloaded>, Refused> {
    let lifted = desk.ask(|done| Request::Lift { plugin, done }).await?;
    lifted.map(Json).map_err(Refused::not_found)
}

/// Trust a plugin with the event loops again
///
/// After it was found to hold one up; until it does so again.
#[utoipa::path(
    post,
    path = "/v1/plugins/{name}/unblock",
    tag = "plugins",
    params(("name", description = "The plugin: `name` or `name@requirement`")),
    responses(
        (status = 200, body = Unblocked),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "That is no plugin name"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such plugin serves"),
    )
)]
async fn unblock(
    State(desk): State<Desk>,
    Named(plugin): Named,
) -> Result<Json<Unblocked>, Refused> {
    let unblocked = desk.ask(|done| Request::Unblock { plugin, done }).await?;
    unblocked
        .map(|unblocked| Json(Unblocked { unblocked }))
        .map_err(missing)
}

/// The chains of routes
///
/// Of each route the newest configuration, with the plugins that run it or what keeps them from it.
#[utoipa::path(get, path = "/v1/chains", tag = "routes", params(Page), responses((status = 200, body = Chains)))]
async fn list_chains(State(desk): State<Desk>, Query(page): Query<Page>) -> Json<Chains> {
    Json(chains(&desk.tokens, &page))
}

/// The configurations that the gateway has prepared
#[utoipa::path(get, path = "/v1/tokens", tag = "routes", params(Page), responses((status = 200, body = TokenList)))]
async fn list_tokens(State(desk): State<Desk>, Query(page): Query<Page>) -> Json<TokenList> {
    Json(token_list(&desk.tokens, &page))
}

/// This worker's part of the metrics, for the supervisor.
async fn metrics(State(desk): State<Desk>, headers: HeaderMap) -> Result<Response, Refused> {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = Format::accepted(accept.unwrap_or_default());
    let exposition = desk.metrics.expose(format).map_err(|error| {
        let detail = format!("the metrics cannot be written: {error}");
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    })?;
    Ok(([(CONTENT_TYPE, format.content_type())], exposition).into_response())
}

async fn begin_trial(
    State(desk): State<Desk>,
    Body(wanted): Body<trial::Wanted>,
) -> Result<Json<trial::Begun>, Refused> {
    trial::begin(&desk.tokens, wanted).await.map(Json)
}

async fn end_trial(
    State(desk): State<Desk>,
    Body(over): Body<trial::Over>,
) -> Json<trial::Failures> {
    Json(trial::end(&desk.tokens, &over))
}

async fn set_log_levels(
    State(desk): State<Desk>,
    Body(levels): Body<LogLevels>,
) -> Result<Json<LogLevels>, Refused> {
    desk.levels.set(&levels).map_err(Refused::bad_request)?;
    Ok(Json(levels))
}

impl Desk {
    fn status(&self) -> Status {
        let mut status = Status {
            pool: Some(self.pool.in_use()),
            problems: self.problems.borrow().clone(),
            ..self.manager.status()
        };
        if !self.serves_http {
            let plugins = status.plugins.iter_mut();
            let routes = plugins.flat_map(|plugin| &mut plugin.http_routes);
            routes.for_each(ServiceRoute::without_listener);
        }
        status
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, Refused> {
        let (done, answer) = oneshot::channel();
        let asked = self.keeper.send(request(done)).await;
        asked.map_err(|_| Refused::stopping())?;
        answer.await.map_err(|_| Refused::stopping())
    }
}

/// Nothing answers to a name, or it is none.
pub(super) fn missing(error: Missing) -> Refused {
    match error {
        Missing::Malformed(_) => Refused::bad_request(error),
        error => Refused::not_found(error),
    }
}

fn plugin_name(name: &str) -> Result<PluginName, Refused> {
    PluginName::new(name).map_err(|error| Refused::bad_request(format!("`{name}`: {error}")))
}

/// Whom the supervisor names.
fn asked_by(headers: &HeaderMap) -> String {
    let named = headers.get(ASKED_BY).and_then(|by| by.to_str().ok());
    named.unwrap_or("an operator").to_owned()
}
