//! Settings of the log.

use super::{Fallback, Kind, Setting};

const LOG: &str = "Log";

/// What is logged.
pub const LOG_FILTER: Setting = Setting {
    key: "log.filter",
    flag: "log",
    kind: Kind::Text,
    value_name: "FILTER",
    default: Fallback::Text("info"),
    help: "What is logged: error, warn, info, debug, trace or off, also per target, as in `info,plugin_host::server=debug`",
    group: LOG,
};

/// Shape of log lines.
pub const LOG_FORMAT: Setting = Setting {
    key: "log.format",
    flag: "log-format",
    kind: Kind::Text,
    value_name: "text|json",
    default: Fallback::Text("text"),
    help: "Readable text, or one JSON object per line; for --access-log too",
    group: LOG,
};

/// Where the log goes.
pub const LOG_FILE: Setting = Setting {
    key: "log.file",
    flag: "log-file",
    kind: Kind::Text,
    value_name: "FILE",
    default: Fallback::Described("standard error, which the gateway copies into its error log"),
    help: "File to log to",
    group: LOG,
};

/// When a new log file begins.
pub const LOG_ROTATION: Setting = Setting {
    key: "log.rotation",
    flag: "log-rotation",
    kind: Kind::Text,
    value_name: "never|hourly|daily|BYTES",
    default: Fallback::Text("never"),
    help: "When a new log file begins: each hour or day (UTC), which is put behind the file's name, or before it would grow beyond a size; then the files before it are called .1, .2 and so on. KiB, MiB and GiB are understood. For --access-log too",
    group: LOG,
};

/// How many log files stay.
pub const LOG_KEEP_FILES: Setting = Setting {
    key: "log.keep_files",
    flag: "log-keep-files",
    kind: Kind::Number,
    value_name: "FILES",
    default: Fallback::Text("7"),
    help: "How many rotated files stay, the current one included; older ones are deleted, with an hour or day those whose names begin with that of --log-file",
    group: LOG,
};

/// Where the access log goes.
pub const ACCESS_LOG: Setting = Setting {
    key: "log.access_file",
    flag: "access-log",
    kind: Kind::Text,
    value_name: "FILE",
    default: Fallback::Described("none"),
    help: "File with a line for each call, with what each plugin has made of it and how long that took, and for each request to an HTTP service",
    group: LOG,
};
