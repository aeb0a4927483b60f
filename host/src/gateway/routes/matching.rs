//! Which requests a route is for, and which of two routes comes first.
//!
//! The rules are those of the real gateway's default router, `radixtree_host_uri`: hosts come
//! before paths. This module never reads the file.

use std::cmp::Reverse;

use crate::client::without_port;

/// One URI of a route, with one of its hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Matcher {
    pub(super) host: HostPattern,
    pub(super) uri: UriPattern,
    /// Upper case; empty means every method.
    pub(super) methods: Vec<String>,
    pub(super) priority: i64,
}

/// Which `Host` headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HostPattern {
    Any,
    /// In lower case.
    Exact(String),
    /// What a host ends in, in lower case: `.x` of `*.x`.
    Suffix(String),
}

/// Which paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum UriPattern {
    Exact(String),
    /// What a path begins with: `/a/` of `/a/*`.
    Prefix(String),
}

/// Where a matcher stands among the others; the lesser is tried first.
pub(super) type Rank = (u8, Reverse<usize>, u8, Reverse<usize>, Reverse<i64>);

impl Matcher {
    pub(super) fn matches(&self, host: Option<&[u8]>, method: &str, path: &[u8]) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|own| own == method))
            && self.uri.matches(path)
            && self.host.matches(host)
    }

    pub(super) fn rank(&self) -> Rank {
        let (host, host_length) = match &self.host {
            HostPattern::Exact(_) => (0, 0),
            HostPattern::Suffix(suffix) => (1, suffix.len()),
            HostPattern::Any => (2, 0),
        };
        let (uri, uri_length) = match &self.uri {
            UriPattern::Exact(_) => (0, 0),
            UriPattern::Prefix(prefix) => (1, prefix.len()),
        };
        let (host_length, uri_length) = (Reverse(host_length), Reverse(uri_length));
        (host, host_length, uri, uri_length, Reverse(self.priority))
    }
}

impl HostPattern {
    /// `example.com` or `*.example.com`; `None` for a star elsewhere.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let (pattern, literal) = match text.strip_prefix('*') {
            Some(suffix) => (Self::Suffix(suffix.to_owned()), suffix),
            None => (Self::Exact(text.clone()), text.as_str()),
        };
        (!text.is_empty() && !literal.contains('*')).then_some(pattern)
    }

    fn matches(&self, host: Option<&[u8]>) -> bool {
        let host = host.map(without_port).unwrap_or_default();
        match self {
            Self::Any => true,
            Self::Exact(own) => host.eq_ignore_ascii_case(own.as_bytes()),
            Self::Suffix(suffix) => host
                .len()
                .checked_sub(suffix.len())
                .is_some_and(|at| host[at..].eq_ignore_ascii_case(suffix.as_bytes())),
        }
    }
}

impl UriPattern {
    /// `/a` or `/a/*`; `None` for what begins otherwise, or has a star elsewhere.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (pattern, literal) = match text.strip_suffix('*') {
            Some(prefix) => (Self::Prefix(prefix.to_owned()), prefix),
            None => (Self::Exact(text.to_owned()), text),
        };
        (text.starts_with(['/', '*']) && !literal.contains('*')).then_some(pattern)
    }

    fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(own) => path == own.as_bytes(),
            Self::Prefix(prefix) => path.starts_with(prefix.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests;
