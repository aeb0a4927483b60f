//! What a server costs: processor time and memory of a process with everything below it.

use std::{collections::BTreeSet, fs, str::FromStr};

use anyhow::{Context, Result};

/// A process and its descendants. Who they are is asked each time: workers come and go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tree {
    root: u32,
}

impl Tree {
    pub(crate) fn of(root: u32) -> Self {
        Self { root }
    }

    /// Nanoseconds that all threads together have had a processor. Those of a thread that has ended
    /// since are not in it.
    pub(crate) fn processor_nanos(self) -> Result<u64> {
        let mut nanos = 0;
        for process in self.processes() {
            for task in names(&format!("/proc/{process}/task")) {
                // A thread may end between the listing and this.
                if let Ok(stat) =
                    fs::read_to_string(format!("/proc/{process}/task/{task}/schedstat"))
                {
                    nanos += first_number::<u64>(&stat).context("schedstat has no number")?;
                }
            }
        }
        Ok(nanos)
    }

    /// Resident bytes of all processes, what they share counted for each.
    pub(crate) fn resident_bytes(self) -> Result<u64> {
        let mut kibibytes = 0;
        for process in self.processes() {
            let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
            let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            // A process that has ended has none.
            kibibytes += resident.and_then(first_number::<u64>).unwrap_or(0);
        }
        Ok(kibibytes * 1024)
    }

    fn processes(self) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        let mut open = vec![self.root];
        while let Some(process) = open.pop() {
            if !found.insert(process) {
                continue;
            }
            for task in names(&format!("/proc/{process}/task")) {
                let children = format!("/proc/{process}/task/{task}/children");
                let children = fs::read_to_string(children).unwrap_or_default();
                open.extend(
                    children
                        .split_whitespace()
                        .filter_map(|id| id.parse::<u32>().ok()),
                );
            }
        }
        found
    }
}

fn names(directory: &str) -> Vec<String> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

fn first_number<T: FromStr>(text: &str) -> Option<T> {
    text.split_whitespace().next()?.parse().ok()
}
