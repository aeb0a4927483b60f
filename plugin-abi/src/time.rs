//! Waiting without holding a thread: the host keeps the time.

use std::time::{Duration, Instant};

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
