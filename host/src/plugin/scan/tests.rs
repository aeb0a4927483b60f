//! The scanner on real files, with a clock that the tests set.

#![allow(
    clippy::unwrap_used,
    reason = "a test may end at what it did not expect"
)]

use std::{collections::BTreeSet, fs, thread};

use serde_json::json;

use super::*;
use crate::plugin::testing::{PluginDirectory, library, plugin_json};

/// A scanner, its directory and its clock.
struct Story {
    files: PluginDirectory,
    scanner: Scanner,
    now: Instant,
    being_written: BTreeSet<PathBuf>,
    /// What was handed out and told since the last expectation.
    changed: BTreeSet<PathBuf>,
    told: Vec<String>,
}

impl Story {
    fn new() -> Self {
        let files = PluginDirectory::new();
        Self {
            scanner: Scanner::new(files.path()),
            files,
            now: Instant::now(),
            being_written: BTreeSet::new(),
            changed: BTreeSet::new(),
            told: Vec::new(),
        }
    }

    /// A story that begins with one plugin that serves.
    fn with_say() -> Self {
        let mut story = Self::new();
        story.files.plugin("say", "say", "1.0.0");
        story.settle();
        story.expect(&["changed say 1.0.0 at say"]);
        story
    }

    fn path(&self, path: &str) -> PathBuf {
        self.files.path().join(path)
    }

    /// Somebody writes to a file from now on.
    fn writes(&mut self, path: &str) {
        let path = self.path(path).canonicalize().unwrap();
        self.being_written.insert(path);
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    /// Looks, so that what has changed is known, and lets it stand still for long enough; twice,
    /// because one file may say where another lies.
    fn settle(&mut self) {
        for _ in 0..2 {
            self.scan();
            self.wait(SETTLE);
        }
    }

    fn scan(&mut self) -> Scan {
        let being_written = &self.being_written;
        let scan = self
            .scanner
            .scan(|path| being_written.contains(path), self.now);
        for seen in &scan.plugins {
            if let Seen::Changed(candidate) = seen {
                self.changed.insert(candidate.place.clone());
            }
        }
        let words = scan.problems.iter();
        self.told
            .extend(words.map(|problem| format!("{}: {}", problem.path.display(), problem.cause)));
        // Whoever waits must be told until when.
        assert!(scan.unsettled.is_empty() || scan.look_again.is_some());
        scan
    }

    /// Looks, and compares what is there and what was handed out and told since the last
    /// expectation, without the directory's path.
    fn expect(&mut self, expected: &[&str]) {
        let scan = self.scan();
        let mut words = Vec::new();
        for seen in &scan.plugins {
            let place = match seen {
                Seen::Unchanged(place) => place.clone(),
                Seen::Changed(candidate) => candidate.to_place(),
            };
            let how = match self.changed.remove(&place.path) {
                true => "changed",
                false => "unchanged",
            };
            let path = place.path.display();
            words.push(format!("{how} {} {} at {path}", place.name, place.version));
        }
        for (how, paths) in [("unsettled", &scan.unsettled), ("unfit", &scan.unfit)] {
            words.extend(paths.iter().map(|path| format!("{how} {}", path.display())));
        }
        if scan.directory_missing {
            words.push("directory missing".to_owned());
        }
        words.append(&mut self.told);
        let root = format!("{}/", self.files.path().display());
        let words: Vec<_> = words.iter().map(|word| word.replace(&root, "")).collect();
        assert_eq!(words, expected);
        assert!(self.changed.is_empty(), "{:?}", self.changed);
    }
}

fn half(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len() / 2]
}

#[test]
fn unchanged_files_are_not_read_again() {
    let mut story = Story::new();
    let template = library("plugin-0000", "1.0.0");
    let place = memchr(&template, b"plugin-0000");
    for number in 0..1_000 {
        let name = format!("plugin-{number:04}");
        let mut library = template.clone();
        library[place..place + name.len()].copy_from_slice(name.as_bytes());
        story
            .files
            .write(
                &format!("{name}/plugin.json"),
                plugin_json(&name, "1.0.0", &json!({})),
            )
            .write(&format!("{name}/lib{name}.so"), library);
    }
    story.settle();
    assert_eq!((story.changed.len(), story.told.len()), (1_000, 0));
    for _ in 0..2 {
        let next = story.scan();
        let unchanged = |seen: &Seen| matches!(seen, Seen::Unchanged(_));
        assert!(next.plugins.iter().all(unchanged));
        assert_eq!((next.plugins.len(), next.read), (1_000, 0));
    }
    story.files.plugin("plugin-0500", "plugin-0500", "1.1.0");
    let read = story.scan().read;
    story.wait(SETTLE);
    assert_eq!(read + story.scan().read, 1);
}

