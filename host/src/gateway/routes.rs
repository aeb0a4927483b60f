//! The gateway's route file: `apisix.yaml` of its standalone mode, as an immutable table.
//!
//! What this gateway does not support is a warning that names it, so that a file of a real gateway
//! works here as far as it can. This module never opens a connection, and never changes a table:
//! an edited file is a new one.

pub(crate) mod document;
mod matching;
mod read;
pub mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use crate::client::Field;
use matching::Matcher;

/// Size of a route file, in bytes, at most.
pub const MAX_FILE: u64 = 4 << 20;

/// Routes, upstreams and nodes in a file, at most, of each.
pub const MAX_ITEMS: usize = 10_000;

/// URIs times hosts of one route, and of all of them, at most.
pub const MAX_WAYS: usize = 100_000;

/// The routes of one version of the file.
#[derive(Debug, Default)]
pub struct RouteTable {
    version: u64,
    /// In the order in which they are tried.
    entries: Vec<Entry>,
    routes: Vec<Arc<Route>>,
    warnings: Vec<String>,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its id; where it has none, `routes#N` with its place in the file, as the real gateway does.
    pub id: String,
    /// Its name.
    pub name: Option<String>,
    /// Plugins before everything else of the route.
    pub pre_req: Option<ExtPlugin>,
    /// Plugins last before the request goes upstream.
    pub post_req: Option<ExtPlugin>,
    /// Plugins for the upstream's response.
    pub post_resp: Option<ExtPlugin>,
    /// What the gateway itself changes, between [`Route::pre_req`] and [`Route::post_req`].
    pub proxy_rewrite: Option<ProxyRewrite>,
    /// Where requests go; the built-in echo where there is none.
    pub upstream: Option<Upstream>,
}

/// One of the gateway's `ext-plugin-*` plugins on a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtPlugin {
    /// Names this configuration to the host: `route#ID#ext-plugin-pre-req#VERSION`. The version is
    /// the file's, so an edit anywhere in it changes the key of every route.
    pub key: String,
    /// The chain: each plugin's name and configuration, in order. An empty one is no error.
    pub conf: Vec<Field>,
    /// Whether a request goes on where the host fails.
    pub allow_degradation: bool,
}

/// The gateway's `proxy-rewrite` plugin, as far as it is supported here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxyRewrite {
    /// The new path, perhaps with a query, which comes before the request's own; may name
    /// variables (`$remote_addr`).
    pub uri: Option<String>,
    /// Headers to set; values may name variables.
    pub set: Vec<(String, String)>,
    /// Headers to add beside those of the same name; values may name variables.
    pub add: Vec<(String, String)>,
    /// Headers to remove.
    pub remove: Vec<String>,
}

/// Where requests of a route go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Its id, where it is one of the file's `upstreams`.
    pub id: Option<String>,
    /// Its nodes; those of weight 0 are left out. Empty where there is none left: every request is
    /// answered 503.
    pub nodes: Vec<Node>,
    /// The `Host` header that it gets.
    pub pass_host: PassHost,
}

/// One server of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Name or address; an IPv6 address without its brackets.
    pub host: String,
    /// TCP port; 80 where the file names none.
    pub port: u16,
    /// Its share of the requests.
    pub weight: u32,
}

/// The `Host` header that an upstream gets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PassHost {
    /// The client's.
    #[default]
    Pass,
    /// The node's host, and its port where that is not the scheme's own.
    Node,
    /// This one.
    Rewrite(String),
}

/// The route file cannot be used: its author's fault.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {problem}", file.display(), Line(*line))]
pub struct RouteFileError {
    /// The file.
    pub file: PathBuf,
    /// Line in it, from 1, where it is known.
    pub line: Option<usize>,
    /// What is wrong: route and field, and what to do about it.
    pub problem: String,
}

struct Line(Option<usize>);

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}

/// A way to a route.
#[derive(Debug)]
struct Entry {
    matcher: Matcher,
    route: Arc<Route>,
}

impl RouteTable {
    /// The version of the file, which stands in the keys of its plugins.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The routes in the file's order, without those that are switched off.
    #[must_use]
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// What the file says and this gateway does not do, one sentence each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The route for a request: `host` as in its `Host` header (a port in it does not matter),
    /// `path` decoded and in order.
    ///
    /// As the real router chooses (`radixtree_host_uri`, its default): a route for this very host,
    /// then the longest `*.host`, then one for any host; among those an exact URI, then the longest
    /// prefix; among those the highest priority, then the file's order.
    #[must_use]
    pub fn find(&self, host: Option<&[u8]>, method: &str, path: &[u8]) -> Option<&Arc<Route>> {
        let found = self
            .entries
            .iter()
            .find(|entry| entry.matcher.matches(host, method, path));
        found.map(|entry| &entry.route)
    }
}

impl Upstream {
    /// The node for the request of this number: in turn, as often as the weights say.
    #[must_use]
    pub fn node(&self, number: u64) -> Option<&Node> {
        let total: u64 = self.nodes.iter().map(|node| u64::from(node.weight)).sum();
        let mut turn = number.checked_rem(total)?;
        self.nodes.iter().find(|node| {
            let weight = u64::from(node.weight);
            let is_it = turn < weight;
            turn = turn.saturating_sub(weight);
            is_it
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_take_turns_as_often_as_their_weights_say() {
        let node = |host: &str, weight| Node {
            host: host.to_owned(),
            port: 80,
            weight,
        };
        let mut upstream = Upstream {
            id: None,
            nodes: vec![node("a", 2), node("b", 1)],
            pass_host: PassHost::Pass,
        };
        let turns: String = (0..6)
            .filter_map(|number| upstream.node(number))
            .map(|node| node.host.as_str())
            .collect();
        assert_eq!(turns, "aabaab");
        upstream.nodes.clear();
        assert_eq!(upstream.node(1), None);
    }
}
