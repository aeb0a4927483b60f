//! Hands the source's commit and the compiler's version to the program, for `plugin-host version`.
//!
//! Outside a checkout, or without git, the commit is `unknown`: a build never fails for it.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let compiler = output(Command::new(rustc).arg("--version"));
    let unknown = || "unknown".to_owned();
    println!(
        "cargo::rustc-env=PLUGIN_HOST_COMPILER={}",
        compiler.unwrap_or_else(unknown)
    );
    println!(
        "cargo::rustc-env=PLUGIN_HOST_COMMIT={}",
        commit().unwrap_or_else(unknown)
    );
}

fn commit() -> Option<String> {
    let package = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR")?);
    let workspace = package.parent()?;
    // An unpacked archive inside somebody's checkout is not that checkout's commit.
    let top = git(workspace, &["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != workspace.canonicalize().ok()? {
        return None;
    }
    // HEAD moves when another branch is checked out, its log at every commit.
    for name in ["HEAD", "logs/HEAD"] {
        let path = workspace.join(git(workspace, &["rev-parse", "--git-path", name])?);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    git(workspace, &["rev-parse", "--short=12", "HEAD"])
}

fn git(directory: &Path, arguments: &[&str]) -> Option<String> {
    output(Command::new("git").arg("-C").arg(directory).args(arguments))
}

fn output(command: &mut Command) -> Option<String> {
    let output = command
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
