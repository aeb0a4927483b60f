//! Real, odd and damaged libraries, and what is said about them.

#![allow(
    clippy::unwrap_used,
    reason = "a test may end at what it did not expect"
)]

use super::*;
use crate::plugin::testing::{compile, facts, library, source};

/// Judges bytes; the expectation is what the refusal must contain.
fn check(library: &[u8], expected: &str) {
    let refused = inspect(library).unwrap_err();
    assert!(refused.to_string().contains(expected), "{refused}");
    assert!(!refused.next_step().is_empty());
}

/// Judges a library with one fact that differs.
fn check_fact(key: &str, value: &str, expected: &str) {
    let facts = facts("say", "1.0.0").map(|fact| if fact.0 == key { (key, value) } else { fact });
    check(&compile(&source(&facts), &["-shared"]), expected);
}

#[test]
fn a_plugin_s_library_says_what_it_is() {
    let info = inspect(&library("say", "1.2.3")).unwrap();
    assert_eq!(
        (info.name.as_str(), info.version.as_str()),
        ("say", "1.2.3")
    );
}

#[test]
fn a_stripped_library_is_still_a_plugin() {
    let stripped = compile(&source(&facts("say", "1.0.0")), &["-shared", "-s"]);
    assert_eq!(inspect(&stripped).unwrap().name, "say");
}

#[test]
fn a_file_that_is_no_library_is_named_for_what_it_is() {
    check(b"", "the library is empty");
    check(
        b"#!/bin/sh\n",
        "not an ELF library but some other kind of file",
    );
    check(b"!<arch>\nlibsay.rlib", "a static archive");
    check(b"MZ\x90\0", "a Windows library");
    check(
        b"version https://git-lfs.github.com/spec/v1\n",
        "a Git LFS pointer",
    );
}

#[test]
fn a_library_cut_short_anywhere_is_refused() {
    let whole = library("say", "1.0.0");
    for length in 4..whole.len() {
        let refused = inspect(&whole[..length]).unwrap_err();
        assert!(
            matches!(refused, ElfError::CutShort { .. }),
            "{length} bytes: {refused}"
        );
    }
}

#[test]
fn a_damaged_library_is_judged_without_a_panic() {
    let whole = library("say", "1.0.0");
    let mut seed = 1_u64;
    let mut random = |below: usize| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % below
    };
    let mut refused = 0;
    for _ in 0..20_000 {
        let mut damaged = whole.clone();
        // Headers of the file and of its segments, or anywhere.
        let reach = if random(2) == 0 { 1024 } else { whole.len() };
        for _ in 0..=random(4) {
            damaged[random(reach)] = u8::try_from(random(256)).unwrap();
        }
        refused += usize::from(inspect(&damaged).is_err());
    }
    assert!(
        refused > 1_000,
        "only {refused} of the damaged libraries were refused"
    );
}

#[test]
fn a_library_for_another_processor_is_refused_by_name() {
    let patched = |offset: usize, byte: u8| {
        let mut library = library("say", "1.0.0");
        library[offset] = byte;
        library
    };
    const CLASS: usize = 4;
    const ENCODING: usize = 5;
    const MACHINE: usize = 18;
    check(&patched(CLASS, 1), "it is built for 32 bits, little endian");
    check(&patched(ENCODING, 2), "it is built for 64 bits, big endian");
    check(&patched(MACHINE, 243), "it is built for RISC-V");
    check(&patched(MACHINE, 22), "it is built for s390x");
    check(
        &patched(MACHINE, 250),
        "it is built for another processor (ELF machine 250)",
    );
}

#[test]
fn a_program_or_an_object_file_is_no_shared_library() {
    let program = "int main(void) { return 0; }";
    check(
        &compile(program, &["-pie"]),
        "not a shared library but a program",
    );
    check(
        &compile(program, &["-no-pie"]),
        "not a shared library but a program",
    );
    check(
        &compile(program, &["-c"]),
        "not a shared library but an object file",
    );
}

#[test]
fn a_library_linked_against_musl_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let musl = directory.path().join("libmusl.so");
    let name = "-Wl,-soname,libc.musl-x86_64.so.1";
    std::fs::write(&musl, compile("", &["-shared", "-nostdlib", name])).unwrap();
    let linked = [
        "-shared",
        "-nostdlib",
        "-Wl,--no-as-needed",
        musl.to_str().unwrap(),
    ];
    check(
        &compile(&source(&facts("say", "1.0.0")), &linked),
        "linked against musl",
    );
}

