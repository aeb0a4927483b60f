//! Makes a package of a plugin's files: the same bytes from the same files, whoever packs them when
//! and where, with the same release of this program.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, GzBuilder};

use super::{
    FORMAT, FileFacts, MAX_TEXT_BYTES, Manifest, Package, PackageError, Platform,
    entry::{self, Entry},
};
use crate::plugin::{
    elf::{self, ElfError, MAX_LIBRARY_BYTES},
    metadata::{
        Contradiction, Digest, FILE_NAME, Invalid, MAX_FILE_BYTES, Metadata, MetadataError, Parsed,
    },
};

/// What gzip calls an unknown operating system: the header says nothing of this machine.
const UNKNOWN_SYSTEM: u8 = 255;

/// What a package is made of.
#[derive(Debug)]
pub struct Contents {
    /// What the plugin is.
    pub metadata: Metadata,
    document: Vec<u8>,
    libraries: BTreeMap<Platform, Vec<u8>>,
    texts: BTreeMap<String, Vec<u8>>,
}

/// A library that does not lie where `plugin.json` says.
#[derive(Debug, Clone)]
pub struct Elsewhere {
    /// What it has to be for; none: whatever it is for.
    pub platform: Option<Platform>,
    /// Where it is.
    pub path: PathBuf,
}

/// No package can be made of it.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file is larger than it may be.
    #[error("{}: it has more than {bound} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What it may have.
        bound: u64,
    },
    /// The `plugin.json` has mistakes.
    #[error("{}: {}", path.display(), mistakes(errors))]
    Metadata {
        /// The file.
        path: PathBuf,
        /// All of them.
        errors: Vec<MetadataError>,
    },
    /// There is no library.
    #[error(
        "{}: the library that {FILE_NAME} names is not there; build the plugin (`cargo build --release`) \
         and copy it there, or say where it is with `--library FILE`",
        path.display()
    )]
    NoLibrary {
        /// Where it should be.
        path: PathBuf,
    },
    /// Two libraries for one platform.
    #[error("there are two libraries for {0}: give one")]
    TwoLibraries(Platform),
    /// A library is for another platform than it is given for.
    #[error("{}: it is built for {found}, not for {said}", path.display())]
    OtherPlatform {
        /// The library.
        path: PathBuf,
        /// What it is given for.
        said: Platform,
        /// What it is built for.
        found: Platform,
    },
    /// A file is no library that a host could load.
    #[error("{}: {error} ({})", path.display(), error.next_step())]
    Library {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: Box<ElfError>,
    },
    /// The library is another plugin.
    #[error("{}: {error} ({})", path.display(), error.next_step())]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// What they differ in.
        error: Box<Contradiction>,
    },
    /// `plugin.json` says which library it means, and that is another one.
    #[error(
        "{}: its SHA-256 is {found}, but `source.sha256` of {FILE_NAME} is {wanted}; leave `source.sha256` \
         out, the package's manifest has the digest of each library",
        path.display()
    )]
    OtherDigest {
        /// The library.
        path: PathBuf,
        /// What `plugin.json` says.
        wanted: Digest,
        /// What the library has.
        found: Digest,
    },
    /// The library's name cannot stand in a package.
    #[error(
        "`{name}` cannot stand in a package: use letters, digits, `-`, `_`, `.`, `+`, and at most {max} bytes",
        name = .0,
        max = entry::MAX_NAME_BYTES
    )]
    LibraryName(String),
    /// The whole would be no package.
    #[error("{} ({})", .0, .0.next_step())]
    Package(#[from] PackageError),
}

impl Contents {
    /// Gathers what belongs into a package: the `plugin.json` of a directory, the library that it
    /// names, the texts beside it, and libraries that lie elsewhere.
    ///
    /// # Errors
    /// Something is missing, or does not fit the rest.
    pub fn gather(directory: &Path, elsewhere: &[Elsewhere]) -> Result<Self, PackError> {
        let file = directory.join(FILE_NAME);
        let document = read_file(&file, MAX_FILE_BYTES)?;
        let metadata = parse(&file, &document)?;
        let name = metadata.library().file_name();
        if !entry::is_library_name(name) {
            return Err(PackError::LibraryName(name.to_owned()));
        }
        let mut contents = Self {
            metadata,
            document,
            libraries: BTreeMap::new(),
            texts: texts_of(directory)?,
        };
        for Elsewhere { platform, path } in elsewhere {
            contents.add(path, platform.as_ref())?;
        }
        let beside = directory.join(contents.metadata.library().as_path());
        if elsewhere.is_empty() || beside.exists() {
            match contents.add(&beside, None) {
                Err(PackError::Read { path, source })
                    if source.kind() == io::ErrorKind::NotFound =>
                {
                    return Err(PackError::NoLibrary { path });
                }
                added => added?,
            }
        }
        Ok(contents)
    }

