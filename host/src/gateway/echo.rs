//! The upstream of routes that name none: it answers with what it got.

use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::http::Extensions;
use serde_json::{Value, json};

use super::answer;
use super::upstream::Received;
use crate::client::Field;

/// One JSON object, a header on a line: `method`, `uri`, `headers` and `body`. Bytes that are no
/// text are `{"hex": "..."}`.
pub(super) fn respond(method: &str, uri: &str, headers: &[Field], body: &Bytes) -> Received {
    let headers: Vec<String> = headers
        .iter()
        .map(|header| {
            let value = header.value.as_deref().unwrap_or_default();
            format!("    [{}, {}]", text(&header.name), text(value))
        })
        .collect();
    let told = format!(
        "{{\n  \"method\": {},\n  \"uri\": {},\n  \"headers\": [\n{}\n  ],\n  \"body\": {}\n}}\n",
        text(method.as_bytes()),
        text(uri.as_bytes()),
        headers.join(",\n"),
        text(body),
    );
    let length = told.len().to_string();
    Received {
        node: "echo".to_owned(),
        status: StatusCode::OK,
        headers: vec![
            Field::new("Content-Type", "application/json"),
            Field::new("Content-Length", length),
        ],
        body: answer::whole(if method == "HEAD" {
            String::new()
        } else {
            told
        }),
        spelling: Extensions::new(),
    }
}

fn text(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "hex": hex })
        }
    }
}
