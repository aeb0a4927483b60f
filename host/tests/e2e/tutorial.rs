//! `docs/tutorial.md`, `docs/packages.md` and `docs/sources.md` as a reader follows them: their commands run
//! in their order in a fresh directory, and what they say has the lines that are shown.
//!
//! Commands at the prompt `$` end by themselves. Those at a prompt with a name (`dev$`) have a terminal
//! of their own: they go on running, `...` there stands for nothing new to type, and `^C` ends them.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::support::{PATIENCE, crates, http::free_address, wait_for};

const TUTORIAL: &str = include_str!("../../../docs/tutorial.md");
const PACKAGES: &str = include_str!("../../../docs/packages.md");
const SOURCES: &str = include_str!("../../../docs/sources.md");

/// One command, and what is shown of its output.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    /// The terminal's name; the reader's own has none.
    terminal: String,
    command: String,
    shown: Vec<String>,
}

/// The commands of a document's `console` blocks.
fn steps(document: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for line in document.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if inside {
            match line.split_once("$ ") {
                Some((terminal, command)) if terminal.chars().all(|c| c.is_ascii_lowercase()) => {
                    steps.push(Step {
                        terminal: terminal.to_owned(),
                        command: command.to_owned(),
                        shown: Vec::new(),
                    });
                }
                _ => steps.last_mut().unwrap().shown.push(line.to_owned()),
            }
        }
    }
    steps
}

/// Whether the lines shown are there, in their order; `...` stands for anything.
fn has(output: &str, shown: &[String]) -> bool {
    let mut lines = output.lines();
    shown
        .iter()
        .all(|shown| lines.any(|line| fits(line, shown)))
}

fn fits(line: &str, shown: &str) -> bool {
    let mut rest = line;
    let mut parts = shown.trim().split("...").map(str::trim);
    let begins = parts
        .next()
        .is_some_and(|first| rest.trim_start().starts_with(first));
    begins
        && parts.all(|part| match rest.find(part) {
            Some(at) => {
                rest = &rest[at + part.len()..];
                true
            }
            None => false,
        })
}

/// A reader at a desk: a directory, and terminals.
struct Reader {
    directory: TempDir,
    /// Where the commands are typed.
    current: PathBuf,
    port: String,
    terminals: HashMap<String, Child>,
    /// How much of each terminal's words has been read.
    read: HashMap<String, usize>,
}

