//! Shows a call: to people as it happens, to scripts as one JSON object at its end.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use plugin_proto::err::Code;
use serde_json::{Value, json};

use crate::cli::FAILURE;
use crate::cli::output::{self, Paint, shown};
use crate::client::effect::{Answer, Effect};
use crate::client::exchange::Exchange;
use crate::client::text::value;
use crate::client::{ClientError, Field, Question, RequestEffect};

/// Bytes of a body that people are shown.
const SHOWN_BODY: usize = 16 * 1024;

/// What has been seen of a call.
pub(super) struct Show {
    json: bool,
    paint: Paint,
    seen: serde_json::Map<String, Value>,
    questions: Vec<Value>,
    took: Duration,
    /// Why the plugins that were to be called cannot run.
    closed: Option<String>,
}

impl Show {
    pub(super) fn new(json: bool, paint: Paint, exchange: &Exchange) -> Self {
        let phase = match exchange.upstream {
            None => "request",
            Some(_) => "response",
        };
        let mut show = Self {
            json,
            paint,
            seen: serde_json::Map::new(),
            questions: Vec::new(),
            took: Duration::ZERO,
            closed: None,
        };
        show.record("phase", json!(phase));
        show
    }

    /// The call's number: it finds the call in the host's log, among others of this program.
    pub(super) fn id(&self) -> u32 {
        std::process::id()
    }

    pub(super) fn prepare(&mut self, plugins: &[Field]) {
        let names: Vec<_> = plugins.iter().map(|plugin| shown(&plugin.name)).collect();
        self.say(&format!("> prepare   {}", names.join(", ")));
    }

    pub(super) fn token(&mut self, token: u32, took: Duration) {
        self.record("token", json!(token));
        self.record("prepare_us", json!(microseconds(took)));
        self.say(&format!("< token     {token}  {}", self.time(took)));
    }

    pub(super) fn call(&mut self, exchange: &Exchange) {
        match &exchange.upstream {
            None => self.say(&format!(
                "> request   {} {}",
                exchange.method, exchange.target.raw
            )),
            Some(upstream) => self.say(&format!(
                "> response  {} to {} {}",
                upstream.status, exchange.method, exchange.target.raw
            )),
        }
    }

    pub(super) fn question(&mut self, question: Question<'_>, answer: Option<&[u8]>) {
        let (kind, name) = match question {
            Question::Var(name) => ("variable", Some(name)),
            Question::RequestBody => ("request_body", None),
            Question::ResponseBody => ("response_body", None),
        };
        self.questions.push(json!({
            "question": kind,
            "name": name.map(value),
            "answer": answer.map(value),
        }));
        let asked = match name {
            Some(name) => format!("the variable {}", shown(name)),
            None => format!("the {}", kind.replace('_', " ")),
        };
        let answered = match (name, answer) {
            (_, None) => "there is none".to_owned(),
            (Some(_), Some(answer)) => format!("`{}`", shown(answer)),
            (None, Some(body)) => format!("{} bytes", body.len()),
        };
        self.say(&format!("< asks for  {asked}"));
        self.say(&format!("> answers   {answered}"));
    }

    pub(super) fn took(&mut self, took: Duration) {
        self.took = took;
        self.record("call_us", json!(microseconds(took)));
    }

    /// The host says why the call had to fail, whatever the request.
    pub(super) fn closed(&mut self, reason: String) {
        self.record("closed", json!(reason));
        self.say(&format!("< closed    {}", shown(reason.as_bytes())));
        self.closed = Some(reason);
    }

    /// Shows the answer, and gives the exit code.
    pub(super) fn effect(mut self, effect: &Effect) -> u8 {
        let told = &effect.told;
        let result = match told.failed {
            true => "failed",
            false => "answered",
        };
        let log = self.log_hint();
        if self.json {
            self.record("effect", effect_json(effect));
            self.record("notes", json!(told.notes));
            if told.failed {
                let error =
                    json!({"code": Value::Null, "message": told.headline, "next_step": log});
                self.record("error", error);
            }
        }
        let mut text = String::new();
        let action = format!("< {:<9}", told.action);
        let action = match told.failed {
            true => self.paint.bad(&action),
            false => self.paint.good(&action),
        };
        let _ = writeln!(text, "{action} {}  {}", told.headline, self.time(self.took));
        if !told.lines.is_empty() {
            let _ = writeln!(text, "\n{}", told.lines.join("\n"));
        }
        if let Some(body) = &told.body {
            let _ = writeln!(text, "\n{}", body_text(body));
        }
        if !told.notes.is_empty() || told.failed {
            text.push('\n');
        }
        for note in &told.notes {
            let _ = writeln!(text, "{} {note}", self.paint.dim("note:"));
        }
        if told.failed {
            let _ = writeln!(text, "{} {log}", self.paint.dim("next:"));
        }
        let written = self.end(result, &text);
        if told.failed { FAILURE } else { written }
    }

