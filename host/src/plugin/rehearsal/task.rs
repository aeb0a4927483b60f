//! What travels between the process that rehearses and the one that started it: a task one way,
//! reports the other way.

use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Extent;
use crate::http_client;

/// Bytes of one line, at most: settings are the largest part of one.
const MAX_LINE_BYTES: u64 = 4 << 20;

/// What the plugin does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Nothing yet.
    Start,
    /// Its library is opened, and its layout checked.
    Open,
    /// It says what a route's configuration looks like.
    Schema,
    /// It is constructed, and its `on_load` runs.
    Load,
    /// A route's configuration is compared with that.
    Fit,
    /// It parses a route's configuration.
    Configure,
    /// Its `on_unload` runs.
    Unload,
}

/// What there is to do. The bytes follow it: library, then configurations.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    /// Who started the process.
    pub(super) parent: i32,
    pub(super) plugin: String,
    pub(super) version: String,
    pub(super) own_schema: bool,
    pub(super) extent: Extent,
    pub(super) settings: Value,
    pub(super) http_client: http_client::Settings,
    pub(super) library_bytes: u64,
    pub(super) configuration_bytes: Vec<u64>,
}

/// What has happened.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    /// A stage begins.
    Begins(Stage),
    /// The library's own schema of a route's configuration.
    Schema(Value),
    /// The stage that has begun ended badly, and why.
    Refused(String),
    /// All of it is done.
    Done,
}

/// Writes a line.
pub(super) fn write<T: Serialize>(mut to: impl Write, message: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}

/// Reads a line; none at the end.
pub(super) fn read<T: for<'de> Deserialize<'de>>(from: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    from.take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}
