//! Bodies: asked for through extra info, and sent in an answer.

use anyhow::{Context, Result};
use serde::Serialize;

use super::{Lines, Plan, Target, progress, sweep::HOST};
use crate::{
    calls::{Exchange, Phase, RecordedCall, Replies},
    floor::Model,
    load::{Load, Pace},
    measurement::{Spread, measure},
    servers::{Built, PluginCopy, Server},
};

/// Sizes, in MiB.
const SIZES: [usize; 2] = [1, 8];

/// Bodies of one size in one direction.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Body {
    pub(crate) server: String,
    /// `asked for`, or `in answers`.
    pub(crate) direction: &'static str,
    pub(crate) mebibytes: usize,
    /// GiB of bodies in a second, on one connection.
    pub(crate) rate: Spread,
    /// Microseconds of processor time of the server for each MiB.
    pub(crate) processor: Spread,
}

struct Case {
    direction: &'static str,
    mebibytes: usize,
    call: Vec<u8>,
    replies: Replies,
}

pub(super) fn run(plan: &Plan, built: &Built) -> Result<Vec<Body>> {
    let plugins = [PluginCopy::probe(0), PluginCopy::of("request-body-rewrite")];
    let host = Server::host(HOST, built, &plugins, &[])?;
    let mut asked = Vec::new();
    let mut answered = Vec::new();
    let mut answer_bytes = 0;
    for mebibytes in SIZES {
        let bytes = mebibytes << 20;
        let replies = Replies::new(bytes, &[])?;
        let case = |plugin: &str, configuration: &str, direction, replies: Replies| -> Result<_> {
            let mut exchange = Exchange::open(&host.socket)?;
            let key = format!("route#{plugin}{mebibytes}#ext-plugin-pre-req#1");
            let token = exchange.prepare(&key, plugin, configuration)?;
            let call = RecordedCall::load("say-browser", Phase::Request)?.with_token(token)?;
            let answer = exchange.call(&call, &replies).context(host.log())?;
            Ok((
                Case {
                    direction,
                    mebibytes,
                    call,
                    replies,
                },
                answer,
            ))
        };
        let (case_asked, answer) = case(
            "probe-000",
            r#"{"header":"measured","body":true}"#,
            "asked for",
            replies,
        )?;
        answer_bytes = answer;
        asked.push(case_asked);
        let configuration = serde_json::json!({ "new_body": "x".repeat(bytes) }).to_string();
        answered.push(
            case(
                "request-body-rewrite",
                &configuration,
                "in answers",
                Replies::default(),
            )?
            .0,
        );
    }
    let floor = Server::floor(Model::Epoll.name(), Model::Epoll, answer_bytes, true)?;
    let mut bodies = Vec::new();
    for case in &asked {
        let servers = [&floor, &host];
        let mut samples = servers.map(|_| Vec::new());
        for _ in 0..plan.rounds {
            for (server, samples) in servers.iter().zip(&mut samples) {
                samples.push(transfer(plan, server, case)?);
            }
        }
        bodies.extend(
            servers
                .iter()
                .zip(samples)
                .map(|(server, samples)| body(server, case, &samples)),
        );
    }
    for case in &answered {
        let samples: Result<Vec<_>> = (0..plan.rounds)
            .map(|_| transfer(plan, &host, case))
            .collect();
        bodies.push(body(&host, case, &samples?));
    }
    Ok(bodies)
}

/// GiB in a second, and processor time for a MiB.
fn transfer(plan: &Plan, server: &Server, case: &Case) -> Result<(f64, f64)> {
    progress(&format!("{} MiB, {}", case.mebibytes, case.direction));
    let load = Load {
        connections: 1,
        pace: Pace::Closed,
        warm_up: plan.warm_up,
        duration: plan.duration,
        calls: std::slice::from_ref(&case.call),
        replies: &case.replies,
    };
    let sample = measure(server, &load).with_context(|| server.log())?;
    let size = case.mebibytes as f64;
    Ok((sample.per_second * size / 1024.0, sample.processor / size))
}

fn body(server: &Server, case: &Case, samples: &[(f64, f64)]) -> Body {
    Body {
        server: server.name.clone(),
        direction: case.direction,
        mebibytes: case.mebibytes,
        rate: Spread::of(samples.iter().map(|(rate, _)| *rate)),
        processor: Spread::of(samples.iter().map(|(_, processor)| *processor)),
    }
}

pub(crate) fn lines(bodies: &[Body]) -> Lines {
    let line = |body: &Body| {
        (
            format!(
                "{}, bodies of {} MiB {}",
                body.server, body.mebibytes, body.direction
            ),
            format!(
                "{} GiB/s, {} us of processor time per MiB",
                body.rate.text(2),
                body.processor.text(0)
            ),
        )
    };
    bodies.iter().map(line).collect()
}

pub(super) fn targets(bodies: &[Body]) -> Vec<Target> {
    let own = bodies.iter().filter(|body| body.server == HOST);
    own.map(|body| {
        let what = format!("bodies of {} MiB {}", body.mebibytes, body.direction);
        Target::at_least(&what, 1.0, body.rate, " GiB/s")
    })
    .collect()
}
