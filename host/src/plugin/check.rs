//! Everything that can be known about plugins without serving a request: what discovery says of
//! their files, stricter than a host, and what happens when they are loaded in a process of their
//! own.
//!
//! Nothing here loads anything into this process, and nothing here prints.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::discovery::{
    Candidate, Discovery, Fault, discover_one, discover_trusted, instead_of_plugins,
};
use super::manager::{LoadErrorCause, settings_of};
use super::metadata::{Execution, FILE_NAME, FailurePolicy};
use super::package::is_package;
use super::rehearsal::{self, Extent, Rehearsal, RehearsalError, Rehearsed, Stage};
use super::settings::Operator;
use super::signature::Trust;
use crate::http_client;

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One plugin's directory.
    Plugin,
    /// A library without a directory of its own.
    Library,
    /// A package.
    Package,
    /// A directory of plugins.
    Directory,
}

/// How to check.
#[derive(Debug)]
pub struct Options<'a> {
    /// The operator's word on plugins.
    pub operator: &'a Operator,
    /// What the HTTP client is that plugins get while they are loaded.
    pub http_client: &'a http_client::Settings,
    /// The program to load plugins with; none: they are not loaded.
    pub program: Option<&'a Path>,
    /// A route's configuration that each plugin has to accept.
    pub configuration: Option<&'a [u8]>,
    /// How long loading one plugin may take.
    pub load_time: Duration,
}

