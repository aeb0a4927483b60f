//! A plugin's way from a git repository into a registry and on to a host that serves it: with the real git,
//! cargo, minisign and registry; and what the registry or git do wrong.

use std::{fs, path::Path, process::Command};

use crate::{
    installs::{Desk, good},
    support::{
        Host,
        crates::{NewCrate, target},
        packages::{package, put},
        registry::Registry,
        versions::version,
        wait_for,
        web::{Reply, Web},
    },
};

pub(crate) fn run(program: &str, directory: &Path, arguments: &[&str]) {
    let output = Command::new(program)
        .current_dir(directory)
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
}

#[test]
fn a_registry_gives_the_newest_version_that_fits_and_keeps_each_by_its_digest() {
    let (desk, registry) = (Desk::new(), Registry::start());
    let name = format!("oci://{}/plugins/versioned", registry.address());
    let push = |number: &str| {
        let file = desk.text("x.plg");
        put(file.as_ref(), package(&version(number)));
        let pushed = desk.alone(&["push", &file, &name, "--loopback-http"]);
        good(&pushed, &format!("{name}:{number}@sha256:"));
        pushed.stdout.trim().to_owned()
    };
    let first = push("0.1.0");
    good(
        &desk.run(&["install", &name, "--loopback-http"]),
        "0.1.0: installed",
    );
    push("0.2.0");
    push("1.0.0");
    good(
        &desk.run(&["outdated", "--loopback-http"]),
        ":1.0.0@sha256:",
    );
    let fits = ["install", &name, "--version", "^0.2", "--loopback-http"];
    good(&desk.run(&fits), "0.2.0: installed in the place of 0.1.0");
    good(
        &desk.run(&["update", "--loopback-http"]),
        "1.0.0: installed",
    );
    good(
        &desk.run(&["install", &first, "--loopback-http"]),
        "0.1.0: installed in the place of 1.0.0",
    );
    let none = ["install", &name, "--version", "^3", "--loopback-http"];
    desk.refused(1, "no version fits `^3`; there are", &none);
    // Plain HTTP is never spoken unasked.
    desk.refused(1, "", &["install", &format!("{name}:1.0.0")]);
}

#[test]
fn a_registry_that_answers_nonsense_is_told_so() {
    let desk = Desk::new();
    let web = Web::start(None, |asked| match asked.path() {
        "/v2/a/manifests/text" => Reply::new(200, "nonsense"),
        "/v2/a/manifests/large" => Reply::new(200, vec![b' '; (1 << 20) + 1]),
        "/v2/a/manifests/image" => Reply::new(
            200,
            r#"{"schemaVersion":2,"config":{"mediaType":"x","digest":"x","size":1},"layers":[]}"#,
        ),
        "/v2/a/tags/list" => Reply::new(200, "[]"),
        _ => Reply::new(401, ""),
    });
    for (reference, words) in [
        ("a:text", "no manifest of an OCI artifact"),
        ("a:large", "more than 1048576 bytes"),
        ("a:image", "it is no plugin"),
        ("a", "no list of tags"),
        (
            "b:x",
            "answers 401: there are no credentials for `127.0.0.1",
        ),
    ] {
        let source = format!("oci://{}/{reference}", web.authority());
        desk.refused(1, words, &["install", &source, "--loopback-http"]);
    }
}

#[test]
fn a_git_that_hangs_is_ended_and_nothing_is_built_that_was_not_allowed() {
    let desk = Desk::new();
    let bin = desk.path("bin");
    fs::create_dir(&bin).unwrap();
    let git = bin.join("git");
    fs::write(&git, "#!/bin/sh\necho \"$@\" >&2\nexec sleep 600\n").unwrap();
    run("chmod", &bin, &["+x", "git"]);
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let source = "git+https://a.example/x#branch=main";
    let install = ["install", source, "--allow-build", "--fetch-time", "1"];
    let ended = desk.run_with(&install, &[("PATH", &path)]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("git has taken more than 1s and was ended"),
        "{ended:?}"
    );

    let commit = "0".repeat(40);
    let source = format!("git+https://a.example/x#commit={commit}");
    desk.refused(1, "allow it with `--allow-build`", &["install", &source]);
}

#[test]
fn from_a_repository_to_a_signed_package_in_a_registry_to_a_host_that_serves_it() {
    let (desk, registry) = (Desk::new(), Registry::start());
    let plugin = NewCrate::new("hello", &[]);
    let manifest = plugin.path().join("Cargo.toml");
    let quick = "\n[profile.dev]\ndebug = 0\nincremental = false\n";
    let text = fs::read_to_string(&manifest).unwrap() + quick;
    fs::write(&manifest, text).unwrap();
    let locked = plugin.cargo(&["metadata", "--format-version", "1"]);
    assert_eq!(locked.code, 0, "{locked:?}");
    fs::write(plugin.path().join(".gitignore"), "target\n").unwrap();
    let git = |arguments: &[&str]| {
        let who = ["-c", "user.name=a", "-c", "user.email=a@a.example"];
        run("git", &plugin.path(), &[&who, arguments].concat());
    };
    git(&["init", "-q", "-b", "main"]);
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "one"]);
    git(&["tag", "v0.1.0"]);

    let source = format!("git+file://{}", plugin.path().display());
    let home = std::env::var("HOME").unwrap();
    let target = target();
    let environment = [
        ("HOME", home.as_str()),
        ("CARGO_NET_OFFLINE", "true"),
        ("CARGO_TARGET_DIR", target.to_str().unwrap()),
    ];
    let install = [
        "install",
        &source,
        "--allow-build",
        "--build-profile",
        "dev",
    ];
    good(
        &desk.run_with(&install, &environment),
        "hello 0.1.0: installed",
    );
    let lock = fs::read_to_string(desk.path("plugins/plugins.lock")).unwrap();
    assert!(lock.contains("#tag=v0.1.0\"\ncommit = \""), "{lock}");
    good(&desk.run_with(&["outdated"], &environment), "the same");

    let package = desk.text("plugins/hello-0.1.0.plg");
    let (secret, trusted) = (desk.text("a.key"), desk.text("trusted"));
    fs::create_dir(&trusted).unwrap();
    let public = format!("{trusted}/a.pub");
    run(
        "minisign",
        desk.path("").as_path(),
        &["-G", "-W", "-p", &public, "-s", &secret],
    );
    run(
        "minisign",
        desk.path("").as_path(),
        &["-S", "-s", &secret, "-m", &package],
    );
    let name = format!("oci://{}/hello", registry.address());
    good(
        &desk.alone(&["push", &package, &name, "--loopback-http"]),
        ":0.1.0@sha256:",
    );

    let host = Host::builder()
        .flag("--signatures", "require")
        .flag("--trusted-keys", &trusted)
        .start();
    let config = desk.text("config.toml");
    let required = format!("signatures = \"require\"\ntrusted_keys = {trusted:?}\n");
    fs::write(&config, required).unwrap();
    let plugins = host.plugins().to_str().unwrap().to_owned();
    let install = ["install", &name, "--loopback-http", "--config", &config];
    good(&desk.run_in(&plugins, &install), "hello 0.1.0: installed");
    wait_for("the host has it", || {
        let (_, said, _) = host.ask(&["list"]);
        said.contains("hello").then_some(())
    });
}
