//! What the kernel tells of one thread of this process: whether it sleeps, and the processor time
//! that it has used.

use std::{fs::File, io, os::unix::fs::FileExt, time::Duration};

/// Bytes of either file, at most: some fifty numbers.
const MAX_BYTES: usize = 1024;

/// Files of a thread, opened when they are first read and kept open.
#[derive(Debug)]
pub(super) struct ThreadFile {
    thread: u32,
    /// State and, in ticks of the clock, processor time.
    stat: Option<File>,
    /// Processor time in nanoseconds; kernels may lack it.
    schedstat: Option<File>,
}

impl ThreadFile {
    pub(super) fn of(thread: u32) -> Self {
        Self {
            thread,
            stat: None,
            schedstat: None,
        }
    }

    /// Whether the thread sleeps, and its processor time.
    ///
    /// # Errors
    /// The thread has ended, or the kernel does not tell.
    pub(super) fn read(&mut self) -> io::Result<(bool, Duration)> {
        let stat = match &self.stat {
            Some(stat) => stat,
            None => {
                let directory = format!("/proc/self/task/{}", self.thread);
                self.schedstat = File::open(format!("{directory}/schedstat")).ok();
                self.stat.insert(File::open(format!("{directory}/stat"))?)
            }
        };
        let mut bytes = [0; MAX_BYTES];
        let (asleep, in_ticks) =
            state_of(text(stat, &mut bytes)?).ok_or(io::ErrorKind::InvalidData)?;
        let exact = match &self.schedstat {
            Some(schedstat) => running_time(text(schedstat, &mut bytes)?),
            None => None,
        };
        Ok((asleep, exact.unwrap_or(in_ticks)))
    }
}

fn text<'a>(file: &File, bytes: &'a mut [u8]) -> io::Result<&'a str> {
    let read = file.read_at(bytes, 0)?;
    std::str::from_utf8(&bytes[..read]).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// State and processor time of a line of `stat`: proc_pid_stat(5), fields 3, 14 and 15.
fn state_of(stat: &str) -> Option<(bool, Duration)> {
    // The name before it may have any sign in it, parentheses and spaces included.
    let (_, behind_the_name) = stat.rsplit_once(')')?;
    let mut fields = behind_the_name.split_ascii_whitespace();
    let asleep = matches!(fields.next()?, "S" | "D");
    let user: u64 = fields.nth(10)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    Some((
        asleep,
        Duration::from_millis((user + system).saturating_mul(1_000) / ticks),
    ))
}

/// The first number of `schedstat`: nanoseconds spent running, not those spent waiting for a core.
fn running_time(schedstat: &str) -> Option<Duration> {
    let running = schedstat.split_ascii_whitespace().next()?.parse().ok()?;
    // A kernel that keeps no such statistics says zero.
    (running > 0).then(|| Duration::from_nanos(running))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use std::{sync::mpsc, thread};

    use super::*;

    #[test]
    fn a_threads_name_does_not_confuse_its_state() {
        let line = "77 (a) S (b) R 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0";
        let ticks = rustix::param::clock_ticks_per_second();
        let expected = Duration::from_millis(300 * 1_000 / ticks);
        assert_eq!(state_of(line), Some((false, expected)));
        assert_eq!(state_of("77 (x) D 1"), None);
        let line = line.replace(") R", ") D");
        assert_eq!(state_of(&line), Some((true, expected)));
    }

    #[test]
    fn a_thread_that_waits_sleeps_and_one_that_computes_uses_the_processor() {
        let (say, hear) = mpsc::channel();
        let (let_go, wait) = mpsc::channel::<()>();
        let sleeper = thread::spawn(move || {
            let number = rustix::thread::gettid().as_raw_nonzero().get();
            say.send(u32::try_from(number).unwrap()).unwrap();
            let _ = wait.recv();
        });
        let mut file = ThreadFile::of(hear.recv().unwrap());
        while !file.read().unwrap().0 {
            thread::yield_now();
        }
        drop(let_go);
        sleeper.join().unwrap();

        let own = rustix::thread::gettid().as_raw_nonzero().get();
        let mut file = ThreadFile::of(u32::try_from(own).unwrap());
        let (asleep, before) = file.read().unwrap();
        assert!(!asleep);
        while file.read().unwrap().1 < before + Duration::from_millis(20) {
            std::hint::spin_loop();
        }
    }
}
