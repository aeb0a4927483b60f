//! The reports of workers' deaths, as they lie in files below the directory of the listen address.

use std::{fs, io, path::Path};

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Api;
use crate::{
    control::{
        extract::Named,
        problem::{Problem, Refused},
    },
    crash::{REPORT_ENDING, Report},
};

/// The deaths of which reports are kept.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Crashes {
    /// The newest first.
    crashes: Vec<Crash>,
}

/// A death in one line.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Crash {
    /// Names its report.
    id: String,
    /// When it was judged, in UTC.
    at: String,
    /// The process.
    pid: u32,
    /// What happened and whose doing it was.
    summary: String,
    /// The plugin whose doing it was, where that is certain.
    plugin: Option<String>,
    /// Its version.
    version: Option<String>,
    /// Calls that were open.
    open_calls: usize,
}

/// The reports of workers' deaths
#[utoipa::path(get, path = "/v1/crashes", tag = "host", responses((status = 200, body = Crashes)))]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<Crashes>, Refused> {
    let directory = api.reports.clone();
    let read = tokio::task::spawn_blocking(move || read_all(&directory)).await;
    let crashes = read.map_err(Refused::unavailable)?;
    let crashes = crashes.map_err(|error| Refused::unavailable(format!("the reports: {error}")))?;
    Ok(Json(Crashes { crashes }))
}

/// One report
///
/// As its file has it: cause, plugin and how that is known, open calls, threads inside plugins,
/// backtrace.
#[utoipa::path(
    get,
    path = "/v1/crashes/{id}",
    tag = "host",
    params(("id", description = "As the list names it")),
    responses(
        (status = 200, body = serde_json::Value),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such report"),
    )
)]
pub(super) async fn show(State(api): State<Api>, Named(id): Named) -> Result<Json<Value>, Refused> {
    let missing =
        || Refused::not_found(format!("there is no report `{id}`: /v1/crashes lists them"));
    // A name of one file, and no way to another.
    if id.contains(['/', '\0']) || id.starts_with('.') {
        return Err(missing());
    }
    let path = api.reports.join(format!("{id}{REPORT_ENDING}"));
    let read = tokio::task::spawn_blocking(move || fs::read(path)).await;
    let bytes = read.map_err(Refused::unavailable)?.map_err(|_| missing())?;
    serde_json::from_slice(&bytes)
        .map(Json)
        .map_err(|error| Refused::unavailable(format!("the report cannot be read: {error}")))
}

/// What a process has died of, where a report of it is there.
pub(super) fn of_process(directory: &Path, pid: u32) -> Option<Report> {
    let names = format!("-{pid}{REPORT_ENDING}");
    let mut found: Vec<_> = fs::read_dir(directory)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.to_string_lossy().ends_with(&names))
        .collect();
    found.sort_unstable();
    serde_json::from_slice(&fs::read(found.pop()?).ok()?).ok()
}

/// Their number is bounded by whoever writes them.
fn read_all(directory: &Path) -> io::Result<Vec<Crash>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut crashes: Vec<Crash> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_str()?;
            let id = name.strip_suffix(REPORT_ENDING)?.to_owned();
            let report: Report = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
            Some(crash(id, &report))
        })
        .collect();
    crashes.sort_unstable_by(|one, other| other.id.cmp(&one.id));
    Ok(crashes)
}

fn crash(id: String, report: &Report) -> Crash {
    let blamed = report.blamed.as_ref();
    let known = blamed.and_then(|blamed| blamed.generation.known.as_ref());
    Crash {
        id,
        at: report.at.clone(),
        pid: report.pid,
        summary: report.to_string(),
        plugin: known.map(|known| known.name.clone()),
        version: known.map(|known| known.version.clone()),
        open_calls: report.open_calls.len() + report.calls_left_out,
    }
}
