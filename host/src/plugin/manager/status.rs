//! What the manager knows, in a form for operators and scripts.

use std::{
    collections::HashMap,
    path::PathBuf,
    time::{Instant, SystemTime},
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Manager,
    retired::{DrainingGeneration, RetiredCounts},
    service_routes::ServiceRoute,
    slot::Given,
};
use crate::{
    http_services::table::Standing,
    pipeline::pool::PoolUse,
    plugin::{
        disabled::DisabledPlugin,
        kept::Attempt,
        metadata::{Build, PluginName},
        registry::{CallCounts, CallDurations, Generation, LastFailure, Snapshot},
        signature::Signature,
    },
    tokens::{ChainState, compile::Compiler},
};

/// Every plugin, and what serves no more.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// By place.
    pub plugins: Vec<PluginStatus>,
    /// What keeps files of the plugin directory from being tried at all.
    pub problems: Vec<PlaceProblem>,
    /// Builds that worker processes have died in, or that an operator has put aside.
    pub quarantined: Vec<QuarantinedBuild>,
    /// Routes whose chain cannot run, by their keys; the first 64.
    pub closed_routes: Vec<ClosedRoute>,
    /// How many more there are.
    pub more_closed_routes: usize,
    /// Plugins that an operator has taken out of service.
    pub disabled: Vec<DisabledPlugin>,
    /// Generations that serve no more.
    pub retired: RetiredCounts,
    /// Those of them that calls still use.
    pub draining: Vec<DrainingGeneration>,
    /// Threads for plugins that block; absent where a manager alone is asked.
    pub pool: Option<PoolUse>,
}

/// How many routes that cannot run a status shows, at most.
const MAX_CLOSED_SHOWN: usize = 64;

/// A route whose calls fail closed, because a plugin is missing or refuses its configuration.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ClosedRoute {
    /// The gateway's key of the configuration.
    pub route: String,
    /// Which plugin, where in its configuration, and why.
    pub reason: String,
}

/// Something in the plugin directory that is no plugin, or not yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlaceProblem {
    /// The file or directory that it is about.
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// What is wrong, whose it is to mend, and the next step.
    pub problem: String,
    /// What is known of who vouches for it, where that is what is wrong.
    pub signature: Option<SignatureStatus>,
}

/// What is known of who vouches for a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignatureStatus {
    /// What it is worth now.
    pub state: SignatureState,
    /// Number of the key that has made it, as minisign prints it.
    pub key_id: Option<String>,
    /// What the operator calls that key.
    pub signer: Option<String>,
    /// What is signed beside the bytes.
    pub comment: Option<String>,
    /// Until when it counts, in UTC; null where it has no end.
    pub expires: Option<String>,
    /// Why it does not count.
    pub reason: Option<String>,
}

/// What a signature is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SignatureState {
    /// A trusted key has signed these very bytes.
    Signed,
    /// There is none.
    Unsigned,
    /// A trusted key has signed other bytes.
    Modified,
    /// It is garbled, or no trusted key has made it.
    Invalid,
    /// A trusted key has signed these very bytes, for a time that is over.
    Expired,
}

/// A build that is not loaded, because worker processes have died in it or an operator said so.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
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

/// How it stands with one place of the plugin directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PluginState {
    /// It serves its routes.
    Serving,
    /// It is being loaded for the first time: its routes wait.
    Loading,
    /// It did not load, and nothing of it serves: its routes fail closed.
    Failed,
    /// An operator has taken it out of service: its routes fail closed.
    Disabled,
    /// Its build is in quarantine, and nothing serves in its place: its routes fail closed.
    Quarantined,
    /// Its files have gone, or it was unloaded: its routes fail closed.
    Unloaded,
}

