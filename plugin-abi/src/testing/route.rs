//! A route: a chain of plugins for requests, one for responses, and what runs them.

use std::{
    fmt::{self, Display},
    future::Future,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use super::{
    call::{self, Call, Message},
    client_request::ClientRequest,
    gateway::{Gateway, Loaded},
    loading::{Loading, Need},
    outcome::{Failed, Outcome},
    response::UpstreamResponse,
    rules, run,
    world::World,
};
use crate::abi::{self, ConfiguredObject, FfiFuture, ReplyParts, Verdict};

/// The plugins of one route.
///
/// ```
/// use plugin_abi::prelude::*;
/// use plugin_abi::testing::{Gateway, get, response};
///
/// #[derive(Default)]
/// struct Tag;
///
/// impl Plugin for Tag {
///     type Config = String;
///
///     fn configure(&self, raw: &[u8]) -> Result<String> {
///         Ok(String::from_utf8(raw.to_vec())?)
///     }
///
///     async fn request_filter(&self, tag: &String, request: &mut Request) -> Result<Action> {
///         request.set_header("x-tag", tag);
///         Ok(Action::Continue)
///     }
///
///     async fn response_filter(&self, tag: &String, response: &mut Response) -> Result<()> {
///         response.append_header("x-tag", tag);
///         Ok(())
///     }
/// }
///
/// let gateway = Gateway::new();
/// let tag = gateway.load::<Tag>();
/// let route = gateway
///     .route()
///     .on_request(&tag, "first")
///     .on_request(&tag, "second")
///     .on_response(&tag, "third");
///
/// let outcome = route.exchange(get("/"), response(200).header("X-Tag", "upstream's"));
/// assert_eq!(outcome.upstream().header("x-tag"), Some("second"));
/// assert_eq!(outcome.client().headers("x-tag"), ["upstream's", "third"]);
/// ```
#[derive(Clone)]
pub struct Route {
    world: Arc<World>,
    call_budget: Duration,
    allow_degradation: bool,
    on_request: Vec<Arc<Configured>>,
    on_response: Vec<Arc<Configured>>,
}

/// A plugin with one configuration, dropped in its world.
pub(super) struct Configured {
    world: Arc<World>,
    plugin: Arc<str>,
    loading: Arc<Loading>,
    object: Option<ConfiguredObject>,
    /// Keeps the plugin loaded.
    _loaded: Loaded,
}

impl Configured {
    pub(super) fn new(loaded: &Loaded, plugin: Arc<str>, object: ConfiguredObject) -> Self {
        Self {
            world: Arc::clone(loaded.world()),
            plugin,
            loading: Arc::clone(&loaded.loading),
            object: Some(object),
            _loaded: loaded.clone(),
        }
    }

    fn needs(&self, in_requests: bool) -> impl Iterator<Item = &Need> {
        let needed = move |need: &&Need| match in_requests {
            true => need.in_requests,
            false => need.in_responses,
        };
        self.loading.needs.iter().filter(needed)
    }

    fn object(&self) -> &ConfiguredObject {
        self.object
            .as_ref()
            .expect("taken only while it is dropped")
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        let object = self.object.take();
        self.world.enter(&self.plugin, || drop(object));
    }
}

/// How a chain ended.
enum End {
    Passed(Call),
    Stopped(Call, ReplyParts),
    Failed(Call),
}

impl Route {
    pub(super) fn new(gateway: &Gateway) -> Self {
        Self {
            world: Arc::clone(&gateway.world),
            call_budget: gateway.call_budget,
            allow_degradation: false,
            on_request: Vec::new(),
            on_response: Vec::new(),
        }
    }

    /// Adds a plugin to those that see requests, with this configuration: JSON
    /// ([`json!`](super::json)), or the text of a route as it stands.
    ///
    /// # Panics
    /// The plugin refuses the configuration; [`Loaded::refusal`] is for tests that expect it.
    #[must_use]
    #[track_caller]
    pub fn on_request(mut self, plugin: &Loaded, config: impl Display) -> Self {
        self.on_request.push(configured(plugin, &config));
        self
    }

    /// Adds a plugin to those that see responses. Its configuration is one of its own: in a
    /// gateway, too, the two phases of a route do not share one.
    ///
    /// # Panics
    /// The plugin refuses the configuration.
    #[must_use]
    #[track_caller]
    pub fn on_response(mut self, plugin: &Loaded, config: impl Display) -> Self {
        self.on_response.push(configured(plugin, &config));
        self
    }

    /// Requests go on where a plugin fails, without any change of the chain (the route's
    /// `allow_degradation`).
    #[must_use]
    pub fn allow_degradation(mut self) -> Self {
        self.allow_degradation = true;
        self
    }

    /// Takes a request through the plugins: to the upstream, or back to the client.
    pub fn request(&self, request: ClientRequest) -> Outcome {
        let mut outcomes = self.requests([request]);
        outcomes.pop().expect("one request has one outcome")
    }

    /// Takes requests through the plugins that arrive at the same moment. The outcomes stand in
    /// the order of the requests.
    pub fn requests(&self, requests: impl IntoIterator<Item = ClientRequest>) -> Vec<Outcome> {
        let calls = requests
            .into_iter()
            .map(|request| Box::pin(self.before(request)) as run::Running<'_, _>);
        run::together(&self.world, calls)
    }

    /// Takes a response of the upstream through the plugins to the client.
    pub fn response(&self, response: UpstreamResponse) -> Outcome {
        let call = Box::pin(self.after(response)) as run::Running<'_, _>;
        let mut outcomes = run::together(&self.world, [call]);
        outcomes.pop().expect("one response has one outcome")
    }

    /// Takes a request all the way: through the plugins, to an upstream that answers with this
    /// response, and back to the client.
    pub fn exchange(&self, request: ClientRequest, response: UpstreamResponse) -> Outcome {
        let response = response.to(request.clone());
        let mut outcome = self.request(request);
        let Some(upstream) = &outcome.upstream else {
            return outcome;
        };
        let recorded = upstream.response_headers.clone();
        if self.on_response.is_empty() {
            outcome.client = Some(rules::proxied(&response, &recorded));
            return outcome;
        }
        let after = self.response(response);
        outcome.client = after.client;
        if let Some(client) = &mut outcome.client {
            rules::add_recorded(client, &recorded);
        }
        outcome.failures.extend(after.failures);
        outcome.questions.extend(after.questions);
        outcome.took += after.took;
        outcome
    }

    async fn before(&self, request: ClientRequest) -> Outcome {
        let began = self.world.now();
        let call = Call::new(&self.world, Message::Request(request.clone()));
        let mut failures = Vec::new();
        let end = self.run(&self.on_request, call, &mut failures).await;
        let (upstream, client, answers) = match end {
            End::Passed(call) => (
                Some(rules::passed(&request, Some(&call))),
                None,
                call.answers,
            ),
            End::Stopped(call, reply) => (None, Some(rules::stopped(&call, &reply)), call.answers),
            End::Failed(call) if self.allow_degradation => {
                (Some(rules::passed(&request, None)), None, call.answers)
            }
            End::Failed(call) => (None, Some(rules::request_failed()), call.answers),
        };
        Outcome {
            upstream,
            client,
            failures,
            questions: answers.asked(),
            took: self.world.now() - began,
        }
    }

    async fn after(&self, response: UpstreamResponse) -> Outcome {
        let began = self.world.now();
        let call = Call::new(&self.world, Message::Response(response.clone()));
        let mut failures = Vec::new();
        let end = self.run(&self.on_response, call, &mut failures).await;
        let (client, answers) = match end {
            End::Passed(call) | End::Stopped(call, _) => {
                (rules::responded(&response, &call), call.answers)
            }
            End::Failed(call) => (rules::response_failed(), call.answers),
        };
        Outcome {
            upstream: None,
            client: Some(client),
            failures,
            questions: answers.asked(),
            took: self.world.now() - began,
        }
    }

    /// Runs a chain in order, as the host does.
    async fn run(
        &self,
        chain: &[Arc<Configured>],
        mut call: Call,
        failures: &mut Vec<Failed>,
    ) -> End {
        let budget_ends = self.world.now().saturating_add(self.call_budget);
        for link in chain {
            let began = self.world.now();
            let deadline = match link.loading.timeout {
                Some(timeout) => budget_ends.min(began.saturating_add(timeout)),
                None => budget_ends,
            };
            call.deadline = deadline;
            call.misuse = None;
            let in_requests = matches!(*call.message, Message::Request(_));
            for need in link.needs(in_requests) {
                call.ask_gateway(&need.asked);
            }
            let before = call.clone();
            let ended = one(link, in_requests, call, deadline).await;
            let reason = match ended {
                Some((Some(returned), Verdict::Continue)) => match &returned.misuse {
                    None => {
                        call = returned;
                        continue;
                    }
                    Some(misuse) => misuse.to_string(),
                },
                Some((Some(returned), Verdict::Stop(reply))) => {
                    let misuse = returned.misuse.clone();
                    match misuse.or_else(|| call::check_reply(&reply)) {
                        None => return End::Stopped(returned, reply),
                        Some(misuse) => misuse.to_string(),
                    }
                }
                Some((_, Verdict::Failed(failure))) if failure.panicked => failure.to_string(),
                Some((_, Verdict::Failed(failure))) => format!("failed: {failure}"),
                Some((None, _)) => "did not give the call back".to_owned(),
                None => format!(
                    "had not answered after {} ms",
                    (deadline - began).as_millis()
                ),
            };
            failures.push(Failed {
                plugin: link.plugin.to_string(),
                reason,
                skipped: link.loading.open,
            });
            call = before;
            if !link.loading.open {
                return End::Failed(call);
            }
        }
        call.leave_values();
        End::Passed(call)
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |chain: &[Arc<Configured>]| {
            let names = chain.iter().map(|link| link.plugin.to_string());
            names.collect::<Vec<_>>()
        };
        f.debug_struct("Route")
            .field("on_request", &names(&self.on_request))
            .field("on_response", &names(&self.on_response))
            .finish_non_exhaustive()
    }
}

#[track_caller]
fn configured(plugin: &Loaded, config: &impl Display) -> Arc<Configured> {
    match plugin.configure(&config.to_string()) {
        Ok(configured) => Arc::new(configured),
        Err(reason) => panic!("{plugin:?} refuses the configuration {config}: {reason}"),
    }
}

/// Runs one plugin of a chain; none where its time is up.
async fn one(
    link: &Configured,
    in_requests: bool,
    call: Call,
    deadline: Duration,
) -> Option<(Option<Call>, Verdict)> {
    let begun = link.world.enter(&link.plugin, || match in_requests {
        true => link.object().request(call.into_object()),
        false => link.object().response(call.into_object()),
    });
    let abi::Outcome { call, verdict } =
        bounded(&link.world, &link.plugin, begun, deadline).await?;
    let call = call.into_option().and_then(Call::from_object);
    Some((call, verdict))
}

/// A future of a plugin's, polled and dropped in its world.
struct InWorld<'a, T> {
    world: &'a Arc<World>,
    plugin: &'a Arc<str>,
    future: Option<FfiFuture<T>>,
}

impl<T> Drop for InWorld<'_, T> {
    fn drop(&mut self) {
        let future = self.future.take();
        self.world.enter(self.plugin, || drop(future));
    }
}

/// Waits for a future of a plugin's until a time; none where that comes first.
pub(super) async fn bounded<T>(
    world: &Arc<World>,
    plugin: &Arc<str>,
    future: FfiFuture<T>,
    deadline: Duration,
) -> Option<T> {
    let mut time_is_up = pin!(world.until(deadline));
    let mut in_world = InWorld {
        world,
        plugin,
        future: Some(future),
    };
    std::future::poll_fn(|context| {
        let future = in_world.future.as_mut().expect("taken only in its drop");
        let polled = world.enter(plugin, || std::pin::Pin::new(future).poll(context));
        match polled {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending => time_is_up.as_mut().poll(context).map(|()| None),
        }
    })
    .await
}
