//! Hooks of operators: commands and posts that hear what happens to plugins, and whom nobody waits for.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    Host, asking, get, is_alive,
    serving::{serving_with, until},
    versions::version,
    wait_for,
};

/// A file that hooks of a test write to.
fn scratch() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("told");
    (directory, file)
}

/// What hooks have written, line by line.
fn told(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn event_of(file: &Path, event: &str, plugin: &str, version: &str) -> Value {
    wait_for(&format!("{event} of {plugin} {version}"), || {
        told(file).into_iter().find(|told| {
            told["event"] == event
                && told["plugin"] == plugin
                && (version.is_empty() || told["plugin_version"] == version)
        })
    })
}

/// A command that writes each event on a line.
fn keeps(file: &Path) -> String {
    format!("event=$(cat); echo \"$event\" >> {}", file.display())
}

/// The value of a series in the metrics.
fn number(host: &Host, series: &str) -> f64 {
    let text = asking::get("/metrics").of(host).body;
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix(series));
    let value = line.unwrap_or_else(|| panic!("no {series} in {text}"));
    value.trim().parse().unwrap()
}

#[test]
fn events_that_find_no_room_are_counted_in_the_metrics_by_what_they_were() {
    let (_directory, file) = scratch();
    // The first one is never done, and all are of one plugin: the others wait.
    let hook = format!(
        "cat > /dev/null; echo begun >> {}; sleep 600",
        file.display()
    );
    let builder = Host::builder()
        .flag("--hook-disable", &hook)
        .flag("--hook-enable", &hook)
        .flag("--hook-timeout", "600s");
    let host = builder.start();
    let lost = |event: &str| {
        let series = format!("pluginhost_hook_events_lost_total{{event=\"{event}\"}}");
        number(&host, &series)
    };
    assert_eq!((lost("disable"), lost("enable")), (0.0, 0.0));
    let switch = |action: &str| {
        let path = format!("/v1/plugins/nobody/{action}");
        assert_eq!(asking::post(&path).of(&host).status, 200);
    };
    switch("disable");
    wait_for("the first hook runs", || file.exists().then_some(()));
    for _ in 0..129 {
        switch("enable");
        switch("disable");
    }
    // 256 of these 258 wait.
    assert_eq!((lost("enable"), lost("disable")), (1.0, 1.0));
    host.log_line(&["no hook hears of an event", "lost=2"]);
    let text = asking::get("/metrics").of(&host).body;
    assert!(
        !text.contains("event=\"load\""),
        "only what has a hook: {text}"
    );
}

