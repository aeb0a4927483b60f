//! One repository of a registry, by the distribution API: manifests, blobs and tags; with a token that
//! the registry names the server of, or with the operator's credentials alone.

use std::cell::RefCell;

use hyper::{
    Method, Uri,
    header::{self, HeaderMap, HeaderValue},
};
use serde::Deserialize;

use super::Reference;
use crate::{
    plugin::metadata::Digest,
    sources::{
        SourceError, Sources,
        http::{Answer, Http, Origin, failed, is_loopback, secret},
    },
};

/// What an answer of the registry itself may have, in bytes.
const MAX_ANSWER_BYTES: u64 = 1 << 20;

/// Tags that are looked at, at most.
const MAX_TAGS: usize = 10_000;

/// A repository, and what it wants to see.
pub(super) struct Registry<'a> {
    http: Http<'a>,
    sources: &'a Sources<'a>,
    reference: Reference,
    base: String,
    authorization: RefCell<Option<HeaderValue>>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

#[derive(Deserialize)]
struct Tags {
    tags: Option<Vec<String>>,
}

/// What a registry wants before it answers.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl<'a> Registry<'a> {
    pub(super) fn of(sources: &'a Sources<'a>, reference: &Reference) -> Self {
        let host = reference.host();
        let uri: Option<Uri> = format!("http://{host}").parse().ok();
        let is_here = uri.is_some_and(|uri| is_loopback(uri.host().unwrap_or_default()));
        let scheme = match is_here && sources.settings.loopback_http {
            true => "http",
            false => "https",
        };
        Self {
            base: format!("{scheme}://{host}/v2/{}", reference.name()),
            http: Http::new(sources),
            sources,
            reference: reference.clone(),
            authorization: RefCell::new(None),
        }
    }

    pub(super) fn reference(&self) -> &Reference {
        &self.reference
    }

    pub(super) fn manifest(
        &self,
        reference: &Reference,
        accept: &str,
        bound: u64,
    ) -> Result<Vec<u8>, SourceError> {
        let url = format!("{}/manifests/{}", self.base, reference.manifest());
        let answer = self.good(self.get(&url, Some(accept))?)?;
        answer.body(bound, self.sources)
    }

    pub(super) fn blob(&self, digest: Digest, bound: u64) -> Result<Vec<u8>, SourceError> {
        let url = format!("{}/blobs/sha256:{digest}", self.base);
        let answer = self.good(self.get(&url, None)?)?;
        answer.body(bound, self.sources)
    }

    pub(super) fn tags(&self) -> Result<Vec<String>, SourceError> {
        let url = format!("{}/tags/list", self.base);
        let answer = self.good(self.get(&url, None)?)?;
        let body = answer.body(MAX_ANSWER_BYTES, self.sources)?;
        let tags: Tags = serde_json::from_slice(&body).map_err(|_| {
            failed(
                &url,
                "what the registry answers is no list of tags".to_owned(),
            )
        })?;
        let mut tags = tags.tags.unwrap_or_default();
        tags.truncate(MAX_TAGS);
        Ok(tags)
    }

    /// Puts a blob there, unless it is there already.
    pub(super) fn put_blob(&self, digest: Digest, bytes: &[u8]) -> Result<(), SourceError> {
        let url = format!("{}/blobs/sha256:{digest}", self.base);
        if self.send(Method::HEAD, &url, &[], None)?.status() == 200 {
            return Ok(());
        }
        self.sources
            .progress
            .begin(&format!("pushing {} bytes", bytes.len()), None);
        let uploads = format!("{}/blobs/uploads/", self.base);
        let begun = self.good(self.send(Method::POST, &uploads, &[], None)?)?;
        let location = begun.location()?;
        // It gets what the registry gets, so it has to be the registry.
        if Origin::of(&location) != Origin::of(&self.base) {
            return Err(failed(
                &uploads,
                "the registry wants the upload to go to another server".to_owned(),
            ));
        }
        let joint = if location.contains('?') { '&' } else { '?' };
        let url = format!("{location}{joint}digest=sha256:{digest}");
        let answer = self.send(Method::PUT, &url, bytes, Some("application/octet-stream"))?;
        self.good(answer)?;
        Ok(())
    }

    pub(super) fn put_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), SourceError> {
        let url = format!("{}/manifests/{}", self.base, reference.tag());
        self.good(self.send(Method::PUT, &url, bytes, Some(media_type))?)?;
        Ok(())
    }

    fn good(&self, answer: Answer) -> Result<Answer, SourceError> {
        self.http.good(answer, &self.base, &self.base)
    }

    fn get(&self, url: &str, accept: Option<&str>) -> Result<Answer, SourceError> {
        let mut headers = HeaderMap::new();
        if let Some(accept) = accept.and_then(|accept| HeaderValue::from_str(accept).ok()) {
            headers.insert(header::ACCEPT, accept);
        }
        self.asked(headers, |headers| self.http.get(url, headers))
    }

    fn send(
        &self,
        method: Method,
        url: &str,
        body: &[u8],
        content_type: Option<&str>,
    ) -> Result<Answer, SourceError> {
        let mut headers = HeaderMap::new();
        if let Some(value) = content_type.and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(header::CONTENT_TYPE, value);
        }
        self.asked(headers, |headers| {
            self.http.once(method.clone(), url, headers, body)
        })
    }

    /// Asks; where the registry wants to know who asks, once more with an answer to that.
    fn asked(
        &self,
        mut headers: HeaderMap,
        ask: impl Fn(&HeaderMap) -> Result<Answer, SourceError>,
    ) -> Result<Answer, SourceError> {
        if let Some(value) = &*self.authorization.borrow() {
            headers.insert(header::AUTHORIZATION, value.clone());
        }
        let answer = ask(&headers)?;
        // Whoever else it leads to may ask as well, and is told nothing.
        if answer.status() != 401 || !answer.is_of(&self.base) {
            return Ok(answer);
        }
        let challenge = answer
            .headers("www-authenticate")
            .find_map(Challenge::parse);
        let Some(value) = challenge
            .map(|it| self.authorize(&it))
            .transpose()?
            .flatten()
        else {
            return Ok(answer);
        };
        headers.insert(header::AUTHORIZATION, value.clone());
        self.authorization.replace(Some(value));
        ask(&headers)
    }

    /// Whether whoever gives tokens may know the credentials for the registry: over TLS, since the registry
    /// has named them; without it where they are as near as the registry itself.
    fn may_know(&self, realm: &str) -> bool {
        let (Some(realm), Some(base)) = (Origin::of(realm), Origin::of(&self.base)) else {
            return false;
        };
        realm.scheme == "https" || (realm.scheme == base.scheme && realm.host == base.host)
    }

    /// What to show the registry; nothing where there is nothing.
    fn authorize(&self, challenge: &Challenge) -> Result<Option<HeaderValue>, SourceError> {
        let basic = self.http.basic(&self.base);
        let Challenge::Bearer {
            realm,
            service,
            scope,
        } = challenge
        else {
            return Ok(basic);
        };
        let mut query = form_urlencoded::Serializer::new(String::new());
        if let Some(service) = service {
            query.append_pair("service", service);
        }
        if let Some(scope) = scope {
            query.append_pair("scope", scope);
        }
        let joint = if realm.contains('?') { '&' } else { '?' };
        let url = format!("{realm}{joint}{}", query.finish());
        let mut headers = HeaderMap::new();
        if let Some(basic) = basic {
            if !self.may_know(&url) {
                return Err(failed(
                    &url,
                    format!(
                        "{} wants the credentials for it to be sent there, without TLS to another host",
                        self.base
                    ),
                ));
            }
            headers.insert(header::AUTHORIZATION, basic);
        }
        let answer = self.http.get(&url, &headers)?;
        let answer = self.http.good(answer, &url, &self.base)?;
        let body = answer.body(MAX_ANSWER_BYTES, self.sources)?;
        let nonsense = || failed(&url, "what it answers is no token".to_owned());
        let token: Token = serde_json::from_slice(&body).map_err(|_| nonsense())?;
        let token = token.token.or(token.access_token).ok_or_else(nonsense)?;
        let value = secret(&format!("Bearer {token}")).ok_or_else(nonsense)?;
        Ok(Some(value))
    }
}

