//! A crate in a git repository: the real git finds out which commit is meant and fetches that one alone,
//! with no hook, no submodule, no prompt, no file of the operator's configuration, and no protocol but the
//! one of the URL.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Instant,
};

use semver::VersionReq;

use super::{
    At, Content, GitSource, Pin, Resolved, Source, SourceError, Sources, cargo,
    child::{Run, arguments, environment},
    credentials::Basic,
    error::denied,
    http::Origin,
    roots::{self, ROOTS_VARIABLE, UNTRUSTED},
    source::version_of,
};

/// What git may know of the operator's environment.
const VARIABLES: [&str; 9] = [
    "PATH",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    ROOTS_VARIABLE,
];

/// References that a repository may have; more are not looked at.
const MAX_REFS: usize = 100_000;

/// What git is told before each of its commands.
const ALWAYS: [&str; 9] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "protocol.allow=never",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "credential.helper=",
    "gc.auto=0",
    "advice.detachedHead=false",
    "init.defaultBranch=main",
];

pub(super) fn resolve(
    sources: &Sources<'_>,
    source: &GitSource,
    requirement: &VersionReq,
) -> Result<Resolved, SourceError> {
    let text = source.to_string();
    let missing = |missing: String, has: Vec<String>| SourceError::Missing {
        what: text.clone(),
        missing,
        has,
    };
    let mut resolved = source.clone();
    let commit = match &source.at {
        At::Commit(commit) => commit.to_lowercase(),
        At::Branch(name) => {
            let refs = refs(sources, source)?;
            let has = || names(&refs, "refs/heads/");
            let commit = refs.get(&format!("refs/heads/{name}"));
            commit
                .ok_or_else(|| missing(format!("branch `{name}`"), has()))?
                .clone()
        }
        At::Tag(name) => {
            let refs = refs(sources, source)?;
            let has = || names(&refs, "refs/tags/");
            let commit = tag(&refs, name);
            commit
                .ok_or_else(|| missing(format!("tag `{name}`"), has()))?
                .clone()
        }
        At::Default => {
            let refs = refs(sources, source)?;
            let tags = names(&refs, "refs/tags/");
            match newest(&tags, requirement) {
                Some(name) => {
                    resolved.at = At::Tag(name.clone());
                    let commit = tag(&refs, name);
                    commit.expect("it is one of them").clone()
                }
                // Whether the version fits is seen when the crate is there.
                None if tags.iter().all(|name| version_of(name).is_none()) => {
                    let commit = refs.get("HEAD");
                    commit
                        .ok_or_else(|| missing("a commit".to_owned(), Vec::new()))?
                        .clone()
                }
                None => {
                    return Err(SourceError::NoVersion {
                        what: text,
                        requirement: requirement.clone(),
                        has: tags,
                    });
                }
            }
        }
    };
    Ok(Resolved {
        source: Source::Git(resolved),
        pin: Pin::Commit(commit, None),
    })
}

/// Fetches one commit, and has it built.
pub(super) fn fetch(
    sources: &Sources<'_>,
    source: &GitSource,
    commit: &str,
) -> Result<Content, SourceError> {
    // Before anything is asked for.
    sources.build_is_allowed(source)?;
    let text = source.to_string();
    let scratch = scratch(sources)?;
    let checkout = scratch.path().join("checkout");
    let git = Git {
        sources,
        source,
        text: &text,
        scratch: scratch.path(),
    };
    sources.progress.begin(
        &format!("fetching commit {commit} of {}", source.repository),
        None,
    );
    git.run(arguments([
        &"init",
        &"--quiet",
        &"--template=",
        &"--",
        &checkout,
    ]))?;
    let within =
        |command: Vec<OsString>| git.run([arguments([&"-C", &checkout]), command].concat());
    within(arguments([
        &"fetch",
        &"--quiet",
        &"--depth=1",
        &"--no-tags",
        &"--no-recurse-submodules",
        &"--",
        &source.repository,
        &commit,
    ]))?;
    within(arguments([
        &"checkout",
        &"--quiet",
        &"--detach",
        &commit,
        &"--",
    ]))?;
    let directory = match &source.directory {
        Some(directory) => checkout.join(directory),
        None => checkout,
    };
    let bytes = cargo::build(sources, &text, scratch.path(), &directory)?;
    Ok(Content {
        package: bytes,
        signature: None,
    })
}

