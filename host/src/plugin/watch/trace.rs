//! Where a path really leads, and which names in which directories decide that.

use std::{
    ffi::OsString,
    fs,
    path::{Component, Path, PathBuf},
};

/// Links on one path, at most; as many as the kernel follows.
const MAX_LINKS: usize = 40;

/// A path, followed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Trace {
    /// Directories, each with the name in it that must stay what it is for the path to lead to the
    /// same end: every link, and the end itself or the first name that is missing.
    pub(super) decided_by: Vec<(PathBuf, OsString)>,
    /// The end, without links; none where something is missing.
    pub(super) end: Option<PathBuf>,
}

/// Follows an absolute path, without asking what the end is.
pub(super) fn trace(path: &Path) -> Trace {
    let mut trace = Trace::default();
    let mut real = PathBuf::new();
    let mut left = names(path);
    let mut links = 0;
    while let Some(name) = left.pop() {
        match Path::new(&name).components().next() {
            Some(Component::RootDir) => real = PathBuf::from("/"),
            Some(Component::ParentDir) => {
                real.pop();
            }
            Some(Component::Normal(_)) => {
                let next = real.join(&name);
                let Ok(metadata) = fs::symlink_metadata(&next) else {
                    trace.decided_by.push((real, name));
                    return trace;
                };
                if metadata.is_symlink() {
                    trace.decided_by.push((real.clone(), name));
                    links += 1;
                    match fs::read_link(&next) {
                        Ok(target) if links <= MAX_LINKS => left.extend(names(&target)),
                        _ => return trace,
                    }
                } else {
                    if left.is_empty() {
                        trace.decided_by.push((real, name));
                    }
                    real = next;
                }
            }
            _ => {}
        }
    }
    trace.end = Some(real);
    trace
}

/// A path's components, the first one last.
fn names(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .map(|component| component.as_os_str().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a test may end at what it did not expect"
    )]

    use std::os::unix::fs::symlink;

    use super::*;

    /// Traces a path in a directory, and compares without the directory's own path.
    fn check(root: &Path, path: &str, decided_by: &[(&str, &str)], end: Option<&str>) {
        let traced = trace(&root.join(path));
        let decided: Vec<_> = traced
            .decided_by
            .iter()
            .map(|(directory, name)| {
                let directory = directory.strip_prefix(root).unwrap();
                (directory.to_str().unwrap(), name.to_str().unwrap())
            })
            .collect();
        let found = traced
            .end
            .as_deref()
            .map(|end| end.strip_prefix(root).unwrap());
        assert_eq!(
            (decided.as_slice(), found),
            (decided_by, end.map(Path::new))
        );
    }

    #[test]
    fn every_link_and_the_end_decide_where_a_path_leads() {
        let root = tempfile::tempdir().unwrap();
        let root = &root.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("releases/7/say")).unwrap();
        symlink("releases/../current", root.join("plugins")).unwrap();
        symlink(root.join("releases/7"), root.join("current")).unwrap();
        symlink("round", root.join("round")).unwrap();

        check(root, "releases/7", &[("releases", "7")], Some("releases/7"));
        check(
            root,
            "plugins/say",
            &[("", "plugins"), ("", "current"), ("releases/7", "say")],
            Some("releases/7/say"),
        );
        check(
            root,
            "current/gone/say",
            &[("", "current"), ("releases/7", "gone")],
            None,
        );
        assert_eq!(trace(&root.join("round")).end, None);
    }
}