fn memchr(bytes: &[u8], wanted: &[u8]) -> usize {
    let mut windows = bytes.windows(wanted.len());
    windows.position(|window| window == wanted).unwrap()
}

#[test]
fn what_stood_still_before_the_start_is_handed_out_at_the_first_look() {
    let mut story = Story::new();
    story
        .files
        .plugin("say", "say", "1.0.0")
        .write("libbare.so", library("bare", "1.0.0"));
    thread::sleep(SETTLE);
    story.expect(&[
        "changed bare 1.0.0 at libbare.so",
        "changed say 1.0.0 at say",
    ]);
    story.expect(&[
        "unchanged bare 1.0.0 at libbare.so",
        "unchanged say 1.0.0 at say",
    ]);
}

#[test]
fn nothing_is_concluded_from_what_has_just_been_written() {
    loop {
        let began = Instant::now();
        let mut story = Story::new();
        story
            .files
            .write("libsay.so", library("say", "1.0.0"))
            .write("bad/plugin.json", "[]");
        let scan = story.scan();
        // A machine that was busy meanwhile shows nothing.
        if began.elapsed() < SETTLE {
            assert_eq!((scan.plugins.len(), scan.problems.len()), (0, 0));
            assert_eq!(scan.unsettled, [story.path("bad"), story.path("libsay.so")]);
            assert!(scan.look_again.unwrap() <= SETTLE);
            assert_eq!(scan.read, 0);
            return;
        }
    }
}

#[test]
fn a_file_that_is_being_written_is_not_read() {
    let mut story = Story::with_say();
    story
        .files
        .write("say/libsay.so", half(&library("say", "1.1.0")));
    story.writes("say/libsay.so");
    story.settle();
    for _ in 0..3 {
        story.wait(PATIENCE);
        story.expect(&["unsettled say"]);
    }
    story.files.plugin("say", "say", "1.1.0");
    story.expect(&["unsettled say"]);
    story.being_written.clear();
    story.settle();
    story.expect(&["changed say 1.1.0 at say"]);
}

#[test]
fn a_writer_that_never_ends_is_believed_for_a_while_then_two_equal_readings_count() {
    let mut story = Story::new();
    story.files.write("libsay.so", library("say", "1.0.0"));
    story.writes("libsay.so");
    story.settle();
    story.expect(&["unsettled libsay.so"]);
    story.wait(WRITER_PATIENCE - 2 * SETTLE);
    story.expect(&["unsettled libsay.so"]);
    story.expect(&["unsettled libsay.so"]);
    story.wait(SETTLE);
    story.expect(&["changed say 1.0.0 at libsay.so"]);
}

#[test]
fn a_copy_that_stalls_is_waited_for_and_never_handed_out_half() {
    let mut story = Story::with_say();
    story
        .files
        .write("say/libsay.so", half(&library("say", "1.0.1")));
    story.settle();
    story.expect(&["unsettled say"]);
    story.wait(PATIENCE / 2);
    story.expect(&["unsettled say"]);
    story.files.plugin("say", "say", "1.0.1");
    story.settle();
    story.expect(&["changed say 1.0.1 at say"]);
}

#[test]
fn a_library_that_stays_cut_short_is_reported_once_and_what_served_goes_on() {
    let mut story = Story::with_say();
    let whole = library("say", "1.0.0");
    let cut_short = format!(
        "say/libsay.so: {}",
        crate::plugin::elf::inspect(half(&whole)).unwrap_err()
    );
    story.files.write("say/libsay.so", half(&whole));
    story.settle();
    story.expect(&["unsettled say"]);
    story.wait(PATIENCE);
    story.expect(&["unfit say", &cut_short]);
    // Touched, which changes none of its bytes.
    story.files.write("say/libsay.so", half(&whole));
    story.settle();
    story.wait(PATIENCE);
    story.expect(&["unfit say"]);
    // What was there before has been handed out.
    story.files.write("say/libsay.so", whole);
    story.settle();
    story.expect(&["unchanged say 1.0.0 at say"]);
}

