//! Lines through the whole way, into real files and into writers that misbehave.

#![allow(
    clippy::unwrap_used,
    reason = "a failed expectation is the test's result"
)]

use super::*;

use std::fs;
use std::io::Write;
use std::path::Path;

fn config(file: &Path, format: LogFormat, rotation: LogRotation) -> LogConfig {
    LogConfig {
        filter: "info".to_owned(),
        format,
        file: Some(file.to_owned()),
        access_file: None,
        rotation,
        keep_files: 2,
    }
}

/// Logs one line with the given configuration and gives the names and texts in its directory.
fn log_one_line(config: &LogConfig) -> Vec<(String, String)> {
    let (subscriber, logging) = make(config, false, None).unwrap();
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!(plugin = "say", version = "1.0.0", "loaded");
    });
    assert_eq!(logging.lines().lost(), 0);
    drop(logging);
    let directory = config.file.as_ref().unwrap().parent().unwrap();
    // The end waits for the last lines only as long as a host can; on a busy machine the thread that
    // writes them comes to it later.
    let is_written = || {
        let mut files = fs::read_dir(directory).unwrap();
        files.any(|file| file.unwrap().metadata().unwrap().len() > 0)
    };
    while !is_written() {
        std::thread::yield_now();
    }
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn a_line_of_text_has_its_time_in_utc_and_no_colours() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("host.log");
    let files = log_one_line(&config(&file, LogFormat::Text, LogRotation::Never));
    assert_eq!(files.len(), 1);
    let (name, text) = &files[0];
    assert_eq!(name, "host.log");
    let time = text.split_whitespace().next().unwrap();
    assert!(time.ends_with('Z') && time.contains('T'), "{text}");
    assert!(text.contains(" INFO "), "{text}");
    assert!(
        text.contains("loaded plugin=\"say\" version=\"1.0.0\""),
        "{text}"
    );
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn a_line_of_json_is_an_object_with_its_fields() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("host.log");
    let files = log_one_line(&config(&file, LogFormat::Json, LogRotation::Never));
    let line: serde_json::Value = serde_json::from_str(files[0].1.trim()).unwrap();
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["fields"]["message"], "loaded");
    assert_eq!(line["fields"]["plugin"], "say");
}

#[test]
fn rotation_dates_the_files_keeps_the_newest_and_spares_other_programs() {
    let directory = tempfile::tempdir().unwrap();
    for name in [
        "host.log.2020-01-01",
        "host.log.2020-01-02",
        "hostname.log",
        "host-access.log",
    ] {
        fs::write(directory.path().join(name), name).unwrap();
    }
    let file = directory.path().join("host.log");
    let files = log_one_line(&config(&file, LogFormat::Text, LogRotation::Daily));
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(names.contains(&"hostname.log") && names.contains(&"host-access.log"));
    let (name, text) = files
        .iter()
        .rfind(|(name, _)| name.starts_with("host.log."))
        .unwrap();
    assert!(text.contains("loaded"), "{name}: {text}");
}

#[test]
fn a_file_that_cannot_be_written_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let blocker = directory.path().join("file");
    fs::write(&blocker, "").unwrap();
    let file = blocker.join("host.log");
    let config = config(&file, LogFormat::Text, LogRotation::Never);
    let error = open(config.file.as_deref(), &config, &Losses::default(), "log")
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(&format!("cannot log to {}: ", file.display())),
        "{error}"
    );
}

/// Waits for its first line to be allowed, like a pipe that nobody reads.
struct Stuck {
    allow: mpsc::Receiver<()>,
    written: mpsc::Sender<Vec<u8>>,
}

impl Write for Stuck {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = self.allow.recv();
        let _ = self.written.send(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_does_not_read_costs_lines_and_no_waiting() {
    let (allow, allowed) = mpsc::channel();
    let (written, read) = mpsc::channel();
    let losses = Losses::default();
    let stuck = Stuck {
        allow: allowed,
        written,
    };
    let (mut queue, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(4)
        .lossy(true)
        .finish(Sink::new(stuck, LogFormat::Text, losses.clone()));
    losses.count_queue(queue.error_counter());

    // One line may be with the writer, four wait in the queue: the others are lost.
    for _ in 0..20 {
        queue.write_all(b"line\n").unwrap();
    }
    let lost = losses.total();
    assert!((15..=16).contains(&lost), "{lost}");

    drop(allow);
    drop(guard);
    let lines: Vec<_> = read.try_iter().collect();
    let report = String::from_utf8(lines.last().unwrap().clone()).unwrap();
    assert!(report.contains(&format!("lost={lost}")), "{report}");
    assert_eq!(lines.len() as u64, 20 - lost + 1);
}
