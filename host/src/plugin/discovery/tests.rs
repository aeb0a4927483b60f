//! What a scan finds, and what it says about what it does not take.

#![allow(
    clippy::unwrap_used,
    reason = "a test may end at what it did not expect"
)]

use std::fs;
use std::os::unix::ffi::OsStrExt;

use serde_json::json;

use super::*;
use crate::plugin::metadata::Warning;
use crate::plugin::testing::{PluginDirectory, compile, facts, library, plugin_json, source};

impl PluginDirectory {
    /// Looks, and compares the plugins found and the problems, both without the path of the
    /// temporary directory.
    fn check(&self, found: &[&str], problems: &[&str]) {
        self.check_discovery(&discover(self.path()), found, problems);
    }

    fn check_discovery(&self, discovery: &Discovery, found: &[&str], problems: &[&str]) {
        let root = format!("{}/", self.path().display());
        let names: Vec<_> = discovery
            .found
            .iter()
            .map(|candidate| {
                let path = candidate
                    .library_path
                    .display()
                    .to_string()
                    .replace(&root, "");
                format!(
                    "{} {} {path}",
                    candidate.metadata.name, candidate.metadata.version
                )
            })
            .collect();
        let messages: Vec<_> = discovery
            .problems
            .iter()
            .map(|problem| problem.to_string().replace(&root, ""))
            .collect();
        assert_eq!(names, found, "{messages:#?}");
        assert_eq!(messages, problems);
    }
}

#[test]
fn plugins_are_found_by_directory_by_version_and_as_bare_libraries() {
    let plugins = PluginDirectory::new();
    plugins
        .plugin("say", "say", "1.0.0")
        .plugin("limit@1.0.0", "limit", "1.0.0")
        .plugin("limit@1.10.0", "limit", "1.10.0")
        .plugin("limit@1.9.0", "limit", "1.9.0")
        .write("libbare.so", library("bare", "0.1.0"))
        .write("other/libother.so", library("other", "2.0.0-rc.1"));
    let found = [
        "bare 0.1.0 libbare.so",
        "limit 1.0.0 limit@1.0.0/liblimit.so",
        "limit 1.9.0 limit@1.9.0/liblimit.so",
        "limit 1.10.0 limit@1.10.0/liblimit.so",
        "other 2.0.0-rc.1 other/libother.so",
        "say 1.0.0 say/libsay.so",
    ];
    plugins.check(&found, &[]);
}

#[test]
fn a_candidate_carries_the_very_bytes_that_were_judged() {
    let plugins = PluginDirectory::new();
    plugins.plugin("say", "say", "1.0.0");
    let bytes = fs::read(plugins.path().join("say/libsay.so")).unwrap();
    let candidate = discover(plugins.path()).found.remove(0);
    assert_eq!(candidate.digest, Digest::of(&bytes));
    assert_eq!(candidate.bytes, bytes);
    assert_eq!(candidate.directory, plugins.path().join("say"));
    assert_eq!(candidate.build_info.name, "say");
}

#[test]
fn one_bad_plugin_hides_none_of_the_others() {
    let plugins = PluginDirectory::new();
    plugins
        .write("broken/plugin.json", "{")
        .write("empty/README.md", "")
        .write("liblie.so", "not a library")
        .plugin("say", "say", "1.0.0");
    plugins.check(
        &["say 1.0.0 say/libsay.so"],
        &[
            "broken/plugin.json: line 1, column 1: EOF while parsing an object (for the plugin's author: correct the JSON there)",
            "empty: the directory has neither a plugin.json nor a library (for the operator: put a plugin.json and the library there, or remove the directory)",
            "liblie.so: it is not an ELF library but some other kind of file (for the plugin's author: write `crate-type = [\"cdylib\"]` under `[lib]` in the plugin's Cargo.toml, run `cargo build --release`, and put the `.so` file from `target/release` here)",
        ],
    );
}

