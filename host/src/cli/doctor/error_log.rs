//! The end of the gateway's `error.log`: the lines with which it says why it could not reach a host.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use super::finding::{Area, Report};

/// Bytes of the log's end that are looked at.
const LOOKED_AT: u64 = 256 << 10;

/// What the gateway writes, and what it means.
const KNOWN: [(&str, &str, &str); 4] = [
    (
        "failed (13: Permission denied)",
        "the gateway's workers may not connect to the socket, or enter a directory on its path",
        "see `permissions` above: --socket-mode 0666, and x on the directories",
    ),
    (
        "failed (2: No such file or directory)",
        "no host listened on the path that the gateway connects to",
        "see `socket` above; the gateway starts a host that has ended again after 3 s",
    ),
    (
        "failed (111: Connection refused)",
        "the host that made the socket had ended",
        "see `answers` above",
    ),
    (
        "failed (11: Resource temporarily unavailable)",
        "the backlog was full",
        "raise --backlog and net.core.somaxconn",
    ),
];

/// Looks through the end of the log of a gateway; one that is no file, as in the gateway's images, is
/// left out.
pub(super) fn look(home: &Path, report: &mut Report) {
    let file = home.join("logs/error.log");
    let Ok(end) = end_of(&file) else {
        return;
    };
    let lines = || {
        end.lines()
            .filter(|line| line.contains("connect() to unix:"))
    };
    let mut is_quiet = true;
    for (words, means, next) in KNOWN {
        let count = lines().filter(|line| line.contains(words)).count();
        if let Some(last) = lines().rfind(|line| line.contains(words)) {
            is_quiet = false;
            // A line begins with date and time.
            let at = last.get(..19).unwrap_or_default();
            report.warning(
                Area::Gateway,
                "error-log",
                format!(
                    "{}: `{words}`, {count} times, the last at {at}",
                    file.display()
                ),
                [means, next],
            );
        }
    }
    if is_quiet {
        report.good(
            Area::Gateway,
            "error-log",
            format!("{} has no failed connection at its end", file.display()),
        );
    }
}

fn end_of(file: &Path) -> io::Result<String> {
    if !fs::metadata(file)?.is_file() {
        return Err(io::Error::other("no file"));
    }
    let mut file = File::open(file)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOOKED_AT)))?;
    let mut end = Vec::new();
    file.take(LOOKED_AT).read_to_end(&mut end)?;
    Ok(String::from_utf8_lossy(&end).into_owned())
}
