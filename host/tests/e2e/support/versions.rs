//! Many versions, and many plugins, made of one built library by changing the facts in its bytes.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::{host::install_with, libraries::built_plugin};

/// A plugin as files: a library and its `plugin.json`.
#[derive(Clone)]
pub(crate) struct Files {
    pub(crate) library: Vec<u8>,
    pub(crate) metadata: Value,
}

/// Name of every library below.
pub(crate) const LIBRARY: &str = "libversioned.so";

/// The plugin `versioned` in a version, whose text has five bytes: `0.2.0`.
pub(crate) fn version(version: &str) -> Files {
    named("versioned", version)
}

/// The same under another name, of nine bytes.
pub(crate) fn named(name: &str, version: &str) -> Files {
    let built = built_plugin("versioned");
    let mut library = fs::read(built.library).unwrap();
    replace(
        &mut library,
        "\0name=versioned\0",
        &format!("\0name={name}\0"),
    );
    replace(
        &mut library,
        "\0version=0.1.0\0",
        &format!("\0version={version}\0"),
    );
    Files {
        library,
        metadata: json!({
            "name": name,
            "version": version,
            "source": { "mode": "local_so", "path": LIBRARY },
            "abi": "^1",
        }),
    }
}

/// Puts another version of any built plugin over the one in the plugin directory, with these fields of
/// `plugin.json` beside its own. The text of the version has five bytes.
pub(crate) fn upgrade(plugins: &Path, plugin: &str, version: &str, fields: &Value) {
    let mut fields = fields.clone();
    fields["version"] = json!(version);
    install_with(plugins, plugin, &fields, |library| {
        let to = format!("\0version={version}\0");
        replace(library, "\0version=0.1.0\0", &to);
    });
}

/// Replaces a text in a library, wherever it stands, by one of the same length.
pub(crate) fn replace(bytes: &mut [u8], from: &str, to: &str) {
    assert_eq!(from.len(), to.len(), "bytes are replaced in their place");
    let mut found = false;
    for at in 0..bytes.len() - from.len() {
        if bytes[at..].starts_with(from.as_bytes()) {
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
            found = true;
        }
    }
    assert!(found, "{from:?} is not in the library");
}

impl Files {
    /// With settings in `plugin.json`: what this version does wrong.
    pub(crate) fn settings(mut self, settings: Value) -> Self {
        self.metadata["settings"] = settings;
        self
    }

    /// With HTTP routes in `plugin.json`, all GET.
    pub(crate) fn http_routes(mut self, routes: &[&str]) -> Self {
        let routes: Vec<Value> = routes
            .iter()
            .map(|route| json!({ "route": route, "method": "GET" }))
            .collect();
        self.metadata["http_services"] = json!({ "driver": "axum", "routes": routes });
        self
    }

    /// Writes both files into a directory, over what is there.
    pub(crate) fn write(&self, directory: &Path) {
        fs::create_dir_all(directory).unwrap();
        fs::write(directory.join(LIBRARY), &self.library).unwrap();
        fs::write(directory.join("plugin.json"), self.metadata.to_string()).unwrap();
    }

    /// Puts a whole new directory in the place of another, as a careful operator does.
    pub(crate) fn swap_in(&self, directory: &Path) {
        self.swap_in_after(directory, |_| {});
    }

    /// The same, after something was done to the new directory.
    pub(crate) fn swap_in_after(&self, directory: &Path, change: impl FnOnce(&Path)) {
        let staged = directory.with_file_name(format!(
            ".{}",
            directory.file_name().unwrap().to_string_lossy()
        ));
        let _ = fs::remove_dir_all(&staged);
        self.write(&staged);
        change(&staged);
        let old = staged.with_extension("old");
        let _ = fs::remove_dir_all(&old);
        if directory.exists() {
            fs::rename(directory, &old).unwrap();
        }
        fs::rename(&staged, directory).unwrap();
        let _ = fs::remove_dir_all(&old);
    }
}
