//! What is logged, how, and where to.

use std::path::PathBuf;

use tracing_subscriber::EnvFilter;

use super::{
    ConfigError,
    layers::Layers,
    read_optional, settings,
    value::{self, Written},
    whole,
};

/// What is logged, how, and where to.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Directives of `tracing-subscriber`'s `EnvFilter`; known to be readable.
    pub filter: String,
    /// Shape of a line.
    pub format: LogFormat,
    /// The file to write to, absolute; standard error where absent.
    pub file: Option<PathBuf>,
    /// The file for a line of each call, absolute; none where absent.
    pub access_file: Option<PathBuf>,
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
    /// When it would grow beyond so many bytes.
    Size(u64),
}

pub(super) fn read(layers: &mut Layers<'_>) -> LogConfig {
    let filter = layers.value(&settings::LOG_FILTER, check_written);
    let format = layers.value(&settings::LOG_FORMAT, |written| {
        value::choice(
            written,
            &[("text", LogFormat::Text), ("json", LogFormat::Json)],
        )
    });
    let file = read_optional(layers, &settings::LOG_FILE, value::path);
    let access_file = read_optional(layers, &settings::ACCESS_LOG, value::path);
    let rotation = layers.value(&settings::LOG_ROTATION, read_rotation);
    if rotation != LogRotation::Never && file.is_none() && access_file.is_none() {
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
        access_file,
        rotation,
        keep_files: layers.value(&settings::LOG_KEEP_FILES, whole(1, 1_000)),
    }
}

/// Sizes that a log file may be given.
const SIZES: std::ops::RangeInclusive<u64> = 1_024..=1 << 40;

fn read_rotation(written: &Written) -> Result<LogRotation, String> {
    let text = written.text();
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        return value::bytes(written, SIZES).map(LogRotation::Size);
    }
    let named = [
        ("never", LogRotation::Never),
        ("hourly", LogRotation::Hourly),
        ("daily", LogRotation::Daily),
    ];
    value::choice(written, &named).map_err(|reason| format!("{reason}, or a size, like 100MiB"))
}

fn check_written(written: &Written) -> Result<String, String> {
    let text = written.text();
    check_filter(&text)?;
    Ok(text)
}

/// Whether a text says what is to be logged. The filter's parser takes any single word for a target
/// to be logged in full, so that a mistyped `wran` would silence everything else. Here a word without
/// `=` has to be a level.
///
/// # Errors
/// What is wrong with it.
pub fn check_filter(text: &str) -> Result<(), String> {
    EnvFilter::builder()
        .parse(text)
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
    Ok(())
}
