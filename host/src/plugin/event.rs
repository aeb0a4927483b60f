//! What happens to plugins, told to those who want to hear of it: hooks of operators.
//!
//! Made where it happens, in the worker or in the supervisor. Nothing here decides who hears it.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A plugin serves from a place where nothing has served before.
    Load,
    /// Other files serve in place of what served.
    Upgrade,
    /// Files were tried and refused; what served before serves on.
    Refused,
    /// What served before serves again, by an operator's word.
    Rollback,
    /// The files have gone, and the plugin is out of service.
    Remove,
    /// A worker process has died.
    Crash,
    /// A build is in quarantine from now on.
    Quarantine,
    /// A quarantine has been lifted.
    Lift,
    /// An operator has taken a plugin out of service.
    Disable,
    /// An operator has let it serve again.
    Enable,
}

impl EventKind {
    /// Every kind, in the order of the documentation.
    pub const ALL: [Self; 10] = [
        Self::Load,
        Self::Upgrade,
        Self::Refused,
        Self::Rollback,
        Self::Remove,
        Self::Crash,
        Self::Quarantine,
        Self::Lift,
        Self::Disable,
        Self::Enable,
    ];

    /// Its name, as in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Upgrade => "upgrade",
            Self::Refused => "refused",
            Self::Rollback => "rollback",
            Self::Remove => "remove",
            Self::Crash => "crash",
            Self::Quarantine => "quarantine",
            Self::Lift => "lift",
            Self::Disable => "disable",
            Self::Enable => "enable",
        }
    }
}

/// Something that has happened to a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginEvent {
    /// What.
    pub event: EventKind,
    /// When, in UTC.
    pub at: String,
    /// The plugin; none where nobody knows whose doing a crash was.
    pub plugin: Option<String>,
    /// Its version: the one that serves now, that was refused, or that it is about.
    pub plugin_version: Option<String>,
    /// The SHA-256 of that version's library, in hexadecimal digits.
    pub digest: Option<String>,
    /// The version that served before.
    pub previous: Option<String>,
    /// Why, where there is a reason.
    pub reason: Option<String>,
    /// The operator whose word it was.
    pub by: Option<String>,
}

impl PluginEvent {
    /// An event of this moment, about nothing yet.
    #[must_use]
    pub fn now(event: EventKind) -> Self {
        Self {
            event,
            at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            plugin: None,
            plugin_version: None,
            digest: None,
            previous: None,
            reason: None,
            by: None,
        }
    }

    /// The same about a build of a plugin.
    #[must_use]
    pub fn about(
        mut self,
        plugin: impl ToString,
        version: impl ToString,
        digest: impl ToString,
    ) -> Self {
        self.plugin = Some(plugin.to_string());
        self.plugin_version = Some(version.to_string());
        self.digest = Some(digest.to_string());
        self
    }
}
