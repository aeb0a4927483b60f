//! Executes what is asked of a plugin by name, beside the calls of routes: one plugin, a label, values
//! in and out. The one place in which such calls begin, end and are counted.
//!
//! An execution runs as a task of its own, on the runtime that it is given, or on the pool. Whoever
//! asks holds nothing but the answer to come: where they let go of it, or the time is over, what runs is
//! cancelled, has [`WINDING_UP`] to leave things in order, and is dropped then. This never decides which
//! plugin is meant.

pub mod context;
pub mod exchange;

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::FutureExt;
use plugin_abi::abi::{ContextObject, ExecuteFailure, ExecuteFailureKind, RResult, ReplyParts};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, oneshot, watch},
    time::Instant,
};

use self::{
    context::{Executing, Values},
    exchange::Exchange,
};
use super::{FailureReason, Pipeline, PluginFailure};
use crate::{
    metrics::plugin_calls::{Entry, Outcome},
    plugin::{metadata::Execution as Where, registry::Generation},
};

/// Executions of one worker at the same time that operators ask for; further ones are refused.
pub const MAX_EXECUTIONS: usize = 32;

/// The longest time that an execution may be given: less than a worker has that hands over.
pub const LONGEST_TIME: Duration = Duration::from_secs(30);

/// What is left to an execution that nobody waits for any more.
pub const WINDING_UP: Duration = Duration::from_secs(1);

/// What is asked for.
#[derive(Debug, Default)]
pub struct Order {
    /// What is wanted, in words of the plugin's.
    pub label: String,
    /// Values to begin with, each as JSON text.
    pub values: Values,
    /// Time for it; where nothing is said, the plugin's own bound or else the call's budget. Never
    /// more than [`LONGEST_TIME`].
    pub timeout: Option<Duration>,
    /// The HTTP request that asks.
    pub exchange: Option<Exchange>,
}

/// What came of an execution that ended well.
#[derive(Debug)]
pub struct Executed {
    /// The values that the plugin has set, each as JSON text.
    pub values: Values,
    /// What the plugin has answered the HTTP request with, but for an answer that streams.
    pub reply: Option<ReplyParts>,
    /// How long it took.
    pub took: Duration,
}

/// Nothing came of an execution.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// The plugin has no such entry: the asker's mistake.
    #[error(
        "plugin {plugin} {version} has no `execute`: there is nothing in it that could be asked for"
    )]
    Unsupported {
        /// Its name.
        plugin: String,
        /// Its version.
        version: semver::Version,
    },
    /// The plugin failed: its own fault, but for [`FailureReason::NoThread`].
    #[error(transparent)]
    Failed(#[from] PluginFailure),
    /// Too many run already: nobody's fault, or everybody's.
    #[error("{0} executions run already: ask again")]
    Busy(usize),
    /// The worker is ending.
    #[error("the worker is ending: ask again")]
    Ending,
}

/// Executes, within bounds that hold for all of a worker.
#[derive(Debug, Clone)]
pub struct Executor {
    pipeline: Pipeline,
    runtime: Handle,
    max: usize,
    places: Arc<Semaphore>,
    open: Arc<AtomicUsize>,
}

/// An answer to come. Dropping it cancels the execution.
#[derive(Debug)]
#[must_use = "dropping it cancels the execution"]
pub struct Execution(oneshot::Receiver<Result<Executed, ExecuteError>>);

impl Future for Execution {
    type Output = Result<Executed, ExecuteError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // The task that answers is dropped with its runtime only.
        let answer = Pin::new(&mut self.0).poll(context);
        answer.map(|answered| answered.unwrap_or(Err(ExecuteError::Ending)))
    }
}

impl Executor {
    /// An executor whose tasks run on an event loop of this runtime, where plugins do not block.
    pub fn new(pipeline: Pipeline, runtime: Handle) -> Self {
        Self {
            pipeline,
            runtime,
            max: MAX_EXECUTIONS,
            places: Arc::new(Semaphore::new(MAX_EXECUTIONS)),
            open: Arc::default(),
        }
    }

    /// The same with a bound of its own.
    #[must_use]
    pub fn bounded_by(&self, max: usize) -> Self {
        Self {
            max,
            places: Arc::new(Semaphore::new(max)),
            ..self.clone()
        }
    }

    /// Begins an execution.
    pub fn execute(&self, generation: Arc<Generation>, order: Order) -> Execution {
        let (answer, answered) = oneshot::channel();
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let _ = answer.send(Err(ExecuteError::Busy(self.max)));
            return Execution(answered);
        };
        let open = Open::new(&self.open);
        let pipeline = self.pipeline.clone();
        self.runtime.spawn(async move {
            run(&pipeline, generation, order, answer).await;
            drop((place, open));
        });
        Execution(answered)
    }

    /// Counts those that have not ended, also where nobody waits for them any more.
    pub fn open(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.open)
    }
}

