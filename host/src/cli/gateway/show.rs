//! What the development gateway prints: a line for each request, a block for each plugin call.

use std::time::{Duration, SystemTime};

use crate::cli::output::{self, Paint, shown};
use crate::client::effect;
use crate::gateway::event::{CallDone, Effect, Event, RequestDone};

/// How it is printed.
pub(super) struct Show {
    calls: bool,
    paint: Paint,
}

impl Show {
    pub(super) fn new(calls: bool, paint: Paint) -> Self {
        Self { calls, paint }
    }

    pub(super) fn event(&self, event: &Event<'_>) {
        match event {
            Event::Call(_) if !self.calls => {}
            Event::Call(call) => {
                output::print(&self.call(call));
            }
            Event::Request(request) => {
                output::print(&self.request(request));
            }
        }
    }

    fn call(&self, call: &CallDone) -> String {
        let plugins = match call.plugins.as_slice() {
            [] => "no plugin".to_owned(),
            plugins => plugins.join(", "),
        };
        let mut block = format!(
            "{} {} {} {} {}\n",
            self.paint.dim("->"),
            shown(call.request.as_bytes()),
            self.paint.dim(&format!(
                "route {} {}:",
                shown(call.route.as_bytes()),
                call.phase.name()
            )),
            shown(plugins.as_bytes()),
            self.paint.dim(&format!("{} us", call.took.as_micros())),
        );
        let mut line = |text: String| {
            block.push_str("   ");
            block.push_str(&text);
            block.push('\n');
        };
        let effect = match &call.result {
            Err(reason) => {
                line(self.paint.bad(&shown(reason.as_bytes())));
                line(match call.degraded {
                    true => "the request goes on without them (allow_degradation)".to_owned(),
                    false => "the client gets an error; the host's log tells why".to_owned(),
                });
                return block;
            }
            Ok(Effect::Request(effect)) => effect::Effect::of_request(effect.clone()),
            Ok(Effect::Response(effect)) => match (&call.response, call.method) {
                (Some(response), Some(method)) => {
                    effect::Effect::of_response(effect.clone(), response, method)
                }
                _ => return block,
            },
        };
        let told = effect.told;
        let headline = format!("{}: {}", told.action, told.headline);
        line(match told.failed || told.action == "stop" {
            true => self.paint.bad(&headline),
            false => self.paint.good(&headline),
        });
        for text in told.lines {
            line(format!("  {text}"));
        }
        if let Some(body) = told.body.filter(|_| told.action != "rewrite") {
            line(format!("  body of {} bytes", body.len()));
        }
        for note in told.notes {
            line(self.paint.dim(&format!("note: {note}")));
        }
        block
    }

    /// Nginx's combined form, then the time, and where it went.
    fn request(&self, request: &RequestDone) -> String {
        let [host, referer, agent] = &request.headers;
        let quoted = |value: &Option<Vec<u8>>| match value {
            Some(value) => shown(value).replace('"', "\\\""),
            None => "-".to_owned(),
        };
        let status = request.status.to_string();
        format!(
            "{} - - [{}] {} \"{}\" {} {} \"{}\" \"{}\" {} {}\n",
            request.client,
            local_time(request.received),
            quoted(host),
            shown(request.request.as_bytes()),
            match request.status {
                400.. => self.paint.bad(&status),
                _ => self.paint.good(&status),
            },
            request.sent,
            quoted(referer),
            quoted(agent),
            seconds(request.took),
            request.upstream.as_deref().unwrap_or("-"),
        )
    }
}

fn seconds(time: Duration) -> String {
    format!("{}.{:03}", time.as_secs(), time.subsec_millis())
}

/// As Nginx writes times, in UTC: `20/Nov/2026:17:54:37 +0000`.
fn local_time(time: SystemTime) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let iso = crate::gateway::variables::iso8601(time);
    // 2026-11-20T17:54:37+00:00
    let month = iso[5..7].parse::<usize>().unwrap_or(1);
    let month = MONTHS[(month.max(1) - 1) % 12];
    format!(
        "{}/{month}/{}:{} +0000",
        &iso[8..10],
        &iso[..4],
        &iso[11..19]
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn a_time_is_written_as_nginx_does() {
        let time = UNIX_EPOCH + Duration::from_secs(1_795_197_277);
        assert_eq!(local_time(time), "20/Nov/2026:17:54:37 +0000");
    }
}
