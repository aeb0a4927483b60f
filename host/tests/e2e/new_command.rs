//! `plugin-host new`: what it makes builds, is clean, passes its tests and loads; what it cannot make it
//! refuses with what would do.

use std::{fs, path::Path};

use tempfile::TempDir;

use crate::support::{
    Host, crates::NewCrate, get, http::free_address, plugin_host, service_client::connect,
    with_environment,
};

/// What an author would do with a new crate, up to a library in a plugin directory.
#[track_caller]
fn is_a_good_crate(name: &str, template: &str) -> TempDir {
    let made = NewCrate::new(name, &["--template", template]);
    for arguments in [
        &["fmt", "--check"][..],
        &["clippy", "--all-targets", "--quiet", "--", "-D", "warnings"],
        // Its end-to-end test builds the library as it ships, and has a real host serve it.
        &["test", "--quiet"],
    ] {
        let ended = made.cargo(arguments);
        assert_eq!(
            ended.code, 0,
            "cargo {arguments:?}\n{}\n{}",
            ended.stdout, ended.stderr
        );
    }
    let library = format!("lib{}.so", name.replace('-', "_"));
    let plugins = tempfile::tempdir().unwrap();
    let place = plugins.path().join(name);
    fs::create_dir(&place).unwrap();
    fs::copy(
        crate::support::crates::target()
            .join("debug")
            .join(&library),
        place.join(&library),
    )
    .unwrap();
    fs::copy(made.path().join("plugin.json"), place.join("plugin.json")).unwrap();
    let checked = plugin_host(&["check", plugins.path().to_str().unwrap()]);
    assert_eq!(checked.code, 0, "{checked:?}");
    plugins
}

/// Drops a plugin into the directory of a host that runs, as an operator does.
fn copy_in(plugins: &TempDir, name: &str, host: &Host) {
    let (from, to) = (plugins.path().join(name), host.plugins().join(name));
    fs::create_dir(&to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
    host.log_line(&["plugin loaded", name]);
}

#[test]
fn a_new_crate_builds_is_clean_passes_its_tests_and_loads() {
    is_a_good_crate("hello", "default");
}

#[test]
fn a_crate_that_stops_requests_is_as_good() {
    is_a_good_crate("closed-shop", "stop");
}

#[test]
fn a_crate_that_rewrites_requests_is_as_good() {
    is_a_good_crate("r", "rewrite-request");
}

#[test]
fn a_crate_that_rewrites_responses_is_as_good() {
    is_a_good_crate("response", "rewrite-response");
}

#[test]
fn a_crate_that_asks_another_service_is_as_good() {
    is_a_good_crate("authenticate", "authenticate");
}

#[test]
fn a_crate_that_limits_is_as_good_and_so_is_a_long_name() {
    is_a_good_crate(
        "a-limit-with-a-name-that-is-as-long-as-a-name-can-be-2026-11-25a",
        "limit",
    );
}

#[test]
fn a_crate_that_logs_is_as_good() {
    is_a_good_crate("access_log", "log");
}

#[test]
fn a_crate_that_executes_what_operators_ask_for_is_as_good_and_does_it_in_a_plugin_directory() {
    let plugins = is_a_good_crate("closable", "execute");
    let host = Host::builder().start();
    copy_in(&plugins, "closable", &host);
    let (code, said, complaint) = host.ask(&["exec", "closable", "--label", "look"]);
    assert_eq!((code, said.as_str()), (0, "closed=false\n"), "{complaint}");
    let switch = [
        "exec",
        "closable",
        "--label",
        "switch",
        "--set",
        "closed=true",
    ];
    let (code, said, complaint) = host.ask(&switch);
    assert_eq!(
        (code, said.as_str()),
        (0, "was_closed=false\n"),
        "{complaint}"
    );
    let mut gateway = host.gateway();
    let token = gateway.prepare("route#1#pre#1", [("closable", "{}")]);
    let stopped = gateway.call(token, get("/"));
    assert!(format!("{stopped:?}").contains("503"), "{stopped:?}");
}

#[test]
fn a_crate_that_serves_http_clients_is_as_good_and_answers_them_from_a_plugin_directory() {
    let plugins = is_a_good_crate("notes", "http-service");
    let address = free_address();
    let host = Host::builder()
        .flag("--http-listen", &address.to_string())
        .start();
    copy_in(&plugins, "notes", &host);
    let mut client = connect(address);
    let written = client.ask("PUT", "/notes/shopping", &[], b"milk");
    assert_eq!(written.code(), 201);
    assert_eq!(client.get("/notes/shopping").body(), "milk");
    let long = vec![b'x'; (64 << 10) + 1];
    assert_eq!(
        connect(address)
            .ask("PUT", "/notes/long", &[], &long)
            .code(),
        413
    );
}

#[test]
fn a_crate_stands_by_itself_and_depends_on_what_was_asked_for() {
    let by_default = NewCrate::new("one", &[]).read("Cargo.toml");
    assert!(by_default.contains("\n[workspace]\n"), "{by_default}");
    assert!(
        by_default.contains("plugin-abi = { path = \"/"),
        "{by_default}"
    );
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let by_path = NewCrate::new("two", &["--abi-path", top.to_str().unwrap()]);
    assert_eq!(by_path.read("Cargo.toml").replace("two", "one"), by_default);
    let by_version = NewCrate::new("three", &["--abi-version", "1.0"]).read("Cargo.toml");
    assert!(
        by_version.contains("plugin-abi = { version = \"1.0\", features"),
        "{by_version}"
    );
}

#[test]
fn a_crate_says_where_the_program_is_unless_it_is_in_the_path() {
    let made = NewCrate::new("one", &[]);
    let program = env!("CARGO_BIN_EXE_plugin-host");
    assert!(
        made.read(".cargo/config.toml")
            .contains(&format!("PLUGIN_HOST = \"{program}\""))
    );
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("two").display().to_string();
    let in_path = Path::new(program).parent().unwrap().to_str().unwrap();
    let made = with_environment(&["new", "two", &path], &[("PATH", in_path)], "");
    assert_eq!(made.code, 0, "{made:?}");
    assert!(!Path::new(&path).join(".cargo").exists());
}

#[test]
fn it_says_what_comes_next() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hello").display().to_string();
    let said = plugin_host(&["new", "hello", &path]).stdout;
    for part in [
        format!("{path} is there"),
        format!("plugin-host dev {path}\n"),
        "curl -i 'http://127.0.0.1:9080/hello'".to_owned(),
        format!("{path}/src/lib.rs"),
        "cargo test".to_owned(),
    ] {
        assert!(said.contains(&part), "{said}");
    }
}

