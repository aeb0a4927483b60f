//! Which routes are configured, and what their chains and tokens are worth now.
//!
//! Values of configurations are never shown: they may hold secrets.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

use crate::tokens::{ChainState, Token, Tokens, compile::RefusedPlugin};

/// Entries in one answer, at most.
pub const MAX_LISTED: usize = 1_000;

/// Entries in one answer, where the request does not say.
const LISTED: usize = 100;

/// Bytes of a key, or of a plugin's name, that are shown.
const MAX_TEXT_BYTES: usize = 512;

/// Which entries of a long list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// Entries to leave out at the beginning.
    #[serde(default)]
    pub offset: usize,
    /// Entries to give, at most 1,000; 100 where it is left out.
    pub limit: Option<usize>,
    /// Only entries with this plugin in their chain.
    pub plugin: Option<String>,
    /// Only entries whose key has this text in it.
    pub route: Option<String>,
    /// Only entries in this state.
    pub state: Option<RouteState>,
}

/// How it stands with a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RouteState {
    /// Calls run through it.
    Ready,
    /// It is not known yet: calls wait.
    Waiting,
    /// It cannot run: calls fail closed.
    Refused,
}

/// Chains of routes.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Chains {
    /// How many there are that the request asks for.
    pub total: usize,
    /// A part of them, by key.
    pub chains: Vec<ChainEntry>,
}

/// The chain of the newest configuration of a route.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ChainEntry {
    /// The gateway's name of route and phase, without its version.
    pub route: String,
    /// The gateway's key of the configuration.
    pub key: String,
    /// Its token.
    pub token: u32,
    /// How it stands.
    pub state: RouteState,
    /// Its plugins, in the order of execution.
    pub plugins: Vec<ChainPlugin>,
}

/// One plugin of a chain.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ChainPlugin {
    /// As the route names it: `name` or `name@requirement`.
    pub name: String,
    /// The version that runs; absent where the chain does not run.
    pub version: Option<String>,
    /// Number of the generation that runs.
    pub generation: Option<u64>,
    /// Bytes of its configuration.
    pub configuration_bytes: usize,
    /// Why it keeps the chain from running.
    pub refused: Option<String>,
}

/// Configurations that the gateway has prepared.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TokenList {
    /// How many there are that the request asks for.
    pub total: usize,
    /// A part of them, by key.
    pub tokens: Vec<TokenEntry>,
}

/// A configuration that the gateway has prepared.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TokenEntry {
    /// Its number.
    pub token: u32,
    /// The gateway's key.
    pub key: String,
    /// Whether no newer configuration of its route has been prepared.
    pub newest: bool,
    /// How its chain stands.
    pub state: RouteState,
    /// Its plugins, as the route names them.
    pub plugins: Vec<String>,
    /// Bytes of configuration.
    pub bytes: usize,
    /// Seconds since it was used.
    pub idle_seconds: u64,
    /// Seconds until it is forgotten, should nobody use it.
    pub expires_in_seconds: u64,
}

impl Page {
    fn takes(&self, token: &Token, state: &ChainState) -> bool {
        let has_text = |text: &str| token.key().contains(text);
        self.state.is_none_or(|wanted| wanted == state.into())
            && self.route.as_deref().is_none_or(has_text)
            && self.plugin.as_deref().is_none_or(|plugin| {
                let mut plugins = token.prepared().plugins.iter();
                plugins.any(|conf| is_named(&conf.name, plugin))
            })
    }

    fn limit(&self) -> usize {
        self.limit.unwrap_or(LISTED).min(MAX_LISTED)
    }
}

/// Whether a route's name of a plugin means this one, in whatever version.
fn is_named(in_route: &[u8], plugin: &str) -> bool {
    let end = in_route.iter().position(|byte| *byte == b'@');
    &in_route[..end.unwrap_or(in_route.len())] == plugin.as_bytes()
}