    /// Shows why there is no answer, and gives the exit code.
    pub(super) fn error(mut self, error: &ClientError, socket: &Path) -> u8 {
        let next = self.next_step(error, socket);
        if self.json {
            let code = match error {
                ClientError::Refused {
                    code: Some(code), ..
                } => match code {
                    Code::BadRequest => json!("BAD_REQUEST"),
                    Code::ServiceUnavailable => json!("SERVICE_UNAVAILABLE"),
                    Code::ConfTokenNotFound => json!("CONF_TOKEN_NOT_FOUND"),
                },
                _ => Value::Null,
            };
            let error = json!({"code": code, "message": error.to_string(), "next_step": next});
            self.record("error", error);
        }
        let text = format!(
            "{} {error}\n{} {next}\n",
            self.paint.bad("failed:"),
            self.paint.dim("next:")
        );
        self.end("failed", &text);
        FAILURE
    }

    fn next_step(&self, error: &ClientError, socket: &Path) -> String {
        match error {
            ClientError::Connect { source, .. } => match source.kind() {
                std::io::ErrorKind::NotFound => format!(
                    "start a host there: plugin-host run --listen {} --plugin-dir DIR",
                    socket.display()
                ),
                std::io::ErrorKind::ConnectionRefused => "the host that bound it is gone: start one".to_owned(),
                std::io::ErrorKind::PermissionDenied => {
                    "the socket is not writable for you: see --socket-mode of the host".to_owned()
                }
                _ => "is a host listening there?".to_owned(),
            },
            ClientError::Refused {
                code: Some(Code::ServiceUnavailable),
                ..
            } => format!(
                "the gateway answers 503, or lets the request go on where the route says `allow_degradation`; {}",
                self.log_hint()
            ),
            ClientError::Refused {
                code: Some(Code::ConfTokenNotFound),
                ..
            } => "the host dropped the token that it had just given: too many configurations, see its --max-tokens".to_owned(),
            ClientError::TooLarge(_) => {
                "a gateway closes the connection then, and answers 503".to_owned()
            }
            _ => format!("the gateway answers 503; {}", self.log_hint()),
        }
    }

    fn log_hint(&self) -> String {
        if self.closed.is_some() {
            return "correct the configuration, or put the plugin right, as it says".to_owned();
        }
        format!(
            "the host's log has the reason: look for `plugin-host call`, request_id={}",
            self.id()
        )
    }

    fn end(&mut self, result: &str, text: &str) -> u8 {
        if !self.json {
            return output::print(text);
        }
        let mut object = serde_json::Map::new();
        object.insert("result".to_owned(), json!(result));
        object.append(&mut self.seen);
        object.insert("questions".to_owned(), json!(self.questions));
        output::print(&format!("{:#}\n", Value::Object(object)))
    }

    fn record(&mut self, key: &str, value: Value) {
        self.seen.insert(key.to_owned(), value);
    }

    /// A line for people, at once.
    fn say(&self, line: &str) {
        if !self.json {
            output::print(&format!("{line}\n"));
        }
    }

    fn time(&self, took: Duration) -> String {
        let milliseconds = took.as_secs_f64() * 1e3;
        self.paint.dim(&format!("({milliseconds:.2} ms)"))
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn effect_json(effect: &Effect) -> Value {
    let action = effect.told.action;
    match &effect.answer {
        Answer::Request(RequestEffect::Unchanged) => json!({"action": action}),
        Answer::Request(RequestEffect::Stop(stop)) => json!({
            "action": action,
            "status": stop.status,
            "headers": fields(&stop.headers),
            "body": stop.body.as_deref().map(value),
        }),
        Answer::Request(RequestEffect::Rewrite(rewrite)) => json!({
            "action": action,
            "path": rewrite.path.as_deref().map(value),
            "headers": fields(&rewrite.headers),
            "args": fields(&rewrite.args),
            "response_headers": fields(&rewrite.response_headers),
            "body": rewrite.body.as_deref().map(value),
        }),
        Answer::Response(response) => json!({
            "action": action,
            "status": response.status,
            "headers": fields(&response.headers),
            "body": response.body.as_deref().map(value),
        }),
    }
}

fn fields(fields: &[Field]) -> Value {
    fields
        .iter()
        .map(
            |field| json!({"name": value(&field.name), "value": field.value.as_deref().map(value)}),
        )
        .collect()
}

fn body_text(body: &[u8]) -> String {
    let cut = body.len().min(SHOWN_BODY);
    let text = match std::str::from_utf8(&body[..cut]) {
        Ok(text) => text,
        // A character may have been cut in two.
        Err(error) if cut < body.len() && error.valid_up_to() + 4 > cut => {
            std::str::from_utf8(&body[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return format!("({} bytes that are not text; --json has them)", body.len()),
    };
    let mut lines: Vec<_> = text.split('\n').map(shown_line).collect();
    if lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    let more = body.len() - text.len();
    if more > 0 {
        lines.push(format!("... and {more} bytes more; --json has them"));
    }
    lines.join("\n")
}

fn shown_line(line: &str) -> String {
    line.split('\t')
        .map(|part| shown(part.as_bytes()))
        .collect::<Vec<_>>()
        .join("\t")
}
