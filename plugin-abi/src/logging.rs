//! A plugin logs with the macros of the [`log`] crate; the records reach the host's log, where each
//! line names plugin and version.
//!
//! ```
//! use plugin_abi::prelude::*;
//!
//! log::info!(user = "ada", attempts = 3; "let in");
//! ```
//!
//! Libraries that a plugin uses log in the same way. Every plugin library has a logger of its own,
//! so that no plugin sees another's records.

use log::{Level, LevelFilter, Log, Metadata, Record, kv};

use crate::{
    abi::{LogField, LogLevel, LogRecord},
    export::host,
};

struct HostLog;

/// Makes this library's records go to the host. Called once, before the plugin is constructed.
pub(crate) fn install() {
    // A plugin may have set a logger in a constructor of its own: then that one stays.
    if log::set_logger(&HostLog).is_ok() {
        // The host decides what is written, so that levels can change while a plugin is loaded.
        log::set_max_level(LevelFilter::Trace);
    }
}

impl Log for HostLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        host()
            .is_some_and(|host| host.log_enabled(level(metadata.level()), metadata.target().into()))
    }

    fn log(&self, record: &Record<'_>) {
        let Some(host) = host() else { return };
        if !host.log_enabled(level(record.level()), record.target().into()) {
            return;
        }
        let mut fields = RenderedFields(Vec::new());
        // Rendering into a vector cannot fail; a field whose own rendering does is left out.
        let _ = record.key_values().visit(&mut fields);
        let fields: Vec<LogField<'_>> = fields
            .0
            .iter()
            .map(|(name, value)| LogField {
                name: name.as_str().into(),
                value: value.as_str().into(),
            })
            .collect();
        let message = record.args().to_string();
        host.log(LogRecord {
            level: level(record.level()),
            target: record.target().into(),
            message: message.as_str().into(),
            fields: fields.as_slice().into(),
        });
    }

    fn flush(&self) {}
}

struct RenderedFields(Vec<(String, String)>);

impl<'kvs> kv::VisitSource<'kvs> for RenderedFields {
    fn visit_pair(&mut self, key: kv::Key<'kvs>, value: kv::Value<'kvs>) -> Result<(), kv::Error> {
        self.0.push((key.to_string(), value.to_string()));
        Ok(())
    }
}

fn level(level: Level) -> LogLevel {
    match level {
        Level::Error => LogLevel::ERROR,
        Level::Warn => LogLevel::WARN,
        Level::Info => LogLevel::INFO,
        Level::Debug => LogLevel::DEBUG,
        Level::Trace => LogLevel::TRACE,
    }
}
