//! Why a plugin could not be had, and what to do about it.

use std::{io, path::PathBuf};

use semver::VersionReq;

use super::NotASource;
use crate::plugin::{
    metadata::Digest,
    package::{PackError, PackageError, Platform},
};

/// Nothing was fetched. Whose fault it is, each says; none of them holds a credential.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// What was asked for is no source.
    #[error(transparent)]
    NotASource(#[from] NotASource),
    /// Nobody says which bytes a URL stands for.
    #[error(
        "{0}: a URL alone says nothing about what comes from there: give the package's SHA-256 with \
         `--sha256`, or after the URL as `#sha256=...`"
    )]
    DigestRequired(String),
    /// What came is something else.
    #[error(
        "{what}: the SHA-256 is {found}, not {wanted}: it was changed, or something else was meant"
    )]
    OtherDigest {
        /// The source.
        what: String,
        /// What was wanted.
        wanted: Digest,
        /// What came.
        found: Digest,
    },
    /// More bytes than anything of its kind has.
    #[error("{what}: it has more than {bound} bytes")]
    TooLarge {
        /// The source.
        what: String,
        /// What it may have.
        bound: u64,
    },
    /// The operator does not want anything to be built here.
    #[error(
        "{0}: it would have to be built here, which runs code of its authors and of all that it depends \
         on: allow it with `--allow-build`, or install a package that was built elsewhere"
    )]
    BuildNotAllowed(String),
    /// A file on this machine.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Neither a package nor a plugin's directory.
    #[error("{}: {reason}", path.display())]
    NoPlugin {
        /// What it is instead.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No package can be made of what was built.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// What came is no package.
    #[error("{} ({})", .0, .0.next_step())]
    Package(PackageError),
    /// A server cannot be asked, or does not answer in a way that makes sense.
    #[error("{what}: {reason}")]
    Server {
        /// What was asked for.
        what: String,
        /// Why there is no answer.
        reason: String,
    },
    /// A server says no.
    #[error("{what}: the server answers {status}{}", not_there(*status))]
    Status {
        /// What was asked for.
        what: String,
        /// Its answer.
        status: u16,
    },
    /// A server wants to know who asks, or that one may not.
    #[error("{what}: the server answers {status}: {}", denied(host, *known))]
    Denied {
        /// What was asked for.
        what: String,
        /// Its answer.
        status: u16,
        /// Whose credentials count there.
        host: String,
        /// Whether it got them.
        known: bool,
    },
    /// A program that was needed has failed, or was ended.
    #[error("{what}: {program} {reason}{}", said(output))]
    Program {
        /// The source.
        what: String,
        /// What ran.
        program: &'static str,
        /// What became of it.
        reason: String,
        /// The end of what it said.
        output: String,
    },
    /// There is no such branch, tag or version.
    #[error("{what}: {missing} is not there{}", offered(has))]
    Missing {
        /// The source.
        what: String,
        /// What was looked for.
        missing: String,
        /// What is there.
        has: Vec<String>,
    },
    /// Nothing fits a requirement.
    #[error("{what}: no version fits `{requirement}`{}", offered(has))]
    NoVersion {
        /// The source.
        what: String,
        /// The requirement.
        requirement: VersionReq,
        /// What is there.
        has: Vec<String>,
    },
    /// A lock file knows nothing for this machine.
    #[error(
        "`{name}`: the lock has no digest for {platform}: install it on such a machine without \
         `--locked` first"
    )]
    NotForThisPlatform {
        /// The plugin.
        name: String,
        /// This machine's platform.
        platform: Platform,
    },
    /// A lock file pins a source in a way that its kind does not have.
    #[error("{0}: the lock pins it in another way than such a source is pinned: install it anew")]
    PinnedOtherwise(String),
}

/// Why a server denies something, and what to do about it.
pub(super) fn denied(host: &str, known: bool) -> String {
    match known {
        true => format!(
            "it does not take the credentials for `{host}`, or they are not for this: check what \
             `--credentials-file` or PLUGIN_HOST_CREDENTIALS says of it"
        ),
        false => format!(
            "there are no credentials for `{host}`: give them in a file (`--credentials-file`) or in \
             PLUGIN_HOST_CREDENTIALS"
        ),
    }
}

fn not_there(status: u16) -> &'static str {
    match status {
        401 | 403 => ": another server leads there, and credentials do not go along",
        404 => ": it is not there, or not for everybody",
        _ => "",
    }
}

fn said(output: &str) -> String {
    match output.trim() {
        "" => String::new(),
        output => format!("; it said:\n{output}"),
    }
}

fn offered(has: &[String]) -> String {
    match has {
        [] => String::new(),
        has => format!("; there are {}", has.join(", ")),
    }
}
