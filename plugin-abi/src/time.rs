//! Waiting without holding a thread: the host keeps the time.

use std::time::Duration;

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
