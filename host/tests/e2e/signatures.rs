//! Who vouches for a plugin: real keys, the real minisign beside our own commands, and hosts that load
//! nothing that nobody vouches for.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Builder, Host, PluginDir,
    packages::{Signer, package, packed, put},
    plugin_host,
    serving::{CLOSED, answer, answer_of, until, word},
    versions::{LIBRARY, version},
    wait_for, with_environment,
};

fn status(host: &Host) -> Value {
    wait_for("a worker tells its status", || {
        let (code, said, _) = host.ask(&["status", "--json"]);
        (code == 0).then(|| serde_json::from_str(&said).unwrap())
    })
}

/// A host that goes by this signer's key.
fn host(signer: &Signer, policy: &str) -> Builder {
    Host::builder()
        .flag("--signatures", policy)
        .flag("--trusted-keys", signer.trusted().to_str().unwrap())
}

/// Runs the real minisign, with this on its standard input.
fn minisign(arguments: &[&str], input: &str) -> (bool, String) {
    let mut child = Command::new("minisign")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("scripts/install-tools --tests installs minisign");
    // It may ask for nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let words = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&words).into_owned(),
    )
}

#[test]
fn keys_and_signatures_of_minisign_count_here_and_ours_count_there() {
    let place = PluginDir::new().file("versioned.plg", package(&version("0.1.0")));
    let path = |name: &str| place.path(name);
    let package = path("versioned.plg");
    let signature = path("versioned.plg.minisig");
    let password = path("password");
    fs::write(&password, "correct horse\n").unwrap();

    // Our key and signature, their verification: with a password and without.
    for (name, how) in [
        ("open", vec!["--no-password"]),
        ("locked", vec!["--password-file", &password]),
    ] {
        let ended = plugin_host(&[&["keygen", &path(name)], &how[..]].concat());
        assert_eq!(ended.code, 0, "{ended:?}");
        let key = path(&format!("{name}.key"));
        let environment = [("PLUGIN_HOST_KEY_PASSWORD", "correct horse")];
        let ended = with_environment(&["sign", &package, "--key", &key], &environment, "");
        assert_eq!(ended.code, 0, "{ended:?}");
        let public = path(&format!("{name}.pub"));
        let (good, words) = minisign(&["-V", "-m", &package, "-p", &public], "");
        assert!(good && words.contains("file:versioned.plg"), "{words}");
        // Our secret key, their signature, our verification.
        let (good, words) = minisign(&["-S", "-m", &package, "-s", &key], "correct horse\n");
        assert!(good, "{words}");
        let ended = plugin_host(&["verify", &package, "--key", &public, "--json"]);
        assert_eq!(
            (ended.code, &ended.json()["signer"]),
            (0, &json!(name)),
            "{ended:?}"
        );
    }
    // Nobody else's password opens it.
    let locked = path("locked.key");
    let environment = [("PLUGIN_HOST_KEY_PASSWORD", "battery staple")];
    let ended = with_environment(&["sign", &package, "--key", &locked], &environment, "");
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.contains("Wrong password"), "{ended:?}");
    let ended = plugin_host(&["sign", &package, "--key", &locked]);
    assert!(
        ended
            .stderr
            .contains("give --password-file or PLUGIN_HOST_KEY_PASSWORD"),
        "{ended:?}"
    );

    // Their key, with a password; their signature, and ours with their key.
    let (secret, public) = (path("theirs.key"), path("theirs.pub"));
    let twice = "correct horse\ncorrect horse\n";
    let (good, words) = minisign(&["-G", "-s", &secret, "-p", &public], twice);
    assert!(good, "{words}");
    let (good, words) = minisign(
        &[
            "-S",
            "-m",
            &package,
            "-s",
            &secret,
            "-t",
            "expires: 2999-01-01T00:00:00Z",
        ],
        "correct horse\n",
    );
    assert!(good, "{words}");
    let shown = plugin_host(&["verify", &package, "--key", &public, "--json"]).json();
    assert_eq!(
        (&shown["state"], &shown["signer"], &shown["expires"]),
        (
            &json!("signed"),
            &json!("theirs"),
            &json!("2999-01-01T00:00:00.000Z")
        )
    );
    fs::remove_file(&signature).unwrap();
    let ended = plugin_host(&[
        "sign",
        &package,
        "--key",
        &secret,
        "--password-file",
        &password,
    ]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let (good, words) = minisign(&["-V", "-m", &package, "-p", &public], "");
    assert!(good, "{words}");
}

