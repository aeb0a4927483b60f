//! Keeps notes in memory: `PUT /notes/NAME` writes one, `GET /notes/NAME` reads it.
//!
//! HTTP clients reach it where the operator gives the host an address for it, with `--http-listen`.

#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use plugin_abi::prelude::*;

/// Notes that are kept at the same time, at most: whoever writes must not fill the memory.
const MAX_NOTES: usize = 1_000;

/// Bytes of one note, at most.
const MAX_BYTES: usize = 64 << 10;

#[derive(Default)]
struct MyPlugin {
    notes: Mutex<BTreeMap<String, String>>,
}

impl Plugin for MyPlugin {
    type Config = ();

    /// One request: `plugin.json` says which lead here, and what each is called.
    async fn execute(&self, context: &mut Context) -> Result<()> {
        let name: String = context.get("name")?.context("which note? set `name`")?;
        let reply = match context.label() {
            "read" => self.read(&name),
            "write" => self.write(name, body(context).await?),
            other => bail!("there is no `{other}` here, only `read` and `write`"),
        };
        Ok(context.reply(reply)?)
    }
}

/// The request's body, piece by piece; none where it is longer than a note may be.
async fn body(context: &Context) -> Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    while let Some(piece) = context.chunk().await? {
        if body.len() + piece.len() > MAX_BYTES {
            return Ok(None);
        }
        body.extend(piece);
    }
    Ok(Some(body))
}

impl MyPlugin {
    fn read(&self, name: &str) -> Reply {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        match notes.get(name) {
            Some(note) => Reply::new(200)
                .header("Content-Type", "text/plain; charset=utf-8")
                .body(note.clone()),
            None => Reply::new(404),
        }
    }

    fn write(&self, name: String, body: Option<Vec<u8>>) -> Reply {
        let Some(body) = body else {
            return Reply::new(413);
        };
        let Ok(note) = String::from_utf8(body) else {
            return Reply::new(400).body("A note is text in UTF-8.\n");
        };
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() >= MAX_NOTES && !notes.contains_key(&name) {
            return Reply::new(507).body("There are too many notes.\n");
        }
        match notes.insert(name, note) {
            Some(_) => Reply::new(204),
            None => Reply::new(201),
        }
    }
}

export_plugin!(MyPlugin);

#[cfg(test)]
mod tests;
