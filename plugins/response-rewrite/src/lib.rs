//! Changes the status, headers and body of a route's responses.

#![forbid(unsafe_code)]

mod filter;

use std::collections::BTreeMap;

use plugin_abi::prelude::*;

use crate::filter::{Filter, FilterOptions};

/// What a route says about its responses. What is left out stays as the upstream sent it.
#[derive(Deserialize, JsonSchema)]
struct Options {
    /// The status that the client gets.
    #[schemars(range(min = 200, max = 599))]
    status: Option<u16>,
    /// Headers that replace those of the same name, or come beside the others.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// The body that the client gets. Ignored where there are filters, and where it is empty.
    #[serde(default)]
    body: String,
    /// Replacements in the upstream's body, one after the other. Where none matches, it stays.
    #[serde(default)]
    #[schemars(length(max = 100))]
    filters: Vec<FilterOptions>,
}

/// How many filters a route may have: a compiled one takes memory for as long as the route lives.
const MAX_FILTERS: usize = 100;

/// A route's changes, checked and compiled.
struct Rewrite {
    status: Option<u16>,
    headers: BTreeMap<String, String>,
    body: String,
    filters: Vec<Filter>,
}

impl Configuration for Rewrite {
    fn parse(raw: &[u8]) -> Result<Self> {
        let options = Options::parse(raw)?;
        if let Some(status) = options.status {
            ensure!(
                (200..=599).contains(&status),
                "status is {status}: the gateway can deliver 200 to 599"
            );
        }
        for name in options.headers.keys() {
            HeaderName::from_bytes(name.as_bytes())
                .with_context(|| format!("headers: {name:?} cannot be the name of a header"))?;
        }
        ensure!(
            options.filters.len() <= MAX_FILTERS,
            "filters: {} of them, but a route can have {MAX_FILTERS}",
            options.filters.len()
        );
        let filters = options.filters.iter().enumerate().map(|(index, filter)| {
            Filter::compile(filter).with_context(|| format!("filters[{index}]"))
        });
        Ok(Self {
            filters: filters.collect::<Result<_>>()?,
            status: options.status,
            headers: options.headers,
            body: options.body,
        })
    }

    fn schema() -> Option<Schema> {
        Some(schema_for!(Options))
    }
}

#[derive(Default)]
struct ResponseRewrite;

impl Plugin for ResponseRewrite {
    type Config = Rewrite;

    async fn response_filter(&self, rewrite: &Rewrite, response: &mut Response) -> Result<()> {
        if let Some(status) = rewrite.status {
            response.set_status(status);
        }
        for (name, value) in &rewrite.headers {
            response.set_header(name, value);
        }
        if !rewrite.filters.is_empty() {
            // The body is asked for only here: it has to travel from the gateway.
            let body = response.body().await?.unwrap_or_default();
            if let Some(changed) = filter::apply(&rewrite.filters, body)? {
                response.set_body(changed);
            }
        } else if !rewrite.body.is_empty() {
            response.set_body(rewrite.body.as_str());
        }
        Ok(())
    }
}

export_plugin!(ResponseRewrite);

#[cfg(test)]
mod tests;
