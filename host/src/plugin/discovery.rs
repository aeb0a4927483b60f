//! From a directory to plugins that are fit to be loaded, and to what is wrong with the others.
//!
//! One directory per plugin, named like the plugin or `name@version`, with a `plugin.json` and a
//! library; or a package with both; or a bare library, which then speaks for itself. Every file is read
//! once: what is hashed, judged, compared with its signature and later loaded are the same bytes,
//! whatever happens to the file meanwhile.
//! One bad plugin never hides the others: it becomes a [`Problem`], they become [`Candidate`]s.
//!
//! Reading files (`files`) and judging what they say (`judging`) are apart. This module never
//! loads a library and never writes.

mod candidate;
mod files;
mod judging;
mod packages;
mod problem;
mod vouching;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use semver::Version;

pub use candidate::{Candidate, Files, Origin};
pub use problem::{Cause, Fault, Problem};

pub use super::elf::MAX_LIBRARY_BYTES;

use super::metadata::{Digest, FILE_NAME, LibraryPath, Metadata, Parsed, PluginName};
use super::package::is_package;
use super::signature::Trust;
use files::Entry;
pub(super) use vouching::signature_of;

/// How many entries of one directory are looked at, at most.
pub const MAX_ENTRIES: usize = 10_000;

/// What a directory holds.
#[derive(Debug, Default)]
pub struct Discovery {
    /// Plugins that are fit to be loaded, by name and then by version.
    pub found: Vec<Candidate>,
    /// What is wrong, by path. A plugin with several mistakes has several entries here.
    pub problems: Vec<Problem>,
    /// Every file that was read, with the digest of what it held.
    pub(super) read: Vec<(PathBuf, Digest)>,
    /// Whose signatures count.
    trust: Arc<Trust>,
}

/// Something in a plugin directory that a plugin can be made of.
#[derive(Debug)]
pub(super) struct Spot {
    pub(super) path: PathBuf,
    pub(super) kind: SpotKind,
}

/// What there is.
#[derive(Debug)]
pub(super) enum SpotKind {
    /// A `plugin.json` beside bare libraries: it speaks for the one that it names.
    Metadata,
    /// A plugin's directory.
    Directory,
    /// A bare library.
    Library,
    /// A package.
    Package,
    /// Something that cannot even be looked at.
    Unusable,
}

/// Looks at every plugin in a directory.
///
/// Blocks while it reads: keep it off the event loops.
///
/// ```
/// let empty = tempfile::tempdir().unwrap();
/// let discovery = plugin_host::plugin::discovery::discover(empty.path());
/// assert!(discovery.found.is_empty() && discovery.problems.is_empty());
///
/// let missing = plugin_host::plugin::discovery::discover(&empty.path().join("missing"));
/// assert!(missing.problems[0].to_string().contains("there is no such directory"));
/// ```
#[must_use]
pub fn discover(directory: &Path) -> Discovery {
    discover_trusted(directory, &Arc::default())
}

/// The same, where the operator has something to say about who vouches for plugins.
#[must_use]
pub fn discover_trusted(directory: &Path, trust: &Arc<Trust>) -> Discovery {
    let mut discovery = Discovery::trusting(trust);
    let spots = match spots(directory) {
        Ok(spots) => spots,
        Err(cause) => {
            discovery.report(directory, [cause]);
            return discovery;
        }
    };
    let mut spoken_for = None;
    for spot in spots {
        if !is_spoken_for(&spot, directory, spoken_for.as_ref()) {
            spoken_for = discovery.examine(directory, &spot).or(spoken_for);
        }
    }
    discovery.finish()
}

