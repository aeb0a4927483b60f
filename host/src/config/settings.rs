//! The table of what `plugin-host run` can be told: one entry per setting, with its name in the
//! configuration file, its flag, its default and its help.
//!
//! Flags, environment variables, file keys, `--help` and the effective configuration are all made
//! from these entries, so that they cannot disagree. This module never reads a source and never
//! judges a value.

pub mod hooks;
mod http;
mod log;
mod trust;

pub use http::{HTTP_LISTEN, HTTP_MAX_BODY, HTTP_MAX_CONNECTIONS, HTTP_REQUEST_TIME};
pub use log::{ACCESS_LOG, LOG_FILE, LOG_FILTER, LOG_FORMAT, LOG_KEEP_FILES, LOG_ROTATION};
pub use trust::{SIGNATURES, TRUSTED_KEYS};

/// One thing that can be set, by flag, by environment variable or in the configuration file.
#[derive(Debug)]
pub struct Setting {
    /// Key in the configuration file; a dot separates table and key.
    pub key: &'static str,
    /// Long flag without its dashes. The environment variable's name follows from it.
    pub flag: &'static str,
    /// How a value is written, which decides how it is shown.
    pub kind: Kind,
    /// Stands for the value in `--help`.
    pub value_name: &'static str,
    /// What holds where no source says anything.
    pub default: Fallback,
    /// One or two sentences for `--help`: what it does, and its unit.
    pub help: &'static str,
    /// The heading of `--help` that it stands under.
    pub group: &'static str,
}

/// How a setting's value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string in the file.
    Text,
    /// A whole number.
    Number,
    /// `true` or `false`; its flag alone means `true`.
    Switch,
}

/// What a setting is where no source gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// This text, read like any other value.
    Text(&'static str),
    /// Worked out at start, in the way that this text describes.
    Described(&'static str),
}

impl Setting {
    /// Name of the environment variable: `PLUGIN_HOST_` and the flag in capitals.
    pub fn variable(&self) -> String {
        format!(
            "PLUGIN_HOST_{}",
            self.flag.to_ascii_uppercase().replace('-', "_")
        )
    }

    /// The default as `--help` shows it.
    pub fn default_text(&self) -> &'static str {
        match self.default {
            Fallback::Text(text) | Fallback::Described(text) => text,
        }
    }
}

/// Environment variable that names the configuration file, where `--config` does not.
pub const CONFIG_FILE_VARIABLE: &str = "PLUGIN_HOST_CONFIG";

/// Environment variable with the password of a key that signs.
pub const KEY_PASSWORD_VARIABLE: &str = "PLUGIN_HOST_KEY_PASSWORD";

/// Environment variable with credentials for the sources of plugins.
pub const CREDENTIALS_VARIABLE: &str = "PLUGIN_HOST_CREDENTIALS";

/// Environment variable in which the gateway gives the address to listen on.
pub const GATEWAY_LISTEN_VARIABLE: &str = "APISIX_LISTEN_ADDRESS";

/// Environment variable in which the gateway gives the lifetime of its configurations.
pub const GATEWAY_EXPIRY_VARIABLE: &str = "APISIX_CONF_EXPIRE_TIME";

/// Environment variable in which a service manager gives its socket.
pub const NOTIFY_VARIABLE: &str = "NOTIFY_SOCKET";

/// Environment variable in which a service manager says how often it wants to hear, in microseconds.
pub const WATCHDOG_VARIABLE: &str = "WATCHDOG_USEC";

const SERVING: &str = "Serving";
const PLUGINS: &str = "Plugins";
const SECURITY: &str = "Security";
const HTTP_CLIENT_GROUP: &str = "HTTP client";
const LIMITS: &str = "Limits";
const CONTROL: &str = "Control";

/// Where to listen.
pub const LISTEN: Setting = Setting {
    key: "listen",
    flag: "listen",
    kind: Kind::Text,
    value_name: "PATH",
    default: Fallback::Described("APISIX_LISTEN_ADDRESS, which the gateway sets"),
    help: "Unix socket to listen on: an absolute path of at most 107 bytes, with or without `unix:` before it",
    group: SERVING,
};

