//! A thousand plugins and a hundred thousand live tokens, beside one of each.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::{
    Lines, Plan, Target, progress,
    sweep::{Contestant, HOST, ONE_HEADER, rounds},
};
use crate::{
    calls::{Exchange, Phase, RecordedCall, Replies},
    load::{Load, Pace},
    measurement::{Measurement, Spread, measure},
    servers::{Built, PluginCopy, Server, Staged},
};

const PLUGINS: usize = 1_000;
const TOKENS: usize = 100_000;

/// What size costs.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Scale {
    /// Seconds from the start of the process to the first answer of the plugin that is found last.
    pub(crate) start_up: f64,
    /// Processor time of a call of one of the routes, beside that of a host with one plugin and one token.
    pub(crate) cost: Spread,
    /// The same where calls go to all routes in turn: no cache holds a thousand libraries.
    pub(crate) cost_in_turn: Spread,
    /// Bytes that a token adds to resident memory, key and configuration not counted.
    pub(crate) token_bytes: f64,
    /// Bytes of a token's key, plugin name and configuration.
    pub(crate) configuration_bytes: f64,
    /// MiB of resident memory with all plugins and no token.
    pub(crate) plugins_resident: f64,
}

pub(super) fn run(plan: &Plan, built: &Built) -> Result<Scale> {
    progress("1,000 plugins and 100,000 tokens");
    let one = Server::host(HOST, built, &[PluginCopy::probe(0)], &[])?;
    let (one, _) = Contestant::new(one, "probe-000", ONE_HEADER)?;

    let copies: Vec<_> = (0..PLUGINS).map(PluginCopy::probe).collect();
    let staged = Staged::host(built, &copies, &[])?;
    let began = Instant::now();
    let many = staged.start("plugin-host, 1,000 plugins")?;
    let recorded = RecordedCall::load("say-browser", Phase::Request)?;
    let mut exchange = Exchange::open(&many.socket)?;
    let last = exchange.prepare("route#last#ext-plugin-pre-req#1", "probe-999", ONE_HEADER)?;
    exchange
        .call(&recorded.with_token(last)?, &Replies::default())
        .with_context(|| many.log())?;
    let start_up = began.elapsed().as_secs_f64();
    let before = settled(&many)?;

    let mut calls = Vec::with_capacity(TOKENS);
    let mut configuration_bytes = 0;
    for number in 0..TOKENS {
        let plugin = format!("probe-{:03}", number % PLUGINS);
        let key = format!("route#{number}#ext-plugin-pre-req#1");
        let configuration = format!(r#"{{"header":"measured {number}"}}"#);
        configuration_bytes += plugin.len() + key.len() + configuration.len();
        let token = exchange.prepare(&key, &plugin, &configuration)?;
        calls.push(recorded.with_token(token)?);
    }
    let many = Contestant {
        server: many,
        calls,
    };
    // All chains are compiled, and called, before memory is counted.
    let replies = Replies::default();
    let load = Load {
        connections: 64,
        pace: Pace::Closed,
        warm_up: Duration::ZERO,
        duration: Duration::from_secs(2),
        calls: &many.calls,
        replies: &replies,
    };
    measure(&many.server, &load).with_context(|| many.server.log())?;
    let after = settled(&many.server)?;

    let same_call = many.calls[..1].to_vec();
    let in_turn = rounds(plan, &[&one, &many], &[(64, Pace::Closed)])?;
    let many = Contestant {
        calls: same_call,
        ..many
    };
    let same = rounds(plan, &[&one, &many], &[(64, Pace::Closed)])?;
    let cost = |measured: &[Measurement]| match measured {
        [one, many] => Ok(many.ratio(one, |sample| sample.processor)),
        _ => bail!("two hosts were measured"),
    };
    let tokens = TOKENS as f64;
    let configuration_bytes = configuration_bytes as f64 / tokens;
    Ok(Scale {
        start_up,
        cost: cost(&same)?,
        cost_in_turn: cost(&in_turn)?,
        token_bytes: (after - before) / tokens - configuration_bytes,
        configuration_bytes,
        plugins_resident: before / f64::from(1 << 20),
    })
}

/// Resident bytes once they no longer change.
fn settled(server: &Server) -> Result<f64> {
    let mut last = server.tree.resident_bytes()?;
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let now = server.tree.resident_bytes()?;
        if now == last || Instant::now() > end {
            return Ok(now as f64);
        }
        last = now;
    }
}

pub(crate) fn lines(scale: &Scale) -> Lines {
    [
        (
            "1,000 plugins: from start to an answer of the last",
            format!("{:.2} s", scale.start_up),
        ),
        (
            "1,000 plugins: resident memory",
            format!("{:.0} MiB", scale.plugins_resident),
        ),
        (
            "100,000 tokens: memory of each",
            format!(
                "{:.0} bytes, and {:.0} of configuration",
                scale.token_bytes, scale.configuration_bytes
            ),
        ),
        (
            "processor time of a call beside one plugin and one token: of one route",
            scale.cost.text(2),
        ),
        (
            "processor time of a call beside one plugin and one token: of all routes in turn",
            scale.cost_in_turn.text(2),
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

pub(super) fn targets(scale: &Scale) -> Vec<Target> {
    let one = |value| Spread::of([value]);
    vec![
        Target::at_most(
            "start-up with 1,000 plugins",
            2.0,
            one(scale.start_up),
            " s",
        ),
        Target::at_most(
            "processor time of a call with 1,000 plugins and 100,000 tokens beside one",
            1.1,
            scale.cost,
            "",
        ),
        Target::at_most(
            "memory of a token beside its configuration",
            1024.0,
            one(scale.token_bytes),
            " bytes",
        ),
    ]
}
