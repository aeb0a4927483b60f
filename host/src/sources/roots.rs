//! Whose certificates of servers are believed: those of the system's roots (or of SSL_CERT_FILE in their
//! place, as everywhere), and of the operator's own beside them; for our own requests, for git and for cargo.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use ureq::tls::{Certificate, RootCerts};

use super::{Settings, SourceError};

/// What to do about a certificate of an authority that nobody here knows.
pub(super) const UNTRUSTED: &str = "nobody who is trusted here vouches for its certificate: where that is an \
     authority of your own, name its certificate in `http_client.ca_file` of the configuration (`--config`), \
     or in SSL_CERT_FILE";

/// The variable that names a file in place of the system's.
pub const ROOTS_VARIABLE: &str = "SSL_CERT_FILE";

/// As for the host's own client: the system's, or the bundled ones where it has none; and the operator's.
pub(super) fn of(extra: &str) -> RootCerts {
    let mut all = rustls_native_certs::load_native_certs().certs;
    // They were checked when the configuration was read.
    all.extend(CertificateDer::pem_slice_iter(extra.as_bytes()).filter_map(Result::ok));
    if all.is_empty() {
        return RootCerts::WebPki;
    }
    let all = all
        .iter()
        .map(|certificate| Certificate::from_der(certificate).to_owned());
    RootCerts::Specific(Arc::new(all.collect()))
}

/// All of them in one file, for programs that take one and no other beside it; none where they find by
/// themselves what there is.
pub(super) fn file(settings: &Settings, directory: &Path) -> Result<Option<PathBuf>, SourceError> {
    // Not every library for TLS heeds the variable.
    let mut known = settings.environment.iter();
    if settings.extra_roots.is_empty() && !known.any(|(name, _)| name == ROOTS_VARIABLE) {
        return Ok(None);
    }
    let path = directory.join("roots.pem");
    match fs::write(&path, text(&settings.extra_roots)) {
        Ok(()) => Ok(Some(path)),
        Err(source) => Err(SourceError::File { path, source }),
    }
}

fn text(extra: &str) -> String {
    let mut text = extra.to_owned();
    for certificate in rustls_native_certs::load_native_certs().certs {
        let encoded = STANDARD.encode(certificate.as_ref());
        text.push_str("\n-----BEGIN CERTIFICATE-----\n");
        for line in encoded.as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}
