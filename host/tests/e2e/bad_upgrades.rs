//! Every way in which the files of a plugin can be bad, all at once in one host: each is told with its
//! reason, what served before serves on, and nobody else is disturbed.

use std::{fs, os::unix::fs::symlink, path::Path};

use serde_json::json;

use crate::support::{
    Host, get,
    versions::{Files, LIBRARY, named, replace},
};

/// One way: what is done to version 0.2.0 of a plugin before it is put in place, and what the log has
/// to say about it.
struct Bad {
    why: &'static str,
    put: fn(Files, &Path),
    told: &'static [&'static str],
}

/// Changes the library before it is put in place.
fn with_library(mut files: Files, directory: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    change(&mut files.library);
    files.swap_in(directory);
}

/// Changes `plugin.json` before it is put in place.
fn with_field(mut files: Files, directory: &Path, field: &str, value: serde_json::Value) {
    files.metadata[field] = value;
    files.swap_in(directory);
}

const BAD: &[Bad] = &[
    Bad {
        why: "malformed metadata",
        put: |files, directory| {
            files.swap_in_after(directory, |staged| {
                fs::write(staged.join("plugin.json"), "{\"name\": ").unwrap();
            });
        },
        told: &["plugin.json", "JSON"],
    },
    Bad {
        why: "no version",
        put: |files, directory| with_field(files, directory, "version", json!("latest")),
        told: &["plugin.json", "version"],
    },
    Bad {
        why: "a name unlike its directory's",
        put: |files, directory| with_field(files, directory, "name", json!("somebody")),
        told: &["somebody"],
    },
    Bad {
        why: "another plugin of equal precedence",
        put: |_, directory| {
            let name = directory.file_name().unwrap().to_str().unwrap();
            let twin = named(name, "0.1.0");
            twin.swap_in(&directory.with_file_name(format!("{name}@0.1.0")));
        },
        told: &["@0.1.0"],
    },
    Bad {
        why: "no library",
        put: |files, directory| {
            files.swap_in_after(directory, |staged| {
                fs::remove_file(staged.join(LIBRARY)).unwrap();
            });
        },
        told: &[LIBRARY],
    },
    Bad {
        why: "a library cut short",
        put: |files, directory| {
            with_library(files, directory, |library| {
                library.truncate(library.len() / 2)
            });
        },
        told: &[LIBRARY, "cut"],
    },
    Bad {
        why: "no ELF file",
        put: |files, directory| with_library(files, directory, |library| library[..4].fill(b'x')),
        told: &[LIBRARY, "ELF"],
    },
    Bad {
        why: "another machine",
        // e_machine: SPARC.
        put: |files, directory| with_library(files, directory, |library| library[18] = 2),
        told: &[LIBRARY, "machine"],
    },
    Bad {
        why: "no entry symbol",
        put: |files, directory| {
            with_library(files, directory, |library| {
                replace(
                    library,
                    "PLUGIN_HOST_ROOT_MODULE",
                    "PLUGIN_HOST_ROOT_NOTHIN",
                );
            });
        },
        told: &[LIBRARY, "export_plugin!"],
    },
    Bad {
        why: "another ABI version",
        put: |files, directory| {
            with_library(files, directory, |library| {
                replace(library, "\0abi_version=1.", "\0abi_version=9.");
            });
        },
        told: &[LIBRARY, "ABI"],
    },
    Bad {
        why: "another layout of the ABI",
        put: |files, directory| {
            with_library(files, directory, |library| {
                replace(library, "milliseconds_left", "millisekonds_left");
            });
        },
        told: &["was not loaded", "millisekonds_left"],
    },
    Bad {
        why: "aborts on panic",
        put: |files, directory| {
            with_library(files, directory, |library| {
                replace(library, "\0panic=unwind\0", "\0panic=abort\0\0");
            });
        },
        told: &[LIBRARY, "abort"],
    },
    Bad {
        why: "another digest",
        put: |mut files, directory| {
            files.metadata["source"]["sha256"] = json!("0".repeat(64));
            files.swap_in(directory);
        },
        told: &[LIBRARY, "sha256"],
    },
    Bad {
        why: "a path that leaves the directory",
        put: |mut files, directory| {
            files.metadata["source"]["path"] = json!("../elsewhere.so");
            files.swap_in(directory);
        },
        told: &["plugin.json", "source.path"],
    },
    Bad {
        why: "a link out of the directory",
        put: |files, directory| {
            let outside = directory.with_file_name(".outside.so");
            fs::write(&outside, &files.library).unwrap();
            files.swap_in_after(directory, |staged| {
                fs::remove_file(staged.join(LIBRARY)).unwrap();
                symlink(&outside, staged.join(LIBRARY)).unwrap();
            });
        },
        told: &[LIBRARY, "leads out"],
    },
];

#[test]
fn each_bad_plugin_is_told_with_its_reason_and_the_old_version_serves_on() {
    let host = Host::builder().start();
    let name = |number: usize| format!("versio{number:03}");
    for number in 0..BAD.len() {
        named(&name(number), "0.1.0").swap_in(&host.plugins().join(name(number)));
    }
    let mut gateway = host.gateway();
    let tokens: Vec<u32> = (0..BAD.len())
        .map(|number| {
            let key = format!("route#{number}#pre#1");
            gateway.prepare(&key, [(name(number).as_str(), json!({ "word": "w" }))])
        })
        .collect();
    let serves = "X-Version='0.1.0'";
    for token in &tokens {
        crate::support::wait_for("the first version serves", || {
            let answer = gateway.call(*token, get("/")).to_string();
            answer.contains(serves).then_some(())
        });
    }
    for (number, bad) in BAD.iter().enumerate() {
        (bad.put)(
            named(&name(number), "0.2.0"),
            &host.plugins().join(name(number)),
        );
    }
    for (number, bad) in BAD.iter().enumerate() {
        let name = name(number);
        let mut told = vec!["ERROR", name.as_str()];
        told.extend(bad.told);
        host.log_line(&told);
    }
    for (token, bad) in tokens.iter().zip(BAD) {
        let answer = gateway.call(*token, get("/")).to_string();
        assert!(answer.contains(serves), "{}: {answer}", bad.why);
    }
}

#[test]
fn an_unknown_field_is_a_warning_to_a_running_host() {
    let host = Host::builder().start();
    let mut files = named("versioned", "0.1.0");
    files.metadata["versoin"] = json!("0.2.0");
    files.swap_in(&host.plugins().join("versioned"));
    host.log_line(&["WARN", "versioned", "versoin", "version"]);
    host.log_line(&["INFO", "versioned", "0.1.0", "plugin loaded"]);
}
