//! Rules of the source that no compiler knows: the invariants that `docs/architecture.md` marks as
//! checked, and that the documents say what is.
//!
//! Each rule is a test over the whole tree, named by what it demands. What decides is a function of
//! text, tested beside it with text that breaks the rule.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod markdown;
mod order;
mod rust;
mod tree;

use std::{collections::BTreeSet, path::Path, process::Command};

use order::{ModulePath, ReadingOrder, declared_modules, module_of};
use rust::{code, code_without_tests, has_word, uses};
use tree::{SourceFile, file, files, rust_below, shipped_rust, top};

/// Most lines of a Rust file: one that tells a single story needs no more.
const MAX_LINES: usize = 700;

/// Fails with one line per finding.
fn expect_none(rule: &str, findings: impl IntoIterator<Item = String>) {
    let findings: Vec<_> = findings.into_iter().collect();
    assert!(findings.is_empty(), "{rule}\n{}", findings.join("\n"));
}

/// What a rule of one text finds in files, with their paths.
fn in_each<'a>(
    files: impl IntoIterator<Item = &'a SourceFile>,
    find: impl Fn(&str) -> Vec<String>,
) -> Vec<String> {
    files
        .into_iter()
        .flat_map(|file| {
            find(&file.text)
                .into_iter()
                .map(|finding| format!("{}: {finding}", file.path))
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn the_top_level_has_its_fixed_entries_only() {
    let fixed = [
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "docs",
        "host",
        "plugin-abi",
        "plugin.json.example",
        "plugins",
        "proto",
        "scripts",
    ];
    let found: BTreeSet<_> = std::fs::read_dir(top())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.') && name != "target")
        .collect();
    assert_eq!(found, fixed.map(str::to_owned).into());
}

#[test]
fn the_protocol_and_the_abi_do_not_know_each_other() {
    let below = |directory: &'static str| {
        files()
            .iter()
            .filter(move |f| f.path.starts_with(directory))
    };
    let find = |words: [&'static str; 2]| {
        move |text: &str| {
            let found = words.iter().filter(|word| text.contains(*word));
            found.map(|word| format!("mentions `{word}`")).collect()
        }
    };
    let mut findings = in_each(below("proto/"), find(["plugin_abi", "plugin-abi"]));
    findings.extend(in_each(
        below("plugin-abi/"),
        find(["plugin_proto", "plugin-proto"]),
    ));
    expect_none("proto and plugin-abi are strangers", findings);
}

#[test]
fn the_protocol_does_no_input_or_output() {
    let words = [
        "std::fs",
        "std::io",
        "std::net",
        "std::os",
        "std::process",
        "tokio",
    ];
    let files = shipped_rust().filter(|file| file.path.starts_with("proto/src/"));
    expect_none("proto is bytes only", in_each(files, |t| uses(t, &words)));
}

#[test]
fn the_pipeline_knows_neither_sockets_nor_libraries() {
    let words = [
        "tokio::net",
        "std::os",
        "std::net::TcpStream",
        "UnixStream",
        "libloading",
        "library",
        "discovery",
        "manager",
        "server",
        "tokens",
    ];
    let files = rust_below(&["host/src/pipeline"]);
    expect_none(
        "the pipeline asks through `Gateway` and runs objects of the ABI",
        in_each(files, |text| uses(text, &words)),
    );
}

#[test]
fn serving_calls_never_touches_plugin_files() {
    let words = ["libloading", "library", "discovery", "manager", "std::fs"];
    let files = rust_below(&["host/src/server", "host/src/tokens", "host/src/pipeline"]);
    expect_none(
        "the data plane reads the registry's snapshot and nothing else",
        in_each(files, |text| uses(text, &words)),
    );
}

#[test]
fn tokens_and_plugins_do_not_know_the_wire() {
    let files = rust_below(&["host/src/tokens", "host/src/plugin"]);
    expect_none(
        "frames end at the conversation and the call",
        in_each(files, |text| uses(text, &["plugin_proto"])),
    );
}

/// Every module whose comment promises a reading order, with that order.
fn reading_orders() -> Vec<ReadingOrder> {
    rust_below(&["host/src/"])
        .filter(|file| file.text.contains("//! Modules in reading order;"))
        .map(|file| {
            let parent = module_of(file.path.strip_prefix("host/src/").unwrap());
            let below = |name: String| [parent.clone(), vec![name]].concat();
            let mut modules: Vec<ModulePath> = declared_modules(&file.text)
                .into_iter()
                .map(below)
                .collect();
            if parent.is_empty() {
                // As the comment of lib.rs says.
                let keeper = modules.iter().position(|path| *path == ["keeper"]).unwrap();
                let above = |name: &str| vec!["plugin".to_owned(), name.to_owned()];
                modules.splice(keeper + 1..keeper + 1, ["check", "manager"].map(above));
            }
            ReadingOrder { parent, modules }
        })
        .collect()
}

#[test]
fn modules_use_only_those_that_come_after_them() {
    let orders = reading_orders();
    assert!(orders.len() >= 2, "the host and its plugin layer have one");
    let findings = rust_below(&["host/src/"]).flat_map(|file| {
        let module = module_of(file.path.strip_prefix("host/src/").unwrap());
        let broken = orders
            .iter()
            .flat_map(|order| order.broken_by(&module, &file.text))
            .map(|finding| format!("{}: {finding}", file.path));
        broken.collect::<Vec<_>>()
    });
    expect_none("dependencies point down the reading order", findings);
}

#[test]
fn unsafe_code_lives_where_the_architecture_says() {
    let architecture = &file("docs/architecture.md").text;
    let section = markdown::section(architecture, "## Where `unsafe` lives").unwrap();
    let named: BTreeSet<_> = markdown::table_rows(section)
        .iter()
        .map(|row| markdown::code_spans(&row[0]).remove(0))
        .collect();
    let found: BTreeSet<_> = shipped_rust()
        .chain([file("proto/src/generated.rs")])
        .filter(|file| has_word(&code(&file.text), "unsafe"))
        .map(|file| file.path.clone())
        .collect();
    assert_eq!(found, named);
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    let findings = in_each(rust_below(&[""]), |text| {
        rust::unsafe_without_reason(text)
            .iter()
            .map(|line| format!("line {line}: no SAFETY comment above it"))
            .collect()
    });
    expect_none("unsafe code gives its reason", findings);
}

#[test]
fn plugins_have_neither_unsafe_code_nor_abi_types() {
    let mut crates = 0;
    for file in shipped_rust().filter(|file| file.path.starts_with("plugins/")) {
        if file.path.ends_with("/src/lib.rs") {
            crates += 1;
            assert!(
                file.text.contains("#![forbid(unsafe_code)]"),
                "{} does not forbid unsafe code",
                file.path
            );
        }
        let words = ["plugin_abi::abi", "abi_stable", "abi::", "extern"];
        expect_none(&file.path, uses(&file.text, &words));
    }
    assert!(crates >= 5);
}

#[test]
fn only_the_configuration_reads_the_environment() {
    let words = ["env::var", "env::var_os", "env::vars", "env::vars_os"];
    let files = shipped_rust().filter(|file| !file.path.starts_with("host/src/config/"));
    expect_none(
        "the environment is read in `config` only",
        in_each(files, |text| uses(text, &words)),
    );
}

#[test]
fn only_the_command_line_knows_clap_and_prints() {
    let printing = ["println!", "print!", "eprintln!", "eprint!", "dbg!"];
    let files = || shipped_rust().filter(|file| !file.path.starts_with("plugins/"));
    let not_cli = files().filter(|file| !file.path.starts_with("host/src/cli"));
    let mut findings = in_each(not_cli, |text| uses(text, &["clap"]));
    findings.extend(in_each(files(), |text| uses(text, &printing)));
    expect_none(
        "output is the command line's, through `cli::output`",
        findings,
    );
}

#[test]
fn nothing_is_left_undone() {
    // In pieces, so that this file is not found.
    let markers = [["TO", "DO"], ["FIX", "ME"], ["#[ig", "nore"]].map(|parts| parts.concat());
    let findings = in_each(files(), |text| {
        let found = markers.iter().filter(|marker| has_word(text, marker));
        found.map(|marker| format!("has `{marker}`")).collect()
    });
    expect_none("what is not done is no part of the tree", findings);
    let words = [".unwrap()", "todo!", "unimplemented!"];
    expect_none(
        "a host does not end because somebody did not expect something",
        in_each(shipped_rust(), |text| uses(text, &words)),
    );
}

#[test]
fn every_rust_file_begins_by_saying_what_it_is() {
    let findings = in_each(rust_below(&[""]), |text| {
        let begins = text.starts_with("//! ");
        (!begins)
            .then(|| "does not begin with `//! `".to_owned())
            .into_iter()
            .collect()
    });
    expect_none("a file begins with its module comment", findings);
}

#[test]
fn no_rust_file_is_long() {
    let findings = in_each(rust_below(&[""]), |text| {
        let lines = text.lines().count();
        let long = (lines > MAX_LINES).then(|| format!("{lines} lines, at most {MAX_LINES}"));
        long.into_iter().collect()
    });
    expect_none("a file that tells two stories becomes two", findings);
}

#[test]
fn no_file_names_a_machine_or_a_package_registry() {
    // In pieces, so that this file is not found.
    let places = [
        ["/ro", "ot/"],
        ["/wo", "rk/"],
        ["/ho", "me/"],
        ["index.crates", ".io"],
        ["static.crates", ".io"],
        ["pypi", ".org"],
        ["pythonhosted", ".org"],
    ]
    .map(|parts| parts.concat());
    let kept = files().iter().filter(|file| !file.path.ends_with(".lock"));
    let findings = in_each(kept, |text| {
        let found = places.iter().filter(|place| text.contains(*place));
        found.map(|place| format!("names `{place}`")).collect()
    });
    expect_none("the tree builds on any machine", findings);
}

#[test]
fn links_in_documents_lead_somewhere() {
    let documents = files().iter().filter(|file| file.path.ends_with(".md"));
    let findings = documents.flat_map(|document| {
        markdown::local_links(&document.text)
            .into_iter()
            .filter(|link| !leads_somewhere(document, link))
            .map(|link| format!("{}: {link}", document.path))
            .collect::<Vec<_>>()
    });
    expect_none("links lead to files and headings that are there", findings);
}

fn leads_somewhere(document: &SourceFile, link: &str) -> bool {
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let directory = Path::new(&document.path).parent().unwrap();
    let target = match path {
        "" => top().join(&document.path),
        _ => top().join(directory).join(path),
    };
    if anchor.is_empty() {
        return target.exists();
    }
    std::fs::read_to_string(target).is_ok_and(|text| markdown::anchors(&text).contains(anchor))
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let document = |text: &str| SourceFile {
        path: "docs/x.md".to_owned(),
        text: text.to_owned(),
    };
    let leads = |link| leads_somewhere(&document(""), link);
    assert!(leads("../README.md") && leads("protocol.md") && leads("protocol.md#frames"));
    assert!(!leads("README.md") && !leads("protocol.md#nowhere") && !leads("nowhere.md"));
}

#[test]
fn the_plugin_in_the_readme_is_the_one_in_the_tree() {
    let shown = markdown::code_block(&file("README.md").text, "rust").unwrap();
    let source = &file("plugins/say/src/lib.rs").text;
    let whole = source.split("\n#[cfg(test)]").next().unwrap();
    assert_eq!(shown.trim(), whole.trim());
}

#[test]
fn the_recipes_of_the_cookbook_are_cut_from_the_templates() {
    let cookbook = &file("docs/cookbook.md").text;
    let mut findings = Vec::new();
    let templates = "host/templates/";
    for lib in files()
        .iter()
        .filter(|file| file.path.starts_with(templates))
    {
        let name = lib.path[templates.len()..].split('/').next().unwrap();
        if !lib.path.ends_with("/src/lib.rs") || name == "default" {
            continue;
        }
        let recipe = cookbook.split("\n## ").find(|recipe| {
            let made = markdown::code_block(recipe, "sh").unwrap_or_default();
            made.trim_end().ends_with(&format!("--template {name}"))
        });
        let Some(recipe) = recipe else {
            findings.push(format!("{name} has no recipe"));
            continue;
        };
        let routes = &file(&format!("{templates}{name}/apisix.yaml")).text;
        // What has no route of the gateway has some of its own.
        let routes = match routes.contains("my-plugin") {
            true => ("yaml", routes),
            false => (
                "json",
                &file(&format!("{templates}{name}/plugin.json")).text,
            ),
        };
        for (language, source) in [("rust,ignore", &lib.text), routes] {
            match markdown::code_block(recipe, language) {
                Some(shown) if is_cut_from(shown, source) => {}
                Some(_) => findings.push(format!("{name}: {language} is another than the source")),
                None => findings.push(format!("{name}: no {language}")),
            }
        }
    }
    expect_none("a recipe shows what `plugin-host new` makes", findings);
}

#[test]
fn what_troubleshooting_quotes_is_what_the_program_says() {
    let page = &file("docs/troubleshooting.md").text;
    // As it is said: a text that goes on in the next line is one.
    let sources: Vec<_> = rust_below(&["host/src/"])
        .map(|file| joined_texts(&file.text))
        .collect();
    let quotes: Vec<_> = page
        .split("\n## ")
        .flat_map(|section| section.lines().filter(|line| line.starts_with("| ")))
        .flat_map(|row| markdown::code_spans(row[2..].split(" | ").next().unwrap()))
        .filter(|quote| quote.contains(' ') && !quote.starts_with("plugin-host "))
        .collect();
    assert!(quotes.len() > 30, "{quotes:?}");
    let is_said = |part: &str| sources.iter().any(|source| source.contains(part));
    let unknown = quotes
        .iter()
        .filter(|quote| !quote.split("...").map(str::trim).all(is_said))
        .map(|quote| format!("nobody says `{quote}`"));
    expect_none("symptoms are quoted as they are seen", unknown);
}

/// A source in which texts over several lines are on one.
fn joined_texts(source: &str) -> String {
    let mut joined = String::new();
    for piece in source.split("\\\n") {
        joined.push_str(match joined.is_empty() {
            true => piece,
            false => piece.trim_start(),
        });
    }
    joined
}

#[test]
fn a_text_over_two_lines_is_found_as_one() {
    assert_eq!(joined_texts("a \\\n    b\nc"), "a b\nc");
}

/// Whether each piece of an excerpt, apart from blank lines between pieces, is in the source.
fn is_cut_from(shown: &str, source: &str) -> bool {
    let pieces = || shown.trim_end().split("\n\n");
    !shown.trim().is_empty() && pieces().all(|piece| source.contains(piece))
}

#[test]
fn an_excerpt_that_is_none_is_found() {
    assert!(is_cut_from("a\n\nd\n", "a\nb\nc\nd\n"));
    assert!(!is_cut_from("a\nc\n", "a\nb\nc\nd\n"));
    assert!(!is_cut_from("\n", "a"));
}

/// The rows of a table whose last column names tests: what is said, and the tests that show it.
fn claims(document: &str, heading: &str) -> Vec<(String, Vec<String>)> {
    let section = markdown::section(&file(document).text, heading).unwrap();
    let rows = markdown::table_rows(section);
    assert!(rows.len() >= 10, "this is not the table of {heading}");
    rows.into_iter()
        .map(|row| (row[0].clone(), markdown::code_spans(row.last().unwrap())))
        .collect()
}

fn limits() -> Vec<(String, Vec<String>)> {
    claims("docs/operating.md", "## Limits")
}

/// The flags that `plugin-host run --help` names.
fn flags_in(help: &str) -> BTreeSet<String> {
    help.lines()
        .filter_map(|line| line.trim_start().strip_prefix("--"))
        .map(|flag| {
            let end = flag.find(|c: char| !c.is_alphanumeric() && c != '-');
            format!("--{}", &flag[..end.unwrap_or(flag.len())])
        })
        .collect()
}

/// The part of a help below one of its headings.
fn help_below<'a>(help: &'a str, heading: &str) -> &'a str {
    let start = help.find(&format!("\n{heading}:\n")).unwrap() + 1;
    let length = help[start..].find("\n\n\n").unwrap_or(help.len() - start);
    let rest = &help[start..start + length];
    // The next heading is a line that is not indented.
    let end = rest
        .match_indices('\n')
        .map(|(at, _)| at + 1)
        .skip(1)
        .find(|at| rest[*at..].starts_with(|c: char| !c.is_whitespace()));
    &rest[..end.unwrap_or(rest.len())]
}

