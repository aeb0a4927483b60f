//! Whom the client trusts over TLS: the system's roots, or, where the system has none, the bundled
//! ones; and the operator's beside them.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

/// What keeps a file from being one of roots. One without a certificate is more likely a mistake than
/// a wish.
///
/// # Errors
/// What is wrong with it.
pub fn check_roots(pem: &str) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| format!("is no PEM: {error}"))?;
        roots
            .add(certificate)
            .map_err(|error| format!("has a certificate that is no root of trust: {error}"))?;
    }
    if roots.is_empty() {
        return Err("has no certificate in PEM".to_owned());
    }
    Ok(())
}

/// How the client secures connections. Reads the system's certificates.
pub(super) fn tls(extra_roots: &str) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    // One unreadable file among many is no reason to trust nobody.
    let of_system = rustls_native_certs::load_native_certs();
    let (taken, _) = roots.add_parsable_certificates(of_system.certs);
    if taken == 0 {
        tracing::info!("the system has no root certificates: the bundled ones serve");
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let extra = CertificateDer::pem_slice_iter(extra_roots.as_bytes());
    // They were checked when the configuration was read.
    roots.add_parsable_certificates(extra.filter_map(Result::ok));
    // Named, since another crate could bring a second provider into the program.
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider speaks the default versions of TLS")
        .with_root_certificates(roots)
        .with_no_client_auth()
}
