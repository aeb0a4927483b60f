//! Packages in the plugin directory and on the command line: what a good one does, and that of a bad
//! one nothing is left.

use std::fs;

use serde_json::{Value, json};
use tar::EntryType;

use crate::support::{
    Host, PluginDir,
    packages::{archive, gzip, package, packed, put},
    plugin_host,
    serving::{answer, answer_of, until, until_closed, word},
    versions::version,
    wait_for,
};

fn status(host: &Host) -> Value {
    wait_for("a worker tells its status", || {
        let (code, said, _) = host.ask(&["status", "--json"]);
        (code == 0).then(|| serde_json::from_str(&said).unwrap())
    })
}

#[test]
fn a_package_that_is_put_there_serves_is_upgraded_in_its_place_outlives_its_worker_and_goes() {
    let host = Host::builder().start();
    let place = host.plugins().join("versioned.plg");
    put(&place, package(&version("0.1.0")));
    let mut gateway = host.gateway();
    let token = gateway.prepare("route#1#pre#1", [("versioned", word("hello"))]);
    until(&mut gateway, token, "0.1.0", "hello");
    let plugin = &status(&host)["plugins"][0];
    assert_eq!(plugin["place"], place.to_str().unwrap());
    assert_eq!(plugin["library"], place.to_str().unwrap());
    assert_eq!(plugin["signature"], Value::Null);

    put(&place, package(&version("0.2.0")));
    until(&mut gateway, token, "0.2.0", "hello");
    host.replace_worker();
    assert_eq!(answer(&mut gateway, token), answer_of("0.2.0", "hello"));
    assert_eq!(status(&host)["plugins"][0]["previous"], "0.1.0");
    // Beside it, as a directory may stand.
    put(
        &host.plugins().join("versioned-0.3.0.plg"),
        package(&version("0.3.0")),
    );
    until(&mut gateway, token, "0.3.0", "hello");

    fs::remove_file(host.plugins().join("versioned-0.3.0.plg")).unwrap();
    fs::remove_file(&place).unwrap();
    until_closed(&mut gateway, token);
}

/// Packages that are none, with what is said of each.
fn hostile() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let good = package(&version("0.2.0"));
    let entry = |kind, path| archive(&[(kind, path, b"")]);
    let wrong_digest = {
        let manifest = json!({
            "format": 1, "name": "versioned", "version": "0.2.0",
            "files": { "README": { "bytes": 1, "sha256": "0".repeat(64) } },
        });
        let manifest = manifest.to_string();
        archive(&[
            (EntryType::Regular, "README", b"x"),
            (EntryType::Regular, "manifest.json", manifest.as_bytes()),
        ])
    };
    let elsewhere = {
        let metadata = version("0.2.0").metadata.to_string();
        let digest = |bytes: &[u8]| {
            use sha2::Digest as _;
            let digest = sha2::Sha256::digest(bytes);
            digest
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        let path = "lib/linux-riscv64-gnu/libversioned.so";
        let manifest = json!({
            "format": 1, "name": "versioned", "version": "0.2.0",
            "files": {
                "plugin.json": { "bytes": metadata.len(), "sha256": digest(metadata.as_bytes()) },
                path: { "bytes": 1, "sha256": digest(b"x") },
            },
        });
        let manifest = manifest.to_string();
        archive(&[
            (EntryType::Regular, "plugin.json", metadata.as_bytes()),
            (EntryType::Regular, path, b"x"),
            (EntryType::Regular, "manifest.json", manifest.as_bytes()),
        ])
    };
    let many: Vec<String> = (0..65).map(|number| format!("README{number}")).collect();
    let many: Vec<_> = many
        .iter()
        .map(|name| (EntryType::Regular, name.as_str(), &b""[..]))
        .collect();
    let large = vec![b'x'; (1 << 20) + 1];
    vec![
        (
            "link",
            entry(EntryType::Symlink, "README"),
            "a symbolic link",
        ),
        ("hard link", entry(EntryType::Link, "README"), "a hard link"),
        ("device", entry(EntryType::Char, "README"), "a device"),
        ("pipe", entry(EntryType::Fifo, "README"), "a pipe"),
        (
            "absolute",
            entry(EntryType::Regular, "/README"),
            "is absolute",
        ),
        (
            "above",
            entry(EntryType::Regular, "../README"),
            "has `..` in it",
        ),
        (
            "unknown",
            entry(EntryType::Regular, "run.sh"),
            "is nothing that a package holds",
        ),
        (
            "twice",
            archive(&[
                (EntryType::Regular, "README", b"a"),
                (EntryType::Regular, "README", b"b"),
            ]),
            "is in the package twice",
        ),
        ("many", archive(&many), "more than 64 entries"),
        (
            "large",
            archive(&[(EntryType::Regular, "README", &large)]),
            "has 1048577 bytes, more than 1048576",
        ),
        (
            "bomb",
            gzip(&vec![0; 64 << 20]),
            "something follows the end",
        ),
        (
            "bomb in an entry",
            archive(&[(
                EntryType::Regular,
                "lib/linux-x86_64-gnu/libx.so",
                &vec![0; 64 << 20],
            )]),
            "unpacks to more than",
        ),
        ("digest", wrong_digest, "but manifest.json says 0000"),
        ("platform", elsewhere, "only for linux-riscv64-gnu"),
        (
            "garbage",
            [&good[..], b"x"].concat(),
            "something follows the end",
        ),
        (
            "cut",
            good[..good.len() / 2].to_vec(),
            "cut short or damaged",
        ),
        ("empty", Vec::new(), "cut short or damaged"),
    ]
}

