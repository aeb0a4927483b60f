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
pub mod execute;
pub mod fields;
pub mod gateway;
pub mod pool;
pub mod questions;
pub mod values;

mod drive;

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::FutureExt;
use tokio::time::Instant;

use plugin_abi::abi::{Failure, FfiFuture, Outcome, ROption, ReplyParts, Verdict};

use self::{
    bill::NoRoom,
    call::{Call, CallBox, Misuse, Phase},
    chain::{Chain, Link},
    drive::{Ended, ask, drive, verdict},
    gateway::Gateway,
    pool::Pool,
    questions::{Question, Questions},
};
use crate::{
    current_call::{CurrentCall, InCall},
    metrics::plugin_calls::{Entry, Outcome as PartOutcome},
    plugin::{
        metadata::{Execution, FailurePolicy},
        registry::{Configured, Generation},
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
    fn no_thread(pool: &Pool, waited: Duration) -> Self {
        let pool = pool.in_use();
        Self::NoThread {
            waited,
            threads: pool.threads,
            stuck: pool.stuck,
        }
    }

    fn outcome(&self) -> PartOutcome {
        match self {
            Self::Error(_) => PartOutcome::Error,
            Self::Panic(_) => PartOutcome::Panic,
            Self::Deadline(_) => PartOutcome::Deadline,
            Self::NoThread { .. } => PartOutcome::NoThread,
            Self::Misuse(_) | Self::KeptCall => PartOutcome::Misuse,
            Self::NoRoom(_) => PartOutcome::NoRoom,
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

/// Who hears what becomes of the plugins of a chain.
pub trait Observer {
    /// A plugin failed whose policy is `open`: the chain goes on without it.
    fn skipped(&mut self, failure: &PluginFailure);

    /// A plugin's part has ended, after so long without what it waited for the gateway.
    fn part_ended(&mut self, _generation: &Generation, _outcome: PartOutcome, _took: Duration) {}
}

impl<F: FnMut(&PluginFailure)> Observer for F {
    fn skipped(&mut self, failure: &PluginFailure) {
        self(failure);
    }
}

/// How far a chain has come without waiting.
pub enum Progress {
    /// To its end.
    Ended(End),
    /// To something that has to be waited for.
    Waits(Run),
}

/// A chain that waits: for a plugin, for what a plugin needs, or for a thread to run it on.
pub struct Run {
    chain: Arc<Chain>,
    course: Course,
    waiting: Waiting,
}

/// What a chain waits for.
enum Waiting {
    /// Whatever a link wants before it can begin.
    Link(CallBox),
    /// A plugin that has begun.
    Plugin(Working),
}

/// Where a chain is.
struct Course {
    entry: Entry,
    /// The link that is at work, or comes next.
    at: usize,
    questions: Arc<Questions>,
    started: Instant,
    /// When the link has begun, and how long the call had waited for the gateway then.
    entered: Instant,
    waited_before: Duration,
    /// When the link's time has begun, and when it is up.
    began: Instant,
    deadline: Instant,
    /// The call as it was before a link that may be skipped: that must leave no trace, and one that runs
    /// late keeps its call.
    before: Option<CallBox>,
}

/// Runs a chain on a call.
///
/// Where the call does not come back, whatever still asks a question of it is told that it is over; where it
/// does, [`Call::rest`](call::Call::rest) tells that.
pub async fn run<G: Gateway>(
    pipeline: &Pipeline,
    chain: &Arc<Chain>,
    call: CallBox,
    gateway: &mut G,
    started: Instant,
    mut observer: impl Observer,
) -> End {
    let mut call = Some(call);
    let progress = poll_fn(|context| {
        let call = call.take().expect("polled once");
        let observer = &mut observer;
        Poll::Ready(begin(
            pipeline, chain, call, gateway, started, observer, context,
        ))
    });
    match progress.await {
        Progress::Ended(end) => end,
        Progress::Waits(run) => run.finish(pipeline, gateway, observer).await,
    }
}

/// Runs a chain as far as it goes without waiting: most go to their end, and no future is made for them.
/// To be called while the task that will wait is polled, with its context; otherwise as [`run`].
pub fn begin<G: Gateway>(
    pipeline: &Pipeline,
    chain: &Arc<Chain>,
    call: CallBox,
    gateway: &mut G,
    started: Instant,
    observer: &mut impl Observer,
    context: &mut Context<'_>,
) -> Progress {
    let questions = call.questions();
    let mut course = Course {
        entry: Entry::from(call.phase()),
        at: 0,
        started,
        entered: Instant::now(),
        waited_before: questions.waited(),
        questions,
        began: started,
        deadline: started + pipeline.call_budget,
        before: None,
    };
    match course.advance(pipeline, chain, call, gateway, observer, context) {
        Ok(end) => Progress::Ended(end),
        Err(waiting) => Progress::Waits(Run {
            chain: Arc::clone(chain),
            course,
            waiting,
        }),
    }
}

impl Run {
    /// Waits, and runs the chain to its end.
    pub async fn finish<G: Gateway>(
        self,
        pipeline: &Pipeline,
        gateway: &mut G,
        mut observer: impl Observer,
    ) -> End {
        let Self {
            chain,
            mut course,
            mut waiting,
        } = self;
        loop {
            let link = &chain.links[course.at];
            let ended = match waiting {
                Waiting::Link(call) => run_link(pipeline, link, call, &course, gateway).await,
                Waiting::Plugin(future) => {
                    let polled = true;
                    drive(future, polled, &course.questions, gateway, course.deadline).await
                }
            };
            let mut call = match course.judge(pipeline, link, ended, &mut observer) {
                Ok(call) => Some(call),
                Err(end) => return end,
            };
            course.at += 1;
            let advanced = poll_fn(|context| {
                let call = call.take().expect("polled once");
                let observer = &mut observer;
                Poll::Ready(course.advance(pipeline, &chain, call, gateway, observer, context))
            });
            match advanced.await {
                Ok(end) => return end,
                Err(next) => waiting = next,
            }
        }
    }
}

impl Course {
    /// Runs links until the chain ends or one has to wait.
    fn advance<G: Gateway>(
        &mut self,
        pipeline: &Pipeline,
        chain: &Chain,
        mut call: CallBox,
        gateway: &mut G,
        observer: &mut impl Observer,
        context: &mut Context<'_>,
    ) -> Result<End, Waiting> {
        while let Some(link) = chain.links.get(self.at) {
            self.begin_link(pipeline, link, &mut call, gateway);
            if link.configured.generation().execution() == Execution::Blocking
                || first_need(link, &call, &self.questions).is_some()
            {
                return Err(Waiting::Link(call));
            }
            let mut future = begin_plugin(&link.configured, call.phase(), call);
            let ended = match Pin::new(&mut future).poll(context) {
                Poll::Ready(outcome) => verdict(outcome, self.deadline),
                Poll::Pending => return Err(Waiting::Plugin(future)),
            };
            match self.judge(pipeline, link, ended, observer) {
                Ok(next) => call = next,
                Err(end) => return Ok(end),
            }
            self.at += 1;
        }
        call.leave_values();
        Ok(End::Passed(call))
    }

    fn begin_link<G: Gateway>(
        &mut self,
        pipeline: &Pipeline,
        link: &Link,
        call: &mut CallBox,
        gateway: &mut G,
    ) {
        let budget_ends = self.started + pipeline.call_budget;
        (self.began, self.deadline) = match link.timeout {
            Some(timeout) => {
                let now = Instant::now();
                (now, budget_ends.min(now + timeout))
            }
            None => (self.started, budget_ends),
        };
        call.begin_plugin(self.deadline);
        let generation = link.configured.generation();
        generation.count_call(self.entry);
        gateway.passes_to(generation.number());
        self.before = (link.failure_policy == FailurePolicy::Open).then(|| call.clone());
    }

    /// What becomes of the call after a link: it goes on, or the chain has ended.
    fn judge(
        &mut self,
        pipeline: &Pipeline,
        link: &Link,
        ended: Ended,
        observer: &mut impl Observer,
    ) -> Result<CallBox, End> {
        let now = match &ended {
            Ended::Verdict { at, .. } => *at,
            _ => Instant::now(),
        };
        let waited = self.questions.waited();
        let took = (now - self.entered).saturating_sub(waited - self.waited_before);
        (self.entered, self.waited_before) = (now, waited);
        let part = self.part(pipeline, ended);
        let outcome = match &part {
            Ok(Part::Passed(_)) => PartOutcome::Passed,
            Ok(Part::Stopped(..)) => PartOutcome::Stopped,
            Ok(Part::Abandoned) => PartOutcome::Abandoned,
            Err(reason) => reason.outcome(),
        };
        let generation = link.configured.generation();
        generation.count_end(self.entry, outcome, took);
        observer.part_ended(generation, outcome, took);
        let reason = match part {
            Ok(Part::Passed(call)) => return Ok(call),
            Ok(Part::Stopped(call, reply)) => return Err(End::Stopped(call, reply)),
            Ok(Part::Abandoned) => {
                self.questions.end();
                return Err(End::GatewayGone);
            }
            Err(reason) => reason,
        };
        let failure = PluginFailure {
            plugin: generation.name().to_string(),
            version: generation.version().clone(),
            reason,
        };
        match self.before.take() {
            Some(before) => {
                observer.skipped(&failure);
                Ok(before)
            }
            None => {
                self.questions.end();
                Err(End::Failed(failure))
            }
        }
    }

    /// What a plugin has come to, or why that cannot count.
    fn part(&self, pipeline: &Pipeline, ended: Ended) -> Result<Part, FailureReason> {
        let reason = match ended {
            Ended::Verdict {
                verdict: Verdict::Failed(failure),
                ..
            } => match failure.panicked {
                true => FailureReason::Panic(failure.message.into()),
                false => FailureReason::Error(failure.message.into()),
            },
            Ended::Verdict { call: None, .. } => FailureReason::KeptCall,
            Ended::Verdict {
                call: Some(returned),
                verdict: Verdict::Continue,
                ..
            } => match returned.misuse() {
                None => return Ok(Part::Passed(returned)),
                Some(misuse) => misuse.clone().into(),
            },
            Ended::Verdict {
                call: Some(mut returned),
                verdict: Verdict::Stop(reply),
                ..
            } => {
                let misuse = returned.misuse().cloned();
                let misuse = misuse.or_else(|| call::check_reply(&reply));
                match misuse.or_else(|| returned.count_reply(&reply).err()) {
                    None => return Ok(Part::Stopped(returned, reply)),
                    Some(misuse) => misuse.into(),
                }
            }
            Ended::Deadline => FailureReason::Deadline(self.deadline - self.began),
            Ended::NoThread => FailureReason::no_thread(&pipeline.pool, self.deadline - self.began),
            Ended::GatewayGone => return Ok(Part::Abandoned),
        };
        Err(reason)
    }
}

impl From<Phase> for Entry {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Request => Self::Request,
            Phase::Response => Self::Response,
        }
    }
}

/// What a plugin's part of a call has come to.
enum Part {
    Passed(CallBox),
    Stopped(CallBox, ReplyParts),
    Abandoned,
}

/// Something that the gateway has to be asked before a link can begin.
fn first_need<'l>(link: &'l Link, call: &Call, questions: &Questions) -> Option<&'l Question> {
    link.needs(call.phase())
        .iter()
        .find(|question| !questions.answered(question) && call.refusal(question).is_none())
}

