//! A host that answers over the network, to whoever has the token.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::PathBuf};

use tempfile::TempDir;

use super::{
    Builder, Host,
    asking::{free_address, get},
    browser::Page,
};

pub(crate) const TOKEN: &str = "correct-horse-battery-staple";

pub(crate) struct Guarded {
    pub(crate) host: Host,
    pub(crate) address: SocketAddr,
    pub(crate) file: PathBuf,
    _directory: TempDir,
}

impl Guarded {
    /// The console, before anybody has signed in.
    pub(crate) fn door(&self) -> Page {
        // It listens a moment after it has been started.
        get("/healthz").at(self.address);
        let mut page = Page::new();
        page.open(&format!("http://{}/", self.address));
        page.until("document.activeElement.id === 'token'");
        page
    }

    /// The console, signed in.
    pub(crate) fn console(&self) -> Page {
        let mut page = self.door();
        page.type_text(TOKEN);
        page.key("Enter");
        page.until_shown("Ready");
        page
    }
}

pub(crate) fn token_file(text: &str, mode: u32) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    (directory, file)
}

pub(crate) fn guarded() -> Guarded {
    guarded_with(Host::builder())
}

/// The same with a host that is told more.
pub(crate) fn guarded_with(builder: Builder) -> Guarded {
    let (directory, file) = token_file(&format!("{TOKEN}\n"), 0o600);
    let address = free_address();
    let host = builder
        .flag("--control-listen", &address.to_string())
        .flag("--control-token-file", file.to_str().unwrap())
        .start();
    Guarded {
        host,
        address,
        file,
        _directory: directory,
    }
}
