//! What workers say, and what follows from it at once.

use std::{os::fd::OwnedFd, sync::Arc, time::Instant};

use super::{Given, Phase, Supervisor};
use crate::{
    crash::KilledFor,
    link::{PROTOCOL, Received, ToSupervisor, ToWorker},
};

impl Supervisor {
    pub(super) fn hear(&mut self, number: u32, received: Received<ToSupervisor>) {
        let mut descriptors = received.descriptors.into_iter();
        match received.message {
            ToSupervisor::Hello { protocol, version } => self.welcome(number, protocol, version),
            ToSupervisor::Ready => self.is_ready(number),
            ToSupervisor::Register(passed) => {
                if let Some(socket) = descriptors.next() {
                    self.connections.register(passed, number, socket);
                }
            }
            ToSupervisor::Closed(passed) => self.connections.end(passed),
            ToSupervisor::HandOver(passed) => {
                if let Some(socket) = self.connections.take_back(passed, descriptors.next()) {
                    self.give(Given {
                        passed,
                        socket,
                        bytes: received.payload,
                    });
                }
            }
            ToSupervisor::Journal => {
                if let Some(file) = descriptors.next() {
                    self.keep_journal(number, Arc::new(file));
                }
            }
            ToSupervisor::Absorbed { workers } => {
                // A worker that lives still adds to its own.
                let living = &self.workers;
                self.journals
                    .retain(|(of, _)| living.contains_key(of) || !workers.contains(of));
            }
            ToSupervisor::Loading(generation) => {
                if let Some(worker) = self.workers.get_mut(&number) {
                    worker.generations.push(generation);
                }
            }
            ToSupervisor::Mappings { first, mappings } => {
                if let Some(worker) = self.workers.get_mut(&number) {
                    if first {
                        worker.mappings.clear();
                    }
                    worker.mappings.extend(mappings);
                }
            }
            ToSupervisor::StuckLoop { plugin } => {
                if let Some(worker) = self.workers.get_mut(&number) {
                    worker.kill(KilledFor::StuckLoop { plugin });
                }
            }
            ToSupervisor::States => {
                // Only workers of this release, or later ones, have a predecessor that says so.
                if let Some(file) = descriptors.next()
                    && self.serving != Some(number)
                    && let Some(heir) = self.serving.and_then(|heir| self.workers.get(&heir))
                {
                    let states = vec![Arc::new(file)];
                    heir.child.tell_with(ToWorker::States, Vec::new(), states);
                }
            }
            // What one that only stands by has loaded has been told by the one that serves.
            ToSupervisor::Event(event) if self.is_in_service(number) => self.hooks.tell(*event),
            ToSupervisor::Event(_) => {}
            ToSupervisor::HandOverClient => {
                if let Some(client) = descriptors.next() {
                    self.give_client(Arc::new(client), received.payload);
                }
            }
            ToSupervisor::Unknown => {}
            ToSupervisor::Left => {
                if let Some(worker) = self.workers.get_mut(&number)
                    && matches!(worker.phase, Phase::Leaving(_))
                {
                    worker.phase = Phase::Stopping;
                    worker.child.tell(ToWorker::Stop { successor: true });
                }
            }
            ToSupervisor::Condition(condition) => {
                if let Some(worker) = self.workers.get_mut(&number) {
                    worker.condition = condition;
                }
            }
            ToSupervisor::Wish { reason } => {
                if let Some(worker) = self.workers.get_mut(&number)
                    && worker.wish.is_none()
                {
                    tracing::info!(
                        worker = number,
                        reason,
                        "the worker is replaced at the next quiet moment"
                    );
                    worker.wish = Some(Instant::now());
                }
            }
        }
    }

    /// Whether a worker serves, or did until just now.
    fn is_in_service(&self, number: u32) -> bool {
        let phase = self.workers.get(&number).map(|worker| worker.phase);
        matches!(phase, Some(Phase::Serving | Phase::Leaving(_)))
    }

    /// A worker has a journal, or a new one in place of the one before.
    fn keep_journal(&mut self, of: u32, file: Arc<OwnedFd>) {
        let known = self.journals.iter_mut().find(|(worker, _)| *worker == of);
        // Those who look into the one before have to know; others are told when it matters to them.
        let is_renewed = known.is_some();
        match known {
            Some(known) => known.1 = Arc::clone(&file),
            None => self.journals.push((of, Arc::clone(&file))),
        }
        for (number, worker) in &self.workers {
            if *number == of {
                worker.child.tell(ToWorker::JournalIsKept);
            } else if is_renewed {
                let follow = ToWorker::Follow { worker: of };
                worker
                    .child
                    .tell_with(follow, Vec::new(), vec![Arc::clone(&file)]);
            }
        }
    }

    fn welcome(&mut self, number: u32, protocol: u32, version: String) {
        let Some(worker) = self.workers.get_mut(&number) else {
            return;
        };
        if protocol.abs_diff(PROTOCOL) > 1 {
            tracing::error!(
                worker = number,
                version,
                protocol,
                "a worker of a release that is too far from this one: restart the gateway's host"
            );
            worker.kill(KilledFor::Other);
        }
        worker.version = Some(version);
    }
}
