//! The gateway of a test, and the plugins that it has loaded.

use std::{
    fmt::{self, Display},
    sync::Arc,
    time::Duration,
};

use super::{
    loading::Loading,
    route::{Configured, Route},
    run,
    world::{Logged, Services, World},
};
use crate::{
    Plugin,
    abi::{FfiFuture, LoadArguments, PluginObject, RSlice},
    export,
};

/// Time for one call, as the host's default.
const CALL_BUDGET: Duration = Duration::from_secs(10);

/// A gateway and its host, in the test's own process, with a clock of their own.
///
/// Each test makes its own; what is loaded into one does not see the others, on whatever threads
/// the tests run. Time stands still but for what the test lets pass ([`Gateway::advance`]) and what
/// plugins wait for ([`time::sleep`](crate::time::sleep)), which takes no time of the test's.
#[derive(Clone)]
pub struct Gateway {
    pub(super) world: Arc<World>,
    pub(super) call_budget: Duration,
}

impl Default for Gateway {
    fn default() -> Self {
        Self::new()
    }
}

impl Gateway {
    /// A gateway without plugins.
    pub fn new() -> Self {
        Self {
            world: World::new(),
            call_budget: CALL_BUDGET,
        }
    }

    /// Bounds one call, questions and waiting included; 10 s if nothing is said (`--call-budget`).
    /// Routes that are made afterwards have it.
    #[must_use]
    pub fn call_budget(mut self, budget: Duration) -> Self {
        self.call_budget = budget;
        self
    }

    /// Loads a plugin as a library without `plugin.json`, under the name of its type.
    ///
    /// # Panics
    /// It does not load; the message has its error.
    #[track_caller]
    pub fn load<P: Plugin>(&self) -> Loaded {
        let name = std::any::type_name::<P>();
        let name = name.rsplit("::").next().unwrap_or(name);
        self.load_with::<P>(Loading::new(name))
    }

    /// Loads a plugin with what its `plugin.json` and the operator say.
    ///
    /// # Panics
    /// It does not load; the message has its error.
    #[track_caller]
    pub fn load_with<P: Plugin>(&self, loading: Loading) -> Loaded {
        let name = loading.name.clone();
        match self.try_load::<P>(loading) {
            Ok(loaded) => loaded,
            Err(reason) => panic!("{name} does not load: {reason}"),
        }
    }

    /// The same where a test expects a plugin not to load.
    ///
    /// # Errors
    /// Why its `on_load`, or its constructor, has failed.
    pub fn try_load<P: Plugin>(&self, loading: Loading) -> Result<Loaded, String> {
        export::tell_panics_of_tests();
        let name: Arc<str> = loading.name.as_str().into();
        let create = export::module::<P, ()>().create();
        let arguments = LoadArguments {
            name: loading.name.as_str().into(),
            version: loading.version.as_str().into(),
            settings: loading.settings.to_string().into_bytes().into(),
        };
        let created = create(Services::as_host(), arguments);
        let created = self.finish(&name, created);
        match created.map(crate::abi::RResult::into_result) {
            Some(Ok(object)) => Ok(Loaded {
                plugin: Arc::new(Held {
                    world: Arc::clone(&self.world),
                    name,
                    object: Some(object),
                }),
                loading: Arc::new(loading),
                gateway: self.clone(),
            }),
            Some(Err(failure)) => {
                self.world.end_tasks(&name);
                Err(failure.to_string())
            }
            None => Err(format!(
                "on_load had not ended after {} s",
                CALL_BUDGET.as_secs()
            )),
        }
    }

    /// A route without plugins, to which they are added.
    pub fn route(&self) -> Route {
        Route::new(self)
    }

    /// Lets time pass between calls; background tasks go on meanwhile.
    pub fn advance(&self, time: Duration) {
        let until = self.world.now().saturating_add(time);
        self.world.poll_tasks();
        while let (Some(next), _) = self.world.timers()
            && next < until
        {
            self.world.pass_to(next);
        }
        self.world.pass_to(until);
    }

