//! What the system tells of a process: memory, descriptors, processor time. Linux only; what it does
//! not tell is absent.

use std::{fs, io};

/// What a process uses.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ProcessUse {
    /// Memory in use, in bytes, what is shared with files included.
    pub(super) resident_bytes: Option<u64>,
    /// Processor time so far, in seconds.
    pub(super) processor_seconds: Option<f64>,
    /// Open descriptors.
    pub(super) open_descriptors: Option<u64>,
}

impl ProcessUse {
    /// Of a process, as it is now.
    pub(super) fn of(pid: u32) -> Self {
        let memory = memory(pid);
        Self {
            resident_bytes: memory.map(|(resident, _)| resident),
            processor_seconds: processor_seconds(pid),
            open_descriptors: open_descriptors(pid).ok(),
        }
    }
}

/// Memory of its own that a process has in use, in bytes: without what is shared with files.
pub(super) fn own_memory(pid: u32) -> Option<u64> {
    let (resident, shared) = memory(pid)?;
    Some(resident.saturating_sub(shared))
}

/// Resident bytes, and those of them that are shared with files.
fn memory(pid: u32) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut pages = text.split(' ').skip(1).map(str::parse::<u64>);
    let (resident, shared) = (pages.next()?.ok()?, pages.next()?.ok()?);
    let page = rustix::param::page_size() as u64;
    Some((resident * page, shared * page))
}

fn processor_seconds(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold blanks and parentheses.
    let (_, behind_name) = text.rsplit_once(')')?;
    let mut ticks = behind_name
        .split_whitespace()
        .skip(11)
        .map(str::parse::<u64>);
    let (user, system) = (ticks.next()?.ok()?, ticks.next()?.ok()?);
    Some((user + system) as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn open_descriptors(pid: u32) -> io::Result<u64> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::*;

    #[test]
    fn the_system_tells_what_this_process_uses() {
        let used = ProcessUse::of(std::process::id());
        assert!(used.resident_bytes.unwrap() > 1 << 20);
        assert!(used.open_descriptors.unwrap() >= 3);
        assert!(used.processor_seconds.is_some());
        let own = own_memory(std::process::id()).unwrap();
        assert!((1..=used.resident_bytes.unwrap() + (64 << 20)).contains(&own));
        assert!(ProcessUse::of(u32::MAX).resident_bytes.is_none());
    }
}