struct Git<'a> {
    sources: &'a Sources<'a>,
    source: &'a GitSource,
    text: &'a str,
    scratch: &'a Path,
}

impl Git<'_> {
    fn run(&self, command: Vec<OsString>) -> Result<Vec<u8>, SourceError> {
        let protocol = match self.source.repository.starts_with("file:") {
            true => "file",
            false => "https",
        };
        let mut arguments = Vec::new();
        let only = format!("protocol.{protocol}.allow=always");
        // It would take them along: the header is for all that it asks from then on.
        let redirects = match self.credentials() {
            Some(_) => "http.followRedirects=false",
            None => "http.followRedirects=initial",
        };
        for setting in ALWAYS.into_iter().chain([redirects, &only]) {
            arguments.extend(["-c".into(), setting.into()]);
        }
        arguments.extend(command);
        let mut environment = environment(self.sources, self.scratch, &VARIABLES);
        for (name, value) in [
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ALLOW_PROTOCOL", protocol),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ASKPASS", "true"),
            ("GIT_LFS_SKIP_SMUDGE", "1"),
        ] {
            environment.push((name.to_owned(), value.into()));
        }
        environment.extend(self.private()?);
        Run {
            sources: self.sources,
            what: self.text,
            program: "git",
            arguments,
            environment,
            directory: self.scratch,
            began: Instant::now(),
            time: self.sources.settings.fetch_time,
            disk: vec![self.scratch.to_owned()],
        }
        .output()
        .map_err(|error| self.explained(error))
    }

    /// What is known of the server, and for which.
    fn credentials(&self) -> Option<(String, &Basic)> {
        let Origin { authority, .. } = Origin::of(&self.source.repository)?;
        let basic = self.sources.settings.credentials.of(&authority)?;
        Some((authority, basic))
    }

    /// Git says what was wrong, but not what to do about it here.
    fn explained(&self, error: SourceError) -> SourceError {
        let SourceError::Program {
            what,
            program,
            reason,
            output,
        } = error
        else {
            return error;
        };
        let says = |all: &[&str]| all.iter().any(|words| output.contains(words));
        let host = Origin::of(&self.source.repository).map_or_else(String::new, |it| it.authority);
        let more = if says(&["Authentication failed", "returned error: 403"]) {
            denied(&host, self.credentials().is_some())
        } else if says(&["certificate verification failed", "certificate problem"]) {
            UNTRUSTED.to_owned()
        } else if self.credentials().is_some() && says(&["returned error: 30"]) {
            "the server leads somewhere else, and credentials do not go there: name that place"
                .to_owned()
        } else {
            String::new()
        };
        let joint = if more.is_empty() { "" } else { ": " };
        SourceError::Program {
            what,
            program,
            reason: format!("{reason}{joint}{more}"),
            output,
        }
    }

    /// What nobody else may see of how a server is asked: it stands on no command line.
    fn private(&self) -> Result<Vec<(String, OsString)>, SourceError> {
        let settings = self.sources.settings;
        let mut configuration = Vec::new();
        if let Some((authority, basic)) = self.credentials() {
            configuration.push((
                format!("http.https://{authority}/.extraHeader"),
                format!("Authorization: {}", basic.header()),
            ));
        }
        if let Some(file) = roots::file(settings, self.scratch)? {
            configuration.push(("http.sslCAInfo".to_owned(), file.display().to_string()));
        }
        let mut variables = vec![(
            "GIT_CONFIG_COUNT".to_owned(),
            configuration.len().to_string().into(),
        )];
        for (index, (key, value)) in configuration.into_iter().enumerate() {
            variables.push((format!("GIT_CONFIG_KEY_{index}"), key.into()));
            variables.push((format!("GIT_CONFIG_VALUE_{index}"), value.into()));
        }
        Ok(variables)
    }
}

