//! What the bytes of a plugin's files mean together. Takes bytes and names, never reads a file.

use plugin_abi::build_info::BuildInfo;

use super::Cause;
use crate::plugin::elf;
use crate::plugin::metadata::{Digest, LibraryPath, Metadata, parse_version};

/// A library that is fit to be loaded.
pub(super) struct Judged {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Digest,
    pub(super) build_info: BuildInfo,
}

/// A library with a `plugin.json`.
pub(super) fn library(
    metadata: &Metadata,
    bytes: Vec<u8>,
    digest: Digest,
) -> Result<Judged, Vec<Cause>> {
    if let Some(wanted) = metadata.sha256().filter(|wanted| **wanted != digest) {
        // Not the library that was meant: nothing else about it matters.
        return Err(vec![Cause::OtherDigest {
            wanted: *wanted,
            found: digest,
        }]);
    }
    let build_info = elf::inspect(&bytes).map_err(|error| vec![error.into()])?;
    let mut causes: Vec<_> = metadata
        .contradictions(&build_info)
        .into_iter()
        .map(Cause::from)
        .collect();
    let host = elf::host_abi();
    if let Some(wanted) = metadata
        .abi
        .as_ref()
        .filter(|wanted| !wanted.matches(&host))
    {
        causes.push(Cause::AbiRefused {
            wanted: wanted.clone(),
            host,
        });
    }
    if causes.is_empty() {
        Ok(Judged {
            bytes,
            digest,
            build_info,
        })
    } else {
        Err(causes)
    }
}

/// A library without one: it speaks for itself.
pub(super) fn bare_library(
    name: &str,
    bytes: Vec<u8>,
    digest: Digest,
) -> Result<(Metadata, Judged), Vec<Cause>> {
    let build_info = elf::inspect(&bytes).map_err(|error| vec![error.into()])?;
    let path = LibraryPath::new(name).expect("the name of a directory's entry is a relative path");
    let metadata = Metadata::from_build_info(&build_info, path).map_err(|invalid| {
        invalid
            .errors
            .into_iter()
            .map(Cause::Metadata)
            .collect::<Vec<_>>()
    })?;
    Ok((
        metadata,
        Judged {
            bytes,
            digest,
            build_info,
        },
    ))
}

/// A plugin's directory is called `name` or `name@version`, where several versions stand side by
/// side; so that nobody looks for a plugin under another plugin's name.
pub(super) fn directory_name(directory: &str, metadata: &Metadata) -> Option<Cause> {
    let (name, version) = match directory.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (directory, None),
    };
    let fits = name == metadata.name.as_str()
        && version.is_none_or(|version| {
            parse_version(version).is_ok_and(|version| version == metadata.version)
        });
    if fits {
        return None;
    }
    Some(Cause::Misplaced {
        directory: directory.to_owned(),
        plugin: metadata.name.clone(),
        version: Box::new(metadata.version.clone()),
    })
}
