//! The journal that a table of tokens writes, and when it is written anew. It decides nothing about
//! tokens, and a journal that cannot be written costs no prepare its answer.

use std::{io, os::fd::OwnedFd, sync::Arc};

use tokio::sync::mpsc;

use super::{Prepared, Token, journal::Journal};

/// Bytes that a journal may have, whatever of it is still alive.
pub const JOURNAL_BYTES: u64 = 16 << 20;

/// How often the live tokens' bytes a journal may have.
pub const JOURNAL_GROWTH: u64 = 4;

/// A worker's own journal.
#[derive(Debug)]
pub(super) struct Keeping {
    journal: Journal,
    /// The one before, as long as its owner may know no other: still complete.
    before: Option<Journal>,
    /// Bytes of the tokens that were alive when it was written last.
    live_bytes: u64,
    /// Who passes a new journal's descriptor on.
    renewed: mpsc::UnboundedSender<OwnedFd>,
    /// Whether the last try to write it failed; each trouble is told once.
    in_trouble: bool,
}

impl Keeping {
    pub(super) fn new(journal: Journal, renewed: mpsc::UnboundedSender<OwnedFd>) -> Self {
        Self {
            journal,
            before: None,
            live_bytes: 0,
            renewed,
            in_trouble: false,
        }
    }

    pub(super) fn append(&mut self, number: u32, prepared: &Prepared) {
        let mut written = self.journal.append(number, prepared);
        if let Some(before) = &mut self.before {
            written = written.and(before.append(number, prepared));
        }
        self.note(written);
    }

    /// All that has been written so far counts as alive.
    pub(super) fn all_are_alive(&mut self) {
        self.live_bytes = self.journal.bytes();
    }

    /// Whether most of it is about tokens that are gone.
    pub(super) fn is_overgrown(&self) -> bool {
        self.before.is_none()
            && self.journal.bytes() > JOURNAL_BYTES.max(self.live_bytes * JOURNAL_GROWTH)
    }

    /// Writes the live tokens, in the order in which they were given, into a new journal.
    pub(super) fn renew(&mut self, live: &[Arc<Token>]) {
        let renewed = self.try_renew(live);
        self.note(renewed);
    }

    fn try_renew(&mut self, live: &[Arc<Token>]) -> io::Result<()> {
        let mut journal = Journal::create()?;
        for token in live {
            journal.append(token.number, &token.prepared)?;
        }
        let file = journal.file().try_clone_to_owned()?;
        self.live_bytes = journal.bytes();
        self.before = Some(std::mem::replace(&mut self.journal, journal));
        // Fails only while the worker is ending; then its supervisor reads the one before.
        let _ = self.renewed.send(file);
        Ok(())
    }

    /// Writes the journal before the present one no more.
    pub(super) fn let_go_of_the_one_before(&mut self) {
        self.before = None;
    }

    fn note(&mut self, written: io::Result<()>) {
        match written {
            Ok(()) => self.in_trouble = false,
            Err(error) => {
                if !self.in_trouble {
                    tracing::error!(
                        %error,
                        "the journal of tokens cannot be written: a worker that dies now loses \
                         tokens, and the gateway will prepare all of its configurations again"
                    );
                }
                self.in_trouble = true;
            }
        }
    }
}
