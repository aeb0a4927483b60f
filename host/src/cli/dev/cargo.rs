//! A plugin's crate as cargo knows it, and building it.
//!
//! Cargo's own words go to standard error as they are; what it has built is read from its messages.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use parking_lot::Mutex;
use serde::Deserialize;

/// A plugin's crate.
#[derive(Debug)]
pub(super) struct Crate {
    pub(super) directory: PathBuf,
    pub(super) name: String,
    /// What cargo builds into.
    pub(super) target_directory: PathBuf,
    /// Its directory, and those of the crates that it depends on by path.
    pub(super) sources: Vec<PathBuf>,
    release: bool,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Target {
    crate_types: Vec<String>,
}

#[derive(Deserialize)]
struct Dependency {
    path: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Message {
    manifest_path: Option<PathBuf>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

impl Crate {
    /// Asks cargo about the crate of a directory.
    ///
    /// # Errors
    /// What is wrong with it, or with cargo.
    pub(super) fn read(directory: &Path, release: bool) -> Result<Self, String> {
        let shown = directory.display();
        let directory = directory
            .canonicalize()
            .map_err(|error| format!("{shown}: {error}"))?;
        let manifest = directory.join("Cargo.toml");
        if !manifest.is_file() {
            return Err(format!(
                "{shown} has no Cargo.toml: name a plugin's crate, or make one with `plugin-host new`"
            ));
        }
        let asked = Command::new("cargo")
            .args(["metadata", "--no-deps", "--format-version=1"])
            .current_dir(&directory)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("cannot start cargo: {error}; install Rust with rustup"))?;
        if !asked.status.success() {
            return Err(String::from_utf8_lossy(&asked.stderr).into_owned());
        }
        let metadata: Metadata = serde_json::from_slice(&asked.stdout)
            .map_err(|error| format!("cargo metadata: {error}"))?;
        let package = metadata
            .packages
            .into_iter()
            .find(|package| package.manifest_path == manifest)
            .ok_or_else(|| {
                format!("{shown} is a workspace and no crate: name the directory of one")
            })?;
        let loadable = |target: &Target| target.crate_types.iter().any(|kind| kind == "cdylib");
        if !package.targets.iter().any(loadable) {
            return Err(format!(
                "{shown} builds no library that a host can load: its Cargo.toml needs\n\
                 [lib]\ncrate-type = [\"cdylib\"]"
            ));
        }
        let paths = package.dependencies.into_iter();
        let mut sources = vec![directory.clone()];
        sources.extend(paths.filter_map(|dependency| dependency.path));
        sources.dedup();
        Ok(Self {
            directory,
            name: package.name,
            target_directory: metadata.target_directory,
            sources,
            release,
        })
    }
}

/// Builds, one at a time, until it is stopped.
#[derive(Debug, Default)]
pub(super) struct Builder(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    /// Held while a build runs: it ends with it.
    leash: Option<ChildStdin>,
}

impl Builder {
    /// Builds a crate's library and says where it is; none where the build has failed, which cargo
    /// has told, or was stopped.
    ///
    /// # Errors
    /// Cargo cannot be run.
    pub(super) fn build(&self, of: &Crate) -> Result<Option<PathBuf>, String> {
        let Some(mut child) = self.start(of)? else {
            return Ok(None);
        };
        let output = child.stdout.take();
        let manifest = of.directory.join("Cargo.toml");
        let mut library = None;
        for line in output
            .map(BufReader::new)
            .into_iter()
            .flat_map(BufRead::lines)
        {
            let Ok(line) = line else { break };
            let Ok(message) = serde_json::from_str::<Message>(&line) else {
                continue;
            };
            if message.manifest_path.as_ref() == Some(&manifest) {
                let is_library = |file: &PathBuf| file.extension().is_some_and(|end| end == "so");
                library = message.filenames.into_iter().find(is_library).or(library);
            }
        }
        let ended = child.wait();
        self.0.lock().leash = None;
        match ended {
            Ok(status) if status.success() => Ok(library),
            Ok(_) => Ok(None),
            Err(error) => Err(format!("cargo: {error}")),
        }
    }

    /// Ends the build that runs, and lets none begin.
    pub(super) fn stop(&self) {
        let mut state = self.0.lock();
        state.stopped = true;
        state.leash = None;
    }

    /// Whether it was stopped.
    pub(super) fn is_stopped(&self) -> bool {
        self.0.lock().stopped
    }

    fn start(&self, of: &Crate) -> Result<Option<Child>, String> {
        let mut state = self.0.lock();
        if state.stopped {
            return Ok(None);
        }
        let mut child = Command::new("/proc/self/exe")
            .args(["leash", "cargo", "build", "--lib"])
            .arg("--message-format=json-render-diagnostics")
            .args(of.release.then_some("--release"))
            .current_dir(&of.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start cargo: {error}"))?;
        state.leash = child.stdin.take();
        Ok(Some(child))
    }
}
