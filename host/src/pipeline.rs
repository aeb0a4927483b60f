//! Runs a chain of plugins on one request or response: in order, each with the changes of those
//! before it, until one stops the request, fails, or the last one is through.
//!
//! A plugin's changes count only if it ends well and they make sense to the gateway; otherwise they
//! are gone. What its failure means is its policy's decision: `closed` ends the call, `open` goes
//! on as if the plugin were not there.
//!
//! The pipeline never knows sockets or libraries: questions to the gateway go through [`Gateway`],
//! plugins are objects of the ABI.

pub mod bill;
pub mod call;
pub mod chain;
pub mod fields;
pub mod gateway;
pub mod pool;
pub mod questions;

mod drive;

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use plugin_abi::abi::{FfiFuture, Outcome, ReplyParts, Verdict};

use self::{
    bill::NoRoom,
    call::{CallBox, Misuse, Phase},
    chain::{Chain, Link},
    drive::{Ended, ask, drive},
    gateway::Gateway,
    pool::Pool,
    questions::Questions,
};
use crate::{
    plugin::{
        metadata::{Execution, FailurePolicy},
        registry::{Configured, Failing},
    },
    shared_memory::held::HeldFuture,
};

/// What runs blocking plugins, and how long a call may take.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// Runs the plugins that block: those that say so, and those that were found out.
    pub pool: Pool,
    /// Time for one call, questions to the gateway included.
    pub call_budget: Duration,
}

/// How a chain ended.
#[derive(Debug)]
pub enum End {
    /// Every plugin is through; the call holds their changes.
    Passed(CallBox),
    /// A plugin answers the client; the call holds the response headers to add.
    Stopped(CallBox, ReplyParts),
    /// A plugin failed and its policy is `closed`: the call must not go on.
    Failed(PluginFailure),
    /// The gateway is gone; there is nobody to answer.
    GatewayGone,
}

/// A plugin failed on a call.
#[derive(Debug, thiserror::Error)]
#[error("plugin {plugin} {version} {reason}")]
pub struct PluginFailure {
    /// Its name.
    pub plugin: String,
    /// The version that failed.
    pub version: semver::Version,
    /// What it did.
    pub reason: FailureReason,
}

/// Why a plugin failed on a call: its own fault, but for [`FailureReason::NoThread`] and
/// [`FailureReason::NoRoom`], which others may have brought about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FailureReason {
    /// It returned an error.
    #[error("failed: {0}")]
    Error(String),
    /// It panicked.
    #[error("panicked: {0}")]
    Panic(String),
    /// It took longer than it may.
    #[error("had not answered after {} ms, the bound of its `timeout_ms` or of the call's budget", .0.as_millis())]
    Deadline(Duration),
    /// It blocks, and there was no thread to run it on.
    #[error("found no free thread within {} ms: all {threads} of the pool are in use, {stuck} of them by calls past their time (--blocking-threads)", waited.as_millis())]
    NoThread {
        /// How long it waited: its time for the call.
        waited: Duration,
        /// Threads of the pool.
        threads: usize,
        /// Of these, the ones that are inside a plugin past its time.
        stuck: usize,
    },
    /// It asked for something that the gateway cannot deliver.
    #[error("asked for what the gateway cannot do: {0}")]
    Misuse(Misuse),
    /// It wanted more kept than the host keeps.
    #[error("wants more than the host can keep: {0}")]
    NoRoom(NoRoom),
    /// It kept the call instead of giving it back.
    #[error("did not give the call back")]
    KeptCall,
}

impl FailureReason {
    fn failing(&self) -> Failing {
        match self {
            Self::Error(_) => Failing::Error,
            Self::Panic(_) => Failing::Panic,
            Self::Deadline(_) => Failing::Deadline,
            Self::NoThread { .. } => Failing::NoThread,
            Self::Misuse(_) | Self::KeptCall => Failing::Misuse,
            Self::NoRoom(_) => Failing::NoRoom,
        }
    }
}

impl From<Misuse> for FailureReason {
    fn from(misuse: Misuse) -> Self {
        match misuse {
            Misuse::NoRoom(no_room) => Self::NoRoom(no_room),
            misuse => Self::Misuse(misuse),
        }
    }
}

