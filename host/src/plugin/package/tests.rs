//! What the reader takes and what it refuses, down to arbitrary damage.

#![allow(
    clippy::unwrap_used,
    reason = "a failed expectation is the test's result"
)]

use std::{fs, io::Write, str::FromStr};

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use serde_json::json;
use tar::EntryType;

use super::*;
use crate::plugin::testing::{PluginDirectory, library, plugin_json};

/// An entry of an archive, however wrong.
struct Raw {
    path: Vec<u8>,
    kind: EntryType,
    bytes: Vec<u8>,
}

fn file(path: &str, bytes: impl Into<Vec<u8>>) -> Raw {
    Raw {
        path: path.into(),
        kind: EntryType::Regular,
        bytes: bytes.into(),
    }
}

fn special(path: &str, kind: EntryType) -> Raw {
    Raw {
        path: path.into(),
        kind,
        bytes: Vec::new(),
    }
}

/// Headers as nobody's tool writes them.
fn tar_of(entries: &[Raw]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_ustar();
        header.as_ustar_mut().unwrap().name[..entry.path.len()].copy_from_slice(&entry.path);
        header.set_entry_type(entry.kind);
        header.set_size(entry.bytes.len() as u64);
        header.set_cksum();
        archive.append(&header, &entry.bytes[..]).unwrap();
    }
    archive.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A manifest that names these entries.
fn manifest(entries: &[Raw]) -> Raw {
    let files: serde_json::Map<_, _> = entries
        .iter()
        .map(|entry| {
            let path = String::from_utf8(entry.path.clone()).unwrap();
            let facts = json!({"bytes": entry.bytes.len(), "sha256": Digest::of(&entry.bytes)});
            (path, facts)
        })
        .collect();
    let manifest = json!({"format": 1, "name": "say", "version": "1.0.0", "files": files});
    file(MANIFEST, manifest.to_string())
}

fn library_path() -> String {
    format!("lib/{}/libsay.so", Platform::of_this_host())
}

/// What every good package holds.
fn good() -> Vec<Raw> {
    vec![
        file("plugin.json", plugin_json("say", "1.0.0", &json!({}))),
        file(&library_path(), "library"),
        file("README.md", "read me"),
    ]
}

fn with_manifest(mut entries: Vec<Raw>) -> Vec<Raw> {
    entries.push(manifest(&entries));
    entries
}

fn read(package: &[u8]) -> Result<Package, PackageError> {
    Package::read(package, &Platform::of_this_host())
}

