//! `plugin-host check` as a user runs it: good plugins, and every kind of bad one that it can see,
//! on paper or by loading it.

use plugin_abi::build_info::ABI_VERSION;
use serde_json::{Value, json};

use crate::support::{Ended, Host, PluginDir, plugin_host, wait_for, with_environment};

/// Checks what is in this directory under this name (`.` for all of it).
fn check(plugins: &PluginDir, name: &str, flags: &[&str]) -> Ended {
    plugin_host(&[&["check", &plugins.path(name)], flags].concat())
}

/// The only problem of a check, which has to have one, by message, next step and who can mend it.
fn only_problem(plugins: &PluginDir, name: &str, flags: &[&str]) -> [String; 3] {
    let ended = check(plugins, name, &[flags, &["--json"]].concat());
    assert_eq!(ended.code, 1, "{ended:?}");
    let shown = ended.json();
    assert_eq!(shown["good"], false);
    match &shown["problems"].as_array().unwrap()[..] {
        [problem] => {
            ["message", "next_step", "fault"].map(|key| problem[key].as_str().unwrap().to_owned())
        }
        problems => panic!("not one problem: {problems:?}"),
    }
}

/// A plugin that does this while it is loaded.
fn on_load(deed: Value) -> PluginDir {
    let fields = json!({"settings": {"on_load": [deed]}});
    PluginDir::new().with("scripted", fields)
}

