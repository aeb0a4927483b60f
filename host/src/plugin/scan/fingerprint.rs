//! What files look like from outside, so that unchanged ones need not be read again. Asks for
//! attributes only; never opens a file.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::plugin::discovery::{Spot, SpotKind, files_of, signature_of};

/// The files that one spot's plugin is made of, with all that changes when their bytes do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fingerprint {
    files: Vec<(PathBuf, Stamp)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    /// Where it leads, if it is a link.
    link: Option<PathBuf>,
    /// What it is, or really leads to.
    target: Result<Target, io::ErrorKind>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    device: u64,
    inode: u64,
    /// None of a directory: other things than the plugin's come and go there.
    content: Option<Content>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    bytes: u64,
    /// Seconds and nanoseconds since 1970.
    modified: (i64, i64),
    /// Likewise, of attributes too; nobody can set it back.
    changed: (i64, i64),
}

impl Fingerprint {
    /// Takes a spot's fingerprint, with files that lie elsewhere.
    pub(super) fn take(spot: &Spot, elsewhere: &[PathBuf]) -> Self {
        let mut paths = vec![spot.path.clone()];
        match spot.kind {
            SpotKind::Directory => paths.extend(files_of(&spot.path)),
            _ => paths.extend(signature_of(&spot.path)),
        }
        for path in elsewhere {
            if !paths.contains(path) {
                paths.push(path.clone());
            }
        }
        let stamp = |path: PathBuf| {
            let stamp = Stamp::take(&path);
            (path, stamp)
        };
        Self {
            files: paths.into_iter().map(stamp).collect(),
        }
    }

    /// The files that were looked at, directories aside.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.files
            .iter()
            .filter(|(_, stamp)| stamp.content().is_some())
            .map(|(path, _)| path.as_path())
    }

    /// Links, and files that are missing.
    pub(super) fn loose_ends(&self) -> impl Iterator<Item = &Path> {
        self.files
            .iter()
            .filter(|(_, stamp)| stamp.link.is_some() || stamp.target.is_err())
            .map(|(path, _)| path.as_path())
    }

    /// How long ago the youngest of the files changed, by the file system's clock; zero where there
    /// are none, or where that clock is ahead of ours.
    pub(super) fn age(&self, now: SystemTime) -> Duration {
        let youngest = self
            .files
            .iter()
            .filter_map(|(_, stamp)| stamp.content())
            .map(|content| content.changed)
            .max();
        let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        youngest
            .and_then(|(seconds, nanoseconds)| {
                let changed = Duration::new(
                    u64::try_from(seconds).ok()?,
                    u32::try_from(nanoseconds).ok()?,
                );
                since_1970.checked_sub(changed)
            })
            .unwrap_or_default()
    }
}

impl Stamp {
    fn take(path: &Path) -> Self {
        Self {
            link: fs::read_link(path).ok(),
            target: fs::metadata(path)
                .map(|metadata| Target {
                    device: metadata.dev(),
                    inode: metadata.ino(),
                    content: (!metadata.is_dir()).then(|| Content {
                        bytes: metadata.size(),
                        modified: (metadata.mtime(), metadata.mtime_nsec()),
                        changed: (metadata.ctime(), metadata.ctime_nsec()),
                    }),
                })
                .map_err(|error| error.kind()),
        }
    }

    fn content(&self) -> Option<&Content> {
        self.target.as_ref().ok()?.content.as_ref()
    }
}
