//! What the machine allows a host: descriptors, a queue of connections, and a place for its own files.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};
use serde_json::Value;

use super::{
    finding::{Area, Report},
    host::number,
};

/// Descriptors for everything but connections.
const RESERVED_DESCRIPTORS: u64 = 128;

/// Private copies of libraries need room; below this it is said, in bytes.
const LITTLE_ROOM: u64 = 64 << 20;

/// Memory files may not be run at all.
const NO_MEMORY_FILES: &str = "2";

/// Looks at what a running host may use.
pub(super) fn look(process: u64, settings: &Value, report: &mut Report) {
    let limits = fs::read_to_string(format!("/proc/{process}/limits")).unwrap_or_default();
    let wanted = number(settings, "--max-connections");
    if let (Some(limit), Some(wanted)) = (open_files(&limits), wanted) {
        let needed = wanted + RESERVED_DESCRIPTORS;
        let found = format!("the host may open {limit} files, for {wanted} connections");
        match limit < needed {
            true => report.warning(
                Area::Machine,
                "open-files",
                found,
                [
                    "fewer connections than --max-connections are possible: the log says how many, and one more gets an error frame: 503",
                    &format!("raise the limit of whoever starts the host to {needed} or more: LimitNOFILE= of the unit, or ulimit -Hn"),
                ],
            ),
            false => report.good(Area::Machine, "open-files", found),
        }
    }
    let backlog = number(settings, "--backlog");
    let allowed = fs::read_to_string("/proc/sys/net/core/somaxconn").ok();
    let allowed = allowed.and_then(|text| text.trim().parse::<u64>().ok());
    if let (Some(backlog), Some(allowed)) = (backlog, allowed) {
        let found = format!("net.core.somaxconn is {allowed}, and --backlog {backlog}");
        match allowed < backlog {
            true => report.warning(
                Area::Machine,
                "backlog",
                found,
                [
                    "no more connections than that wait while the host is busy or a worker restarts; further ones fail with `failed (11: Resource temporarily unavailable)`",
                    &format!("sysctl net.core.somaxconn={backlog}"),
                ],
            ),
            false => report.good(Area::Machine, "backlog", found),
        }
    }
}

/// Looks at the directory in which hosts keep what is their own.
pub(super) fn runtime_dir(directory: &Path, report: &mut Report) {
    let shown = directory.display();
    // It is made by the first host; then its parent counts.
    let there = directory.ancestors().find(|place| place.exists());
    let there = there.unwrap_or(Path::new("/"));
    let is_made = there == directory;
    if !there.is_dir() {
        report.problem(
            Area::Machine,
            "runtime-dir",
            format!("{} is not a directory", there.display()),
            [
                "no host starts that keeps its files below it: its last line says the same",
                "remove it, or give the host another --runtime-dir",
            ],
        );
        return;
    }
    if let Ok(metadata) = fs::metadata(there) {
        let user = rustix::process::geteuid().as_raw();
        if is_made && metadata.uid() != user && user != 0 {
            report.warning(
                Area::Machine,
                "runtime-dir",
                format!(
                    "{shown} belongs to user {}, and this command runs as user {user}",
                    metadata.uid()
                ),
                [
                    "hosts of that user are not found, nor asked",
                    "run this as that user, or as root",
                ],
            );
            return;
        }
    }
    if access(there, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        report.problem(
            Area::Machine,
            "runtime-dir",
            format!("{} cannot be written by who runs this command", there.display()),
            [
                "a host of this user does not start: it keeps locks, its control socket and private copies of plugins there",
                "give the host --runtime-dir with a directory that it may write",
            ],
        );
        return;
    }
    let Ok(system) = statvfs(there) else {
        return;
    };
    let room = system.f_bavail.saturating_mul(system.f_frsize);
    let no_exec = system.f_flag.contains(StatVfsMountFlags::NOEXEC);
    let memory = fs::read_to_string("/proc/sys/vm/memfd_noexec").unwrap_or_default();
    if no_exec && memory.trim() == NO_MEMORY_FILES {
        report.problem(
            Area::Machine,
            "runtime-dir",
            format!("{shown} is mounted noexec, and vm.memfd_noexec forbids to run memory files"),
            [
                "no private copy of a library can be made, and so no plugin be loaded",
                "give the host --runtime-dir with a directory that is not noexec",
            ],
        );
    } else if room < LITTLE_ROOM {
        report.warning(
            Area::Machine,
            "runtime-dir",
            format!("{shown} has {} MiB of room left", room >> 20),
            [
                "private copies of plugins are made there, two of each while it is upgraded",
                "make room, or give the host another --runtime-dir",
            ],
        );
    } else {
        report.good(
            Area::Machine,
            "runtime-dir",
            format!("{shown} can be written, {} MiB of room", room >> 20),
        );
    }
}

/// Where hosts of this machine's users have their directories, without --runtime-dir.
pub(super) fn usual_runtime_dirs() -> Vec<PathBuf> {
    let below = |parent: &str, fits: fn(&str) -> Option<&str>| {
        let entries = fs::read_dir(parent).into_iter().flatten();
        let fitting = entries.filter_map(Result::ok).filter_map(move |entry| {
            let name = entry.file_name();
            let rest = fits(name.to_str()?)?;
            Some(Path::new(parent).join(rest))
        });
        fitting.collect::<Vec<_>>()
    };
    let mut found = vec![PathBuf::from("/run/plugin-host")];
    let of_users = below("/run/user", |name| Some(name)).into_iter();
    found.extend(of_users.map(|user| user.join("plugin-host")));
    found.extend(below("/tmp", |name| {
        name.starts_with("plugin-host-").then_some(name)
    }));
    found.retain(|directory| directory.is_dir());
    found
}

/// The limit on open files in a process's list of limits.
fn open_files(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_on_open_files_is_the_one_in_force() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max processes             63413                63413                processes \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!(open_files(limits), Some(1_024));
        assert_eq!(
            open_files("Max open files  unlimited unlimited files"),
            None
        );
    }
}