/// One execution that has not ended.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(open))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// How an execution has come to its end.
enum Ended {
    Returned(RResult<ContextObject, ExecuteFailure>),
    Deadline,
    NoThread,
    /// Whoever asked has gone.
    Abandoned,
}

type Answer = oneshot::Sender<Result<Executed, ExecuteError>>;

async fn run(pipeline: &Pipeline, generation: Arc<Generation>, order: Order, mut answer: Answer) {
    let began = Instant::now();
    let own = generation.rules().timeout;
    let time = order.timeout.or(own).unwrap_or(pipeline.call_budget);
    let deadline = began + time.min(LONGEST_TIME);
    let (cancel, cancelled) = watch::channel(false);
    let executing = Executing::new(order, deadline, cancelled);
    let begun = tokio::select! {
        biased;
        begun = begin(pipeline, &generation, executing, deadline) => begun.ok_or(Ended::NoThread),
        () = answer.closed() => Err(Ended::Abandoned),
    };
    let mut work = match begun {
        Ok(work) => work,
        Err(ended) => {
            let failed = conclude(pipeline, &generation, began, deadline, ended);
            let _ = answer.send(failed);
            return;
        }
    };
    let ended = tokio::select! {
        biased;
        returned = &mut work => match Instant::now() > deadline {
            // Also from a plugin that kept its thread until then.
            true => Ended::Deadline,
            false => Ended::Returned(returned),
        },
        () = tokio::time::sleep_until(deadline) => Ended::Deadline,
        () = answer.closed() => Ended::Abandoned,
    };
    let still_runs = matches!(ended, Ended::Deadline | Ended::Abandoned);
    let concluded = conclude(pipeline, &generation, began, deadline, ended);
    // Nobody takes it where whoever asked has gone.
    let _ = answer.send(concluded);
    if still_runs {
        cancel.send_replace(true);
        let _ = tokio::time::timeout(WINDING_UP, work).await;
    }
}

/// The plugin at work, wherever that is.
type Work = Pin<Box<dyn Future<Output = RResult<ContextObject, ExecuteFailure>> + Send>>;

/// Lets the plugin begin where it belongs; none where no thread is free in time.
async fn begin(
    pipeline: &Pipeline,
    generation: &Arc<Generation>,
    executing: Executing,
    deadline: Instant,
) -> Option<Work> {
    let context = executing.into_object();
    if generation.execution() == Where::Async {
        return Some(Box::pin(generation.execute(context)));
    }
    let place = pipeline.pool.place(deadline).await?;
    let (plugin, generation) = (format!("{generation:?}"), Arc::clone(generation));
    let running = place.run(plugin, deadline, move || async move {
        // The generation stays in use until it has returned, however late.
        generation.execute(context).await
    });
    Some(Box::pin(running.map(|ended| match ended {
        Ok(returned) => returned,
        Err(failure) => RResult::RErr(ExecuteFailure {
            kind: ExecuteFailureKind::ERROR,
            message: failure.message,
        }),
    })))
}

/// Counts an execution, and says what has come of it.
fn conclude(
    pipeline: &Pipeline,
    generation: &Generation,
    began: Instant,
    deadline: Instant,
    ended: Ended,
) -> Result<Executed, ExecuteError> {
    let took = began.elapsed();
    let reason = match ended {
        Ended::Returned(RResult::ROk(context)) => match Executing::from_object(context) {
            Some(executing) => {
                count(generation, Outcome::Passed, took);
                let (values, reply) = executing.into_set();
                return Ok(Executed {
                    values,
                    reply,
                    took,
                });
            }
            None => FailureReason::KeptCall,
        },
        Ended::Returned(RResult::RErr(failure)) => match failure.kind {
            ExecuteFailureKind::UNSUPPORTED => {
                return Err(ExecuteError::Unsupported {
                    plugin: generation.name().to_string(),
                    version: generation.version().clone(),
                });
            }
            ExecuteFailureKind::PANIC => FailureReason::Panic(failure.message.into()),
            _ => FailureReason::Error(failure.message.into()),
        },
        // Nobody reads the reason.
        Ended::Abandoned => {
            count(generation, Outcome::Abandoned, took);
            return Err(ExecuteError::Ending);
        }
        Ended::Deadline => FailureReason::Deadline(deadline - began),
        Ended::NoThread => FailureReason::no_thread(&pipeline.pool, deadline - began),
    };
    count(generation, reason.outcome(), took);
    let failure = PluginFailure {
        plugin: generation.name().to_string(),
        version: generation.version().clone(),
        reason,
    };
    Err(failure.into())
}

/// Where executions are counted; a plugin that has no such entry was not called.
fn count(generation: &Generation, outcome: Outcome, took: Duration) {
    generation.count_call(Entry::Execute);
    generation.count_end(Entry::Execute, outcome, took);
}
