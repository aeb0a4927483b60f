//! The plugin directory of `plugin-host dev`: one plugin, replaced by each build.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::cargo::Crate;

/// The plugin directory, and what was last put there.
#[derive(Debug)]
pub(super) struct Staged {
    directory: PathBuf,
    /// The plugin's own directory in it.
    place: Option<PathBuf>,
    last: Option<Build>,
}

/// What a build has given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Build {
    library: Vec<u8>,
    metadata: Option<Vec<u8>>,
}

impl Staged {
    pub(super) fn new(directory: &Path) -> io::Result<Self> {
        fs::create_dir(directory)?;
        Ok(Self {
            directory: directory.to_owned(),
            place: None,
            last: None,
        })
    }

    /// Puts a build in place of the last one; false where they are the same.
    ///
    /// # Errors
    /// Which file cannot be read or written.
    pub(super) fn put(&mut self, of: &Crate, library: &Path) -> Result<bool, String> {
        let failed = |path: &Path| {
            let shown = path.display().to_string();
            move |error: io::Error| format!("{shown}: {error}")
        };
        let metadata = of.directory.join("plugin.json");
        let build = Build {
            library: fs::read(library).map_err(failed(library))?,
            metadata: match fs::read(&metadata) {
                Ok(text) => Some(text),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(failed(&metadata)(error)),
            },
        };
        if self.last.as_ref() == Some(&build) {
            return Ok(false);
        }
        // A library without plugin.json needs no directory, and must not be in one.
        let place = match &build.metadata {
            Some(text) => self
                .directory
                .join(name_in(text).unwrap_or(of.name.clone())),
            None => self.directory.clone(),
        };
        if let Some(before) = &self.place
            && *before != place
        {
            // The plugin has another name now.
            empty(&self.directory).map_err(failed(before))?;
        }
        fs::create_dir_all(&place).map_err(failed(&place))?;
        let file = place.join(library.file_name().unwrap_or_default());
        replace(&file, &build.library).map_err(failed(&file))?;
        if let Some(text) = &build.metadata {
            let file = place.join("plugin.json");
            replace(&file, text).map_err(failed(&file))?;
        }
        self.place = Some(place);
        self.last = Some(build);
        Ok(true)
    }

    /// The bytes of the library that was last put there.
    pub(super) fn library(&self) -> &[u8] {
        self.last.as_ref().map_or(&[], |build| &build.library)
    }
}

/// Routes for a crate that has none: everything goes through the plugin.
pub(super) fn default_routes(of: &Crate) -> String {
    let metadata = fs::read(of.directory.join("plugin.json")).unwrap_or_default();
    let name = name_in(&metadata).unwrap_or(of.name.clone());
    let through = json!({ "conf": [{ "name": name, "value": "{}" }] });
    let routes = json!({ "routes": [{
        "id": "default",
        "uri": "/*",
        "plugins": { "ext-plugin-pre-req": through, "ext-plugin-post-resp": through },
    }] });
    format!("{routes:#}\n#END\n")
}

fn name_in(metadata: &[u8]) -> Option<String> {
    let metadata: Value = serde_json::from_slice(metadata).ok()?;
    let name = metadata["name"].as_str()?;
    // It becomes a directory's name; what else it must be, the host says.
    (!name.is_empty() && !name.contains('/') && !name.starts_with('.')).then(|| name.to_owned())
}

/// By rename, so that a host sees the old file or the new one.
fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    fs::write(&beside, bytes)?;
    fs::rename(beside, file)
}

fn empty(directory: &Path) -> io::Result<()> {
    fs::remove_dir_all(directory)?;
    fs::create_dir(directory)
}