#[test]
fn what_is_there_is_not_written_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display().to_string();
    assert_eq!(
        plugin_host(&["new", "hello", &path]).code,
        0,
        "an empty directory will do"
    );
    let again = plugin_host(&["new", "hello", &path]);
    assert_eq!(again.code, 2);
    assert!(
        again
            .stderr
            .contains("is there, and not empty: name another directory after NAME"),
        "{again:?}"
    );
    let file = plugin_host(&["new", "hello", &format!("{path}/README.md")]);
    assert_eq!(file.code, 2);
    assert!(
        file.stderr.contains("is there, and no directory"),
        "{file:?}"
    );
}

#[test]
fn a_bad_name_or_place_is_refused_before_anything_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new").display().to_string();
    for (arguments, said) in [
        (&["Hello"][..], "as in hello"),
        (&["serde"], "try my-serde"),
        (&["a/b"], "the directory after it"),
        (
            &["hello", "--abi-path", "nowhere"],
            "name the directory of a checkout of plugin-host",
        ),
        (
            &["hello", "--abi-version", "new"],
            "write it as in Cargo.toml: 1 or 1.2",
        ),
        (
            &["hello", "--template", "cgi"],
            "possible values: default, stop",
        ),
    ] {
        let (name, rest) = arguments.split_first().unwrap();
        let refused = plugin_host(&[&["new", name, &path], rest].concat());
        assert_eq!(refused.code, 2, "{arguments:?}");
        assert!(refused.stderr.contains(said), "{refused:?}");
        assert!(!Path::new(&path).exists());
    }
}

#[test]
fn a_place_that_cannot_be_written_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file/new").display().to_string();
    fs::write(directory.path().join("file"), "").unwrap();
    let refused = plugin_host(&["new", "hello", &path]);
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains(&path), "{refused:?}");
}
