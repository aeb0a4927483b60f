//! How a source is written, and read: a path, `https://`, `git+https://`, `git+file://` or `oci://`.

use std::{fmt, path::PathBuf, str::FromStr};

use semver::Version;

use super::Reference;
use crate::plugin::metadata::Digest;

/// Length of a source, at most, in bytes.
const MAX_BYTES: usize = 2_048;

/// Digits of a commit's full name, as git writes it today and tomorrow.
const COMMIT_DIGITS: [usize; 2] = [40, 64];

/// Where a plugin is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A package or a plugin's directory on this machine.
    File(PathBuf),
    /// A package on a web server.
    Https(HttpsSource),
    /// A crate in a git repository.
    Git(GitSource),
    /// A package in a registry.
    Oci(Reference),
}

/// A package on a web server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpsSource {
    /// Its URL, without a fragment.
    pub url: String,
    /// Which bytes are meant.
    pub sha256: Option<Digest>,
}

/// A crate in a git repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitSource {
    /// The repository: an `https://` or `file://` URL.
    pub repository: String,
    /// Which of its commits.
    pub at: At,
    /// Where in there the crate is, where it is not at the top.
    pub directory: Option<String>,
}

/// Which commit of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// The newest tag that is a version and fits, or else what its default branch has.
    Default,
    /// What a branch has.
    Branch(String),
    /// What a tag names.
    Tag(String),
    /// This one.
    Commit(String),
}

/// Something that is no source: whoever has written it can mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no source of plugins: {reason}")]
pub struct NotASource {
    text: String,
    reason: String,
}

impl FromStr for Source {
    type Err = NotASource;

    fn from_str(text: &str) -> Result<Self, NotASource> {
        let wrong = |reason: &str| NotASource {
            // It may be a password that is wrong about it.
            text: without_user(text),
            reason: reason.to_owned(),
        };
        if text.is_empty() || text.len() > MAX_BYTES || text.chars().any(char::is_control) {
            return Err(wrong("it is empty, too long, or has control characters"));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(Self::File(text.into()));
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') && scheme != "oci" {
            return Err(wrong(
                "it has a user name in it; credentials come from a file (`--credentials-file`) or from \
                 PLUGIN_HOST_CREDENTIALS",
            ));
        }
        match scheme {
            "https" | "http" if authority.is_empty() => Err(wrong("it names no host")),
            "https" | "http" => https(text, &wrong).map(Self::Https),
            "git+https" | "git+file" => git(&text["git+".len()..], &wrong).map(Self::Git),
            "oci" => Reference::parse(rest).map(Self::Oci).map_err(|e| wrong(&e)),
            _ => Err(wrong(
                "write a path, or a URL that begins with https://, git+https://, git+file:// or oci://",
            )),
        }
    }
}

fn https(text: &str, wrong: &impl Fn(&str) -> NotASource) -> Result<HttpsSource, NotASource> {
    let (url, fragment) = text.split_once('#').unwrap_or((text, ""));
    let sha256 = match fragment {
        "" => None,
        fragment => {
            let digits = fragment.strip_prefix("sha256=");
            let digest = digits.and_then(|digits| Digest::from_hex(digits).ok());
            Some(
                digest
                    .ok_or_else(|| wrong("after `#`, write sha256= and 64 hexadecimal digits"))?,
            )
        }
    };
    Ok(HttpsSource {
        url: url.to_owned(),
        sha256,
    })
}

fn git(text: &str, wrong: &impl Fn(&str) -> NotASource) -> Result<GitSource, NotASource> {
    let (repository, fragment) = text.split_once('#').unwrap_or((text, ""));
    let mut source = GitSource {
        repository: repository.to_owned(),
        at: At::Default,
        directory: None,
    };
    for part in fragment.split('&').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or(("", part));
        let at = match key {
            "branch" => At::Branch(value.to_owned()),
            "tag" => At::Tag(value.to_owned()),
            "commit" if !is_commit(value) => {
                return Err(wrong("a commit is written with all of its digits"));
            }
            "commit" => At::Commit(value.to_owned()),
            "dir" if is_path_inside(value) => {
                source.directory = Some(value.to_owned());
                continue;
            }
            "dir" => return Err(wrong("`dir` is a path inside of the repository")),
            _ => {
                return Err(wrong(
                    "after `#`, write branch=, tag= or commit=, and dir= where the crate is not at the \
                     top, with `&` between them",
                ));
            }
        };
        if !is_ref(value) {
            return Err(wrong("no branch or tag has such a name"));
        }
        if source.at != At::Default {
            return Err(wrong("it names several commits"));
        }
        source.at = at;
    }
    Ok(source)
}

