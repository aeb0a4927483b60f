//! Tries a request out: sends it through a chain as the gateway would, and tells what each plugin makes
//! of it.
//!
//! The calls go over the host's own socket, so that every bound, policy and protection of a live call
//! holds for them too: they count as calls, and one in which the worker dies is a death like any other.
//! The chain is called once for the first plugin alone, once for the first two, and so on; what an
//! answer has more than the one before is that plugin's doing. Each part has a configuration of its own
//! that ends with the trial: what live routes share is not touched.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Json, extract::State};
use plugin_proto::err::Code;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use super::{Api, passing::LOOK_TIME};
use crate::{
    client::{
        ClientError, Connection, Field, Question,
        draft::{Draft, Header},
        effect::{Effect, Told},
        exchange::Exchange,
        target::Target,
        text::{shown, value},
    },
    control::{
        extract::Body,
        problem::{Problem, Refused},
        routes::ChainPlugin,
        trial::{Begun, Failures, Over, Wanted},
        worker,
    },
    plugin::registry::cut,
};

/// Trials at a time.
pub(super) const MAX_TRIALS: usize = 4;

/// Time for a trial to begin, and then for all of its calls together.
const TRIAL_TIME: Duration = Duration::from_secs(30);

/// Lines of a list that are told, at most.
const MAX_LINES: usize = 200;

/// Bytes of one line that are told, at most.
const MAX_LINE_BYTES: usize = 2_048;

/// Bytes of a body that are told, at most.
const MAX_BODY_BYTES: usize = 16 << 10;

/// Whoever tries something out.
#[derive(Debug)]
pub struct Trials {
    places: Arc<Semaphore>,
    count: AtomicU32,
}

impl Default for Trials {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(MAX_TRIALS)),
            count: AtomicU32::new(0),
        }
    }
}

/// A request, and the chain to send it through: the chain of a live configuration, or one of one's own.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Try {
    /// The token of the live configuration whose chain is tried, as `/v1/chains` and `/v1/tokens` list
    /// it.
    token: Option<u32>,
    /// Plugins of one's own choice in its place, in the order of execution.
    plugins: Option<Vec<TryPlugin>>,
    /// The request's method; without one GET, or POST where there is a body.
    method: Option<String>,
    /// What is requested: a path with its query, or a URL.
    #[serde(default = "root")]
    target: String,
    /// Headers of the request, or of the upstream's response where there is one. They replace those
    /// that are sent by themselves; one without value keeps such a one from being sent.
    #[serde(default)]
    headers: Vec<NamedValue>,
    /// Body of the request, or of the upstream's response where there is one.
    body: Option<String>,
    /// Where the request comes from; 127.0.0.1 where it is left out.
    #[schema(value_type = Option<String>)]
    client: Option<IpAddr>,
    /// The status of an upstream's response: then the chain runs on that, and not on the request.
    response_status: Option<u16>,
    /// Answers to variables that plugins ask for, beside those that follow from the request.
    #[serde(default)]
    variables: Vec<NamedValue>,
}

fn root() -> String {
    "/".to_owned()
}

/// A plugin, as a route names it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TryPlugin {
    /// `name` or `name@requirement`.
    name: String,
    /// Its configuration: a text as it is, anything else as JSON.
    #[serde(default)]
    configuration: Value,
}

/// A header or a variable.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NamedValue {
    /// Its name.
    name: String,
    /// Its value.
    value: Option<String>,
}

/// What came of a trial.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Tried {
    /// The gateway's key of the live configuration that was tried.
    route: Option<String>,
    /// What each plugin of the chain made of it.
    plugins: Vec<TriedPlugin>,
    /// What the gateway would do in the end.
    outcome: Outcome,
}

/// What one plugin made of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TriedPlugin {
    /// As the route names it.
    name: String,
    /// The version that ran, or would have.
    version: Option<String>,
    /// In one word.
    effect: PluginEffect,
    /// What it has changed or answered, one line each.
    changes: Vec<String>,
    /// What plugins before it had done and it has undone.
    undone: Vec<String>,
    /// Why it failed, or keeps the chain from running.
    reason: Option<String>,
    /// What was asked of the gateway, up to this plugin.
    questions: Vec<Asked>,
    /// How long the call up to this plugin took, in microseconds.
    microseconds: Option<u64>,
}