#[test]
fn all_mistakes_of_a_plugin_are_reported_with_its_name_and_version() {
    let plugins = PluginDirectory::new();
    plugins.write(
        "say/plugin.json",
        plugin_json(
            "say",
            "1.0.0",
            &json!({"timeout_ms": 0, "excution": "async"}),
        ),
    );
    plugins.check(
        &[],
        &[
            "say/plugin.json: plugin `say` 1.0.0: `timeout_ms` is 0 (for the plugin's author: write a whole number of milliseconds from 1 to 60000)",
            "say/plugin.json: plugin `say` 1.0.0: `excution` is not a field (for the plugin's author: did you mean `execution`?)",
        ],
    );
}

#[test]
fn warnings_come_with_the_plugin_and_do_not_keep_it_from_running() {
    let plugins = PluginDirectory::new();
    plugins
        .write(
            "say/plugin.json",
            plugin_json("say", "1.0.0", &json!({"colour": "red"})),
        )
        .write("say/libsay.so", library("say", "1.0.0"));
    let discovery = discover(plugins.path());
    assert!(discovery.problems.is_empty());
    assert!(matches!(
        discovery.found[0].warnings[..],
        [Warning::UnknownField(_)]
    ));
}

#[test]
fn a_missing_directory_is_a_problem() {
    let plugins = PluginDirectory::new();
    plugins.check_discovery(
        &discover(&plugins.path().join("missing")),
        &[],
        &["missing: there is no such directory (for the operator: create it, or name another plugin directory)"],
    );
}

#[test]
fn a_directory_with_another_plugin_s_name_is_refused() {
    let plugins = PluginDirectory::new();
    plugins
        .plugin("shout", "say", "1.0.0")
        .plugin("say@1.0.1", "say", "1.0.0")
        .plugin("say@new", "say", "1.0.2")
        .write("bare/libsay.so", library("say", "1.0.3"));
    let rename = |version| {
        format!(
            "plugin `say` {version} (for the operator: rename the directory to `say` or `say@{version}`)"
        )
    };
    let message = |directory, version| {
        let rename = rename(version);
        format!("{directory}: plugin `say` {version}: the directory `{directory}` holds {rename}")
    };
    plugins.check(
        &[],
        &[
            &message("bare", "1.0.3"),
            &message("say@1.0.1", "1.0.0"),
            &message("say@new", "1.0.2"),
            &message("shout", "1.0.0"),
        ],
    );
}

#[test]
fn of_two_with_equal_precedence_neither_serves() {
    let plugins = PluginDirectory::new();
    plugins
        .plugin("say", "say", "1.0.0")
        .plugin("say@1.0.0", "say", "1.0.0")
        .plugin("say@1.1.0", "say", "1.1.0")
        .write(
            "say@1.0.0+b/plugin.json",
            plugin_json("say", "1.0.0+b", &json!({})),
        )
        .write("say@1.0.0+b/libsay.so", library("say", "1.0.0"));
    let twins = |path, version, others| {
        format!(
            "{path}: plugin `say` {version}: the same plugin in the same version is also at {others}; \
             neither is used (for the operator: remove all but one, or raise `version` in the Cargo.toml and plugin.json of the newer one)"
        )
    };
    plugins.check(
        &["say 1.1.0 say@1.1.0/libsay.so"],
        &[
            &twins(
                "say/libsay.so",
                "1.0.0",
                "`say@1.0.0/libsay.so`, `say@1.0.0+b/libsay.so`",
            ),
            &twins(
                "say@1.0.0/libsay.so",
                "1.0.0",
                "`say/libsay.so`, `say@1.0.0+b/libsay.so`",
            ),
            &twins(
                "say@1.0.0+b/libsay.so",
                "1.0.0+b",
                "`say/libsay.so`, `say@1.0.0/libsay.so`",
            ),
        ],
    );
}

