//! What the gateway does with an answer, in words.
//!
//! Much of it is not obvious (an empty body changes nothing, one header drops all others), and some
//! of it is a trap: those become notes. The rules are the tables in `docs/protocol.md`.

use plugin_proto::Method;

use super::text::shown;
use super::{Field, RequestEffect, Response, ResponseEffect, Rewrite, Stop};
use crate::server::conversation::RESPONSE_FAILED;

/// Response headers that the gateway takes from the upstream only.
const UPSTREAM_ONLY: [&str; 10] = [
    "connection",
    "content-length",
    "transfer-encoding",
    "location",
    "server",
    "www-authenticate",
    "content-encoding",
    "content-type",
    "content-location",
    "content-language",
];

/// An answer and what becomes of it.
#[derive(Debug)]
pub struct Effect {
    /// The answer as it came.
    pub answer: Answer,
    /// What becomes of it.
    pub told: Told,
}

/// The answer as it came.
#[derive(Debug)]
pub enum Answer {
    /// Of a request.
    Request(RequestEffect),
    /// Of an upstream's response.
    Response(ResponseEffect),
}

/// What the gateway does with an answer.
#[derive(Debug)]
pub struct Told {
    /// One word for it.
    pub action: &'static str,
    /// One sentence for it.
    pub headline: &'static str,
    /// Its parts, one line each.
    pub lines: Vec<String>,
    /// Its body, if there is one to show.
    pub body: Option<Vec<u8>>,
    /// What a gateway makes of it that is not obvious.
    pub notes: Vec<String>,
    /// It stands for a plugin that failed.
    pub failed: bool,
}

impl Effect {
    /// What becomes of a request.
    pub fn of_request(answer: RequestEffect) -> Self {
        let told = match &answer {
            RequestEffect::Unchanged => Told::new("unchanged", "the request goes on as it is"),
            RequestEffect::Stop(stop) => Told::stop(stop),
            RequestEffect::Rewrite(rewrite) => Told::rewrite(rewrite),
        };
        Self {
            answer: Answer::Request(answer),
            told,
        }
    }

    /// What becomes of an upstream's response.
    pub fn of_response(answer: ResponseEffect, upstream: &Response, method: Method) -> Self {
        let told = Told::response(&answer, upstream, method);
        Self {
            answer: Answer::Response(answer),
            told,
        }
    }
}

impl Told {
    fn new(action: &'static str, headline: &'static str) -> Self {
        Self {
            action,
            headline,
            lines: Vec::new(),
            body: None,
            notes: Vec::new(),
            failed: false,
        }
    }

    fn stop(stop: &Stop) -> Self {
        let mut told = Self::new("stop", "the client gets this, and nothing goes upstream");
        let status = match stop.status {
            0 | u16::MAX => 200,
            status => status,
        };
        told.lines.push(status.to_string());
        if status != stop.status {
            told.note(format!(
                "the answer's status is {}: the gateway takes it for 200",
                stop.status
            ));
        }
        if status < 200 {
            told.note(format!(
                "with status {status} the client hangs: keep to 200 to 599"
            ));
        }
        for header in &stop.headers {
            match &header.value {
                Some(value) => told.lines.push(line(&header.name, value)),
                None => told.note(format!(
                    "the header `{}` has no value: it is ignored",
                    shown(&header.name)
                )),
            }
        }
        if !has(&stop.headers, "content-type") {
            told.lines
                .push("content-type: text/plain; charset=utf-8 (the gateway's own)".to_owned());
        }
        if has(&stop.headers, "server") {
            told.note("the gateway overwrites `server`".to_owned());
        }
        if has(&stop.headers, "content-length") {
            told.note(
                "the gateway believes `content-length`, and truncates the body to it: leave it out"
                    .to_owned(),
            );
        }
        match &stop.body {
            Some(body) if !body.is_empty() => told.body = Some(body.clone()),
            _ if status >= 400 => {
                told.note("no body: the client gets the gateway's error page".to_owned())
            }
            _ => {}
        }
        told
    }