#[test]
fn good_plugins_are_a_table_and_exit_code_0() {
    let plugins = PluginDir::new()
        .with("say", json!({"failure_policy": "open"}))
        .with("scripted", json!({"execution": "blocking"}));
    let ended = check(&plugins, ".", &[]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let lines: Vec<Vec<_>> = ended
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert!(
        ended.stdout.contains(": a directory of plugins\n"),
        "{}",
        ended.stdout
    );
    assert_eq!(
        lines[2],
        [
            "plugin",
            "version",
            "abi",
            "execution",
            "failures",
            "size",
            "sha256",
            "loads"
        ]
    );
    assert_eq!(
        lines[3][..5],
        ["say", "0.1.0", ABI_VERSION, "async", "open"]
    );
    assert_eq!(
        lines[4][..5],
        ["scripted", "0.1.0", ABI_VERSION, "blocking", "closed"]
    );
    assert_eq!(lines[3][8], "in", "{}", ended.stdout);
    assert!(
        ended.stdout.ends_with("\n2 good plugins\n"),
        "{}",
        ended.stdout
    );
}

#[test]
fn the_json_has_every_promised_field() {
    let plugins = PluginDir::new().with("say", Value::Null);
    let ended = check(&plugins, "say", &["--json"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let mut shown = ended.json();
    assert_eq!(shown["kind"], "plugin");
    let plugin = shown["plugins"][0].as_object_mut().unwrap();
    let digest = plugin.remove("sha256").unwrap();
    assert_eq!(digest.as_str().unwrap().len(), 64);
    assert!(plugin.remove("load_ms").unwrap().is_u64());
    assert!(plugin.remove("bytes").unwrap().as_u64() > Some(100_000));
    assert!(
        plugin
            .remove("compiler")
            .unwrap()
            .as_str()
            .unwrap()
            .contains("rustc")
    );
    assert_eq!(
        Value::Object(plugin.clone()),
        json!({
            "name": "say", "version": "0.1.0", "abi": ABI_VERSION, "schema": "library",
            "execution": "async", "failure_policy": "closed",
            "library": plugins.path("say/libsay.so"),
            "loads": true, "output": "", "warnings": [], "good": true,
        })
    );
    assert_eq!(shown["problems"], json!([]));
}

#[test]
fn a_library_alone_and_libraries_without_directories_are_checked() {
    let plugins = PluginDir::new().library("say").library("limit-req");
    let ended = check(&plugins, "libsay.so", &["--json"]);
    assert_eq!((ended.code, &ended.json()["kind"]), (0, &json!("library")));
    let ended = check(&plugins, ".", &["--json"]);
    assert_eq!(
        (ended.code, &ended.json()["kind"]),
        (0, &json!("directory"))
    );
    assert_eq!(ended.json()["plugins"].as_array().unwrap().len(), 2);
}

#[test]
fn without_loading_nothing_of_a_plugin_runs() {
    let plugins = on_load(json!({"exit": 3}));
    let ended = check(&plugins, "scripted", &["--no-load", "--json"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(ended.json()["plugins"][0]["loads"], Value::Null);
}

#[test]
fn an_unknown_field_is_a_mistake_although_a_host_only_warns() {
    let plugins = PluginDir::new().with("say", json!({"timeout": 3}));
    let [message, next_step, fault] = only_problem(&plugins, "say", &[]);
    assert_eq!(message, "`timeout` is not a field");
    assert_eq!(next_step, "did you mean `timeout_ms`?");
    assert_eq!(fault, "author");
}

#[test]
fn what_files_tell_is_told_without_loading() {
    let plugins = PluginDir::new()
        .with("say", json!({"version": "9.9.9"}))
        .with(
            "limit-req",
            json!({"source": {"mode": "local_so", "path": "libother.so"}}),
        )
        .file("cut/plugin.json", "{\"name\": ")
        .file("text/libtext.so", "not a library")
        .file("empty/README", "");
    let ended = check(&plugins, ".", &["--json"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let shown = ended.json();
    let about = |name: &str| {
        let problems = shown["problems"].as_array().unwrap().iter();
        let problems = problems.filter(|problem| {
            let path = problem["path"].as_str().unwrap();
            path.contains(&format!("/{name}"))
        });
        problems
            .map(|problem| problem["message"].as_str().unwrap())
            .collect::<Vec<_>>()
            .join("; ")
    };
    assert!(about("say").contains("9.9.9"), "{}", about("say"));
    assert!(
        about("limit-req").contains("not there"),
        "{}",
        about("limit-req")
    );
    assert!(about("cut").contains("line 1"), "{}", about("cut"));
    assert!(!about("text").is_empty(), "{shown}");
    assert!(about("empty").contains("neither"), "{}", about("empty"));
}

#[test]
fn a_plugin_that_refuses_to_load_is_quoted() {
    let [message, next_step, fault] =
        only_problem(&on_load(json!({"fail": "no database"})), "scripted", &[]);
    assert!(
        message.starts_with("it does not load: in the plugin's constructor or `on_load`: ")
            && message.contains("no database"),
        "{message}"
    );
    assert!(next_step.contains("settings"), "{next_step}");
    assert_eq!(fault, "author");
}

#[test]
fn a_panic_is_told_with_its_message() {
    let [message, ..] = only_problem(&on_load(json!({"panic": "oh no"})), "scripted", &[]);
    assert!(
        message.contains("`on_load`") && message.contains("oh no"),
        "{message}"
    );
}

#[test]
fn an_abort_and_an_exit_end_only_the_process_in_which_the_plugin_is_loaded() {
    let [message, next_step, _] = only_problem(&on_load(json!("abort")), "scripted", &[]);
    assert!(
        message.ends_with("`on_load`: it crashed with SIGABRT, an abort"),
        "{message}"
    );
    assert!(next_step.contains("ends the process"), "{next_step}");
    for code in [0, 3] {
        let [message, ..] = only_problem(&on_load(json!({"exit": code})), "scripted", &[]);
        let expected = format!("`on_load`: it ended the process with exit code {code}");
        assert!(message.ends_with(&expected), "{message}");
    }
}

#[test]
fn a_hang_is_ended_and_named() {
    let plugins = on_load(json!({"block": 600_000}));
    let [message, next_step, _] = only_problem(&plugins, "scripted", &["--load-time", "1"]);
    assert!(
        message.ends_with("`on_load`: it had not ended after 1 s"),
        "{message}"
    );
    assert!(next_step.contains("gives up"), "{next_step}");
}

#[test]
fn a_fault_while_the_library_is_opened_is_told_with_what_the_plugin_printed() {
    let plugins = PluginDir::new().in_c(
        "faulty",
        "printf(\"about to fall\\n\"); fflush(stdout); *(volatile int *)0 = 1;",
    );
    let ended = check(&plugins, ".", &[]);
    assert_eq!(ended.code, 1, "{ended:?}");
    for part in [
        "faulty 1.0.0: it does not load: when the library was opened: it crashed with SIGSEGV",
        "its output:\n    about to fall\n",
        "0 good plugins, 1 problem\n",
    ] {
        assert!(
            ended.stdout.contains(part),
            "{part} is not in\n{}",
            ended.stdout
        );
    }
}

#[test]
fn a_foreign_root_module_is_refused_in_one_line() {
    let plugins = PluginDir::new().in_c("foreign", "");
    let [message, next_step, _] = only_problem(&plugins, "foreign", &[]);
    assert!(
        message.contains("another release of abi_stable"),
        "{message}"
    );
    assert!(!message.contains('\n'), "{message}");
    assert!(next_step.contains("plugin-abi"), "{next_step}");
}

#[test]
fn one_bad_plugin_does_not_hide_the_good_ones() {
    let plugins = on_load(json!("abort")).with("say", Value::Null);
    let ended = check(&plugins, ".", &["--json"]);
    assert_eq!(ended.code, 1);
    let shown = ended.json();
    let good: Vec<_> = shown["plugins"]
        .as_array()
        .unwrap()
        .iter()
        .map(|plugin| (plugin["name"].as_str().unwrap(), &plugin["good"]))
        .collect();
    assert_eq!(good, [("say", &json!(true)), ("scripted", &json!(false))]);
}

#[test]
fn a_routes_configuration_is_tried_with_schema_and_plugin() {
    let plugins = PluginDir::new()
        .with("say", Value::Null)
        .with("scripted", Value::Null);
    let good = check(&plugins, "say", &["--conf", r#"{"body":"x"}"#]);
    assert_eq!(good.code, 0, "{good:?}");
    let [message, _, fault] = only_problem(&plugins, "say", &["--conf", r#"{"body":1}"#]);
    assert!(
        message.contains("does not fit the plugin's schema: /body"),
        "{message}"
    );
    assert_eq!(fault, "operator");
    let [message, ..] = only_problem(&plugins, "scripted", &["--conf", r#"{"steps":1}"#]);
    assert!(
        message.contains("when it parsed a configuration"),
        "{message}"
    );
    let several = check(&plugins, ".", &["--conf", "{}"]);
    assert_eq!(several.code, 2, "{several:?}");
}

#[test]
fn the_operators_settings_reach_a_plugin_that_is_checked() {
    let plugins = PluginDir::new().with("scripted", Value::Null).file(
        "host.toml",
        "[plugins.scripted]\nfailure_policy = \"open\"\n\
             [[plugins.scripted.settings.on_load]]\nlog = [\"error\", \"${env:WORD}\"]\n",
    );
    let arguments = [
        "check",
        &plugins.path("scripted"),
        "--json",
        "--config",
        &plugins.path("host.toml"),
    ];
    let ended = with_environment(&arguments, &[("WORD", "from outside")], "");
    assert_eq!(ended.code, 0, "{ended:?}");
    let plugin = &ended.json()["plugins"][0];
    assert_eq!(plugin["failure_policy"], "open");
    assert!(
        plugin["output"].as_str().unwrap().contains("from outside"),
        "{plugin}"
    );

    // Without the variable the settings cannot be used, and the reference is named.
    let ended = plugin_host(&arguments);
    assert_eq!(ended.code, 1, "{ended:?}");
    let problem = &ended.json()["problems"][0];
    assert!(
        problem["message"].as_str().unwrap().contains("WORD"),
        "{problem}"
    );
    assert_eq!(problem["fault"], "operator");
}

#[test]
fn what_is_not_there_is_exit_code_2_and_what_is_empty_is_1() {
    let plugins = PluginDir::new();
    assert_eq!(check(&plugins, "nowhere", &[]).code, 2);
    let [message, ..] = only_problem(&plugins, ".", &[]);
    assert_eq!(message, "there is no plugin");
}

/// Numbers of the processes that rehearse for this one.
fn children_of(parent: u32) -> Vec<String> {
    let children = format!("/proc/{parent}/task/{parent}/children");
    let children = std::fs::read_to_string(children).unwrap_or_default();
    children.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn the_process_of_a_rehearsal_dies_with_the_one_that_started_it_and_inherits_nothing() {
    use std::process::{Command, Stdio};
    let plugins = on_load(json!({"block": 600_000}));
    let mut checking = Command::new(env!("CARGO_BIN_EXE_plugin-host"))
        .args(["check", &plugins.path("scripted")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let child = wait_for("the process that rehearses", || {
        children_of(checking.id()).pop()
    });
    let in_proc = |what: &str| format!("/proc/{child}/{what}");
    // Once its library is mapped, all that it will ever hold is open.
    wait_for("the library is mapped", || {
        let maps = std::fs::read_to_string(in_proc("maps")).unwrap_or_default();
        maps.contains("scripted-0.1.0").then_some(())
    });
    let ours = |name: &str| std::fs::read_link(format!("/proc/{}/fd/{name}", checking.id()));
    let own_output = [ours("1").unwrap(), ours("2").unwrap()];
    for descriptor in std::fs::read_dir(in_proc("fd")).unwrap() {
        let Ok(target) = std::fs::read_link(descriptor.unwrap().path()) else {
            continue;
        };
        assert!(!own_output.contains(&target), "{target:?} is the parent's");
    }
    assert_eq!(
        std::fs::read_link(in_proc("fd/0")).unwrap().to_str(),
        Some("/dev/null")
    );

    // Killed, it cannot clean anything up.
    checking.kill().unwrap();
    checking.wait().unwrap();
    wait_for("the process that rehearses is gone", || {
        let status = std::fs::read_to_string(in_proc("status")).unwrap_or_default();
        (status.is_empty() || status.contains("State:\tZ")).then_some(())
    });
}

#[test]
fn a_process_that_a_plugin_leaves_behind_does_not_outlive_its_rehearsal() {
    let plugins = PluginDir::new().in_c(
        "forking",
        "int pid = fork(); if (pid == 0) for (;;) sleep(600); printf(\"%d\\n\", pid); fflush(stdout);",
    );
    let ended = check(&plugins, ".", &["--json"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let shown = ended.json();
    let left_behind = shown["plugins"][0]["output"].as_str().unwrap().trim();
    let status = format!("/proc/{}/status", left_behind.parse::<u32>().unwrap());
    wait_for("what the plugin started is gone", || {
        let status = std::fs::read_to_string(&status).unwrap_or_default();
        (status.is_empty() || status.contains("State:\tZ")).then_some(())
    });
}

#[test]
fn what_is_checked_with_success_is_served() {
    let host = Host::with("say");
    let plugins = host.directory().join("plugins");
    let ended = plugin_host(&["check", plugins.to_str().unwrap()]);
    assert_eq!(ended.code, 0, "{ended:?}");
    host.log_line(&["plugin loaded", "say"]);
}
