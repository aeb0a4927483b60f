//! The mistakes that people make most, as they meet them: what they are told has to be enough to mend
//! it. "When it does not load" in docs/authoring.md has the same list.

use std::fs;

use serde_json::{Value, json};

use crate::support::{
    Host, PluginDir, get, plugin_host,
    versions::{LIBRARY, named, replace, version},
};

/// What `plugin-host check` has to say about one plugin: message and next step of its only problem.
fn told(plugins: &PluginDir, name: &str) -> String {
    let ended = plugin_host(&["check", &plugins.path(name), "--json"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let problems = ended.json()["problems"].take();
    match &problems.as_array().unwrap()[..] {
        [problem] => ["path", "message", "next_step"]
            .map(|key| problem[key].as_str().unwrap())
            .join("\n"),
        problems => panic!("not one problem: {problems:?}"),
    }
}

#[track_caller]
fn assert_tells(told: &str, words: &[&str]) {
    for part in words {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
}

/// The plugin `versioned` with a library that was changed in its bytes.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> PluginDir {
    let plugins = PluginDir::new();
    let mut files = version("0.1.0");
    change(&mut files.library);
    files.write(plugins.path("versioned").as_ref());
    plugins
}

/// What a `Cargo.toml` without `crate-type` leaves in `target/release`, and what to write there.
const FORGOT_CRATE_TYPE: [&str; 3] = [
    "`crate-type = [\"cdylib\"]`",
    "Cargo.toml",
    "cargo build --release",
];

#[test]
fn who_forgot_the_crate_type_is_told_the_line_to_add() {
    let metadata = |library: &str| {
        json!({
            "name": "say", "version": "1.0.0",
            "source": { "mode": "local_so", "path": library },
        })
        .to_string()
    };
    // A library for linking as cargo makes it, beside what else cargo leaves there.
    let archive = b"!<arch>\n/               0           0     0     0       0         `\n";
    let plugins = PluginDir::new()
        .file("bare/libsay.rlib", archive)
        .file("bare/libsay.d", "libsay.rlib: src/lib.rs")
        .file("say/libsay.rlib", archive)
        .file("say/plugin.json", metadata("libsay.so"))
        .file(
            "linked/plugin.json",
            metadata("libsay.rlib").replace("\"say\"", "\"linked\""),
        )
        .file("linked/libsay.rlib", archive)
        .file(
            "missing/plugin.json",
            metadata("libsay.so").replace("\"say\"", "\"missing\""),
        );
    for (name, what) in [
        (
            "bare",
            "only `libsay.rlib`, which can be linked but not loaded",
        ),
        (
            "say",
            "only `libsay.rlib`, which can be linked but not loaded",
        ),
        ("linked", "a static archive"),
        ("bare/libsay.rlib", "a static archive"),
        ("missing", "the library that plugin.json names is not there"),
    ] {
        let told = told(&plugins, name);
        assert_tells(&told, &[what]);
        assert_tells(&told, &FORGOT_CRATE_TYPE);
    }
}

#[test]
fn who_forgot_export_plugin_is_told_the_line_to_add() {
    let plugins = PluginDir::new().compiled("forgetful", "int nothing(void) { return 0; }", &[]);
    assert_tells(
        &told(&plugins, "forgetful"),
        &[
            "libforgetful.so",
            "not a plugin",
            "`src/lib.rs`",
            "`plugin_abi::export_plugin!(TYPE);`",
            "build it again",
        ],
    );
}

#[test]
fn a_panic_setting_that_would_end_the_host_is_told_with_the_line_to_remove() {
    let plugins = changed(|library| {
        replace(library, "\0panic=unwind\0", "\0panic=abort\0\0");
    });
    assert_tells(
        &told(&plugins, "versioned"),
        &[
            LIBRARY,
            "its first panic would end the host",
            "remove `panic = \"abort\"`",
            "Cargo.toml",
            "RUSTFLAGS",
        ],
    );
}

#[test]
fn another_major_version_of_the_abi_is_told_with_both_versions_and_who_has_to_move() {
    let with_abi = |abi: &str| {
        changed(|library| {
            replace(
                library,
                "\0abi_version=1.",
                &format!("\0abi_version={abi}."),
            );
        })
    };
    let host = format!(
        "this host speaks ABI {}",
        plugin_abi::build_info::ABI_VERSION
    );
    assert_tells(
        &told(&with_abi("9"), "versioned"),
        &["it speaks ABI 9.", &host, "upgrade this host"],
    );
    assert_tells(
        &told(&with_abi("0"), "versioned"),
        &[
            "it speaks ABI 0.",
            &host,
            "`plugin-abi = \"1\"`",
            "Cargo.toml",
        ],
    );
}

#[test]
fn a_name_that_does_not_match_is_told_with_both_names_and_what_to_write_where() {
    let plugins = PluginDir::new().with("say", json!({ "name": "tell" }));
    fs::rename(plugins.path("say"), plugins.path("tell")).unwrap();
    assert_tells(
        &told(&plugins, "tell"),
        &[
            "plugin.json says that this is `tell`, the library says `say`",
            "`\"name\": \"say\"`",
            "`name = \"tell\"`",
            "Cargo.toml",
        ],
    );
    let plugins = PluginDir::new().with("say", Value::Null);
    fs::rename(plugins.path("say"), plugins.path("tell")).unwrap();
    assert_tells(
        &told(&plugins, "tell"),
        &[
            "the directory `tell` holds plugin `say`",
            "rename the directory to `say` or `say@0.1.0`",
        ],
    );
    let plugins = PluginDir::new().with("say", json!({ "version": "7.0.0" }));
    assert_tells(
        &told(&plugins, "say"),
        &[
            "says version 7.0.0, the library says 0.1.0",
            "`version = \"7.0.0\"`",
            "`\"version\": \"0.1.0\"`",
        ],
    );
}

#[test]
fn a_configuration_without_a_default_is_told_which_field_the_route_has_to_give() {
    // With a schema and without one: a route that says nothing, and a field that must be there.
    let host = Host::builder().plugin("say").plugin("versioned").start();
    let mut gateway = host.gateway();
    for (plugin, field) in [("say", "\"body\""), ("versioned", "`word`")] {
        let token = gateway.route([(plugin, "")]);
        assert_eq!(gateway.call(token, get("/")), "error 1");
        host.log_line(&[
            "ERROR",
            plugin,
            "the route gives no configuration, which stands for {}",
            field,
            "`value`",
        ]);
    }
}

#[test]
fn two_plugins_of_one_name_and_version_are_told_with_both_places_and_a_third_serves_on() {
    let host = Host::builder().plugin("say").start();
    named("versioned", "0.1.0").swap_in(&host.plugins().join("versioned"));
    named("versioned", "0.1.0").swap_in(&host.plugins().join("versioned@0.1.0"));
    let ended = plugin_host(&["check", host.plugins().to_str().unwrap(), "--json"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let problems = ended.json()["problems"].take();
    assert_eq!(problems.as_array().unwrap().len(), 2, "{problems}");
    assert_tells(
        &problems.to_string(),
        &[
            "versioned/libversioned.so",
            "versioned@0.1.0/libversioned.so",
            "the same plugin in the same version is also at",
            "remove all but one, or raise `version`",
        ],
    );
    host.log_line(&["ERROR", "versioned@0.1.0", "remove all but one"]);
    let mut gateway = host.gateway();
    let token = gateway.route([("say", json!({ "body": "still here" }))]);
    assert!(
        gateway
            .call(token, get("/"))
            .to_string()
            .contains("still here")
    );
}

#[test]
fn a_library_for_another_machine_is_told_both_machines_and_how_to_build_for_this_one() {
    const MACHINE: usize = 18;
    const RISC_V: u8 = 243;
    let (host, target) = match cfg!(target_arch = "aarch64") {
        true => ("aarch64", "aarch64-unknown-linux-gnu"),
        false => ("x86-64", "x86_64-unknown-linux-gnu"),
    };
    let plugins = changed(|library| library[MACHINE] = RISC_V);
    assert_tells(
        &told(&plugins, "versioned"),
        &["built for RISC-V", host, &format!("--target {target}")],
    );
}

#[test]
fn a_library_for_another_c_library_is_told_both_and_how_to_build_for_this_one() {
    // Its linker has left the name of musl's library behind.
    let plugins = PluginDir::new().compiled(
        "libc",
        "int nothing(void) { return 0; }",
        &["-nostdlib", "-Wl,-soname,libc.musl-x86_64.so.1"],
    );
    let musl = plugins.path("libc/liblibc.so");
    let plugins = plugins.compiled(
        "musl",
        "int nothing(void); int something(void) { return nothing(); }",
        &["-nostdlib", "-Wl,--no-as-needed", &musl],
    );
    assert_tells(
        &told(&plugins, "musl"),
        &[
            "musl",
            "glibc",
            "-unknown-linux-gnu",
            "cargo build --release",
        ],
    );
}
