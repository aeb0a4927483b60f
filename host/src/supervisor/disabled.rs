//! Plugins that operators have taken out of service: in memory, and in a file in the directory of the
//! listen address, so that the next host on it, as after a gateway's reload, keeps to it too.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::plugin::disabled::{DisabledPlugin, MAX_DISABLED};

/// Name of the file.
const FILE: &str = "disabled.json";

/// The list, and its file.
#[derive(Debug)]
pub(super) struct Disabled {
    file: PathBuf,
    list: Vec<DisabledPlugin>,
}

impl Disabled {
    /// What the host before has left, or nothing.
    pub(super) fn read(directory: &Path) -> Self {
        let file = directory.join(FILE);
        let read = match fs::read(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Vec::<DisabledPlugin>::new())
            }
            read => read.and_then(|bytes| Ok(serde_json::from_slice(&bytes)?)),
        };
        let list = read.unwrap_or_else(|error: io::Error| {
            tracing::error!(file = %file.display(), %error, "nobody knows which plugins were disabled: all are loaded");
            Vec::new()
        });
        for plugin in &list {
            tracing::warn!(plugin = %plugin.name, since = plugin.since, by = plugin.by, "disabled");
        }
        Self { file, list }
    }

    pub(super) fn list(&self) -> &[DisabledPlugin] {
        &self.list
    }

    /// Whether a plugin is in it.
    pub(super) fn has(&self, name: &str) -> bool {
        self.list.iter().any(|plugin| plugin.name.as_str() == name)
    }

    /// Adds a plugin that is not in it.
    ///
    /// # Errors
    /// There are too many, or the list cannot be written down; then nothing has changed.
    pub(super) fn add(&mut self, plugin: DisabledPlugin) -> Result<(), String> {
        if self.list.iter().any(|known| known.name == plugin.name) {
            return Ok(());
        }
        if self.list.len() >= MAX_DISABLED {
            return Err(format!("{MAX_DISABLED} plugins are disabled already"));
        }
        let mut list = self.list.clone();
        list.push(plugin);
        self.write(list)
    }

    /// Takes a plugin out of it.
    ///
    /// # Errors
    /// The list cannot be written down; then nothing has changed.
    pub(super) fn remove(&mut self, name: &str) -> Result<(), String> {
        let mut list = self.list.clone();
        list.retain(|plugin| plugin.name.as_str() != name);
        self.write(list)
    }

    fn write(&mut self, list: Vec<DisabledPlugin>) -> Result<(), String> {
        let written = serde_json::to_vec(&list)
            .map_err(io::Error::from)
            .and_then(|bytes| {
                let unfinished = self.file.with_extension("unfinished");
                fs::write(&unfinished, bytes)?;
                fs::rename(unfinished, &self.file)
            });
        written.map_err(|error| format!("{} cannot be written: {error}", self.file.display()))?;
        self.list = list;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::*;

    fn plugin(number: usize) -> DisabledPlugin {
        DisabledPlugin {
            name: format!("p{number}").try_into().unwrap(),
            since: "2026-11-25T07:00:00.000Z".to_owned(),
            by: "user 0".to_owned(),
        }
    }

    #[test]
    fn the_list_is_there_for_the_next_host_and_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let mut disabled = Disabled::read(directory.path());
        for number in 0..MAX_DISABLED {
            disabled.add(plugin(number)).unwrap();
        }
        disabled.add(plugin(3)).unwrap();
        assert!(disabled.add(plugin(MAX_DISABLED)).is_err());
        disabled.remove("p3").unwrap();
        let next = Disabled::read(directory.path());
        assert_eq!(next.list(), disabled.list());
        assert_eq!(next.list().len(), MAX_DISABLED - 1);
    }

    #[test]
    fn a_list_that_cannot_be_read_disables_nobody_and_one_that_cannot_be_written_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE), "{").unwrap();
        assert!(Disabled::read(directory.path()).list().is_empty());
        let mut nowhere = Disabled::read(&directory.path().join("nowhere"));
        assert!(nowhere.add(plugin(1)).is_err());
        assert!(nowhere.list().is_empty());
    }
}