/// What has been found.
#[derive(Debug)]
pub struct Checked {
    /// What the path leads to.
    pub kind: Kind,
    /// Plugins whose files are good, by name and version.
    pub plugins: Vec<CheckedPlugin>,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// A plugin whose files are good enough to load it.
#[derive(Debug)]
pub struct CheckedPlugin {
    /// What was found.
    pub candidate: Candidate,
    /// Where its calls run, the operator's word included.
    pub execution: Execution,
    /// What its failures mean, the operator's word included.
    pub failure_policy: FailurePolicy,
    /// How loading it went; none where it was not tried.
    pub rehearsed: Option<Rehearsed>,
    /// Whether nothing at all is wrong with it.
    pub good: bool,
}

/// Something that is wrong.
#[derive(Debug)]
pub struct Finding {
    /// The file or directory that it is about.
    pub path: PathBuf,
    /// The plugin, where that much is known.
    pub plugin: Option<String>,
    /// Its version, where that much is known.
    pub version: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub next_step: String,
    /// Who can mend it.
    pub fault: Fault,
}

impl Checked {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn good(&self) -> bool {
        self.findings.is_empty()
    }
}

/// What a path leads to. A directory with a `plugin.json` is one plugin's, unless there are
/// plugins in directories below it: then the file speaks for a library that lies beside them.
#[must_use]
pub fn kind_of(path: &Path) -> Kind {
    if path.is_file() {
        let name = path.file_name().unwrap_or_default();
        return match is_package(&name.to_string_lossy()) {
            true => Kind::Package,
            false => Kind::Library,
        };
    }
    if path.join(FILE_NAME).exists() && !has_plugins_below(path) {
        return Kind::Plugin;
    }
    Kind::Directory
}

fn has_plugins_below(path: &Path) -> bool {
    let Ok(entries) = fs::read_dir(path) else {
        return false;
    };
    entries
        .filter_map(Result::ok)
        .any(|entry| entry.path().join(FILE_NAME).exists())
}

/// Looks at what a path leads to, without loading anything.
#[must_use]
pub fn look(path: &Path, trust: &Arc<Trust>) -> (Kind, Discovery) {
    let kind = kind_of(path);
    let discovery = match kind {
        Kind::Plugin | Kind::Library | Kind::Package => discover_one(path, trust),
        Kind::Directory => discover_trusted(path, trust),
    };
    (kind, discovery)
}

/// Checks what [`look`] found at a path. Blocks while plugins are loaded, one after the other.
#[must_use]
pub fn check(path: &Path, kind: Kind, discovery: Discovery, options: &Options<'_>) -> Checked {
    let mut checked = Checked {
        kind,
        plugins: Vec::new(),
        findings: Vec::new(),
    };
    for problem in discovery.problems {
        checked.findings.push(Finding {
            next_step: problem.next_step(),
            fault: problem.fault(),
            path: problem.path,
            plugin: problem.plugin.map(|plugin| plugin.to_string()),
            version: problem.version.map(|version| version.to_string()),
            message: problem.cause.to_string(),
        });
    }
    if kind == Kind::Directory && discovery.found.is_empty() && checked.findings.is_empty() {
        // A host would run and serve nothing, which is hardly what anybody means.
        let (message, next_step) = match instead_of_plugins(path) {
            Some(cause) => (cause.to_string(), cause.next_step()),
            None => (
                "there is no plugin".to_owned(),
                format!(
                    "name a plugin's directory, which has a {FILE_NAME} or a library, or a directory of such"
                ),
            ),
        };
        checked.findings.push(Finding {
            path: path.to_owned(),
            plugin: None,
            version: None,
            message,
            next_step,
            fault: Fault::Operator,
        });
    }
    for candidate in discovery.found {
        let (plugin, findings) = check_candidate(candidate, options);
        checked.plugins.push(plugin);
        checked.findings.extend(findings);
    }
    checked
}

fn check_candidate(candidate: Candidate, options: &Options<'_>) -> (CheckedPlugin, Vec<Finding>) {
    let metadata = &candidate.metadata;
    let mut findings = Vec::new();
    let mut find = |path: &Path, message: String, next_step: String, fault| {
        findings.push(Finding {
            path: path.to_owned(),
            plugin: Some(metadata.name.to_string()),
            version: Some(metadata.version.to_string()),
            message,
            next_step,
            fault,
        });
    };
    for mistake in candidate.warnings.iter().filter_map(|w| w.as_mistake()) {
        let file = candidate.directory.join(FILE_NAME);
        find(
            &file,
            mistake.to_string(),
            mistake.next_step(),
            Fault::Author,
        );
    }
    let mut fits = true;
    if let (Some(schema), Some(raw)) = (&metadata.config_schema, options.configuration)
        && let Err(error) = schema.check_raw(raw)
    {
        fits = false;
        find(
            &candidate.library_path,
            format!("the configuration does not fit the plugin's schema: {error}"),
            "correct the configuration".to_owned(),
            Fault::Operator,
        );
    }
    let settings = settings_of(metadata, options.operator);
    let (execution, failure_policy) = match &settings {
        Ok((said, _)) => (
            said.execution.unwrap_or(metadata.execution),
            said.failure_policy.unwrap_or(metadata.failure_policy),
        ),
        Err(_) => (metadata.execution, metadata.failure_policy),
    };
    let rehearsed = match (&settings, options.program) {
        (Ok((_, settings)), Some(program)) => {
            let configurations: &[&[u8]] = match &options.configuration {
                Some(configuration) if fits => &[configuration],
                _ => &[],
            };
            let rehearsed = Rehearsal {
                program,
                plugin: &metadata.name,
                version: &metadata.version,
                library: &candidate.bytes,
                own_schema: metadata.config_schema.is_none(),
                extent: Extent::All,
                settings,
                configurations,
                http_client: options.http_client,
                time: options.load_time,
            }
            .run();
            if let Err(error) = &rehearsed.result {
                find(
                    &candidate.library_path,
                    format!("it does not load: {error}"),
                    error.next_step().to_owned(),
                    fault_of(error),
                );
            }
            Some(rehearsed)
        }
        (Ok(_), None) => None,
        (Err(cause), _) => {
            find(
                &candidate.library_path,
                cause.to_string(),
                next_step_of(cause).to_owned(),
                Fault::Operator,
            );
            None
        }
    };
    let good = findings.is_empty();
    let plugin = CheckedPlugin {
        execution,
        failure_policy,
        rehearsed,
        good,
        candidate,
    };
    (plugin, findings)
}

/// The JSON Schema of a route's configuration: that of `plugin.json`, or else the one that the library
/// brings along. For that one this opens the library in a process of its own, which blocks.
///
/// # Errors
/// The library cannot be asked.
pub fn config_schema(
    candidate: &Candidate,
    program: &Path,
) -> Result<Option<Value>, RehearsalError> {
    let metadata = &candidate.metadata;
    if let Some(schema) = &metadata.config_schema {
        return Ok(Some(schema.source().clone()));
    }
    let rehearsed = Rehearsal {
        program,
        plugin: &metadata.name,
        version: &metadata.version,
        library: &candidate.bytes,
        own_schema: true,
        extent: Extent::Schema,
        settings: &Value::Null,
        configurations: &[],
        // Nothing of the plugin's runs but its constructors.
        http_client: &http_client::Settings {
            enabled: false,
            ..http_client::Settings::default()
        },
        time: rehearsal::TIME,
    }
    .run();
    rehearsed.result.map(|()| rehearsed.config_schema)
}

fn fault_of(error: &RehearsalError) -> Fault {
    match error {
        RehearsalError::NotTried(_)
        | RehearsalError::Refused {
            stage: Stage::Fit | Stage::Configure,
            ..
        } => Fault::Operator,
        _ => Fault::Author,
    }
}

fn next_step_of(cause: &LoadErrorCause) -> &'static str {
    match cause {
        LoadErrorCause::Settings(_) => {
            "correct `[plugins.NAME.settings]` of the configuration file"
        }
        _ => {
            "correct `settings` of plugin.json, or `[plugins.NAME.settings]` of the configuration file"
        }
    }
}
