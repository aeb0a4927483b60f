//! Every token that a worker has given, in a memory file that outlives the worker.
//!
//! One worker appends to it; the supervisor holds a duplicate of the descriptor, and the next worker
//! reads it. A record is complete before the gateway hears of its token, so that a death loses none.
//! What is left of a record that was being written at that moment is ignored. Nothing here knows what
//! a token means, and nothing is ever taken out: a journal that has grown is written anew.
//!
//! Workers of different releases read each other's journals: the head of the file names its format,
//! and the numbers in it are little-endian.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
};

use rustix::fs::MemfdFlags;

use super::{PluginConf, Prepared};

/// The first bytes of every journal: its format.
const FORMAT: &[u8; 8] = b"TOKENS 1";

/// A record's length (4 bytes) and checksum (8 bytes), in front of it.
const HEAD_BYTES: usize = 12;

/// Bytes of one record, at most; a frame of the gateway has at most 16 MiB.
const MAX_RECORD_BYTES: usize = 32 << 20;

/// Bytes that are read at once.
const READ_BYTES: usize = 256 << 10;

/// Writes a journal. Nobody else writes to its file.
#[derive(Debug)]
pub struct Journal {
    file: File,
    /// Where the last complete record ends.
    end: u64,
    /// Used again for each record.
    record: Vec<u8>,
}

/// Reads another worker's journal, also while that worker goes on writing.
#[derive(Debug)]
pub struct Reader {
    file: File,
    /// Where the last record ends that was read; nothing has been read where it is 0.
    position: u64,
}

/// A journal cannot be read: the host's fault, or another release's journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be read.
    #[error("the journal of tokens cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It is another format.
    #[error("the journal of tokens has a format that this release does not know")]
    Format,
}

impl Journal {
    /// An empty journal.
    ///
    /// # Errors
    /// The operating system has no memory or descriptors left.
    pub fn create() -> io::Result<Self> {
        let file = File::from(rustix::fs::memfd_create("tokens", MemfdFlags::CLOEXEC)?);
        file.write_all_at(FORMAT, 0)?;
        Ok(Self {
            file,
            end: FORMAT.len() as u64,
            record: Vec::new(),
        })
    }

    /// The memory file, to be passed to another process.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Bytes that it has.
    pub fn bytes(&self) -> u64 {
        self.end
    }

    /// Appends a token; once this has returned, no death of this process can lose it.
    ///
    /// # Errors
    /// The operating system has no memory left; the journal is as it was.
    pub fn append(&mut self, number: u32, prepared: &Prepared) -> io::Result<()> {
        write_record(&mut self.record, number, prepared)?;
        if let Err(error) = self.file.write_all_at(&self.record, self.end) {
            // What has been written of it must not stand in front of the next one.
            self.file.set_len(self.end)?;
            return Err(error);
        }
        self.end += self.record.len() as u64;
        Ok(())
    }
}

impl Reader {
    /// A reader of a journal from its beginning.
    pub fn new(file: OwnedFd) -> Self {
        Self {
            file: File::from(file),
            position: 0,
        }
    }

    /// Reads the complete records that have come since the last time, in the order in which their
    /// tokens were given, up to where the journal ends when this is called.
    ///
    /// # Errors
    /// The file is none that [`Journal::create`] made, or cannot be read.
    pub fn read(&mut self, mut each: impl FnMut(u32, Prepared)) -> Result<(), JournalError> {
        let end = self.file.metadata()?.len();
        if self.position == 0 && end > 0 {
            let mut format = [0; FORMAT.len()];
            self.file.read_exact_at(&mut format, 0)?;
            if format != *FORMAT {
                return Err(JournalError::Format);
            }
            self.position = FORMAT.len() as u64;
        }
        let mut buffer = Vec::new();
        let mut wanted = READ_BYTES;
        while self.position < end {
            let left = usize::try_from(end - self.position).unwrap_or(usize::MAX);
            buffer.resize(wanted.min(left), 0);
            self.file.read_exact_at(&mut buffer, self.position)?;
            let mut records = &buffer[..];
            while let Some((number, prepared)) = take_record(&mut records) {
                each(number, prepared);
            }
            let taken = buffer.len() - records.len();
            if taken == 0 {
                match length_of(records) {
                    Some(length) if wanted < length && length <= left => wanted = length,
                    // Not complete yet, or never: its writer may be at it, or be dead.
                    _ => return Ok(()),
                }
            }
            self.position += taken as u64;
        }
        Ok(())
    }
}

/// Bytes that the first record has, head included, as far as it can be told.
fn length_of(records: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(*records.first_chunk()?);
    let length = usize::try_from(length).ok()?;
    (length <= MAX_RECORD_BYTES).then_some(HEAD_BYTES + length)
}

fn take_record(records: &mut &[u8]) -> Option<(u32, Prepared)> {
    let record = records.get(..length_of(records)?)?;
    let (head, mut body) = record.split_at_checked(HEAD_BYTES)?;
    let checksum = u64::from_le_bytes(*head.last_chunk()?);
    if checksum != checksum_of(body) {
        return None;
    }
    let token = read_token(&mut body)?;
    *records = &records[record.len()..];
    Some(token)
}

