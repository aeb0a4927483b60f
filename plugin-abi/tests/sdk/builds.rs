//! What does not compile, and what the author is told.

use std::{fs, path::Path, process::Command};

/// Compiles an example of this crate with one flag more, and wants these words of the compiler.
#[track_caller]
fn check(example: &str, flag: [&str; 2], words: &[&str]) {
    let output = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["rustc", "--offline", "--quiet", "--example", example, "--"])
        .args(flag)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    for part in words {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
}

#[test]
fn a_type_without_default_is_told_to_derive_it() {
    check(
        "mistakes",
        ["--cfg", "forgot_default"],
        &["`Mistaken: Default` is not satisfied", "#[derive(Default)]"],
    );
}

#[test]
fn a_configuration_that_cannot_be_read_is_told_to_derive_it() {
    check(
        "mistakes",
        ["--cfg", "forgot_deserialize"],
        &["Config", "Deserialize", "`Configuration`"],
    );
}

#[test]
fn what_is_no_plugin_is_told_what_is_missing() {
    check(
        "mistakes",
        ["--cfg", "forgot_plugin"],
        &[
            "`Mistaken` is not a plugin",
            "`impl Plugin for Mistaken` is missing",
        ],
    );
}

/// The example `mark_team` compiles with every build of this crate, under `forbid(unsafe_code)`;
/// here with one flag more.
#[test]
fn a_plugin_that_aborts_on_panic_does_not_compile_and_says_what_to_do() {
    check(
        "mark_team",
        ["-C", "panic=abort"],
        &[
            "a plugin must unwind on panic",
            "remove `panic = \"abort\"`",
        ],
    );
}

/// A crate of an author's own, who has read half of the guide.
#[test]
fn a_plugin_that_wants_tokio_without_the_feature_is_told_which() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| fs::write(directory.path().join(file), text).unwrap();
    fs::create_dir(directory.path().join("src")).unwrap();
    write(
        "Cargo.toml",
        &format!(
            "[package]\nname = \"wants-tokio\"\nedition = \"2024\"\n\
             [lib]\ncrate-type = [\"cdylib\"]\n\
             [dependencies]\nplugin-abi = {{ path = {own:?} }}\n\
             [profile.dev]\ndebug = \"line-tables-only\"\n[workspace]\n"
        ),
    );
    write(
        "src/lib.rs",
        "use plugin_abi::prelude::*;\n\
         #[derive(Default)]\nstruct WantsTokio;\n\
         impl Plugin for WantsTokio {\n    type Config = ();\n    \
             const RUNTIME: Runtime = Runtime::Tokio;\n}\n\
         export_plugin!(WantsTokio);\n",
    );
    // The versions that this workspace uses, so that nothing has to be fetched.
    fs::copy(
        own.join("../Cargo.lock"),
        directory.path().join("Cargo.lock"),
    )
    .unwrap();
    let output = Command::new(env!("CARGO"))
        .current_dir(directory.path())
        .args(["build", "--offline", "--quiet", "--target-dir"])
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    let hint = r#"plugin-abi needs its feature: `features = ["tokio"]` in Cargo.toml"#;
    assert!(said.contains(hint), "{said}");
}
