//! Whether the host is ready, and if not, why: for probes, for the service manager, and for people.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Supervisor;

/// Whether the host is ready to serve what is routed to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Readiness {
    /// Whether it is.
    pub ready: bool,
    /// What it waits for, or misses; empty where it is ready.
    pub reasons: Vec<String>,
}

impl Supervisor {
    /// It listens before there is a supervisor; what is left is a worker that knows what serves, and
    /// what the operator requires.
    pub(super) fn readiness(&self) -> Readiness {
        let mut reasons = Vec::new();
        if self.stopping.is_some() {
            reasons.push("the host is stopping".to_owned());
        }
        let serving = self.serving.and_then(|number| self.workers.get(&number));
        match serving {
            None => reasons.push("no worker serves: one is about to be started".to_owned()),
            Some(worker) => {
                if !worker.condition.scanned {
                    reasons.push("the plugin directory has not been read yet".to_owned());
                }
                reasons.extend(worker.condition.missing.iter().cloned());
            }
        }
        Readiness {
            ready: reasons.is_empty(),
            reasons,
        }
    }

    /// Tells the service manager what is new, where there is one.
    pub(super) fn announce(&mut self) {
        let readiness = self.readiness();
        let is_stopping = self.stopping.is_some();
        let Some(announcer) = &mut self.announcer else {
            return;
        };
        announcer.lives();
        if is_stopping {
            announcer.is_stopping();
        }
        if readiness.ready {
            announcer.is_ready();
            announcer.status("serving".to_owned());
        } else {
            announcer.status(format!("not ready: {}", readiness.reasons.join("; ")));
        }
    }
}
