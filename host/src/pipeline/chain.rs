//! A chain: the plugins of one route configuration, in order, each with its parsed configuration.
//!
//! A chain is immutable and holds counted references to the generations that it uses: a call that
//! has begun keeps what it began with.

use std::{sync::Arc, time::Duration};

use super::{call::Phase, questions::Question};
use crate::plugin::{
    metadata::{FailurePolicy, Needs},
    registry::Configured,
};

/// The plugins of one route configuration.
#[derive(Debug, Default)]
pub struct Chain {
    /// In the order of execution; empty where the route names no plugin.
    pub links: Vec<Link>,
}

/// One plugin of a chain.
#[derive(Debug)]
pub struct Link {
    /// The plugin with its parsed configuration.
    pub configured: Arc<Configured>,
    /// What a failure on a call means.
    pub failure_policy: FailurePolicy,
    /// Bound on this plugin's part of one call; the call's budget bounds it in any case.
    pub timeout: Option<Duration>,
    needed_by_requests: Vec<Question>,
    needed_by_responses: Vec<Question>,
}

impl Link {
    /// A link of a chain, with the rules that its generation's metadata and operator give.
    pub fn new(configured: Arc<Configured>) -> Self {
        let rules = configured.generation().rules();
        Self {
            failure_policy: rules.failure_policy,
            timeout: rules.timeout,
            needed_by_requests: questions_of(&rules.needs, Phase::Request),
            needed_by_responses: questions_of(&rules.needs, Phase::Response),
            configured,
        }
    }

    /// What the host asks the gateway for before this plugin runs.
    pub fn needs(&self, phase: Phase) -> &[Question] {
        match phase {
            Phase::Request => &self.needed_by_requests,
            Phase::Response => &self.needed_by_responses,
        }
    }
}

fn questions_of(needs: &Needs, phase: Phase) -> Vec<Question> {
    let body = match phase {
        Phase::Request => needs.request_body.then_some(Question::RequestBody),
        Phase::Response => needs.response_body.then_some(Question::ResponseBody),
    };
    needs
        .variables
        .iter()
        .map(|name| Question::Variable(name.as_bytes().into()))
        .chain(body)
        .collect()
}
