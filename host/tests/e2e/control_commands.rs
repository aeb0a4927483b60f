//! The commands that ask a running host: how they find it, and what scripts and shells get of them.

use std::{fs, process::Command};

use serde_json::{Value, json};

use crate::support::{
    Ended, Host, plugin_host,
    serving::{serving, word},
    versions::version,
    wait_for, with_environment,
};

/// Runs a command for hosts below this host's directory, without saying which.
fn ask(host: &Host, arguments: &[&str]) -> Ended {
    let runtime_dir = host.directory().to_str().unwrap();
    plugin_host(&[arguments, &["--runtime-dir", runtime_dir]].concat())
}

#[test]
fn the_only_host_needs_no_name() {
    let (host, _, _, _) = serving();
    let shown = ask(&host, &["status"]);
    assert_eq!(shown.code, 0, "{shown:?}");
    assert!(shown.stdout.contains("versioned 0.1.0 serves"), "{shown:?}");
    let hosts = ask(&host, &["hosts", "--json"]).json();
    assert_eq!(hosts[0]["pid"], host.id());
    assert_eq!(hosts[0]["plugin_dir"], host.plugins().to_str().unwrap());
}

#[test]
fn a_host_is_found_by_its_plugin_directory_and_scripts_get_stable_fields() {
    let (host, _, _, _) = serving();
    let plugins = host.plugins();
    // Written in another way, it is the same directory.
    let otherwise = plugins.join("../plugins");
    let of = |command: &str| {
        let directory = otherwise.to_str().unwrap();
        let ended = ask(&host, &[command, "--plugin-dir", directory, "--json"]);
        assert_eq!(ended.code, 0, "{ended:?}");
        ended.json()
    };
    for command in ["list", "status"] {
        let plugin = &of(command)["plugins"][0];
        assert_eq!(plugin["name"], "versioned");
        assert_eq!(plugin["version"], "0.1.0");
        assert_eq!(plugin["state"], "serving");
        assert_eq!(plugin["place"], plugins.join("versioned").to_str().unwrap());
        assert_eq!(plugin["configurations"], 1);
        assert!(plugin["calls"]["calls"].as_u64().unwrap() > 0);
        // Every field that the help promises.
        let help = plugin_host(&[command, "--help"]).stdout;
        for field in plugin.as_object().unwrap().keys() {
            let is_promised = help.contains(field.as_str());
            let may_change = ["generation", "found_blocking", "stalls"].contains(&field.as_str());
            assert!(
                is_promised || may_change,
                "{command}: {field} is not in\n{help}"
            );
        }
    }
    assert_eq!(
        of("status")["readiness"],
        json!({ "ready": true, "reasons": [] })
    );
    let elsewhere = ask(&host, &["list", "--plugin-dir", "/nowhere"]);
    assert_eq!(elsewhere.code, 1, "{elsewhere:?}");
    assert!(
        elsewhere
            .stderr
            .contains("no host with the plugin directory /nowhere"),
        "{elsewhere:?}"
    );
}

#[test]
fn where_several_hosts_could_be_meant_they_are_listed_with_what_to_say() {
    let first = Host::builder().start();
    let plugins = first.plugins();
    let other = first.directory().join("other.sock");
    let second = Host::builder()
        .beside(&first)
        .flag("--listen", other.to_str().unwrap())
        .flag("--plugin-dir", plugins.to_str().unwrap())
        .spawn();
    wait_for("both answer", || {
        (ask(&first, &["hosts", "--json"]).json().as_array()?.len() == 2).then_some(())
    });
    let by_directory = ["list", "--plugin-dir", plugins.to_str().unwrap()];
    let ended = ask(&first, &by_directory);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(
        ended.stderr.contains("2 hosts with the plugin directory"),
        "{ended:?}"
    );
    for host in [&first, &second] {
        assert!(
            ended.stderr.contains(&format!("process {}", host.id())),
            "{ended:?}"
        );
    }
    let says = |part: String| assert!(ended.stderr.contains(&part), "{ended:?}");
    says(format!("--listen unix:{}", other.display()));
    let named = ask(
        &first,
        &["status", "--listen", other.to_str().unwrap(), "--json"],
    );
    assert_eq!(named.json()["host"]["pid"], second.id());
    // The gateway's own variable says which, where there is one.
    let runtime_dir = first.directory().to_str().unwrap();
    let address = format!("unix:{}", first.socket().display());
    let of_gateway = with_environment(
        &["status", "--json", "--runtime-dir", runtime_dir],
        &[("APISIX_LISTEN_ADDRESS", &address)],
        "",
    );
    assert_eq!(of_gateway.json()["host"]["pid"], first.id());
}

