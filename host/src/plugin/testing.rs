//! Real shared libraries for tests, made by the C compiler that linking Rust needs anyway.
//!
//! They export what `export_plugin!` exports, with whatever facts a test wants, so that every
//! judgement about a file can be tested without building a Rust crate for each.

#![allow(
    clippy::unwrap_used,
    reason = "a test may end at what it did not expect"
)]

use std::fs;
use std::process::Command;

use plugin_abi::build_info::{ABI_VERSION, MAGIC, SYMBOL};
use plugin_abi::export::ROOT_MODULE_SYMBOL;

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
    compile(&source(&facts(name, version)), &["-shared"])
}
