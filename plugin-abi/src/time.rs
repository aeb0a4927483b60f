//! Waiting without holding a thread: the host keeps the time.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

use crate::export::host;

/// Waits without holding a thread. The host may stop waiting for the plugin before:
/// see [`crate::Request::time_left`].
///
/// # Panics
/// Outside a running `plugin-host`, where nobody keeps the time.
pub async fn sleep(duration: Duration) {
    let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    host()
        .expect("only a plugin that plugin-host has loaded can sleep")
        .sleep(nanoseconds)
        .await;
}

/// The time, for measuring how much of it has passed. In a plugin's tests it is the test's
/// ([`Gateway::advance`](crate::testing::Gateway::advance)), where [`Instant::now`] goes on by itself.
///
/// ```
/// use plugin_abi::prelude::*;
///
/// let began = time::now();
/// assert!(time::now() >= began);
/// ```
pub fn now() -> Instant {
    #[cfg(feature = "testing")]
    if let Some(now) = crate::testing::now() {
        return now;
    }
    Instant::now()
}

/// Something took longer than [`timeout`] was told to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed(Duration);

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it had not ended after {:?}", self.0)
    }
}

impl std::error::Error for Elapsed {}

/// Waits for a future, but only so long; then it is dropped at the `.await` it stands at. One that
/// is ready at once costs no timer.
///
/// ```
/// use plugin_abi::prelude::*;
/// use std::time::Duration;
///
/// /// The consumer, unless the gateway takes long to say who that is.
/// async fn consumer(request: &Request) -> Result<Option<&[u8]>> {
///     let asked = request.var("consumer_name");
///     match time::timeout(Duration::from_millis(50), asked).await {
///         Ok(answer) => Ok(answer?),
///         Err(time::Elapsed { .. }) => Ok(None),
///     }
/// }
/// ```
///
/// # Errors
/// The time is over.
///
/// # Panics
/// As [`sleep`] does, once it has to wait.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let mut sleep = pin!(sleep(duration));
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        let time_is_up = sleep.as_mut().poll(context);
        time_is_up.map(|()| Err(Elapsed(duration)))
    })
    .await
}

/// Ticks again and again, for a [background task](crate::task).
#[derive(Debug)]
pub struct Interval {
    period: Duration,
    last: Option<Instant>,
}

/// An interval between ticks; the first tick comes at once.
///
/// ```
/// use plugin_abi::prelude::*;
/// use std::time::Duration;
///
/// async fn every_second(work: impl Fn()) {
///     let mut interval = time::interval(Duration::from_secs(1));
///     loop {
///         interval.tick().await;
///         work();
///     }
/// }
/// ```
pub fn interval(period: Duration) -> Interval {
    Interval { period, last: None }
}

impl Interval {
    /// Waits for the next tick: a period after the last one, whatever was done since. Ticks that
    /// were missed do not come in a burst.
    ///
    /// # Panics
    /// As [`sleep`] does.
    pub async fn tick(&mut self) {
        if let Some(last) = self.last {
            let since = now().saturating_duration_since(last);
            sleep(self.period.saturating_sub(since)).await;
        }
        self.last = Some(now());
    }
}