#[test]
fn where_no_host_runs_commands_say_where_they_looked() {
    let nowhere = tempfile::tempdir().unwrap();
    let runtime_dir = nowhere.path().to_str().unwrap();
    let ended = plugin_host(&["status", "--runtime-dir", runtime_dir]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.contains(runtime_dir), "{ended:?}");
    let hosts = plugin_host(&["hosts", "--runtime-dir", runtime_dir]);
    assert_eq!((hosts.code, hosts.stdout.as_str()), (0, "no host runs\n"));
}

#[test]
fn tables_are_plain_and_whole_in_a_pipe_and_coloured_where_that_is_asked_for() {
    let (host, directory, mut gateway, _) = serving();
    version("0.2.0")
        .settings(json!({ "load": "fail" }))
        .swap_in(&directory);
    host.log_line(&["ERROR", "0.2.0", "told to fail"]);
    gateway.prepare("route#7#pre#1", [("missing", word("x"))]);
    let plain = ask(&host, &["list"]).stdout;
    assert!(!plain.contains('\x1b'), "{plain}");
    let columns: Vec<&str> = plain.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(columns[..3], ["NAME", "VERSION", "STATE"]);
    let row: Vec<&str> = plain.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..3], ["versioned", "0.1.0", "serving"]);
    assert!(
        plain.contains("versioned last try failed: plugin versioned 0.2.0"),
        "{plain}"
    );
    let coloured = ask(&host, &["list", "--color", "always"]).stdout;
    assert!(coloured.contains("\x1b[32mserving\x1b[0m"), "{coloured}");
    assert!(
        !ask(&host, &["list", "--color", "never"])
            .stdout
            .contains('\x1b')
    );

    let shown = ask(&host, &["show", "versioned"]).stdout;
    for part in [
        "versioned 0.1.0 serves",
        "rustc ",
        "last try failed",
        "1 live configurations",
    ] {
        assert!(shown.contains(part), "{part:?} is not in\n{shown}");
    }
    let chains = ask(&host, &["chains"]).stdout;
    assert!(
        chains.contains("route#1#pre#1 ready\n  versioned runs 0.1.0\n"),
        "{chains}"
    );
    assert!(
        chains.contains("route#7#pre#1 refused\n  missing: no plugin"),
        "{chains}"
    );
    let tokens = ask(&host, &["tokens", "--plugin", "versioned", "--limit", "1"]).stdout;
    assert!(
        tokens.contains("route#1#pre#1") && !tokens.contains("route#7"),
        "{tokens}"
    );
    for listing in ["chains", "tokens"] {
        let refused = ask(&host, &[listing, "--state", "refused"]).stdout;
        assert!(
            refused.contains("route#7#pre#1") && !refused.contains("route#1#"),
            "{refused}"
        );
    }
    let settings = ask(&host, &["settings"]).stdout;
    assert!(
        settings
            .lines()
            .any(|line| line.starts_with("--plugin-dir")),
        "{settings}"
    );
    let missing = ask(&host, &["show", "nobody"]);
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("`nobody`"), "{missing:?}");
}

