//! What the process that runs plugins gives up, and what is thought of files that others can change.
//!
//! Only root can become somebody else: where the tests run as another user, they show that a host
//! then refuses.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use crate::support::{Host, get, wait_for};

const SAY: &str = r#"{"body":"hello"}"#;
const HELLO: &str = "stop 200 headers [X-Resp-A6-Runner='Rust'] body 'hello'";

/// A line of `/proc/PID/status`, without its name.
fn status(process: u32, name: &str) -> Vec<String> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .unwrap();
    line.split_whitespace().map(str::to_owned).collect()
}

/// The limits on core dumps, soft and hard.
fn core_limits(process: &str) -> Vec<String> {
    let limits = fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max core file size"))
        .unwrap();
    line.split_whitespace().map(str::to_owned).collect()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn plugins_run_as_the_user_that_the_operator_names_with_that_group_alone() {
    let builder = Host::builder()
        .plugin("say")
        .directory_mode(0o755)
        .flag("--user", "nobody");
    if !is_root() {
        let mut host = builder.spawn();
        assert_eq!(host.end().code(), Some(1));
        host.log_line(&["only root can become another user"]);
        return;
    }
    let host = builder.start();
    let mut gateway = host.gateway();
    let token = gateway.route([("say", SAY)]);
    assert_eq!(gateway.call(token, get("/")), HELLO);

    let nobody = status(host.worker(), "Uid");
    assert_ne!(nobody[0], "0");
    assert!(nobody.iter().all(|user| *user == nobody[0]), "{nobody:?}");
    let group = status(host.worker(), "Gid");
    assert!(
        group
            .iter()
            .all(|number| *number == group[0] && number != "0")
    );
    assert_eq!(status(host.worker(), "Groups"), Vec::<String>::new());
    assert_eq!(status(host.worker(), "CapEff"), ["0000000000000000"]);
}

#[test]
fn a_plugin_that_the_user_cannot_read_is_a_problem_of_that_plugin() {
    if !is_root() {
        return;
    }
    let host = Host::builder()
        .directory_mode(0o755)
        .flag("--user", "65534")
        .flag("--group", "65534")
        .start();
    let library = host.plugins().join("libsay.so");
    fs::write(&library, "not for everybody").unwrap();
    fs::set_permissions(&library, fs::Permissions::from_mode(0o600)).unwrap();
    host.log_line(&["ERROR", "libsay.so", "Permission denied"]);
}

#[test]
fn a_group_without_a_user_and_users_that_are_not_there_are_refused() {
    let refused = |flags: &[(&str, &str)], expected: &str| {
        let builder = Host::builder();
        let mut host = flags
            .iter()
            .fold(builder, |builder, (flag, value)| builder.flag(flag, value))
            .spawn();
        assert_eq!(host.end().code(), Some(2));
        assert!(host.log().contains(expected), "{}", host.log());
    };
    refused(
        &[("--user", "no-such-user")],
        "--user: there is no user `no-such-user`",
    );
    refused(
        &[("--user", "nobody"), ("--group", "no-such-group")],
        "--group: there is no group `no-such-group`",
    );
    refused(
        &[("--group", "0")],
        "`group` and `user`: a group alone takes nothing from root",
    );
}

#[test]
fn no_process_of_a_plugin_gains_privileges_or_leaves_a_core_dump() {
    let host = Host::builder().start();
    host.log_line(&["the plugin directory has been read"]);
    assert_eq!(status(host.worker(), "NoNewPrivs"), ["1"]);
    // 1 and not 0, since at 0 a dump may still be piped to a program. 0 where it may not be raised.
    let limits = core_limits(&host.worker().to_string());
    assert!(["0", "1"].contains(&limits[0].as_str()), "{limits:?}");
    assert_eq!(limits[0], limits[1]);
}

#[test]
fn core_dumps_are_as_the_system_has_them_where_the_operator_wants_them() {
    let host = Host::builder().flag("--core-dumps", "true").start();
    host.log_line(&["the plugin directory has been read"]);
    assert_eq!(
        core_limits(&host.worker().to_string()),
        core_limits("self"),
        "as whoever started the host has them"
    );
}

#[test]
fn files_that_others_can_change_are_warned_about_once_for_each_place() {
    let host = Host::builder()
        .plugin("say")
        .plugin("scripted")
        .directory_mode(0o777)
        .start();
    host.log_line(&["plugin loaded", "plugin=say"]);
    host.log_line(&["plugin loaded", "plugin=scripted"]);
    let log = host.log();
    let warnings: Vec<_> = log
        .lines()
        .filter(|line| line.contains("WARN") && line.contains("others can change"))
        .collect();
    // What both share: the host's own directory and the one with the plugins. What each has:
    // directory, library and metadata.
    assert_eq!(warnings.len(), 2 + 2 * 3, "{warnings:#?}");
    let expected = format!(
        "others can change {} (mode 0777, owner {}",
        host.plugins().display(),
        rustix::process::geteuid().as_raw()
    );
    let shared = warnings.iter().filter(|line| line.contains(&expected));
    assert_eq!(shared.count(), 1, "{warnings:#?}");
}

#[test]
fn strict_permissions_refuse_what_others_can_change_and_take_it_when_they_no_longer_can() {
    let host = Host::builder()
        .plugin("say")
        .directory_mode(0o777)
        .flag("--strict-permissions", "true")
        .start();
    let line = host.log_line(&["ERROR", "was not loaded", "others can change"]);
    let next = format!("`chmod go-w {}`", host.directory().display());
    assert!(
        line.contains("plugin say 0.1.0") && line.contains(&next),
        "{line}"
    );
    let mut gateway = host.gateway();
    let token = gateway.route([("say", SAY)]);
    assert_eq!(gateway.call(token, get("/")), "error 1");

    host.set_mode(0o755);
    let (code, text, problem) = host.ask(&["reload"]);
    assert_eq!(code, 0, "{text}{problem}");
    wait_for("the route is served", || {
        (gateway.call(token, get("/")) == HELLO).then_some(())
    });
}

#[test]
fn what_a_host_keeps_for_itself_nobody_else_can_open() {
    let host = Host::with("say");
    host.log_line(&["plugin loaded"]);
    let mut seen = 0;
    closed_to_others(&host.directory().join("plugin-host"), &mut seen);
    // At least the lock, the control socket, and the plugin's private copy.
    assert!(seen >= 6, "{seen} files and directories");
}

fn closed_to_others(path: &Path, seen: &mut usize) {
    let metadata = fs::symlink_metadata(path).unwrap();
    let mode = metadata.mode() & 0o777;
    assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
    *seen += 1;
    if metadata.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            closed_to_others(&entry.unwrap().path(), seen);
        }
    }
}
