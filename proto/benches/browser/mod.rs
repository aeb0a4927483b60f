//! The request that benches of messages and of the host read: what a browser sends through a gateway.

/// The headers of a browser behind a gateway.
pub(crate) const HEADERS: [(&str, &str); 12] = [
    ("host", "www.example.com"),
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0",
    ),
    (
        "accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    ),
    ("accept-language", "en-GB,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("referer", "https://www.example.com/articles/2026/11"),
    (
        "cookie",
        "session=8d2f0c7a91f64c5e; theme=dark; consent=all",
    ),
    ("x-forwarded-for", "203.0.113.7"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "www.example.com"),
    ("sec-fetch-mode", "navigate"),
    ("x-real-ip", "203.0.113.7"),
];
