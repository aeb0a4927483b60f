//! What the processes of a host hold in memory, as the kernel counts it.
//!
//! It is the resident set of each process, added up. What processes share, such as the program's
//! text, counts for each of them, so the sum is never too low. The proportional set would count it
//! once, but depends on how many other hosts happen to run on the machine.

use std::fs;

use super::Host;

/// The memory of one host's processes at one moment, in bytes.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Resident {
    /// Of the supervisor, its workers, and what those have started.
    pub(crate) bytes: u64,
    /// Of the largest worker.
    pub(crate) largest_worker: u64,
    /// Workers, and rehearsals of plugins.
    pub(crate) processes: usize,
}

impl Resident {
    pub(crate) fn of(host: &Host) -> Self {
        let workers = host.workers();
        let rehearsals = workers.iter().flat_map(|worker| children(*worker));
        let rehearsals: Vec<u64> = rehearsals.map(resident).collect();
        let workers: Vec<u64> = workers.into_iter().map(resident).collect();
        Self {
            bytes: resident(host.id()) + workers.iter().chain(&rehearsals).sum::<u64>(),
            largest_worker: workers.iter().copied().max().unwrap_or(0),
            processes: workers.len() + rehearsals.len(),
        }
    }
}

/// None for a process that has just ended.
fn resident(process: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
    let kib = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Rss:"))
        .and_then(|rest| rest.split_whitespace().next())
        .map_or(0, |number| number.parse().unwrap());
    kib * 1024
}

/// What any thread of a process has started.
fn children(process: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else {
        return Vec::new();
    };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|numbers| {
            let numbers = numbers.split_whitespace();
            numbers
                .map(|number| number.parse().unwrap())
                .collect::<Vec<u32>>()
        })
        .collect()
}
