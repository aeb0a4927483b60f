//! The state of plugins between two workers: what this one leaves when another takes over, and what it
//! takes of the one before.
//!
//! The next worker serves before it gets any of this. What is left is what plugins have when the
//! calls here have ended, or soon after, where some take long.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{Shutdown, Telling, attachment::Told};
use crate::{
    link::{STATES_SINCE, ToSupervisor},
    plugin::{manager::Manager, state},
    server::Shared,
    tokens::Tokens,
};

/// How long the calls of a worker that hands over may go on before its plugins' state is saved.
const CALLS_END_WITHIN: Duration = Duration::from_millis(250);

/// How often it is looked whether they have ended.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(1);

/// How long what the worker before has left waits for chains that are being compiled.
const COMPILED_WITHIN: Duration = Duration::from_secs(5);

/// Whether a worker that hands over has told what its plugins leave.
#[derive(Debug, Clone)]
pub(super) struct Testament {
    /// Whether there is anybody to tell.
    has_heirs: bool,
    is_told: Arc<AtomicBool>,
}

impl Testament {
    /// Of a worker whose supervisor speaks this version.
    pub(super) fn new(protocol: u32) -> Self {
        Self {
            has_heirs: protocol >= STATES_SINCE,
            is_told: Arc::default(),
        }
    }

    /// The worker begins to hand over.
    pub(super) fn is_awaited(&self) {
        self.is_told.store(false, Ordering::Release);
    }

    /// Whether nothing is left to be told.
    pub(super) fn is_told(&self) -> bool {
        !self.has_heirs || self.is_told.load(Ordering::Acquire)
    }
}

/// Tells what plugins leave each time that this worker hands over.
pub(super) async fn leave_states(
    manager: Arc<Manager>,
    shared: Arc<Shared>,
    mut state: watch::Receiver<Shutdown>,
    testament: Testament,
    tell: Telling,
) {
    if !testament.has_heirs {
        return;
    }
    loop {
        if state
            .wait_for(|state| *state == Shutdown::Running)
            .await
            .is_err()
        {
            return;
        }
        match state.wait_for(|state| *state != Shutdown::Running).await {
            Ok(state) if *state == Shutdown::Standby => {}
            // There is nobody to leave anything to.
            _ => return,
        }
        let until = Instant::now() + CALLS_END_WITHIN;
        while shared.connections.load(Ordering::Acquire) > 0 && Instant::now() < until {
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
        let states = manager.save_states().await;
        if !states.is_empty() {
            match state::write(&states) {
                // Nobody listens only where this process is about to end.
                Ok(file) => _ = tell.send(Told::with(ToSupervisor::States, file)),
                Err(error) => {
                    tracing::error!(%error, "the state of plugins does not reach the next worker");
                }
            }
        }
        testament.is_told.store(true, Ordering::Release);
    }
}

/// Gives plugins what they have left in the worker before.
pub(super) async fn take_states(
    manager: Arc<Manager>,
    tokens: Arc<Tokens>,
    mut files: mpsc::UnboundedReceiver<OwnedFd>,
) {
    while let Some(file) = files.recv().await {
        let states = match state::read(file) {
            Ok(states) => states,
            Err(error) => {
                tracing::error!(%error, "what plugins have left in the last worker is lost");
                continue;
            }
        };
        let compiled = async {
            for token in tokens.live() {
                token.compiled_in_turn().await;
            }
        };
        // What takes longer begins anew.
        let _ = tokio::time::timeout(COMPILED_WITHIN, compiled).await;
        manager.restore_states(states).await;
    }
}