/// How long the gateway may use a configuration.
pub const CONF_EXPIRE_TIME: Setting = Setting {
    key: "conf_expire_time",
    flag: "conf-expire-time",
    kind: Kind::Number,
    value_name: "SECONDS",
    default: Fallback::Described("APISIX_CONF_EXPIRE_TIME, or else 3600"),
    help: "How long the gateway uses a configuration that it has prepared; tokens live 1.2 times as long after their last use",
    group: SERVING,
};

/// Permissions of the socket file.
pub const SOCKET_MODE: Setting = Setting {
    key: "socket_mode",
    flag: "socket-mode",
    kind: Kind::Text,
    value_name: "OCTAL",
    default: Fallback::Text("0666"),
    help: "Permissions of the socket file. The gateway's workers run as another user and must be able to write to it",
    group: SERVING,
};

/// Length of the listen queue.
pub const BACKLOG: Setting = Setting {
    key: "backlog",
    flag: "backlog",
    kind: Kind::Number,
    value_name: "CONNECTIONS",
    default: Fallback::Text("4096"),
    help: "How many connections may wait to be accepted; the kernel bounds it by net.core.somaxconn. Above it the gateway answers 503",
    group: SERVING,
};

/// Number of event loops.
pub const EVENT_LOOPS: Setting = Setting {
    key: "event_loops",
    flag: "event-loops",
    kind: Kind::Number,
    value_name: "THREADS",
    default: Fallback::Described("1 up to 4 cores, else half of the cores, at most 8"),
    help: "Threads that serve connections",
    group: SERVING,
};

/// Size of the pool for plugins that block.
pub const BLOCKING_THREADS: Setting = Setting {
    key: "blocking_threads",
    flag: "blocking-threads",
    kind: Kind::Number,
    value_name: "THREADS",
    default: Fallback::Text("32"),
    help: "Most threads for plugins that block: those that declare it, and those that were found to hold an event loop up",
    group: SERVING,
};

/// Whether the end of standard input ends the host.
pub const IGNORE_STDIN: Setting = Setting {
    key: "ignore_stdin",
    flag: "ignore-stdin",
    kind: Kind::Switch,
    value_name: "BOOL",
    default: Fallback::Text("false"),
    help: "Go on when standard input ends. Otherwise its end, where it is a pipe, means that the gateway is gone, and the host stops",
    group: SERVING,
};

/// What an unanswerable response call gets.
pub const RESPONSE_FAILURE: Setting = Setting {
    key: "response_failure",
    flag: "response-failure",
    kind: Kind::Text,
    value_name: "status_503|error_frame",
    default: Fallback::Text("status_503"),
    help: "What a response call gets whose plugins failed closed: a 503 with a body of the host's own, or an error frame, with which the gateway lets the upstream's body through",
    group: SERVING,
};

/// Whether response calls ask for the request's method.
pub const ASK_METHOD_FOR_HEAD: Setting = Setting {
    key: "ask_method_for_head",
    flag: "ask-method-for-head",
    kind: Kind::Switch,
    value_name: "BOOL",
    default: Fallback::Text("false"),
    help: "Ask the gateway for the request's method in every response call, one more question each, so that an answer to HEAD does not make the gateway call the upstream twice",
    group: SERVING,
};

/// Where plugins are looked for.
pub const PLUGIN_DIR: Setting = Setting {
    key: "plugin_dir",
    flag: "plugin-dir",
    kind: Kind::Text,
    value_name: "DIR",
    default: Fallback::Text("/usr/local/lib/plugin-host/plugins"),
    help: "Directory with one directory per plugin",
    group: PLUGINS,
};

/// How often the plugin directory is looked at without being told to.
pub const RESCAN_INTERVAL: Setting = Setting {
    key: "rescan_interval",
    flag: "rescan-interval",
    kind: Kind::Text,
    value_name: "DURATION",
    default: Fallback::Text("30s"),
    help: "How often the plugin directory is looked at where the system reports no change, as on network file systems",
    group: PLUGINS,
};

