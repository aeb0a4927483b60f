//! The binary contract as a file: whoever changes it sees what they change.
//!
//! `layout.snap` holds the layout of every type that crosses the boundary. A library built before a
//! change loads into a host built after it only where `docs/abi.md` says so.

#![allow(clippy::unwrap_used, reason = "a failed test says where it failed")]

use std::{fs, path::Path};

#[test]
fn the_abi_is_what_the_snapshot_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/layout.snap");
    let now = plugin_abi::abi::layout_text();
    if std::env::var_os("UPDATE_SNAPSHOT").is_some() {
        fs::write(&file, &now).unwrap();
    }
    let then = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        then == now,
        "the ABI has changed (- before, + now):\n{}\nRead \"How to change the ABI\" in docs/abi.md. \
         If the change is right, run\n  UPDATE_SNAPSHOT=1 cargo test -p plugin-abi --test layout\n\
         and commit plugin-abi/tests/layout.snap with it.",
        difference(&then, &now)
    );
}

/// The lines that only one of two texts has, between those that both have.
fn difference(then: &str, now: &str) -> String {
    let (then, now): (Vec<_>, Vec<_>) = (then.lines().collect(), now.lines().collect());
    let mut text = String::new();
    let (mut old, mut new) = (0, 0);
    while old < then.len() || new < now.len() {
        // How far it is to the next line that both have: the nearest on either side wins.
        let (skip_old, skip_new) = (0..then.len() + now.len() - old - new)
            .flat_map(|sum| (0..=sum).map(move |skip| (skip, sum - skip)))
            .take(LOOK_AHEAD)
            .find(|(skip_old, skip_new)| {
                let both = then.get(old + skip_old).zip(now.get(new + skip_new));
                // Blank lines are everywhere: they are no place to meet again.
                both.is_some_and(|(then, now)| {
                    then == now && (skip_old + skip_new == 0 || !then.is_empty())
                })
            })
            .unwrap_or((then.len() - old, now.len() - new));
        for line in &then[old..old + skip_old] {
            text += &format!("- {line}\n");
        }
        for line in &now[new..new + skip_new] {
            text += &format!("+ {line}\n");
        }
        (old, new) = (old + skip_old + 1, new + skip_new + 1);
    }
    text
}

/// How many pairs of lines are compared for the next one that both texts have: about 140 lines on
/// each side. Beyond that the rest is shown as changed.
const LOOK_AHEAD: usize = 20_000;

#[test]
fn a_difference_shows_what_went_and_what_came() {
    assert_eq!(difference("a\n\nb\nc", "a\n\nb\nc"), "");
    assert_eq!(difference("a\nb\nc", "a\nx\nc\nd"), "- b\n+ x\n+ d\n");
    assert_eq!(difference("", "a"), "+ a\n");
}

#[test]
fn the_snapshot_reaches_everything_that_crosses() {
    let text = plugin_abi::abi::layout_text();
    for reached in [
        "plugin-abi PluginModule:",
        "plugin-abi LoadArguments:",
        "plugin-abi Outcome:",
        "plugin-abi Question<'a>:",
        "plugin-abi LogRecord<'a>:",
        "entry configure:",
        "entry response:",
        "entry answer:",
        "entry sleep:",
        "async-ffi FfiPoll:",
    ] {
        assert!(text.contains(reached), "{reached} is missing");
    }
}