fn check(entries: &[Raw], expected: &str) {
    let error = read(&gzip(&tar_of(entries))).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

/// A good package with one entry more, which stands first.
fn check_with(entry: Raw, expected: &str) {
    let mut entries = vec![entry];
    entries.extend(with_manifest(good()));
    check(&entries, expected);
}

#[test]
fn a_good_package_is_read() {
    let mut package = read(&gzip(&tar_of(&with_manifest(good())))).unwrap();
    assert_eq!(package.manifest.name.as_str(), "say");
    assert_eq!(package.texts["README.md"], b"read me");
    assert_eq!(package.take_library().unwrap().bytes, b"library");
    assert_eq!(package.platforms, [Platform::of_this_host()]);
}

#[test]
fn links_devices_pipes_and_directories_are_refused() {
    for (kind, name) in [
        (EntryType::Symlink, "a symbolic link"),
        (EntryType::Link, "a hard link"),
        (EntryType::Char, "a device"),
        (EntryType::Block, "a device"),
        (EntryType::Fifo, "a pipe"),
        (EntryType::Directory, "a directory"),
        (EntryType::GNULongName, "an extension of the archive"),
        (EntryType::GNUSparse, "an extension of the archive"),
        (EntryType::XHeader, "an extension of the archive"),
        (EntryType::XGlobalHeader, "an extension of the archive"),
    ] {
        let expected = format!("`README` in the package is {name}, not a file");
        check_with(special("README", kind), &expected);
    }
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    check_with(file("/etc/passwd", "x"), "is absolute");
    check_with(file("lib/../../README", "x"), "has `..` in it");
    check_with(file("../README", "x"), "has `..` in it");
    let not_utf8 = Raw {
        path: b"README\xff".to_vec(),
        kind: EntryType::Regular,
        bytes: Vec::new(),
    };
    check_with(not_utf8, "is not UTF-8");
    for unknown in [
        "libsay.so",
        "lib/libsay.so",
        "lib/linux-x86_64/libsay.so",
        "lib/linux-x86_64-gnu/deeper/libsay.so",
        "lib/linux-x86_64-gnu/.hidden",
        "./README",
        "README/..",
        "src/lib.rs",
        ".plugin.json",
        "",
    ] {
        let expected = match unknown {
            "README/.." => "has `..` in it",
            _ => "is nothing that a package holds",
        };
        check_with(file(unknown, "x"), expected);
    }
}

#[test]
fn an_entry_that_is_there_twice_is_refused() {
    for path in ["plugin.json", "README.md", MANIFEST] {
        check_with(
            file(path, "x"),
            &format!("`{path}` is in the package twice"),
        );
    }
}

#[test]
fn more_or_larger_entries_than_the_bounds_are_refused() {
    let many: Vec<_> = (0..=MAX_ENTRIES)
        .map(|number| file(&format!("README{number}"), ""))
        .collect();
    check(&many, "more than 64 entries");
    let large = vec![0; usize::try_from(MAX_TEXT_BYTES).unwrap() + 1];
    check_with(
        file("README", large),
        "`README` in the package has 1048577 bytes",
    );
    // A size that its header only claims.
    let mut bytes = tar_of(&[file(&library_path(), "")]);
    let header = tar::Header::from_byte_slice(&bytes[..512]);
    let mut header = header.clone();
    header.set_size(crate::plugin::elf::MAX_LIBRARY_BYTES + 1);
    header.set_cksum();
    bytes[..512].copy_from_slice(header.as_bytes());
    let error = read(&gzip(&bytes)).unwrap_err().to_string();
    assert!(
        error.contains("has 536870913 bytes, more than 536870912"),
        "{error}"
    );
}

#[test]
fn a_package_that_unpacks_to_far_more_than_its_size_is_refused() {
    let mut entries = good();
    entries[1].bytes = vec![0; 16 << 20];
    let entries = with_manifest(entries);
    assert_eq!(
        read(&gzip(&tar_of(&entries))).unwrap_err(),
        PackageError::Expands
    );
}

#[test]
fn digests_and_names_that_do_not_fit_are_refused() {
    let mut entries = with_manifest(good());
    entries[1].bytes = b"another".to_vec();
    check(&entries, &format!("the SHA-256 of `{}` is", library_path()));

    let mut entries = with_manifest(good());
    entries.insert(0, file("LICENSE", "unnamed"));
    check(&entries, "manifest.json does not name `LICENSE`");

    let mut entries = with_manifest(good());
    entries.remove(2);
    check(&entries, "`README.md` is not in the package");

    check(&good(), "`manifest.json` is not in the package");
    let no_metadata: Vec<_> = good().into_iter().skip(1).collect();
    check(
        &with_manifest(no_metadata),
        "`plugin.json` is not in the package",
    );

    let mut entries = good();
    entries[0].bytes = plugin_json("shout", "1.0.0", &json!({})).into();
    check(
        &with_manifest(entries),
        "has name `shout`, but manifest.json has `say`",
    );
    let mut entries = good();
    entries[0].bytes = plugin_json("say", "1.0.1", &json!({})).into();
    check(
        &with_manifest(entries),
        "has version `1.0.1`, but manifest.json has `1.0.0`",
    );
    let mut entries = good();
    entries[1].path = library_path().replace("libsay", "libother").into();
    check(
        &with_manifest(entries),
        "has library `libsay.so`, but `lib` has `libother.so`",
    );

    let newer = file(MANIFEST, r#"{"format": 2, "more": true}"#);
    let mut entries = good();
    entries.push(newer);
    check(&entries, "has format 2, this program reads format 1");
}

#[test]
fn what_follows_the_archive_is_refused_and_so_is_one_without_an_end() {
    let archive = tar_of(&with_manifest(good()));
    let refused = |bytes: &[u8], expected: &str| {
        let error = read(bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let garbage = "something follows the end";
    refused(&[gzip(&archive), b"x".to_vec()].concat(), garbage);
    refused(&[gzip(&archive), gzip(b"")].concat(), garbage);
    refused(&gzip(&[&archive[..], b"x"].concat()), garbage);
    refused(&gzip(&[&archive[..], &[0; 512]].concat()), garbage);
    refused(
        &gzip(&archive[..archive.len() - 512]),
        "its archive has no end",
    );
    refused(
        &gzip(&archive[..archive.len() - 1024]),
        "its archive has no end",
    );
    let whole = gzip(&archive);
    refused(&whole[..whole.len() - 1], "cut short or damaged");
    refused(b"", "cut short or damaged");
    refused(b"PK\x03\x04", "cut short or damaged");
}

#[test]
fn a_package_for_other_platforms_says_which_it_has() {
    let mut entries = good();
    entries[1].path = b"lib/linux-riscv64-musl/libsay.so".to_vec();
    let mut package = read(&gzip(&tar_of(&with_manifest(entries)))).unwrap();
    let error = package.take_library().unwrap_err();
    assert!(
        error.to_string().ends_with("only for linux-riscv64-musl"),
        "{error}"
    );
    let next = error.next_step();
    assert!(next.contains("take a package for linux-"), "{next}");
}

#[test]
fn the_same_files_give_the_same_bytes_and_what_was_packed_is_unpacked() {
    let pack_once = |directory: &PluginDirectory| {
        directory
            .plugin("say", "say", "1.0.0")
            .write("say/README.md", "read me")
            .write("say/LICENSE", "as you like")
            .write("say/src/lib.rs", "no part of it");
        let contents = Contents::gather(&directory.path().join("say"), &[]).unwrap();
        pack(&contents).unwrap()
    };
    let (one, other) = (PluginDirectory::new(), PluginDirectory::new());
    let packed = pack_once(&one);
    assert_eq!(packed, pack_once(&other));
    let package = read(&packed).unwrap();
    let paths: Vec<_> = package.manifest.files.keys().map(String::as_str).collect();
    assert_eq!(
        paths,
        ["LICENSE", "README.md", &library_path(), "plugin.json"]
    );

    let into = one.path().join("unpacked");
    unpack(package.clone(), &into).unwrap();
    assert_eq!(
        fs::read(into.join("libsay.so")).unwrap(),
        library("say", "1.0.0")
    );
    assert_eq!(
        fs::read_to_string(into.join("LICENSE")).unwrap(),
        "as you like"
    );
    let error = unpack(package, &into).unwrap_err().to_string();
    assert!(error.contains("it is there already"), "{error}");
    let beside = fs::read_dir(one.path()).unwrap().count();
    assert_eq!(beside, 2, "nothing unfinished is left");
}

#[test]
fn what_does_not_belong_together_is_not_packed() {
    let refused = |prepare: &dyn Fn(&PluginDirectory), expected: &str| {
        let plugins = PluginDirectory::new();
        plugins.plugin("say", "say", "1.0.0");
        prepare(&plugins);
        let library = plugins.path().join("other.so");
        let elsewhere = match library.exists() {
            true => vec![Elsewhere {
                platform: Some(Platform::from_str("linux-aarch64-musl").unwrap()),
                path: library,
            }],
            false => Vec::new(),
        };
        let error = Contents::gather(&plugins.path().join("say"), &elsewhere)
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    };
    let json = |changes| plugin_json("say", "1.0.0", &changes);
    refused(
        &|plugins| {
            plugins.write("other.so", library("say", "1.0.0"));
        },
        "it is built for linux-",
    );
    refused(
        &|plugins| {
            plugins.write("say/libsay.so", library("say", "2.0.0"));
        },
        "2.0.0",
    );
    refused(
        &|plugins| {
            plugins.write("say/libsay.so", "no library");
        },
        "it is not an ELF library",
    );
    refused(
        &|plugins| fs::remove_file(plugins.path().join("say/libsay.so")).unwrap(),
        "with `--library FILE`",
    );
    refused(
        &|plugins| {
            plugins.write("say/plugin.json", json(json!({"tmieout_ms": 5})));
        },
        "`tmieout_ms` is not a field",
    );
    let digest = Digest::of(b"another").to_string();
    let source = json!({"source": {"mode": "local_so", "path": "libsay.so", "sha256": digest}});
    refused(
        &|plugins| {
            plugins.write("say/plugin.json", json(source.clone()));
        },
        "leave `source.sha256` out",
    );
}

#[test]
fn platforms_have_three_parts() {
    for good in [
        "linux-x86_64-gnu",
        "linux-aarch64-musl",
        "linux-riscv64-gnu",
    ] {
        assert_eq!(Platform::from_str(good).unwrap().to_string(), good);
    }
    for bad in [
        "",
        "linux",
        "linux-x86_64",
        "linux--gnu",
        "linux-x86-64-gnu",
        "mac-x86_64-gnu",
        "linux-X-gnu",
    ] {
        assert!(Platform::from_str(bad).is_err(), "{bad}");
    }
    assert_eq!(
        Platform::of_library(&library("say", "1.0.0")).unwrap(),
        Platform::of_this_host()
    );
}

#[test]
fn a_package_is_named_like_its_plugin() {
    let (name, version) = (PluginName::new("say-it").unwrap(), Version::new(1, 2, 0));
    for good in ["say-it.plg", "say-it-1.2.0.plg", "say-it@1.2.0.plg"] {
        assert!(may_be_called(good, &name, &version), "{good}");
    }
    for bad in [
        "say.plg",
        "say-it-1.2.1.plg",
        "say-it1.2.0.plg",
        "say-it-1.2.0.tar",
        ".plg",
    ] {
        assert!(!may_be_called(bad, &name, &version), "{bad}");
    }
}

/// Reads something, and whatever comes of it is no panic and no more than the bounds.
fn survive(bytes: &[u8]) {
    if let Ok(package) = read(bytes) {
        let texts: usize = package.texts.values().map(Vec::len).sum();
        let kept = package.document.len() + texts;
        assert!(kept as u64 <= MAX_RATIO * bytes.len() as u64 + MAX_TEXT_BYTES);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_bytes_are_a_package_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        survive(&bytes);
        survive(&gzip(&bytes));
    }

    #[test]
    fn a_damaged_archive_is_a_package_or_an_error(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        end in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut archive = tar_of(&with_manifest(good()));
        let mut package = gzip(&archive);
        for (at, byte) in &damage {
            let (in_archive, in_package) = (at.index(archive.len()), at.index(package.len()));
            archive[in_archive] = *byte;
            package[in_package] = *byte;
        }
        if cut {
            archive.truncate(end.index(archive.len()));
            package.truncate(end.index(package.len()));
        }
        survive(&package);
        survive(&gzip(&archive));
    }
}
