//! What the manager knows, in a form for operators and scripts.

use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use super::{retired::RetiredCounts, slot::Given};
use crate::plugin::{metadata::Build, registry::Snapshot};

/// Every plugin, and what serves no more.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// By place.
    pub plugins: Vec<PluginStatus>,
    /// Builds that worker processes have died in.
    pub quarantined: Vec<QuarantinedBuild>,
    /// Generations that serve no more.
    pub retired: RetiredCounts,
}

/// A build that is not loaded, because worker processes have died in it.
#[derive(Debug, Clone, Serialize)]
pub struct QuarantinedBuild {
    /// The plugin.
    pub name: String,
    /// The version.
    pub version: String,
    /// Digest of its library.
    pub digest: String,
    /// The version of the plugin that serves instead; none where its routes fail closed.
    pub serving_instead: Option<String>,
}

/// What one place of the plugin directory has given.
#[derive(Debug, Clone, Serialize)]
pub struct PluginStatus {
    /// The plugin's directory or library.
    pub place: PathBuf,
    /// Its name, where loading anything of it was ever tried.
    pub name: Option<String>,
    /// The version that serves.
    pub serving: Option<String>,
    /// Digest of the library that serves.
    pub digest: Option<String>,
    /// When what serves was loaded, in seconds since 1970.
    pub since: Option<u64>,
    /// The version that a roll-back would go to.
    pub previous: Option<String>,
    /// The version of the last try to load something.
    pub last_tried: Option<String>,
    /// Why that failed, if it did.
    pub last_error: Option<String>,
}

impl QuarantinedBuild {
    pub(super) fn of(build: &Build, snapshot: &Snapshot) -> Self {
        let mut serving = snapshot.generations();
        Self {
            name: build.name.to_string(),
            version: build.version.to_string(),
            digest: build.digest.to_string(),
            serving_instead: serving
                .find(|generation| *generation.name() == build.name)
                .map(|generation| generation.version().to_string()),
        }
    }
}

impl PluginStatus {
    pub(super) fn of(place: PathBuf, given: &Given) -> Self {
        let serving = given.serving.as_deref();
        Self {
            place,
            name: given
                .origin()
                .map(|origin| &origin.metadata.name)
                .or(given.last.as_ref().map(|last| &last.name))
                .map(ToString::to_string),
            serving: serving.map(|generation| generation.version().to_string()),
            digest: serving.map(|generation| generation.origin().digest.to_string()),
            since: serving.map(|generation| seconds(generation.loaded())),
            previous: given
                .previous
                .as_ref()
                .map(|previous| previous.origin.metadata.version.to_string()),
            last_tried: given.last.as_ref().map(|last| last.version.to_string()),
            last_error: given.last.as_ref().and_then(|last| last.failed.clone()),
        }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
