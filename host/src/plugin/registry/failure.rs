//! The last call on which a generation has failed, for operators.

use std::{fmt, sync::Arc, time::SystemTime};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Generation;

/// Bytes of the reason that are kept.
const MAX_REASON_BYTES: usize = 1_024;

/// A call on which a plugin has failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LastFailure {
    /// When, in UTC.
    pub at: String,
    /// The gateway's key of the configuration.
    pub route: String,
    /// The gateway worker's own number of the request.
    pub request_id: u32,
    /// Why.
    pub reason: String,
}

impl Generation {
    /// Remembers a failed call in place of the one before. It costs more than counting: where the
    /// log is spared, so is this.
    pub fn remember_failure(&self, route: &str, request_id: u32, reason: &dyn fmt::Display) {
        let failure = LastFailure {
            at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            route: route.to_owned(),
            request_id,
            reason: cut(reason.to_string(), MAX_REASON_BYTES),
        };
        *self.last_failure.lock() = Some(Arc::new(failure));
    }

    /// The last call on which it has failed and of which the log tells.
    pub fn last_failure(&self) -> Option<LastFailure> {
        self.last_failure.lock().as_deref().cloned()
    }
}

/// As much of a text as so many bytes hold; what was left out is marked.
pub(crate) fn cut(mut text: String, longest: usize) -> String {
    if text.len() > longest {
        let mut end = longest;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_cut_between_characters() {
        let cut = |longest| cut("añb".to_owned(), longest);
        assert_eq!([cut(1), cut(2), cut(3), cut(4)], ["a…", "a…", "añ…", "añb"]);
    }
}