#[test]
fn library_and_metadata_wait_for_each_other_in_either_order() {
    let json = |version| plugin_json("say", version, &json!({}));
    let mut story = Story::with_say();
    story.files.write("say/plugin.json", json("1.1.0"));
    story.settle();
    story.expect(&["unsettled say"]);
    story.files.write("say/libsay.so", library("say", "1.1.0"));
    story.settle();
    story.expect(&["changed say 1.1.0 at say"]);

    story.files.write("say/libsay.so", library("say", "1.2.0"));
    story.settle();
    story.expect(&["unsettled say"]);
    story.files.write("say/plugin.json", json("1.2.0"));
    story.settle();
    story.expect(&["changed say 1.2.0 at say"]);
}

#[test]
fn a_digest_waits_for_the_library_that_it_speaks_of() {
    let mut story = Story::with_say();
    let next = library("say", "1.1.0");
    let source =
        json!({"mode": "local_so", "path": "libsay.so", "sha256": Digest::of(&next).to_string()});
    let metadata = plugin_json("say", "1.1.0", &json!({"source": source}));
    story.files.write("say/plugin.json", metadata);
    story.settle();
    story.expect(&["unsettled say"]);
    story.files.write("say/libsay.so", next);
    story.settle();
    story.expect(&["changed say 1.1.0 at say"]);
}

#[test]
fn metadata_that_never_fits_is_reported_once_after_patience() {
    let mut story = Story::with_say();
    let metadata = plugin_json("say", "2.0.0", &json!({}));
    story.files.write("say/plugin.json", &metadata);
    story.settle();
    story.expect(&["unsettled say"]);
    story.wait(PATIENCE - 3 * SETTLE);
    story.expect(&["unsettled say"]);
    story.wait(SETTLE);
    story.expect(&[
        "unfit say",
        "say/libsay.so: plugin.json says version 2.0.0, the library says 1.0.0",
    ]);
    story.wait(PATIENCE);
    story.expect(&["unfit say"]);
    // Somebody asks.
    story.scanner.tell_again();
    story.expect(&[
        "unfit say",
        "say/libsay.so: plugin.json says version 2.0.0, the library says 1.0.0",
    ]);
}

#[test]
fn half_a_plugin_json_is_waited_for() {
    let mut story = Story::with_say();
    let metadata = plugin_json("say", "1.0.0", &json!({"timeout_ms": 5}));
    story
        .files
        .write("say/plugin.json", half(metadata.as_bytes()));
    story.settle();
    story.expect(&["unsettled say"]);
    story.files.write("say/plugin.json", metadata);
    story.settle();
    story.expect(&["changed say 1.0.0 at say"]);
}

#[test]
fn a_directory_that_is_filled_slowly_is_waited_for() {
    let mut story = Story::new();
    fs::create_dir(story.path("say")).unwrap();
    story.settle();
    story.expect(&["unsettled say"]);
    story
        .files
        .write("say/plugin.json", plugin_json("say", "1.0.0", &json!({})));
    story.settle();
    story.expect(&["unsettled say"]);
    story.wait(PATIENCE / 2);
    story.expect(&["unsettled say"]);
    story.files.write("say/libsay.so", library("say", "1.0.0"));
    story.settle();
    story.expect(&["changed say 1.0.0 at say"]);
}

#[test]
fn a_plugin_that_loses_its_metadata_speaks_for_itself_only_after_patience() {
    let mut story = Story::with_say();
    fs::remove_file(story.path("say/plugin.json")).unwrap();
    story.settle();
    story.expect(&["unsettled say"]);
    story.files.plugin("say", "say", "1.0.0");
    story.settle();
    story.expect(&["unchanged say 1.0.0 at say"]);

    fs::remove_file(story.path("say/plugin.json")).unwrap();
    story.settle();
    story.wait(PATIENCE / 2);
    story.expect(&["unsettled say"]);
    story.wait(PATIENCE);
    story.expect(&["changed say 1.0.0 at say"]);
}

