//! `plugin-host sync`: a plugin directory has what its `plugins.toml` declares, and a host that runs there
//! follows.

use std::fs;

use serde_json::json;

use crate::{
    installs::{Desk, good},
    support::{
        Host,
        asking::get,
        packages::{package, put},
        serving::{until, until_closed, word},
        versions::{named, version},
    },
};

fn declare(host: &Host, lines: &str) {
    let text = format!("[plugins]\n{lines}\n");
    put(&host.plugins().join("plugins.toml"), text);
}

#[test]
fn what_is_declared_is_planned_installed_upgraded_and_removed_and_a_host_that_runs_there_follows() {
    let desk = Desk::new();
    let host = Host::builder().plugin("say").start();
    let plugins = host.plugins().to_str().unwrap().to_owned();
    let sync = |more: &[&str]| desk.run_in(&plugins, &[&["sync"], more].concat());
    let file = desk.text("x.plg");
    put(file.as_ref(), package(&version("0.1.0")));

    declare(&host, &format!("versioned = {file:?}"));
    let planned = sync(&["--dry-run", "--json"]).json();
    assert_eq!(planned.as_array().unwrap().len(), 1, "{planned}");
    assert_eq!(planned[0]["name"], "versioned");
    assert_eq!(planned[0]["action"], "install");
    good(&sync(&["--dry-run"]), "install");
    assert!(!host.plugins().join("versioned-0.1.0.plg").exists());
    let locked = sync(&["--locked"]);
    assert_eq!(locked.code, 1, "{locked:?}");
    assert!(
        locked.stderr.contains("plugins.lock has no `versioned`"),
        "{locked:?}"
    );

    good(&sync(&[]), "versioned 0.1.0: installed");
    let mut gateway = host.gateway();
    let token = gateway.prepare("route#1#pre#1", [("versioned", word("hello"))]);
    until(&mut gateway, token, "0.1.0", "hello");
    good(&sync(&[]), "versioned 0.1.0: unchanged");

    // What the source has now does not fit: it stays out, and what serves goes on.
    put(file.as_ref(), package(&version("0.2.0")));
    let versioned = |requirement: &str| {
        declare(
            &host,
            &format!("versioned = {{ source = {file:?}, version = {requirement:?} }}"),
        );
    };
    versioned("~0.1");
    let refused = sync(&[]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains("does not fit `~0.1`"),
        "{refused:?}"
    );
    let update = desk.run_in(&plugins, &["update"]);
    assert_eq!(update.code, 1, "{update:?}");
    assert!(update.stderr.contains("does not fit `~0.1`"), "{update:?}");
    until(&mut gateway, token, "0.1.0", "hello");

    versioned(">=0.2");
    let planned = sync(&["--dry-run", "--json"]).json();
    assert_eq!(planned[0]["action"], "upgrade");
    assert_eq!(planned[0]["from"], json!(["0.1.0"]));
    good(
        &sync(&[]),
        "versioned 0.2.0: installed in the place of 0.1.0",
    );
    until(&mut gateway, token, "0.2.0", "hello");

    // Another plugin than the one that is declared takes nobody's name.
    let other = desk.text("y.plg");
    put(other.as_ref(), package(&named("versatile", "0.1.0")));
    declare(
        &host,
        &format!("versioned = {file:?}\nelsewhere = {other:?}"),
    );
    let wrong = sync(&[]);
    assert_eq!(wrong.code, 1, "{wrong:?}");
    assert!(
        wrong
            .stderr
            .contains("it has versatile 0.1.0, not elsewhere"),
        "{wrong:?}"
    );
    assert!(
        wrong.stdout.contains("versioned 0.2.0: unchanged"),
        "{wrong:?}"
    );

    declare(&host, "");
    good(&sync(&[]), "versioned 0.2.0: removed");
    until_closed(&mut gateway, token);
    // What an operator has put there is nobody's to remove, and the host takes the file for no plugin.
    assert!(host.plugins().join("say").exists());
    let status = get("/v1/status").of(&host).json();
    assert_eq!(status["problems"], json!([]));
    assert_eq!(
        status["plugins"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|plugin| plugin["state"] == "serving")
            .count(),
        1
    );
}

#[test]
fn a_lock_and_a_declaration_give_another_directory_the_same_bytes() {
    let desk = Desk::new();
    let file = desk.text("x.plg");
    put(file.as_ref(), package(&version("0.1.0")));
    let declared = desk.text("plugins.toml");
    fs::write(&declared, "[plugins]\nversioned = \"x.plg\"\n").unwrap();
    let sync = |plugins: &str, more: &[&str]| {
        let arguments = [&["sync", "--plugins-file", &declared], more].concat();
        desk.run_in(&desk.text(plugins), &arguments)
    };
    good(&sync("plugins", &[]), "versioned 0.1.0: installed");
    fs::create_dir(desk.path("other")).unwrap();
    fs::copy(
        desk.path("plugins/plugins.lock"),
        desk.path("other/plugins.lock"),
    )
    .unwrap();
    good(&sync("other", &[]), "versioned 0.1.0: installed");
    let read =
        |directory: &str| fs::read(desk.path(directory).join("versioned-0.1.0.plg")).unwrap();
    assert_eq!(read("plugins"), read("other"));

    let broken = desk.text("broken.toml");
    fs::write(&broken, "[plugins]\nsay = \"ftp://host/x\"\n").unwrap();
    let refused = desk.run(&["sync", "--plugins-file", &broken]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("plugin `say`"), "{refused:?}");
    let missing = desk.run(&["sync"]);
    assert_eq!(missing.code, 2, "{missing:?}");
    assert!(missing.stderr.contains("plugins.toml"), "{missing:?}");
}
