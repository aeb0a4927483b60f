//! What was downloaded before, by its digest. Whatever is taken out is compared with that digest again,
//! so that a damaged or changed cache costs a download and nothing else.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::MAX_DOWNLOAD_BYTES;
use crate::plugin::metadata::Digest;

/// A directory of downloads.
#[derive(Debug, Clone)]
pub struct Cache {
    directory: PathBuf,
    max_bytes: u64,
}

impl Cache {
    /// Downloads in this directory, with so many bytes in all, at most. It is made when it is needed.
    #[must_use]
    pub fn new(directory: &Path, max_bytes: u64) -> Self {
        Self {
            directory: directory.join("sha256"),
            max_bytes,
        }
    }

    /// What has this digest, where it is there.
    pub(super) fn get(&self, digest: &Digest) -> Option<Vec<u8>> {
        let path = self.path_of(digest);
        let mut bytes = Vec::new();
        let file = File::open(&path).ok()?;
        // The last one to go is the one that was used last.
        let _ = file.set_modified(SystemTime::now());
        file.take(MAX_DOWNLOAD_BYTES).read_to_end(&mut bytes).ok()?;
        if Digest::of(&bytes) == *digest {
            return Some(bytes);
        }
        let _ = fs::remove_file(path);
        None
    }

    /// Keeps something. What cannot be kept is downloaded again next time.
    pub(super) fn put(&self, bytes: &[u8]) {
        if bytes.len() as u64 <= self.max_bytes {
            // A full or read-only disk does not keep anybody from installing.
            let _ = self.try_put(bytes);
        }
    }

    fn try_put(&self, bytes: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        self.make_room(bytes.len() as u64)?;
        let path = self.path_of(&Digest::of(bytes));
        let unfinished = path.with_extension(std::process::id().to_string());
        let written = File::create(&unfinished)
            .and_then(|mut file| file.write_all(bytes))
            .and_then(|()| fs::rename(&unfinished, path));
        if written.is_err() {
            let _ = fs::remove_file(unfinished);
        }
        written
    }

    /// Removes what was not used for longest, until there is room for so many bytes.
    fn make_room(&self, bytes: u64) -> io::Result<()> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            kept.push((metadata.modified()?, metadata.len(), entry.path()));
        }
        kept.sort();
        let mut used: u64 = kept.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, size, path) in kept {
            if used + bytes <= self.max_bytes {
                break;
            }
            fs::remove_file(path)?;
            used -= size;
        }
        Ok(())
    }

    fn path_of(&self, digest: &Digest) -> PathBuf {
        self.directory.join(digest.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test says where it failed")]
    use super::*;

    #[test]
    fn a_cache_forgets_what_was_not_used_for_longest_and_never_gives_other_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::new(directory.path(), 25);
        let (a, b, c) = ([b'a'; 10], [b'b'; 10], [b'c'; 10]);
        let age = |bytes: &[u8], seconds| {
            let file = File::open(cache.path_of(&Digest::of(bytes))).unwrap();
            let then = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            file.set_modified(then).unwrap();
        };
        cache.put(&a);
        cache.put(&b);
        age(&a, 1);
        age(&b, 2);
        assert_eq!(cache.get(&Digest::of(&a)).unwrap(), a);
        cache.put(&c);
        assert_eq!(cache.get(&Digest::of(&b)), None);
        assert_eq!(cache.get(&Digest::of(&c)).unwrap(), c);

        fs::write(cache.path_of(&Digest::of(&a)), "something else").unwrap();
        assert_eq!(cache.get(&Digest::of(&a)), None);
        // Larger than all of it: nothing goes for its sake.
        cache.put(&[b'd'; 26]);
        assert_eq!(cache.get(&Digest::of(&[b'd'; 26])), None);
        assert_eq!(cache.get(&Digest::of(&c)).unwrap(), c);
    }
}