#[test]
fn what_no_further_copying_mends_is_reported_as_soon_as_it_is_settled() {
    let mut story = Story::with_say();
    let mistaken = plugin_json("say", "1.0.0", &json!({"timeout_ms": 0}));
    let problem = "say/plugin.json: `timeout_ms` is 0";
    story.files.write("say/plugin.json", &mistaken);
    story.settle();
    story.expect(&["unfit say", problem]);
    // The same bytes again say nothing new; other bytes with the same mistake do.
    story.files.write("say/plugin.json", &mistaken);
    story.settle();
    story.expect(&["unfit say"]);
    story.files.write("say/plugin.json", mistaken + "\n");
    story.settle();
    story.expect(&["unfit say", problem]);
}

#[test]
fn a_file_that_is_only_touched_has_not_changed() {
    let mut story = Story::with_say();
    story.files.plugin("say", "say", "1.0.0");
    story.settle();
    story.expect(&["unchanged say 1.0.0 at say"]);
}

#[test]
fn changed_metadata_alone_is_a_change() {
    let mut story = Story::with_say();
    let metadata = plugin_json("say", "1.0.0", &json!({"timeout_ms": 7}));
    story.files.write("say/plugin.json", metadata);
    story.settle();
    story.expect(&["changed say 1.0.0 at say"]);
}

#[test]
fn what_is_forgotten_is_handed_out_and_reported_again() {
    let mut story = Story::with_say();
    story.files.write("bad/plugin.json", "{\"name\": \"bad\"}");
    story.settle();
    story.scan();
    let told = story.told.clone();
    assert_eq!(told.len(), 2);
    for place in ["say", "bad"] {
        let place = story.path(place);
        story.scanner.forget(&place);
    }
    let scan = story.scan();
    assert!(matches!(scan.plugins[..], [Seen::Changed(_)]));
    assert_eq!(story.told, [told.clone(), told].concat());
    story.told.clear();
    story.changed.clear();
    story.expect(&["unchanged say 1.0.0 at say", "unfit bad"]);
}

#[test]
fn what_returns_as_it_was_has_not_changed_unless_it_was_forgotten() {
    let mut story = Story::with_say();
    for forget in [false, true] {
        fs::remove_dir_all(story.path("say")).unwrap();
        story.expect(&[]);
        if forget {
            let place = story.path("say");
            story.scanner.forget(&place);
        }
        story.files.plugin("say", "say", "1.0.0");
        story.settle();
        let how = if forget { "changed" } else { "unchanged" };
        story.expect(&[&format!("{how} say 1.0.0 at say")]);
    }
}

#[test]
fn twins_are_waited_for_then_reported_and_what_served_goes_on() {
    let mut story = Story::with_say();
    story.files.plugin("say@1.0.0", "say", "1.0.0");
    story.settle();
    story.expect(&["unsettled say", "unsettled say@1.0.0"]);
    story.wait(PATIENCE);
    let twins = |path, other| {
        format!("{path}: the same plugin in the same version is also at `{other}`; neither is used")
    };
    story.expect(&[
        "unfit say",
        "unfit say@1.0.0",
        &twins("say/libsay.so", "say@1.0.0/libsay.so"),
        &twins("say@1.0.0/libsay.so", "say/libsay.so"),
    ]);
    story.expect(&["unfit say", "unfit say@1.0.0"]);
    fs::remove_dir_all(story.path("say")).unwrap();
    story.expect(&["changed say 1.0.0 at say@1.0.0"]);
}

#[test]
fn versions_side_by_side_are_handed_out_one_by_one() {
    let mut story = Story::new();
    story
        .files
        .plugin("say@1.2.0", "say", "1.2.0")
        .plugin("say@1.10.0", "say", "1.10.0");
    story.settle();
    story.expect(&[
        "changed say 1.2.0 at say@1.2.0",
        "changed say 1.10.0 at say@1.10.0",
    ]);
    story.files.plugin("say@2.0.0", "say", "2.0.0");
    story.settle();
    story.expect(&[
        "unchanged say 1.2.0 at say@1.2.0",
        "unchanged say 1.10.0 at say@1.10.0",
        "changed say 2.0.0 at say@2.0.0",
    ]);
}

