//! The five plugins as they are delivered, each end to end.

use serde_json::json;

use crate::support::{Host, get};

#[test]
fn say_answers_with_its_body() {
    let host = Host::with("say");
    let mut gateway = host.gateway();
    let token = gateway.prepare("route#1#pre#1", [("say", json!({ "body": "hello" }))]);
    assert_eq!(
        gateway.call(token, get("/")),
        "stop 200 headers [X-Resp-A6-Runner='Rust'] body 'hello'"
    );
}
