//! One plugin as many authors would build it: with an ABI of earlier days, another compiler, another
//! allocator, other settings.
//!
//! Nobody debugs what is built here, so it is built without what debuggers need. Each way of building has a target directory of its own below the workspace's, so that a second run
//! builds nothing. The source is `host/tests/fixtures/compatible`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use serde_json::json;

use super::{
    libraries::{built_plugin, cargo, succeed, target_dir, workspace},
    versions::{Files, LIBRARY, replace},
};

/// The compiler that Debian packages, which `scripts/install-tools --tests` installs, and the variable that
/// names another one in its place.
const OTHER_RUSTC: &str = "/usr/bin/rustc";
const OTHER_RUSTC_VARIABLE: &str = "PLUGIN_HOST_TEST_RUSTC";

/// The manifest that builds the plugin with `plugin-abi` as it was in ABI 1.0.0, and with the releases
/// of `serde`, `serde_json` and others of those days.
const FROZEN: &str = "host/tests/fixtures/abi-1.0.0/Cargo.toml";

/// The same of ABI 1.1.0.
const FROZEN_1_1: &str = "host/tests/fixtures/abi-1.1.0/Cargo.toml";

/// Name of the plugin whose ABI has another layout.
const MISSHAPEN: &str = "misshapen";

/// Name of the plugin whose ABI is newer than this host's.
const FORESIGHTED: &str = "foresighted";

/// The ABI version of that one.
pub(crate) const LATER_ABI: &str = "1.999.0";

/// A way to build the plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Built {
    /// As everything else here: the current `plugin-abi`, this compiler, not optimised.
    Now,
    /// With `plugin-abi` as it was in ABI 1.0.0.
    WithAbi1_0,
    /// With `plugin-abi` as it was in ABI 1.1.0.
    WithAbi1_1,
    /// With `plugin-abi` as it was in ABI 1.0.0, but for one field, which has another type.
    WithAnotherLayout,
    /// With a later minor version of the ABI, of which it uses nothing new.
    WithALaterAbi,
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
            Self::WithALaterAbi => FORESIGHTED,
            _ => "compatible",
        }
    }

    fn library(self) -> PathBuf {
        static FROZEN_ABI: OnceLock<PathBuf> = OnceLock::new();
        static FROZEN_ABI_1_1: OnceLock<PathBuf> = OnceLock::new();
        static ANOTHER_LAYOUT: OnceLock<PathBuf> = OnceLock::new();
        static LATER_ABI: OnceLock<PathBuf> = OnceLock::new();
        static ANOTHER_COMPILER: OnceLock<PathBuf> = OnceLock::new();
        static OPTIMISED: OnceLock<PathBuf> = OnceLock::new();
        match self {
            Self::Now | Self::WithItsOwnAllocator => built_plugin(self.plugin()).library,
            Self::WithAbi1_0 => FROZEN_ABI.get_or_init(with_frozen_abi).clone(),
            Self::WithAbi1_1 => FROZEN_ABI_1_1.get_or_init(with_frozen_abi_1_1).clone(),
            Self::WithAnotherLayout => ANOTHER_LAYOUT.get_or_init(with_another_layout).clone(),
            Self::WithALaterAbi => LATER_ABI.get_or_init(with_a_later_abi).clone(),
            Self::ByAnotherCompiler => ANOTHER_COMPILER.get_or_init(by_another_compiler).clone(),
            Self::Optimised => OPTIMISED.get_or_init(optimised).clone(),
        }
    }
}

fn with_frozen_abi() -> PathBuf {
    frozen(FROZEN, "abi-1.0.0")
}

fn with_frozen_abi_1_1() -> PathBuf {
    frozen(FROZEN_1_1, "abi-1.1.0")
}