/// Everything in a plugin directory that a plugin can be made of; a `plugin.json` beside bare
/// libraries comes first.
pub(super) fn spots(directory: &Path) -> Result<Vec<Spot>, Cause> {
    let listing = files::list(directory)?;
    let mut spots = Vec::with_capacity(listing.entries.len());
    if listing
        .entries
        .iter()
        .any(|entry| entry.is_named(FILE_NAME))
    {
        spots.push(Spot {
            path: directory.join(FILE_NAME),
            kind: SpotKind::Metadata,
        });
    }
    spots.extend(listing.entries.iter().filter_map(|entry| {
        let kind = match entry {
            Entry::Directory(_) => SpotKind::Directory,
            Entry::File(name) if is_library(name) => SpotKind::Library,
            Entry::File(name) if is_package(name) => SpotKind::Package,
            Entry::File(_) => return None,
        };
        Some(Spot {
            path: directory.join(entry.name()),
            kind,
        })
    }));
    let unusable = listing.unusable.into_iter().map(|path| Spot {
        path,
        kind: SpotKind::Unusable,
    });
    spots.extend(unusable);
    Ok(spots)
}

/// Whether a `plugin.json` beside a bare library speaks for it.
pub(super) fn is_spoken_for(
    spot: &Spot,
    directory: &Path,
    spoken_for: Option<&LibraryPath>,
) -> bool {
    matches!(spot.kind, SpotKind::Library)
        && spoken_for.is_some_and(|library| spot.path == directory.join(library.as_path()))
}

/// The files of a directory that a plugin there can be made of.
pub(super) fn files_of(directory: &Path) -> Vec<PathBuf> {
    let entries = files::list(directory).map_or_else(|_| Vec::new(), |listing| listing.entries);
    entries
        .iter()
        .filter(|entry| {
            entry.is_named(FILE_NAME) || entry.library().is_some() || entry.is_signature()
        })
        .map(|entry| directory.join(entry.name()))
        .collect()
}

/// What a directory has in the place of plugins, where it has something that is easily taken for one.
#[must_use]
pub fn instead_of_plugins(directory: &Path) -> Option<Cause> {
    let archives = files::archives(&files::list(directory).ok()?.entries);
    (!archives.is_empty()).then_some(Cause::NoPlugin { archives })
}

/// Looks at one plugin: a directory with a `plugin.json` or a library, a package, or a library alone.
/// For `plugin-host check`, which is also asked about one.
#[must_use]
pub fn discover_one(plugin: &Path, trust: &Arc<Trust>) -> Discovery {
    let mut discovery = Discovery::trusting(trust);
    // `.` has no name of its own; its full path has.
    let full = plugin.canonicalize().unwrap_or_else(|_| plugin.to_owned());
    let named = if plugin.file_name().is_some() {
        plugin
    } else {
        &full
    };
    let name = named.file_name().and_then(|name| name.to_str());
    match name {
        // Also where its name is no library's: what it is will be said.
        Some(name) if full.is_file() => {
            let parent = plugin
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            match is_package(name) {
                true => discovery.examine_package(parent, name),
                false => discovery.examine_library(parent, name, Home::Shared),
            }
        }
        _ => discovery.examine_directory(plugin, name),
    }
    discovery.finish()
}

/// Whose a directory with a library is.
#[derive(Clone, Copy)]
enum Home<'a> {
    /// The plugin's own, by its name where that can be read.
    Own(Option<&'a str>),
    /// The plugin directory itself: the library lies bare.
    Shared,
}

impl Home<'_> {
    fn misplaces(self, metadata: &Metadata) -> Option<Cause> {
        match self {
            Self::Own(name) => judging::directory_name(name?, metadata),
            Self::Shared => None,
        }
    }

    fn place(self, directory: &Path, library: &Path) -> PathBuf {
        match self {
            Self::Own(_) => directory.to_owned(),
            Self::Shared => library.to_owned(),
        }
    }
}

impl Discovery {
    /// Nothing yet.
    pub(super) fn trusting(trust: &Arc<Trust>) -> Self {
        Self {
            trust: Arc::clone(trust),
            ..Self::default()
        }
    }

