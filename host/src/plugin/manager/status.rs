//! What the manager knows, in a form for operators and scripts.

use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use super::{retired::RetiredCounts, slot::Given};
use crate::{
    pipeline::pool::PoolUse,
    plugin::{
        metadata::Build,
        registry::{CallCounts, Generation, Snapshot},
    },
    tokens::compile::Compiler,
};

/// Every plugin, and what serves no more.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// By place.
    pub plugins: Vec<PluginStatus>,
    /// Builds that worker processes have died in.
    pub quarantined: Vec<QuarantinedBuild>,
    /// Routes whose chain cannot run, by their keys; the first 64.
    pub closed_routes: Vec<ClosedRoute>,
    /// How many more there are.
    pub more_closed_routes: usize,
    /// Generations that serve no more.
    pub retired: RetiredCounts,
    /// Threads for plugins that block; absent where a manager alone is asked.
    pub pool: Option<PoolUse>,
}

/// How many routes that cannot run a status shows, at most.
const MAX_CLOSED_SHOWN: usize = 64;

/// A route whose calls fail closed, because a plugin is missing or refuses its configuration.
#[derive(Debug, Clone, Serialize)]
pub struct ClosedRoute {
    /// The gateway's key of the configuration.
    pub route: String,
    /// Which plugin, where in its configuration, and why.
    pub reason: String,
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
    /// Where the calls of what serves run: `async` on the event loops, `blocking` on the pool.
    pub execution: Option<String>,
    /// Why its calls run on the pool although nothing says that it blocks.
    pub found_blocking: Option<FoundBlocking>,
    /// How often what serves has held an event loop up.
    pub stalls: u64,
    /// What became of the calls of what serves, since it was loaded by this worker.
    pub calls: CallCounts,
    /// The version that a roll-back would go to.
    pub previous: Option<String>,
    /// The version of the last try to load something.
    pub last_tried: Option<String>,
    /// Why that failed, if it did.
    pub last_error: Option<String>,
}

/// A label that the watchdog has given.
#[derive(Debug, Clone, Serialize)]
pub struct FoundBlocking {
    /// What the plugin did: `asleep` or `computing`.
    pub how: String,
    /// For how long, when it was found out.
    pub milliseconds: u64,
    /// When that was, in seconds since 1970.
    pub since: u64,
}

impl ClosedRoute {
    /// The first routes that cannot run, and how many more there are.
    pub(super) fn shown_of(compiler: &Compiler) -> (Vec<Self>, usize) {
        let refused = compiler.refused();
        let shown = refused.iter().take(MAX_CLOSED_SHOWN);
        let shown = shown.map(|(route, refused)| Self {
            route: route.clone(),
            reason: refused.to_string(),
        });
        (
            shown.collect(),
            refused.len().saturating_sub(MAX_CLOSED_SHOWN),
        )
    }
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
            execution: serving.map(|generation| generation.execution().to_string()),
            found_blocking: serving
                .and_then(Generation::labelled_for)
                .map(|stall| FoundBlocking {
                    how: stall.how.to_string(),
                    milliseconds: u64::try_from(stall.after.as_millis()).unwrap_or(u64::MAX),
                    since: seconds(stall.found),
                }),
            stalls: serving.map_or(0, Generation::stalls),
            calls: serving.map(Generation::call_counts).unwrap_or_default(),
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
