//! Why the manager could not do what it was asked for, and whose fault that is.

use std::path::PathBuf;

use crate::{
    http_services::table::{RouteTaken, RoutesTaken},
    plugin::{
        library::LibraryError,
        metadata::PluginName,
        permissions::OpenToOthers,
        private_copy::CopyError,
        registry::{Missing, RefusedConfiguration},
        rehearsal::RehearsalError,
        schema::Violations,
        signature::Refused,
    },
    tokens::compile::RefusedRoute,
};

/// Live configurations named in the error of an upgrade that they prevent, at most.
const MAX_VETOES_SHOWN: usize = 5;

/// A plugin could not be loaded. Traffic is as it was.
#[derive(Debug, thiserror::Error)]
#[error("plugin {plugin} {version} ({}) was not loaded: {cause}", library.display())]
pub struct LoadError {
    /// Its name.
    pub plugin: PluginName,
    /// The version that was to be loaded.
    pub version: semver::Version,
    /// The operator's file.
    pub library: PathBuf,
    /// Why not.
    #[source]
    pub cause: LoadErrorCause,
}

impl LoadError {
    /// Whether it is only an operator who keeps it from loading.
    pub fn is_disabled(&self) -> bool {
        matches!(self.cause, LoadErrorCause::Disabled(_))
    }

    /// Its HTTP routes that are other plugins'.
    pub(super) fn routes_taken(&self) -> &[RouteTaken] {
        match &self.cause {
            LoadErrorCause::RoutesTaken(RoutesTaken(taken)) => taken,
            _ => &[],
        }
    }

    /// Whether it was known before anything was tried: it is disabled, or in quarantine.
    pub fn is_kept_out(&self) -> bool {
        let quarantined = matches!(self.cause, LoadErrorCause::Quarantined(_));
        quarantined || self.is_disabled()
    }
}

/// Why a plugin could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadErrorCause {
    /// Somebody else could change its files: the operator's fault.
    #[error(transparent)]
    Permissions(#[from] OpenToOthers),
    /// Nobody whom the operator trusts vouches for it.
    #[error("{} ({})", .0, .0.next_step())]
    Signature(#[from] Refused),
    /// The operator's settings for it cannot be used: the operator's fault.
    #[error("its settings cannot be used: {0}")]
    Settings(String),
    /// The operator's settings do not fit its schema: the operator's fault.
    #[error("its settings do not fit its `settings_schema`: {0}")]
    SettingsSchema(Violations),
    /// It failed where that costs nothing: the plugin's fault.
    #[error("the rehearsal in a throw-away process failed: {0}")]
    Rehearsal(#[from] RehearsalError),
    /// There is no place for a copy: the machine's fault.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The thread that loaded it ended: the host's fault.
    #[error("the host gave up on it: {0}")]
    Ended(String),
    /// The library or the plugin in it refuses: the plugin's fault.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// It took too long to parse the live configurations: the plugin's fault.
    #[error("it had not parsed the live configurations after {0} s")]
    SlowConfiguration(u64),
    /// Worker processes have died in this very build: the plugin's fault.
    #[error("{}", quarantined(.0))]
    Quarantined(PluginName),
    /// An operator has taken the plugin out of service.
    #[error("an operator has disabled it: `plugin-host enable {0}` lets it serve")]
    Disabled(PluginName),
    /// Other plugins serve some of its HTTP routes: the operator's to settle.
    #[error(transparent)]
    RoutesTaken(#[from] RoutesTaken),
    /// Configurations that work now would not with it: the operator decides.
    #[error("{}", vetoed(.0))]
    Vetoed(Vec<RefusedRoute>),
}

fn quarantined(name: &PluginName) -> String {
    format!(
        "it is in quarantine, because worker processes have died in it, or an operator said so: put another build there, \
         or let it try again with `plugin-host lift {name}`"
    )
}

fn vetoed(routes: &[RefusedRoute]) -> String {
    let mut shown: Vec<String> = routes
        .iter()
        .take(MAX_VETOES_SHOWN)
        .map(ToString::to_string)
        .collect();
    if routes.len() > MAX_VETOES_SHOWN {
        shown.push(format!("and {} more", routes.len() - MAX_VETOES_SHOWN));
    }
    format!(
        "it refuses configurations that work now; mend the routes, or force it with \
         `plugin-host reload --force`: {}",
        shown.join("; ")
    )
}

/// A plugin could not be called.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nothing that is loaded answers to the name.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// It refuses the configuration.
    #[error(transparent)]
    Configuration(#[from] RefusedConfiguration),
}

/// A plugin could not be rolled back. Traffic is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    /// No plugin has that name: the operator's fault.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// Nothing served before: there is nothing to go back to.
    #[error("plugin `{0}` has no earlier version that this host has served")]
    NothingBefore(String),
    /// Several versions stand side by side.
    #[error("plugin `{name}` has several versions ({versions}): say which, like `{name}@=VERSION`")]
    Several {
        /// The plugin.
        name: String,
        /// Its versions.
        versions: String,
    },
    /// An operator has taken it out of service.
    #[error("plugin `{0}` is disabled: `plugin-host enable {0}` first")]
    Disabled(String),
    /// The copy is gone or damaged: the machine's fault.
    #[error("the copy of the earlier version cannot be read: {0}")]
    Copy(String),
    /// It does not load any more.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// No plugin of that name is disabled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not disabled")]
pub struct NotDisabled(pub String);

/// No quarantine was lifted: none holds for a plugin of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no version of `{0}` is in quarantine")]
pub struct NotQuarantined(pub String);