/// Whether plugins are tried out before they are loaded.
pub const REHEARSE: Setting = Setting {
    key: "rehearse",
    flag: "rehearse",
    kind: Kind::Switch,
    value_name: "BOOL",
    default: Fallback::Text("true"),
    help: "Load each plugin in a throw-away process before this one loads it, so that one that crashes or hangs there costs nothing",
    group: PLUGINS,
};

/// Whether a second worker waits beside the one that serves.
pub const STANDBY: Setting = Setting {
    key: "standby",
    flag: "standby",
    kind: Kind::Switch,
    value_name: "BOOL",
    default: Fallback::Text("false"),
    help: "Keep a second worker with every plugin loaded, which serves at once where the first one dies; takes the memory of another one",
    group: PLUGINS,
};

/// Where private files of a running host live.
pub const RUNTIME_DIR: Setting = Setting {
    key: "runtime_dir",
    flag: "runtime-dir",
    kind: Kind::Text,
    value_name: "DIR",
    default: Fallback::Described(
        "/run as root, else $XDG_RUNTIME_DIR, else the system's temporary directory",
    ),
    help: "Existing directory in which the host makes its own directory `plugin-host` (mode 0700) for locks and private copies of plugins",
    group: PLUGINS,
};

/// Whom plugins run as.
pub const USER: Setting = Setting {
    key: "user",
    flag: "user",
    kind: Kind::Text,
    value_name: "USER",
    default: Fallback::Described("the user who runs the host"),
    help: "User, by name or number, whom the process that runs plugins becomes; the host has to be root's. The plugin directory must be readable for that user",
    group: SECURITY,
};

/// The group that goes with the user.
pub const GROUP: Setting = Setting {
    key: "group",
    flag: "group",
    kind: Kind::Text,
    value_name: "GROUP",
    default: Fallback::Described("the group of --user"),
    help: "Group, by name or number, that goes with --user; the only one that the process is left with",
    group: SECURITY,
};

/// Whether files that others could change are refused.
pub const STRICT_PERMISSIONS: Setting = Setting {
    key: "strict_permissions",
    flag: "strict-permissions",
    kind: Kind::Switch,
    value_name: "BOOL",
    default: Fallback::Text("false"),
    help: "Load no plugin whose files, or a directory on the way to them, others than root and the host's user can change; otherwise there is a warning",
    group: SECURITY,
};

/// Whether crashes leave dumps.
pub const CORE_DUMPS: Setting = Setting {
    key: "core_dumps",
    flag: "core-dumps",
    kind: Kind::Switch,
    value_name: "BOOL",
    default: Fallback::Text("false"),
    help: "Let a crash leave a core dump, as the system is set up; it holds requests and secrets",
    group: SECURITY,
};

/// Bound on connections.
pub const MAX_CONNECTIONS: Setting = Setting {
    key: "limits.max_connections",
    flag: "max-connections",
    kind: Kind::Number,
    value_name: "CONNECTIONS",
    default: Fallback::Text("10000"),
    help: "Most connections at a time; the limit on open files, which is raised as far as allowed, may lower it",
    group: LIMITS,
};

/// Bound on one frame.
pub const MAX_FRAME_BYTES: Setting = Setting {
    key: "limits.max_frame_bytes",
    flag: "max-frame-bytes",
    kind: Kind::Text,
    value_name: "BYTES",
    default: Fallback::Text("16777215"),
    help: "Most bytes of data in a frame from the gateway; the protocol allows no more than the default. KiB and MiB are understood",
    group: LIMITS,
};

/// Bound on questions to the gateway.
pub const MAX_EXTRA_INFO_ROUNDS: Setting = Setting {
    key: "limits.max_extra_info_rounds",
    flag: "max-extra-info-rounds",
    kind: Kind::Number,
    value_name: "ROUNDS",
    default: Fallback::Text("64"),
    help: "Most questions to the gateway in one call",
    group: LIMITS,
};

