//! A log file that begins anew when it has grown to a size: `NAME` is written, `NAME.1` is the one
//! before, and so on up to a number.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// The file.
#[derive(Debug)]
pub(super) struct BySize {
    path: PathBuf,
    file: File,
    bytes: u64,
    max_bytes: u64,
    /// The one that is written included.
    keep_files: usize,
}

impl BySize {
    /// Goes on with the file, or begins it.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn open(path: &Path, max_bytes: u64, keep_files: usize) -> io::Result<Self> {
        let file = append(path)?;
        Ok(Self {
            bytes: file.metadata()?.len(),
            path: path.to_owned(),
            file,
            max_bytes,
            keep_files,
        })
    }

    /// Where that fails, the old file is written on: a line in a file that is too long is worth more
    /// than none.
    fn begin_anew(&mut self) -> io::Result<()> {
        for number in (1..self.keep_files).rev() {
            let from = match number {
                1 => self.path.clone(),
                number => numbered(&self.path, number - 1),
            };
            match fs::rename(from, numbered(&self.path, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.keep_files == 1 {
            fs::remove_file(&self.path)?;
        }
        self.file = append(&self.path)?;
        self.bytes = 0;
        Ok(())
    }
}

impl Write for BySize {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let length = line.len() as u64;
        if self.bytes > 0 && self.bytes + length > self.max_bytes {
            let _ = self.begin_anew();
        }
        let written = self.file.write(line)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

fn numbered(path: &Path, number: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::*;

    #[test]
    fn a_file_that_has_grown_to_its_size_begins_anew_and_so_many_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("host.log");
        let mut log = BySize::open(&path, 10, 3).unwrap();
        for number in 1..=5 {
            writeln!(log, "line {number}").unwrap();
        }
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!(read("host.log"), "line 5\n");
        assert_eq!(read("host.log.1"), "line 4\n");
        assert_eq!(read("host.log.2"), "line 3\n");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
        // The next host goes on where this one ended.
        let mut next = BySize::open(&path, 20, 3).unwrap();
        next.write_all(b"line 6\n").unwrap();
        assert_eq!(read("host.log"), "line 5\nline 6\n");
        let mut alone = BySize::open(&path, 1, 1).unwrap();
        alone.write_all(b"line 7\n").unwrap();
        assert_eq!(read("host.log"), "line 7\n");
    }

    #[test]
    fn where_no_file_can_be_begun_the_old_one_is_written_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("host.log");
        let mut log = BySize::open(&path, 10, 2).unwrap();
        log.write_all(b"line 1\n").unwrap();
        fs::create_dir(directory.path().join("host.log.1")).unwrap();
        fs::write(directory.path().join("host.log.1/x"), "").unwrap();
        log.write_all(b"line 2\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "line 1\nline 2\n");
    }
}
