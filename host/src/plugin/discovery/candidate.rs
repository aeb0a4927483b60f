//! A plugin that is fit to be loaded, and what remains of it when it has been. Judges nothing but what
//! another process has judged before.

use std::{fmt, path::PathBuf};

use plugin_abi::build_info::BuildInfo;
use semver::Version;
use serde::{Deserialize, Serialize};

use super::{Cause, claim, judging};
use crate::plugin::elf;
use crate::plugin::metadata::{Build, Digest, Metadata, PluginName, Warning};
use crate::plugin::signature::Signature;

/// A plugin that is fit to be loaded.
pub struct Candidate {
    /// What it is.
    pub metadata: Metadata,
    /// Its `plugin.json` as it was read; none where the library speaks for itself.
    pub document: Option<Vec<u8>>,
    /// What it stands for in the plugin directory: its own directory, its package, or its library where
    /// that lies bare.
    pub place: PathBuf,
    /// The directory that it was found in, as the operator wrote it.
    pub directory: PathBuf,
    /// Its library in there, or the package that has it.
    pub library_path: PathBuf,
    /// The library as it was read: load these bytes, never the file.
    pub bytes: Vec<u8>,
    /// Their digest.
    pub digest: Digest,
    /// What the library says about itself.
    pub build_info: BuildInfo,
    /// Who vouches for it; none where nobody has looked.
    pub signature: Option<Signature>,
    /// Digest of the signature's file beside it, where somebody has looked and there was one.
    pub signature_file: Option<Digest>,
    /// What does not keep the plugin from running.
    pub warnings: Vec<Warning>,
}

/// The bytes that a plugin is made of, by their digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// Of its `plugin.json`; none where the library speaks for itself.
    pub document: Option<Digest>,
    /// Of its library.
    pub library: Digest,
    /// Of the signature beside it, where somebody has looked and there was one.
    #[serde(default)]
    pub signature: Option<Digest>,
}

/// What a loaded plugin was made of, without the library's bytes.
#[derive(Debug, Clone)]
pub struct Origin {
    /// What it is.
    pub metadata: Metadata,
    /// Its `plugin.json`; none where the library speaks for itself.
    pub document: Option<Vec<u8>>,
    /// Its place in the plugin directory, see [`Candidate::place`].
    pub place: PathBuf,
    /// The operator's file.
    pub library_path: PathBuf,
    /// Digest of the library.
    pub digest: Digest,
    /// Bytes of address space that the library takes.
    pub mapped_bytes: u64,
    /// What the library says about itself.
    pub build_info: BuildInfo,
    /// Who vouched for it when it was judged; none where nobody has looked.
    pub signature: Option<Signature>,
}

impl Candidate {
    /// What remains of it when its bytes have been copied.
    #[must_use]
    pub fn into_origin(self) -> Origin {
        Origin {
            mapped_bytes: self.mapped_bytes(),
            metadata: self.metadata,
            document: self.document,
            place: self.place,
            library_path: self.library_path,
            digest: self.digest,
            build_info: self.build_info,
            signature: self.signature,
        }
    }

    /// The candidate again, from the bytes of its copy; none where they are not those that were
    /// judged.
    #[must_use]
    pub fn from_copy(origin: &Origin, bytes: Vec<u8>) -> Option<Self> {
        if Digest::of(&bytes) != origin.digest {
            return None;
        }
        Some(Self {
            metadata: origin.metadata.clone(),
            document: origin.document.clone(),
            place: origin.place.clone(),
            directory: origin.place.clone(),
            library_path: origin.library_path.clone(),
            bytes,
            digest: origin.digest,
            build_info: origin.build_info.clone(),
            signature: origin.signature.clone(),
            signature_file: None,
            warnings: Vec::new(),
        })
    }

    /// The candidate again, from files that another process has judged and kept. `digest` is that
    /// of the library's bytes.
    ///
    /// # Errors
    /// They do not do for this program.
    pub fn again(
        place: PathBuf,
        library_path: PathBuf,
        document: Option<Vec<u8>>,
        bytes: Vec<u8>,
        digest: Digest,
        signature: Option<Signature>,
    ) -> Result<Self, Vec<Cause>> {
        let (metadata, judged) = match &document {
            Some(document) => {
                let metadata = Metadata::parse(document)
                    .map_err(|invalid| {
                        invalid
                            .errors
                            .into_iter()
                            .map(Cause::Metadata)
                            .collect::<Vec<_>>()
                    })?
                    .metadata;
                let judged = judging::library(&metadata, bytes, digest)?;
                (metadata, judged)
            }
            None => {
                let name = library_path.file_name().and_then(|name| name.to_str());
                let name = name.ok_or_else(|| {
                    vec![Cause::NoPlugin {
                        archives: Vec::new(),
                    }]
                })?;
                judging::bare_library(name, bytes, digest)?
            }
        };
        Ok(Self {
            metadata,
            document,
            directory: place.clone(),
            place,
            library_path,
            bytes: judged.bytes,
            digest: judged.digest,
            build_info: judged.build_info,
            signature,
            signature_file: None,
            warnings: Vec::new(),
        })
    }

    /// The very build that it is.
    #[must_use]
    pub fn build(&self) -> Build {
        Build {
            name: self.metadata.name.clone(),
            version: self.metadata.version.clone(),
            digest: self.digest,
        }
    }

    /// Bytes of address space that its library takes.
    #[must_use]
    pub fn mapped_bytes(&self) -> u64 {
        elf::mapped_bytes(&self.bytes)
    }

    /// What it is made of.
    #[must_use]
    pub fn files(&self) -> Files {
        Files {
            document: self.document.as_deref().map(Digest::of),
            library: self.digest,
            signature: self.signature_file,
        }
    }

    pub(super) fn claim(&self) -> (PluginName, Version) {
        claim(&self.metadata.name, &self.metadata.version)
    }
}

impl Origin {
    /// The very build that it is.
    #[must_use]
    pub fn build(&self) -> Build {
        Build {
            name: self.metadata.name.clone(),
            version: self.metadata.version.clone(),
            digest: self.digest,
        }
    }
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Candidate")
            .field("metadata", &self.metadata)
            .field("library_path", &self.library_path)
            .field("bytes", &self.bytes.len())
            .field("digest", &self.digest)
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}