/// Bound on tokens.
pub const MAX_TOKENS: Setting = Setting {
    key: "limits.max_tokens",
    flag: "max-tokens",
    kind: Kind::Number,
    value_name: "TOKENS",
    default: Fallback::Text("131072"),
    help: "Most prepared configurations that are kept",
    group: LIMITS,
};

/// Bound on the memory of large frames.
pub const MAX_BODY_MEMORY: Setting = Setting {
    key: "limits.max_body_memory",
    flag: "max-body-memory",
    kind: Kind::Text,
    value_name: "BYTES",
    default: Fallback::Text("512MiB"),
    help: "Most memory for frames and bodies of all connections together; 64 KiB of each are not counted. KiB, MiB and GiB are understood",
    group: LIMITS,
};

/// Bound on the memory of one connection.
pub const MAX_CONNECTION_MEMORY: Setting = Setting {
    key: "limits.max_connection_memory",
    flag: "max-connection-memory",
    kind: Kind::Text,
    value_name: "BYTES",
    default: Fallback::Text("64MiB"),
    help: "Most memory for the frames and bodies of one connection: what came in, what the gateway was asked for, what plugins have changed, and the answer. KiB, MiB and GiB are understood",
    group: LIMITS,
};

/// Bound on what replaced plugins leave behind.
pub const RETIRED_MEMORY: Setting = Setting {
    key: "limits.retired_memory",
    flag: "retired-memory",
    kind: Kind::Text,
    value_name: "BYTES",
    default: Fallback::Text("64MiB"),
    help: "Bytes that the libraries of replaced plugins may occupy, since they stay mapped; beyond it another worker process takes over without them. KiB, MiB and GiB are understood",
    group: LIMITS,
};

/// Bound on the time that a begun frame may take.
pub const FRAME_READ_TIMEOUT: Setting = Setting {
    key: "limits.frame_read_timeout",
    flag: "frame-read-timeout",
    kind: Kind::Text,
    value_name: "DURATION",
    default: Fallback::Text("10s"),
    help: "How long a frame may take from its first byte to its last",
    group: LIMITS,
};

/// Bound on one call.
pub const CALL_BUDGET: Setting = Setting {
    key: "limits.call_budget",
    flag: "call-budget",
    kind: Kind::Text,
    value_name: "DURATION",
    default: Fallback::Text("10s"),
    help: "How long one call may take, questions to the gateway included; the gateway itself gives up after 60s",
    group: LIMITS,
};

/// Wait of an event loop before it sleeps.
pub const SPIN: Setting = Setting {
    key: "limits.spin",
    flag: "spin",
    kind: Kind::Text,
    value_name: "DURATION",
    default: Fallback::Described("20us; 0us on a single core"),
    help: "How long an event loop looks for the next call before it sleeps, where calls come that soon; 0us for not at all",
    group: LIMITS,
};

/// Bound on the time that a plugin may hold an event loop.
pub const LOOP_STALL_LIMIT: Setting = Setting {
    key: "limits.loop_stall_limit",
    flag: "loop-stall-limit",
    kind: Kind::Text,
    value_name: "DURATION",
    default: Fallback::Text("1s"),
    help: "How long a plugin may hold an event loop, asleep or computing, before that counts as a crash; 0ms for ever",
    group: LIMITS,
};

/// Bound on threads of the pool that do not come back.
pub const STUCK_THREADS: Setting = Setting {
    key: "limits.stuck_threads",
    flag: "stuck-threads",
    kind: Kind::Number,
    value_name: "THREADS",
    default: Fallback::Described("half of --blocking-threads, at least 1"),
    help: "With so many threads inside blocking plugins past their calls' deadlines the worker is replaced; 0 for never",
    group: LIMITS,
};

/// Bound on the wait for a quiet moment.
pub const REPLACE_PATIENCE: Setting = Setting {
    key: "limits.replace_patience",
    flag: "replace-patience",
    kind: Kind::Text,
    value_name: "DURATION",
    default: Fallback::Text("60s"),
    help: "How long a worker that is to be replaced, for --retired-memory or --stuck-threads, waits for a moment without an open call; then it is replaced under load, which loses no call either",
    group: LIMITS,
};

