//! Settings of the listener for HTTP services of plugins.

use super::{Fallback, Kind, LIMITS, SERVING, Setting};

/// Where HTTP services are served.
pub const HTTP_LISTEN: Setting = Setting {
    key: "http_listen",
    flag: "http-listen",
    kind: Kind::Text,
    value_name: "IP:PORT|unix:PATH",
    default: Fallback::Described("nowhere"),
    help: "Where to serve the HTTP services that plugins bring along (`http_services` in plugin.json), for everybody who can reach it",
    group: SERVING,
};

/// Bound on their clients.
pub const HTTP_MAX_CONNECTIONS: Setting = Setting {
    key: "limits.http_max_connections",
    flag: "http-max-connections",
    kind: Kind::Number,
    value_name: "CONNECTIONS",
    default: Fallback::Text("1024"),
    help: "Most connections to --http-listen at a time; further ones wait to be accepted",
    group: LIMITS,
};

/// Bound on bodies of their requests.
pub const HTTP_MAX_BODY: Setting = Setting {
    key: "limits.http_max_body",
    flag: "http-max-body",
    kind: Kind::Text,
    value_name: "SIZE",
    default: Fallback::Text("8MiB"),
    help: "Longest body of a request to --http-listen; plugins get it piece by piece",
    group: LIMITS,
};

/// Bound on the time of their requests.
pub const HTTP_REQUEST_TIME: Setting = Setting {
    key: "limits.http_request_time",
    flag: "http-request-time",
    kind: Kind::Text,
    value_name: "DURATION",
    default: Fallback::Text("30s"),
    help: "How long a request to --http-listen may take, from its head to the end of the answer; at most 30s",
    group: LIMITS,
};
