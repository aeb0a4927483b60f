//! The registry of Debian's package `docker-registry`: open to everybody, or over TLS for those who say who
//! they are.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::{host::wait_for, http::free_address, service::Authority, web::NAMES};

/// A registry, gone at the end of its test.
pub(crate) struct Registry {
    address: SocketAddr,
    process: Child,
    _directory: TempDir,
}

/// How a registry finds out who asks.
pub(crate) enum Asks<'a> {
    /// By passwords, as `htpasswd -B` writes them.
    Passwords(&'a str),
    /// By tokens that somebody at this URL gives, of whom this authority knows.
    Tokens { realm: &'a str },
}

impl Registry {
    /// Without TLS, for everybody.
    pub(crate) fn start() -> Self {
        Self::with(tempfile::tempdir().unwrap(), "", "")
    }

    /// With a certificate of this authority, for those who may.
    pub(crate) fn guarded(authority: &Authority, asks: &Asks<'_>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let (certificate, key) = authority.vouch_for(&NAMES);
        let tls = format!(
            ", tls: {{certificate: {:?}, key: {:?}}}",
            file("cert.pem", &certificate.pem()),
            file("key.pem", &key.serialize_pem())
        );
        let auth = match asks {
            Asks::Passwords(text) => format!(
                "auth: {{htpasswd: {{realm: test, path: {:?}}}}}\n",
                file("htpasswd", text)
            ),
            Asks::Tokens { realm } => format!(
                "auth: {{token: {{realm: {realm:?}, service: test-registry, issuer: test-issuer, \
                 rootcertbundle: {:?}}}}}\n",
                authority.file(directory.path())
            ),
        };
        Self::with(directory, &tls, &auth)
    }

    fn with(directory: TempDir, tls: &str, auth: &str) -> Self {
        let address = free_address();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {:?}}}}}\n\
             http: {{addr: \"{address}\"{tls}}}\n{auth}",
            directory.path()
        );
        let file = directory.path().join("config.yml");
        fs::write(&file, config).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("scripts/install-tools --tests installs docker-registry");
        wait_for("the registry answers", || TcpStream::connect(address).ok());
        Self {
            address,
            process,
            _directory: directory,
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
