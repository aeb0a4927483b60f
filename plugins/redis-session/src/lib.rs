//! Lets requests with a session in Redis pass, with headers that say whose it is, and refuses the
//! rest.
//!
//! It asks Redis with the `redis` crate, which needs tokio: `RUNTIME` is the whole of what that
//! takes. `store.rs` is the part that asks; nothing here waits for anything else.

#![forbid(unsafe_code)]

mod store;

use std::{collections::BTreeMap, time::Duration};

use plugin_abi::prelude::*;

use crate::store::Store;

/// Bytes of a session's identifier, at most.
const MAX_ID_BYTES: usize = 256;

/// What the operator says of this machine's Redis.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Where Redis is: `redis://:PASSWORD@HOST:PORT/DB`, or `redis+unix:///PATH?db=DB&pass=PASSWORD`.
    url: String,
    /// What the keys of sessions begin with; the rest is the session's identifier.
    prefix: String,
    /// How long connecting may take, and how long an answer, in milliseconds.
    #[schemars(range(min = 1, max = 60_000))]
    timeout_ms: u64,
}

/// What a route says about its sessions.
#[derive(Deserialize, JsonSchema)]
struct Options {
    /// The cookie that holds the session's identifier.
    #[serde(default = "session")]
    cookie: String,
    /// Headers for the upstream, by the session's fields; what clients send under their names is removed.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// How long the session lives from each request on, in seconds; left alone without it.
    #[schemars(range(min = 1))]
    extend_seconds: Option<u32>,
    /// The status of a request without a session.
    #[serde(default = "unauthorized")]
    #[schemars(range(min = 200, max = 599))]
    rejected_code: u16,
    /// Where a request without a session is sent, with status 302 in place of `rejected_code`.
    login: Option<String>,
}

fn session() -> String {
    "session".to_owned()
}

fn unauthorized() -> u16 {
    401
}

/// A route's options, checked.
struct Sessions {
    cookie: String,
    headers: Vec<HeaderName>,
    fields: Vec<String>,
    extend_seconds: Option<u32>,
    rejected: Rejected,
}

/// What a request without a session gets.
enum Rejected {
    Status(u16),
    Login(String),
}

impl Configuration for Sessions {
    fn parse(raw: &[u8]) -> Result<Self> {
        let options = Options::parse(raw)?;
        ensure!(
            (200..=599).contains(&options.rejected_code),
            "rejected_code is {}: the gateway can deliver 200 to 599",
            options.rejected_code
        );
        ensure!(
            options.extend_seconds != Some(0),
            "extend_seconds is 0: that would end the session"
        );
        let header = |name: &String| {
            HeaderName::try_from(name.as_str())
                .with_context(|| format!("headers: {name:?} is no name of a header"))
        };
        Ok(Self {
            cookie: options.cookie,
            headers: options.headers.keys().map(header).collect::<Result<_>>()?,
            fields: options.headers.into_values().collect(),
            extend_seconds: options.extend_seconds,
            rejected: match options.login {
                Some(login) => Rejected::Login(login),
                None => Rejected::Status(options.rejected_code),
            },
        })
    }
}

impl Sessions {
    fn reject(&self) -> Action {
        Action::stop(match &self.rejected {
            Rejected::Status(status) => Reply::new(*status),
            Rejected::Login(login) => Reply::new(302).header("Location", login),
        })
    }

    /// The identifier in the request's cookie; none where there is none that could be one.
    fn id<'r>(&self, request: &'r Request) -> Option<&'r str> {
        let cookies = request.header_values("cookie");
        let mut cookies = cookies.filter_map(|cookies| std::str::from_utf8(cookies).ok());
        cookies.find_map(|cookies| session_in(cookies, &self.cookie))
    }
}

/// The value of a cookie, if it may be a session's identifier: what is not is not asked for.
fn session_in<'c>(cookies: &'c str, name: &str) -> Option<&'c str> {
    cookies
        .split(';')
        .filter_map(|cookie| cookie.trim().split_once('='))
        .find(|(found, _)| *found == name)
        .map(|(_, value)| value)
        .filter(|id| {
            let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~+/=".contains(&byte);
            !id.is_empty() && id.len() <= MAX_ID_BYTES && id.bytes().all(letter)
        })
}

#[derive(Default)]
struct RedisSession {
    /// Set when the plugin is loaded.
    store: Option<Store>,
}

impl Plugin for RedisSession {
    type Config = Sessions;

    const RUNTIME: Runtime = Runtime::Tokio;

    async fn on_load(&mut self, load: &Load) -> Result<()> {
        let settings: Settings = load.settings().context("settings")?;
        let timeout = Duration::from_millis(settings.timeout_ms);
        self.store = Some(Store::new(&settings.url, settings.prefix, timeout)?);
        Ok(())
    }

    async fn request_filter(&self, sessions: &Sessions, request: &mut Request) -> Result<Action> {
        // First of all: nobody says for himself who he is.
        for header in &sessions.headers {
            request.remove_header(header.as_str());
        }
        let Some(id) = sessions.id(request) else {
            return Ok(sessions.reject());
        };
        let store = self.store.as_ref().context("the plugin was not loaded")?;
        let found = store.session(id, &sessions.fields, sessions.extend_seconds);
        let Some(values) = found.await.context("cannot ask Redis")? else {
            return Ok(sessions.reject());
        };
        for ((header, field), value) in sessions.headers.iter().zip(&sessions.fields).zip(values) {
            if let Some(value) = value {
                let fits = value.iter().all(|byte| *byte == b'\t' || *byte >= b' ');
                ensure!(fits, "the session's field {field:?} cannot be a header");
                request.set_header(header.as_str(), value);
            }
        }
        Ok(Action::Continue)
    }
}

export_plugin!(RedisSession);

#[cfg(test)]
mod tests;
