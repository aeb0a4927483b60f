//! The runtime that a plugin's code finds around itself: none, or tokio's own, for libraries that
//! need one.
//!
//! The host polls a plugin's futures on its own loop, whatever it was built with. With
//! [`Runtime::Tokio`] the library keeps one runtime, with one thread for timers, sockets and spawned
//! tasks, and **every poll and every drop** of the plugin's code happens inside of it. So
//! `reqwest`, `sqlx`, `redis` and `tokio::time` work in an `async fn` as they do anywhere. It ends,
//! and its threads with it, when the plugin has been unloaded and dropped.
//!
//! It never polls the plugin's own futures: a deadline of the host's stays one, whatever the
//! runtime's thread is busy with.

#[cfg(feature = "tokio")]
mod own;

#[cfg(feature = "tokio")]
pub(crate) use own::{Context, Kept, is_own_thread};

/// What a plugin's code finds around itself; see [`Plugin::RUNTIME`](crate::Plugin::RUNTIME).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// The host's futures alone: [`time::sleep`](crate::time::sleep),
    /// [`HttpClient`](crate::HttpClient) and questions to the gateway. Costs nothing.
    Host,
    /// A tokio runtime of the library's own beside them. Needs the feature `tokio` of this crate;
    /// costs a thread, about 0.1 us for each poll, and a wake-up across threads for each wait.
    Tokio,
}

/// What keeps a plugin that wants a runtime from being built without one.
pub(crate) const fn check(runtime: Runtime) {
    assert!(
        matches!(runtime, Runtime::Host) || cfg!(feature = "tokio"),
        "`RUNTIME` is `Runtime::Tokio`, so plugin-abi needs its \
         feature: `features = [\"tokio\"]` in Cargo.toml"
    );
}

/// Without the feature there is nothing to keep, and nothing to enter.
#[cfg(not(feature = "tokio"))]
mod none {
    use super::Runtime;

    pub(crate) struct Kept;

    #[derive(Clone)]
    pub(crate) struct Context;

    impl Kept {
        #[expect(clippy::unnecessary_wraps, reason = "with the feature it may fail")]
        pub(crate) fn start(_runtime: Runtime, _plugin: &str) -> anyhow::Result<Self> {
            Ok(Self)
        }

        pub(crate) fn context(&self) -> Context {
            Context
        }
    }

    impl Context {
        pub(crate) fn of_caller() -> Self {
            Self
        }

        #[inline(always)]
        pub(crate) fn run<R>(&self, code: impl FnOnce() -> R) -> R {
            code()
        }
    }

    pub(crate) fn is_own_thread() -> bool {
        false
    }
}

#[cfg(not(feature = "tokio"))]
pub(crate) use none::{Context, Kept, is_own_thread};
