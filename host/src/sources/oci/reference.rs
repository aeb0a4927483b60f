//! The name of an artifact: `HOST[:PORT]/NAME[:TAG][@sha256:DIGEST]`.

use std::fmt;

use semver::Version;

use crate::{plugin::metadata::Digest, sources::source::version_of};

/// Length of a tag, at most, in bytes: the registries' own bound.
const MAX_TAG_BYTES: usize = 128;

/// Length of the name of a repository, at most, in bytes: the registries' own bound.
const MAX_NAME_BYTES: usize = 255;

/// A name of an artifact in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    host: String,
    name: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads what follows `oci://`.
    ///
    /// # Errors
    /// Why it is none.
    pub(in crate::sources) fn parse(text: &str) -> Result<Self, String> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digits = digest.strip_prefix("sha256:");
                let digest = digits.and_then(|digits| Digest::from_hex(digits).ok());
                let digest = digest.ok_or("after `@`, write sha256: and 64 hexadecimal digits")?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (host, rest) = rest
            .split_once('/')
            .ok_or("write oci://HOST/NAME:TAG or oci://HOST/NAME@sha256:DIGEST")?;
        let (name, tag) = match rest.split_once(':') {
            Some((name, tag)) => (name, Some(tag)),
            None => (rest, None),
        };
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte);
        if host.is_empty() || !host.bytes().all(is_host) {
            return Err("it names no host".to_owned());
        }
        let is_part = |part: &str| {
            let allowed = |byte: u8| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte)
            };
            let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
            let bytes = part.as_bytes();
            part.bytes().all(allowed) && ends(bytes.first()) && ends(bytes.last())
        };
        if name.len() > MAX_NAME_BYTES || !name.split('/').all(is_part) {
            return Err(
                "the name of a repository has letters in lower case, digits, `-`, `_`, `.`, and `/` \
                 between its parts"
                    .to_owned(),
            );
        }
        let is_tag = |tag: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            (1..=MAX_TAG_BYTES).contains(&tag.len())
                && tag.bytes().all(allowed)
                && !tag.starts_with(['-', '.'])
        };
        if !tag.is_none_or(is_tag) {
            return Err("a tag has letters, digits, `-`, `_` and `.`".to_owned());
        }
        Ok(Self {
            host: host.to_owned(),
            name: name.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Whether it leaves open which version is meant.
    pub(super) fn is_open(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    /// What to ask a registry for: the digest, or else the tag.
    pub(super) fn manifest(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("sha256:{digest}"),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// The tag that is written to.
    pub(super) fn tag(&self) -> &str {
        self.tag.as_deref().unwrap_or("latest")
    }

    pub(super) fn with_tag(self, tag: &str) -> Self {
        Self {
            tag: Some(tag.to_owned()),
            ..self
        }
    }

    /// With the version as tag, where it has none.
    pub(super) fn tagged(self, version: &Version) -> Self {
        match self.tag {
            Some(_) => self,
            None => self.with_tag(&version.to_string().replace('+', "_")),
        }
    }

    pub(super) fn at(self, digest: Digest) -> Self {
        Self {
            digest: Some(digest),
            ..self
        }
    }

    /// Without what was chosen for it, see [`crate::sources::Source::unpinned`].
    pub(in crate::sources) fn unpinned(self) -> Self {
        match &self.tag {
            Some(tag) if version_of(tag).is_some() => Self {
                tag: None,
                digest: None,
                ..self
            },
            Some(_) => Self {
                digest: None,
                ..self
            },
            None => self,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci://{}/{}", self.host, self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@sha256:{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test says where it failed")]
    use super::*;

    #[test]
    fn a_reference_is_read_as_registries_have_it() {
        let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        let text = format!("a.example:5000/b/c-d:v1.0@sha256:{digest}");
        let reference = Reference::parse(&text).unwrap();
        assert_eq!(reference.to_string(), format!("oci://{text}"));
        assert_eq!(reference.manifest(), format!("sha256:{digest}"));
        assert_eq!(reference.clone().unpinned().manifest(), "v1.0");
        let open = Reference::parse("a/b").unwrap();
        let tagged = open.clone().tagged(&"1.0.0+x".parse().unwrap());
        assert_eq!(tagged.to_string(), "oci://a/b:1.0.0_x");
        assert!(open.is_open() && !tagged.is_open());
        for wrong in [
            "",
            "a",
            "/b",
            "a/B",
            "a/b:",
            "a/b:-x",
            "a/b@sha256:1",
            "a/../b",
            "a b/c",
        ] {
            assert!(Reference::parse(wrong).is_err(), "{wrong}");
        }
    }
}
