//! Trusts a plugin with the event loops again that the watchdog has found to hold them up.

use super::{Manager, Missing, Requested};

impl Manager {
    /// Has the calls of a plugin run on the event loops again after it was found to hold them up,
    /// until it does so again. Returns name and version of every generation that this was done to.
    ///
    /// # Errors
    /// No such plugin serves.
    pub fn lift_label(&self, requested: &str) -> Result<Vec<String>, Missing> {
        let wanted = Requested::parse(requested)?;
        let snapshot = self.registry.current();
        let mut meant = snapshot
            .generations()
            .filter(|generation| wanted.fits(generation.name(), generation.version()))
            .peekable();
        if meant.peek().is_none() {
            return Err(Missing::Unknown(wanted.name));
        }
        Ok(meant
            .filter(|generation| generation.lift_label())
            .map(|generation| format!("{generation:?}"))
            .collect())
    }
}
