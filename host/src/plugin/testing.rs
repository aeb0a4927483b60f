//! Real shared libraries for tests, made by the C compiler that linking Rust needs anyway.
//!
//! They export what `export_plugin!` exports, with whatever facts a test wants, so that every
//! judgement about a file can be tested without building a Rust crate for each.

#![allow(
    clippy::unwrap_used,
    reason = "a test may end at what it did not expect"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use plugin_abi::build_info::{ABI_VERSION, MAGIC, SYMBOL};
use plugin_abi::export::ROOT_MODULE_SYMBOL;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Compiles C, with the arguments that say to what.
pub(super) fn compile(source: &str, arguments: &[&str]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let (input, output) = (
        directory.path().join("input.c"),
        directory.path().join("output"),
    );
    fs::write(&input, source).unwrap();
    let compiler = Command::new("cc")
        .args(["-fPIC", "-o"])
        .args([&output, &input])
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        compiler.status.success(),
        "{}",
        String::from_utf8_lossy(&compiler.stderr)
    );
    fs::read(output).unwrap()
}

/// C source of a library with these facts: pairs of key and value.
pub(super) fn source(facts: &[(&str, &str)]) -> String {
    let records: Vec<_> = facts
        .iter()
        .map(|(key, value)| format!("\"{key}={value}\\0\""))
        .collect();
    let records = records.join(" ");
    format!(
        "const char {SYMBOL}[] = \"{MAGIC}\\0\" {records};\nconst char {ROOT_MODULE_SYMBOL}[] = \"\";\n"
    )
}

/// The facts of a plugin that this host can load.
pub(super) fn facts<'a>(name: &'a str, version: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("abi_version", ABI_VERSION),
        ("panic", "unwind"),
        ("name", name),
        ("version", version),
    ]
}

/// A library that this host can load, as far as its file says.
pub(super) fn library(name: &str, version: &str) -> Vec<u8> {
    static MADE: Mutex<BTreeMap<String, Vec<u8>>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    made.entry(format!("{name}@{version}"))
        .or_insert_with(|| compile(&source(&facts(name, version)), &["-shared"]))
        .clone()
}

/// A plugin directory in which tests put what they want to be found.
pub(super) struct PluginDirectory(TempDir);

impl PluginDirectory {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file, with the directories above it.
    pub(super) fn write(&self, path: &str, bytes: impl AsRef<[u8]>) -> &Self {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        self
    }

    /// Makes a link, with the directories above it.
    pub(super) fn link(&self, path: &str, target: impl AsRef<Path>) -> &Self {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
        self
    }

    /// Writes a whole plugin that is fit to be loaded.
    pub(super) fn plugin(&self, directory: &str, name: &str, version: &str) -> &Self {
        self.write(
            &format!("{directory}/plugin.json"),
            plugin_json(name, version, &json!({})),
        )
        .write(&format!("{directory}/lib{name}.so"), library(name, version))
    }
}

/// A `plugin.json`, with some fields set otherwise.
pub(super) fn plugin_json(name: &str, version: &str, changes: &Value) -> String {
    let mut file = json!({
        "name": name,
        "version": version,
        "source": {"mode": "local_so", "path": format!("lib{name}.so")},
    });
    for (field, value) in changes.as_object().unwrap() {
        file[field] = value.clone();
    }
    file.to_string()
}
