//! Crates outside of this workspace, made by `plugin-host new` and built by cargo as an author's are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::program::{Ended, plugin_host};

/// A new crate in a directory of its own.
pub(crate) struct NewCrate {
    directory: TempDir,
    name: String,
}

impl NewCrate {
    /// `plugin-host new NAME` with these arguments.
    pub(crate) fn new(name: &str, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let own = Self {
            directory,
            name: name.to_owned(),
        };
        let path = own.path().display().to_string();
        let made = plugin_host(&[&["new", name, &path], arguments].concat());
        assert_eq!(made.code, 0, "{made:?}");
        // What this workspace has fetched is enough, and the network is not asked.
        let lock = workspace().join("Cargo.lock");
        fs::copy(lock, own.path().join("Cargo.lock")).unwrap();
        own
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join(&self.name)
    }

    /// The text of one of its files.
    pub(crate) fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path().join(file)).unwrap()
    }

    /// Changes a file, as an editor does: by another one in its place.
    pub(crate) fn edit(&self, file: &str, from: &str, to: &str) {
        let text = self.read(file);
        assert!(text.contains(from), "no {from:?} in {file}:\n{text}");
        let edited = self.path().join(".edited");
        fs::write(&edited, text.replace(from, to)).unwrap();
        fs::rename(edited, self.path().join(file)).unwrap();
    }

    /// Runs cargo in it.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Ended {
        let output = in_environment(&mut Command::new(env!("CARGO")))
            .current_dir(self.path())
            .args(arguments)
            .output()
            .unwrap();
        Ended {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Has cargo build all such crates into one directory, quickly and without the network.
pub(crate) fn in_environment(command: &mut Command) -> &mut Command {
    command
        .env("CARGO_TARGET_DIR", target())
        .env("CARGO_NET_OFFLINE", "true")
        .env("CARGO_INCREMENTAL", "0")
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("PLUGIN_HOST", env!("CARGO_BIN_EXE_plugin-host"))
}

/// Where they are built.
pub(crate) fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("crates")
}

fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
