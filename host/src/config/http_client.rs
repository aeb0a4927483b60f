//! The client with which plugins call other services: whether there is one, whom it trusts, and its
//! bounds.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::layers::Layers;
use super::value;
use super::{ConfigError, Files, read_optional, settings, size, whole};
use crate::http_client::{Settings, check_roots};

/// Most bytes of a file of root certificates.
const MAX_ROOTS_BYTES: u64 = 1 << 20;

/// The settings; and why the operator's roots are not among them, where that is no mistake.
pub(super) fn read(layers: &mut Layers<'_>, files: Files) -> (Settings, Option<String>) {
    let enabled = layers.value(&settings::HTTP_CLIENT, value::switch);
    let path = read_optional(layers, &settings::HTTP_CLIENT_CA, value::path);
    let (extra_roots, problem) = match path.map(|path| read_roots(&path)) {
        None => (String::new(), None),
        Some(Ok(roots)) => (roots, None),
        Some(Err(reason)) if files == Files::AsFound => (String::new(), Some(reason)),
        Some(Err(reason)) => {
            let origin = layers.origin(&settings::HTTP_CLIENT_CA);
            layers
                .problems
                .push(ConfigError::Invalid { origin, reason });
            (String::new(), None)
        }
    };
    let settings = Settings {
        enabled,
        extra_roots,
        max_requests: layers.value(&settings::HTTP_CLIENT_REQUESTS, whole(1, 100_000)),
        max_requests_per_plugin: layers.value(
            &settings::HTTP_CLIENT_REQUESTS_PER_PLUGIN,
            whole(1, 100_000),
        ),
        max_connections: layers.value(&settings::HTTP_CLIENT_CONNECTIONS, whole(1, 100_000)),
        max_body_bytes: layers.value(&settings::HTTP_CLIENT_MAX_BODY, size(1_024, 1 << 30)),
    };
    (settings, problem)
}

/// Certificates of roots in a file, which are some; or why they are not.
pub(super) fn read_roots(path: &Path) -> Result<String, String> {
    let mut pem = String::new();
    let of = |reason: String| format!("{} {reason}", path.display());
    File::open(path)
        .and_then(|file| file.take(MAX_ROOTS_BYTES + 1).read_to_string(&mut pem))
        .map_err(|error| of(format!("cannot be read: {error}")))?;
    if pem.len() as u64 > MAX_ROOTS_BYTES {
        return Err(of(format!("has more than {MAX_ROOTS_BYTES} bytes")));
    }
    check_roots(&pem).map_err(of)?;
    Ok(pem)
}
