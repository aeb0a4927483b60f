//! Runs a program of others, git or cargo, within bounds of time, output and disk, with an environment
//! that holds what it needs and nothing else. It is given no shell, nothing to read, and ends with this
//! process, with all that it has started.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use super::{SourceError, Sources};

/// What a program may print, in bytes.
pub(super) const MAX_OUTPUT: u64 = 16 << 20;

/// How much of the end of its errors is kept, in bytes.
const KEPT: usize = 4 << 10;

/// Length of one line of them that is passed on, at most, in bytes.
const MAX_LINE: u64 = 8 << 10;

/// How often it is looked whether it has ended, and, every so many looks, how much disk it takes.
const LOOK: Duration = Duration::from_millis(20);
const LOOKS_PER_DISK: u32 = 25;

/// A program and what it may do.
pub(super) struct Run<'a> {
    pub(super) sources: &'a Sources<'a>,
    /// The source, for errors.
    pub(super) what: &'a str,
    pub(super) program: &'static str,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<(String, OsString)>,
    pub(super) directory: &'a Path,
    /// When it, or what it is a part of, has begun.
    pub(super) began: Instant,
    /// How long that may take.
    pub(super) time: Duration,
    /// The directories whose bytes are counted.
    pub(super) disk: Vec<PathBuf>,
}

impl Run<'_> {
    /// Runs it to its end; gives what it has printed.
    pub(super) fn output(self) -> Result<Vec<u8>, SourceError> {
        let mut child = Command::new(&self.sources.program)
            .arg("leash")
            .arg(self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| self.failed(&format!("cannot be started: {error}"), ""))?;
        let leash = child.stdin.take();
        let printed = Arc::new(AtomicU64::new(0));
        let stdout = child.stdout.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        let collected = {
            let printed = Arc::clone(&printed);
            thread::spawn(move || collect(stdout, &printed))
        };
        let (tell, lines) = mpsc::channel();
        let words = {
            let printed = Arc::clone(&printed);
            thread::spawn(move || tail(stderr, &printed, &tell))
        };
        let ended = self.wait(&mut child, leash, &printed, &lines);
        let output = collected.join().unwrap_or_default();
        let words = words.join().unwrap_or_default();
        match ended {
            Ok(true) => Ok(output),
            Ok(false) => Err(self.failed("has failed", &words)),
            Err(reason) => Err(self.failed(&reason, &words)),
        }
    }

    /// Whether it has ended well; or why it was ended.
    fn wait(
        &self,
        child: &mut Child,
        leash: Option<ChildStdin>,
        printed: &AtomicU64,
        lines: &mpsc::Receiver<String>,
    ) -> Result<bool, String> {
        let mut leash = leash;
        let mut reason = None;
        let mut looks = 0_u32;
        loop {
            for line in lines.try_iter() {
                self.sources.progress.line(&line);
            }
            if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
                // What it has written between the last look and its end counts, too.
                let reason = reason.or_else(|| self.too_much_disk());
                return reason.map_or(Ok(status.success()), Err);
            }
            if reason.is_none() {
                looks += 1;
                reason = if self.began.elapsed() > self.time {
                    Some(format!("has taken more than {:?} and was ended", self.time))
                } else if printed.load(Ordering::Relaxed) > MAX_OUTPUT {
                    Some(format!(
                        "has printed more than {MAX_OUTPUT} bytes and was ended"
                    ))
                } else if looks.is_multiple_of(LOOKS_PER_DISK) {
                    self.too_much_disk()
                } else {
                    None
                };
                if reason.is_some() {
                    // Ends it, and everything below it.
                    drop(leash.take());
                }
            }
            thread::sleep(LOOK);
        }
    }

    fn too_much_disk(&self) -> Option<String> {
        let bound = self.sources.settings.build_disk;
        let used: u64 = self.disk.iter().map(|path| disk_used(path)).sum();
        (used > bound).then(|| format!("has needed more than {bound} bytes of disk and was ended"))
    }

    fn failed(&self, reason: &str, words: &str) -> SourceError {
        SourceError::Program {
            what: self.what.to_owned(),
            program: self.program,
            reason: reason.to_owned(),
            output: words.to_owned(),
        }
    }
}

/// What was printed, as far as it is within the bound; the rest is read and forgotten.
fn collect(mut from: impl Read, printed: &AtomicU64) -> Vec<u8> {
    let (mut bytes, mut piece) = (Vec::new(), vec![0; 64 << 10]);
    while let Ok(read @ 1..) = from.read(&mut piece) {
        let before = printed.fetch_add(read as u64, Ordering::Relaxed);
        if before + read as u64 <= MAX_OUTPUT {
            bytes.extend_from_slice(&piece[..read]);
        }
    }
    bytes
}

/// The end of what was said, and each line when it comes.
fn tail(from: impl Read, printed: &AtomicU64, tell: &mpsc::Sender<String>) -> String {
    let mut from = BufReader::new(from);
    let (mut kept, mut line) = (String::new(), Vec::new());
    while let Ok(read @ 1..) = (&mut from).take(MAX_LINE).read_until(b'\n', &mut line) {
        printed.fetch_add(read as u64, Ordering::Relaxed);
        let text = plain(&String::from_utf8_lossy(&line));
        line.clear();
        kept.push_str(&text);
        kept.push('\n');
        if kept.len() > 2 * KEPT {
            let mut from = kept.len() - KEPT;
            while !kept.is_char_boundary(from) {
                from += 1;
            }
            kept.drain(..from);
        }
        // Nobody may want to know.
        let _ = tell.send(text);
    }
    kept
}

/// Without what a terminal could obey.
fn plain(line: &str) -> String {
    let line = line.trim_end().rsplit('\r').next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).collect()
}

/// Bytes that a directory takes on disk; what vanishes meanwhile does not count.
fn disk_used(path: &Path) -> u64 {
    const BLOCK: u64 = 512;
    let Ok(metadata) = path.symlink_metadata() else {
        return 0;
    };
    let own = metadata.blocks() * BLOCK;
    if !metadata.is_dir() {
        return own;
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    own + entries.map(|entry| disk_used(&entry.path())).sum::<u64>()
}

/// What a program gets to know: some of what the operator has, and what it needs beside that.
pub(super) fn environment(
    sources: &Sources<'_>,
    home: &Path,
    names: &[&str],
) -> Vec<(String, OsString)> {
    let known = sources.settings.environment.iter();
    let mut all: Vec<_> = known
        .filter(|(name, _)| names.contains(&name.as_str()))
        .cloned()
        .collect();
    all.push(("HOME".to_owned(), home.as_os_str().to_owned()));
    all.push(("LC_ALL".to_owned(), "C".into()));
    all
}

/// Arguments from texts and paths.
pub(super) fn arguments<const N: usize>(all: [&dyn AsRef<OsStr>; N]) -> Vec<OsString> {
    all.iter().map(|it| it.as_ref().to_owned()).collect()
}
