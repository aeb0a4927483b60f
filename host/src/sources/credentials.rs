//! Who the operator is for which server, in the format of Docker's `config.json`, which `docker login`
//! and `podman login` write. They are sent to the server that they are for, and shown nowhere.

use std::{collections::BTreeMap, fmt};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;

/// Credentials by server.
#[derive(Clone, Default)]
pub struct Credentials(BTreeMap<String, Basic>);

/// A name and a password.
#[derive(Clone)]
pub(super) struct Basic {
    user: String,
    password: String,
}

#[derive(Deserialize)]
struct File {
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

impl Credentials {
    /// Reads `{"auths": {"HOST": {"auth": BASE64}}}`, or `username` and `password` in place of `auth`.
    ///
    /// # Errors
    /// Why it is none, without a word of it.
    pub fn parse(text: &str) -> Result<Self, String> {
        // serde_json's message may repeat a value.
        let file: File = serde_json::from_str(text).map_err(|error| {
            format!(
                "it is not of the form {{\"auths\": {{\"HOST\": {{\"auth\": \"...\"}}}}}} (line {})",
                error.line()
            )
        })?;
        let mut all = BTreeMap::new();
        for (server, entry) in file.auths {
            let basic = basic(entry).ok_or_else(|| {
                format!(
                    "`{}` has neither `auth` nor `username` and `password`: helpers for credentials are \
                     not asked",
                    server.escape_debug()
                )
            })?;
            all.insert(host_of(&server).to_owned(), basic);
        }
        Ok(Self(all))
    }

    /// Those for a server, by `HOST` or `HOST:PORT`.
    pub(super) fn of(&self, authority: &str) -> Option<&Basic> {
        self.0.get(authority)
    }
}

impl Basic {
    /// The value of a header.
    pub(super) fn header(&self) -> String {
        let both = format!("{}:{}", self.user, self.password);
        format!("Basic {}", STANDARD.encode(both))
    }
}

fn basic(entry: Entry) -> Option<Basic> {
    if let (Some(user), Some(password)) = (entry.username, entry.password) {
        return Some(Basic { user, password });
    }
    let decoded = STANDARD.decode(entry.auth?.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(Basic {
        user: user.to_owned(),
        password: password.to_owned(),
    })
}

/// Docker writes URLs for some.
fn host_of(server: &str) -> &str {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

impl fmt::Debug for Credentials {
    /// The servers only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test says where it failed")]
    use super::*;

    #[test]
    fn credentials_are_those_of_docker_and_show_nothing() {
        let auth = STANDARD.encode("me:hunter2");
        let text = format!(
            r#"{{"auths": {{"https://a.example/v1/": {{"auth": "{auth}"}},
                "b.example:5000": {{"username": "me", "password": "hunter2"}}}}, "credsStore": "x"}}"#
        );
        let credentials = Credentials::parse(&text).unwrap();
        for server in ["a.example", "b.example:5000"] {
            let header = credentials.of(server).unwrap().header();
            assert_eq!(header, format!("Basic {auth}"));
        }
        assert!(credentials.of("b.example").is_none());
        assert!(!format!("{credentials:?}").contains("hunter2"));
        for wrong in [
            "hunter2",
            "{}",
            r#"{"auths": {"a": {"auth": "hunter2"}}}"#,
            r#"{"auths": {"a": "hunter2"}}"#,
            r#"{"auths": {"a": {}}}"#,
        ] {
            let reason = Credentials::parse(wrong).unwrap_err();
            assert!(!reason.contains("hunter2"), "{reason}");
        }
    }
}
