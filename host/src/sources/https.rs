//! A package on a web server. Its signature is looked for beside it.

use hyper::header::{self, HeaderMap};

use super::{
    Content, HttpsSource, MAX_DOWNLOAD_BYTES, Pin, Resolved, Source, SourceError, Sources,
    http::Http,
};
use crate::plugin::{
    metadata::Digest,
    signature::{MAX_SIGNATURE_BYTES, SUFFIX},
};

/// A URL means what its digest says.
pub(super) fn resolve(source: &HttpsSource) -> Result<Resolved, SourceError> {
    let digest = source
        .sha256
        .ok_or_else(|| SourceError::DigestRequired(source.url.clone()))?;
    Ok(Resolved {
        source: Source::Https(source.clone()),
        pin: Pin::Package(digest),
    })
}

pub(super) fn fetch(
    sources: &Sources<'_>,
    source: &HttpsSource,
    digest: Digest,
) -> Result<Content, SourceError> {
    let http = Http::new(sources);
    let get = |url: &str| {
        let mut headers = HeaderMap::new();
        if let Some(basic) = http.basic(url) {
            headers.insert(header::AUTHORIZATION, basic);
        }
        http.get(url, &headers)
    };
    let cached = sources
        .settings
        .cache
        .as_ref()
        .and_then(|it| it.get(&digest));
    let bytes = match cached {
        Some(bytes) => bytes,
        None => {
            let answer = http.good(get(&source.url)?, &source.url, &source.url)?;
            let bytes = answer.body(MAX_DOWNLOAD_BYTES, sources)?;
            let found = Digest::of(&bytes);
            if found != digest {
                return Err(SourceError::OtherDigest {
                    what: source.url.clone(),
                    wanted: digest,
                    found,
                });
            }
            if let Some(cache) = &sources.settings.cache {
                cache.put(&bytes);
            }
            bytes
        }
    };
    // Before a question mark, after which a server may want to know who asks.
    let (path, query) = match source.url.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (source.url.as_str(), String::new()),
    };
    let answer = get(&format!("{path}{SUFFIX}{query}"))?;
    let signature = match answer.status() {
        // Not every server tells who may not look from what is not there.
        403 | 404 | 410 => None,
        _ => {
            let answer = http.good(answer, &source.url, &source.url)?;
            Some(answer.body(MAX_SIGNATURE_BYTES, sources)?)
        }
    };
    Ok(Content {
        package: bytes,
        signature,
    })
}
