//! Whose fault a worker's death was.
//!
//! The worker [`install`]s handlers that write down, in memory that outlives it, what they see of
//! its end, and tells its supervisor where its code lies ([`mappings`]). When it has died the
//! supervisor makes an [`Autopsy`]: a [`Report`] that names the plugin whose doing it was, or nobody
//! where that is not certain. [`publish`] puts it into the log and into a file. [`Quarantine`]
//! counts deaths; it decides nothing about panics, errors and missed deadlines, which are no deaths.
//!
//! Nothing here starts or ends a process, and nothing here keeps the next worker waiting: the slow
//! part of a report is [`publish`], for a thread of its own.
//!
//! What is lost where a plugin interferes: one that installs handlers of its own for the signals
//! takes the record of a fault away (and answers for it: see [`Rule::OnlyOneInside`]); one that
//! blocks a signal in a thread makes its fault unrecorded there, and one whose own thread overflows
//! its stack too, since only threads of the host have a second one. The exit status tells the signal
//! in each of these cases. A panic hook changes nothing: panics are no deaths.

mod autopsy;
#[allow(
    unsafe_code,
    reason = "signal handlers are installed and written in terms of the system's own interface; each block says why it is sound here"
)]
mod handler;
mod mappings;
mod quarantine;
mod record;
mod report;
mod report_files;
mod symbols;

pub use autopsy::{Autopsy, KilledFor, KnownGeneration};
pub use handler::install;
pub use mappings::{Mapping, mappings};
pub use quarantine::{Counted, Culprit, MAX_CULPRITS, Quarantine, Quarantined};
pub use report::{
    Address, Blamed, Cause, CrashedThread, Frame, InsidePlugin, OpenCall, Report, Rule,
    SuspectedGeneration,
};
pub use report_files::{ENDING as REPORT_ENDING, MAX_REPORTS, publish};

#[cfg(test)]
mod tests;
