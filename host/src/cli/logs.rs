//! `plugin-host logs`: the last lines of a running host's log, and those that come.

use clap::Args;
use http_body_util::BodyExt;
use hyper::{Method, body::Incoming};
use serde_json::Value;

use super::{
    hosts::{self, Host},
    output,
};
use crate::control::client::{self, ControlError, Target};

/// Lines that are shown of those that are there already, where it is not said how many.
const TAIL: usize = 100;

/// Show the log of a running host, all of it or of one plugin
///
/// Its last lines, which the host keeps in memory wherever its log goes: those of the plugins, of the
/// workers and of the supervisor.
#[derive(Debug, Args)]
#[command(after_help = super::HELP)]
pub(super) struct LogsArgs {
    /// Only lines about this plugin, and its own
    plugin: Option<String>,
    /// Go on with the lines that come
    #[arg(short, long)]
    follow: bool,
    /// How many of the lines that are there already
    #[arg(short = 'n', long, default_value_t = TAIL, value_name = "LINES")]
    tail: usize,
    /// Only lines of this level and above: error, warn, info, debug or trace
    #[arg(long)]
    level: Option<String>,
    #[command(flatten)]
    host: Host,
}

pub(super) fn logs(args: &LogsArgs) -> u8 {
    if !args.follow {
        let path = args.path("/v1/log/lines");
        return args.host.ask(Method::GET, &path, |answer| {
            let lines = answer["lines"].as_array();
            lines.into_iter().flatten().map(shown).collect()
        });
    }
    let target = match args.host.which.target() {
        Ok(target) => target,
        Err(error) => return error.complain(),
    };
    match hosts::run(follow(&target, args)) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => output::fail(&error.to_string()),
        Err(error) => output::fail(&error),
    }
}

impl LogsArgs {
    fn path(&self, path: &str) -> String {
        let mut path = format!("{path}?tail={}", self.tail);
        for (key, value) in [("plugin", &self.plugin), ("level", &self.level)] {
            if let Some(value) = value {
                path += &format!("&{key}={}", client::encoded(value));
            }
        }
        path
    }
}

/// Until the host ends, or nobody reads any more.
async fn follow(target: &Target, args: &LogsArgs) -> Result<u8, ControlError> {
    let path = args.path("/v1/log/follow");
    let response = client::open(target, Method::GET, &path, None).await?;
    if !response.status().is_success() {
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let body = serde_json::from_slice(&body)?;
        return Err(client::refusal(client::Answer { status, body }));
    }
    let mut stream = response.into_body();
    let mut text = Vec::new();
    while let Some(part) = next(&mut stream).await? {
        text.extend_from_slice(&part);
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            let Some(data) = line.strip_prefix(b"data: ") else {
                continue;
            };
            let line: Value = serde_json::from_slice(data)?;
            let shown = match args.host.json {
                true => format!("{line}\n"),
                false => shown(&line),
            };
            if !output::is_wanted(&shown) {
                return Ok(0);
            }
        }
    }
    Ok(output::fail(
        "the host has ended, or become another release",
    ))
}

async fn next(stream: &mut Incoming) -> Result<Option<Vec<u8>>, hyper::Error> {
    match stream.frame().await {
        None => Ok(None),
        Some(frame) => Ok(Some(frame?.into_data().unwrap_or_default().to_vec())),
    }
}

/// The host has taken out of it what a terminal could obey.
fn shown(line: &Value) -> String {
    format!("{}\n", line["line"].as_str().unwrap_or_default())
}