impl Challenge {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (None, None, None);
        let mut rest = rest.trim();
        while let Some((key, after)) = rest.split_once('=') {
            // What is quoted may have commas in it.
            let (value, after) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_at(after.find(',').unwrap_or(after.len())),
            };
            let slot = match key.trim() {
                "realm" => &mut realm,
                "service" => &mut service,
                "scope" => &mut scope,
                _ => &mut None,
            };
            *slot = Some(value.to_owned());
            rest = after.trim_start().trim_start_matches(',').trim_start();
        }
        Some(Self::Bearer {
            realm: realm?,
            service,
            scope,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test says where it failed")]
    use super::*;

    #[test]
    fn a_challenge_is_read_with_commas_in_its_values() {
        let text =
            "Bearer realm=\"https://a/token\",service=\"b\", scope=\"repository:c:pull,push\"";
        assert_eq!(
            Challenge::parse(text),
            Some(Challenge::Bearer {
                realm: "https://a/token".to_owned(),
                service: Some("b".to_owned()),
                scope: Some("repository:c:pull,push".to_owned()),
            })
        );
        assert_eq!(Challenge::parse("basic realm=x"), Some(Challenge::Basic));
        for nonsense in [
            "",
            "Digest realm=x",
            "Bearer",
            "Bearer realm=\"x",
            "Bearer service=x",
        ] {
            assert_eq!(Challenge::parse(nonsense), None, "{nonsense}");
        }
    }
}
