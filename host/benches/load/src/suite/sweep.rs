//! The same call, on runners and echo servers: as fast as they can over a number of connections, and at a
//! fixed rate.

use anyhow::{Context, Result};

use super::{NO_SPIN, Plan, Target, progress};
use crate::{
    calls::{Exchange, Phase, RecordedCall, Replies},
    floor::Model,
    load::{Load, Pace},
    measurement::{Measurement, measure},
    servers::{Built, PluginCopy, Server},
};

/// A browser's request through a real gateway.
const RECORDING: &str = "say-browser";

/// One header is set.
pub(super) const ONE_HEADER: &str = r#"{"header":"measured"}"#;

/// What every runner can do: answer with a header and a text.
const SAY: &str = r#"{"body":"hello"}"#;

/// Name of the server that the targets are about.
pub(crate) const HOST: &str = "plugin-host";

/// Calls in a second of the fixed rate.
const RATE: u32 = 1000;

/// A server with the call that it gets.
pub(super) struct Contestant {
    pub(super) server: Server,
    pub(super) calls: Vec<Vec<u8>>,
}

impl Contestant {
    /// Prepares a plugin with a configuration and makes sure that a call is answered; gives the size of
    /// the answer as well.
    pub(super) fn new(server: Server, plugin: &str, configuration: &str) -> Result<(Self, usize)> {
        let name = server.name.clone();
        let prepared = || -> Result<_> {
            let mut exchange = Exchange::open(&server.socket)?;
            let token = exchange.prepare("route#1#ext-plugin-pre-req#1", plugin, configuration)?;
            let call = RecordedCall::load(RECORDING, Phase::Request)?.with_token(token)?;
            let answer_bytes = exchange.call(&call, &Replies::default())?;
            Ok((call, answer_bytes))
        };
        let (call, answer_bytes) =
            prepared().with_context(|| format!("{name} does not answer:\n{}", server.log()))?;
        Ok((
            Self {
                server,
                calls: vec![call],
            },
            answer_bytes,
        ))
    }

    /// An echo server, which takes any call.
    pub(super) fn floor(server: Server, call: Vec<u8>) -> Self {
        Self {
            server,
            calls: vec![call],
        }
    }
}

/// All servers, running.
pub(super) struct Contestants(Vec<Contestant>);

impl Contestants {
    pub(super) fn start(plan: &Plan, built: &Built) -> Result<Self> {
        let host = |name: &str, flags: &[String]| {
            Server::host(
                name,
                built,
                &[PluginCopy::probe(0), PluginCopy::of("say")],
                flags,
            )
        };
        let (own, answer_bytes) = Contestant::new(host(HOST, &[])?, "probe-000", ONE_HEADER)?;
        let call = own.calls[0].clone();
        let mut all = Vec::new();
        for model in [Model::Epoll, Model::Tokio, Model::Threads] {
            let server = Server::floor(model.name(), model, answer_bytes, false)?;
            all.push(Contestant::floor(server, call.clone()));
        }
        all.push(own);
        for (name, flags) in &plan.variants {
            let flags: Vec<_> = flags.split_whitespace().map(str::to_owned).collect();
            let server = host(&format!("{HOST} {name}"), &flags)?;
            all.push(Contestant::new(server, "probe-000", ONE_HEADER)?.0);
        }
        let mut others = Vec::new();
        for (name, command) in &plan.runners {
            others.push(Server::command(name, command)?);
        }
        for (name, socket) in &plan.sockets {
            others.push(Server::running(name, socket.as_ref())?);
        }
        if !others.is_empty() {
            // With the same plugin as those.
            others.push(host(&format!("{HOST}, say"), &[])?);
        }
        for server in others {
            all.push(Contestant::new(server, "say", SAY)?.0);
        }
        Ok(Self(all))
    }

    fn all(&self) -> Vec<&Contestant> {
        self.0.iter().collect()
    }