#[test]
fn flags_are_read_from_a_help() {
    let help = "Usage\n\nOptions:\n      --a-b <N>\n          Text, see --c\n\nLimits:\n      --d\n\nMore\n";
    assert_eq!(flags_in(help), ["--a-b", "--d"].map(str::to_owned).into());
    assert_eq!(flags_in(help_below(help, "Limits")).len(), 1);
}

#[test]
fn every_limit_that_can_be_set_is_in_the_table_and_every_one_in_the_table_exists() {
    let output = Command::new(env!("CARGO_BIN_EXE_plugin-host"))
        .args(["run", "--help"])
        .output()
        .unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let named: BTreeSet<_> = limits()
        .iter()
        .flat_map(|(bound, _)| markdown::code_spans(bound))
        .filter(|span| span.starts_with("--"))
        .collect();
    let all = flags_in(&help);
    let limiting = flags_in(help_below(&help, "Limits"));
    assert!(limiting.len() >= 5, "{limiting:?}");
    let missing: Vec<_> = limiting.difference(&named).collect();
    assert!(missing.is_empty(), "not in docs/operating.md: {missing:?}");
    let unknown: Vec<_> = named.difference(&all).collect();
    assert!(unknown.is_empty(), "no flag of this name: {unknown:?}");
}

#[test]
fn every_limit_and_every_promise_has_a_test_that_shows_it() {
    let tests: BTreeSet<_> = rust_below(&[""])
        .flat_map(|file| tests_in(&file.text))
        .collect();
    let promises = claims("docs/reliability.md", "## Promises");
    for (claim, shown_by) in limits().into_iter().chain(promises) {
        assert!(!shown_by.is_empty(), "no test shows: {claim}");
        for name in shown_by {
            assert!(tests.contains(&name), "{claim}: there is no test {name}");
        }
    }
}

/// Names of the tests of a file.
fn tests_in(source: &str) -> Vec<String> {
    let code = code(source);
    let mut names = Vec::new();
    for attribute in ["#[test]", "#[tokio::test"] {
        for (at, _) in code.match_indices(attribute) {
            let rest = &code[at..];
            if let Some(start) = rest.find("fn ") {
                let name = &rest[start + 3..];
                names.push(name[..name.find('(').unwrap_or(name.len())].to_owned());
            }
        }
    }
    names
}

#[test]
fn tests_are_known_by_their_attribute() {
    let source = "#[test]\nfn a() {}\n#[tokio::test(flavor = \"x\")]\nasync fn b() {}\nfn c() {}\n";
    assert_eq!(tests_in(source), ["a", "b"]);
    assert!(code_without_tests("#[cfg(test)]\nmod x;").trim().is_empty());
}
