//! What became of a request or a response, for a test to look at.

use std::{fmt, time::Duration};

use super::{response::ClientResponse, upstream_request::UpstreamRequest};

/// What became of one request or response: what reached the upstream, what the client got, and
/// what happened on the way.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub(super) upstream: Option<UpstreamRequest>,
    pub(super) client: Option<ClientResponse>,
    pub(super) failures: Vec<Failed>,
    pub(super) questions: Vec<Asked>,
    pub(super) took: Duration,
}

/// A question that travelled to the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// A variable, by name.
    Variable(String),
    /// The request's body.
    RequestBody,
    /// The upstream's body.
    ResponseBody,
}

impl Asked {
    /// `Asked::Variable` without a `to_owned` at every place.
    pub fn variable(name: &str) -> Self {
        Self::Variable(name.to_owned())
    }
}

/// A plugin that failed on a call: what the host writes into its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// The plugin.
    pub plugin: String,
    /// Why: its error with the causes, the panic with its place, its time, or what it asked for
    /// that the gateway cannot do.
    pub reason: String,
    /// Whether the chain went on without it (failure policy `open`).
    pub skipped: bool,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.plugin, self.reason)
    }
}

impl Outcome {
    /// What went upstream.
    ///
    /// # Panics
    /// Nothing did: the message says what the client got instead.
    #[track_caller]
    pub fn upstream(&self) -> &UpstreamRequest {
        match (&self.upstream, &self.client) {
            (Some(upstream), _) => upstream,
            (None, Some(client)) => panic!(
                "nothing went upstream: the client got {client}{}",
                self.told_failures()
            ),
            (None, None) => panic!("nothing went upstream: this was a response"),
        }
    }

    /// What the client got.
    ///
    /// # Panics
    /// Nothing yet: the request went upstream.
    #[track_caller]
    pub fn client(&self) -> &ClientResponse {
        match (&self.client, &self.upstream) {
            (Some(client), _) => client,
            (None, upstream) => panic!(
                "the client was not answered: the request went upstream{}{}",
                upstream.as_ref().map_or(String::new(), |upstream| format!(
                    " as {} {}",
                    upstream.method(),
                    upstream.uri()
                )),
                self.told_failures()
            ),
        }
    }

    /// Whether the request reached the upstream.
    pub fn went_upstream(&self) -> bool {
        self.upstream.is_some()
    }

    /// Why a plugin failed.
    ///
    /// # Panics
    /// None did.
    #[track_caller]
    pub fn failure(&self) -> &str {
        match self.failures.first() {
            Some(failed) => &failed.reason,
            None => panic!("no plugin failed"),
        }
    }

    /// Every plugin that failed, skipped ones included, in the order of the chain.
    pub fn failures(&self) -> &[Failed] {
        &self.failures
    }

    /// What the gateway was asked, each question once, in the order in which they travelled. What
    /// `needs` in `plugin.json` names comes first.
    pub fn questions(&self) -> &[Asked] {
        &self.questions
    }

    /// The time that passed on the test's clock.
    pub fn took(&self) -> Duration {
        self.took
    }

    fn told_failures(&self) -> String {
        let told = self.failures.iter().map(|failed| format!("; {failed}"));
        told.collect()
    }
}