    /// Looks at one thing in a plugin directory. Returns the library that a `plugin.json` beside
    /// bare libraries speaks for.
    pub(super) fn examine(&mut self, directory: &Path, spot: &Spot) -> Option<LibraryPath> {
        let name = spot.path.file_name().and_then(|name| name.to_str());
        match (&spot.kind, name) {
            (SpotKind::Metadata, _) => return self.examine_with_metadata(directory, Home::Shared),
            (SpotKind::Directory, name) => self.examine_directory(&spot.path, name),
            (SpotKind::Library, name) => {
                let name = name.expect("a spot whose name is not UTF-8 is unusable");
                self.examine_library(directory, name, Home::Shared);
            }
            (SpotKind::Package, name) => {
                let name = name.expect("a spot whose name is not UTF-8 is unusable");
                self.examine_package(directory, name);
            }
            (SpotKind::Unusable, _) => self.report(&spot.path, files::why_unusable(&spot.path)),
        }
        None
    }

    /// One plugin's directory.
    fn examine_directory(&mut self, directory: &Path, name: Option<&str>) {
        let listing = match files::list(directory) {
            Ok(listing) => listing,
            Err(cause) => return self.report(directory, [cause]),
        };
        if listing
            .entries
            .iter()
            .any(|entry| entry.is_named(FILE_NAME))
        {
            self.examine_with_metadata(directory, Home::Own(name));
            return;
        }
        let libraries: Vec<_> = listing.entries.iter().filter_map(Entry::library).collect();
        match libraries[..] {
            [] => {
                let archives = files::archives(&listing.entries);
                self.report(directory, [Cause::NoPlugin { archives }]);
            }
            [library] => self.examine_library(directory, library, Home::Own(name)),
            _ => {
                let libraries = libraries.into_iter().map(str::to_owned).collect();
                self.report(directory, [Cause::SeveralLibraries { libraries }]);
            }
        }
    }

    /// A `plugin.json` and the library that it names, which is returned: it is spoken for, even
    /// where the rest of the file is wrong.
    fn examine_with_metadata(&mut self, directory: &Path, home: Home<'_>) -> Option<LibraryPath> {
        let file = directory.join(FILE_NAME);
        let bytes = match files::read_metadata(directory) {
            Ok(bytes) => bytes,
            Err(cause) => {
                self.report(&file, [cause]);
                return None;
            }
        };
        self.read.push((file.clone(), Digest::of(&bytes)));
        let Parsed { metadata, warnings } = match Metadata::parse(&bytes) {
            Ok(parsed) => parsed,
            Err(invalid) => {
                let known = (invalid.name, invalid.version);
                self.report_known(
                    &file,
                    &known,
                    invalid.errors.into_iter().map(Cause::Metadata),
                );
                return invalid.library;
            }
        };
        let known = (Some(metadata.name.clone()), Some(metadata.version.clone()));
        let library = metadata.library().clone();
        let library_path = directory.join(library.as_path());
        let misplaced = home.misplaces(&metadata);
        let judged = self
            .read_library(directory, library.as_path())
            .and_then(|(bytes, digest)| judging::library(&metadata, bytes, digest));
        let pinned = metadata.sha256().is_some();
        match (judged, misplaced) {
            (Ok(judged), None) => {
                let vouched = match self.vouched_for(&file, &bytes, pinned) {
                    Ok(vouched) => vouched,
                    Err(cause) => {
                        self.report_known(&file, &known, [cause]);
                        return Some(library);
                    }
                };
                self.found.push(Candidate {
                    metadata,
                    document: Some(bytes),
                    place: home.place(directory, &library_path),
                    directory: directory.to_owned(),
                    library_path,
                    bytes: judged.bytes,
                    digest: judged.digest,
                    build_info: judged.build_info,
                    signature: vouched.signature,
                    signature_file: vouched.file,
                    warnings,
                });
            }
            (judged, misplaced) => {
                self.report_known(directory, &known, misplaced);
                self.report_known(&library_path, &known, judged.err().into_iter().flatten());
            }
        }
        Some(library)
    }

