//! The files of `docs/deployment` and the pages made of the program: what they say is what the program
//! takes.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use saphyr_parser::{Event, Parser};

use crate::support::plugin_host;

fn read(path: &str) -> String {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every list of texts in a file of YAML documents, those in texts of it included.
fn lists_of(yaml: &str) -> Vec<Vec<String>> {
    let mut lists = Vec::new();
    let mut open: Vec<Vec<String>> = Vec::new();
    for event in Parser::new_from_str(yaml) {
        match event.unwrap_or_else(|error| panic!("{error}\n{yaml}")).0 {
            Event::SequenceStart(..) => open.push(Vec::new()),
            Event::SequenceEnd => lists.extend(open.pop()),
            Event::Scalar(text, ..) => {
                if text.contains("ext-plugin:") {
                    lists.extend(lists_of(&text));
                }
                if let Some(list) = open.last_mut() {
                    list.push(text.into_owned());
                }
            }
            _ => {}
        }
    }
    lists
}

/// The arguments of `plugin-host run` are understood, and nothing is said against their values.
fn takes(file: &str, arguments: &[String]) {
    let mut all = vec!["run".to_owned(), "--check-config".to_owned()];
    all.extend(arguments.iter().cloned());
    let ended = plugin_host(&all);
    assert_eq!(ended.code, 0, "{file}: {ended:?}");
}

#[test]
fn every_manifest_is_yaml_and_starts_a_host_with_flags_that_there_are() {
    for (file, flags) in [
        ("docs/deployment/gateway-cmd.yaml", Some(3)),
        ("docs/deployment/gateway-outside.yaml", None),
        ("docs/deployment/kubernetes-init.yaml", Some(7)),
        ("docs/deployment/kubernetes-volume.yaml", Some(7)),
    ] {
        let lists = lists_of(&read(file));
        let starts: Vec<_> = lists
            .iter()
            .filter_map(|list| {
                let run = list.iter().position(|word| word == "run")?;
                Some(list[run + 1..].to_vec())
            })
            .collect();
        assert_eq!(starts.len(), usize::from(flags.is_some()), "{file}");
        for arguments in starts {
            assert!(arguments.len() >= flags.unwrap(), "{file}: {arguments:?}");
            takes(file, &arguments);
        }
    }
}

#[test]
fn the_containers_of_a_manifest_share_the_directory_of_the_socket_and_probe_what_is_there() {
    for file in [
        "docs/deployment/kubernetes-init.yaml",
        "docs/deployment/kubernetes-volume.yaml",
    ] {
        let text = read(file);
        // Once in each container.
        assert_eq!(
            text.matches("{name: runner, mountPath: /run/runner}")
                .count(),
            2,
            "{file}"
        );
        assert!(text.contains("--listen=/run/runner/runner.sock"), "{file}");
        for probe in ["/healthz", "/readyz"] {
            assert!(
                text.contains(&format!("httpGet: {{path: {probe}, port: telemetry}}")),
                "{file}"
            );
        }
        assert!(text.contains("--telemetry-listen=0.0.0.0:9091"), "{file}");
        assert!(
            text.contains("{name: telemetry, containerPort: 9091}"),
            "{file}"
        );
    }
}

#[test]
fn the_images_copy_files_that_there_are_and_start_a_host_with_flags_that_there_are() {
    let mut copied = 0;
    for file in [
        "docs/deployment/Dockerfile",
        "docs/deployment/Dockerfile.host",
    ] {
        let text = read(file);
        for line in text.lines().filter(|line| line.starts_with("COPY ")) {
            let words: Vec<_> = line.split_whitespace().skip(1).collect();
            let from_build = words.iter().any(|word| word.starts_with("--from="));
            let source = words.iter().find(|word| !word.starts_with("--")).unwrap();
            if !from_build && *source != "." && *source != "plugin-host" {
                read(source);
                copied += 1;
            }
        }
        if let Some(command) = text.lines().find_map(|line| line.strip_prefix("CMD ")) {
            let words: Vec<String> = serde_json::from_str(command).unwrap();
            assert_eq!(words[0], "run");
            takes(file, &words[1..]);
        }
    }
    assert_eq!(copied, 2);
}

#[test]
fn systemd_understands_the_unit_and_the_host_its_command() {
    let directory = tempfile::tempdir().unwrap();
    let unit = read("docs/deployment/plugin-host.service");
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let words: Vec<_> = start
        .unwrap()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    assert_eq!(words[..2], ["/usr/local/bin/plugin-host", "run"]);
    let config = directory.path().join("host.toml");
    fs::write(&config, read("docs/deployment/host.toml")).unwrap();
    let here = |word: &String| word.replace("/etc/plugin-host/host.toml", config.to_str().unwrap());
    takes(
        "plugin-host.service",
        &words[2..].iter().map(here).collect::<Vec<_>>(),
    );

    // The program is where it was built.
    let program = env!("CARGO_BIN_EXE_plugin-host");
    let unit = unit.replace("/usr/local/bin/plugin-host", program);
    let file = directory.path().join("plugin-host.service");
    fs::write(&file, unit).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let judged = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&file)
        .output()
        .expect("systemd-analyze is there: scripts/install-tools --tests");
    let said = String::from_utf8_lossy(&judged.stderr);
    let about: Vec<_> = said
        .lines()
        .filter(|line| line.contains("plugin-host"))
        .collect();
    assert!(judged.status.success() && about.is_empty(), "{said}");
}

#[test]
fn the_configuration_reference_is_what_the_program_writes() {
    let written = plugin_host(&["reference"]);
    assert_eq!(written.code, 0, "{written:?}");
    assert!(
        written.stdout == read("docs/configuration.md"),
        "docs/configuration.md is out of date: cargo run -p plugin-host -- reference > docs/configuration.md"
    );
    for row in [
        "| `--backlog CONNECTIONS`<br>`PLUGIN_HOST_BACKLOG`<br>`backlog` | `4096` | from 1 to 65535 |",
        "### plugin-host doctor",
        "| `--gateway-config <FILE>` |",
    ] {
        assert!(written.stdout.contains(row), "no {row}");
    }
}
