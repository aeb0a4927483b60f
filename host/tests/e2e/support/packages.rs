//! Packages and keys, made by the program's own commands.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use flate2::{Compression, write::GzEncoder};
use tempfile::TempDir;

use super::{plugin_host, versions::Files};

/// A package of these files, by `plugin-host pack`, which runs once for the same ones.
pub(crate) fn package(files: &Files) -> Vec<u8> {
    static PACKED: Mutex<BTreeMap<String, Vec<u8>>> = Mutex::new(BTreeMap::new());
    let mut known = PACKED.lock().unwrap_or_else(PoisonError::into_inner);
    let pack = || {
        let directory = tempfile::tempdir().unwrap();
        files.write(directory.path());
        packed(directory.path())
    };
    let package = known.entry(files.metadata.to_string()).or_insert_with(pack);
    package.clone()
}

/// A package of a directory.
pub(crate) fn packed(directory: &Path) -> Vec<u8> {
    let place = tempfile::tempdir().unwrap();
    let package = place.path().join("x.plg");
    let ended = plugin_host(&[
        "pack",
        directory.to_str().unwrap(),
        "--output",
        package.to_str().unwrap(),
    ]);
    assert_eq!(ended.code, 0, "{ended:?}");
    fs::read(package).unwrap()
}

/// Puts a file where it shall be, complete.
pub(crate) fn put(path: &Path, bytes: impl AsRef<[u8]>) {
    let name = path.file_name().unwrap().to_str().unwrap();
    let staged = path.with_file_name(format!(".{name}"));
    fs::write(&staged, bytes).unwrap();
    fs::rename(staged, path).unwrap();
}

/// An archive whose headers say anything.
pub(crate) fn archive(entries: &[(tar::EntryType, &str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (kind, path, bytes) in entries {
        let mut header = tar::Header::new_ustar();
        header.as_ustar_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        archive.append(&header, *bytes).unwrap();
    }
    gzip(&archive.into_inner().unwrap())
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Somebody who signs, and a directory of keys where they are trusted.
pub(crate) struct Signer {
    directory: TempDir,
    name: &'static str,
}

impl Signer {
    pub(crate) fn trusted_as(name: &'static str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let signer = Self { directory, name };
        fs::create_dir(signer.trusted()).unwrap();
        let ended = plugin_host(&["keygen", &signer.path(name), "--no-password"]);
        assert_eq!(ended.code, 0, "{ended:?}");
        fs::copy(signer.path(&format!("{name}.pub")), signer.public()).unwrap();
        signer
    }

    /// The directory of trusted keys.
    pub(crate) fn trusted(&self) -> PathBuf {
        self.directory.path().join("trusted")
    }

    /// The key in there.
    pub(crate) fn public(&self) -> PathBuf {
        self.trusted().join(format!("{}.pub", self.name))
    }

    /// Signs a plugin where it lies.
    pub(crate) fn sign(&self, plugin: &Path, more: &[&str]) {
        let key = self.path(&format!("{}.key", self.name));
        let sign = ["sign", plugin.to_str().unwrap(), "--key", &key];
        let ended = plugin_host(&[&sign, more].concat());
        assert_eq!(ended.code, 0, "{ended:?}");
    }

    /// The signature of a package's bytes.
    pub(crate) fn signature_of(&self, package: &[u8], more: &[&str]) -> Vec<u8> {
        let file = self.directory.path().join("signed.plg");
        fs::write(&file, package).unwrap();
        self.sign(&file, more);
        fs::read(self.directory.path().join("signed.plg.minisig")).unwrap()
    }

    fn path(&self, name: &str) -> String {
        self.directory
            .path()
            .join(name)
            .to_str()
            .unwrap()
            .to_owned()
    }
}
