//! The listener for HTTP services of plugins: where it is, and its bounds.

use std::{fmt, net::SocketAddr, time::Duration};

use super::{
    ListenAddress,
    layers::Layers,
    read_optional, settings, size,
    value::{self, Written},
    whole,
};
use crate::{http_services::Bounds, pipeline::execute::LONGEST_TIME};

/// HTTP services of plugins.
#[derive(Debug, Clone)]
pub struct HttpServicesConfig {
    /// Where they are served; none for nowhere.
    pub listen: Option<HttpAddress>,
    /// Their bounds.
    pub bounds: Bounds,
}

/// Where HTTP services are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpAddress {
    /// Over TCP.
    Tcp(SocketAddr),
    /// Over a Unix socket.
    Unix(ListenAddress),
}

impl fmt::Display for HttpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(address) => address.fmt(f),
        }
    }
}

pub(super) fn read(layers: &mut Layers<'_>) -> HttpServicesConfig {
    HttpServicesConfig {
        listen: read_optional(layers, &settings::HTTP_LISTEN, address),
        bounds: Bounds {
            max_connections: layers.value(&settings::HTTP_MAX_CONNECTIONS, whole(1, 100_000)),
            max_body_bytes: layers.value(&settings::HTTP_MAX_BODY, size(0, 1 << 40)),
            request_time: layers.value(&settings::HTTP_REQUEST_TIME, |written| {
                value::duration(written, Duration::from_millis(10)..=LONGEST_TIME)
            }),
        },
    }
}

fn address(written: &Written) -> Result<HttpAddress, String> {
    let text = written.text();
    if text.starts_with("unix:") {
        return ListenAddress::parse(&text).map(HttpAddress::Unix);
    }
    text.parse().map(HttpAddress::Tcp).map_err(|_| {
        format!("`{text}` is no address: write IP:PORT, like 127.0.0.1:8080, or unix:/PATH")
    })
}
