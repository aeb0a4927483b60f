//! Packages in registries of OCI artifacts: how they are named, what they look like there, and getting
//! them in and out by digests, which are compared with what comes.
//!
//! An artifact is a manifest with one layer that is the package, and one that is its signature where there
//! is one. `registry` speaks the distribution API.

mod reference;
mod registry;

use std::collections::BTreeMap;

use semver::VersionReq;
use serde::{Deserialize, Serialize};

use super::{
    Content, MAX_DOWNLOAD_BYTES, Pin, Resolved, Source, SourceError, Sources, source::version_of,
};
use crate::plugin::{
    metadata::Digest,
    package::{Package, Platform},
    signature::MAX_SIGNATURE_BYTES,
};

pub use reference::Reference;
use registry::Registry;

/// What the whole is.
const ARTIFACT: &str = "application/vnd.plugin-host.plugin.v1";
/// What its manifest is written in.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The layer that is the package.
const PACKAGE: &str = "application/vnd.plugin-host.package.v1.tar+gzip";
/// The layer that is its signature.
const SIGNATURE: &str = "application/vnd.plugin-host.signature.v1.minisig";
/// A configuration that says nothing.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const EMPTY_BYTES: &[u8] = b"{}";

/// Size of a manifest, at most, in bytes.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;

/// What is in an artifact.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u64,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

/// An artifact that is a plugin.
struct Artifact {
    /// By the digest that it has now.
    reference: Reference,
    package: Layer,
    signature: Option<Layer>,
}

#[derive(Clone, Copy)]
struct Layer {
    digest: Digest,
    size: u64,
}

pub(super) fn resolve(
    sources: &Sources<'_>,
    reference: &Reference,
    requirement: &VersionReq,
) -> Result<Resolved, SourceError> {
    let registry = Registry::of(sources, reference);
    let reference = match reference.is_open() {
        true => &newest(&registry, reference, requirement)?,
        false => reference,
    };
    let artifact = artifact(&registry, reference)?;
    Ok(Resolved {
        source: Source::Oci(artifact.reference),
        pin: Pin::Package(artifact.package.digest),
    })
}

pub(super) fn fetch(sources: &Sources<'_>, reference: &Reference) -> Result<Content, SourceError> {
    let registry = Registry::of(sources, reference);
    let artifact = artifact(&registry, reference)?;
    let bytes = blob(&registry, sources, artifact.package, MAX_DOWNLOAD_BYTES)?;
    let signature = artifact
        .signature
        .map(|layer| blob(&registry, sources, layer, MAX_SIGNATURE_BYTES))
        .transpose()?;
    Ok(Content {
        package: bytes,
        signature,
    })
}

pub(super) fn push(
    sources: &Sources<'_>,
    bytes: &[u8],
    signature: Option<&[u8]>,
    to: &Reference,
) -> Result<Reference, SourceError> {
    let package = Package::read(bytes, &Platform::of_this_host()).map_err(SourceError::Package)?;
    let package = package.manifest;
    let to = to.clone().tagged(&package.version);
    let registry = Registry::of(sources, &to);
    let file = crate::plugin::package::file_name(&package.name, &package.version);
    let mut layers = vec![described(PACKAGE, bytes, &file)];
    registry.put_blob(Digest::of(bytes), bytes)?;
    if let Some(signature) = signature {
        registry.put_blob(Digest::of(signature), signature)?;
        layers.push(described(SIGNATURE, signature, &format!("{file}.minisig")));
    }
    registry.put_blob(Digest::of(EMPTY_BYTES), EMPTY_BYTES)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(MANIFEST.to_owned()),
        artifact_type: Some(ARTIFACT.to_owned()),
        config: Descriptor {
            annotations: BTreeMap::new(),
            ..described(EMPTY, EMPTY_BYTES, "")
        },
        layers,
        annotations: [
            ("org.opencontainers.image.title", package.name.to_string()),
            (
                "org.opencontainers.image.version",
                package.version.to_string(),
            ),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into(),
    };
    let manifest = serde_json::to_vec(&manifest).expect("a manifest is maps, texts and numbers");
    registry.put_manifest(&to, MANIFEST, &manifest)?;
    Ok(to.at(Digest::of(&manifest)))
}