#[test]
fn of_a_hostile_package_the_reason_is_told_and_nothing_is_written() {
    for (name, bytes, reason) in hostile() {
        let plugins = PluginDir::new().file("versioned.plg", bytes);
        let path = plugins.path("versioned.plg");
        let ended = plugin_host(&["check", &path, "--json"]);
        let shown = ended.json();
        assert_eq!(
            (ended.code, &shown["kind"]),
            (1, &json!("package")),
            "{name}"
        );
        let message = shown["problems"][0]["message"].as_str().unwrap();
        assert!(message.contains(reason), "{name}: {message}");
        let into = plugins.path("unpacked");
        let ended = plugin_host(&["unpack", &path, "--output", &into]);
        assert_eq!(ended.code, 1, "{name}: {ended:?}");
        assert!(ended.stderr.contains(reason), "{name}: {ended:?}");
        let left = fs::read_dir(plugins.path(".")).unwrap().count();
        assert_eq!(left, 1, "{name}: only the package itself is there");
    }
}

#[test]
fn a_running_host_refuses_a_hostile_package_and_what_served_goes_on() {
    let host = Host::builder().start();
    let place = host.plugins().join("versioned.plg");
    put(&place, package(&version("0.1.0")));
    let mut gateway = host.gateway();
    let token = gateway.prepare("route#1#pre#1", [("versioned", word("hello"))]);
    until(&mut gateway, token, "0.1.0", "hello");
    for (name, bytes, reason) in hostile() {
        // These are waited for, since they look like copies that are under way.
        if reason == "cut short or damaged" {
            continue;
        }
        put(&place, bytes);
        wait_for(name, || {
            let status = status(&host);
            let problems = status["problems"].as_array().unwrap();
            let told = |problem: &Value| problem["problem"].as_str().unwrap().contains(reason);
            problems.iter().any(told).then_some(())
        });
        assert_eq!(
            answer(&mut gateway, token),
            answer_of("0.1.0", "hello"),
            "{name}"
        );
    }
    put(&place, package(&version("0.2.0")));
    until(&mut gateway, token, "0.2.0", "hello");
    assert_eq!(status(&host)["problems"], json!([]));
}

#[test]
fn a_package_is_checked_shown_and_unpacked() {
    let plugins = PluginDir::new()
        .with("say", Value::Null)
        .file("say/LICENSE-MIT", "as you like");
    let bytes = packed(plugins.path("say").as_ref());
    assert_eq!(bytes, packed(plugins.path("say").as_ref()), "byte for byte");
    let plugins = plugins.file("say-0.1.0.plg", bytes);
    let path = plugins.path("say-0.1.0.plg");

    let ended = plugin_host(&["check", &path]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stdout.contains(": a package\n"), "{}", ended.stdout);
    let ended = plugin_host(&["schema", &path]);
    assert_eq!(ended.json()["properties"]["body"]["type"], "string");

    let shown = plugin_host(&["inspect", &path, "--json"]).json();
    assert_eq!(
        (&shown["name"], &shown["version"]),
        (&json!("say"), &json!("0.1.0"))
    );
    let platform = shown["platforms"][0].as_str().unwrap();
    let files: Vec<_> = shown["files"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    let library = format!("lib/{platform}/libsay.so");
    assert_eq!(files, ["LICENSE-MIT", library.as_str(), "plugin.json"]);

    let into = plugins.path("again");
    let ended = plugin_host(&["unpack", &path, "--output", &into]);
    assert_eq!((ended.code, ended.stdout), (0, format!("{into}\n")));
    for file in ["plugin.json", "libsay.so", "LICENSE-MIT"] {
        let read =
            |directory: &str| fs::read(plugins.path(directory).as_str().to_owned() + "/" + file);
        assert_eq!(read("again").unwrap(), read("say").unwrap(), "{file}");
    }
    let ended = plugin_host(&["unpack", &path, "--platform", "linux-s390x-gnu"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(
        ended.stderr.contains(&format!("only for {platform}")),
        "{ended:?}"
    );
}

#[test]
fn a_package_under_another_plugins_name_is_refused() {
    let plugins = PluginDir::new().file("auth.plg", package(&version("0.1.0")));
    let ended = plugin_host(&["check", &plugins.path("."), "--json", "--no-load"]);
    let problem = &ended.json()["problems"][0];
    assert_eq!(
        problem["message"],
        "the package `auth.plg` holds plugin `versioned` 0.1.0"
    );
    assert_eq!(
        problem["next_step"],
        "rename it to `versioned.plg` or `versioned-0.1.0.plg`"
    );
}