#[test]
fn each_thing_that_happens_to_a_plugin_is_told_to_a_command_as_json() {
    let (_directory, file) = scratch();
    let builder = Host::builder()
        .plugin("misdeeds")
        .flag("--hook-all", &keeps(&file))
        .flag("--quarantine-crashes", "1");
    let (host, directory, mut gateway, token) = serving_with(builder);
    let event = |event: &str, version: &str| event_of(&file, event, "versioned", version);

    let loaded = event("load", "0.1.0");
    assert_eq!(loaded["version"], 1);
    assert_eq!(loaded["previous"], Value::Null);
    assert_eq!(loaded["digest"].as_str().unwrap().len(), 64);
    assert_eq!(loaded["host"]["pid"], host.id());
    assert_eq!(
        loaded["host"]["listen"],
        format!("unix:{}", host.socket().display())
    );
    // What the documentation shows is what there is.
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/hooks.md"));
    let page = page.unwrap();
    let example = page.split("```json\n").nth(1).unwrap();
    let example: Value = serde_json::from_str(example.split("```").next().unwrap()).unwrap();
    let fields = |of: &Value| -> Vec<String> {
        let fields = of.as_object().unwrap().keys();
        fields.cloned().collect()
    };
    assert_eq!(fields(&loaded), fields(&example));
    assert_eq!(fields(&loaded["host"]), fields(&example["host"]));

    version("0.2.0").swap_in(&directory);
    assert_eq!(event("upgrade", "0.2.0")["previous"], "0.1.0");
    until(&mut gateway, token, "0.2.0", "hello");
    version("0.3.0")
        .settings(json!({ "refuse": "hello" }))
        .swap_in(&directory);
    let refused = event("refused", "0.3.0");
    assert_eq!(refused["previous"], "0.2.0");
    let reason = refused["reason"].as_str().unwrap();
    assert!(reason.contains("does not like the word hello"), "{reason}");
    assert_eq!(host.ask(&["rollback", "versioned"]).0, 0);
    let back = event("rollback", "0.1.0");
    assert_eq!(back["previous"], "0.2.0");
    let user = format!("user {} (process ", rustix::process::getuid().as_raw());
    let by_us = |event: &Value| {
        let by = event["by"].as_str().unwrap_or_default();
        assert!(by.starts_with(&user), "{event}");
    };
    by_us(&back);
    assert_eq!(loaded["by"], Value::Null);

    assert_eq!(host.ask(&["disable", "versioned"]).0, 0);
    by_us(&event("disable", ""));
    assert_eq!(host.ask(&["enable", "versioned"]).0, 0);
    by_us(&event("enable", ""));
    assert_eq!(host.ask(&["quarantine", "versioned"]).0, 0);
    by_us(&event("quarantine", "0.1.0"));
    assert_eq!(host.ask(&["lift", "versioned"]).0, 0);
    by_us(&event("lift", "0.1.0"));

    let mut victim = host.gateway();
    let kills = victim.route([("misdeeds", json!({ "request": ["fault"] }))]);
    let _ = victim.try_call(kills, get("/"));
    let crash = event_of(&file, "crash", "misdeeds", "0.1.0");
    let reason = crash["reason"].as_str().unwrap();
    assert!(reason.contains("SIGSEGV"), "{reason}");
    let quarantined = event_of(&file, "quarantine", "misdeeds", "0.1.0");
    assert_eq!(quarantined["reason"], "it has ended too many workers");
    assert_eq!(quarantined["by"], Value::Null);

    fs::remove_dir_all(&directory).unwrap();
    event("remove", "");
    // Each is counted, by what it was and what became of it.
    let count = |event: &str, outcome: &str| {
        let series =
            format!("pluginhost_hook_runs_total{{event=\"{event}\",outcome=\"{outcome}\"}}");
        number(&host, &series)
    };
    wait_for("the hook has been counted", || {
        (count("remove", "done") == 1.0).then_some(())
    });
    for (event, times) in [
        ("rollback", 1.0),
        ("disable", 1.0),
        ("crash", 1.0),
        ("quarantine", 2.0),
    ] {
        assert_eq!(count(event, "done"), times, "{event}");
        assert_eq!(count(event, "failed"), 0.0, "{event}");
    }
    assert_eq!(
        number(&host, "pluginhost_hook_events_lost_total{event=\"crash\"}"),
        0.0
    );
    // In the order in which they happened.
    let events = told(&file);
    let of_versioned = events.iter().filter(|told| told["plugin"] == "versioned");
    let names: Vec<_> = of_versioned
        .map(|told| told["event"].as_str().unwrap())
        .collect();
    assert_eq!(
        names[..7],
        [
            "load",
            "upgrade",
            "refused",
            "rollback",
            "disable",
            "enable",
            "quarantine"
        ]
    );
    let mut times: Vec<_> = events
        .iter()
        .filter(|told| told["plugin"] == "versioned")
        .collect();
    times.dedup_by_key(|told| told["at"].clone());
    assert!(times.is_sorted_by_key(|told| told["at"].as_str().unwrap()));
}

#[test]
fn a_worker_that_takes_over_or_stands_by_tells_nothing_anew() {
    let (_directory, file) = scratch();
    let builder = Host::builder()
        .flag("--standby", "true")
        .flag("--hook-all", &keeps(&file));
    let (host, directory, mut gateway, token) = serving_with(builder);
    wait_for("another worker stands by", || {
        (host.workers().len() == 2).then_some(())
    });
    version("0.2.0").swap_in(&directory);
    until(&mut gateway, token, "0.2.0", "hello");
    host.replace_worker();
    until(&mut gateway, token, "0.2.0", "hello");
    // What comes last shows that nothing else is on its way.
    assert_eq!(host.ask(&["disable", "versioned"]).0, 0);
    event_of(&file, "disable", "versioned", "");
    let events = told(&file);
    let names: Vec<_> = events.iter().map(|told| &told["event"]).collect();
    assert_eq!(names, ["load", "upgrade", "disable"]);
}

#[test]
fn a_hook_that_takes_too_long_is_ended_with_what_it_has_started_and_holds_no_upgrade_up() {
    let (_directory, file) = scratch();
    let slow = format!("sleep 600 & echo $! > {}.pid; wait", file.display());
    let builder = Host::builder()
        .flag("--hook-load", &slow)
        .flag("--hook-upgrade", &keeps(&file))
        .flag("--hook-timeout", "8s");
    let (host, directory, mut gateway, token) = serving_with(builder);
    let started: u32 = wait_for("the hook runs", || {
        let pid = fs::read_to_string(format!("{}.pid", file.display())).ok()?;
        pid.trim().parse().ok()
    });
    version("0.2.0").swap_in(&directory);
    until(&mut gateway, token, "0.2.0", "hello");
    assert!(
        is_alive(started),
        "the upgrade was there before the hook's end"
    );
    assert!(told(&file).is_empty(), "one after the other");
    host.log_line(&["a hook has failed", "hook-load", "it took longer than 8s"]);
    event_of(&file, "upgrade", "versioned", "0.2.0");
    assert!(!is_alive(started));
}

