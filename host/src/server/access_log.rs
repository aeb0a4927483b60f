//! The access log: one line for each call, with what each plugin has made of it and how long that took,
//! and one for each request to a plugin's HTTP service.
//!
//! Only where operators ask for it: a line costs more than many a plugin. Every text that comes from a
//! client is bounded and quoted, so that it cannot look like a line of its own. Where lines go is not
//! known here.

use std::{
    fmt,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::Serialize;

use crate::{
    metrics::{
        plugin_calls::{Entry, Outcome},
        traffic::CallOutcome,
    },
    pipeline::{
        call::{CallBox, Phase},
        questions::Questions,
    },
    plugin::registry::{Generation, cut},
    tokens::Token,
};

/// Plugins that a line tells of, at most.
const MAX_PARTS: usize = 16;

/// Bytes of a path or a route's key in a line, at most.
const MAX_TEXT_BYTES: usize = 512;

/// Bytes of a line, at most; one that would be longer is told without its plugins, and with the
/// beginnings of path and key.
pub const MAX_LINE_BYTES: usize = 4_000;

/// Bytes of these beginnings; a byte may take six when it is written.
const SHORT_TEXT_BYTES: usize = 200;

/// Bytes of a version, at most.
const MAX_VERSION_BYTES: usize = 40;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Readable text.
    Text,
    /// One JSON object.
    Json,
}

/// Where lines go: takes a whole one, with its newline, and never waits.
pub type TakeLine = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// An access log that is kept.
#[derive(Clone)]
pub struct AccessLog {
    shape: Shape,
    take: TakeLine,
}

/// A request to a plugin's HTTP service.
#[derive(Debug, Clone, Copy)]
pub struct ServiceRequest<'r> {
    /// The client, where it is not on this machine's socket.
    pub client: Option<IpAddr>,
    /// As the client has written it.
    pub method: &'r str,
    /// Without the query.
    pub path: &'r str,
    /// What it is answered with.
    pub status: u16,
    /// Name and version of the plugin; none where no route led to one.
    pub plugin: Option<&'r str>,
}

/// What is known of a call.
#[derive(Debug)]
pub(super) struct Line {
    entry: Entry,
    token: Arc<Token>,
    questions: Arc<Questions>,
    request_id: u32,
    client: Option<String>,
    method: Option<&'static str>,
    path: Option<String>,
    /// The upstream's status in the response phase, and a plugin's where one has answered.
    pub(super) status: Option<u16>,
    parts: Vec<Part>,
}

/// A plugin's part in a call.
#[derive(Debug, Serialize)]
pub(super) struct Part {
    plugin: String,
    version: String,
    outcome: &'static str,
    /// Whether the call went on without a plugin that failed, as its policy says.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    skipped: bool,
    microseconds: f64,
}

impl Part {
    pub(super) fn new(generation: &Generation, outcome: Outcome, took: Duration) -> Self {
        Self {
            plugin: generation.name().to_string(),
            version: cut(generation.version().to_string(), MAX_VERSION_BYTES),
            outcome: outcome.label(),
            skipped: false,
            microseconds: microseconds(took),
        }
    }
}

impl Line {
    pub(super) fn new(entry: Entry, token: Arc<Token>, call: &CallBox) -> Self {
        let is_request = call.phase() == Phase::Request;
        Self {
            entry,
            token,
            questions: call.questions(),
            request_id: call.id(),
            client: call.client_ip().map(|client| client.to_string()),
            method: call
                .method()
                .filter(|_| is_request)
                .map(plugin_proto::Method::as_str),
            path: is_request
                .then(|| cut(String::from_utf8_lossy(call.path()).into(), MAX_TEXT_BYTES)),
            status: (!is_request).then(|| call.status()),
            parts: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, part: Part) {
        if self.parts.len() < MAX_PARTS {
            self.parts.push(part);
        }
    }

    pub(super) fn last_was_skipped(&mut self) {
        if let Some(last) = self.parts.last_mut() {
            last.skipped = true;
        }
    }
}

/// A line as it is written.
#[derive(Serialize)]
struct Written<'l> {
    time: String,
    route: String,
    request_id: u32,
    phase: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'l str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'l str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    outcome: &'static str,
    microseconds: f64,
    waited_microseconds: f64,
    plugins: &'l [Part],
}

