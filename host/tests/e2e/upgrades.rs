//! Plugins come, change and go while the host runs: what serves afterwards, and what does not.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    thread,
    time::Duration,
};

use serde_json::json;

use crate::{
    message::Message,
    support::{
        Call, Host, get, response,
        serving::{
            answer, answer_of, serving, serving_from, serving_with, until, until_closed,
            until_without_a_failure, word,
        },
        versions::{LIBRARY, named, version},
        wait_for,
    },
};

#[test]
fn a_plugin_that_is_put_there_while_the_host_runs_serves() {
    serving();
}

#[test]
fn a_version_written_over_the_old_files_serves_and_tokens_stay() {
    let (_host, directory, mut gateway, token) = serving();
    version("0.2.0").write(&directory);
    until(&mut gateway, token, "0.2.0", "hello");
}

#[test]
fn a_lower_version_is_as_good_as_a_higher_one() {
    let (_host, directory, mut gateway, token) = serving();
    version("0.0.9").swap_in(&directory);
    until(&mut gateway, token, "0.0.9", "hello");
}

#[test]
fn the_library_may_come_before_its_metadata_and_after_it() {
    let (_host, directory, mut gateway, token) = serving();
    let next = version("0.2.0");
    fs::write(directory.join(LIBRARY), &next.library).unwrap();
    assert_eq!(answer(&mut gateway, token), answer_of("0.1.0", "hello"));
    fs::write(directory.join("plugin.json"), next.metadata.to_string()).unwrap();
    until(&mut gateway, token, "0.2.0", "hello");

    let next = version("0.3.0");
    fs::write(directory.join("plugin.json"), next.metadata.to_string()).unwrap();
    assert_eq!(answer(&mut gateway, token), answer_of("0.2.0", "hello"));
    fs::write(directory.join(LIBRARY), &next.library).unwrap();
    until(&mut gateway, token, "0.3.0", "hello");
}

#[test]
fn a_bare_library_serves_with_what_it_says_of_itself_and_is_upgraded() {
    let host = Host::builder().start();
    let place = host.plugins().join(LIBRARY);
    fs::write(&place, version("0.1.0").library).unwrap();
    let mut gateway = host.gateway();
    let token = gateway.prepare("route#1#pre#1", [("versioned", word("hello"))]);
    until(&mut gateway, token, "0.1.0", "hello");
    fs::write(&place, version("0.2.0").library).unwrap();
    until(&mut gateway, token, "0.2.0", "hello");
}

#[test]
fn versions_side_by_side_serve_the_routes_that_ask_for_them() {
    let host = Host::builder().start();
    version("1.2.0").swap_in(&host.plugins().join("versioned@1.2.0"));
    version("2.0.0").swap_in(&host.plugins().join("versioned@2.0.0"));
    let mut gateway = host.gateway();
    let ones = gateway.prepare("route#1#pre#1", [("versioned@^1.2", word("a"))]);
    let newest = gateway.prepare("route#2#pre#1", [("versioned", word("b"))]);
    until(&mut gateway, ones, "1.2.0", "a");
    until(&mut gateway, newest, "2.0.0", "b");

    version("1.3.0").swap_in(&host.plugins().join("versioned@1.3.0"));
    until(&mut gateway, ones, "1.3.0", "a");
    assert_eq!(answer(&mut gateway, newest), answer_of("2.0.0", "b"));
}

#[test]
fn a_call_that_has_begun_ends_with_the_version_it_began_with_and_only_then_that_is_unloaded() {
    let (host, directory, mut gateway, token) = serving();
    let mut waiting = host.gateway();
    let asks = json!({ "word": "w", "ask": "route_id" });
    let slow = waiting.prepare("route#2#pre#1", [("versioned", asks)]);
    waiting.begin(slow, get("/").header("x-nonce", "n"));
    version("0.2.0").swap_in(&directory);
    until(&mut gateway, token, "0.2.0", "hello");
    assert!(
        !host.log().contains("unloaded"),
        "the old version is in use"
    );
    assert_eq!(waiting.finish().to_string(), answer_of("0.1.0", "w"));
    host.log_line(&["version=0.1.0", "plugin unloaded"]);
    assert_eq!(
        waiting
            .call(slow, get("/").header("x-nonce", "n"))
            .to_string(),
        answer_of("0.2.0", "w")
    );
    let log = host.log();
    let unloads = log
        .lines()
        .filter(|line| line.contains("plugins: unloaded") && line.contains("version=0.1.0"));
    assert_eq!(unloads.count(), 1, "on_unload runs once");
}

