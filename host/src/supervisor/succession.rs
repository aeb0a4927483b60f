//! Which worker serves: how one takes over from another, on purpose or after a death.
//!
//! | who has died | who serves next |
//! |---|---|
//! | the worker that serves, while the one before it still hands over | that one again |
//! | the worker that serves, while a successor starts | the successor, ready or not |
//! | the worker that serves | a new one, at once; after a moment where workers keep dying young |
//! | the worker that serves, beside a standby (`--standby`) | the standby, at once |
//! | a successor | the worker that serves goes on |

use std::{
    fs,
    process::ExitStatus,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{Given, Phase, Successor, Supervisor, Worker, millis};
use crate::{crash::KilledFor, link::ToWorker};

/// Delay before the worker after one that died young, doubled with each further one.
const FIRST_DELAY: Duration = Duration::from_millis(50);

/// The longest such delay.
pub(super) const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// A worker that lived as long did not die of its start.
const YOUNG: Duration = Duration::from_secs(10);

/// How long a worker has to live before a standby is started beside it: one that dies at once takes
/// nobody along.
const STANDBY_AFTER: Duration = Duration::from_secs(1);

/// Deaths of young workers in a row that are not yet answered with a delay.
const DEATHS_WITHOUT_DELAY: u32 = 2;

impl Supervisor {
    pub(super) fn is_ready(&mut self, number: u32) {
        let Some(worker) = self.workers.get_mut(&number) else {
            return;
        };
        worker.is_ready = true;
        if worker.phase == Phase::Starting {
            worker.phase = Phase::Ready;
        }
        tracing::debug!(
            worker = number,
            milliseconds = millis(worker.child.started.elapsed()),
            "a worker is ready"
        );
        match &self.successor {
            Some(successor) if successor.worker == number => self.take_over(),
            _ => {}
        }
    }

    /// The successor serves from now on; its predecessor hands over what it has.
    fn take_over(&mut self) {
        let Some(successor) = self.successor.take() else {
            return;
        };
        let old = self.serving.take();
        if let Some(old) = old
            && let Some(worker) = self.workers.get_mut(&old)
        {
            worker.phase = Phase::Leaving(Instant::now());
            worker.child.tell(ToWorker::Leave);
        }
        self.put_in_service(successor.worker);
        // A token that either gives is used on connections of both.
        if let Some(old) = old {
            self.follow(old, successor.worker);
            self.follow(successor.worker, old);
        }
        self.may_command.send_replace(true);
        self.counts.replacements += 1;
        tracing::info!(
            worker = successor.worker,
            milliseconds = millis(successor.since.elapsed()),
            "another worker has taken over"
        );
        for asked in successor.asked_by {
            let _ = asked.send(Ok(()));
        }
    }

    /// Starts a worker that takes over when it is ready.
    pub(super) fn replace(&mut self, asked: Option<oneshot::Sender<Result<(), String>>>) {
        if let Some(successor) = &mut self.successor {
            successor.asked_by.extend(asked);
            return;
        }
        let started = match (self.serving, self.standby.take()) {
            (Some(_), Some(standby)) => Ok(standby),
            (Some(_), None) => self.start(false).map_err(|error| error.to_string()),
            (None, _) => Err("no worker serves: one is about to be started".to_owned()),
        };
        match started {
            Ok(worker) => {
                // What an operator asks of a worker that is about to go would go with it.
                self.may_command.send_replace(false);
                self.successor = Some(Successor {
                    worker,
                    since: Instant::now(),
                    asked_by: asked.into_iter().collect(),
                });
                let is_ready = |worker: &Worker| worker.phase == Phase::Ready;
                if self.workers.get(&worker).is_some_and(is_ready) {
                    self.take_over();
                }
            }
            Err(error) => {
                tracing::error!(error, "the worker cannot be replaced");
                if let Some(asked) = asked {
                    let _ = asked.send(Err(error));
                }
            }
        }
    }

    pub(super) fn bury(&mut self, number: u32, status: ExitStatus) {
        let Some(worker) = self.workers.remove(&number) else {
            return;
        };
        let left = self.connections.bury(number);
        let lived = worker.child.started.elapsed();
        let was_told = matches!(worker.phase, Phase::Stopping);
        if was_told && (status.success() || worker.killed_for == Some(KilledFor::Other)) {
            let _ = fs::remove_dir_all(&worker.private_dir);
        } else {
            self.judge(number, worker, status, &left);
        }
        if self.serving == Some(number) {
            self.serving = None;
            self.serving_path.send_replace(None);
        }
        if self.standby == Some(number) {
            self.standby = None;
        }
        if self
            .successor
            .as_ref()
            .is_some_and(|successor| successor.worker == number)
        {
            self.successor_failed();
        }
        self.waiting
            .extend(left.alive.into_iter().map(|(passed, socket)| Given {
                passed,
                socket,
                bytes: Vec::new(),
            }));
        if self.stopping.is_some() {
            return;
        }
        if self.serving.is_none() {
            self.find_next(lived);
        }
        for given in std::mem::take(&mut self.waiting) {
            self.give(given);
        }
        // Its tokens are those of whoever serves now, which then need not look elsewhere any more.
        let somebody_leaves = self
            .workers
            .values()
            .any(|worker| matches!(worker.phase, Phase::Leaving(_)));
        if !somebody_leaves && self.successor.is_none() {
            self.tell_serving(ToWorker::FollowNobody);
        }
    }

    /// Has one worker look into the journal of another.
    fn follow(&self, reader: u32, writer: u32) {
        let journal = self.journals.iter().find(|(of, _)| *of == writer);
        if let (Some(worker), Some((_, journal))) = (self.workers.get(&reader), journal) {
            let follow = ToWorker::Follow { worker: writer };
            worker
                .child
                .tell_with(follow, Vec::new(), vec![Arc::clone(journal)]);
        }
    }

    /// Ends workers that do not serve yet: what they began with is no longer true.
    pub(super) fn discard_spares(&mut self) {
        self.standby = None;
        for worker in self.workers.values_mut() {
            if matches!(worker.phase, Phase::Starting | Phase::Ready) {
                worker.phase = Phase::Stopping;
                worker.kill(KilledFor::Other);
            }
        }
        if self.successor.is_some() {
            self.successor_failed();
        }
    }

    /// Starts a standby where one is wanted, and the worker that serves has come to rest.
    pub(super) fn keep_a_standby(&mut self) {
        let is_settled = self.successor.is_none()
            && self.stopping.is_none()
            && self.renewing.is_none()
            && self.workers.len() == 1
            && self.workers.values().all(|worker| {
                worker.phase == Phase::Serving
                    && worker.is_ready
                    && worker.child.started.elapsed() > STANDBY_AFTER
            });
        if !self.config.standby || self.standby.is_some() || !is_settled {
            return;
        }
        match self.start(false) {
            Ok(number) => self.standby = Some(number),
            Err(error) => tracing::error!(%error, "there is no standby"),
        }
    }

    fn successor_failed(&mut self) {
        let Some(successor) = self.successor.take() else {
            return;
        };
        tracing::error!("the worker that was to take over has died; the one before it serves on");
        self.may_command.send_replace(true);
        self.successor_died = Some(Instant::now());
        for asked in successor.asked_by {
            let _ = asked.send(Err(
                "the worker that was to take over has died; the log says why".to_owned(),
            ));
        }
    }

    /// The worker that served has died, after this time. Another one serves as soon as can be.
    fn find_next(&mut self, lived: Duration) {
        let leaving = self
            .workers
            .iter()
            .find(|(_, w)| matches!(w.phase, Phase::Leaving(_)));
        if let Some(number) = leaving.map(|(number, _)| *number) {
            tracing::warn!(worker = number, "the worker before it serves again");
            self.put_in_service(number);
            return;
        }
        if self.successor.is_some() {
            // It was about to take over: it does so now, ready or not.
            self.take_over();
            return;
        }
        if let Some(standby) = self.standby.take() {
            self.put_in_service(standby);
            return;
        }
        self.young_deaths = if lived < YOUNG {
            self.young_deaths + 1
        } else {
            0
        };
        let delay = delay_after(self.young_deaths);
        if delay.is_zero() {
            self.start_serving();
        } else {
            tracing::warn!(
                milliseconds = millis(delay),
                deaths = self.young_deaths,
                "workers die young: waiting before the next one"
            );
            self.start_at = Some(Instant::now() + delay);
        }
    }
}

/// How long the next worker waits after so many that died young.
fn delay_after(young_deaths: u32) -> Duration {
    match young_deaths.checked_sub(DEATHS_WITHOUT_DELAY + 1) {
        None => Duration::ZERO,
        Some(further) => FIRST_DELAY
            .saturating_mul(1 << further.min(10))
            .min(LONGEST_DELAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_that_die_young_are_waited_for_longer_and_longer_up_to_a_bound() {
        let delays: Vec<u128> = [0, 1, 2, 3, 4, 9, 10, 1_000]
            .map(|deaths| delay_after(deaths).as_millis())
            .into();
        assert_eq!(delays, [0, 0, 0, 50, 100, 3_200, 5_000, 5_000]);
    }
}
