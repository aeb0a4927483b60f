//! Memory that the supervisor and its workers see alike, and that outlives a worker that dies.
//!
//! It is a memory file, mapped by each of them and read and written as 64-bit words, each of them
//! atomic: whatever bytes a dying worker leaves there can be read without harm. What the words mean
//! is told by [`connections`] and [`threads`]; [`held`] says what a plugin runs when. Nothing here is sent anywhere, and no lock is held in
//! it, so that no death can leave one locked.

pub mod connections;
pub mod held;
pub mod threads;

use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::NonNull,
    sync::atomic::AtomicU64,
};

use rustix::{
    fs::{MemfdFlags, SealFlags},
    mm::{MapFlags, ProtFlags},
};

/// Bytes of a word.
const WORD_BYTES: usize = size_of::<AtomicU64>();

/// Words that the processes share.
pub struct SharedMemory {
    file: OwnedFd,
    words: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: the words are atomic and stay mapped until the value is dropped, so that every thread may
// use them through a shared reference.
#[allow(unsafe_code, reason = "a mapping is a pointer")]
unsafe impl Send for SharedMemory {}
// SAFETY: as for `Send`.
#[allow(unsafe_code, reason = "a mapping is a pointer")]
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Makes shared memory of so many words, all zero.
    ///
    /// # Errors
    /// The operating system has no memory or descriptors left.
    pub fn create(name: &str, words: usize) -> io::Result<Self> {
        let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&file, (words * WORD_BYTES) as u64)?;
        // A file that shrank under the mapping would kill whoever reads it.
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Self::map(file, words)
    }

    /// Maps shared memory that another process made.
    ///
    /// # Errors
    /// The descriptor is none that [`SharedMemory::create`] made, or cannot be mapped.
    pub fn open(file: OwnedFd) -> io::Result<Self> {
        let seals = rustix::fs::fcntl_get_seals(&file)?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "shared memory whose size is not fixed",
            ));
        }
        let bytes = usize::try_from(rustix::fs::fstat(&file)?.st_size).unwrap_or(0);
        Self::map(file, bytes / WORD_BYTES)
    }

    #[allow(unsafe_code, reason = "a mapping is a pointer")]
    fn map(file: OwnedFd, count: usize) -> io::Result<Self> {
        // SAFETY: the kernel chooses the address, so that nothing that is mapped is replaced.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                count * WORD_BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                0,
            )?
        };
        let words = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { file, words, count })
    }

    /// The words.
    #[allow(unsafe_code, reason = "a mapping is a pointer")]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: `map` mapped `count` words there, a page's start is aligned for them, the file
        // can not shrink (it is sealed), every bit pattern is a word, and the mapping lasts as long
        // as `self`.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.count) }
    }

    /// The memory file, to be passed to another process.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for SharedMemory {
    #[allow(unsafe_code, reason = "a mapping is a pointer")]
    fn drop(&mut self) {
        // SAFETY: `map` mapped exactly this range, and no reference to it outlives `self`.
        let unmapped =
            unsafe { rustix::mm::munmap(self.words.as_ptr().cast(), self.count * WORD_BYTES) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedMemory({} words)", self.count)
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn what_one_mapping_writes_another_reads() {
        let first = SharedMemory::create("test", 1_000).unwrap();
        let second = SharedMemory::open(first.file().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(second.words().len(), 1_000);
        first.words()[999].store(7, Ordering::Release);
        assert_eq!(second.words()[999].load(Ordering::Acquire), 7);
    }

    #[test]
    fn a_file_that_could_shrink_is_not_mapped() {
        let file = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, 4096).unwrap();
        assert!(SharedMemory::open(file).is_err());
    }
}
