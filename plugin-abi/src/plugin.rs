//! The trait that a plugin implements, and what it is told when it is loaded.
//!
//! A plugin's life: constructed with `Default`, [`Plugin::on_load`] once, then
//! [`Plugin::configure`] for each route configuration, the two filters for each call and
//! [`Plugin::execute`] for whatever else is asked for, from any thread and many at once; a configuration is dropped when no route uses it any more, so its `Drop`
//! is where to end what belongs to it. Where another generation follows, what this one wants to leave
//! it is saved ([`Plugin::save_state`]); at the end, after its last call, comes
//! [`Plugin::on_unload`] once.

use std::future::Future;

use anyhow::Result;
use serde::de::DeserializeOwned;

use crate::{
    Action, Configuration, Context, Request, Response, Runtime, State, execute::Unsupported,
};

/// A plugin: one value per loaded library, shared by all routes and all calls.
///
/// Every method but the associated type has a default that does nothing. An error or a panic
/// concerns the call (or the configuration) that it happened in and nothing else: the host answers
/// for the plugin as its failure policy says, and its changes to that call are gone.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a plugin",
    label = "`impl Plugin for {Self}` is missing",
    note = "`export_plugin!` takes the type that implements `plugin_abi::Plugin`"
)]
pub trait Plugin: Default + Send + Sync + 'static {
    /// A route's configuration, parsed. Any `serde` type will do; `()` takes none.
    type Config: Configuration;

    /// What the plugin's code finds around itself. [`Runtime::Tokio`] is for plugins that use
    /// libraries of tokio's ecosystem, and needs the feature `tokio` of this crate.
    const RUNTIME: Runtime = Runtime::Host;

    /// Runs once, before anything else: open what the plugin needs, look at its settings.
    ///
    /// # Errors
    /// An error refuses the load; where an older version runs, it goes on serving.
    fn on_load(&mut self, load: &Load) -> impl Future<Output = Result<()>> + Send {
        let _ = load;
        async { Ok(()) }
    }

    /// Parses a route's configuration, once per route and loaded version, away from the event
    /// loops. By default [`Configuration::parse`]: JSON by `serde`, where nothing at all means `{}`.
    ///
    /// # Errors
    /// An error refuses the configuration: calls of that route fail closed, and the message is in
    /// the host's log.
    fn configure(&self, raw: &[u8]) -> Result<Self::Config> {
        Self::Config::parse(raw)
    }

    /// Sees each request before it goes upstream (`ext-plugin-pre-req`, `ext-plugin-post-req`).
    ///
    /// # Errors
    /// The request is answered as the plugin's failure policy says.
    fn request_filter(
        &self,
        config: &Self::Config,
        request: &mut Request,
    ) -> impl Future<Output = Result<Action>> + Send {
        let _ = (config, request);
        async { Ok(Action::Continue) }
    }

    /// Sees each response before it goes to the client (`ext-plugin-post-resp`).
    ///
    /// # Errors
    /// The response is replaced as the plugin's failure policy says.
    fn response_filter(
        &self,
        config: &Self::Config,
        response: &mut Response,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (config, response);
        async { Ok(()) }
    }

    /// Executes what an operator (`plugin-host exec`), the control interface or an HTTP client asks for:
    /// see [`crate::execute`]. Many may run at once, beside the calls of routes. Since ABI 1.2; an
    /// older host never calls it.
    ///
    /// # Errors
    /// Whoever asked is told; nothing of what was set counts.
    fn execute(&self, context: &mut Context) -> impl Future<Output = Result<()>> + Send {
        let _ = context;
        async { Err(Unsupported.into()) }
    }

    /// What the next generation may know of this one, where the plugin is upgraded, rolled back or
    /// its worker process replaced: a cache that stays warm, say. By default nothing.
    ///
    /// Runs once, when new calls go to the next generation already, and before
    /// [`Plugin::on_unload`]; calls that have begun may still be under way. It runs away from the
    /// event loops and may take up to 2 s. After a crash it has not run: the next generation begins
    /// anew.
    ///
    /// # Errors
    /// An error is logged, and the next generation begins anew.
    fn save_state(&self) -> Result<Option<State>> {
        Ok(None)
    }

    /// Takes what the generation before has saved. Calls run meanwhile, so add to what is there
    /// instead of replacing it. The state may come from any version of the plugin, newer ones
    /// included: [`State::version`] tells.
    ///
    /// # Errors
    /// An error, or a panic, is logged and costs nothing else: the plugin goes on as it began.
    fn restore_state(&self, state: &State) -> Result<()> {
        let _ = state;
        Ok(())
    }

    /// As [`Plugin::save_state`], for one route configuration: a limiter's bucket, say. It goes to
    /// the next generation's value for the same bytes of configuration of the same route.
    ///
    /// # Errors
    /// As for [`Plugin::save_state`].
    fn save_config_state(&self, config: &Self::Config) -> Result<Option<State>> {
        let _ = config;
        Ok(None)
    }

    /// As [`Plugin::restore_state`], for one route configuration.
    ///
    /// # Errors
    /// As for [`Plugin::restore_state`].
    fn restore_config_state(&self, config: &Self::Config, state: &State) -> Result<()> {
        let _ = (config, state);
        Ok(())
    }

    /// Runs once, after the last call of this version has ended. Background tasks still run; those
    /// that are left when it returns are dropped.
    fn on_unload(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// What [`Plugin::on_load`] is told.
#[derive(Debug, Clone)]
pub struct Load {
    name: String,
    version: String,
    settings: serde_json::Value,
}

impl Load {
    /// Puts together what a plugin is told; the host does this, and tests may.
    pub fn new(
        name: impl Into<String>,
        version: impl Into<String>,
        settings: serde_json::Value,
    ) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            settings,
        }
    }

    /// The name that routes use for this plugin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The plugin's version, from its metadata.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The operator's settings for this plugin on this machine, merged over the defaults of its
    /// `plugin.json`, read into a type of the plugin's.
    ///
    /// ```
    /// # use plugin_abi::prelude::*;
    /// #[derive(Deserialize)]
    /// struct Settings { endpoint: String }
    ///
    /// # fn main() -> Result<()> {
    /// let load = Load::new("auth", "1.0.0", serde_json::json!({ "endpoint": "http://auth:8080" }));
    /// let settings: Settings = load.settings()?;
    /// assert_eq!(settings.endpoint, "http://auth:8080");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The settings do not fit the type; the message says where.
    pub fn settings<T: DeserializeOwned>(&self) -> Result<T> {
        Ok(T::deserialize(&self.settings)?)
    }
}
