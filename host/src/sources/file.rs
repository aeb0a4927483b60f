//! A package or a plugin's directory on this machine.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use serde::Deserialize;

use super::{Content, GitSource, MAX_DOWNLOAD_BYTES, Pin, Resolved, Source, SourceError};
use crate::plugin::{
    metadata::{Digest, FILE_NAME, MAX_FILE_BYTES},
    package::{Contents, is_package, pack},
    signature::{MAX_SIGNATURE_BYTES, beside},
};

/// What a `plugin.json` says about where its plugin is from, and no more.
#[derive(Deserialize)]
struct Document {
    source: DocumentSource,
}

#[derive(Deserialize)]
struct DocumentSource {
    mode: String,
    path: String,
}

/// The repository that the `plugin.json` in a directory names, in place of a library.
pub(super) fn repository_of(path: &Path) -> Result<Option<Source>, SourceError> {
    let file = path.join(FILE_NAME);
    if !path.is_dir() || !file.is_file() {
        return Ok(None);
    }
    let bytes = read(&file, MAX_FILE_BYTES)?;
    // One that cannot be read is judged by whoever installs it.
    match serde_json::from_slice::<Document>(&bytes) {
        Ok(document) if document.source.mode == "remote_git" => {
            let source = GitSource::of_remote_git(&document.source.path)?;
            Ok(Some(Source::Git(source)))
        }
        _ => Ok(None),
    }
}

pub(super) fn resolve(path: &Path) -> Result<Resolved, SourceError> {
    let source = std::path::absolute(path).map_err(|source| failed(path, source))?;
    let content = fetch(path)?;
    Ok(Resolved {
        source: Source::File(source),
        pin: Pin::Package(Digest::of(&content.package)),
    })
}

/// Reads a package, or makes one of a plugin's directory.
pub(super) fn fetch(path: &Path) -> Result<Content, SourceError> {
    let metadata = path.metadata().map_err(|source| failed(path, source))?;
    if metadata.is_dir() {
        let contents = Contents::gather(path, &[])?;
        return Ok(Content {
            package: pack(&contents).map_err(SourceError::Package)?,
            signature: None,
        });
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if !metadata.is_file() || !is_package(&name) {
        return Err(SourceError::NoPlugin {
            path: path.to_owned(),
            reason:
                "it is neither a package (.plg) nor a plugin's directory; `plugin-host pack` makes \
                     packages"
                    .to_owned(),
        });
    }
    let package = read(path, MAX_DOWNLOAD_BYTES)?;
    let signature = match read(&beside(path), MAX_SIGNATURE_BYTES) {
        Ok(signature) => Some(signature),
        Err(SourceError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    Ok(Content { package, signature })
}

/// Reads a file within its bound, in bytes.
///
/// # Errors
/// It cannot be read, or is larger.
pub fn read(path: &Path, bound: u64) -> Result<Vec<u8>, SourceError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(bound + 1).read_to_end(&mut bytes))
        .map_err(|source| failed(path, source))?;
    match bytes.len() as u64 > bound {
        true => Err(SourceError::TooLarge {
            what: path.display().to_string(),
            bound,
        }),
        false => Ok(bytes),
    }
}

fn failed(path: &Path, source: io::Error) -> SourceError {
    SourceError::File {
        path: path.to_owned(),
        source,
    }
}