#[test]
fn commands_say_what_a_signature_is_worth() {
    let alice = Signer::trusted_as("alice");
    let mallory = Signer::trusted_as("mallory");
    let bytes = package(&version("0.1.0"));
    let place = PluginDir::new().file("versioned.plg", &bytes);
    let path = place.path("versioned.plg");
    let trusted = alice.trusted();
    let verify = || {
        plugin_host(&[
            "verify",
            &path,
            "--trusted-keys",
            trusted.to_str().unwrap(),
            "--json",
        ])
    };
    let state = |expected: &str| {
        let ended = verify();
        assert_eq!(ended.json()["state"], expected, "{ended:?}");
        assert_eq!(ended.code, i32::from(expected != "signed"), "{ended:?}");
    };
    state("unsigned");
    alice.sign(
        path.as_ref(),
        &["--expires", "1day", "--comment", "release 7"],
    );
    state("signed");
    assert!(
        verify().json()["comment"]
            .as_str()
            .unwrap()
            .ends_with("\trelease 7")
    );
    put(path.as_ref(), package(&version("0.2.0")));
    state("modified");
    mallory.sign(path.as_ref(), &[]);
    state("invalid");
    let ended = plugin_host(&[
        "sign",
        &path,
        "--key",
        "x",
        "--expires",
        "2000-01-01T00:00:00Z",
    ]);
    assert_eq!(
        (ended.code, ended.stderr.contains("is over")),
        (2, true),
        "{ended:?}"
    );

    // A directory's plugin.json stands for its library only where it pins it.
    let place = place.with("say", Value::Null);
    let ended = plugin_host(&["sign", &place.path("say"), "--key", "x"]);
    assert_eq!(ended.code, 1);
    assert!(
        ended.stderr.contains("it does not pin its library"),
        "{ended:?}"
    );
}

#[test]
fn where_signatures_are_required_only_what_is_signed_serves_and_each_state_is_shown() {
    let alice = Signer::trusted_as("alice");
    let mallory = Signer::trusted_as("mallory");
    let host = host(&alice, "require").start();
    let place = host.plugins().join("versioned.plg");
    let beside = host.plugins().join("versioned.plg.minisig");
    let (one, two) = (package(&version("0.1.0")), package(&version("0.2.0")));
    put(
        &beside,
        alice.signature_of(&one, &["--expires", "2999-01-01T00:00:00Z"]),
    );
    put(&place, &one);
    let mut gateway = host.gateway();
    let token = gateway.prepare("route#1#pre#1", [("versioned", word("hello"))]);
    until(&mut gateway, token, "0.1.0", "hello");
    let signature = &status(&host)["plugins"][0]["signature"];
    assert_eq!(
        (
            &signature["state"],
            &signature["signer"],
            &signature["expires"]
        ),
        (
            &json!("signed"),
            &json!("alice"),
            &json!("2999-01-01T00:00:00.000Z")
        )
    );
    let key = signature["key_id"].as_str().unwrap().to_owned();
    let (_, shown, _) = host.ask(&["show", "versioned"]);
    let line = format!("  signed by alice (key {key}), expires 2999-01-01T00:00:00.000Z\n");
    assert!(shown.contains(&line), "{shown}");
    let (_, shown, _) = host.ask(&["list"]);
    assert!(
        shown.lines().next().unwrap().ends_with("SIGNATURE"),
        "{shown}"
    );
    assert!(shown.lines().nth(1).unwrap().ends_with("signed"), "{shown}");

    let refused = |state: &str, words: &str, gateway: &mut crate::support::Gateway| {
        wait_for(words, || {
            let status = status(&host);
            let problems = status["problems"].as_array().unwrap();
            let told = |problem: &&Value| {
                let text = problem["problem"].as_str().unwrap();
                text.contains("versioned.plg: signatures are required") && text.contains(words)
            };
            let problem = problems.iter().find(told)?;
            assert_eq!(problem["signature"]["state"], state, "{problem}");
            Some(())
        });
        assert_eq!(answer(gateway, token), answer_of("0.1.0", "hello"));
    };
    put(&place, &two);
    refused(
        "modified",
        "get it again, together with the signature",
        &mut gateway,
    );
    fs::remove_file(&beside).unwrap();
    refused("unsigned", "sign it with `plugin-host sign`", &mut gateway);
    put(&beside, mallory.signature_of(&two, &[]));
    refused("invalid", "not among the trusted ones", &mut gateway);
    put(&beside, "no signature");
    refused("invalid", "its file is none of minisign's", &mut gateway);
    let expired = {
        let old = alice.signature_of(&two, &["--expires", "1s"]);
        std::thread::sleep(std::time::Duration::from_millis(1_100));
        old
    };
    put(&beside, expired);
    refused("expired", "get a newer version", &mut gateway);
    put(&beside, alice.signature_of(&two, &[]));
    until(&mut gateway, token, "0.2.0", "hello");
    assert_eq!(status(&host)["problems"], json!([]));
}