#[test]
fn a_library_with_another_digest_is_refused_before_anything_else_about_it() {
    let plugins = PluginDirectory::new();
    let wanted = Digest::of(b"the library that was meant");
    let with_digest = |digest: &Digest| {
        let source = json!({"mode": "local_so", "path": "libsay.so", "sha256": digest.to_string()});
        plugin_json("say", "1.0.0", &json!({"source": source}))
    };
    let bytes = library("say", "1.0.0");
    let found = Digest::of(&bytes);
    plugins
        .write("say/plugin.json", with_digest(&wanted))
        .write("say/libsay.so", &bytes);
    let refused = format!(
        "say/libsay.so: plugin `say` 1.0.0: the library's SHA-256 is {found}, but plugin.json says {wanted} \
         (for the operator: copy the library again, or correct `source.sha256`)"
    );
    plugins.check(&[], &[&refused]);
    plugins.write("say/plugin.json", with_digest(&found));
    plugins.check(&["say 1.0.0 say/libsay.so"], &[]);
}

#[test]
fn a_library_that_contradicts_its_metadata_is_refused() {
    let plugins = PluginDirectory::new();
    plugins
        .write(
            "say/plugin.json",
            plugin_json("say", "1.1.0", &json!({"abi": ">=999"})),
        )
        .write("say/libsay.so", library("shout", "1.0.0"));
    let messages: Vec<_> = discover(plugins.path())
        .problems
        .iter()
        .map(|problem| problem.cause.to_string())
        .collect();
    let abi = plugin_abi::build_info::ABI_VERSION;
    assert_eq!(
        messages,
        [
            "plugin.json says that this is `say`, the library says `shout`".to_owned(),
            "plugin.json says version 1.1.0, the library says 1.0.0".to_owned(),
            format!("plugin.json accepts ABI `>=999`, the library was built for ABI {abi}"),
            format!("plugin.json asks for ABI `>=999`, this host speaks ABI {abi}"),
        ]
    );
}

#[test]
fn a_missing_library_is_named_with_what_is_there_instead() {
    let plugins = PluginDirectory::new();
    plugins
        .write("say/plugin.json", plugin_json("say", "1.0.0", &json!({})))
        .write(
            "shout/plugin.json",
            plugin_json("shout", "1.0.0", &json!({})),
        )
        .write("shout/libshout_1.so", library("shout", "1.0.0"));
    plugins.check(
        &[],
        &[
            "say/libsay.so: plugin `say` 1.0.0: the library that plugin.json names is not there (for the operator: build the plugin (`cargo build --release`) and copy the library there; where that makes no `.so` file, its Cargo.toml lacks `crate-type = [\"cdylib\"]` under `[lib]`)",
            "shout/libshout.so: plugin `shout` 1.0.0: the library that plugin.json names is not there (for the operator: correct `source.path`: `libshout_1.so` is there)",
        ],
    );
}

#[test]
fn several_libraries_need_a_plugin_json_to_choose_one() {
    let plugins = PluginDirectory::new();
    plugins
        .write("say/liba.so", library("say", "1.0.0"))
        .write("say/libb.so", library("say", "1.0.0"));
    plugins.check(
        &[],
        &["say: the directory has several libraries and no plugin.json: `liba.so`, `libb.so` (for the operator: keep one, or name it in a plugin.json)"],
    );
}

#[test]
fn a_link_that_leaves_the_directory_is_refused() {
    let plugins = PluginDirectory::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let outside = elsewhere.path().canonicalize().unwrap().join("libsay.so");
    fs::write(&outside, library("say", "1.0.0")).unwrap();
    plugins
        .write("say/plugin.json", plugin_json("say", "1.0.0", &json!({})))
        .link("say/libsay.so", &outside)
        .link("shout/plugin.json", "../say/plugin.json")
        .link("libsay.so", &outside);
    let problems = discover(plugins.path()).problems;
    let leaves: Vec<_> = problems
        .iter()
        .map(|problem| {
            (
                problem.path.strip_prefix(plugins.path()).unwrap(),
                &problem.cause,
            )
        })
        .collect();
    assert!(
        matches!(
            leaves[..],
            [
                (bare, Cause::LeavesDirectory { target }),
                (say, Cause::LeavesDirectory { target: _ }),
                (shout, Cause::LeavesDirectory { target: _ }),
            ] if bare == Path::new("libsay.so")
                && say == Path::new("say/libsay.so")
                && shout == Path::new("shout/plugin.json")
                && *target == outside
        ),
        "{leaves:?}"
    );
}