    /// A library that speaks for itself.
    fn examine_library(&mut self, directory: &Path, library: &str, home: Home<'_>) {
        let library_path = directory.join(library);
        let judged = self
            .read_library(directory, Path::new(library))
            .and_then(|(bytes, digest)| judging::bare_library(library, bytes, digest));
        let (metadata, judged) = match judged {
            Ok(judged) => judged,
            Err(causes) => return self.report(&library_path, causes),
        };
        if let Some(misplaced) = home.misplaces(&metadata) {
            let known = (Some(metadata.name), Some(metadata.version));
            return self.report_known(directory, &known, [misplaced]);
        }
        let vouched = match self.vouched_for(&library_path, &judged.bytes, true) {
            Ok(vouched) => vouched,
            Err(cause) => {
                let known = (Some(metadata.name), Some(metadata.version));
                return self.report_known(&library_path, &known, [cause]);
            }
        };
        self.found.push(Candidate {
            metadata,
            document: None,
            place: home.place(directory, &library_path),
            directory: directory.to_owned(),
            library_path,
            bytes: judged.bytes,
            digest: judged.digest,
            build_info: judged.build_info,
            signature: vouched.signature,
            signature_file: vouched.file,
            warnings: Vec::new(),
        });
    }

    fn read_library(
        &mut self,
        directory: &Path,
        library: &Path,
    ) -> Result<(Vec<u8>, Digest), Vec<Cause>> {
        let bytes = files::read_library(directory, library).map_err(|cause| vec![cause])?;
        let digest = Digest::of(&bytes);
        self.read.push((directory.join(library), digest));
        Ok((bytes, digest))
    }

    fn report(&mut self, path: &Path, causes: impl IntoIterator<Item = Cause>) {
        self.report_known(path, &(None, None), causes);
    }

    fn report_known(
        &mut self,
        path: &Path,
        (plugin, version): &(Option<PluginName>, Option<Version>),
        causes: impl IntoIterator<Item = Cause>,
    ) {
        self.problems
            .extend(causes.into_iter().map(|cause| Problem {
                path: path.to_owned(),
                plugin: plugin.clone(),
                version: version.clone(),
                cause,
            }));
    }

    /// Sorts, and takes out what two directories both claim to be.
    fn finish(mut self) -> Self {
        self.refuse_twins();
        self.found.sort_by(|a, b| {
            let (a, b) = (&a.metadata, &b.metadata);
            a.name
                .cmp(&b.name)
                .then_with(|| a.version.cmp_precedence(&b.version))
        });
        self.problems.sort_by(|a, b| a.path.cmp(&b.path));
        self
    }

    /// Two plugins of one name and equal precedence: neither serves. Which one a request would
    /// meet could depend on nothing but the order of the directory, and both may be wrong.
    fn refuse_twins(&mut self) {
        let mut claims: BTreeMap<_, Vec<PathBuf>> = BTreeMap::new();
        for candidate in &self.found {
            claims
                .entry(candidate.claim())
                .or_default()
                .push(candidate.library_path.clone());
        }
        claims.retain(|_, paths| paths.len() > 1);
        let (twins, found) = std::mem::take(&mut self.found)
            .into_iter()
            .partition(|candidate| claims.contains_key(&candidate.claim()));
        self.found = found;
        for twin in twins {
            let mut others = claims.get(&twin.claim()).cloned().unwrap_or_default();
            others.retain(|path| *path != twin.library_path);
            let known = (Some(twin.metadata.name), Some(twin.metadata.version));
            self.report_known(&twin.library_path, &known, [Cause::Twins { others }]);
        }
    }
}

/// Name and precedence: what only one plugin can have. (Build metadata has no precedence.)
pub(super) fn claim(name: &PluginName, version: &Version) -> (PluginName, Version) {
    let mut version = version.clone();
    version.build = semver::BuildMetadata::EMPTY;
    (name.clone(), version)
}

fn is_library(name: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|extension| extension == "so")
}

#[cfg(test)]
mod tests;
