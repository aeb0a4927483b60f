//! A git repository with a crate in it, and git's own server for it over HTTPS.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;

use super::{
    service::Authority,
    web::{Asked, Reply, Web},
};

/// A repository named `plugin` in a directory of its own.
pub(crate) struct Repository(TempDir);

impl Repository {
    /// One of a crate, which does not build: the compiler says which commit this is.
    pub(crate) fn new(says: &str) -> Self {
        let repository = Self(tempfile::tempdir().unwrap());
        fs::create_dir(repository.0.path().join("plugin")).unwrap();
        repository.git(&["init", "-q", "-b", "main"]);
        repository.git(&["config", "user.name", "a"]);
        repository.git(&["config", "user.email", "a@a.example"]);
        repository.crate_at("");
        repository.commit(says);
        repository
    }

    /// A crate without dependencies in a directory of it, not committed yet.
    pub(crate) fn crate_at(&self, directory: &str) {
        for (file, text) in [
            (
                "Cargo.toml",
                "[package]\nname = \"x\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\
                 [lib]\ncrate-type = [\"cdylib\"]\n",
            ),
            (
                "Cargo.lock",
                "version = 4\n[[package]]\nname = \"x\"\nversion = \"0.1.0\"\n",
            ),
            ("src/lib.rs", ""),
        ] {
            self.write(&format!("{directory}/{file}"), text);
        }
    }

    /// Writes a file.
    pub(crate) fn write(&self, file: &str, text: &str) {
        let path = self
            .0
            .path()
            .join("plugin")
            .join(file.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Commits what there is, with a crate that says this; gives the commit.
    pub(crate) fn commit(&self, says: &str) -> String {
        self.write("src/lib.rs", &format!("compile_error!({says:?});\n"));
        self.git(&["add", "."]);
        self.git(&["commit", "-q", "-m", says]);
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }

    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .current_dir(self.0.path().join("plugin"))
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// As a source.
    pub(crate) fn source(&self) -> String {
        format!("git+file://{}", self.0.path().join("plugin").display())
    }

    /// Serves it at `/plugin` to whom this header knows, or to everybody.
    pub(crate) fn serve(&self, authority: &Authority, knows: Option<String>) -> Web {
        let root = self.0.path().to_owned();
        Web::start(Some(authority), move |asked| match &knows {
            Some(_) if asked.header("authorization") != knows.as_deref() => {
                Reply::new(401, "").header("www-authenticate", "Basic realm=\"test\"")
            }
            _ => backend(&root, asked),
        })
    }
}

/// What git answers.
fn backend(root: &Path, asked: &Asked) -> Reply {
    let header = |name: &str| asked.header(name).unwrap_or_default();
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        // It takes the repository's owner for another one where it does not know who it is itself.
        .envs([
            ("GIT_CONFIG_COUNT", "1"),
            ("GIT_CONFIG_KEY_0", "safe.directory"),
            ("GIT_CONFIG_VALUE_0", "*"),
        ])
        .env("PATH_INFO", asked.path())
        .env("QUERY_STRING", asked.query())
        .env("REQUEST_METHOD", &asked.method)
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", asked.body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&asked.body).unwrap();
    Reply::of_cgi(&child.wait_with_output().unwrap().stdout)
}
