//! One plugin as many authors would build it: with an ABI of earlier days, another compiler, another
//! allocator, other settings.
//!
//! Each way of building has a target directory of its own below the workspace's, so that a second run
//! builds nothing. The source is `host/tests/fixtures/compatible`.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use serde_json::json;

use super::{
    libraries::{built_plugin, cargo, succeed, target_dir, workspace},
    versions::{Files, LIBRARY, replace},
};

/// The compiler that the system packages; `scripts/install-tools --tests` installs it.
const RUSTC_OF_THE_SYSTEM: &str = "/usr/bin/rustc";

/// The manifest that builds the plugin with `plugin-abi` as it was in ABI 1.0.0, and with the releases
/// of `serde`, `serde_json` and others of those days.
const FROZEN: &str = "host/tests/fixtures/abi-1.0.0/Cargo.toml";

/// Name of the plugin whose ABI has another layout.
const MISSHAPEN: &str = "misshapen";

/// A way to build the plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Built {
    /// As everything else here: the current `plugin-abi`, this compiler, not optimised.
    Now,
    /// With `plugin-abi` as it was in ABI 1.0.0.
    WithAbi1_0,
    /// With `plugin-abi` as it was in ABI 1.0.0, but for one field, which has another type.
    WithAnotherLayout,
    /// By the compiler that the system packages.
    ByAnotherCompiler,
    /// At the highest optimisation level, with link-time optimisation over all crates.
    Optimised,
    /// With an allocator of its own.
    WithItsOwnAllocator,
}

impl Built {
    /// The plugin in a version, whose text has five bytes: `0.2.0`.
    pub(crate) fn version(self, version: &str) -> Files {
        let mut library = fs::read(self.library()).unwrap();
        replace(
            &mut library,
            "\0version=0.1.0\0",
            &format!("\0version={version}\0"),
        );
        Files {
            library,
            metadata: json!({
                "name": self.plugin(),
                "version": version,
                "source": { "mode": "local_so", "path": LIBRARY },
                "abi": "^1",
                "settings": { "greeting": "hello" },
            }),
        }
    }

    /// The plugin's name.
    pub(crate) fn plugin(self) -> &'static str {
        match self {
            Self::WithItsOwnAllocator => "own-allocator",
            Self::WithAnotherLayout => MISSHAPEN,
            _ => "compatible",
        }
    }

    fn library(self) -> PathBuf {
        static FROZEN_ABI: OnceLock<PathBuf> = OnceLock::new();
        static ANOTHER_LAYOUT: OnceLock<PathBuf> = OnceLock::new();
        static ANOTHER_COMPILER: OnceLock<PathBuf> = OnceLock::new();
        static OPTIMISED: OnceLock<PathBuf> = OnceLock::new();
        match self {
            Self::Now | Self::WithItsOwnAllocator => built_plugin(self.plugin()).library,
            Self::WithAbi1_0 => FROZEN_ABI.get_or_init(with_frozen_abi).clone(),
            Self::WithAnotherLayout => ANOTHER_LAYOUT.get_or_init(with_another_layout).clone(),
            Self::ByAnotherCompiler => ANOTHER_COMPILER.get_or_init(by_another_compiler).clone(),
            Self::Optimised => OPTIMISED.get_or_init(optimised).clone(),
        }
    }
}

fn with_frozen_abi() -> PathBuf {
    let target = target_dir().join("abi-1.0.0");
    succeed(
        cargo()
            .args([
                "build",
                "--locked",
                "--manifest-path",
                FROZEN,
                "--target-dir",
            ])
            .arg(&target),
    );
    target.join("debug/libcompatible.so")
}

/// A copy of the frozen ABI with a change that no minor version may make. Its dependencies are those
/// of the frozen one, and are built once for both.
fn with_another_layout() -> PathBuf {
    with_frozen_abi();
    let copy = target_dir().join("tmp/another-layout");
    let _ = fs::remove_dir_all(&copy);
    copy_all(workspace().join(FROZEN).parent().unwrap(), &copy);
    let edit = |file: &str, from: &str, to: &str| {
        let file = copy.join(file);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from} is not in {}", file.display());
        fs::write(file, text.replace(from, to)).unwrap();
    };
    edit(
        "plugin-abi/src/abi.rs",
        "pub status: u16,",
        "pub status: u32,",
    );
    let action = "plugin-abi/src/action.rs";
    edit(action, " status,\n", " status: status.into(),\n");
    edit(
        action,
        " self.parts.status\n",
        " self.parts.status as u16\n",
    );
    // A name of its own, or its library would take the place of the other one.
    let named = format!("name = \"{MISSHAPEN}\"");
    edit("Cargo.toml", "name = \"compatible\"", &named);
    let source = workspace().join("host/tests/fixtures/compatible/src/lib.rs");
    edit(
        "Cargo.toml",
        "../compatible/src/lib.rs",
        source.to_str().unwrap(),
    );
    let target = target_dir().join("abi-1.0.0");
    succeed(
        cargo()
            .args(["build", "--manifest-path"])
            .arg(copy.join("Cargo.toml"))
            .arg("--target-dir")
            .arg(&target),
    );
    target.join(format!("debug/lib{MISSHAPEN}.so"))
}

fn by_another_compiler() -> PathBuf {
    assert!(
        fs::exists(RUSTC_OF_THE_SYSTEM).unwrap(),
        "there is no {RUSTC_OF_THE_SYSTEM}: run scripts/install-tools --tests"
    );
    let target = target_dir().join("another-compiler");
    succeed(
        cargo()
            .env("RUSTC", RUSTC_OF_THE_SYSTEM)
            .args([
                "build",
                "--locked",
                "--package",
                "compatible",
                "--target-dir",
            ])
            .arg(&target),
    );
    target.join("debug/libcompatible.so")
}

fn optimised() -> PathBuf {
    let target = target_dir().join("optimised");
    succeed(
        cargo()
            .env("CARGO_PROFILE_RELEASE_LTO", "fat")
            .args(["build", "--locked", "--release", "--package", "compatible"])
            .arg("--target-dir")
            .arg(&target),
    );
    target.join("release/libcompatible.so")
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = {
            let entry = entry.unwrap();
            (entry.path(), to.join(entry.file_name()))
        };
        if from.is_dir() {
            copy_all(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}
