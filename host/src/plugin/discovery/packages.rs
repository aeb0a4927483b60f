//! A package in the plugin directory: what a plugin's directory is, in one file.
//!
//! It is never unpacked to disk. Its library goes from memory into the private copy, as that of a
//! directory does.

use std::path::Path;

use super::{Candidate, Cause, Discovery, files, judging};
use crate::plugin::{
    metadata::{Digest, Parsed},
    package::{Package, PackageError, Platform, may_be_called},
};

impl Discovery {
    /// A package, by its name in this directory.
    pub(super) fn examine_package(&mut self, directory: &Path, name: &str) {
        let path = directory.join(name);
        let bytes = match files::read_package(directory, name) {
            Ok(bytes) => bytes,
            Err(cause) => return self.report(&path, [cause]),
        };
        // Before anything is made of its bytes: what nobody vouches for is not even unpacked.
        let vouched = match self.vouched_for(&path, &bytes, true) {
            Ok(vouched) => vouched,
            Err(cause) => {
                self.read.push((path.clone(), Digest::of(&bytes)));
                return self.report(&path, [cause]);
            }
        };
        let read = Package::read(&bytes, &Platform::of_this_host());
        drop(bytes);
        let mut package = match read {
            Ok(package) => package,
            Err(PackageError::Metadata(invalid)) => {
                let known = (invalid.name, invalid.version);
                let errors = invalid.errors.into_iter().map(Cause::Metadata);
                return self.report_known(&path, &known, errors);
            }
            Err(error) => return self.report(&path, [Cause::Package(error)]),
        };
        let metadata = &package.parsed.metadata;
        let known = (Some(metadata.name.clone()), Some(metadata.version.clone()));
        let library = match package.take_library() {
            Ok(library) => library,
            Err(error) => return self.report_known(&path, &known, [Cause::Package(error)]),
        };
        let Package {
            document,
            parsed: Parsed { metadata, warnings },
            ..
        } = package;
        self.read.push((path.clone(), Digest::of(&document)));
        self.read.push((path.clone(), library.digest));
        if !may_be_called(name, &metadata.name, &metadata.version) {
            let misnamed = Cause::Misnamed {
                package: name.to_owned(),
                plugin: metadata.name.clone(),
                version: Box::new(metadata.version.clone()),
            };
            return self.report_known(&path, &known, [misnamed]);
        }
        match judging::library(&metadata, library.bytes, library.digest) {
            Ok(judged) => self.found.push(Candidate {
                metadata,
                document: Some(document),
                place: path.clone(),
                directory: path.clone(),
                library_path: path,
                bytes: judged.bytes,
                digest: judged.digest,
                build_info: judged.build_info,
                signature: vouched.signature,
                signature_file: vouched.file,
                warnings,
            }),
            Err(causes) => self.report_known(&path, &known, causes),
        }
    }
}