/// A call of either phase that waits for the gateway while its plugin is upgraded.
fn check_waiting_call(execution: &str, call: Call, answer_of: impl Fn(&str) -> String) {
    let host = Host::builder().start();
    let directory = host.plugins().join("versioned");
    let running = |number: &str| {
        let mut files = version(number);
        files.metadata["execution"] = json!(execution);
        files
    };
    running("0.1.0").swap_in(&directory);
    let (mut gateway, token) = serving_from(&host);
    let mut waiting = host.gateway();
    let slow = waiting.route([("versioned", json!({ "word": "w", "ask": "route_id" }))]);
    waiting.begin(slow, call.clone());
    assert_eq!(waiting.receive().to_string(), "ask 'route_id'");
    running("0.2.0").swap_in(&directory);
    until(&mut gateway, token, "0.2.0", "hello");
    assert!(!host.log().contains("unloaded"), "the old one is in use");
    waiting.send(&Message::Info { result: None });
    assert_eq!(waiting.finish().to_string(), answer_of("0.1.0"));
    host.log_line(&["version=0.1.0", "plugin unloaded"]);
    assert_eq!(waiting.call(slow, call).to_string(), answer_of("0.2.0"));
}

#[test]
fn a_call_in_a_blocking_plugin_ends_with_the_version_it_began_with() {
    check_waiting_call("blocking", get("/").header("x-nonce", "n"), |version| {
        answer_of(version, "w")
    });
}

#[test]
fn a_response_ends_with_the_version_it_began_with() {
    check_waiting_call("async", response(200), |version| {
        format!("answer 0 headers [x-version='{version}'] body none")
    });
}

#[test]
fn a_limiter_keeps_its_bucket_while_another_plugin_of_its_chain_is_upgraded() {
    let host = Host::builder().plugin("limit-req").start();
    let directory = host.plugins().join("versioned");
    version("0.1.0").swap_in(&directory);
    let mut gateway = host.gateway();
    let limit = json!({ "rate": 0.000_1 });
    let pass = json!({ "word": "w", "pass": true });
    let token = gateway.prepare(
        "route#1#pre#1",
        [("limit-req", limit), ("versioned", pass.clone())],
    );
    // A second route without a limit, to see the upgrade by.
    let probe = gateway.prepare("route#2#pre#1", [("versioned", word("probe"))]);
    until(&mut gateway, probe, "0.1.0", "probe");
    // The chain follows the probe's; until then calls fail closed, and take nothing of the bucket.
    wait_for("one request passes", || {
        let answer = gateway.call(token, get("/")).to_string();
        answer.contains("x-version='0.1.0'").then_some(())
    });
    let refused = gateway.call(token, get("/")).to_string();
    assert!(refused.starts_with("stop 503"), "{refused}");

    version("0.2.0").swap_in(&directory);
    until(&mut gateway, probe, "0.2.0", "probe");
    let still_refused = gateway.call(token, get("/")).to_string();
    assert!(still_refused.starts_with("stop 503"), "{still_refused}");
}

#[test]
fn ten_plugins_replaced_at_once_do_not_wait_for_a_bad_one_among_them() {
    let host = Host::builder().start();
    let name = |number: usize| format!("versione{number}");
    let place = |number: usize| host.plugins().join(name(number));
    for number in 0..10 {
        named(&name(number), "0.1.0").swap_in(&place(number));
    }
    let mut gateway = host.gateway();
    let tokens: Vec<u32> = (0..10)
        .map(|number| {
            let key = format!("route#{number}#pre#1");
            gateway.prepare(&key, [(name(number).as_str(), word("w"))])
        })
        .collect();
    for token in &tokens {
        until(&mut gateway, *token, "0.1.0", "w");
    }
    for number in 0..10 {
        let load = if number == 4 { "hang" } else { "" };
        named(&name(number), "0.2.0")
            .settings(json!({ "load": load }))
            .swap_in(&place(number));
    }
    for (_, token) in tokens.iter().enumerate().filter(|(number, _)| *number != 4) {
        until(&mut gateway, *token, "0.2.0", "w");
    }
    assert_eq!(answer(&mut gateway, tokens[4]), answer_of("0.1.0", "w"));
}

#[test]
fn a_configuration_that_works_now_vetoes_a_version_that_refuses_it_until_it_is_forced() {
    let (host, directory, mut gateway, token) = serving();
    let other = gateway.prepare("route#2#pre#1", [("versioned", word("other"))]);
    until(&mut gateway, other, "0.1.0", "other");
    version("0.2.0")
        .settings(json!({ "refuse": "hello" }))
        .swap_in(&directory);
    host.log_line(&["ERROR", "versioned", "0.2.0", "route#1#pre#1", "--force"]);
    assert_eq!(answer(&mut gateway, token), answer_of("0.1.0", "hello"));

    let (code, shown, _) = host.ask(&["reload", "--force"]);
    assert_eq!((code, shown.as_str()), (0, "versioned 0.2.0 serves\n"));
    until_closed(&mut gateway, token);
    let mut gateway = host.gateway();
    until(&mut gateway, other, "0.2.0", "other");
}