#[test]
fn a_library_without_export_plugin_is_told_so() {
    let library = compile("int say(void) { return 0; }", &["-shared"]);
    check(&library, "does not export `PLUGIN_HOST_BUILD_INFO`");
    assert!(
        inspect(&library)
            .unwrap_err()
            .next_step()
            .contains("export_plugin!")
    );
    let half = source(&facts("say", "1.0.0")).replace(ROOT_MODULE_SYMBOL, "something_else");
    check(
        &compile(&half, &["-shared"]),
        "does not export `PLUGIN_HOST_ROOT_MODULE`",
    );
}

#[test]
fn a_symbol_that_is_only_asked_for_is_no_export() {
    let wanting =
        format!("extern const char {SYMBOL}[]; const char *say(void) {{ return {SYMBOL}; }}");
    check(
        &compile(&wanting, &["-shared"]),
        "does not export `PLUGIN_HOST_BUILD_INFO`",
    );
}

#[test]
fn a_go_library_is_recognised() {
    let go = r#"__attribute__((section(".go.buildinfo"))) const char go[] = "go1.25";"#;
    check(&compile(go, &["-shared"]), "it is a Go library");
}

#[test]
fn facts_of_an_unknown_format_are_refused() {
    let later = source(&facts("say", "1.0.0")).replace("build info 1", "build info 2");
    check(&compile(&later, &["-shared"]), "unknown format");
    check_fact("name", "", "lacks `name`");
    let zeros = format!("char {SYMBOL}[100]; const char {ROOT_MODULE_SYMBOL}[] = \"\";");
    check(
        &compile(&zeros, &["-shared"]),
        "lies outside of what is loaded",
    );
    let huge =
        format!("const char {SYMBOL}[100000] = \"x\"; const char {ROOT_MODULE_SYMBOL}[] = \"\";");
    check(&compile(&huge, &["-shared"]), "claims 100000 bytes");
}

#[test]
fn a_library_that_aborts_on_panic_is_refused() {
    check_fact("panic", "abort", "its first panic would end the host");
}

#[test]
fn a_library_of_the_host_s_major_abi_version_fits_where_the_host_has_what_it_uses() {
    let check = |found: &str, needs: &[&str], expected: &str| {
        let needs: Vec<_> = needs.iter().map(|need| (*need).to_owned()).collect();
        let refused = check_abi(found, &needs, &Version::new(2, 3, 4), &["old", "new"])
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert_eq!(refused, expected, "{found}");
    };
    check("2.3.4", &[], "");
    check("2.3.9", &["old"], "");
    check("2.0.0", &[], "");
    check("2.4.0", &[], "");
    check("2.4.0", &["old", "new"], "");
    check(
        "2.4.0",
        &["old", "newer", "newest"],
        "it is built for ABI 2.4.0 and uses `newer`, `newest` of it, which this host, of ABI 2.3.4, does not have",
    );
    check(
        "1.9.0",
        &[],
        "it speaks ABI 1.9.0, this host speaks ABI 2.3.4",
    );
    check(
        "3.0.0",
        &[],
        "it speaks ABI 3.0.0, this host speaks ABI 2.3.4",
    );
    check(
        "two",
        &[],
        "its ABI version `two` is not a semantic version",
    );
    check_fact("abi_version", "999.0.0", "it speaks ABI 999.0.0");
}

#[test]
fn what_a_library_uses_is_read_from_its_sections_also_of_a_stripped_one() {
    let marked = format!(
        "{}__attribute__((section(\"{NEED_SECTION}time_travel\"))) const char need = 1;\n",
        source(&facts("say", "1.0.0"))
    );
    for flags in [&["-shared"][..], &["-shared", "-s"]] {
        check(&compile(&marked, flags), "uses `time_travel` of it");
    }
}

#[test]
fn what_a_library_occupies_is_what_its_segments_say_and_not_what_its_file_has() {
    let small = library("say", "1.0.0");
    let zeros = format!(
        "{}static char zeros[1 << 20];\nchar *all = zeros;\n",
        source(&facts("say", "1.0.0"))
    );
    let large = compile(&zeros, &["-shared"]);
    let difference = mapped_bytes(&large) - mapped_bytes(&small);
    assert!(large.len() < small.len() + (64 << 10));
    assert!(
        (1 << 20..(1 << 20) + (16 << 10)).contains(&difference),
        "{difference}"
    );
    assert_eq!(mapped_bytes(&small) % 4096, 0);
    assert_eq!(mapped_bytes(b"no library"), 10);
}