/// What one plugin made of a request, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum PluginEffect {
    /// It changed nothing.
    Passed,
    /// It changed something.
    Changed,
    /// It answered in place of the upstream.
    Stopped,
    /// It failed, and with it the call.
    Failed,
    /// It failed, and the call went on without it.
    Skipped,
    /// It keeps the chain from running.
    Refused,
    /// The call ended before it.
    NotReached,
}

/// Something that was asked of the gateway.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Asked {
    /// Which variable or body.
    question: String,
    /// The answer; none where there is no such thing.
    answer: Option<String>,
}

/// What the gateway would do.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Outcome {
    /// `unchanged`, `rewrite`, `stop`, `response` or `failed`.
    action: String,
    /// In a sentence.
    headline: String,
    /// Its parts, one line each.
    lines: Vec<String>,
    /// The body that goes on: text, or `{"hex": "..."}` for other bytes; its first 16 KiB.
    body: Option<Value>,
    /// Bytes of that body.
    body_bytes: Option<usize>,
    /// What a gateway makes of it that is not obvious.
    notes: Vec<String>,
}

/// Try a request out
///
/// Sends it through a chain as the gateway would, and tells what each plugin makes of it; no upstream is
/// called. The chain runs once for the first plugin alone, once for the first two, and so on: a plugin
/// that acts on something outside does so once for itself and once for each plugin after it. Its calls
/// count like others, but no configuration is shared with live routes.
#[utoipa::path(
    post,
    path = "/v1/try",
    tag = "routes",
    request_body = Try,
    responses(
        (status = 200, body = Tried),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "It cannot be understood"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such configuration"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "It took too long, or there is no room for it"),
    )
)]
pub(super) async fn try_out(
    State(api): State<Api>,
    Body(wanted): Body<Try>,
) -> Result<Json<Tried>, Refused> {
    let place = Arc::clone(&api.parts.trials.places)
        .try_acquire_owned()
        .map_err(|_| {
            Refused::unavailable(format!("{MAX_TRIALS} trials are on their way already"))
        })?;
    let serial = api.parts.trials.count.fetch_add(1, Ordering::Relaxed);
    let key = format!("plugin-host try {}.{serial}", std::process::id());
    let (exchange, chain) = wanted.checked(key)?;
    // To its end, also where whoever asked has gone: its tokens have to go too.
    let trying = tokio::spawn(async move {
        let _place = place;
        api.run(chain, exchange, serial).await
    });
    trying
        .await
        .map_err(|_| Refused::unavailable("the trial broke off"))?
        .map(Json)
}

impl Try {
    fn checked(self, key: String) -> Result<(Exchange, Wanted), Refused> {
        let bad =
            |field: &str, reason: String| Refused::bad_request(format!("`{field}`: {reason}"));
        let plugins = match (self.token, self.plugins) {
            (Some(_), None) => Vec::new(),
            (None, Some(plugins)) => plugins.into_iter().map(TryPlugin::into_pair).collect(),
            _ => {
                return Err(Refused::bad_request(
                    "say which chain: either `token` or `plugins`",
                ));
            }
        };
        let method = match self.method.as_deref() {
            None | Some("") => None,
            Some(method) => Some(
                method
                    .parse()
                    .map_err(|error| bad("method", format!("{error}")))?,
            ),
        };
        if let Some(status) = self.response_status
            && !(100..=999).contains(&status)
        {
            return Err(bad("response_status", "100 to 999".to_owned()));
        }
        let mut headers = Vec::new();
        for NamedValue { name, value } in self.headers {
            if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
                return Err(bad("headers", format!("`{name}` is no name of a header")));
            }
            headers.push(match value {
                Some(value) => Header::Given(Field::new(name, value)),
                None => Header::Without(name.into()),
            });
        }
        let variables = self.variables.into_iter();
        let draft = Draft {
            method,
            target: Target::parse(&self.target).map_err(|reason| bad("target", reason))?,
            headers,
            client: self.client.unwrap_or(Ipv4Addr::LOCALHOST.into()),
            body: self.body.map(String::into_bytes),
            status: self.response_status,
            variables: variables
                .map(|variable| Field {
                    name: variable.name.into(),
                    value: variable.value.map(String::into_bytes),
                })
                .collect(),
        };
        let wanted = Wanted {
            key,
            token: self.token,
            plugins,
        };
        Ok((draft.complete(), wanted))
    }
}