fn frozen(manifest: &str, target: &str) -> PathBuf {
    let target = target_dir().join(target);
    succeed(
        cargo()
            .args([
                "build",
                "--locked",
                "--manifest-path",
                manifest,
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
    let copy = SourceCopy::new("another-layout");
    copy.add(Path::new(FROZEN).parent().unwrap(), "");
    copy.edit(
        "plugin-abi/src/abi.rs",
        "pub status: u16,",
        "pub status: u32,",
    );
    let action = "plugin-abi/src/action.rs";
    copy.edit(action, " status,\n", " status: status.into(),\n");
    copy.edit(
        action,
        " self.parts.status\n",
        " self.parts.status as u16\n",
    );
    let source = workspace().join("host/tests/fixtures/compatible/src/lib.rs");
    copy.edit(
        "Cargo.toml",
        "../compatible/src/lib.rs",
        source.to_str().unwrap(),
    );
    copy.build("Cargo.toml", MISSHAPEN, &target_dir().join("abi-1.0.0"))
}

/// A copy of the current ABI as it may be in some later minor version: with methods at the end of the
/// tables that the host fills and of those that the library fills.
fn with_a_later_abi() -> PathBuf {
    let copy = SourceCopy::new("a-later-abi");
    copy.add(Path::new("plugin-abi"), "plugin-abi");
    copy.add(Path::new("host/tests/fixtures/compatible"), "compatible");
    copy.add(Path::new("Cargo.lock"), "Cargo.lock");
    copy.add(Path::new("Cargo.toml"), "Cargo.toml");
    let manifest = fs::read_to_string(copy.directory.join("Cargo.toml")).unwrap();
    let members = &manifest[manifest.find("members = [").unwrap()..];
    let members = &members[..members.find("exclude").unwrap()];
    let fewer = "members = [\"plugin-abi\", \"compatible\"]\n";
    copy.edit("Cargo.toml", members, fewer);
    // The documents are not there, and nobody tests this copy.
    copy.edit("plugin-abi/src/lib.rs", "#[cfg(doctest)]", "#[cfg(any())]");
    for above in [
        "/// Owned handle of the host's services.",
        "/// Owned handle of a plugin; its drop",
        "/// Owned handle of a call.",
    ] {
        let end_of_trait = format!("}}\n\n{above}");
        let longer =
            format!("\n    /// Later.\n    fn later(&self) -> u64 {{ 7 }}\n{end_of_trait}");
        copy.edit("plugin-abi/src/abi.rs", &end_of_trait, &longer);
    }
    let now = format!("\"{}\"", plugin_abi::build_info::ABI_VERSION);
    let later = format!("\"{LATER_ABI}\"");
    copy.edit("plugin-abi/src/build_info.rs", &now, &later);
    copy.build("compatible/Cargo.toml", FORESIGHTED, target_dir())
}

/// A copy of sources, to be changed and built.
struct SourceCopy {
    directory: PathBuf,
}

impl SourceCopy {
    fn new(name: &str) -> Self {
        let directory = target_dir().join("tmp").join(name);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        Self { directory }
    }

    /// Copies a file or a directory of the workspace.
    fn add(&self, from: &Path, to: &str) {
        copy_all(&workspace().join(from), &self.directory.join(to));
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let file = self.directory.join(file);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from} is not in {}", file.display());
        fs::write(file, text.replace(from, to)).unwrap();
    }

    /// Builds it with another version of `plugin-abi` and under another name, or what is built would
    /// take the place of the original's.
    fn build(&self, manifest: &str, name: &str, target: &Path) -> PathBuf {
        let manifest_of_abi = self.directory.join("plugin-abi/Cargo.toml");
        let text = fs::read_to_string(manifest_of_abi).unwrap();
        let version = text.lines().find(|line| line.starts_with("version = "));
        let other = format!("version = \"{LATER_ABI}\"");
        self.edit("plugin-abi/Cargo.toml", version.unwrap(), &other);
        let named = format!("name = \"{name}\"");
        self.edit(manifest, "name = \"compatible\"", &named);
        succeed(
            cargo()
                .args(["build", "--manifest-path"])
                .arg(self.directory.join(manifest))
                .arg("--target-dir")
                .arg(target),
        );
        target.join(format!("debug/lib{name}.so"))
    }
}

fn by_another_compiler() -> PathBuf {
    let rustc = env::var_os(OTHER_RUSTC_VARIABLE).unwrap_or_else(|| OTHER_RUSTC.into());
    assert!(
        fs::exists(&rustc).unwrap(),
        "there is no {}: run scripts/install-tools --tests, or name a compiler in {OTHER_RUSTC_VARIABLE}",
        rustc.display()
    );
    let target = target_dir().join("another-compiler");
    succeed(
        cargo()
            .env("RUSTC", rustc)
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .args(["build", "--locked", "--package", "compatible"])
            .arg("--target-dir")
            .arg(&target),
    );
    target.join("debug/libcompatible.so")
}

fn optimised() -> PathBuf {
    let target = target_dir().join("optimised");
    succeed(
        cargo()
            .env("CARGO_PROFILE_RELEASE_LTO", "fat")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
            .args(["build", "--locked", "--release", "--package", "compatible"])
            .arg("--target-dir")
            .arg(&target),
    );
    target.join("release/libcompatible.so")
}

fn copy_all(from: &Path, to: &Path) {
    if from.is_file() {
        fs::copy(from, to).unwrap();
        return;
    }
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        copy_all(&entry.path(), &to.join(entry.file_name()));
    }
}
