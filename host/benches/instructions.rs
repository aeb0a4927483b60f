//! How many instructions a call takes, counted by valgrind and compared with a committed figure: the same on a
//! busy machine as on a quiet one, so that a regression fails a build.
//!
//! `scripts/instructions` runs it. It starts itself under valgrind twice, with few calls and with many; the
//! difference is what the calls take, without the start. All of the path is in it: a socket, an event loop, a
//! plugin, and a gateway's few instructions on a thread of its own. What it costs the kernel is not.

#[allow(dead_code, reason = "other benches use the rest of it")]
mod embedded;
#[allow(clippy::unwrap_used, reason = "the tests' own")]
#[allow(dead_code, reason = "tests build all of them")]
#[path = "../tests/e2e/support/libraries.rs"]
mod libraries;

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::Arc,
    thread,
};

use plugin_host::server::{self, Shutdown};
use serde::{Deserialize, Serialize};
use tokio::{net::UnixListener, sync::watch};

use embedded::{Embedded, ONE_HEADER, request};

/// Calls of the two runs. The first ones, in which buffers grow, are in both.
const FEW: u64 = 100;
const MANY: u64 = 1_100;

/// How far a count may be from the committed one, in percent: other places in memory, other
/// hash keys; and a build in another directory, cut into other units, differs by up to 6 %.
const TOLERANCE: f64 = 10.0;

/// As an argument: serve so many calls and leave.
const SERVE: &str = "--serve";

/// As an argument: write what was counted in place of what is committed.
const UPDATE: &str = "--update";

/// What is committed for one profile.
#[derive(Debug, Serialize, Deserialize)]
struct Figure {
    /// Instructions of one call.
    instructions: u64,
    /// What compiled them: another compiler makes other instructions.
    compiler: String,
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let Some(place) = arguments.iter().position(|argument| argument == SERVE) {
        let calls = arguments
            .get(place + 1)
            .and_then(|number| number.parse().ok());
        serve(calls.expect("this program has written the number itself"));
        return ExitCode::SUCCESS;
    }
    let instructions = (count(MANY) - count(FEW)) / (MANY - FEW);
    judge(
        instructions,
        arguments.iter().any(|argument| argument == UPDATE),
    )
}

/// Serves calls of one connection in this process.
fn serve(calls: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("there is an event loop");
    runtime.block_on(async {
        let embedded = Embedded::load("versioned").await;
        let token = embedded.prepare("versioned", &[ONE_HEADER]).await;
        let directory = tempfile::tempdir().expect("there is room for files");
        let socket = directory.path().join("s");
        let listener = UnixListener::bind(&socket).expect("the directory is new");
        let (_, given) = tokio::sync::mpsc::unbounded_channel();
        let (running, shutdown) = watch::channel(Shutdown::Running);
        let shared = Arc::clone(&embedded.shared);
        let served = tokio::spawn(server::serve(listener, given, shared, shutdown));
        thread::spawn(move || {
            call_again_and_again(&socket, &request(token), calls);
            running.send_replace(Shutdown::HandedOver);
        });
        served.await.expect("serving does not panic");
    });
}

fn call_again_and_again(socket: &Path, call: &[u8], calls: u64) {
    let mut stream = UnixStream::connect(socket).expect("the host listens");
    let mut answer = [0; 4096];
    for _ in 0..calls {
        stream.write_all(call).expect("the host reads");
        let read = stream.read(&mut answer).expect("the host answers");
        assert_eq!(
            answer[0], 2,
            "an answer of {read} bytes that is no answer to a call"
        );
    }
}

/// Instructions of a whole run with so many calls.
fn count(calls: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--log-file=/dev/stdout"])
        .arg(format!("--callgrind-out-file={}", profile_file().display()))
        .arg(std::env::current_exe().expect("this program is a file"))
        .args([SERVE, &calls.to_string()])
        .output()
        .expect("valgrind is there: scripts/install-tools --tests");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let collected = text
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let (_, number) = collected.unwrap_or_else(|| panic!("valgrind counted nothing:\n{text}"));
    number.trim().parse().expect("valgrind counts in numbers")
}

/// Compares with what is committed for the profile, or commits it.
fn judge(instructions: u64, update: bool) -> ExitCode {
    let figures_file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.json");
    let text = fs::read_to_string(&figures_file).unwrap_or_else(|_| "{}".to_owned());
    let mut figures: BTreeMap<String, Figure> =
        serde_json::from_str(&text).expect("the figures were written by this program");
    let (profile, compiler) = (profile(), compiler());
    if update {
        println!("{profile}: {instructions} instructions a call, written");
        figures.insert(
            profile,
            Figure {
                instructions,
                compiler,
            },
        );
        let text = serde_json::to_string_pretty(&figures).expect("figures are plain") + "\n";
        fs::write(figures_file, text).expect("the source tree can be written");
        return ExitCode::SUCCESS;
    }
    let Some(figure) = figures.get(&profile) else {
        println!(
            "{profile}: {instructions} instructions a call; none are committed for this profile"
        );
        return ExitCode::FAILURE;
    };
    if figure.compiler != compiler {
        println!(
            "{profile}: {instructions} instructions a call; not compared, since {} are committed of {} and this is {compiler}",
            figure.instructions, figure.compiler
        );
        return ExitCode::SUCCESS;
    }
    let committed = figure.instructions as f64;
    let change = (instructions as f64 - committed) / committed * 100.0;
    println!("{profile}: {instructions} instructions a call, {change:+.1} % of {committed}");
    if change.abs() <= TOLERANCE {
        return ExitCode::SUCCESS;
    }
    println!(
        "More than {TOLERANCE} % off. Where they are: callgrind_annotate {}\nIf they are meant: scripts/instructions {UPDATE}",
        profile_file().display()
    );
    ExitCode::FAILURE
}

fn profile_file() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("callgrind.out")
}

/// Name of the directory of this profile's programs.
fn profile() -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_plugin-host"));
    let directory = program.parent().and_then(Path::file_name);
    directory.unwrap_or_default().to_string_lossy().into_owned()
}

/// Version and machine of the compiler.
fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output();
    let version = output.expect("cargo has a rustc beside it").stdout;
    let version = String::from_utf8_lossy(&version);
    let number = version.split(' ').nth(1).unwrap_or_default();
    format!("{number} {}", std::env::consts::ARCH)
}