#[test]
fn a_terminal_gets_lines_that_fit_it() {
    let (host, _, _, _) = serving();
    let listed = |columns: u16| {
        let program = env!("CARGO_BIN_EXE_plugin-host");
        let runtime_dir = host.directory().display();
        let command = format!("stty cols {columns}; {program} list --runtime-dir {runtime_dir}");
        let output = Command::new("script")
            .args(["--quiet", "--return", "--command", &command, "/dev/null"])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let narrow = listed(60);
    assert!(
        narrow.contains("\x1b[32m"),
        "a terminal has colours: {narrow:?}"
    );
    for line in narrow.lines() {
        let visible = line.replace("\x1b[32m", "").replace("\x1b[0m", "");
        assert!(visible.trim_end().chars().count() <= 60, "{narrow}");
    }
    assert!(
        listed(200)
            .lines()
            .any(|line| line.contains("serving") && line.contains("versioned"))
    );
}

#[test]
fn every_command_that_asks_a_host_gives_json() {
    let (host, _, _, _) = serving();
    for command in [
        &["status"][..],
        &["list"],
        &["show", "versioned"],
        &["chains"],
        &["tokens"],
        &["workers"],
        &["crashes"],
        &["settings"],
        &["log-level"],
        &["reload"],
        &["upgrade", "versioned"],
        &["unblock", "versioned"],
        &["disable", "versioned"],
        &["enable", "versioned"],
        &["wait-ready"],
        &["quarantine", "versioned"],
        &["lift", "versioned"],
        &["replace-worker"],
        &["drain"],
    ] {
        let ended = ask(&host, &[command, &["--json"]].concat());
        assert_eq!(ended.code, 0, "{command:?}: {ended:?}");
        assert!(ended.json().is_object(), "{command:?}: {ended:?}");
    }
}

#[test]
fn shells_and_man_get_what_they_need_of_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ended = plugin_host(&["completions", shell]);
        assert_eq!(ended.code, 0, "{ended:?}");
        for word in ["wait-ready", "replace-worker", "--plugin-dir", "rollback"] {
            let word = if shell == "fish" {
                word.trim_start_matches("--")
            } else {
                word
            };
            assert!(
                ended.stdout.contains(word),
                "{word} is not completed in {shell}"
            );
        }
    }
    let bash = plugin_host(&["completions", "bash"]).stdout;
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("completion");
    fs::write(&script, bash).unwrap();
    let words = "COMP_WORDS=(plugin-host roll); COMP_CWORD=1; _plugin__host plugin-host roll plugin-host; echo ${COMPREPLY[*]}";
    let completed = Command::new("bash")
        .args(["-c", &format!("source {}; {words}", script.display())])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&completed.stdout).trim(),
        "rollback"
    );

    let ended = plugin_host(&["man", directory.path().to_str().unwrap()]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let page = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
    assert!(page("plugin-host.1").contains("plugin\\-host"));
    assert!(page("plugin-host-rollback.1").contains("Exit codes"));
    assert!(page("plugin-host-run.1").contains("telemetry\\-listen"));
    assert!(
        !directory.path().join("plugin-host-worker.1").exists(),
        "hidden commands have none"
    );
    let first = plugin_host(&["man"]);
    assert!(
        first.stdout.starts_with(".ie") || first.stdout.contains(".TH"),
        "{first:?}"
    );
}

#[test]
fn what_comes_from_files_reaches_no_terminal_as_it_is() {
    let host = Host::builder().start();
    let directory = host.plugins().join("evil");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("plugin.json"), "{\"\x1b[31mred\": 1}").unwrap();
    let problems: Value = wait_for("the problem is told", || {
        let plugins = ask(&host, &["list", "--json"]).json();
        (!plugins["problems"].as_array()?.is_empty()).then(|| plugins["problems"].clone())
    });
    assert!(!problems.as_array().unwrap().is_empty());
    let shown = ask(&host, &["list"]).stdout;
    assert!(
        shown.contains("problem: ") && !shown.contains('\x1b'),
        "{shown:?}"
    );
}