#[test]
fn the_signature_may_come_after_the_package_and_before_it() {
    let alice = Signer::trusted_as("alice");
    let host = host(&alice, "require").start();
    let place = host.plugins().join("versioned.plg");
    let beside = host.plugins().join("versioned.plg.minisig");
    let one = package(&version("0.1.0"));
    put(&place, &one);
    put(&beside, alice.signature_of(&one, &[]));
    let mut gateway = host.gateway();
    let token = gateway.prepare("route#1#pre#1", [("versioned", word("hello"))]);
    until(&mut gateway, token, "0.1.0", "hello");
    let two = package(&version("0.2.0"));
    put(&beside, alice.signature_of(&two, &[]));
    put(&place, &two);
    until(&mut gateway, token, "0.2.0", "hello");
    let log = host.log();
    assert!(
        !log.contains("signatures are required"),
        "nobody was alarmed"
    );
}

#[test]
fn workers_that_follow_load_what_is_signed_and_nothing_of_a_key_that_is_no_longer_trusted() {
    let alice = Signer::trusted_as("alice");
    let host = host(&alice, "require").start();
    let place = host.plugins().join("versioned.plg");
    let one = package(&version("0.1.0"));
    put(
        &host.plugins().join("versioned.plg.minisig"),
        alice.signature_of(&one, &["--expires", "2s"]),
    );
    put(&place, &one);
    let mut gateway = host.gateway();
    let token = gateway.prepare("route#1#pre#1", [("versioned", word("hello"))]);
    until(&mut gateway, token, "0.1.0", "hello");
    // The end of a signature's life is no end of what serves, nor does a worker's death change that.
    wait_for("the signature has expired", || {
        (status(&host)["plugins"][0]["signature"]["state"] == "expired").then_some(())
    });
    host.signal_worker(Signal::KILL);
    assert_eq!(answer(&mut gateway, token), answer_of("0.1.0", "hello"));
    let plugin = &status(&host)["plugins"][0];
    assert_eq!(plugin["signature"]["signer"], "alice");
    assert_eq!(plugin["previous"], Value::Null, "it is not loaded anew");

    fs::copy(
        Signer::trusted_as("bob").public(),
        alice.trusted().join("bob.pub"),
    )
    .unwrap();
    fs::remove_file(alice.public()).unwrap();
    host.replace_worker();
    wait_for("the route fails closed", || {
        let mut gateway = host.gateway();
        let token = gateway.prepare("route#1#pre#1", [("versioned", word("hello"))]);
        (answer(&mut gateway, token) == CLOSED).then_some(())
    });
    host.log_line(&["does not load again", "is no longer trusted"]);
}

/// A plugin whose constructor leaves a trace, as a package.
fn that_leaves_a_trace(trace: &Path) -> Vec<u8> {
    let on_open = format!(
        "FILE *f = fopen(\"{}\", \"w\"); if (f) fclose(f);",
        trace.display()
    );
    let metadata = json!({
        "name": "trace", "version": "1.0.0",
        "source": { "mode": "local_so", "path": "libtrace.so" },
    });
    let place = PluginDir::new()
        .in_c("trace", &on_open)
        .file("trace/plugin.json", metadata.to_string());
    packed(place.path("trace").as_ref())
}

#[test]
fn nothing_of_a_refused_package_is_ever_mapped() {
    let alice = Signer::trusted_as("alice");
    let mallory = Signer::trusted_as("mallory");
    let place = PluginDir::new();
    let trace = place.path("trace");
    let bytes = that_leaves_a_trace(trace.as_ref());
    let refusals = [
        mallory.signature_of(&bytes, &[]),
        b"garbled".to_vec(),
        alice.signature_of(&package(&version("0.1.0")), &[]),
    ];
    let host_of = |policy: &str, rehearse: &str, signature: &[u8]| {
        host(&alice, policy)
            .flag("--rehearse", rehearse)
            .file("trace.plg", bytes.clone())
            .file("trace.plg.minisig", signature)
            .start()
    };
    for (signature, rehearse) in refusals.iter().zip(["true", "false", "true"]) {
        let host = host_of("require", rehearse, signature);
        host.log_line(&["ERROR", "trace.plg", "signatures are required"]);
        let (code, _, _) = host.ask(&["reload"]);
        assert_eq!(code, 0);
        for process in [vec![host.id()], host.workers()].concat() {
            let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
            assert!(!maps.contains("trace"), "{maps}");
        }
        assert!(!Path::new(&trace).exists(), "its constructor has run");
    }
    // Nor by a command that only wants to know its schema, or to check it.
    let plugins = PluginDir::new()
        .file("trace.plg", &bytes)
        .file("trace.plg.minisig", &refusals[0]);
    let trusted = alice.trusted();
    let environment = [
        ("PLUGIN_HOST_SIGNATURES", "require"),
        ("PLUGIN_HOST_TRUSTED_KEYS", trusted.to_str().unwrap()),
    ];
    for command in ["check", "schema"] {
        let ended = with_environment(&[command, &plugins.path("trace.plg")], &environment, "");
        assert_eq!(ended.code, 1, "{ended:?}");
        let words = ended.stdout + &ended.stderr;
        assert!(words.contains("signatures are required"), "{words}");
    }
    assert!(!Path::new(&trace).exists(), "its constructor has run");
    // The trace is left where somebody vouches for it: this test would see it.
    let host = host_of("require", "true", &alice.signature_of(&bytes, &[]));
    host.log_line(&["trace", "was not loaded"]);
    assert!(Path::new(&trace).exists(), "its constructor has not run");
}

