//! What does not compile, and what the author is told.

use std::process::Command;

/// The example `mark_team` compiles with every build of this crate, under `forbid(unsafe_code)`;
/// here with one flag more.
#[test]
fn a_plugin_that_aborts_on_panic_does_not_compile_and_says_what_to_do() {
    let output = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["rustc", "--offline", "--quiet", "--example", "mark_team"])
        .args(["--", "-C", "panic=abort"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    for part in [
        "a plugin must unwind on panic",
        "remove `panic = \"abort\"`",
    ] {
        assert!(said.contains(part), "{said}");
    }
}
