//! What a plugin executes on its own account, beside the two phases of a request: asked for by an
//! operator (`plugin-host exec`, the control interface) or by an HTTP client of one of its
//! [services](crate::service).
//!
//! A [`Context`] goes in with a label, which says what is wanted, and values; values that the plugin
//! sets come back. There is no route and no configuration here, and no gateway to be asked.
//!
//! ```
//! use plugin_abi::prelude::*;
//!
//! #[derive(Default)]
//! struct Greeter;
//!
//! impl Plugin for Greeter {
//!     type Config = ();
//!
//!     async fn execute(&self, context: &mut Context) -> Result<()> {
//!         match context.label() {
//!             "greet" => {
//!                 let name: String = context.get("name")?.context("whom? set `name`")?;
//!                 context.set("greeting", &format!("hello {name}"))?;
//!             }
//!             other => bail!("there is nothing labelled `{other}` here"),
//!         }
//!         Ok(())
//!     }
//! }
//!
//! export_plugin!(Greeter);
//! ```

use std::{fmt, time::Duration};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    HttpClient, ValueError,
    abi::{ContextObject, ROption, ValueStatus},
    service::ServiceRequest,
};

/// What is to be executed, and what comes of it: see the [module](self).
pub struct Context {
    pub(crate) context: ContextObject,
}

impl Context {
    pub(crate) fn new(context: ContextObject) -> Self {
        Self { context }
    }

    pub(crate) fn into_object(self) -> ContextObject {
        self.context
    }

    /// What is wanted, in words of the plugin's; empty where nobody said.
    pub fn label(&self) -> &str {
        self.context.label().into()
    }

    /// A value; none where nobody has set it.
    ///
    /// # Errors
    /// What is there does not fit the type.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, ValueError> {
        let value = self.context.value(name.into()).into_option();
        value
            .map(|json| serde_json::from_slice(json.as_slice()))
            .transpose()
            .map_err(ValueError::Json)
    }

    /// Sets a value: it is a part of the answer, and [`Context::get`] gives it from now on.
    ///
    /// # Errors
    /// It cannot be written as JSON, or there would be too many values or bytes of them.
    pub fn set<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), ValueError> {
        let json = serde_json::to_vec(value).map_err(ValueError::Json)?;
        let value = ROption::RSome(json.into());
        match self.context.set_value(name.into(), value) {
            ValueStatus::DONE => Ok(()),
            ValueStatus::FULL => Err(ValueError::Full),
            ValueStatus(code) => Err(ValueError::Other(code)),
        }
    }

    /// Removes a value, also from the answer.
    pub fn remove(&mut self, name: &str) {
        // Removing never finds the context full.
        let _ = self.context.set_value(name.into(), ROption::RNone);
    }

    /// Names of all values.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        (0..self.context.count())
            .map_while(|at| self.context.name_at(at).into_option())
            .map(Into::into)
    }

    /// How long the host goes on waiting. When that time is over, the asker is told so, and what runs
    /// is [cancelled](Context::cancelled).
    pub fn time_left(&self) -> Duration {
        Duration::from_nanos(self.context.nanoseconds_left())
    }

    /// Whether nobody wants the result any more: for work that does not wait.
    pub fn is_cancelled(&self) -> bool {
        self.context.is_cancelled()
    }

    /// Is ready as soon as nobody wants the result any more: the time is over, or whoever asked has
    /// gone. From then on there is a second to leave things in order; what still waits after it is
    /// dropped at the `.await` it stands at. The future is independent of the context.
    ///
    /// ```
    /// use plugin_abi::prelude::*;
    /// use std::{future::poll_fn, pin::pin, task::Poll};
    ///
    /// /// Does its work in steps until there is nothing left, or nobody wants it.
    /// async fn in_steps(context: &Context, mut step: impl AsyncFnMut() -> bool) -> Result<()> {
    ///     while step().await {
    ///         ensure!(!context.is_cancelled(), "cancelled");
    ///     }
    ///     Ok(())
    /// }
    ///
    /// /// Waits for what takes its time, but not beyond the cancellation.
    /// async fn unless_cancelled<T>(context: &Context, work: impl Future<Output = T>) -> Option<T> {
    ///     let (mut work, mut cancelled) = (pin!(work), pin!(context.cancelled()));
    ///     poll_fn(|task| match work.as_mut().poll(task) {
    ///         Poll::Ready(done) => Poll::Ready(Some(done)),
    ///         Poll::Pending => cancelled.as_mut().poll(task).map(|()| None),
    ///     })
    ///     .await
    /// }
    /// ```
    pub fn cancelled(&self) -> impl Future<Output = ()> + Send + use<> {
        self.context.cancelled()
    }

    /// The host's client for other services, which gives up a little before the time is over, as
    /// [`Request::http`](crate::Request::http).
    pub fn http(&self) -> HttpClient {
        HttpClient::within(self.time_left())
    }

    /// The HTTP request that asks; none where somebody else does.
    pub fn request(&self) -> Option<ServiceRequest<'_>> {
        ServiceRequest::of(&self.context)
    }
}

impl fmt::Debug for Context {
    /// No values: they may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("label", &self.label())
            .finish_non_exhaustive()
    }
}

/// What [`Plugin::execute`](crate::Plugin::execute) returns by default: the plugin has nothing that
/// could be executed. The host answers so, and counts no failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsupported;

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the plugin has no `execute`")
    }
}

impl std::error::Error for Unsupported {}