    pub(super) fn sweep(&self, plan: &Plan) -> Result<Vec<Measurement>> {
        let loads: Vec<_> = plan
            .connections
            .iter()
            .map(|&n| (n, Pace::Closed))
            .collect();
        rounds(plan, &self.all(), &loads)
    }

    pub(super) fn at_a_rate(&self, plan: &Plan) -> Result<Vec<Measurement>> {
        rounds(plan, &self.all(), &[(8, Pace::PerSecond(RATE))])
    }
}

/// Each load on each contestant, in every round.
pub(super) fn rounds(
    plan: &Plan,
    contestants: &[&Contestant],
    loads: &[(usize, Pace)],
) -> Result<Vec<Measurement>> {
    let replies = Replies::default();
    let mut measurements = Vec::new();
    for round in 0..plan.rounds {
        for (connections, pace) in loads {
            progress(&format!(
                "round {} of {}: {connections} connections",
                round + 1,
                plan.rounds
            ));
            // Each begins in its turn: whoever comes first finds the machine at rest.
            let in_turn = contestants.iter().cycle().skip(round);
            for contestant in in_turn.take(contestants.len()) {
                let load = Load {
                    connections: *connections,
                    pace: *pace,
                    warm_up: plan.warm_up,
                    duration: plan.duration,
                    calls: &contestant.calls,
                    replies: &replies,
                };
                let server = &contestant.server;
                let sample = measure(server, &load).with_context(|| {
                    format!(
                        "{}, {connections} connections:\n{}",
                        server.name,
                        server.log()
                    )
                })?;
                let new = Measurement::new(&server.name, &load);
                let same = |known: &&mut Measurement| {
                    known.server == new.server && known.connections == new.connections
                };
                match measurements.iter_mut().find(same) {
                    Some(known) => known.samples.push(sample),
                    None => measurements.push(Measurement {
                        samples: vec![sample],
                        ..new
                    }),
                }
            }
        }
    }
    Ok(measurements)
}

/// A plugin that computes, on one event loop and on as many as there are cores.
pub(super) fn loops(plan: &Plan, built: &Built) -> Result<Vec<Measurement>> {
    let cores = std::thread::available_parallelism()?.get();
    let mut contestants = Vec::new();
    for loops in [1, cores.max(2)] {
        let name = format!("{HOST}, {loops} event loops");
        let flags = [format!("--event-loops={loops}")];
        let server = Server::host(&name, built, &[PluginCopy::probe(0)], &flags)?;
        let configuration = r#"{"header":"measured","compute_us":50}"#;
        contestants.push(Contestant::new(server, "probe-000", configuration)?.0);
    }
    let contestants: Vec<_> = contestants.iter().collect();
    rounds(plan, &contestants, &[(64, Pace::Closed)])
}

/// What the sweep says about the targets.
pub(super) fn targets(sweep: &[Measurement]) -> Vec<Target> {
    let find = |server: &str, connections| {
        sweep
            .iter()
            .find(|m| m.server == server && m.connections == connections)
    };
    let mut targets = Vec::new();
    if let (Some(own), Some(epoll)) = (find(HOST, 64), find(Model::Epoll.name(), 64)) {
        targets.push(Target::at_most(
            "processor time at 64 connections beside the epoll echo's",
            1.25,
            own.ratio(epoll, |sample| sample.processor),
            "",
        ));
    }
    for connections in [1, 8, 64] {
        if let (Some(own), Some(tokio)) = (
            find(HOST, connections),
            find(Model::Tokio.name(), connections),
        ) {
            targets.push(Target::at_least(
                &format!("throughput at {connections} connections beside the tokio echo's"),
                0.8,
                own.ratio(tokio, |sample| sample.per_second),
                "",
            ));
        }
    }
    let without_spin = format!("{HOST} {NO_SPIN}");
    if let (Some(own), Some(epoll)) = (find(&without_spin, 1), find(Model::Epoll.name(), 1)) {
        targets.push(Target::at_most(
            "p50 at 1 connection beside the epoll echo's, both without spin",
            1.1,
            own.ratio(epoll, |sample| sample.p50),
            "",
        ));
    }
    targets
}
