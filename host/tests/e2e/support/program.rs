//! Commands of `plugin-host` that end by themselves, as a user runs them.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{host::install, libraries::built_plugin};

/// What a command wrote, and its exit code.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// What [`Host::ask`](super::Host::ask) gives.
    pub(crate) fn from_ask((code, stdout, stderr): (i32, String, String)) -> Self {
        Self {
            code,
            stdout,
            stderr,
        }
    }

    /// The output of `--json`.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs `plugin-host` with these arguments and no environment.
pub(crate) fn plugin_host<S: AsRef<str>>(arguments: &[S]) -> Ended {
    with_environment(arguments, &[], "")
}

/// The same with these environment variables, and a text on standard input.
pub(crate) fn with_environment<S: AsRef<str>>(
    arguments: &[S],
    environment: &[(&str, &str)],
    input: &str,
) -> Ended {
    let mut child = Command::new(env!("CARGO_BIN_EXE_plugin-host"))
        .args(arguments.iter().map(AsRef::as_ref))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who does not read it does not want it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Ended {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A directory for plugins without a host.
pub(crate) struct PluginDir(tempfile::TempDir);

impl PluginDir {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// Adds a plugin whose `plugin.json` has these fields beside, or in place of, its own.
    pub(crate) fn with(self, plugin: &str, fields: Value) -> Self {
        install(self.0.path(), plugin, &fields);
        self
    }

    /// Adds a file.
    pub(crate) fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    /// Adds a plugin's library without a directory of its own.
    pub(crate) fn library(self, plugin: &str) -> Self {
        let library = built_plugin(plugin).library;
        let name = library.file_name().unwrap().to_owned();
        fs::copy(library, self.0.path().join(name)).unwrap();
        self
    }

    /// Adds a plugin made by the C compiler, which does this when its library is opened. As far as
    /// its file says it could be loaded.
    pub(crate) fn in_c(self, name: &str, on_open: &str) -> Self {
        let source = format!(
            "#include <stdio.h>\n\
             #include <unistd.h>\n\
             const char PLUGIN_HOST_BUILD_INFO[] = \"plugin-host build info 1\\0\" \
             \"abi_version={}\\0\" \"panic=unwind\\0\" \"name={name}\\0\" \"version=1.0.0\\0\";\n\
             const char PLUGIN_HOST_ROOT_MODULE[64] = \"\";\n\
             __attribute__((constructor)) static void on_open(void) {{ {on_open} }}\n",
            plugin_abi::build_info::ABI_VERSION
        );
        self.compiled(name, &source, &[])
    }

    /// Adds a shared library without `plugin.json`, made by the C compiler with these flags.
    pub(crate) fn compiled(self, name: &str, source: &str, flags: &[&str]) -> Self {
        let source_file: PathBuf = Path::new(&self.path("source.c")).into();
        fs::write(&source_file, source).unwrap();
        let directory = self.0.path().join(name);
        fs::create_dir(&directory).unwrap();
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(directory.join(format!("lib{name}.so")))
            .arg(&source_file)
            .args(flags)
            .status()
            .unwrap();
        assert!(compiled.success());
        fs::remove_file(source_file).unwrap();
        self
    }
}
