//! The last lines of the log, in memory, for those who look on while the host runs.
//!
//! Bounded in lines and in bytes: the oldest go. Whoever follows and is too slow misses some.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use utoipa::ToSchema;

use crate::config::LogFormat;

/// Lines that are kept.
pub const MAX_LINES: usize = 2_000;

/// Bytes of lines that are kept.
pub const MAX_BYTES: usize = 1 << 20;

/// Bytes that are kept of one line.
pub const MAX_LINE_BYTES: usize = 16 << 10;

/// Lines that somebody who follows may be behind.
const BEHIND: usize = 1_024;

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Line {
    /// Counts the lines of this host, from 1.
    pub number: u64,
    /// `error`, `warn`, `info`, `debug` or `trace`; absent where it does not say.
    pub level: Option<String>,
    /// The plugin that it is about; absent where it does not name one.
    pub plugin: Option<String>,
    /// The whole line, in the log's own format.
    pub line: String,
}

/// The last lines.
#[derive(Debug, Clone)]
pub struct Recent {
    format: LogFormat,
    kept: Arc<Mutex<Kept>>,
    new: broadcast::Sender<Arc<Line>>,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<Arc<Line>>,
    bytes: usize,
    last: u64,
}

impl Recent {
    pub(super) fn new(format: LogFormat) -> Self {
        Self {
            format,
            kept: Arc::default(),
            new: broadcast::Sender::new(BEHIND),
        }
    }

    /// Takes a line as it is written.
    pub(super) fn take(&self, line: &[u8]) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let text = plain(&line[..line.len().min(MAX_LINE_BYTES)]);
        let (level, plugin) = match self.format {
            LogFormat::Text => (level_of_text(&text), plugin_of_text(&text)),
            LogFormat::Json => of_json(&text),
        };
        let mut kept = self.kept.lock();
        kept.last += 1;
        let line = Arc::new(Line {
            number: kept.last,
            level,
            plugin,
            line: text,
        });
        kept.bytes += line.line.len();
        kept.lines.push_back(Arc::clone(&line));
        while kept.lines.len() > MAX_LINES || kept.bytes > MAX_BYTES {
            let oldest = kept.lines.pop_front();
            kept.bytes -= oldest.map_or(0, |oldest| oldest.line.len());
        }
        // Under the lock, so that who follows gets them in their order. Mostly nobody does.
        let _ = self.new.send(line);
    }

    /// The lines that are kept, oldest first, and those that come from now on.
    pub fn follow(&self) -> (Vec<Arc<Line>>, broadcast::Receiver<Arc<Line>>) {
        let kept = self.kept.lock();
        (kept.lines.iter().cloned().collect(), self.new.subscribe())
    }
}

/// A line without what a terminal could obey: the log's own colours, and whatever else is in it.
fn plain(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\x1b' if characters.peek() == Some(&'[') => {
                // Up to its last character.
                for inside in characters.by_ref().skip(1) {
                    if inside.is_ascii_alphabetic() {
                        break;
                    }
                }
            }
            '\t' => plain.push('\t'),
            control if control.is_control() => plain.extend(control.escape_default()),
            character => plain.push(character),
        }
    }
    plain
}

/// After the time, in capitals.
fn level_of_text(line: &str) -> Option<String> {
    let level = line.split_ascii_whitespace().nth(1)?;
    ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"]
        .contains(&level)
        .then(|| level.to_ascii_lowercase())
}

/// The field of that name; names of plugins have no spaces.
fn plugin_of_text(line: &str) -> Option<String> {
    let (_, rest) = line.split_once(" plugin=")?;
    let name = rest.split([' ', '{']).next()?.trim_matches('"');
    (!name.is_empty()).then(|| name.to_owned())
}

fn of_json(line: &str) -> (Option<String>, Option<String>) {
    let parsed: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    (
        text(&parsed["level"]).map(|level| level.to_ascii_lowercase()),
        text(&parsed["fields"]["plugin"]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_within_their_bounds() {
        let recent = Recent::new(LogFormat::Text);
        for number in 0..MAX_LINES + 10 {
            recent.take(format!("line {number}\n").as_bytes());
        }
        let (lines, _) = recent.follow();
        assert_eq!(lines.len(), MAX_LINES);
        assert_eq!(lines[0].line, "line 10");
        assert_eq!(lines[0].number, 11);
        for _ in 0..200 {
            recent.take(&[b'x'; 20_000]);
        }
        let (lines, _) = recent.follow();
        assert_eq!(lines.len(), MAX_BYTES / MAX_LINE_BYTES);
    }

    #[test]
    fn a_line_tells_its_level_and_its_plugin_in_either_format() {
        let read = |format, line: &str| {
            let recent = Recent::new(format);
            recent.take(line.as_bytes());
            let (lines, _) = recent.follow();
            (lines[0].level.clone(), lines[0].plugin.clone())
        };
        let warn = |plugin: &str| (Some("warn".to_owned()), Some(plugin.to_owned()));
        let text = |line| read(LogFormat::Text, line);
        assert_eq!(
            text("2026-11-25T07:00:00Z  WARN plugins: no plugin=say version=1\n"),
            warn("say")
        );
        assert_eq!(
            text("\x1b[2m2026\x1b[0m \x1b[33m WARN\x1b[0m x: y plugin=\"say\""),
            warn("say")
        );
        assert_eq!(text("what a plugin prints"), (None, None));
        let json = r#"{"level":"WARN","fields":{"message":"m","plugin":"say"}}"#;
        assert_eq!(read(LogFormat::Json, json), warn("say"));
        assert_eq!(read(LogFormat::Json, "printed"), (None, None));
    }

    #[test]
    fn nothing_that_a_terminal_could_obey_is_kept() {
        assert_eq!(plain(b"a\x1b[31mred\x1b[0m\x07b\tc"), "ared\\u{7}b\tc");
        assert_eq!(plain(b"\x1b]0;title"), "\\u{1b}]0;title");
    }
}