#[test]
fn a_hook_that_fails_is_a_line_of_the_log_and_inherits_nothing_but_its_own() {
    let (scratch, file) = scratch();
    // A gateway that leaves a descriptor open in its child.
    let program = scratch.path().join("leaky");
    let script = format!(
        "#!/bin/sh\nexec 7</dev/zero\nexec {} \"$@\"\n",
        env!("CARGO_BIN_EXE_plugin-host")
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let file = file.display();
    let hook = format!(
        "ls -l /proc/$$/fd > {file}; echo $HOOK_EVENT $HOOK_PLUGIN $HOOK_VERSION [$NOTIFY_SOCKET] >&2; exit 3"
    );
    let builder = Host::builder()
        .program(&program)
        .env("NOTIFY_SOCKET", "/nowhere")
        .flag("--hook-load", &hook);
    let (host, _, mut gateway, token) = serving_with(builder);
    let leaked = fs::read_link(format!("/proc/{}/fd/7", host.id())).unwrap();
    assert_eq!(leaked, Path::new("/dev/zero"), "the host itself has it");
    host.log_line(&[
        "a hook has failed",
        "it ended with 3; it wrote: load versioned 0.1.0 []",
    ]);
    let descriptors = fs::read_to_string(scratch.path().join("told")).unwrap();
    assert!(!descriptors.contains("/dev/zero"), "{descriptors}");
    assert!(!descriptors.contains("/log"), "{descriptors}");
    until(&mut gateway, token, "0.1.0", "hello");
}

#[test]
fn a_hook_ends_with_its_host_however_that_ends() {
    let (_directory, file) = scratch();
    let hook = format!("echo $$ > {}; sleep 600", file.display());
    let (mut host, _, _, _) = serving_with(Host::builder().flag("--hook-load", &hook));
    let shell: u32 = wait_for("the hook runs", || {
        fs::read_to_string(&file).ok()?.trim().parse().ok()
    });
    host.process().kill().unwrap();
    host.end();
    wait_for("the hook has ended", || (!is_alive(shell)).then_some(()));
}

/// A server that keeps what is posted to it.
struct Inbox {
    url: String,
    posts: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Inbox {
    /// One that answers like this, or not at all.
    fn answering(answer: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/in", listener.local_addr().unwrap());
        let posts: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let kept = Arc::clone(&posts);
        thread::spawn(move || {
            let mut silent = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                kept.lock().unwrap().push(read_post(&mut stream));
                match answer {
                    Some(status) => {
                        let head = format!(
                            "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                        );
                        stream.write_all(head.as_bytes()).unwrap();
                    }
                    None => silent.push(stream),
                }
            }
        });
        Self { url, posts }
    }
}

fn read_post(stream: &mut TcpStream) -> (String, Value) {
    let mut bytes = Vec::new();
    let mut piece = [0; 4_096];
    loop {
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "the request broke off");
        bytes.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.split("content-length: ").nth(1).unwrap();
        let length: usize = length.lines().next().unwrap().parse().unwrap();
        if body.len() == length {
            let start = bytes.len() - length;
            let body = serde_json::from_slice(&bytes[start..]).unwrap();
            return (head.to_owned(), body);
        }
    }
}

#[test]
fn events_are_posted_as_json_and_an_answer_that_is_none_or_no_good_is_a_line_of_the_log() {
    let good = Inbox::answering(Some("204 No Content"));
    let refuses = Inbox::answering(Some("500 Oh No"));
    let silent = Inbox::answering(None);
    // That plugins may not call anybody is another matter.
    let builder = Host::builder()
        .config(&format!("[hooks]\nall = {:?}\n", good.url))
        .flag("--http-client", "false")
        .flag("--hook-load", &refuses.url)
        .flag("--hook-upgrade", &silent.url)
        .flag("--hook-timeout", "500ms");
    let (host, directory, _, _) = serving_with(builder);
    let (head, body) = wait_for("the post", || good.posts.lock().unwrap().first().cloned());
    assert!(head.starts_with("post /in http/1.1"), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    assert_eq!(
        (&body["event"], &body["plugin"]),
        (&json!("load"), &json!("versioned"))
    );
    host.log_line(&["a hook has failed", "hook-load", "the answer is 500"]);
    version("0.2.0").swap_in(&directory);
    let began = Instant::now();
    host.log_line(&[
        "a hook has failed",
        "hook-upgrade",
        "has not answered within 500 ms",
    ]);
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(silent.posts.lock().unwrap()[0].1["plugin_version"], "0.2.0");
    // Nobody is shown where it goes.
    let (_, settings, _) = host.ask(&["settings", "--json"]);
    assert!(
        settings.contains("hooks.all") && !settings.contains(&good.url),
        "{settings}"
    );
    assert!(!host.log().contains("/in"), "a path may have a token in it");
}