impl GitSource {
    /// What plugin.json's `remote_git` names.
    ///
    /// # Errors
    /// It is no URL of a repository.
    pub fn of_remote_git(url: &str) -> Result<Self, NotASource> {
        let url = url.strip_prefix("git+").unwrap_or(url);
        match format!("git+{url}").parse()? {
            Source::Git(source) => Ok(source),
            _ => Err(NotASource {
                text: url.to_owned(),
                reason: "a repository is named by an https:// or file:// URL".to_owned(),
            }),
        }
    }
}

impl Source {
    /// The same without what was chosen for it, to look for something newer: a tag that is a version gives
    /// way to any other version, a branch and other tags stay.
    #[must_use]
    pub fn unpinned(self) -> Self {
        match self {
            Self::Oci(reference) => Self::Oci(reference.unpinned()),
            Self::Git(source) if matches!(&source.at, At::Tag(tag) if version_of(tag).is_some()) => {
                Self::Git(GitSource {
                    at: At::Default,
                    ..source
                })
            }
            source => source,
        }
    }
}

/// The version that a tag names.
pub(super) fn version_of(tag: &str) -> Option<Version> {
    // A registry's tag has no `+`.
    let text = tag.strip_prefix('v').unwrap_or(tag).replace('_', "+");
    Version::parse(&text).ok()
}

fn is_commit(text: &str) -> bool {
    COMMIT_DIGITS.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What git allows, and a little less.
fn is_ref(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./+".contains(&byte);
    let odd = ["..", "//", ".lock"];
    !text.is_empty()
        && text.bytes().all(allowed)
        && !text.starts_with(['-', '/', '.'])
        && !text.ends_with(['/', '.'])
        && !odd.iter().any(|odd| text.contains(odd))
}

fn is_path_inside(text: &str) -> bool {
    is_ref(text)
}

fn without_user(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.escape_debug().to_string();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = match authority.rsplit_once('@') {
        Some((_, host)) => format!("...@{host}"),
        None => authority.to_owned(),
    };
    format!("{scheme}://{host}{path}")
        .escape_debug()
        .to_string()
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Https(source) => f.write_str(&source.url),
            Self::Git(source) => source.fmt(f),
            Self::Oci(reference) => reference.fmt(f),
        }
    }
}

impl fmt::Display for GitSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "git+{}", self.repository)?;
        let at = match &self.at {
            At::Default => None,
            At::Branch(name) => Some(format!("branch={name}")),
            At::Tag(name) => Some(format!("tag={name}")),
            At::Commit(commit) => Some(format!("commit={commit}")),
        };
        let directory = self.directory.as_ref().map(|path| format!("dir={path}"));
        let parts: Vec<_> = at.into_iter().chain(directory).collect();
        match parts.is_empty() {
            true => Ok(()),
            false => write!(f, "#{}", parts.join("&")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test says where it failed")]
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn a_source_is_written_as_it_was_read() {
        for text in [
            "say.plg",
            "/opt/plugins/say",
            "https://a.example/say.plg",
            "git+https://a.example/say.git",
            "git+https://a.example/say#branch=main",
            "git+file:///srv/say#tag=v1.0.0&dir=plugins/say",
            &format!("git+https://a.example/say#commit={COMMIT}"),
            "oci://a.example/plugins/say:1.0.0",
            "oci://localhost:5000/say",
        ] {
            let source: Source = text.parse().unwrap();
            assert_eq!(source.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_source_is_told_and_no_password_repeated() {
        for (text, reason) in [
            ("", "it is empty"),
            ("ftp://a/say.plg", "begins with https://"),
            ("git+ssh://a/say", "begins with https://"),
            ("git://a/say", "begins with https://"),
            ("https:///say", "names no host"),
            ("https://me:hunter2@a/say.plg", "has a user name"),
            ("git+https://me:hunter2@a/say", "has a user name"),
            ("https://a/say.plg#md5=1", "sha256="),
            ("git+https://a/say#commit=abc", "all of its digits"),
            (
                "git+https://a/say#branch=--upload-pack=x",
                "no branch or tag",
            ),
            ("git+https://a/say#branch=a&tag=b", "several commits"),
            ("git+https://a/say#dir=../x", "inside of the repository"),
            ("git+https://a/say#main", "write branch="),
            ("oci://a/Say", "lower case"),
        ] {
            let error = text.parse::<Source>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn for_something_newer_versions_give_way_and_branches_stay() {
        let unpinned = |text: &str| text.parse::<Source>().unwrap().unpinned().to_string();
        let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        let pinned = format!("oci://a/b@sha256:{digest}");
        assert_eq!(unpinned(&pinned), pinned);
        assert_eq!(
            unpinned(&format!("oci://a/b:1.0.0@sha256:{digest}")),
            "oci://a/b"
        );
        assert_eq!(
            unpinned(&format!("oci://a/b:edge@sha256:{digest}")),
            "oci://a/b:edge"
        );
        assert_eq!(unpinned("git+https://a/b#tag=v1.0.0"), "git+https://a/b");
        assert_eq!(
            unpinned("git+https://a/b#branch=x"),
            "git+https://a/b#branch=x"
        );
    }
}