#[test]
fn kubernetes_mounts_of_links_to_links_are_followed() {
    let plugins = PluginDirectory::new();
    plugins
        .plugin("say/..2026_08_01", "say", "1.0.0")
        .link("say/..data", "..2026_08_01")
        .link("say/plugin.json", "..data/plugin.json")
        .link("say/libsay.so", "..data/libsay.so")
        .plugin("..2026_08_01/shout", "shout", "1.0.0")
        .link("..data", "..2026_08_01")
        .link("shout", "..data/shout")
        .write("..2026_08_01/libbare.so", library("bare", "1.0.0"))
        .link("libbare.so", "..data/libbare.so");
    plugins.check(
        &[
            "bare 1.0.0 libbare.so",
            "say 1.0.0 say/libsay.so",
            "shout 1.0.0 shout/libshout.so",
        ],
        &[],
    );
}

#[test]
fn a_plugin_s_directory_may_be_a_link_to_anywhere() {
    let elsewhere = PluginDirectory::new();
    elsewhere.plugin("release-7", "say", "1.0.0");
    let plugins = PluginDirectory::new();
    plugins.link("say", elsewhere.path().join("release-7"));
    plugins.check(&["say 1.0.0 say/libsay.so"], &[]);
}

#[test]
fn dead_links_are_reported() {
    let plugins = PluginDirectory::new();
    plugins
        .link("say", "gone")
        .link("libsay.so", "gone.so")
        .link("shout/plugin.json", "gone.json");
    let link = |path, target| {
        format!(
            "{path}: it is a link to `{target}`, which is not there (for the operator: correct or remove it)"
        )
    };
    plugins.check(
        &[],
        &[
            &link("libsay.so", "gone.so"),
            &link("say", "gone"),
            &link("shout/plugin.json", "gone.json"),
        ],
    );
}

#[test]
fn a_pipe_where_a_library_should_be_is_not_waited_for() {
    let plugins = PluginDirectory::new();
    plugins.write("say/plugin.json", plugin_json("say", "1.0.0", &json!({})));
    let pipe = plugins.path().join("say/libsay.so");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(pipe)
            .status()
            .unwrap()
            .success()
    );
    plugins.check(
        &[],
        &["say/libsay.so: plugin `say` 1.0.0: it is not a file (for the operator: put a file there)"],
    );
}

#[test]
fn what_is_none_of_ours_is_left_alone() {
    let plugins = PluginDirectory::new();
    plugins
        .write("README.md", "plugins")
        .write(".git/HEAD", "")
        .write(".say/plugin.json", "{")
        .write("lost+found/x", "")
        .plugin("say", "say", "1.0.0")
        .write("say/src/lib.rs", "");
    plugins.check(&["say 1.0.0 say/libsay.so"], &[]);
}

#[test]
fn a_name_that_is_not_utf8_is_reported() {
    let plugins = PluginDirectory::new();
    fs::create_dir(plugins.path().join(std::ffi::OsStr::from_bytes(b"s\xffy"))).unwrap();
    let problems = discover(plugins.path()).problems;
    assert_eq!(problems.len(), 1);
    assert_eq!(
        problems[0].cause.to_string(),
        "the name `s\u{fffd}y` is not UTF-8"
    );
}

#[test]
fn a_directory_of_too_many_entries_is_not_looked_at() {
    let plugins = PluginDirectory::new();
    plugins.plugin("say", "say", "1.0.0");
    for index in 0..MAX_ENTRIES {
        fs::write(plugins.path().join(format!("{index}.txt")), "").unwrap();
    }
    let discovery = discover(plugins.path());
    assert!(discovery.found.is_empty());
    assert!(matches!(
        discovery.problems[..],
        [Problem {
            cause: Cause::TooManyEntries,
            ..
        }]
    ));
}