#[test]
fn a_version_beside_another_does_not_take_routes_over_whose_configurations_it_refuses() {
    let host = Host::builder().start();
    version("1.2.0").swap_in(&host.plugins().join("versioned@1.2.0"));
    host.log_line(&["plugin loaded", "version=1.2.0"]);
    let mut gateway = host.gateway();
    let token = gateway.prepare("route#1#pre#1", [("versioned@^1.2", word("hello"))]);
    until(&mut gateway, token, "1.2.0", "hello");
    let beside = host.plugins().join("versioned@1.3.0");
    version("1.3.0")
        .settings(json!({ "refuse": "hello" }))
        .swap_in(&beside);
    host.log_line(&["ERROR", "1.3.0", "route#1#pre#1", "--force"]);
    assert_eq!(answer(&mut gateway, token), answer_of("1.2.0", "hello"));

    version("1.3.0").swap_in(&beside);
    until_without_a_failure(&mut gateway, token, "1.2.0", "1.3.0");
}

#[test]
fn a_problem_that_lasts_is_told_once_and_mended_it_is_followed_by_the_upgrade() {
    let (host, directory, mut gateway, token) =
        serving_with(Host::builder().flag("--rescan-interval", "100ms"));
    let mut broken = version("0.2.0");
    broken.library[..4].fill(b'x');
    broken.swap_in(&directory);
    let told = || host.log().matches("ELF").count();
    host.log_line(&["ERROR", LIBRARY, "ELF"]);
    for _ in 0..5 {
        // Rescans go on meanwhile.
        thread::sleep(Duration::from_millis(100));
        assert_eq!(answer(&mut gateway, token), answer_of("0.1.0", "hello"));
    }
    assert_eq!(told(), 1, "{}", host.log());
    version("0.2.0").swap_in(&directory);
    until_without_a_failure(&mut gateway, token, "0.1.0", "0.2.0");
    assert_eq!(told(), 1);
}

#[test]
fn a_superseded_configuration_vetoes_nothing() {
    let (host, directory, mut gateway, token) = serving();
    let newer = gateway.prepare("route#1#pre#2", [("versioned", word("newer"))]);
    until(&mut gateway, newer, "0.1.0", "newer");
    version("0.2.0")
        .settings(json!({ "refuse": "hello" }))
        .swap_in(&directory);
    until(&mut gateway, newer, "0.2.0", "newer");
    host.log_line(&["WARN", "route#1#pre#1", "superseded"]);
    until_closed(&mut gateway, token);
}

#[test]
fn a_plugin_whose_directory_goes_serves_for_a_while_then_fails_closed_and_returns() {
    let (host, directory, mut gateway, token) = serving();
    let kept = directory.with_file_name(".kept");
    fs::rename(&directory, &kept).unwrap();
    assert_eq!(answer(&mut gateway, token), answer_of("0.1.0", "hello"));
    until_closed(&mut gateway, token);
    host.log_line(&["WARN", "versioned", "files are gone"]);
    host.log_line(&["version=0.1.0", "plugin unloaded"]);
    fs::rename(&kept, &directory).unwrap();
    let mut gateway = host.gateway();
    until(&mut gateway, token, "0.1.0", "hello");
}

#[test]
fn a_roll_back_needs_no_file_and_lasts_until_the_file_changes() {
    let (host, directory, mut gateway, token) = serving();
    let (code, _, error) = host.ask(&["rollback", "versioned"]);
    assert_eq!(code, 1);
    assert!(error.contains("no earlier version"), "{error}");

    version("0.2.0").swap_in(&directory);
    until(&mut gateway, token, "0.2.0", "hello");
    let (code, shown, _) = host.ask(&["rollback", "versioned"]);
    assert_eq!((code, shown.as_str()), (0, "versioned 0.1.0 serves\n"));
    assert_eq!(answer(&mut gateway, token), answer_of("0.1.0", "hello"));
    // A look at the directory finds the file that was rolled back from, which is not tried again.
    host.signal(rustix::process::Signal::HUP);
    host.log_line(&["SIGHUP"]);
    let (_, shown, _) = host.ask(&["status"]);
    assert!(shown.contains("versioned 0.1.0 serves"), "{shown}");
    assert_eq!(answer(&mut gateway, token), answer_of("0.1.0", "hello"));

    version("0.3.0").swap_in(&directory);
    until(&mut gateway, token, "0.3.0", "hello");
}