fn described(media_type: &str, bytes: &[u8], title: &str) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: format!("sha256:{}", Digest::of(bytes)),
        size: bytes.len() as u64,
        annotations: [(
            "org.opencontainers.image.title".to_owned(),
            title.to_owned(),
        )]
        .into(),
    }
}

/// The newest version that fits, among the tags that are versions.
fn newest(
    registry: &Registry<'_>,
    reference: &Reference,
    requirement: &VersionReq,
) -> Result<Reference, SourceError> {
    let tags = registry.tags()?;
    let versions = tags.iter().filter_map(|tag| Some((version_of(tag)?, tag)));
    let newest = versions
        .filter(|(version, _)| requirement.matches(version))
        .max();
    match newest {
        Some((_, tag)) => Ok(reference.clone().with_tag(tag)),
        None => Err(SourceError::NoVersion {
            what: reference.to_string(),
            requirement: requirement.clone(),
            has: tags,
        }),
    }
}

fn artifact(registry: &Registry<'_>, reference: &Reference) -> Result<Artifact, SourceError> {
    let nonsense = |reason: &str| SourceError::Server {
        what: reference.to_string(),
        reason: reason.to_owned(),
    };
    let bytes = registry.manifest(reference, MANIFEST, MAX_MANIFEST_BYTES)?;
    let found = Digest::of(&bytes);
    if let Some(wanted) = reference.digest().filter(|wanted| *wanted != found) {
        return Err(SourceError::OtherDigest {
            what: reference.to_string(),
            wanted,
            found,
        });
    }
    let manifest: Manifest = serde_json::from_slice(&bytes)
        .map_err(|_| nonsense("what the registry answers is no manifest of an OCI artifact"))?;
    let of_type = |wanted: &str| {
        let layers = manifest.layers.iter();
        layers
            .filter(|layer| layer.media_type == wanted)
            .map(|layer| {
                layer
                    .read()
                    .ok_or_else(|| nonsense("a layer's digest is no SHA-256"))
            })
            .collect::<Result<Vec<_>, _>>()
    };
    let (packages, signatures) = (of_type(PACKAGE)?, of_type(SIGNATURE)?);
    let ([package], [] | [_]) = (&packages[..], &signatures[..]) else {
        return Err(nonsense(
            "it is no plugin: `plugin-host push` puts packages into registries",
        ));
    };
    Ok(Artifact {
        reference: reference.clone().at(found),
        package: *package,
        signature: signatures.first().copied(),
    })
}

impl Descriptor {
    fn read(&self) -> Option<Layer> {
        let digits = self.digest.strip_prefix("sha256:")?;
        Some(Layer {
            digest: Digest::from_hex(digits).ok()?,
            size: self.size,
        })
    }
}

/// A blob by its digest, from the cache where it is there.
fn blob(
    registry: &Registry<'_>,
    sources: &Sources<'_>,
    layer: Layer,
    bound: u64,
) -> Result<Vec<u8>, SourceError> {
    let cache = sources.settings.cache.as_ref();
    if let Some(bytes) = cache.and_then(|cache| cache.get(&layer.digest)) {
        return Ok(bytes);
    }
    let bytes = registry.blob(layer.digest, layer.size.min(bound))?;
    let found = Digest::of(&bytes);
    if found != layer.digest {
        return Err(SourceError::OtherDigest {
            what: registry.reference().to_string(),
            wanted: layer.digest,
            found,
        });
    }
    if let Some(cache) = cache {
        cache.put(&bytes);
    }
    Ok(bytes)
}