impl TryPlugin {
    fn into_pair(self) -> (String, String) {
        let configuration = match self.configuration {
            Value::Null => String::new(),
            Value::String(text) => text,
            other => other.to_string(),
        };
        (self.name, configuration)
    }
}

/// A call up to one plugin.
struct Step {
    made: Result<Told, ClientError>,
    questions: Vec<Asked>,
    took: Duration,
}

impl Api {
    async fn run(&self, wanted: Wanted, exchange: Exchange, id: u32) -> Result<Tried, Refused> {
        let key = wanted.key.clone();
        let too_long = |_| {
            Refused::unavailable(format!(
                "the chain was not through after {} s",
                TRIAL_TIME.as_secs()
            ))
        };
        let beginning = self.have_worker(worker::BEGIN_TRIAL, &wanted);
        let begun = tokio::time::timeout(TRIAL_TIME, beginning).await;
        let begun: Begun = begun.map_err(too_long)??;
        let listen = self.parts.config.listen.path().to_owned();
        let calling = call_all(&listen, &begun.tokens, &exchange, id);
        let steps = tokio::time::timeout(TRIAL_TIME, calling).await;
        let over = Over {
            key,
            tokens: begun.tokens.clone(),
        };
        // Where no worker answers, the tokens end by themselves, when their time is up.
        let ending = self.have_worker(worker::END_TRIAL, &over);
        let ended = tokio::time::timeout(LOOK_TIME, ending).await;
        let failures: Failures = ended.ok().and_then(Result::ok).unwrap_or_default();
        let steps = steps.map_err(too_long)?;
        Ok(told(begun, &exchange, steps, failures))
    }
}

/// Calls part after part of the chain, until one ends the call.
async fn call_all(listen: &Path, tokens: &[u32], exchange: &Exchange, id: u32) -> Vec<Step> {
    let mut steps = Vec::new();
    for token in tokens {
        let mut questions = Vec::new();
        let began = Instant::now();
        let made = call(listen, *token, id, exchange.clone(), &mut questions).await;
        let is_last = match &made {
            Ok(told) => told.failed || told.action == "stop",
            Err(_) => true,
        };
        steps.push(Step {
            made,
            questions,
            took: began.elapsed(),
        });
        if is_last {
            break;
        }
    }
    steps
}

async fn call(
    listen: &Path,
    token: u32,
    id: u32,
    mut exchange: Exchange,
    questions: &mut Vec<Asked>,
) -> Result<Told, ClientError> {
    let mut connection = Connection::open(listen).await?;
    let asked = |question: Question<'_>, answer: Option<&[u8]>| {
        if questions.len() < MAX_LINES {
            questions.push(Asked::new(question, answer));
        }
    };
    let effect: Effect = connection.exchange(token, id, &mut exchange, asked).await?;
    Ok(effect.told)
}

impl Asked {
    fn new(question: Question<'_>, answer: Option<&[u8]>) -> Self {
        let (question, answer) = match question {
            Question::Var(name) => (
                format!("variable {}", shown(name)),
                answer.map(|value| line(shown(value))),
            ),
            Question::RequestBody => ("request body".to_owned(), answer.map(bytes_of)),
            Question::ResponseBody => ("response body".to_owned(), answer.map(bytes_of)),
        };
        Self {
            question: line(question),
            answer,
        }
    }
}

fn bytes_of(body: &[u8]) -> String {
    format!("{} bytes", body.len())
}

/// Tells of each plugin what it has added.
fn told(begun: Begun, exchange: &Exchange, steps: Vec<Step>, failures: Failures) -> Tried {
    let mut before = untouched(exchange);
    let mut outcome = Outcome::of(&before);
    if begun.tokens.is_empty() && !begun.plugins.is_empty() {
        let headline = "the chain cannot run: the gateway answers 503, or lets the request go on where \
                        the route says `allow_degradation`";
        outcome = Outcome::failed(headline.to_owned());
    }
    let mut reasons = failures.reasons.into_iter();
    let mut steps = steps.into_iter();
    let mut plugins = Vec::new();
    for plugin in begun.plugins {
        let reason = reasons.next().flatten();
        let mut tried = TriedPlugin::new(plugin);
        if let Some(step) = steps.next() {
            tried.questions = step.questions;
            tried.microseconds = u64::try_from(step.took.as_micros()).ok();
            match step.made {
                Ok(told) => {
                    tried.compare(&told, &before, reason);
                    outcome = Outcome::of(&told);
                    before = told;
                }
                Err(error) => {
                    tried.effect = PluginEffect::Failed;
                    tried.reason = Some(line(reason.unwrap_or_else(|| why(&error))));
                    outcome = Outcome::failed(format!(
                        "{error}: the gateway answers 503, or lets the request go on where the route \
                         says `allow_degradation`"
                    ));
                }
            }
        }
        plugins.push(tried);
    }
    Tried {
        route: begun.of,
        plugins,
        outcome,
    }
}

