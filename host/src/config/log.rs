//! What is logged, how, and where to.

use std::path::PathBuf;

use tracing_subscriber::EnvFilter;

use super::layers::Layers;
use super::value::{self, Written};
use super::{ConfigError, read_optional, settings, whole};

/// What is logged, how, and where to.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Directives of `tracing-subscriber`'s `EnvFilter`; known to be readable.
    pub filter: String,
    /// Shape of a line.
    pub format: LogFormat,
    /// The file to write to, absolute; standard error where absent.
    pub file: Option<PathBuf>,
    /// When a new file begins.
    pub rotation: LogRotation,
    /// How many rotated files stay, the current one included.
    pub keep_files: usize,
}

/// Shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Readable text.
    Text,
    /// One JSON object per line.
    Json,
}

/// When a new log file begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogRotation {
    /// Never: one file.
    Never,
    /// Each hour, in UTC.
    Hourly,
    /// Each day, in UTC.
    Daily,
}

pub(super) fn read(layers: &mut Layers<'_>) -> LogConfig {
    let filter = layers.value(&settings::LOG_FILTER, check_filter);
    let format = layers.value(&settings::LOG_FORMAT, |written| {
        value::choice(
            written,
            &[("text", LogFormat::Text), ("json", LogFormat::Json)],
        )
    });
    let file = read_optional(layers, &settings::LOG_FILE, value::path);
    let rotation = layers.value(&settings::LOG_ROTATION, |written| {
        value::choice(
            written,
            &[
                ("never", LogRotation::Never),
                ("hourly", LogRotation::Hourly),
                ("daily", LogRotation::Daily),
            ],
        )
    });
    if rotation != LogRotation::Never && file.is_none() {
        layers.problems.push(ConfigError::Contradiction {
            first: settings::LOG_ROTATION.key,
            second: settings::LOG_FILE.key,
            reason: "only a file can be rotated: name one".to_owned(),
        });
    }
    LogConfig {
        filter,
        format,
        file,
        rotation,
        keep_files: layers.value(&settings::LOG_KEEP_FILES, whole(1, 1_000)),
    }
}

/// The filter's parser takes any single word for a target to be logged in full, so that a mistyped
/// `wran` would silence everything else. Here a word without `=` has to be a level.
fn check_filter(written: &Written) -> Result<String, String> {
    let text = written.text();
    EnvFilter::builder()
        .parse(&text)
        .map_err(|error| format!("`{text}` is not a log filter: {error}"))?;
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    for word in text.split(',').filter(|word| !word.contains(['=', '['])) {
        if !levels.contains(&word.trim().to_ascii_lowercase().as_str()) {
            return Err(format!(
                "`{word}` is not a log level; write one of {}, or `TARGET=LEVEL`",
                levels.join(", ")
            ));
        }
    }
    Ok(text)
}