    fn rewrite(rewrite: &Rewrite) -> Self {
        let mut told = Self::new("rewrite", "the request goes on with these changes");
        if let Some(path) = &rewrite.path {
            told.lines.push(format!("path: {}", shown(path)));
            if !path.starts_with(b"/") {
                told.note("the path does not begin with `/`: the gateway answers 502".to_owned());
            }
        }
        for header in &rewrite.headers {
            let name = shown(&header.name);
            match header.value.as_deref() {
                Some(value) if !value.is_empty() => {
                    told.lines
                        .push(format!("set header {}", line(&header.name, value)));
                    if header.name.eq_ignore_ascii_case(b"host") {
                        told.note("`host` sets the upstream host".to_owned());
                    }
                }
                _ => told.lines.push(format!("delete header {name}")),
            }
        }
        let mut seen: Vec<&[u8]> = Vec::new();
        for argument in &rewrite.args {
            let name = shown(&argument.name);
            let verb = match seen.contains(&argument.name.as_slice()) {
                true => "add",
                false => "set",
            };
            seen.push(&argument.name);
            match &argument.value {
                Some(value) => told
                    .lines
                    .push(format!("{verb} argument {name}={}", shown(value))),
                None => told.lines.push(format!("delete argument {name}")),
            }
        }
        for header in &rewrite.response_headers {
            let value = header.value.as_deref().unwrap_or_default();
            told.lines.push(format!(
                "on the response, header {}",
                line(&header.name, value)
            ));
            if upstream_only(&header.name) {
                told.note(format!(
                    "the gateway takes `{}` of a response from the upstream only: ignored",
                    shown(&header.name)
                ));
            }
        }
        let repeated = |header: &&Field| {
            let same = |other: &&Field| other.name.eq_ignore_ascii_case(&header.name);
            rewrite.headers.iter().filter(same).count() > 1
        };
        if let Some(header) = rewrite.headers.iter().find(repeated) {
            told.note(format!(
                "of the repeated header `{}` the last one stands",
                shown(&header.name)
            ));
        }
        match &rewrite.body {
            Some(body) if body.is_empty() => {
                told.note("an empty body changes nothing: a body cannot be emptied".to_owned())
            }
            Some(body) => {
                told.lines
                    .push(format!("body replaced by {} bytes", body.len()));
                told.body = Some(body.clone());
            }
            None => {}
        }
        if told.lines.is_empty() {
            told.headline = "the request goes on as it is";
        }
        told
    }

    fn response(answer: &ResponseEffect, upstream: &Response, method: Method) -> Self {
        let mut told = Self::new(
            "response",
            "the client gets this in place of the upstream's response",
        );
        let status = match answer.status {
            0 => upstream.status,
            status => status,
        };
        told.lines.push(status.to_string());
        if answer.headers.is_empty() {
            let kept = upstream
                .headers
                .iter()
                .filter(|header| !upstream_only(&header.name));
            for header in kept {
                let value = header.value.as_deref().unwrap_or_default();
                told.lines.push(line(&header.name, value));
            }
            let lost = upstream
                .headers
                .iter()
                .filter(|header| upstream_only(&header.name));
            for header in lost {
                told.note(format!(
                    "the upstream's `{}` is lost: an answer without headers keeps the others only",
                    shown(&header.name)
                ));
            }
        }
        for header in &answer.headers {
            let value = header.value.as_deref().unwrap_or_default();
            told.lines.push(line(&header.name, value));
        }
        let bodiless = method == Method::Head || matches!(status, 204 | 304);
        match answer.body.as_deref() {
            Some(body) if !body.is_empty() => {
                if bodiless {
                    told.note("the client gets no body; the one here keeps the gateway from sending the request upstream a second time".to_owned());
                } else {
                    told.body = Some(body.to_vec());
                }
            }
            _ if method == Method::Head || matches!(upstream.status, 204 | 304) => told.note(
                "without a body in the answer, the gateway sends the request upstream a second time (--ask-method-for-head prevents it for HEAD)".to_owned(),
            ),
            _ => told.lines.push("the upstream's body".to_owned()),
        }
        if answer.status == 503 && answer.body.as_deref() == Some(RESPONSE_FAILED) {
            told.failed = true;
            told.headline =
                "a plugin failed: the client gets this in place of the upstream's response";
        }
        told
    }

    fn note(&mut self, note: String) {
        self.notes.push(note);
    }
}

fn line(name: &[u8], value: &[u8]) -> String {
    format!("{}: {}", shown(name), shown(value))
}

fn has(headers: &[Field], name: &str) -> bool {
    headers
        .iter()
        .any(|header| header.name.eq_ignore_ascii_case(name.as_bytes()) && header.value.is_some())
}

fn upstream_only(name: &[u8]) -> bool {
    UPSTREAM_ONLY
        .iter()
        .any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
}