/// What one place of the plugin directory has given: one plugin, or one of several versions of it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PluginStatus {
    /// The plugin's directory or library.
    #[schema(value_type = String)]
    pub place: PathBuf,
    /// Its name, where loading anything of it was ever tried.
    pub name: Option<String>,
    /// How it stands.
    pub state: PluginState,
    /// The version that serves, or else the one that was tried last.
    pub version: Option<String>,
    /// The version that serves.
    pub serving: Option<String>,
    /// Since when it serves, in UTC; workers that took over meanwhile have changed nothing.
    pub since: Option<String>,
    /// The library that what serves was read from.
    #[schema(value_type = Option<String>)]
    pub library: Option<PathBuf>,
    /// Digest of the library that serves: SHA-256, in hexadecimal digits.
    pub digest: Option<String>,
    /// Who vouches for what serves; null where the host does not look at signatures.
    pub signature: Option<SignatureStatus>,
    /// Number of the generation that serves, in this worker; log and crash reports name it.
    pub generation: Option<u64>,
    /// What the library that serves was built with.
    pub build: Option<BuildFacts>,
    /// Where the calls of what serves run: `async` on the event loops, `blocking` on the pool.
    pub execution: Option<String>,
    /// What a failure on a call means: `closed` or `open`.
    pub failure_policy: Option<String>,
    /// Why its calls run on the pool although nothing says that it blocks.
    pub found_blocking: Option<FoundBlocking>,
    /// How often what serves has held an event loop up.
    pub stalls: u64,
    /// Live configurations of routes that what serves has parsed.
    pub configurations: u64,
    /// The routes of its HTTP services: of what serves, and those for which the last try was refused.
    pub http_routes: Vec<ServiceRoute>,
    /// What became of the calls of what serves, since it was loaded by this worker.
    pub calls: CallCounts,
    /// How long these calls took; absent where nothing serves.
    pub duration: Option<CallDurations>,
    /// The last call on which what serves has failed.
    pub last_failure: Option<LastFailure>,
    /// The version that a roll-back would go to.
    pub previous: Option<String>,
    /// The version of the last try to load something.
    pub last_tried: Option<String>,
    /// Why that failed, if it did.
    pub last_error: Option<String>,
    /// The tries to load something from here, oldest first; the number is bounded.
    pub history: Vec<Upgrade>,
}

/// What a library says about how it was built.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BuildFacts {
    /// The version of the ABI that it speaks.
    pub abi: String,
    /// The version of the `plugin-abi` crate that it was built with.
    pub plugin_abi: String,
    /// The compiler.
    pub compiler: String,
    /// The target triple.
    pub target: String,
}

/// One try to load something.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Upgrade {
    /// When it ended, in UTC.
    pub at: String,
    /// The version.
    pub version: String,
    /// Digest of its library.
    pub digest: String,
    /// What came of it.
    pub outcome: UpgradeOutcome,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// What came of a try to load something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UpgradeOutcome {
    /// It served from then on.
    Served,
    /// Nothing changed.
    Failed,
}

/// A label that the watchdog has given.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FoundBlocking {
    /// What the plugin did: `asleep` or `computing`.
    pub how: String,
    /// For how long, when it was found out.
    pub milliseconds: u64,
    /// When that was, in UTC.
    pub since: String,
}

impl Manager {
    /// What every place has given, and what is retired. Nothing that is being loaded is waited for.
    pub fn status(&self) -> Status {
        let snapshot = self.registry.current();
        let configurations = self.configurations();
        let standing = self.standing.of(&snapshot);
        let (closed_routes, more_closed_routes) = ClosedRoute::shown_of(&self.compiler);
        let slots = self.slots.lock();
        let plugins = slots
            .iter()
            .map(|(place, slot)| {
                let given = slot.given.lock();
                PluginStatus::of(place.clone(), &given, &snapshot, &standing, &configurations)
            })
            .collect();
        Status {
            plugins,
            problems: Vec::new(),
            closed_routes,
            more_closed_routes,
            quarantined: snapshot
                .quarantined()
                .iter()
                .map(|build| QuarantinedBuild::of(build, &snapshot))
                .collect(),
            disabled: self.disabled().to_vec(),
            retired: self.retired.counts(),
            draining: self.retired.draining(),
            pool: None,
        }
    }

    /// How many live configurations each generation has parsed, by its number.
    fn configurations(&self) -> HashMap<u64, u64> {
        let mut counts = HashMap::new();
        for token in self.compiler.tokens().live() {
            if let ChainState::Ready(chain) = token.chain() {
                for link in &chain.links {
                    let number = link.configured.generation().number();
                    *counts.entry(number).or_default() += 1;
                }
            }
        }
        counts
    }
}

