//! The source tree, read once: every file that belongs to it, with its text.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// A text file of the source tree.
pub(crate) struct SourceFile {
    /// Relative to the top, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// The top of the source tree.
pub(crate) fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All text files, without what is built and without version control.
pub(crate) fn files() -> &'static [SourceFile] {
    static FILES: OnceLock<Vec<SourceFile>> = OnceLock::new();
    FILES.get_or_init(|| {
        let mut files = Vec::new();
        read_directory(&top(), "", &mut files);
        assert!(files.len() > 50, "this is not the whole tree");
        files
    })
}

fn read_directory(directory: &Path, below: &str, files: &mut Vec<SourceFile>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{below}{name}");
        if entry.file_type().unwrap().is_dir() {
            // `artifacts` and `corpus` are what a fuzzing run leaves.
            if !matches!(name.as_str(), "target" | ".git" | "artifacts" | "corpus") {
                read_directory(&entry.path(), &format!("{path}/"), files);
            }
        } else if let Ok(text) = fs::read_to_string(entry.path())
            && name != ".git"
        {
            files.push(SourceFile { path, text });
        }
    }
}

/// One file of the tree.
pub(crate) fn file(path: &str) -> &'static SourceFile {
    files()
        .iter()
        .find(|file| file.path == path)
        .unwrap_or_else(|| panic!("there is no {path}"))
}

/// Rust files below one of these directories; generated ones are nobody's to keep tidy.
pub(crate) fn rust_below(directories: &[&str]) -> impl Iterator<Item = &'static SourceFile> {
    files().iter().filter(|file| {
        file.path.ends_with(".rs")
            && file.path != "proto/src/generated.rs"
            && directories.iter().any(|above| file.path.starts_with(above))
    })
}

/// What is compiled into programs and libraries, without tests.
pub(crate) fn shipped_rust() -> impl Iterator<Item = &'static SourceFile> {
    rust_below(&["host/src/", "plugin-abi/src/", "proto/src/", "plugins/"])
        .filter(|file| !is_test(&file.path))
}

/// Whether a whole file is compiled for tests only.
fn is_test(path: &str) -> bool {
    ["/tests.rs", "/testing.rs"]
        .iter()
        .any(|end| path.ends_with(end))
        || ["/tests/", "/testing/"]
            .iter()
            .any(|part| path.contains(part))
}