fn read_token(body: &mut &[u8]) -> Option<(u32, Prepared)> {
    let number = take_number(body)?;
    let key = take_bytes(body)?.into();
    let mut plugins = Vec::new();
    while !body.is_empty() {
        plugins.push(PluginConf {
            name: take_bytes(body)?.into(),
            value: take_bytes(body)?.into(),
        });
    }
    let plugins = plugins.into();
    Some((number, Prepared { key, plugins }))
}

fn take_number(from: &mut &[u8]) -> Option<u32> {
    let (number, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(u32::from_le_bytes(*number))
}

fn take_bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_number(from)?).ok()?;
    let (bytes, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(bytes)
}

fn write_record(record: &mut Vec<u8>, number: u32, prepared: &Prepared) -> io::Result<()> {
    record.clear();
    record.extend([0; HEAD_BYTES]);
    record.extend(number.to_le_bytes());
    write_bytes(record, &prepared.key)?;
    for plugin in &prepared.plugins {
        write_bytes(record, &plugin.name)?;
        write_bytes(record, &plugin.value)?;
    }
    let body = &record[HEAD_BYTES..];
    if body.len() > MAX_RECORD_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let checksum = checksum_of(body);
    record[..4].copy_from_slice(&length.to_le_bytes());
    record[4..HEAD_BYTES].copy_from_slice(&checksum.to_le_bytes());
    Ok(())
}

fn write_bytes(record: &mut Vec<u8>, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    record.extend(length.to_le_bytes());
    record.extend(bytes);
    Ok(())
}

/// FNV-1a of 64 bits: the standard library's hashers may change from one release to the next.
fn checksum_of(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails where an unwrap does")]

    use super::*;

    fn conf(key: &[u8], plugins: &[(&[u8], &[u8])]) -> Prepared {
        let plugins = plugins.iter().map(|(name, value)| PluginConf {
            name: (*name).into(),
            value: (*value).into(),
        });
        Prepared {
            key: key.into(),
            plugins: plugins.collect(),
        }
    }

    fn reader(journal: &Journal) -> Reader {
        Reader::new(journal.file().try_clone_to_owned().unwrap())
    }

    fn read(reader: &mut Reader) -> Vec<(u32, Prepared)> {
        let mut found = Vec::new();
        reader
            .read(|number, prepared| found.push((number, prepared)))
            .unwrap();
        found
    }

    fn three() -> Vec<(u32, Prepared)> {
        vec![
            (u32::MAX, conf(b"route#1#pre#1", &[(b"say", b"{}")])),
            (1, conf(b"", &[])),
            (2, conf(b"\xff\0", &[(b"", b""), (b"a@^1", b"\0\xfe")])),
        ]
    }

    #[test]
    fn what_was_appended_is_read_in_that_order_and_once() {
        let mut journal = Journal::create().unwrap();
        let mut reader = reader(&journal);
        assert_eq!(read(&mut reader), []);
        for (number, prepared) in &three() {
            journal.append(*number, prepared).unwrap();
        }
        assert_eq!(read(&mut reader), three());
        assert_eq!(read(&mut reader), []);
        let large = (9, conf(&[b'k'; 3 * READ_BYTES], &[(b"a", b"b")]));
        journal.append(large.0, &large.1).unwrap();
        journal.append(1, &three()[1].1).unwrap();
        assert_eq!(read(&mut reader), [large, three().remove(1)]);
    }

    #[test]
    fn a_record_that_was_cut_at_any_byte_is_ignored_until_it_is_complete() {
        let mut journal = Journal::create().unwrap();
        journal.append(7, &three()[0].1).unwrap();
        let whole = journal.bytes();
        journal.append(8, &three()[2].1).unwrap();
        let mut bytes = vec![0; usize::try_from(journal.bytes()).unwrap()];
        journal.file.read_exact_at(&mut bytes, 0).unwrap();
        for cut in usize::try_from(whole).unwrap()..bytes.len() {
            journal.file.set_len(cut as u64).unwrap();
            let mut reader = reader(&journal);
            assert_eq!(read(&mut reader).len(), 1, "cut at {cut}");
            journal.file.write_all_at(&bytes, 0).unwrap();
            assert_eq!(read(&mut reader), [(8, three().remove(2).1)], "after {cut}");
        }
    }

    #[test]
    fn a_record_with_any_byte_changed_is_not_believed() {
        let mut journal = Journal::create().unwrap();
        let start = usize::try_from(journal.bytes()).unwrap();
        journal.append(7, &three()[0].1).unwrap();
        let mut bytes = vec![0; usize::try_from(journal.bytes()).unwrap()];
        journal.file.read_exact_at(&mut bytes, 0).unwrap();
        for at in start..bytes.len() {
            bytes[at] ^= 1;
            journal.file.write_all_at(&bytes, 0).unwrap();
            assert_eq!(read(&mut reader(&journal)), [], "byte {at}");
            bytes[at] ^= 1;
        }
    }

    #[test]
    fn another_file_is_no_journal() {
        let journal = Journal::create().unwrap();
        journal.file.write_all_at(b"TOKENS 2", 0).unwrap();
        let refused = reader(&journal).read(|_, _| {});
        assert!(matches!(refused, Err(JournalError::Format)), "{refused:?}");
        journal.file.set_len(3).unwrap();
        let refused = reader(&journal).read(|_, _| {});
        assert!(matches!(refused, Err(JournalError::Read(_))), "{refused:?}");
        journal.file.set_len(0).unwrap();
        reader(&journal).read(|_, _| {}).unwrap();
    }
}