/// Runs a chain on a call.
///
/// Failures of plugins whose policy is `open` go to `on_skipped`; the chain goes on without them. Where
/// the call does not come back, whatever still asks a question of it is told that it is over; where it
/// does, [`Call::rest`](call::Call::rest) tells that.
pub async fn run<G: Gateway>(
    pipeline: &Pipeline,
    chain: &Chain,
    mut call: CallBox,
    gateway: &mut G,
    started: Instant,
    mut on_skipped: impl FnMut(&PluginFailure),
) -> End {
    let budget_ends = started + pipeline.call_budget;
    let questions = call.questions();
    for link in &chain.links {
        let (began, deadline) = match link.timeout {
            Some(timeout) => {
                let now = Instant::now();
                (now, budget_ends.min(now + timeout))
            }
            None => (started, budget_ends),
        };
        call.begin_plugin(deadline);
        let generation = link.configured.generation();
        generation.count_call();
        gateway.passes_to(generation.number());
        // A plugin that is skipped must leave no trace, and one that runs late keeps its call.
        let before = (link.failure_policy == FailurePolicy::Open).then(|| call.clone());
        let reason = match run_one(pipeline, link, call, &questions, gateway, deadline).await {
            Ended::Verdict(Some(returned), Verdict::Continue) => match returned.misuse() {
                None => {
                    call = returned;
                    continue;
                }
                Some(misuse) => misuse.clone().into(),
            },
            Ended::Verdict(Some(mut returned), Verdict::Stop(reply)) => {
                let misuse = returned.misuse().cloned();
                let misuse = misuse.or_else(|| call::check_reply(&reply));
                match misuse.or_else(|| returned.count_reply(&reply).err()) {
                    None => return End::Stopped(returned, reply),
                    Some(misuse) => misuse.into(),
                }
            }
            Ended::Verdict(_, Verdict::Failed(failure)) if failure.panicked => {
                FailureReason::Panic(failure.message.into())
            }
            Ended::Verdict(_, Verdict::Failed(failure)) => {
                FailureReason::Error(failure.message.into())
            }
            Ended::Verdict(None, _) => FailureReason::KeptCall,
            Ended::Deadline => FailureReason::Deadline(deadline - began),
            Ended::NoThread => {
                let pool = pipeline.pool.in_use();
                FailureReason::NoThread {
                    waited: deadline - began,
                    threads: pool.threads,
                    stuck: pool.stuck,
                }
            }
            Ended::GatewayGone => {
                questions.end();
                return End::GatewayGone;
            }
        };
        generation.count_failure(reason.failing());
        let failure = PluginFailure {
            plugin: generation.name().to_string(),
            version: generation.version().clone(),
            reason,
        };
        match before {
            Some(before) => {
                on_skipped(&failure);
                call = before;
            }
            None => {
                questions.end();
                return End::Failed(failure);
            }
        }
    }
    End::Passed(call)
}

fn begin(configured: &Configured, phase: Phase, call: CallBox) -> HeldFuture<FfiFuture<Outcome>> {
    match phase {
        Phase::Request => configured.request(call.into_object()),
        Phase::Response => configured.response(call.into_object()),
    }
}

async fn run_one<G: Gateway>(
    pipeline: &Pipeline,
    link: &Link,
    call: CallBox,
    questions: &Arc<Questions>,
    gateway: &mut G,
    deadline: Instant,
) -> Ended {
    for question in link.needs(call.phase()) {
        if questions.answered(question) || call.refusal(question).is_some() {
            continue;
        }
        if let Err(ended) = ask(question, questions, gateway, deadline).await {
            return ended;
        }
    }
    let phase = call.phase();
    let generation = link.configured.generation();
    match generation.execution() {
        Execution::Async => {
            let future = begin(&link.configured, phase, call);
            drive(future, questions, gateway, deadline).await
        }
        Execution::Blocking => {
            let Some(place) = pipeline.pool.place(deadline).await else {
                return Ended::NoThread;
            };
            let (plugin, configured) = (format!("{generation:?}"), Arc::clone(&link.configured));
            let future = place.run(plugin, deadline, move || async move {
                // Plugin and configuration stay in use until it has returned, however late.
                begin(&configured, phase, call).await
            });
            drive(future, questions, gateway, deadline).await
        }
    }
}