    fn add(&mut self, path: &Path, said: Option<&Platform>) -> Result<(), PackError> {
        let library = read_file(path, MAX_LIBRARY_BYTES)?;
        let path = path.to_owned();
        let found = match Platform::of_library(&library) {
            Ok(found) => found,
            Err(error) => {
                let error = Box::new(error);
                return Err(PackError::Library { path, error });
            }
        };
        if let Some(said) = said.filter(|said| **said != found) {
            return Err(PackError::OtherPlatform {
                path,
                said: said.clone(),
                found,
            });
        }
        // Of a library for another machine no more can be known here.
        if found == Platform::of_this_host() {
            let info = match elf::inspect(&library) {
                Ok(info) => info,
                Err(error) => {
                    let error = Box::new(error);
                    return Err(PackError::Library { path, error });
                }
            };
            if let Some(error) = self.metadata.contradictions(&info).into_iter().next() {
                let error = Box::new(error);
                return Err(PackError::Contradiction { path, error });
            }
        }
        let digest = Digest::of(&library);
        if let Some(wanted) = self.metadata.sha256().filter(|wanted| **wanted != digest) {
            return Err(PackError::OtherDigest {
                path,
                wanted: *wanted,
                found: digest,
            });
        }
        match self.libraries.insert(found.clone(), library) {
            Some(_) => Err(PackError::TwoLibraries(found)),
            None => Ok(()),
        }
    }
}

/// Makes a package, and looks at it as whoever gets it will.
///
/// # Errors
/// It would be no package: too large, most likely.
pub fn pack(contents: &Contents) -> Result<Vec<u8>, PackageError> {
    let name = contents.metadata.library().file_name();
    let mut files: BTreeMap<String, &[u8]> = BTreeMap::new();
    files.insert(Entry::Metadata.path(), &contents.document);
    for (platform, library) in &contents.libraries {
        let entry = Entry::Library {
            platform: platform.clone(),
            name: name.to_owned(),
        };
        files.insert(entry.path(), library);
    }
    for (name, text) in &contents.texts {
        files.insert(Entry::Text(name.clone()).path(), text);
    }
    let manifest = Manifest {
        format: FORMAT,
        name: contents.metadata.name.clone(),
        version: contents.metadata.version.clone(),
        files: files
            .iter()
            .map(|(path, bytes)| (path.clone(), FileFacts::of(bytes)))
            .collect(),
    };
    let mut manifest =
        serde_json::to_vec_pretty(&manifest).expect("a manifest is maps, texts and numbers");
    manifest.push(b'\n');
    files.insert(Entry::Manifest.path(), &manifest);
    let packed = archive(&files).map_err(|error| PackageError::Damaged(error.to_string()))?;
    Package::read(&packed, &Platform::of_this_host())?;
    Ok(packed)
}

/// In the order of their paths, without a trace of whose they were and when.
fn archive(files: &BTreeMap<String, &[u8]>) -> io::Result<Vec<u8>> {
    let compressed = GzBuilder::new()
        .mtime(0)
        .operating_system(UNKNOWN_SYSTEM)
        .write(Vec::new(), Compression::best());
    let mut archive = tar::Builder::new(compressed);
    for (path, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_path(path)?;
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        archive.append(&header, *bytes)?;
    }
    let mut compressed = archive.into_inner()?;
    compressed.flush()?;
    compressed.finish()
}

impl FileFacts {
    fn of(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.len() as u64,
            sha256: Digest::of(bytes),
        }
    }
}

/// As strict as `plugin-host check`: whoever packs wants to know of every mistake.
fn parse(file: &Path, document: &[u8]) -> Result<Metadata, PackError> {
    let wrong = |errors| PackError::Metadata {
        path: file.to_owned(),
        errors,
    };
    let Parsed { metadata, warnings } =
        Metadata::parse(document).map_err(|Invalid { errors, .. }| wrong(errors))?;
    let mistakes: Vec<_> = warnings.iter().filter_map(|it| it.as_mistake()).collect();
    match mistakes.is_empty() {
        true => Ok(metadata),
        false => Err(wrong(mistakes)),
    }
}

fn texts_of(directory: &Path) -> Result<BTreeMap<String, Vec<u8>>, PackError> {
    let failed = |source| PackError::Read {
        path: directory.to_owned(),
        source,
    };
    let mut texts = BTreeMap::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().into_string().unwrap_or_default();
        if entry::is_text(&name) && entry.path().is_file() {
            texts.insert(name, read_file(&entry.path(), MAX_TEXT_BYTES)?);
        }
    }
    Ok(texts)
}

fn read_file(path: &Path, bound: u64) -> Result<Vec<u8>, PackError> {
    let failed = |source| PackError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(bound + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > bound {
        return Err(PackError::TooLarge {
            path: path.to_owned(),
            bound,
        });
    }
    Ok(bytes)
}

fn mistakes(errors: &[MetadataError]) -> String {
    let errors = errors.iter();
    let errors = errors.map(|error| format!("{error} ({})", error.next_step()));
    errors.collect::<Vec<_>>().join("; ")
}
