//! Reports of deaths for people: in the log, and in files of which a bounded number stays.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::report::Report;

/// Report files that stay, the newest.
pub const MAX_REPORTS: usize = 32;

/// How their names end.
pub const ENDING: &str = ".crash.json";

/// Looks up the names of functions, logs the report in one line and writes it to a file in
/// `directory`, which is made where there is none. Reads the libraries that the dead worker had
/// mapped, so they must still be there. Takes its time: never on the way to the next worker.
pub fn publish(mut report: Report, directory: &Path) {
    report.symbolise();
    let written = write(&report, directory);
    let file = written.as_ref().ok().map(|path| path.display().to_string());
    tracing::error!(file, "{report}");
    if let Err(error) = written {
        tracing::error!(%error, directory = %directory.display(), "cannot write the report of a crash");
    }
}

fn write(report: &Report, directory: &Path) -> io::Result<PathBuf> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(directory)?;
    // Colons make trouble in file names elsewhere.
    let time = report.at.replace(':', "-");
    let path = directory.join(format!("{time}-{}{ENDING}", report.pid));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    serde_json::to_writer_pretty(&mut file, report)?;
    file.write_all(b"\n")?;
    remove_oldest(directory)?;
    Ok(path)
}

/// Names begin with the time, so that their order is that of the deaths.
fn remove_oldest(directory: &Path) -> io::Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if name.to_string_lossy().ends_with(ENDING) {
            names.push(name);
        }
    }
    names.sort_unstable();
    let surplus = names.len().saturating_sub(MAX_REPORTS);
    for name in &names[..surplus] {
        match fs::remove_file(directory.join(name)) {
            // Another host on this address may tidy up as well.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::crash::Cause;

    fn report(number: u32) -> Report {
        Report {
            at: format!("2026-11-20T22:13:{:02}.000000Z", number),
            pid: number,
            host_version: "0.1.0".to_owned(),
            uptime_ms: 1,
            cause: Cause::Exit { code: 0 },
            blamed: None,
            suspects: Vec::new(),
            in_plugins_library: false,
            thread: None,
            inside_plugins: Vec::new(),
            open_calls: Vec::new(),
            calls_left_out: 0,
            backtrace: Vec::new(),
        }
    }

    #[test]
    fn the_newest_reports_stay_for_their_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let crashes = directory.path().join("crashes");
        for number in 0..40 {
            publish(report(number), &crashes);
        }
        fs::write(crashes.join("notes"), "of somebody else's").unwrap();
        publish(report(40), &crashes);
        let mut names: Vec<_> = fs::read_dir(&crashes)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names.len(), MAX_REPORTS + 1);
        assert_eq!(names[0], "2026-11-20T22-13-09.000000Z-9.crash.json");
        let newest = crashes.join("2026-11-20T22-13-40.000000Z-40.crash.json");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&newest), mode(&crashes)), (0o600, 0o700));
        let read: Report = serde_json::from_slice(&fs::read(newest).unwrap()).unwrap();
        assert_eq!(read, report(40));
    }
}