/// Bound on the time to leave.
pub const DRAIN_TIME: Setting = Setting {
    key: "limits.drain_time",
    flag: "drain-time",
    kind: Kind::Text,
    value_name: "DURATION",
    default: Fallback::Text("700ms"),
    help: "How long calls may go on after the host was told to stop; the gateway kills it after 1s",
    group: LIMITS,
};

/// How many deaths bring a plugin into quarantine.
pub const QUARANTINE_CRASHES: Setting = Setting {
    key: "limits.quarantine_crashes",
    flag: "quarantine-crashes",
    kind: Kind::Number,
    value_name: "CRASHES",
    default: Fallback::Text("3"),
    help: "How many crashes within --quarantine-window put a version of a plugin into quarantine; panics, errors and missed deadlines are no crashes",
    group: LIMITS,
};

/// Within which time.
pub const QUARANTINE_WINDOW: Setting = Setting {
    key: "limits.quarantine_window",
    flag: "quarantine-window",
    kind: Kind::Text,
    value_name: "DURATION",
    default: Fallback::Text("10m"),
    help: "Within which time --quarantine-crashes are counted",
    group: LIMITS,
};

/// Whether plugins may call other services through the host.
pub const HTTP_CLIENT: Setting = Setting {
    key: "http_client.enabled",
    flag: "http-client",
    kind: Kind::Switch,
    value_name: "BOOL",
    default: Fallback::Text("true"),
    help: "Let plugins call other services with the host's HTTP client; it starts with the first call. What a plugin brings itself is not touched",
    group: HTTP_CLIENT_GROUP,
};

/// Whom they may trust beside the system's roots.
pub const HTTP_CLIENT_CA: Setting = Setting {
    key: "http_client.ca_file",
    flag: "http-client-ca",
    kind: Kind::Text,
    value_name: "FILE",
    default: Fallback::Described(
        "the system's root certificates alone, or bundled ones where there are none",
    ),
    help: "PEM file of root certificates that the HTTP client trusts beside the system's; read when a worker starts",
    group: HTTP_CLIENT_GROUP,
};

/// Bound on requests of all plugins.
pub const HTTP_CLIENT_REQUESTS: Setting = Setting {
    key: "limits.http_client_requests",
    flag: "http-client-requests",
    kind: Kind::Number,
    value_name: "REQUESTS",
    default: Fallback::Text("256"),
    help: "Most requests of all plugins to other services at the same time; further ones wait within their own time",
    group: LIMITS,
};

/// Bound on requests of one plugin.
pub const HTTP_CLIENT_REQUESTS_PER_PLUGIN: Setting = Setting {
    key: "limits.http_client_requests_per_plugin",
    flag: "http-client-requests-per-plugin",
    kind: Kind::Number,
    value_name: "REQUESTS",
    default: Fallback::Text("128"),
    help: "Most requests of one loaded version of a plugin to other services at the same time; further ones wait within their own time",
    group: LIMITS,
};

/// Bound on open connections to other services.
pub const HTTP_CLIENT_CONNECTIONS: Setting = Setting {
    key: "limits.http_client_connections",
    flag: "http-client-connections",
    kind: Kind::Number,
    value_name: "CONNECTIONS",
    default: Fallback::Text("512"),
    help: "Most open connections of the HTTP client; where a new one finds no room, those without a request are closed",
    group: LIMITS,
};

/// Bound on bodies to and from other services.
pub const HTTP_CLIENT_MAX_BODY: Setting = Setting {
    key: "limits.http_client_max_body",
    flag: "http-client-max-body",
    kind: Kind::Text,
    value_name: "BYTES",
    default: Fallback::Text("16MiB"),
    help: "Most bytes of the body of a request to another service, and of its response's; a plugin may ask for less. KiB, MiB and GiB are understood",
    group: LIMITS,
};

/// Where the control interface is, beside its socket.
pub const CONTROL_LISTEN: Setting = Setting {
    key: "control.listen",
    flag: "control-listen",
    kind: Kind::Text,
    value_name: "IP:PORT",
    default: Fallback::Described("the control socket in the runtime directory alone"),
    help: "Loopback address to answer operators on as well, who show the token in --control-token-file",
    group: CONTROL,
};