impl From<&ChainState> for RouteState {
    fn from(state: &ChainState) -> Self {
        match state {
            ChainState::Compiling => Self::Waiting,
            ChainState::Ready(_) => Self::Ready,
            ChainState::Refused(_) => Self::Refused,
        }
    }
}

/// The chains of the newest configurations.
pub fn chains(tokens: &Tokens, page: &Page) -> Chains {
    let (total, chosen) = choose(tokens, page, |token| tokens.is_newest(token));
    Chains {
        total,
        chains: chosen
            .iter()
            .map(|token| ChainEntry {
                route: text(token.prepared().route()),
                key: text(&token.prepared().key),
                token: token.number(),
                state: (&token.chain()).into(),
                plugins: plugins_of(token),
            })
            .collect(),
    }
}

/// Every live configuration.
pub fn token_list(tokens: &Tokens, page: &Page) -> TokenList {
    let (total, chosen) = choose(tokens, page, |_| true);
    let now = Instant::now();
    TokenList {
        total,
        tokens: chosen
            .iter()
            .map(|token| {
                let idle = tokens.idle_time(token, now);
                TokenEntry {
                    token: token.number(),
                    key: text(&token.prepared().key),
                    newest: tokens.is_newest(token),
                    state: (&token.chain()).into(),
                    plugins: token
                        .prepared()
                        .plugins
                        .iter()
                        .map(|plugin| text(&plugin.name))
                        .collect(),
                    bytes: token.prepared().bytes(),
                    idle_seconds: idle.as_secs(),
                    expires_in_seconds: tokens.time_to_live().saturating_sub(idle).as_secs(),
                }
            })
            .collect(),
    }
}

fn choose(
    tokens: &Tokens,
    page: &Page,
    also: impl Fn(&Token) -> bool,
) -> (usize, Vec<std::sync::Arc<Token>>) {
    let mut chosen = tokens.live();
    chosen.retain(|token| also(token) && page.takes(token, &token.chain()));
    chosen.sort_unstable_by(|one, other| {
        let key = |token: &Token| (token.prepared().key.clone(), token.number());
        key(one).cmp(&key(other))
    });
    let total = chosen.len();
    let part = chosen.into_iter().skip(page.offset).take(page.limit());
    (total, part.collect())
}

/// The plugins of a token, as they stand now.
pub(super) fn plugins_of(token: &Token) -> Vec<ChainPlugin> {
    let state = token.chain();
    let mut refused: Vec<&(String, RefusedPlugin)> = match &state {
        ChainState::Refused(refused) => refused.plugins.iter().collect(),
        _ => Vec::new(),
    };
    let plugins = token.prepared().plugins.iter().enumerate();
    plugins
        .map(|(index, plugin)| {
            let generation = match &state {
                ChainState::Ready(chain) => chain.links.get(index),
                _ => None,
            }
            .map(|link| link.configured.generation());
            let name = text(&plugin.name);
            // Of several entries of one name, each is refused for itself, in their order.
            let found = refused.iter().position(|(of, _)| *of == name);
            let reason = found.map(|found| refused.remove(found).1.to_string());
            ChainPlugin {
                version: generation.map(|generation| generation.version().to_string()),
                generation: generation.map(|generation| generation.number()),
                configuration_bytes: plugin.value.len(),
                refused: reason,
                name,
            }
        })
        .collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_TEXT_BYTES)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_at_most_so_many_entries_whatever_is_asked_for() {
        let limit = |limit| {
            Page {
                limit,
                ..Page::default()
            }
            .limit()
        };
        assert_eq!([None, Some(7), Some(100_000)].map(limit), [100, 7, 1_000]);
    }

    #[test]
    fn a_plugin_is_meant_in_whatever_version_a_route_wants() {
        for (in_route, is_meant) in [
            ("say", true),
            ("say@^1.2", true),
            ("says", false),
            ("", false),
        ] {
            assert_eq!(is_named(in_route.as_bytes(), "say"), is_meant, "{in_route}");
        }
    }
}
