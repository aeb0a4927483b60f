//! Bytes of calls for those who read: as a line of text, and as JSON.

use serde_json::{Value, json};

/// Bytes for a line: readable text as it is, anything that a terminal could obey escaped.
pub fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text
            .chars()
            .map(|c| match c.is_control() {
                true => c.escape_default().to_string(),
                false => c.to_string(),
            })
            .collect(),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

/// Bytes as JSON: text as text, other bytes as `{"hex": "..."}`.
pub fn value(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "hex": digits })
        }
    }
}