/// A request to a service as it is written.
#[derive(Serialize)]
struct WrittenService<'r> {
    time: String,
    phase: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    method: &'r str,
    path: String,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin: Option<&'r str>,
    microseconds: f64,
}

impl AccessLog {
    /// One whose lines have this shape and go there.
    pub fn new(shape: Shape, take: TakeLine) -> Self {
        Self { shape, take }
    }

    /// Writes the line of a call that is over, after so long.
    pub(super) fn write(&self, line: &Line, outcome: CallOutcome, took: Duration) {
        let mut text = self.text(line, outcome, took, MAX_TEXT_BYTES, &line.parts);
        if text.len() > MAX_LINE_BYTES {
            text = self.text(line, outcome, took, SHORT_TEXT_BYTES, &[]);
        }
        (self.take)(text.as_bytes());
    }

    fn text(
        &self,
        line: &Line,
        outcome: CallOutcome,
        took: Duration,
        longest: usize,
        parts: &[Part],
    ) -> String {
        let path = line.path.clone().map(|path| cut(path, longest));
        let written = Written {
            time: now(),
            route: cut(line.token.key().into_owned(), longest),
            request_id: line.request_id,
            phase: line.entry.label(),
            client: line.client.as_deref(),
            method: line.method,
            path: path.as_deref(),
            status: line.status,
            outcome: outcome.label(),
            microseconds: microseconds(took),
            waited_microseconds: microseconds(line.questions.waited()),
            plugins: parts,
        };
        self.line(&written)
    }

    /// Writes the line of a request to a plugin's HTTP service, whose answer has begun after so long.
    pub fn write_service(&self, request: &ServiceRequest<'_>, took: Duration) {
        let written = WrittenService {
            time: now(),
            phase: "service",
            client: request.client.map(|client| client.to_string()),
            method: request.method,
            path: cut(request.path.to_owned(), MAX_TEXT_BYTES),
            status: request.status,
            plugin: request.plugin,
            microseconds: microseconds(took),
        };
        (self.take)(self.line(&written).as_bytes());
    }

    fn line(&self, written: &(impl Serialize + fmt::Display)) -> String {
        let mut text = match self.shape {
            Shape::Json => serde_json::to_string(written).unwrap_or_default(),
            Shape::Text => written.to_string(),
        };
        text.push('\n');
        text
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog")
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            time,
            request_id,
            phase,
            outcome,
            microseconds,
            waited_microseconds,
            ..
        } = self;
        write!(
            f,
            "{time} {phase} request_id={request_id} route={:?}",
            self.route
        )?;
        if let Some(client) = self.client {
            write!(f, " client={client}")?;
        }
        if let Some(method) = self.method {
            write!(f, " method={method}")?;
        }
        if let Some(path) = self.path {
            write!(f, " path={path:?}")?;
        }
        if let Some(status) = self.status {
            write!(f, " status={status}")?;
        }
        write!(
            f,
            " outcome={outcome} us={microseconds} waited_us={waited_microseconds}"
        )?;
        for (place, part) in self.plugins.iter().enumerate() {
            f.write_str(if place == 0 { " plugins=" } else { "," })?;
            let Part {
                plugin,
                version,
                outcome,
                microseconds,
                ..
            } = part;
            write!(f, "{plugin}@{version}:{outcome}")?;
            if part.skipped {
                f.write_str("(skipped)")?;
            }
            write!(f, ":{microseconds}us")?;
        }
        Ok(())
    }
}

impl fmt::Display for WrittenService<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.time, self.phase)?;
        if let Some(client) = &self.client {
            write!(f, " client={client}")?;
        }
        let (path, status, microseconds) = (&self.path, self.status, self.microseconds);
        write!(f, " method={} path={path:?} status={status}", self.method)?;
        if let Some(plugin) = self.plugin {
            write!(f, " plugin={plugin:?}")?;
        }
        write!(f, " us={microseconds}")
    }
}

fn now() -> String {
    humantime::format_rfc3339_micros(SystemTime::now()).to_string()
}

/// With one digit behind the point, which is what the clock is good for.
fn microseconds(took: Duration) -> f64 {
    (took.as_nanos() as f64 / 100.0).round() / 10.0
}