/// What operators show there.
pub const CONTROL_TOKEN_FILE: Setting = Setting {
    key: "control.token_file",
    flag: "control-token-file",
    kind: Kind::Text,
    value_name: "FILE",
    default: Fallback::Described("none; needed with --control-listen"),
    help: "File with the token for --control-listen: one line of at least 16 characters, readable for its owner alone",
    group: CONTROL,
};

/// Where probes and scrapes are answered.
pub const TELEMETRY_LISTEN: Setting = Setting {
    key: "control.telemetry_listen",
    flag: "telemetry-listen",
    kind: Kind::Text,
    value_name: "IP:PORT",
    default: Fallback::Described("nowhere"),
    help: "Address to answer probes and scrapes on: /metrics, /healthz and /readyz alone, for everybody who can reach it",
    group: CONTROL,
};

/// What a host needs to be ready.
pub const REQUIRE: Setting = Setting {
    key: "require",
    flag: "require",
    kind: Kind::Text,
    value_name: "NAMES",
    default: Fallback::Described("none"),
    help: "Plugins without which the host is not ready, separated by commas: NAME or NAME@REQUIREMENT",
    group: CONTROL,
};

/// Every setting, in the order of `--help`.
pub const ALL: [&Setting; 68] = [
    &LISTEN,
    &CONF_EXPIRE_TIME,
    &SOCKET_MODE,
    &BACKLOG,
    &EVENT_LOOPS,
    &BLOCKING_THREADS,
    &IGNORE_STDIN,
    &RESPONSE_FAILURE,
    &ASK_METHOD_FOR_HEAD,
    &HTTP_LISTEN,
    &PLUGIN_DIR,
    &RESCAN_INTERVAL,
    &REHEARSE,
    &STANDBY,
    &RUNTIME_DIR,
    &USER,
    &GROUP,
    &STRICT_PERMISSIONS,
    &SIGNATURES,
    &TRUSTED_KEYS,
    &CORE_DUMPS,
    &HTTP_CLIENT,
    &HTTP_CLIENT_CA,
    &MAX_CONNECTIONS,
    &MAX_FRAME_BYTES,
    &MAX_EXTRA_INFO_ROUNDS,
    &MAX_TOKENS,
    &MAX_BODY_MEMORY,
    &MAX_CONNECTION_MEMORY,
    &RETIRED_MEMORY,
    &FRAME_READ_TIMEOUT,
    &CALL_BUDGET,
    &SPIN,
    &LOOP_STALL_LIMIT,
    &STUCK_THREADS,
    &REPLACE_PATIENCE,
    &DRAIN_TIME,
    &QUARANTINE_CRASHES,
    &QUARANTINE_WINDOW,
    &HTTP_MAX_CONNECTIONS,
    &HTTP_MAX_BODY,
    &HTTP_REQUEST_TIME,
    &HTTP_CLIENT_REQUESTS,
    &HTTP_CLIENT_REQUESTS_PER_PLUGIN,
    &HTTP_CLIENT_CONNECTIONS,
    &HTTP_CLIENT_MAX_BODY,
    &LOG_FILTER,
    &LOG_FORMAT,
    &LOG_FILE,
    &LOG_ROTATION,
    &LOG_KEEP_FILES,
    &ACCESS_LOG,
    &hooks::HOOK_ALL,
    &hooks::HOOK_LOAD,
    &hooks::HOOK_UPGRADE,
    &hooks::HOOK_REFUSED,
    &hooks::HOOK_ROLLBACK,
    &hooks::HOOK_REMOVE,
    &hooks::HOOK_CRASH,
    &hooks::HOOK_QUARANTINE,
    &hooks::HOOK_LIFT,
    &hooks::HOOK_DISABLE,
    &hooks::HOOK_ENABLE,
    &hooks::HOOK_TIMEOUT,
    &CONTROL_LISTEN,
    &CONTROL_TOKEN_FILE,
    &TELEMETRY_LISTEN,
    &REQUIRE,
];
