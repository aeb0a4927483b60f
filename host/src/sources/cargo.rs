//! A package of a crate that was fetched: cargo gets what it depends on, as its lock file says, and then
//! builds it without the network. What runs here is code of the crate's authors and of everybody whom they
//! depend on, as the user who runs this program: nothing keeps it in.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Instant,
};

use serde::Deserialize;

use super::{
    SourceError, Sources,
    child::{Run, arguments, environment},
    roots::{self, ROOTS_VARIABLE},
};
use crate::plugin::package::{Contents, Elsewhere, pack};

/// What cargo and what it runs may know of the operator's environment.
pub(super) const VARIABLES: [&str; 14] = [
    "PATH",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "CARGO_NET_OFFLINE",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    ROOTS_VARIABLE,
    CARGO_ROOTS_VARIABLE,
];

/// The variable that names a file of roots for cargo alone.
const CARGO_ROOTS_VARIABLE: &str = "CARGO_HTTP_CAINFO";

/// A line of what cargo says of what it has built.
#[derive(Deserialize)]
struct Message {
    reason: String,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
}

/// Builds the crate in a directory; gives a package of it.
pub(super) fn build(
    sources: &Sources<'_>,
    what: &str,
    scratch: &Path,
    directory: &Path,
) -> Result<Vec<u8>, SourceError> {
    let settings = sources.settings;
    let manifest = directory.join("Cargo.toml");
    let own_target = scratch.join("target");
    let target = settings.target_dir.as_ref().unwrap_or(&own_target);
    let began = Instant::now();
    let roots = roots::file(settings, scratch)?;
    let cargo = |command: Vec<OsString>| {
        let mut environment = environment(sources, scratch, &VARIABLES);
        if let Some(roots) = &roots
            && !environment
                .iter()
                .any(|(name, _)| name == CARGO_ROOTS_VARIABLE)
        {
            environment.push((CARGO_ROOTS_VARIABLE.to_owned(), roots.into()));
        }
        environment.push(("CARGO_TARGET_DIR".to_owned(), target.into()));
        environment.push(("CARGO_TERM_COLOR".to_owned(), "never".into()));
        // A crate that wants another compiler gets none from the network.
        environment.push(("RUSTUP_AUTO_INSTALL".to_owned(), "0".into()));
        Run {
            sources,
            what,
            program: "cargo",
            arguments: command,
            environment,
            directory,
            began,
            time: settings.build_time,
            // What others have built in a shared directory is not this one's.
            disk: vec![scratch.to_owned()],
        }
        .output()
    };
    sources.progress.begin("fetching what it depends on", None);
    cargo(arguments([
        &"fetch",
        &"--locked",
        &"--manifest-path",
        &manifest,
    ]))?;
    sources.progress.begin("building", None);
    let messages = cargo(arguments([
        &"build",
        &"--offline",
        &"--locked",
        &"--profile",
        &settings.build_profile,
        &"--lib",
        &"--message-format=json-render-diagnostics",
        &"--manifest-path",
        &manifest,
    ]))?;
    let library = library(&messages, &manifest).ok_or_else(|| SourceError::NoPlugin {
        path: manifest,
        reason: format!(
            "{what}: cargo has built no shared library: write `crate-type = [\"cdylib\"]` below `[lib]`"
        ),
    })?;
    let elsewhere = Elsewhere {
        platform: None,
        path: library,
    };
    let contents = Contents::gather(directory, &[elsewhere])?;
    pack(&contents).map_err(SourceError::Package)
}

/// The shared library of this crate, among all that was built.
fn library(messages: &[u8], manifest: &Path) -> Option<PathBuf> {
    let manifest = manifest
        .canonicalize()
        .unwrap_or_else(|_| manifest.to_owned());
    let lines = messages.split(|byte| *byte == b'\n');
    let messages = lines.filter_map(|line| serde_json::from_slice::<Message>(line).ok());
    let mut libraries = messages.filter_map(|message| {
        let built = message.reason == "compiler-artifact"
            && message.target?.kind.iter().any(|kind| kind == "cdylib")
            && message.manifest_path?.canonicalize().ok()? == manifest;
        let mut files = message.filenames.into_iter();
        built.then(|| files.find(|file| file.extension().is_some_and(|it| it == "so")))?
    });
    libraries.next()
}