/// A directory for one fetch, gone with it.
fn scratch(sources: &Sources<'_>) -> Result<Scratch, SourceError> {
    let name = format!("plugin-host-build-{}-{:016x}", std::process::id(), random());
    let path = sources.settings.work_dir.join(name);
    match DirBuilder::new().mode(0o700).create(&path) {
        Ok(()) => Ok(Scratch(path)),
        Err(source) => Err(SourceError::File { path, source }),
    }
}

/// A directory that is removed when this is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is in the system's directory for such things.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without it, whoever has taken the name keeps this one from being made, and no more.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u64::from_ne_bytes(bytes)
}

/// What a repository calls its commits.
type Refs = BTreeMap<String, String>;

fn refs(sources: &Sources<'_>, source: &GitSource) -> Result<Refs, SourceError> {
    let text = source.to_string();
    let scratch = scratch(sources)?;
    let git = Git {
        sources,
        source,
        text: &text,
        scratch: scratch.path(),
    };
    sources
        .progress
        .begin(&format!("asking {}", source.repository), None);
    let output = git.run(arguments([
        &"ls-remote",
        &"--quiet",
        &"--",
        &source.repository,
    ]))?;
    let output = String::from_utf8_lossy(&output);
    let lines = output.lines().take(MAX_REFS);
    let pairs = lines.filter_map(|line| line.split_once('\t'));
    Ok(pairs
        .filter(|(commit, _)| commit.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .map(|(commit, name)| (name.to_owned(), commit.to_owned()))
        .collect())
}

fn names(refs: &Refs, below: &str) -> Vec<String> {
    let names = refs.keys().filter_map(|name| name.strip_prefix(below));
    let names = names.filter(|name| !name.ends_with("^{}"));
    names.map(str::to_owned).collect()
}

/// The commit behind a tag: a tag with a message is an object of its own.
fn tag<'a>(refs: &'a Refs, name: &str) -> Option<&'a String> {
    refs.get(&format!("refs/tags/{name}^{{}}"))
        .or_else(|| refs.get(&format!("refs/tags/{name}")))
}

fn newest<'a>(tags: &'a [String], requirement: &VersionReq) -> Option<&'a String> {
    let versions = tags.iter().filter_map(|tag| Some((version_of(tag)?, tag)));
    versions
        .filter(|(version, _)| requirement.matches(version))
        .max()
        .map(|(_, tag)| tag)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test says where it failed")]
    use super::*;

    #[test]
    fn the_newest_tag_that_is_a_version_and_fits_is_meant() {
        let tags = ["v1.2.0", "1.10.0", "v2.0.0", "v2.1.0-rc.1", "latest"].map(str::to_owned);
        let newest = |requirement: &str| {
            let requirement = VersionReq::parse(requirement).unwrap();
            newest(&tags, &requirement).map(String::as_str)
        };
        assert_eq!(newest("*"), Some("v2.0.0"));
        assert_eq!(newest("^1"), Some("1.10.0"));
        assert_eq!(newest("~1.2"), Some("v1.2.0"));
        assert_eq!(newest("^3"), None);
    }

    #[test]
    fn a_tag_with_a_message_stands_for_its_commit() {
        let refs: Refs = [
            ("refs/tags/a", "1"),
            ("refs/tags/a^{}", "2"),
            ("refs/tags/b", "3"),
        ]
        .map(|(name, commit)| (name.to_owned(), commit.to_owned()))
        .into();
        assert_eq!(tag(&refs, "a").unwrap(), "2");
        assert_eq!(tag(&refs, "b").unwrap(), "3");
        assert_eq!(names(&refs, "refs/tags/"), ["a", "b"]);
    }
}
