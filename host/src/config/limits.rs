//! Bounds on what clients and plugins can make the host use.

use std::time::Duration;

use super::{
    ConfigError, MAX_FRAME_BYTES, Origin,
    layers::Layers,
    settings, size,
    value::{self, Written},
    whole,
};

/// Bounds on what clients and plugins can make the host use.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most connections at a time.
    pub max_connections: usize,
    /// Most bytes of data in one frame from the gateway.
    pub max_frame_bytes: usize,
    /// Most questions to the gateway in one call.
    pub max_extra_info_rounds: u32,
    /// Most prepared configurations that are kept.
    pub max_tokens: usize,
    /// Most bytes for frames and bodies of all connections together, beyond 64 KiB of each.
    pub max_body_memory: usize,
    /// Most bytes for frames and bodies of one connection.
    pub max_connection_memory: usize,
    /// Most bytes that the mapped libraries of retired plugins occupy before the worker is replaced.
    pub retired_memory: usize,
    /// Longest time from a frame's first byte to its last.
    pub frame_read_timeout: Duration,
    /// Longest time of one call, questions to the gateway included.
    pub call_budget: Duration,
    /// How long an event loop looks for the next call before it sleeps; zero for not at all.
    pub spin: Duration,
    /// Longest time that a plugin may hold an event loop; zero for ever.
    pub loop_stall_limit: Duration,
    /// Threads of the pool that may be past their time before the worker is replaced; zero for any
    /// number.
    pub stuck_threads: usize,
    /// Longest time that a worker that is to be replaced waits for a quiet moment.
    pub replace_patience: Duration,
    /// Longest time that calls go on after the host was told to stop.
    pub drain_time: Duration,
    /// Deaths of workers within the window that put a plugin into quarantine.
    pub quarantine_crashes: usize,
    /// The window.
    pub quarantine_window: Duration,
}

pub(super) fn read(layers: &mut Layers<'_>, blocking_threads: usize) -> Limits {
    let milliseconds = Duration::from_millis;
    let seconds = Duration::from_secs;
    let limits = Limits {
        max_connections: layers.value(&settings::MAX_CONNECTIONS, whole(1, 1_000_000)),
        max_frame_bytes: layers.value(&settings::MAX_FRAME_BYTES, size(1_024, MAX_FRAME_BYTES)),
        max_extra_info_rounds: layers.value(&settings::MAX_EXTRA_INFO_ROUNDS, whole(1, 10_000)),
        max_tokens: layers.value(&settings::MAX_TOKENS, whole(16, 16_777_216)),
        max_body_memory: layers.value(&settings::MAX_BODY_MEMORY, size(65_536, 1 << 40)),
        max_connection_memory: layers
            .value(&settings::MAX_CONNECTION_MEMORY, size(65_536, 1 << 40)),
        retired_memory: layers.value(&settings::RETIRED_MEMORY, size(0, 1 << 40)),
        frame_read_timeout: layers.value(&settings::FRAME_READ_TIMEOUT, |written| {
            value::duration(written, milliseconds(10)..=seconds(600))
        }),
        call_budget: layers.value(&settings::CALL_BUDGET, |written| {
            value::duration(written, milliseconds(10)..=seconds(60))
        }),
        spin: read_spin(layers),
        loop_stall_limit: layers.value(&settings::LOOP_STALL_LIMIT, |written| {
            value::duration(written, Duration::ZERO..=seconds(60))
        }),
        stuck_threads: read_stuck_threads(layers, blocking_threads),
        replace_patience: layers.value(&settings::REPLACE_PATIENCE, |written| {
            value::duration(written, Duration::ZERO..=seconds(3_600))
        }),
        drain_time: layers.value(&settings::DRAIN_TIME, |written| {
            value::duration(written, Duration::ZERO..=seconds(60))
        }),
        quarantine_crashes: layers.value(&settings::QUARANTINE_CRASHES, whole(1, 1_000)),
        quarantine_window: layers.value(&settings::QUARANTINE_WINDOW, |written| {
            value::duration(written, seconds(1)..=seconds(24 * 3_600))
        }),
    };
    for (setting, memory) in [
        (&settings::MAX_BODY_MEMORY, limits.max_body_memory),
        (
            &settings::MAX_CONNECTION_MEMORY,
            limits.max_connection_memory,
        ),
    ] {
        if memory < limits.max_frame_bytes {
            layers.problems.push(ConfigError::Contradiction {
                first: setting.key,
                second: settings::MAX_FRAME_BYTES.key,
                reason: format!(
                    "{memory} bytes of memory cannot hold one frame of {} bytes",
                    limits.max_frame_bytes
                ),
            });
        }
    }
    if limits.stuck_threads > blocking_threads {
        layers.problems.push(ConfigError::Contradiction {
            first: settings::STUCK_THREADS.key,
            second: settings::BLOCKING_THREADS.key,
            reason: format!(
                "of {blocking_threads} threads, {} are never stuck",
                limits.stuck_threads
            ),
        });
    }
    limits
}

/// On a single core, whoever would send the next call waits for this one to be done.
fn read_spin(layers: &mut Layers<'_>) -> Duration {
    let several_cores = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
    let default = Duration::from_micros(if several_cores { 20 } else { 0 });
    let given = layers.given(&settings::SPIN, None, |written| {
        value::duration(written, Duration::ZERO..=Duration::from_millis(1))
    });
    given.unwrap_or_else(|| {
        let written = Written::Text(format!("{}us", default.as_micros()));
        let effective = &mut layers.effective;
        effective.record(&settings::SPIN, Some(&written), Origin::Default);
        default
    })
}

fn read_stuck_threads(layers: &mut Layers<'_>, blocking_threads: usize) -> usize {
    if let Some(given) = layers.given(&settings::STUCK_THREADS, None, whole(0, 1_024)) {
        return given;
    }
    let half = (blocking_threads / 2).max(1);
    let default = Written::Text(half.to_string());
    layers
        .effective
        .record(&settings::STUCK_THREADS, Some(&default), Origin::Default);
    half
}
