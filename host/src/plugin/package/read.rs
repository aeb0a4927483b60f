//! Takes a package apart in memory. Whatever its bytes are, this ends with a package or an error, and
//! holds no more than the bounds allow.

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use flate2::bufread::GzDecoder;
use serde::Deserialize;
use tar::EntryType;

use super::{
    FORMAT, FileFacts, MANIFEST, MAX_ENTRIES, MAX_PACKAGE_BYTES, MAX_RATIO, MAX_TEXT_BYTES,
    MAX_UNPACKED_BYTES, Manifest, Package, PackageError, PackedLibrary, Platform, entry::Entry,
};
use crate::plugin::metadata::{Digest, FILE_NAME, Metadata};

/// The half of the archive's end that is left when the first half has told that it ends.
const END_BYTES: usize = 512;

/// Bytes that are hashed at a time of what is not kept.
const PIECE_BYTES: usize = 64 << 10;

pub(super) fn read(bytes: &[u8], wanted: &Platform) -> Result<Package, PackageError> {
    let size = bytes.len() as u64;
    if size > MAX_PACKAGE_BYTES {
        return Err(PackageError::TooLarge { bytes: size });
    }
    let allowed = MAX_RATIO
        .saturating_mul(size)
        .saturating_add(MAX_TEXT_BYTES);
    let mut stream = Metered {
        inner: GzDecoder::new(bytes),
        left: allowed.min(MAX_UNPACKED_BYTES),
        exceeded: false,
    };
    let parts = Parts::read(&mut stream, wanted).and_then(|parts| {
        require_end(&mut stream)?;
        Ok(parts)
    });
    let parts = match parts {
        Err(_) if stream.exceeded => return Err(PackageError::Expands),
        Err(Broken::Stream(error)) => return Err(PackageError::Damaged(error.to_string())),
        Err(Broken::Package(error)) => return Err(error),
        Ok(parts) => parts,
    };
    if !stream.inner.into_inner().is_empty() {
        return Err(PackageError::TrailingGarbage);
    }
    parts.into_package(wanted)
}

/// Ends the reading.
enum Broken {
    Stream(io::Error),
    Package(PackageError),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Stream(error)
    }
}

impl From<PackageError> for Broken {
    fn from(error: PackageError) -> Self {
        Self::Package(error)
    }
}

/// Gives no more than a bound.
struct Metered<R> {
    inner: R,
    left: u64,
    exceeded: bool,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => {
                self.exceeded = true;
                return Err(io::Error::other("more than the bound"));
            }
        }
        Ok(read)
    }
}

/// What the archive holds, by itself.
#[derive(Default)]
struct Parts {
    /// Of every entry but the manifest.
    facts: BTreeMap<String, FileFacts>,
    manifest: Option<Vec<u8>>,
    document: Option<Vec<u8>>,
    texts: BTreeMap<String, Vec<u8>>,
    library: Option<PackedLibrary>,
    /// Of all libraries.
    libraries: Vec<(Platform, String)>,
}

impl Parts {
    fn read(stream: &mut impl Read, wanted: &Platform) -> Result<Self, Broken> {
        let mut parts = Self::default();
        let mut archive = tar::Archive::new(stream);
        // Raw: names and sizes that one entry gives the next are entries that no package has.
        for (index, file) in archive.entries()?.raw(true).enumerate() {
            if index >= MAX_ENTRIES {
                return Err(PackageError::TooManyEntries.into());
            }
            parts.take(file?, wanted)?;
        }
        Ok(parts)
    }

    fn take(
        &mut self,
        mut file: tar::Entry<'_, impl Read>,
        wanted: &Platform,
    ) -> Result<(), Broken> {
        let path = file.header().path_bytes();
        let kind = file.header().entry_type();
        if kind != EntryType::Regular {
            return Err(PackageError::NotAFile {
                path: String::from_utf8_lossy(&path).into_owned(),
                kind: name_of(kind),
            }
            .into());
        }
        let entry = Entry::parse(&path)?;
        drop(path);
        let path = entry.path();
        let is_known =
            self.facts.contains_key(&path) || entry == Entry::Manifest && self.manifest.is_some();
        if is_known {
            return Err(PackageError::Duplicate { path }.into());
        }
        let bytes = file.header().entry_size()?;
        if bytes > entry.max_bytes() {
            return Err(PackageError::EntryTooLarge {
                path,
                bytes,
                bound: entry.max_bytes(),
            }
            .into());
        }
        let is_kept = !matches!(&entry, Entry::Library { platform, .. } if platform != wanted);
        let (content, facts) = content_of(&mut file, is_kept)?;
        if facts.bytes != bytes {
            let reason = format!("`{path}` ends early");
            return Err(PackageError::Damaged(reason).into());
        }
        match entry {
            Entry::Manifest => {
                self.manifest = Some(content);
                return Ok(());
            }
            Entry::Metadata => self.document = Some(content),
            Entry::Text(name) => {
                self.texts.insert(name, content);
            }
            Entry::Library { platform, name } => {
                self.libraries.push((platform, name.clone()));
                if is_kept {
                    self.library = Some(PackedLibrary {
                        name,
                        bytes: content,
                        digest: facts.sha256,
                    });
                }
            }
        }
        self.facts.insert(path, facts);
        Ok(())
    }

