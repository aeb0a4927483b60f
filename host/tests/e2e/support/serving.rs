//! One plugin that serves: what the tests of upgrades begin with, and how they see which version
//! answers.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{
    gateway::{Gateway, get},
    host::{Builder, Host, wait_for},
    versions::version,
};

/// A host that serves `versioned` 0.1.0, its plugin's directory, and a gateway with a route to it.
pub(crate) fn serving() -> (Host, PathBuf, Gateway, u32) {
    serving_with(Host::builder())
}

/// The same with a host that is told more.
pub(crate) fn serving_with(builder: Builder) -> (Host, PathBuf, Gateway, u32) {
    let host = builder.start();
    let directory = host.plugins().join("versioned");
    version("0.1.0").swap_in(&directory);
    let (gateway, token) = serving_from(&host);
    (host, directory, gateway, token)
}

/// A gateway with a route to 0.1.0, when that has just been put in place. No call of the route
/// comes before the plugin does, which would be an error in the log.
pub(crate) fn serving_from(host: &Host) -> (Gateway, u32) {
    host.log_line(&["plugin loaded", "version=0.1.0"]);
    let mut gateway = host.gateway();
    let token = gateway.prepare("route#1#pre#1", [("versioned", word("hello"))]);
    until(&mut gateway, token, "0.1.0", "hello");
    (gateway, token)
}

pub(crate) fn word(word: &str) -> Value {
    json!({ "word": word })
}

pub(crate) fn answer(gateway: &mut Gateway, token: u32) -> String {
    gateway
        .call(token, get("/").header("x-nonce", "n"))
        .to_string()
}

pub(crate) fn answer_of(version: &str, word: &str) -> String {
    format!("stop 200 headers [X-Version='{version}', X-Word='{word}'] body 'n'")
}

pub(crate) const CLOSED: &str = "error 1";

/// Calls until a version answers. A call that fails closed ends its connection for the gateway, but
/// not for this client.
pub(crate) fn until(gateway: &mut Gateway, token: u32, version: &str, word: &str) {
    let expected = answer_of(version, word);
    wait_for(&expected, || {
        (answer(gateway, token) == expected).then_some(())
    });
}

/// The same where every answer has to be the old version's until it is the new one's.
pub(crate) fn until_without_a_failure(gateway: &mut Gateway, token: u32, old: &str, new: &str) {
    let (old, new) = (answer_of(old, "hello"), answer_of(new, "hello"));
    wait_for(&new, || {
        let answer = answer(gateway, token);
        assert!(answer == old || answer == new, "{answer}");
        (answer == new).then_some(())
    });
}

pub(crate) fn until_closed(gateway: &mut Gateway, token: u32) {
    wait_for("the route fails closed", || {
        (answer(gateway, token) == CLOSED).then_some(())
    });
}
