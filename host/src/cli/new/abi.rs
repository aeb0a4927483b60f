//! Where a new crate gets `plugin-abi` from.

use std::fs;
use std::path::{Path, PathBuf};

use semver::VersionReq;

/// The checkout that this program was built from, on the machine where it was.
const OWN_CHECKOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugin-abi");

/// Where a crate gets `plugin-abi` from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Dependency {
    Path(PathBuf),
    Version(String),
}

impl Dependency {
    /// From a directory: the crate's own, or that of a checkout that has it.
    ///
    /// # Errors
    /// It is not there.
    pub(super) fn in_directory(path: &Path) -> Result<Self, String> {
        [path.to_owned(), path.join("plugin-abi")]
            .into_iter()
            .find(|directory| is_plugin_abi(directory))
            // Absolute: the new crate may be anywhere.
            .and_then(|directory| directory.canonicalize().ok())
            .map(Self::Path)
            .ok_or_else(|| {
                format!(
                    "--abi-path {}: there is no plugin-abi; name the directory of a checkout of \
                     plugin-host",
                    path.display()
                )
            })
    }

    /// From a registry.
    ///
    /// # Errors
    /// It is no requirement on a version.
    pub(super) fn of_version(requirement: &str) -> Result<Self, String> {
        match VersionReq::parse(requirement) {
            Ok(_) => Ok(Self::Version(requirement.to_owned())),
            Err(error) => Err(format!(
                "--abi-version {requirement}: {error}; write it as in Cargo.toml: 1 or 1.2"
            )),
        }
    }

    /// From where this program was built.
    ///
    /// # Errors
    /// That is no more, or is on another machine.
    pub(super) fn in_own_checkout() -> Result<Self, String> {
        Self::in_directory(Path::new(OWN_CHECKOUT)).map_err(|_| {
            "where is plugin-abi? The checkout that this program was built from is not on this \
             machine: say --abi-path DIR with one that is, or --abi-version 1 where your cargo \
             has a registry with it"
                .to_owned()
        })
    }

    /// The dependency's keys, between the braces.
    pub(super) fn in_cargo_toml(&self) -> String {
        let (key, value) = match self {
            Self::Path(path) => ("path", path.display().to_string()),
            Self::Version(requirement) => ("version", requirement.clone()),
        };
        format!("{key} = {}", toml::Value::String(value))
    }
}

fn is_plugin_abi(directory: &Path) -> bool {
    let text = fs::read_to_string(directory.join("Cargo.toml")).unwrap_or_default();
    let manifest: toml::Table = text.parse().unwrap_or_default();
    let package = manifest.get("package");
    package.and_then(|package| package.get("name")?.as_str()) == Some("plugin-abi")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test says where it failed")]
    use super::*;

    #[test]
    fn a_checkout_is_as_good_as_the_crate_in_it() {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let own = Dependency::in_own_checkout().unwrap();
        assert_eq!(Dependency::in_directory(&top).unwrap(), own);
        assert!(own.in_cargo_toml().starts_with("path = \"/"));
        let nowhere = Dependency::in_directory(Path::new("src")).unwrap_err();
        assert!(nowhere.contains("checkout of plugin-host"), "{nowhere}");
    }

    #[test]
    fn a_version_is_a_requirement() {
        let version = Dependency::of_version("1.2").unwrap();
        assert_eq!(version.in_cargo_toml(), "version = \"1.2\"");
        assert!(Dependency::of_version("newest").is_err());
    }
}
