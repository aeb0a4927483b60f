//! What a worker does for a trial: it makes tokens for the plugins of a chain, for the first alone, for
//! the first two, and so on, so that calls with them show what each plugin adds; at the end it tells
//! how these failed and drops the tokens.
//!
//! The calls themselves come in like every other one, through the socket of the gateway. A trial's
//! tokens have keys of their own, so that no configuration, and no state that hangs on one, is shared
//! with a live route; no other worker gets to know them. Configurations never leave the worker.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    problem::Refused,
    routes::{ChainPlugin, plugins_of},
};
use crate::tokens::{ChainState, PluginConf, Prepared, Token, Tokens};

/// Plugins of a chain that is tried, at most: each of them is called once more for every one after it.
pub const MAX_PLUGINS: usize = 16;

/// How long configurations may take to be parsed.
const PARSE_TIME: Duration = Duration::from_secs(10);

/// What is to be tried.
#[derive(Debug, Serialize, Deserialize)]
pub struct Wanted {
    /// Names the trial; no other one and no route is called so.
    pub key: String,
    /// The live configuration whose plugins are tried,
    pub token: Option<u32>,
    /// or these plugins: `name` or `name@requirement`, each with its configuration.
    pub plugins: Vec<(String, String)>,
}

/// What can be called.
#[derive(Debug, Serialize, Deserialize)]
pub struct Begun {
    /// The gateway's key of the live configuration.
    pub of: Option<String>,
    /// The whole chain.
    pub plugins: Vec<ChainPlugin>,
    /// A token for the first plugin, for the first two, and so on; none where the chain cannot run.
    pub tokens: Vec<u32>,
}

/// A trial that is over.
#[derive(Debug, Serialize, Deserialize)]
pub struct Over {
    /// Which.
    pub key: String,
    /// Its tokens.
    pub tokens: Vec<u32>,
}

/// How its plugins failed.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Failures {
    /// Of each plugin the reason, where it has failed.
    pub reasons: Vec<Option<String>>,
}

/// Makes the tokens.
///
/// # Errors
/// There is no such configuration, too long a chain, or no room beside those of routes.
pub async fn begin(tokens: &Tokens, wanted: Wanted) -> Result<Begun, Refused> {
    let (of, plugins) = match wanted.token {
        Some(number) => {
            // Looking for it is no use of it.
            let live = tokens.live();
            let found = live.iter().find(|token| token.number() == number);
            let token = found.ok_or_else(|| {
                Refused::not_found(format!(
                    "no live configuration has the token {number}: /v1/tokens lists them"
                ))
            })?;
            let key = token.key().into_owned();
            (Some(key), token.prepared().plugins.to_vec())
        }
        None => {
            let plugins = wanted.plugins.iter();
            let plugins = plugins.map(|(name, value)| PluginConf {
                name: name.as_bytes().into(),
                value: value.as_bytes().into(),
            });
            (None, plugins.collect())
        }
    };
    let count = plugins.len();
    if count > MAX_PLUGINS {
        return Err(Refused::bad_request(format!(
            "the chain has {count} plugins: at most {MAX_PLUGINS} can be tried"
        )));
    }
    let first = |count: usize| Prepared {
        key: part(&wanted.key, count).into_bytes().into(),
        plugins: plugins[..count].into(),
    };
    let bytes = (1..=count).map(|count| first(count).bytes()).sum();
    if !tokens.has_room_for(count, bytes) {
        return Err(Refused::unavailable(
            "there is no room for a trial beside the configurations of routes (--max-tokens)",
        ));
    }
    let mut begun = Begun {
        of,
        plugins: Vec::new(),
        tokens: Vec::new(),
    };
    // The whole chain first: where that cannot run, nothing of it does.
    for count in (1..=count).rev() {
        let number = tokens
            .lend(first(count), Instant::now())
            .ok_or_else(|| Refused::unavailable("every token of this host has been given"))?;
        begun.tokens.insert(0, number);
        if begun.plugins.is_empty() {
            begun.plugins = known(tokens, number).await;
            let is_ready = begun.plugins.iter().all(|plugin| plugin.version.is_some());
            if !is_ready {
                tokens.forget(number, part(&wanted.key, count).as_bytes());
                begun.tokens.clear();
                break;
            }
        }
    }
    Ok(begun)
}

/// Drops the tokens, and tells how their plugins have failed.
pub fn end(tokens: &Tokens, over: &Over) -> Failures {
    let mut failures = Failures::default();
    let mut last = None;
    for (index, number) in over.tokens.iter().enumerate() {
        let forgotten = tokens.forget(*number, part(&over.key, index + 1).as_bytes());
        last = forgotten.or(last);
    }
    if let Some(token) = last
        && let ChainState::Ready(chain) = token.chain()
    {
        failures.reasons = chain
            .links
            .iter()
            .map(|link| {
                let failure = link.configured.generation().last_failure()?;
                let is_of_this = failure.route.starts_with(&format!("{}, ", over.key));
                is_of_this.then_some(failure.reason)
            })
            .collect();
    }
    failures
}

/// What a chain has come to; a plugin that is not ready by then says so.
async fn known(tokens: &Tokens, number: u32) -> Vec<ChainPlugin> {
    let live = tokens.live();
    let token: Option<&Arc<Token>> = live.iter().find(|token| token.number() == number);
    let Some(token) = token else {
        return Vec::new();
    };
    let parsed = tokio::time::timeout(PARSE_TIME, token.compiled()).await;
    let mut plugins = plugins_of(token);
    if parsed.is_err() {
        for plugin in &mut plugins {
            plugin.refused = Some(format!(
                "the chain was not known after {} s: plugins are loading, or one takes long to parse \
                 its configuration",
                PARSE_TIME.as_secs()
            ));
        }
    }
    plugins
}

/// The key of a part of a trial. Parsed configurations are shared within a key only.
fn part(key: &str, count: usize) -> String {
    format!("{key}, first {count}")
}