impl Reader {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            current: directory.path().to_owned(),
            port: free_address().port().to_string(),
            directory,
            terminals: HashMap::new(),
            read: HashMap::new(),
        }
    }

    fn follow(&mut self, mut step: Step) {
        // Others use the machine too: a socket and a port of this test's own.
        let socket = self.directory.path().join("runner.sock");
        let own = |text: &str| {
            text.replace("/tmp/runner.sock", socket.to_str().unwrap())
                .replace("9080", &self.port)
        };
        step.command = own(&step.command);
        step.shown = step.shown.iter().map(|line| own(line)).collect();
        if let Some(directory) = step.command.strip_prefix("cd ") {
            self.enter(directory);
        } else if step.terminal.is_empty() {
            self.run(&step);
        } else {
            match step.command.as_str() {
                "^C" => self.interrupt(&step.terminal),
                "..." => {}
                _ => self.start(&step),
            }
            self.wait_for_words(&step);
        }
    }

    /// Goes into the new crate. What this workspace has fetched and built is enough for it.
    fn enter(&mut self, directory: &str) {
        self.current.push(directory);
        let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
        fs::copy(lock, self.current.join("Cargo.lock")).unwrap();
        fs::create_dir_all(crates::target()).unwrap();
        std::os::unix::fs::symlink(crates::target(), self.current.join("target")).unwrap();
    }

    fn shell(&self, command: &str) -> Command {
        let programs = Path::new(env!("CARGO_BIN_EXE_plugin-host")).parent();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path =
            std::iter::once(programs.unwrap().to_owned()).chain(std::env::split_paths(&path));
        let mut shell = Command::new("bash");
        crates::in_environment(&mut shell)
            .env("PATH", std::env::join_paths(path).unwrap())
            .env("TMPDIR", self.directory.path())
            .args(["-c", command])
            .current_dir(&self.current)
            .stdin(Stdio::null());
        shell
    }

    /// Runs a command to its end. One that only looks is tried again, as a reader would.
    #[track_caller]
    fn run(&self, step: &Step) {
        let looks = ["curl ", "plugin-host status "];
        let patient = looks.iter().any(|look| step.command.starts_with(look));
        let began = Instant::now();
        loop {
            let output = self.shell(&step.command).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            if output.status.success() && has(&said, &step.shown) {
                return;
            }
            assert!(
                patient && began.elapsed() < PATIENCE,
                "{step:?}\n{said}\n{}",
                String::from_utf8_lossy(&output.stderr)
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn start(&mut self, step: &Step) {
        use std::os::unix::process::CommandExt;
        let mut command = step.command.clone();
        // The port that they take by themselves is somebody else's here.
        if ["plugin-host dev", "plugin-host gateway"]
            .iter()
            .any(|known| command.starts_with(known))
        {
            command += &format!(" --listen=127.0.0.1:{}", self.port);
        }
        let words = File::create(self.words_of(&step.terminal)).unwrap();
        // As in a terminal, Ctrl-C is for all that the command has started.
        let child = self
            .shell(&command)
            .process_group(0)
            .stdout(words.try_clone().unwrap())
            .stderr(words)
            .spawn()
            .unwrap();
        let before = self.terminals.insert(step.terminal.clone(), child);
        assert!(before.is_none(), "{} is in use", step.terminal);
    }

    fn interrupt(&mut self, terminal: &str) {
        let mut child = self.terminals.remove(terminal).unwrap();
        kill_process_group(Pid::from_child(&child), Signal::INT).unwrap();
        wait_for("the command ends", || child.try_wait().unwrap());
    }

    /// Waits until a terminal shows these lines, below those that have been read.
    #[track_caller]
    fn wait_for_words(&mut self, step: &Step) {
        let read = self.read.entry(step.terminal.clone()).or_default();
        let began = Instant::now();
        let path = self.directory.path().join(&step.terminal);
        loop {
            let words = fs::read_to_string(&path).unwrap();
            if has(&words[*read..], &step.shown) {
                *read = words.rfind('\n').map_or(0, |end| end + 1);
                return;
            }
            // A build takes its time where others build, too.
            assert!(began.elapsed() < 10 * PATIENCE, "{step:?}\n{words}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn words_of(&self, terminal: &str) -> PathBuf {
        self.directory.path().join(terminal)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        for (terminal, child) in &mut self.terminals {
            let _ = kill_process_group(Pid::from_child(child), Signal::TERM);
            let _: io::Result<_> = child.wait();
            if thread::panicking() {
                let words = fs::read_to_string(self.directory.path().join(terminal));
                eprintln!(
                    "--- {terminal} ---\n{}--- end ---",
                    words.unwrap_or_default()
                );
            }
        }
    }
}

/// Does all that a document shows, in which there are so many commands at least.
fn follow(document: &str, at_least: usize) {
    let steps = steps(document);
    assert!(steps.len() >= at_least, "{steps:?}");
    let mut reader = Reader::new();
    for step in steps {
        reader.follow(step);
    }
    assert!(reader.terminals.is_empty(), "something still runs");
}

#[test]
fn each_command_of_the_tutorial_does_what_it_shows() {
    follow(TUTORIAL, 26);
}

#[test]
fn each_command_about_packages_does_what_it_shows() {
    follow(PACKAGES, 14);
}

#[test]
fn each_command_about_sources_does_what_it_shows() {
    follow(SOURCES, 8);
}

#[test]
fn commands_are_told_from_what_they_say() {
    let step = |terminal: &str, command: &str, shown: &[&str]| Step {
        terminal: terminal.to_owned(),
        command: command.to_owned(),
        shown: shown.iter().map(ToString::to_string).collect(),
    };
    let document = "$ none\n```console\n$ a b\nfine\ndev$ c\n```\n```sh\n$ none\n```\n";
    assert_eq!(
        steps(document),
        [step("", "a b", &["fine"]), step("dev", "c", &[])]
    );
    assert!(fits("at 12:00 it serves on a port", "... it serves on ..."));
    assert!(!fits("it serves", "serves"));
    let shown = |lines: &[&str]| lines.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert!(has("a\nb\nc", &shown(&["a", "c"])));
    assert!(!has("a\nb\nc", &shown(&["c", "a"])));
}