    /// What plugins have logged so far, at every level.
    pub fn log(&self) -> Vec<Logged> {
        self.world.log()
    }

    /// Runs something of a plugin's that is no call; none where it does not end.
    fn finish<T>(&self, plugin: &Arc<str>, future: FfiFuture<T>) -> Option<T> {
        let deadline = self.world.now().saturating_add(CALL_BUDGET);
        let bounded = super::route::bounded(&self.world, plugin, future, deadline);
        run::together(&self.world, [Box::pin(bounded) as _])
            .pop()
            .flatten()
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("now", &self.world.now())
            .field("log", &self.world.log())
            .finish_non_exhaustive()
    }
}

/// A plugin that a gateway has loaded.
#[derive(Clone)]
pub struct Loaded {
    plugin: Arc<Held>,
    pub(super) loading: Arc<Loading>,
    gateway: Gateway,
}

/// The plugin, dropped in its world.
struct Held {
    world: Arc<World>,
    name: Arc<str>,
    object: Option<PluginObject>,
}

impl Held {
    fn object(&self) -> &PluginObject {
        self.object
            .as_ref()
            .expect("taken only while it is dropped")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let object = self.object.take();
        self.world.end_tasks(&self.name);
        self.world.enter(&self.name, || drop(object));
    }
}

impl Loaded {
    /// A route that has this plugin and no other, in both phases, with this configuration: JSON
    /// ([`json!`](super::json)), or the text of a route as it stands.
    ///
    /// # Panics
    /// The plugin refuses the configuration; the message has its error.
    #[track_caller]
    pub fn route(&self, config: impl Display) -> Route {
        let config = config.to_string();
        Route::new(&self.gateway)
            .on_request(self, &config)
            .on_response(self, &config)
    }

    /// Why the plugin refuses a configuration, with the causes: what the operator of the route
    /// reads.
    ///
    /// # Panics
    /// It takes it.
    #[track_caller]
    pub fn refusal(&self, config: impl Display) -> String {
        let config = config.to_string();
        match self.configure(&config) {
            Err(reason) => reason,
            Ok(_) => panic!("{} takes the configuration {config}", self.plugin.name),
        }
    }

    /// Runs the plugin's `on_unload`, as after its last call.
    ///
    /// # Panics
    /// It does not end.
    #[track_caller]
    pub fn unload(self) {
        let ended = self
            .gateway
            .finish(&self.plugin.name, self.plugin.object().unload());
        assert!(ended.is_some(), "on_unload does not end");
        self.gateway.world.end_tasks(&self.plugin.name);
    }

    /// Has a configuration parsed.
    pub(super) fn configure(&self, config: &str) -> Result<Configured, String> {
        let name = &self.plugin.name;
        let parse = || {
            let raw = RSlice::from_slice(config.as_bytes());
            self.plugin.object().configure(raw).into_result()
        };
        match self.gateway.world.enter(name, parse) {
            Ok(object) => Ok(Configured::new(self, Arc::clone(name), object)),
            Err(failure) => Err(failure.to_string()),
        }
    }

    /// Runs something of the plugin's that is no call of a route; none where it does not end by then.
    pub(super) fn run<T>(
        &self,
        begin: impl FnOnce(&PluginObject) -> FfiFuture<T>,
        deadline: Duration,
    ) -> Option<T> {
        let (world, name) = (&self.gateway.world, &self.plugin.name);
        let begun = world.enter(name, || begin(self.plugin.object()));
        let bounded = super::route::bounded(world, name, begun, deadline);
        run::together(world, [Box::pin(bounded) as _])
            .pop()
            .flatten()
    }

    /// Time for one call.
    pub(super) fn call_budget(&self) -> Duration {
        self.gateway.call_budget
    }

    pub(super) fn world(&self) -> &Arc<World> {
        &self.gateway.world
    }
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.plugin.name, self.loading.version)
    }
}
