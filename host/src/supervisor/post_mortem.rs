//! What follows a worker's death: whose doing it was, in the log and in a report, and whether that
//! build of a plugin goes into quarantine. Nobody waits for it who has a call to serve.

use std::{fs, process::ExitStatus, thread, time::Instant};

use super::{Supervisor, Worker, held::Left};
use crate::{
    crash::{self, Autopsy, Blamed, Counted, Culprit, KilledFor, Report},
    plugin::event::{EventKind, PluginEvent},
};

/// Where the reports lie, below the directory of the listen address: they outlive the host.
pub(super) const REPORTS: &str = "crashes";

impl Supervisor {
    /// Judges a death that nobody asked for.
    pub(super) fn judge(&mut self, number: u32, worker: Worker, status: ExitStatus, left: &Left) {
        self.counts.crashes += 1;
        let was_stuck = matches!(worker.killed_for, Some(KilledFor::StuckLoop { .. }));
        self.counts.stuck_loops += u64::from(was_stuck);
        self.counts.calls_lost += left.calls.len() as u64;
        self.counts.connections_cut += left.cut as u64;
        let report = Autopsy {
            pid: worker.child.pid.as_raw_nonzero().get().unsigned_abs(),
            status,
            threads: &worker.child.threads,
            generations: &worker.generations,
            mappings: &worker.mappings,
            open_calls: left.calls.clone(),
            uptime: worker.child.started.elapsed(),
            host_version: worker
                .version
                .clone()
                .unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()),
            killed_for: worker.killed_for,
        }
        .report();
        tracing::error!(
            worker = number,
            %status,
            open_calls = left.calls.len(),
            connections_cut = left.cut,
            connections_saved = left.alive.len(),
            "a worker has died; a report follows"
        );
        self.hooks.tell(event_of(&report));
        if let Some(blamed) = &report.blamed {
            self.count(blamed);
        }
        let directory = self.runtime_dir.shared().join(REPORTS);
        // The names of functions come from the private copies, which go afterwards.
        let publishing = thread::Builder::new()
            .name("report".to_owned())
            .spawn(move || {
                crash::publish(report, &directory);
                let _ = fs::remove_dir_all(&worker.private_dir);
            });
        self.reports.retain(|report| !report.is_finished());
        match publishing {
            Ok(report) => self.reports.push(report),
            Err(error) => tracing::error!(%error, "there is no report"),
        }
    }

    fn count(&mut self, blamed: &Blamed) {
        let Some(known) = &blamed.generation.known else {
            return;
        };
        let culprit = Culprit::from(known);
        match self.quarantine.count(&culprit, Instant::now()) {
            Counted::Crashes(crashes) => tracing::warn!(
                plugin = culprit.name,
                version = culprit.version,
                crashes,
                quarantine_at = self.config.limits.quarantine_crashes,
                "a plugin has ended its worker"
            ),
            Counted::Quarantined => {
                // They would load it.
                self.discard_spares();
                let event = PluginEvent {
                    reason: Some("it has ended too many workers".to_owned()),
                    ..PluginEvent::now(EventKind::Quarantine)
                };
                let Culprit {
                    name,
                    version,
                    digest,
                } = &culprit;
                self.hooks.tell(event.about(name, version, digest));
                tracing::error!(
                    plugin = culprit.name,
                    version = culprit.version,
                    digest = culprit.digest,
                    "a plugin has ended too many workers and is in quarantine: what served before it \
                 serves again, or its routes fail closed; a new file ends that, or \
                 `plugin-host lift NAME`"
                );
            }
            Counted::Already => {}
        }
    }
}

/// A death, for hooks: with the plugin where it is known whose doing it was.
fn event_of(report: &Report) -> PluginEvent {
    let event = PluginEvent {
        at: report.at.clone(),
        reason: Some(report.to_string()),
        ..PluginEvent::now(EventKind::Crash)
    };
    let blamed = report.blamed.as_ref();
    match blamed.and_then(|blamed| blamed.generation.known.as_ref()) {
        Some(known) => event.about(&known.name, &known.version, &known.digest),
        None => event,
    }
}