    /// Whether everything fits together.
    fn into_package(self, wanted: &Platform) -> Result<Package, PackageError> {
        let missing = |path: &str| PackageError::Missing {
            path: path.to_owned(),
        };
        let manifest = parse(&self.manifest.ok_or_else(|| missing(MANIFEST))?)?;
        for (path, found) in &self.facts {
            let named = manifest.files.get(path);
            let named = named.ok_or_else(|| PackageError::NotInManifest { path: path.clone() })?;
            if named != found {
                return Err(PackageError::OtherDigest {
                    path: path.clone(),
                    wanted: named.sha256,
                    found: found.sha256,
                });
            }
        }
        if let Some(path) = manifest
            .files
            .keys()
            .find(|path| !self.facts.contains_key(*path))
        {
            return Err(missing(path));
        }
        let document = self.document.ok_or_else(|| missing(FILE_NAME))?;
        let parsed = Metadata::parse(&document)
            .map_err(|invalid| PackageError::Metadata(Box::new(invalid)))?;
        agree(&parsed.metadata, &manifest, &self.libraries)?;
        let mut platforms: Vec<_> = self.libraries.into_iter().map(|(it, _)| it).collect();
        platforms.sort();
        Ok(Package {
            manifest,
            document,
            parsed,
            texts: self.texts,
            platforms,
            library: self.library,
            wanted: wanted.clone(),
        })
    }
}

/// Reads an entry, and keeps its bytes where they are wanted.
fn content_of(file: &mut impl Read, is_kept: bool) -> io::Result<(Vec<u8>, FileFacts)> {
    use sha2::{Digest as _, Sha256};
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    let (mut content, mut bytes) = (Vec::new(), 0);
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            break;
        }
        hash.update(&piece[..read]);
        bytes += read as u64;
        if is_kept {
            content.extend_from_slice(&piece[..read]);
        }
    }
    let sha256 = Digest::new(hash.finalize().into());
    Ok((content, FileFacts { bytes, sha256 }))
}

/// After the last entry the archive has its end, and nothing more.
fn require_end(stream: &mut impl Read) -> Result<(), Broken> {
    let mut rest = Vec::new();
    stream.take(END_BYTES as u64 + 1).read_to_end(&mut rest)?;
    match rest[..] {
        _ if rest.len() < END_BYTES => {
            Err(PackageError::Damaged("its archive has no end".to_owned()).into())
        }
        _ if rest.len() > END_BYTES || rest.iter().any(|byte| *byte != 0) => {
            Err(PackageError::TrailingGarbage.into())
        }
        _ => Ok(()),
    }
}

fn parse(manifest: &[u8]) -> Result<Manifest, PackageError> {
    #[derive(Deserialize)]
    struct Format {
        format: u64,
    }
    let unreadable = |error: serde_json::Error| PackageError::UnreadableManifest(error.to_string());
    let Format { format } = serde_json::from_slice(manifest).map_err(unreadable)?;
    if format != FORMAT {
        return Err(PackageError::OtherFormat { format });
    }
    serde_json::from_slice(manifest).map_err(unreadable)
}

/// Whether `plugin.json` is that of the manifest and of the libraries.
fn agree(
    metadata: &Metadata,
    manifest: &Manifest,
    libraries: &[(Platform, String)],
) -> Result<(), PackageError> {
    let differ =
        |what, metadata: &dyn ToString, place, other: &dyn ToString| PackageError::Contradiction {
            what,
            metadata: metadata.to_string(),
            place,
            other: other.to_string(),
        };
    if metadata.name != manifest.name {
        return Err(differ("name", &metadata.name, MANIFEST, &manifest.name));
    }
    if metadata.version != manifest.version {
        return Err(differ(
            "version",
            &metadata.version,
            MANIFEST,
            &manifest.version,
        ));
    }
    let library = metadata.library().file_name();
    match libraries.iter().find(|(_, name)| name != library) {
        Some((_, other)) => Err(differ("library", &library, "`lib`", other)),
        None => Ok(()),
    }
}

fn name_of(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Directory => "a directory",
        EntryType::Symlink => "a symbolic link",
        EntryType::Link => "a hard link",
        EntryType::Char | EntryType::Block => "a device",
        EntryType::Fifo => "a pipe",
        _ => "an extension of the archive",
    }
}
