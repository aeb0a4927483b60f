//! The committed generated code belongs to the committed schema. This needs no compiler; `scripts/generate-proto
//! --check` is the thorough check.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;

use sha2::{Digest as _, Sha256};

const ADVICE: &str = "run scripts/generate-proto and commit what it writes";

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// What a line of the generated file's head records.
fn recorded<'a>(generated: &'a str, name: &str) -> &'a str {
    let line = generated
        .lines()
        .find_map(|line| line.strip_prefix(&format!("// {name}: ")));
    line.unwrap_or_else(|| panic!("src/generated.rs records no {name}: {ADVICE}"))
}

#[test]
fn the_generated_code_was_made_from_this_schema() {
    let generated = read("src/generated.rs");
    assert_eq!(
        recorded(&generated, "schema-sha256"),
        sha256(&read("ext-plugin.fbs")),
        "the schema changed: {ADVICE}"
    );
}

#[test]
fn nobody_has_edited_the_generated_code() {
    let generated = read("src/generated.rs");
    let digest = recorded(&generated, "code-sha256");
    let (_, code) = generated
        .split_once(&format!("// code-sha256: {digest}\n"))
        .unwrap();
    assert_eq!(
        digest,
        sha256(code),
        "src/generated.rs is not what the compiler wrote: {ADVICE}"
    );
}

#[test]
fn the_generated_code_is_from_the_pinned_compiler_which_fits_the_runtime() {
    let generated = read("src/generated.rs");
    let compiler = recorded(&generated, "compiler");
    let (name, version) = compiler.split_once(' ').unwrap();
    let pinned = format!("name = \"{name}\"\nversion = \"{version}\"\n");
    assert!(
        read("codegen/Cargo.lock").contains(&pinned),
        "the compiler's version changed: {ADVICE}"
    );

    let manifest = read("../Cargo.toml");
    let runtime = manifest
        .split_once("flatbuffers = \"=")
        .unwrap()
        .1
        .split_once('"')
        .unwrap()
        .0;
    assert!(
        version.contains(&format!("+{runtime}-")),
        "the runtime is {runtime}, the compiler {version}: pin the two together"
    );
}
