//! `plugin-host doctor`: everything that can keep a route from being served is broken here, one thing
//! after the other, and doctor names it and says what to do.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
    thread,
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Ended, Host, get, plugin_host,
    serving::{serving_with, word},
    versions::{named, version},
    wait_for, with_environment,
};

/// A gateway's home with this configuration, where nothing else is.
struct Home(TempDir);

impl Home {
    fn with(config: &str) -> Self {
        let home = Self(
            tempfile::Builder::new()
                .prefix("ph")
                .tempdir_in("/tmp")
                .unwrap(),
        );
        fs::create_dir_all(home.path().join("conf")).unwrap();
        fs::create_dir_all(home.path().join("logs")).unwrap();
        fs::write(home.config(), config).unwrap();
        home
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn config(&self) -> String {
        self.path()
            .join("conf/config.yaml")
            .to_str()
            .unwrap()
            .to_owned()
    }

    /// Looks at this gateway, and at hosts below this directory.
    fn doctor(&self, runtime_dir: &Path, environment: &[(&str, &str)]) -> Ended {
        let arguments = [
            "doctor",
            "--json",
            "--gateway-user",
            "nobody",
            "--gateway-config",
            &self.config(),
            "--runtime-dir",
            runtime_dir.to_str().unwrap(),
        ];
        let path = std::env::var("PATH").unwrap_or_default();
        let environment = [environment, &[("PATH", path.as_str())]].concat();
        with_environment(&arguments, &environment, "")
    }
}

/// What was found under a name, at a level. A problem is exit code 1.
fn found(ended: &Ended, level: &str, check: &str) -> Value {
    let report = ended.json();
    let problems = report["problems"].as_u64().unwrap();
    assert_eq!(ended.code, i32::from(problems > 0), "{ended:?}");
    assert_eq!(report["good"], problems == 0);
    let findings = report["findings"].as_array().unwrap();
    let is_it = |finding: &&Value| finding["level"] == level && finding["check"] == check;
    let finding = findings.iter().find(is_it);
    let finding = finding.unwrap_or_else(|| panic!("no {level} {check} in {report:#}"));
    if level != "good" {
        for explained in ["means", "next"] {
            assert!(finding[explained].as_str().unwrap().len() > 5, "{finding}");
        }
    }
    finding.clone()
}

fn says(finding: &Value, words: &[&str]) {
    let text = finding.to_string();
    for word in words {
        assert!(text.contains(word), "no {word:?} in {finding:#}");
    }
}

#[test]
fn doctor_names_what_keeps_routes_of_a_host_closed_and_says_when_it_is_mended() {
    let builder = Host::builder().directory_mode(0o755);
    let (host, directory, mut gateway, token) = serving_with(builder);
    let home = Home::with(&format!(
        "ext-plugin:\n  path_for_test: {}\nplugins: [ext-plugin-pre-req, ext-plugin-post-resp]\n",
        host.socket().display()
    ));
    let look = || home.doctor(host.directory(), &[]);
    let until = |level: &str, check: &str, words: &[&str]| {
        wait_for(&format!("{level} {check} {words:?}"), || {
            let report = look().json();
            let findings = report["findings"].as_array().unwrap();
            let is_it = |finding: &&Value| {
                let text = finding.to_string();
                finding["level"] == level
                    && finding["check"] == check
                    && words.iter().all(|word| text.contains(word))
            };
            findings.iter().find(is_it).map(|_| ())
        });
        found(&look(), level, check)
    };

    // As it should be.
    let healthy = look();
    assert_eq!(healthy.code, 0, "{healthy:?}");
    for check in [
        "path-for-test",
        "enabled-plugins",
        "socket",
        "permissions",
        "answers",
        "ready",
    ] {
        found(&healthy, "good", check);
    }
    says(
        &found(&healthy, "good", "running"),
        &[host.socket().to_str().unwrap()],
    );
    says(&found(&healthy, "good", "serving"), &["versioned 0.1.0"]);

    // The socket.
    let set = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    set(&host.socket(), 0o600);
    let closed = found(&look(), "problem", "permissions");
    says(
        &closed,
        &[
            "nobody",
            "mode 0600",
            "(13: Permission denied)",
            "--socket-mode 0666",
        ],
    );
    set(&host.socket(), 0o666);
    set(host.directory(), 0o700);
    let closed = found(&look(), "problem", "permissions");
    says(
        &closed,
        &[
            "mode 0700",
            &format!("chmod o+x {}", host.directory().display()),
        ],
    );
    set(host.directory(), 0o755);

    // Routes.
    gateway.prepare("route#2#pre#1", [("absent", json!({}))]);
    until(
        "problem",
        "closed",
        &["route#2#pre#1", "no plugin `absent` is loaded"],
    );
    gateway.prepare("route#2#pre#2", [("versioned", json!({ "wrd": "x" }))]);
    until("problem", "closed", &["route#2#pre#2", "word"]);
    gateway.prepare("route#2#pre#3", [("versioned", word("fine"))]);

    // Plugins.
    assert_eq!(host.ask(&["disable", "versioned"]).0, 0);
    until("problem", "disabled", &["plugin-host enable versioned"]);
    assert_eq!(host.ask(&["enable", "versioned"]).0, 0);
    version("0.2.0")
        .settings(json!({ "refuse": "hello" }))
        .swap_in(&directory);
    let refused = until("problem", "upgrade-refused", &["0.2.0"]);
    says(
        &refused,
        &["does not like the word hello", "0.1.0 serves on", "--force"],
    );
    version("0.2.0").swap_in(&directory);
    until("good", "serving", &["versioned 0.2.0"]);
    named("otherwise", "0.1.0")
        .settings(json!({ "load": "fail" }))
        .swap_in(&host.plugins().join("otherwise"));
    until(
        "problem",
        "failed",
        &["otherwise 0.1.0", "told to fail", "plugin-host check"],
    );
    fs::remove_dir_all(host.plugins().join("otherwise")).unwrap();
    fs::create_dir_all(host.plugins().join("broken")).unwrap();
    fs::write(host.plugins().join("broken/plugin.json"), "{").unwrap();
    until("problem", "files", &["broken"]);
    fs::remove_dir_all(host.plugins().join("broken")).unwrap();

    // Builds in quarantine, with and without one that serves instead.
    assert_eq!(host.ask(&["quarantine", "versioned"]).0, 0);
    until(
        "warning",
        "quarantine",
        &["0.2.0", "0.1.0 serves in its place"],
    );
    assert_eq!(host.ask(&["lift", "versioned"]).0, 0);
    until("good", "serving", &["versioned 0.2.0"]);

    // A worker that died.
    host.signal_worker(Signal::KILL);
    until(
        "problem",
        "crashes",
        &["plugin-host crashes", "answered with 503"],
    );
    wait_for("it serves again", || {
        (gateway.try_call(token, get("/")).is_some()).then_some(())
    });

    // Another host on the same path.
    let other = Host::builder().beside(&host).start();
    until("warning", "several", &["another host lives", "take turns"]);
    drop(other);
}

#[test]
fn doctor_names_plugins_that_fail_on_calls_or_run_out_of_time_and_workers_that_they_kill() {
    // On a machine that allows little.
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("narrow");
    let script = format!(
        "#!/bin/sh\nulimit -n 600\nexec {} \"$@\"\n",
        env!("CARGO_BIN_EXE_plugin-host")
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let host = Host::builder()
        .program(&program)
        .plugin_json("misdeeds", json!({ "timeout_ms": 50 }))
        .flag("--backlog", "65535")
        .start();
    let look = || Ended::from_ask(host.ask(&["doctor", "--json"]));
    says(
        &found(&look(), "warning", "open-files"),
        &["may open 600 files", "LimitNOFILE"],
    );
    says(
        &found(&look(), "warning", "backlog"),
        &["net.core.somaxconn"],
    );
    let unused = found(&look(), "warning", "unused");
    says(&unused, &["has not prepared a configuration"]);
    let mut gateway = host.gateway();
    let fails = gateway.route([("misdeeds", json!({ "request": ["fail"] }))]);
    assert_eq!(gateway.call(fails, get("/")), "error 1");
    let failed = found(&look(), "problem", "calls-fail");
    says(
        &failed,
        &[
            "misdeeds 0.1.0 failed on a call",
            "route ",
            "plugin-host logs misdeeds",
        ],
    );
    let slow = gateway.route([("misdeeds", json!({ "request": [{ "sleep": 60_000 }] }))]);
    assert_eq!(host.gateway().call(slow, get("/")), "error 1");
    let late = found(&look(), "warning", "too-slow");
    says(
        &late,
        &["has missed the deadline of 1 of 2 calls", "timeout_ms"],
    );
    let kills = gateway.route([("misdeeds", json!({ "request": ["fault"] }))]);
    let _ = host.gateway().try_call(kills, get("/"));
    wait_for("the report is written", || {
        let report = look().json();
        report
            .to_string()
            .contains("workers have died within 24 h, the last")
            .then_some(())
    });
    says(&found(&look(), "problem", "crashes"), &["misdeeds"]);
}

#[test]
fn doctor_says_that_no_host_listens_where_the_gateway_connects_to() {
    let home = Home::with("");
    let socket = home.path().join("s");
    let config = format!("ext-plugin: {{path_for_test: {}}}\n", socket.display());
    fs::write(home.config(), config).unwrap();
    let look = || home.doctor(home.path(), &[]);
    let nobody = look();
    says(
        &found(&nobody, "problem", "socket"),
        &["No such file", "(2: No such file or directory)"],
    );
    says(
        &found(&nobody, "problem", "running"),
        &["no host runs", "answers 503"],
    );
    found(&nobody, "problem", "directory");

    fs::write(&socket, "").unwrap();
    says(&found(&look(), "problem", "socket"), &["is no socket"]);
    fs::remove_file(&socket).unwrap();
    drop(UnixListener::bind(&socket).unwrap());
    says(
        &found(&look(), "problem", "answers"),
        &["(111: Connection refused)"],
    );
    fs::remove_file(&socket).unwrap();
    let stranger = UnixListener::bind(&socket).unwrap();
    let hangs_up = thread::spawn(move || drop(stranger.accept().unwrap()));
    says(
        &found(&look(), "problem", "answers"),
        &["does not answer as a host"],
    );
    hangs_up.join().unwrap();

    // A host elsewhere does not help.
    let host = Host::builder().start();
    fs::remove_file(&socket).unwrap();
    let elsewhere = home.doctor(host.directory(), &[]);
    let wrong = found(&elsewhere, "problem", "address");
    says(
        &wrong,
        &[
            socket.to_str().unwrap(),
            host.socket().to_str().unwrap(),
            "path_for_test",
        ],
    );
}

#[test]
fn doctor_reads_the_gateways_configuration_as_the_gateway_does() {
    let program = env!("CARGO_BIN_EXE_plugin-host");
    let cmd = |words: &str| format!("ext-plugin:\n  cmd: [{words}]\n");
    let run = |flags: &str| cmd(&format!("{program}, run{flags}"));
    let enabled = |list: &str| format!("{}plugins: [{list}]\n", run(""));
    for (config, level, check, words) in [
        (
            "ext-plugin: [\n".to_owned(),
            "problem",
            "gateway-config",
            "line ",
        ),
        (
            "apisix: {}\n".to_owned(),
            "problem",
            "ext-plugin",
            "neither",
        ),
        (
            "ext-plugin: {path_for_test: \"unix:/run/s\"}\n".to_owned(),
            "problem",
            "path-for-test",
            "write `path_for_test: /run/s`",
        ),
        (
            "ext-plugin: {path_for_test: run/s}\n".to_owned(),
            "problem",
            "path-for-test",
            "not the absolute path",
        ),
        (
            "ext-plugin: {cmd: plugin-host run}\n".to_owned(),
            "problem",
            "cmd",
            "not a list",
        ),
        (
            cmd("no-such-program, run"),
            "problem",
            "cmd",
            "there is no `no-such-program` in PATH",
        ),
        (
            cmd("/dev/null, run"),
            "problem",
            "cmd",
            "no file that may be run",
        ),
        (cmd("sh, -c, exit"), "warning", "cmd", "starts `sh`"),
        (
            cmd(&format!("{program}, list")),
            "problem",
            "cmd",
            "it is not `plugin-host run`",
        ),
        (run(", --plugin-dri=/x"), "problem", "cmd", "--plugin-dri"),
        (run(", --drain-time=700"), "problem", "cmd", "unit"),
        (run(""), "good", "cmd", "the gateway starts"),
        (run(""), "good", "enabled-plugins", "all of its own"),
        (
            enabled("limit-req"),
            "problem",
            "enabled-plugins",
            "none of ext-plugin-pre-req",
        ),
        (
            enabled("ext-plugin-post-resp"),
            "problem",
            "enabled-plugins",
            "add ext-plugin-pre-req",
        ),
        (
            enabled("ext-plugin-post-req, ext-plugin-post-resp"),
            "good",
            "enabled-plugins",
            "ext-plugin-post-req, ext-plugin-post-resp",
        ),
        (run(""), "warning", "envs", "PLUGIN_HOST_LOG"),
    ] {
        let home = Home::with(&config);
        let ended = home.doctor(home.path(), &[("PLUGIN_HOST_LOG", "debug")]);
        says(&found(&ended, level, check), &[words]);
    }
    // What the list of variables passes on counts.
    let home = Home::with(&(run("") + "nginx_config: {envs: [PLUGIN_HOST_SPIN]}\n"));
    let ended = home.doctor(home.path(), &[("PLUGIN_HOST_SPIN", "often")]);
    says(&found(&ended, "problem", "cmd"), &["PLUGIN_HOST_SPIN"]);
    let absent = plugin_host(&[
        "doctor",
        "--json",
        "--gateway-config",
        "/nowhere/config.yaml",
    ]);
    says(
        &found(&absent, "problem", "gateway-config"),
        &["/nowhere/config.yaml"],
    );
}

#[test]
fn doctor_reads_the_end_of_the_gateways_error_log() {
    let home = Home::with("ext-plugin: {path_for_test: /nowhere/s}\n");
    let line = |at: &str, why: &str| {
        format!(
            "2026/11/25 12:00:{at} [error] 7#7: *1 connect() to unix:/nowhere/s failed ({why}), client: ::1\n"
        )
    };
    let log = line("01", "13: Permission denied")
        + &line("02", "13: Permission denied")
        + &line("03", "11: Resource temporarily unavailable");
    fs::write(home.path().join("logs/error.log"), log).unwrap();
    let ended = home.doctor(home.path(), &[]);
    let denied = found(&ended, "warning", "error-log");
    says(
        &denied,
        &[
            "2 times, the last at 2026/11/25 12:00:02",
            "--socket-mode 0666",
        ],
    );
    assert!(ended.stdout.contains("the backlog was full"), "{ended:?}");
}

#[test]
fn doctor_shows_people_what_things_mean_and_what_to_do_next() {
    let home = Home::with("ext-plugin: {path_for_test: /nowhere/s}\n");
    let arguments = [
        "doctor",
        "--gateway-config",
        &home.config(),
        "--runtime-dir",
        "/nowhere",
    ];
    let plain = plugin_host(&arguments);
    assert_eq!(plain.code, 1, "{plain:?}");
    for words in [
        "\nsocket\n  problem  /nowhere/s: No such file",
        "means: ",
        "next : ",
        " problems, ",
    ] {
        assert!(
            plain.stdout.contains(words),
            "no {words:?} in {}",
            plain.stdout
        );
    }
    assert!(!plain.stdout.contains('\x1b'), "{plain:?}");
    let coloured = plugin_host(&[&arguments[..], &["--color", "always"]].concat());
    assert!(
        coloured.stdout.contains("\x1b[31mproblem\x1b[0m"),
        "{coloured:?}"
    );
    fs::write(home.path().join("plugin-host"), "").unwrap();
    let ended = home.doctor(home.path(), &[]);
    says(
        &found(&ended, "problem", "runtime-dir"),
        &["plugin-host is not a directory", "--runtime-dir"],
    );
    let nobody = plugin_host(&["doctor", "--gateway-user", "nobody-of-this-name"]);
    assert_eq!(nobody.code, 2, "{nobody:?}");
}