#[test]
fn files_beyond_their_bounds_are_not_read() {
    let plugins = PluginDirectory::new();
    plugins.write("say/plugin.json", plugin_json("say", "1.0.0", &json!({})));
    let huge = fs::File::create(plugins.path().join("say/libsay.so")).unwrap();
    huge.set_len(MAX_LIBRARY_BYTES + 1).unwrap();
    let long = fs::File::create(plugins.path().join("plugin.json")).unwrap();
    long.set_len(crate::plugin::metadata::MAX_FILE_BYTES + 1)
        .unwrap();
    plugins.check(
        &[],
        &[
            "plugin.json: the file has more than 262144 bytes (for the plugin's author: shorten the schemas)",
            "say/libsay.so: plugin `say` 1.0.0: the library has 536870913 bytes, more than 536870912 (for the operator: strip the library of its debug information (`strip -g`))",
        ],
    );
}

#[test]
fn a_plugin_json_beside_bare_libraries_speaks_for_the_one_it_names() {
    let plugins = PluginDirectory::new();
    plugins
        .write(
            "plugin.json",
            plugin_json("say", "1.0.0", &json!({"timeout_ms": 5})),
        )
        .write("libsay.so", library("say", "1.0.0"))
        .write("libshout.so", library("shout", "1.0.0"));
    plugins.check(&["say 1.0.0 libsay.so", "shout 1.0.0 libshout.so"], &[]);
    assert!(discover(plugins.path()).found[0].metadata.timeout.is_some());
    // With a mistake in it, the library does not fall back to speaking for itself.
    plugins.write(
        "plugin.json",
        plugin_json("say", "1.0.0", &json!({"timeout_ms": 0})),
    );
    let discovery = discover(plugins.path());
    assert_eq!(discovery.found.len(), 1);
    assert_eq!(discovery.found[0].metadata.name.as_str(), "shout");
}

#[test]
fn one_plugin_can_be_looked_at_alone() {
    let plugins = PluginDirectory::new();
    plugins
        .plugin("say", "say", "1.0.0")
        .plugin("shout", "yell", "1.0.0")
        .write("libbare.so", library("bare", "1.0.0"))
        .write("say/src/lib.rs", "");
    let check = |path: &str, found: &[&str], problems: usize| {
        let discovery = discover_one(&plugins.path().join(path), &Arc::default());
        let names: Vec<_> = discovery
            .found
            .iter()
            .map(|candidate| candidate.metadata.name.as_str())
            .collect();
        assert_eq!(
            (names.as_slice(), discovery.problems.len()),
            (found, problems),
            "{path}"
        );
    };
    check("say", &["say"], 0);
    check("say/", &["say"], 0);
    check("say/src/..", &["say"], 0);
    check("libbare.so", &["bare"], 0);
    check("shout", &[], 1);
    check("missing", &[], 1);
}

#[test]
fn whose_fault_a_problem_is_can_be_told() {
    let plugins = PluginDirectory::new();
    let abort = facts("abort", "1.0.0").map(|fact| {
        if fact.0 == "panic" {
            ("panic", "abort")
        } else {
            fact
        }
    });
    let git = json!({"source": {"mode": "remote_git", "path": "https://example.com/git.git"}});
    plugins
        .write("abort/libabort.so", compile(&source(&abort), &["-shared"]))
        .write("git/plugin.json", plugin_json("git", "1.0.0", &git))
        .write("say/libsay.so", &library("say", "1.0.0")[..1000]);
    let discovery = discover(plugins.path());
    let faults: Vec<_> = discovery.problems.iter().map(Problem::fault).collect();
    assert_eq!(faults, [Fault::Author, Fault::Host, Fault::Operator]);
}