#[test]
fn a_plugin_json_that_arrives_beside_bare_libraries_holds_them_until_it_is_whole() {
    let mut story = Story::new();
    story.files.write("libsay.so", library("say", "1.0.0"));
    story.settle();
    story.expect(&["changed say 1.0.0 at libsay.so"]);
    let metadata = plugin_json("say", "1.0.0", &json!({"timeout_ms": 5}));
    story.files.write("plugin.json", half(metadata.as_bytes()));
    story.settle();
    story.expect(&["unsettled libsay.so", "unsettled plugin.json"]);
    story.files.write("plugin.json", &metadata);
    story.settle();
    story.expect(&["changed say 1.0.0 at libsay.so"]);
    // Broken for good, it takes nothing from the library that it spoke for.
    story.files.write("plugin.json", half(metadata.as_bytes()));
    story.settle();
    story.expect(&["unsettled libsay.so", "unsettled plugin.json"]);
    story.wait(PATIENCE);
    story.scan();
    assert_eq!(story.told.split_off(0).len(), 1);
    story.expect(&["unfit libsay.so", "unfit plugin.json"]);
    // Removed, it is missed for a while.
    fs::remove_file(story.path("plugin.json")).unwrap();
    story.settle();
    story.expect(&["unsettled libsay.so"]);
    story.wait(PATIENCE);
    story.expect(&["changed say 1.0.0 at libsay.so"]);
}

#[test]
fn a_library_deeper_in_the_directory_is_looked_at_too() {
    let mut story = Story::new();
    let source = json!({"mode": "local_so", "path": "target/libsay.so"});
    let json = |version| plugin_json("say", version, &json!({"source": source}));
    story
        .files
        .write("say/plugin.json", json("1.0.0"))
        .write("say/target/libsay.so", library("say", "1.0.0"));
    story.settle();
    story.expect(&["changed say 1.0.0 at say"]);
    let library_path = story.path("say/target/libsay.so");
    assert!(story.scan().follow.contains(&library_path));
    story
        .files
        .write("say/target/libsay.so", library("say", "1.0.1"));
    story.settle();
    story.expect(&["unsettled say"]);
    story.files.write("say/plugin.json", json("1.0.1"));
    story.settle();
    story.expect(&["changed say 1.0.1 at say"]);
}

#[test]
fn a_missing_directory_is_told_at_the_start_and_later_only_when_it_stays_away() {
    let mut story = Story::new();
    let root = story.files.path().to_owned();
    fs::remove_dir(&root).unwrap();
    let missing = format!("{}: there is no such directory", root.display());
    story.expect(&["directory missing", &missing]);
    story.expect(&["directory missing"]);
    story.files.plugin("say", "say", "1.0.0");
    story.settle();
    story.expect(&["changed say 1.0.0 at say"]);

    // Replaced as a whole.
    let aside = tempfile::tempdir().unwrap();
    fs::rename(&root, aside.path().join("old")).unwrap();
    let scan = story.scan();
    assert!(scan.directory_missing && scan.problems.is_empty());
    assert_eq!(scan.look_again, Some(PATIENCE));
    fs::rename(aside.path().join("old"), &root).unwrap();
    story.settle();
    story.expect(&["unchanged say 1.0.0 at say"]);

    fs::rename(&root, aside.path().join("old")).unwrap();
    story.scan();
    story.wait(PATIENCE);
    story.expect(&["directory missing", &missing]);
    fs::rename(aside.path().join("old"), &root).unwrap();
}

#[test]
fn something_else_where_the_directory_should_be_is_no_removal() {
    let mut story = Story::with_say();
    for index in 0..=MAX_ENTRIES {
        fs::write(story.path(&format!("{index}.txt")), "").unwrap();
    }
    let scan = story.scan();
    assert_eq!(scan.unfit, [story.path("say")]);
    assert!(matches!(
        scan.problems[..],
        [Problem {
            cause: Cause::TooManyEntries,
            ..
        }]
    ));
    assert!(story.scan().problems.is_empty());
}