#[test]
fn what_was_rolled_back_to_can_be_rolled_back_to_again() {
    let (host, directory, mut gateway, token) = serving();
    for next in ["0.2.0", "0.3.0"] {
        version(next).swap_in(&directory);
        until(&mut gateway, token, next, "hello");
        let (_, shown, error) = host.ask(&["rollback", "versioned"]);
        assert_eq!(shown, "versioned 0.1.0 serves\n", "{error}");
        assert_eq!(answer(&mut gateway, token), answer_of("0.1.0", "hello"));
    }
}

#[test]
fn a_reload_tries_again_what_failed() {
    let (host, directory, mut gateway, token) = serving();
    version("0.2.0")
        .settings(json!({ "load": "fail" }))
        .swap_in(&directory);
    host.log_line(&["ERROR", "0.2.0", "told to fail"]);
    let (code, shown, _) = host.ask(&["reload"]);
    assert_eq!(code, 0);
    assert!(shown.contains("told to fail"), "{shown}");
    assert_eq!(answer(&mut gateway, token), answer_of("0.1.0", "hello"));
}

#[test]
fn a_reload_right_after_a_copy_loads_what_was_copied() {
    let (host, directory, mut gateway, token) = serving();
    version("0.2.0").write(&directory);
    let (code, shown, error) = host.ask(&["reload"]);
    assert_eq!(code, 0, "{error}");
    // The watcher may have been faster; in any case the new version serves now.
    assert!(!shown.contains("problem"), "{shown}");
    assert_eq!(answer(&mut gateway, token), answer_of("0.2.0", "hello"));
}

#[test]
fn a_thread_that_outlives_its_generation_does_no_harm() {
    let (host, directory, mut gateway, token) = serving();
    version("0.2.0")
        .settings(json!({ "load": "thread" }))
        .swap_in(&directory);
    until(&mut gateway, token, "0.2.0", "hello");
    version("0.3.0").swap_in(&directory);
    until(&mut gateway, token, "0.3.0", "hello");
    host.log_line(&["version=0.2.0", "plugin unloaded"]);
    let lines = || host.log().matches("still here").count();
    let before = lines();
    wait_for("the thread goes on", || {
        (lines() > before + 3).then_some(())
    });
    assert_eq!(answer(&mut gateway, token), answer_of("0.3.0", "hello"));
}

#[test]
fn two_hosts_share_a_plugin_directory_and_write_nothing_into_it() {
    let (first, directory, mut one, token) = serving();
    let second = Host::builder()
        .flag("--plugin-dir", first.plugins().to_str().unwrap())
        .start();
    let mut other = second.gateway();
    let others = other.prepare("route#1#pre#1", [("versioned", word("hello"))]);
    until(&mut other, others, "0.1.0", "hello");
    version("0.2.0").swap_in(&directory);
    // Whoever runs the tests as root can write all the same: so what is there is compared as well.
    let read_only = |path: &Path, mode| {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    };
    read_only(&directory, 0o555);
    read_only(&first.plugins(), 0o555);
    until(&mut one, token, "0.2.0", "hello");
    until(&mut other, others, "0.2.0", "hello");
    assert_eq!(names_in(&first.plugins()), ["versioned"]);
    assert_eq!(names_in(&directory), [LIBRARY, "plugin.json"]);
    let expected = version("0.2.0").library;
    assert!(fs::read(directory.join(LIBRARY)).unwrap() == expected);
    // For the removal of the test's own directory.
    read_only(&first.plugins(), 0o755);
    read_only(&directory, 0o755);
}

fn names_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn misdeeds_of_a_new_version_are_found_in_the_rehearsal_and_the_old_one_serves_on() {
    for (misdeed, told) in [
        ("fail", "told to fail"),
        ("panic", "told to panic"),
        ("exit", "exit code 0"),
        ("abort", "SIGABRT"),
        ("fault", "SIGSEGV"),
    ] {
        let (host, directory, mut gateway, token) = serving();
        version("0.2.0")
            .settings(json!({ "load": misdeed }))
            .swap_in(&directory);
        host.log_line(&["ERROR", "versioned", "0.2.0", told]);
        assert_eq!(answer(&mut gateway, token), answer_of("0.1.0", "hello"));
        // The same bad bytes are not tried again.
        host.signal(rustix::process::Signal::HUP);
        host.log_line(&["SIGHUP"]);
        let (_, shown, _) = host.ask(&["status"]);
        assert!(
            shown.contains("0.1.0 serves") && shown.contains(told),
            "{shown}"
        );
        assert_eq!(host.log().matches(" was not loaded").count(), 1);
    }
}
