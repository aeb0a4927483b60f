//! Replacements by regular expression, on the bytes of a body.
//!
//! A body comes from the upstream, so both the time (the expressions are matched in linear time)
//! and the memory that it may cost are bounded here. Nothing here talks to the gateway.

use std::borrow::Cow;

use plugin_abi::prelude::*;
use regex::bytes::{Regex, RegexBuilder};

/// How much memory one compiled expression may take, in bytes.
const MAX_COMPILED: usize = 1 << 20;

/// How long a body may become, in bytes: about what one frame of the gateway's protocol carries.
const MAX_BODY: usize = (1 << 24) - 1;

/// One replacement, as a route says it.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct FilterOptions {
    /// What to look for, in the syntax of Rust's regex crate.
    regex: String,
    /// Whether the first match is replaced or all of them.
    #[serde(default)]
    scope: Scope,
    /// What comes in its place: $1 or ${name} stands for a group, $$ for a dollar sign.
    replace: String,
}

/// How many of the matches a filter replaces.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Scope {
    #[default]
    Once,
    Global,
}

/// One replacement, compiled.
pub(crate) struct Filter {
    regex: Regex,
    scope: Scope,
    replace: String,
}

impl Filter {
    pub(crate) fn compile(options: &FilterOptions) -> Result<Self> {
        let regex = RegexBuilder::new(&options.regex)
            .size_limit(MAX_COMPILED)
            .dfa_size_limit(MAX_COMPILED)
            .build()
            .context("regex")?;
        Ok(Self {
            regex,
            scope: options.scope,
            replace: options.replace.clone(),
        })
    }

    /// The body with the replacements made; none where nothing matches.
    fn replaced(&self, body: &[u8]) -> Result<Option<Vec<u8>>> {
        let matches = match self.scope {
            Scope::Once => 1,
            Scope::Global => usize::MAX,
        };
        let mut changed = Vec::new();
        let mut copied = 0;
        let mut found = false;
        for captures in self.regex.captures_iter(body).take(matches) {
            let whole = captures.get_match();
            changed.extend_from_slice(&body[copied..whole.start()]);
            captures.expand(self.replace.as_bytes(), &mut changed);
            // Looked at after each match, since a short body can have many and each grow long.
            ensure!(
                changed.len() <= MAX_BODY,
                "the replacements make the body longer than {MAX_BODY} bytes"
            );
            copied = whole.end();
            found = true;
        }
        changed.extend_from_slice(&body[copied..]);
        Ok(found.then_some(changed))
    }
}

/// The body after all filters, each on what the one before it left; none where none matches.
pub(crate) fn apply(filters: &[Filter], body: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut current = Cow::Borrowed(body);
    for (index, filter) in filters.iter().enumerate() {
        let changed = filter.replaced(&current);
        if let Some(changed) = changed.with_context(|| format!("filters[{index}]"))? {
            current = Cow::Owned(changed);
        }
    }
    Ok(match current {
        Cow::Borrowed(_) => None,
        Cow::Owned(changed) => Some(changed),
    })
}