/// A plugin at work, for a call that the log can name.
type Working = InCall<HeldFuture<FfiFuture<Outcome>>>;

fn begin_plugin(configured: &Configured, phase: Phase, call: CallBox) -> Working {
    let current = CurrentCall {
        id: call.id(),
        token: call.token(),
    };
    let future = match phase {
        Phase::Request => configured.request(call.into_object()),
        Phase::Response => configured.response(call.into_object()),
    };
    InCall::new(current, future)
}

/// Asks for what a link needs, and runs it where it belongs.
async fn run_link<G: Gateway>(
    pipeline: &Pipeline,
    link: &Link,
    call: CallBox,
    course: &Course,
    gateway: &mut G,
) -> Ended {
    let (questions, deadline) = (&course.questions, course.deadline);
    while let Some(question) = first_need(link, &call, questions) {
        if let Err(ended) = ask(question, questions, gateway, deadline).await {
            return ended;
        }
    }
    let phase = call.phase();
    let generation = link.configured.generation();
    match generation.execution() {
        Execution::Async => {
            let future = begin_plugin(&link.configured, phase, call);
            drive(future, false, questions, gateway, deadline).await
        }
        Execution::Blocking => {
            let Some(place) = pipeline.pool.place(deadline).await else {
                return Ended::NoThread;
            };
            let (plugin, configured) = (format!("{generation:?}"), Arc::clone(&link.configured));
            let future = place.run(plugin, deadline, move || async move {
                // Plugin and configuration stay in use until it has returned, however late.
                begin_plugin(&configured, phase, call).await
            });
            let future = future.map(|ended| ended.unwrap_or_else(failed));
            drive(future, false, questions, gateway, deadline).await
        }
    }
}

/// What a thread has come to that could not run the plugin.
fn failed(failure: Failure) -> Outcome {
    Outcome {
        call: ROption::RNone,
        verdict: Verdict::Failed(failure),
    }
}
