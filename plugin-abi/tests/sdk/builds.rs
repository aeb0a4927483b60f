//! What does not compile, and what the author is told.

use std::process::Command;

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