#[test]
fn a_warning_is_all_that_an_unsigned_plugin_gets_where_nothing_more_is_asked_for() {
    let alice = Signer::trusted_as("alice");
    let host = Host::builder()
        .flag("--trusted-keys", alice.trusted().to_str().unwrap())
        .start();
    put(
        &host.plugins().join("versioned.plg"),
        package(&version("0.1.0")),
    );
    let mut gateway = host.gateway();
    let token = gateway.prepare("route#1#pre#1", [("versioned", word("hello"))]);
    until(&mut gateway, token, "0.1.0", "hello");
    host.log_line(&["WARN", "it is not signed; with --signatures=require"]);
    let status = status(&host);
    assert_eq!(status["plugins"][0]["signature"]["state"], "unsigned");
    let (_, shown, _) = host.ask(&["show", "versioned"]);
    assert!(shown.contains("\n  unsigned\n"), "{shown}");
}

#[test]
fn a_directory_is_signed_by_its_metadata_and_a_library_by_itself() {
    let alice = Signer::trusted_as("alice");
    let host = host(&alice, "require").start();
    let directory = host.plugins().join("versioned");
    let pinned = |text: &str| {
        let mut files = version(text);
        let digest = {
            use sha2::Digest as _;
            let digest = sha2::Sha256::digest(&files.library);
            digest
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        files.metadata["source"]["sha256"] = json!(digest);
        files
    };
    let built = PluginDir::new();
    let staged = built.path("versioned");
    pinned("0.1.0").write(staged.as_ref());
    alice.sign(staged.as_ref(), &[]);
    fs::create_dir(&directory).unwrap();
    for file in [LIBRARY, "plugin.json", "plugin.json.minisig"] {
        fs::copy(Path::new(&staged).join(file), directory.join(file)).unwrap();
    }
    let mut gateway = host.gateway();
    let token = gateway.prepare("route#1#pre#1", [("versioned", word("hello"))]);
    until(&mut gateway, token, "0.1.0", "hello");

    // Another library below a signed plugin.json is not what it pins.
    let library = fs::read(directory.join(LIBRARY)).unwrap();
    fs::write(directory.join(LIBRARY), version("0.2.0").library).unwrap();
    host.log_line(&["ERROR", "the library's SHA-256 is"]);
    assert_eq!(answer(&mut gateway, token), answer_of("0.1.0", "hello"));
    fs::write(directory.join(LIBRARY), library).unwrap();

    let bare = host.plugins().join("libnewcomer.so");
    let library = crate::support::versions::named("newcomers", "0.3.0").library;
    fs::write(&bare, library).unwrap();
    alice.sign(&bare, &[]);
    let token = gateway.prepare("route#2#pre#1", [("newcomers", word("hello"))]);
    until(&mut gateway, token, "0.3.0", "hello");
}

#[test]
fn keys_that_others_can_change_are_told_of_and_count_for_nothing_where_permissions_are_strict() {
    let alice = Signer::trusted_as("alice");
    let package = package(&version("0.1.0"));
    fs::set_permissions(alice.trusted(), fs::Permissions::from_mode(0o777)).unwrap();
    let host = host(&alice, "require")
        .flag("--strict-permissions", "true")
        .file("versioned.plg.minisig", alice.signature_of(&package, &[]))
        .file("versioned.plg", package)
        .start();
    let open = format!("others can change {}", alice.trusted().display());
    host.log_line(&["ERROR", "was not loaded", &open]);
}

#[test]
fn a_policy_without_keys_and_keys_that_are_none_are_told_before_anything_runs() {
    let place = PluginDir::new().file("keys/alice.pub", "no key");
    let check = |flags: &[&str], expected: &str| {
        let ended = plugin_host(&[&["run", "--check-config"], flags].concat());
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.stderr.contains(expected), "{ended:?}");
    };
    check(
        &["--signatures=require"],
        "without keys there is nothing to judge signatures by",
    );
    check(&["--signatures=perhaps", "--trusted-keys=/x"], "`perhaps`");
    let keys = format!("--trusted-keys={}", place.path("keys"));
    check(&[&keys], "alice.pub: it is no public key");
    let missing = format!("--trusted-keys={}", place.path("missing"));
    check(&[&missing], "No such file");
}
