//! The control interface of a host: answers what concerns the host as a whole, and passes on what is
//! the worker's, whose own socket nobody else knows.
//!
//! Three ways lead here. The control socket is for whoever the file system lets in; `--control-listen`
//! for whoever shows the token; `--telemetry-listen` answers everybody, tells how the host is and
//! nothing else. Each request that changes something leaves a line in the log with who asked.

mod actions;
mod crashes;
mod events;
mod executing;
mod guard;
mod health;
mod log;
mod metrics;
mod overview;
mod passing;
mod session;
mod trying;

use std::{ffi::OsString, os::unix::net::UnixListener, path::PathBuf, sync::Arc};

use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    middleware::{from_fn, from_fn_with_state},
    routing::{get, on},
};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder};
use utoipa_axum::{PathItemExt as _, router::OpenApiRouter, routes};

use super::requests::Request;

pub use events::Listeners;
pub use log::Log;
pub use trying::Trials;

use crate::{
    config::Config,
    control::{
        self,
        access::Access,
        console,
        listener::{serve_tcp, serve_unix},
        problem::{Refused, no_such_method, no_such_path},
        worker,
    },
    listen::Binding,
    runtime_dir::RuntimeDir,
};

/// Bytes of a request's body, at most.
pub const MAX_BODY_BYTES: usize = 64 << 10;

/// Where the description is.
pub const DESCRIPTION: &str = "/openapi.json";

/// What requests are answered with.
#[derive(Debug, Clone)]
pub(super) struct Api {
    pub(super) supervisor: mpsc::Sender<Request>,
    /// The control socket of the worker that serves.
    pub(super) serving: watch::Receiver<Option<PathBuf>>,
    /// Whether operators may ask something of it that it has to remember.
    pub(super) may_command: watch::Receiver<bool>,
    /// Where the reports of crashes lie.
    pub(super) reports: PathBuf,
    pub(super) parts: Arc<Parts>,
}

/// What does not change while the host runs.
#[derive(Debug)]
pub(super) struct Parts {
    /// Where the next release's program is.
    pub(super) program: PathBuf,
    /// What this one was started with.
    pub(super) arguments: Arc<[OsString]>,
    /// The configuration in force.
    pub(super) config: Arc<Config>,
    /// Lets in who asks over the network, where somebody may.
    pub(super) access: Option<Arc<Access>>,
    /// Whoever listens to events.
    pub(super) listeners: events::Listeners,
    /// The last lines of the log.
    pub(super) log: log::Log,
    /// Requests that operators try out.
    pub(super) trials: trying::Trials,
}

/// Opens the control socket on the current runtime, and the addresses beside it. Without a socket the
/// host serves all the same, and says so. Dropping the binding removes the socket.
pub(super) fn serve(runtime_dir: &RuntimeDir, api: Api) -> Option<Binding> {
    let path = control::socket_path(runtime_dir.shared());
    let lock = runtime_dir
        .address_lock()
        .inspect_err(|error| tracing::error!(%error, "there is no control socket"))
        .ok()?;
    let (binding, listener) = Binding::bind(&path, control::SOCKET_MODE, control::BACKLOG, lock)
        .inspect_err(|error| tracing::error!(%error, "there is no control socket"))
        .ok()?;
    tokio::spawn(serve_all(listener, api));
    Some(binding)
}

async fn serve_all(listener: UnixListener, api: Api) {
    // It describes itself while it is put together, which takes a moment that workers need not wait.
    let of = api.clone();
    let interface = tokio::task::spawn_blocking(move || interface(&of))
        .await
        .expect("putting routes together does not panic: a test does it");
    let config = Arc::clone(&api.parts.config);
    if let (Some(address), Some(access)) = (config.control.listen, api.parts.access.clone()) {
        let guarded = interface
            .clone()
            .merge(console::router())
            .layer(from_fn_with_state(access, guard::admit));
        tokio::spawn(serve_tcp(address, guarded));
    }
    if let Some(address) = config.control.telemetry {
        tokio::spawn(serve_tcp(address, telemetry(api)));
    }
    match tokio::net::UnixListener::from_std(listener) {
        Ok(listener) => {
            serve_unix(listener, interface).await;
        }
        Err(error) => {
            tracing::error!(%error, "the control socket has failed; calls are served all the same");
        }
    }
}

/// Everything, for those who may.
fn interface(api: &Api) -> Router {
    let (own, _) = described().split_for_parts();
    let description = serde_json::to_value(description()).unwrap_or_default();
    let description = Arc::new(description);
    own.merge(passed_on())
        .route(
            DESCRIPTION,
            get(move || {
                let description = Arc::clone(&description);
                async move { Json(Value::clone(&description)) }
            }),
        )
        .method_not_allowed_fallback(no_such_method)
        .fallback(no_such_path)
        .layer(from_fn(guard::audit))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(api.clone())
}

/// What everybody may know.
fn telemetry(api: Api) -> Router {
    Router::new()
        .route(health::LIVE, get(health::live))
        .route(health::READY, get(health::ready))
        .route(worker::METRICS, get(metrics::show))
        .method_not_allowed_fallback(no_such_method)
        .fallback(no_such_path)
        .with_state(api)
}

/// What the supervisor answers, with its description.
fn described() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(overview::status))
        .routes(routes!(overview::host))
        .routes(routes!(overview::workers))
        .routes(routes!(overview::settings))
        .routes(routes!(crashes::list))
        .routes(routes!(crashes::show))
        .routes(routes!(events::follow))
        .routes(routes!(actions::replace_worker))
        .routes(routes!(actions::renew))
        .routes(routes!(actions::drain))
        .routes(routes!(log::levels, log::set_levels))
        .routes(routes!(log::lines))
        .routes(routes!(log::follow))
        .routes(routes!(trying::try_out))
        .routes(routes!(session::show, session::sign_in, session::sign_out))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::show))
}

/// What the worker answers: each of its paths, with the methods that it takes.
fn passed_on() -> Router<Api> {
    let described = worker::description();
    let mut router = Router::new();
    for (path, item) in &described.paths.paths {
        for (method, handled) in methods(item) {
            let filter = method.to_method_filter();
            router = match handled {
                false => continue,
                true if path.ends_with(executing::PATH) => {
                    router.route(path, on(filter, executing::pass))
                }
                true => router.route(path, on(filter, passing::pass)),
            };
        }
    }
    router
}

fn methods(item: &utoipa::openapi::PathItem) -> [(utoipa::openapi::HttpMethod, bool); 4] {
    use utoipa::openapi::HttpMethod;
    [
        (HttpMethod::Get, item.get.is_some()),
        (HttpMethod::Post, item.post.is_some()),
        (HttpMethod::Put, item.put.is_some()),
        (HttpMethod::Delete, item.delete.is_some()),
    ]
}

/// The description of everything.
fn description() -> OpenApi {
    let mut described = OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("plugin-host")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(
                    "The control interface of a running plugin-host. Fields are only ever added within \
                     /v1; whoever reads an answer ignores those that it does not know.",
                ))
                .build(),
        )
        .components(Some(ComponentsBuilder::new().build()))
        .build();
    described.merge(self::described().into_openapi());
    described.merge(worker::description().clone());
    described
}

impl Api {
    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, Refused> {
        let (done, answer) = oneshot::channel();
        let asked = self.supervisor.send(request(done)).await;
        asked.map_err(|_| Refused::stopping())?;
        answer.await.map_err(|_| Refused::stopping())
    }
}

/// An answer that says nothing but that it was done.
fn done() -> Json<Value> {
    Json(Value::Object(serde_json::Map::new()))
}
