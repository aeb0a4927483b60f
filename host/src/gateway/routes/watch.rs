//! Re-reads the route file when it changes.
//!
//! It asks the file system twice a second instead of waiting for events: editors replace the file
//! by renaming, containers mount it, and one file costs nothing to ask for; the real gateway does
//! the same once a second. A bad edit never takes the last good table away.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{RouteFileError, RouteTable};

/// Time between two looks at the file.
pub const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The route file and what was last read of it.
#[derive(Debug)]
pub struct Watch {
    file: PathBuf,
    /// What the file looked like when it was read; none while it cannot be found.
    seen: Option<State>,
    table: Arc<RouteTable>,
}

/// What changes with every edit, by whatever means.
#[derive(Debug, PartialEq, Eq)]
struct State {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Watch {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// See [`RouteTable::load`].
    pub fn open(file: &Path) -> Result<Self, RouteFileError> {
        // First the state: an edit between the two is seen at the next look.
        let metadata = std::fs::metadata(file).ok();
        let version = metadata.as_ref().map_or(0, version);
        let table = RouteTable::load(file, version)?;
        Ok(Self {
            file: file.to_owned(),
            seen: metadata.as_ref().map(State::of),
            table: Arc::new(table),
        })
    }

    /// The last good table.
    #[must_use]
    pub fn table(&self) -> &Arc<RouteTable> {
        &self.table
    }

    /// Waits until the file has changed and reads it. Nothing is lost when this is dropped.
    ///
    /// # Errors
    /// See [`RouteTable::load`]: then the last good table is still there, and the next change is
    /// worth waiting for.
    pub async fn changed(&mut self) -> Result<&Arc<RouteTable>, RouteFileError> {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let metadata = std::fs::metadata(&self.file).ok();
            let state = metadata.as_ref().map(State::of);
            if state == self.seen {
                continue;
            }
            self.seen = state;
            // Two edits within a second have the same time, and must not have the same keys.
            let version = metadata.as_ref().map_or(0, version);
            let version = version.max(self.table.version() + 1);
            self.table = Arc::new(RouteTable::load(&self.file, version)?);
            return Ok(&self.table);
        }
    }
}

/// The version of the real gateway: when the file was last modified, in seconds.
fn version(metadata: &Metadata) -> u64 {
    u64::try_from(metadata.mtime()).unwrap_or(0)
}

impl State {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests;