impl ClosedRoute {
    /// The first routes that cannot run, and how many more there are.
    fn shown_of(compiler: &Compiler) -> (Vec<Self>, usize) {
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
    fn of(build: &Build, snapshot: &Snapshot) -> Self {
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
    fn of(
        place: PathBuf,
        given: &Given,
        snapshot: &Snapshot,
        standing: &Standing,
        configurations: &HashMap<u64, u64>,
    ) -> Self {
        let serving = given.serving.as_deref();
        let name = given.name();
        let last = given.last();
        let origin = serving.map(Generation::origin);
        let serving_version = serving.map(|generation| generation.version().to_string());
        let (calls, duration) = serving.map(Generation::calls).unzip();
        let last_tried = last.map(|last| last.version.to_string());
        Self {
            place,
            state: PluginState::of(given, name, snapshot),
            name: name.map(ToString::to_string),
            version: serving_version.clone().or_else(|| last_tried.clone()),
            serving: serving_version,
            since: serving.map(|generation| utc(since(generation, given))),
            library: origin.map(|origin| origin.library_path.clone()),
            digest: origin.map(|origin| origin.digest.to_string()),
            signature: origin
                .and_then(|origin| origin.signature.clone())
                .map(SignatureStatus::now),
            generation: serving.map(Generation::number),
            build: origin.map(|origin| BuildFacts {
                abi: origin.build_info.abi_version.clone(),
                plugin_abi: origin.build_info.abi_crate.clone(),
                compiler: origin.build_info.compiler.clone(),
                target: origin.build_info.target.clone(),
            }),
            execution: serving.map(|generation| generation.execution().to_string()),
            failure_policy: serving.map(|generation| generation.rules().failure_policy.to_string()),
            found_blocking: serving
                .and_then(Generation::labelled_for)
                .map(|stall| FoundBlocking {
                    how: stall.how.to_string(),
                    milliseconds: u64::try_from(stall.after.as_millis()).unwrap_or(u64::MAX),
                    since: utc(stall.found),
                }),
            stalls: serving.map_or(0, Generation::stalls),
            configurations: serving
                .and_then(|generation| configurations.get(&generation.number()).copied())
                .unwrap_or(0),
            http_routes: ServiceRoute::all_of(given, snapshot, standing),
            calls: calls.unwrap_or_default(),
            duration,
            last_failure: serving.and_then(Generation::last_failure),
            previous: given
                .previous
                .as_ref()
                .map(|previous| previous.origin.metadata.version.to_string()),
            last_tried,
            last_error: last.and_then(|last| last.failed.clone()),
            history: given.history.iter().map(Upgrade::of).collect(),
        }
    }
}

impl SignatureStatus {
    /// What it is worth now, which its end may have changed since it was judged.
    pub fn now(signature: Signature) -> Self {
        let signature = signature.at(SystemTime::now());
        let state = match &signature {
            Signature::Unsigned => SignatureState::Unsigned,
            Signature::Signed(_) => SignatureState::Signed,
            Signature::Expired(_) => SignatureState::Expired,
            Signature::Modified(_) => SignatureState::Modified,
            Signature::Invalid { .. } => SignatureState::Invalid,
        };
        let signer = signature.signer();
        let known = signer.map(|signer| signer.key_id.clone());
        let (key_id, reason) = match &signature {
            Signature::Invalid { key_id, reason } => (key_id.clone(), Some(reason.clone())),
            _ => (known, None),
        };
        Self {
            state,
            key_id,
            signer: signer.map(|signer| signer.name.clone()),
            comment: signer.map(|signer| signer.comment.clone()),
            expires: signer.and_then(|signer| signer.expires).map(utc),
            reason,
        }
    }
}

impl PluginState {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Serving,
        Self::Loading,
        Self::Failed,
        Self::Disabled,
        Self::Quarantined,
        Self::Unloaded,
    ];

    /// As scripts, people and metrics see it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Loading => "loading",
            Self::Failed => "failed",
            Self::Disabled => "disabled",
            Self::Quarantined => "quarantined",
            Self::Unloaded => "unloaded",
        }
    }

    fn of(given: &Given, name: Option<&PluginName>, snapshot: &Snapshot) -> Self {
        if given.serving.is_some() {
            return Self::Serving;
        }
        let is_loading = |name| snapshot.loading().any(|loading| loading == name);
        match name {
            Some(name) if snapshot.is_disabled(name) => Self::Disabled,
            Some(name) if is_loading(name) => Self::Loading,
            _ if !given.quarantined.is_empty() => Self::Quarantined,
            _ if given.last().is_some_and(|last| last.failed.is_some()) => Self::Failed,
            _ => Self::Unloaded,
        }
    }
}

impl Upgrade {
    fn of(attempt: &Attempt) -> Self {
        Self {
            at: utc(attempt.at),
            version: attempt.version.to_string(),
            digest: attempt.digest.to_string(),
            outcome: match attempt.failed {
                None => UpgradeOutcome::Served,
                Some(_) => UpgradeOutcome::Failed,
            },
            error: attempt.failed.clone(),
        }
    }
}

/// Since when a generation serves: a worker that took over has loaded it again.
fn since(generation: &Generation, given: &Given) -> SystemTime {
    let began =
        given.history.iter().rev().find(|attempt| {
            attempt.failed.is_none() && attempt.digest == generation.origin().digest
        });
    began.map_or(generation.loaded(), |attempt| attempt.at)
}

/// A time as all of the interface writes it.
pub fn utc(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// A moment of this process's clock as a time.
pub fn utc_of(moment: Instant) -> String {
    utc(SystemTime::now()
        .checked_sub(moment.elapsed())
        .unwrap_or(SystemTime::UNIX_EPOCH))
}
