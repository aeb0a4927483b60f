//! The plugins' libraries, built by cargo as they are now, so that no test meets a stale one.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// Every plugin that tests load: the name of its package and its directory in the workspace.
const PLUGINS: &[(&str, &str)] = &[
    ("compatible", "host/tests/fixtures/compatible"),
    ("described", "host/tests/fixtures/described"),
    ("fault-injection", "plugins/fault-injection"),
    ("from-tomorrow", "host/tests/fixtures/from-tomorrow"),
    ("limit-req", "plugins/limit-req"),
    ("misdeeds", "host/tests/fixtures/misdeeds"),
    ("outgoing", "host/tests/fixtures/outgoing"),
    ("own-allocator", "host/tests/fixtures/own-allocator"),
    ("redis-session", "plugins/redis-session"),
    ("request-body-rewrite", "plugins/request-body-rewrite"),
    ("response-rewrite", "plugins/response-rewrite"),
    ("say", "plugins/say"),
    ("scripted", "host/tests/fixtures/scripted"),
    ("stub", "host/tests/fixtures/stub"),
    ("tokio-user", "host/tests/fixtures/tokio-user"),
    ("versioned", "host/tests/fixtures/versioned"),
];

/// Where a plugin's library and its `plugin.json` are.
pub(crate) struct BuiltPlugin {
    pub(crate) library: PathBuf,
    pub(crate) metadata: PathBuf,
}

/// A plugin by the name of its package. The first call of a test run builds all of them.
pub(crate) fn built_plugin(name: &str) -> BuiltPlugin {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let libraries = BUILT.get_or_init(|| build(PLUGINS.iter().map(|(package, _)| *package)));
    files_of(name, libraries)
}

/// The same, and no other plugin is built: benches need one, in a profile that takes its time.
#[allow(dead_code, reason = "end-to-end tests need all of them")]
pub(crate) fn built_alone(name: &str) -> BuiltPlugin {
    files_of(name, &build([name]))
}

fn files_of(name: &str, libraries: &Path) -> BuiltPlugin {
    let (_, directory) = PLUGINS
        .iter()
        .find(|(package, _)| *package == name)
        .unwrap_or_else(|| panic!("{name} is not in the list of plugins that tests can load"));
    BuiltPlugin {
        library: libraries.join(format!("lib{}.so", name.replace('-', "_"))),
        metadata: workspace().join(directory).join("plugin.json"),
    }
}

/// Builds into the target directory and with the profile of the host under test.
fn build<'a>(packages: impl IntoIterator<Item = &'a str>) -> PathBuf {
    let libraries = Path::new(env!("CARGO_BIN_EXE_plugin-host"))
        .parent()
        .unwrap();
    let target_dir = target_dir();
    let profile = match libraries.file_name().unwrap().to_str().unwrap() {
        "debug" => "dev",
        other => other,
    };
    let mut cargo = cargo();
    cargo
        .args(["build", "--profile", profile, "--target-dir"])
        .arg(target_dir);
    // `target/TRIPLE/debug` where a target was asked for.
    let above = libraries.parent().unwrap();
    if above != target_dir {
        cargo.arg("--target").arg(above.file_name().unwrap());
    }
    for package in packages {
        cargo.args(["--package", package]);
    }
    succeed(&mut cargo);
    libraries.to_owned()
}

/// The cargo that runs this test, in the workspace.
pub(super) fn cargo() -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(workspace())
        .env("CARGO_TERM_QUIET", "true");
    cargo
}

/// Runs a build, which has to succeed.
pub(super) fn succeed(build: &mut Command) {
    let output = build.output().unwrap();
    assert!(
        output.status.success(),
        "{build:?} fails:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The workspace's target directory.
pub(super) fn target_dir() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap()
}

pub(super) fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