fn why(error: &ClientError) -> String {
    match error {
        ClientError::Closed | ClientError::Io(_) => {
            format!("{error}: /v1/crashes tells whether the worker has died of it")
        }
        ClientError::Refused {
            code: Some(Code::ConfTokenNotFound),
            ..
        } => "another worker has taken over meanwhile: try again".to_owned(),
        ClientError::Refused { .. } => {
            format!("{error}; the log tells why, or a crash report does")
        }
        _ => error.to_string(),
    }
}

/// What a gateway does where no plugin does anything.
fn untouched(exchange: &Exchange) -> Told {
    match exchange.response(0) {
        None => Effect::of_request(crate::client::RequestEffect::Unchanged).told,
        Some(response) => {
            let nothing = crate::client::ResponseEffect {
                status: 0,
                headers: Vec::new(),
                body: None,
            };
            Effect::of_response(nothing, &response, exchange.method).told
        }
    }
}

impl TriedPlugin {
    fn new(plugin: ChainPlugin) -> Self {
        let effect = match plugin.refused {
            Some(_) => PluginEffect::Refused,
            None => PluginEffect::NotReached,
        };
        Self {
            name: plugin.name,
            version: plugin.version,
            effect,
            changes: Vec::new(),
            undone: Vec::new(),
            reason: plugin.refused.map(line),
            questions: Vec::new(),
            microseconds: None,
        }
    }

    fn compare(&mut self, now: &Told, before: &Told, reason: Option<String>) {
        let is_stop = now.action == "stop";
        let added = |of: &Told, other: &Told| -> Vec<String> {
            let lines = of.lines.iter().filter(|line| !other.lines.contains(line));
            lines.take(MAX_LINES).cloned().map(line).collect()
        };
        self.changes = added(now, before);
        if !is_stop {
            self.undone = added(before, now);
        }
        if let Some(body) = &now.body
            && now.body != before.body
            && (is_stop || now.action == "response")
        {
            self.changes.push(format!("body of {} bytes", body.len()));
        }
        let is_changed = now.body != before.body || !self.changes.is_empty();
        self.effect = match reason {
            Some(_) if now.failed => PluginEffect::Failed,
            Some(_) if !is_stop => PluginEffect::Skipped,
            _ if now.failed => PluginEffect::Failed,
            _ if is_stop => PluginEffect::Stopped,
            _ if is_changed || !self.undone.is_empty() => PluginEffect::Changed,
            _ => PluginEffect::Passed,
        };
        self.reason = reason.map(line);
    }
}

impl Outcome {
    fn of(told: &Told) -> Self {
        let body = told.body.as_deref();
        let lines = told.lines.iter().take(MAX_LINES).cloned();
        Self {
            action: match told.failed {
                true => "failed".to_owned(),
                false => told.action.to_owned(),
            },
            headline: told.headline.to_owned(),
            lines: lines.map(line).collect(),
            body: body.map(|body| value(&body[..text_end(body)])),
            body_bytes: body.map(<[u8]>::len),
            notes: told
                .notes
                .iter()
                .take(MAX_LINES)
                .cloned()
                .map(line)
                .collect(),
        }
    }

    fn failed(headline: String) -> Self {
        Self {
            action: "failed".to_owned(),
            headline,
            lines: Vec::new(),
            body: None,
            body_bytes: None,
            notes: Vec::new(),
        }
    }
}

fn line(text: String) -> String {
    cut(text, MAX_LINE_BYTES)
}

/// Where to cut a body: not within a character, should it be text.
fn text_end(body: &[u8]) -> usize {
    let end = body.len().min(MAX_BODY_BYTES);
    match std::str::from_utf8(&body[..end]) {
        Err(error) if end < body.len() && error.error_len().is_none() => error.valid_up_to(),
        _ => end,
    }
}
