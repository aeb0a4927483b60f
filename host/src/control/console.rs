//! The console: one page for browsers, which stands on the control interface and can do nothing that a
//! request cannot.
//!
//! Its files are part of the program and served as they are; nothing is fetched from anywhere else.
//! They tell nothing of this host, so they are given to whoever reaches the address: all that the page
//! shows it asks for with the session of whoever has signed in. What it shows goes into the page as
//! text; its policy lets no other script run, whatever a plugin is called or fails with.

use axum::{
    Router,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};

/// What the page may do: run its own scripts, use its own styles and ask its own host.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// Fields of each answer.
const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_FRAME_OPTIONS, "DENY"),
    // Small, and another one after an upgrade of the host.
    (header::CACHE_CONTROL, "no-store"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// A file of the page.
struct Asset {
    path: &'static str,
    media_type: &'static str,
    text: &'static str,
}

macro_rules! script {
    ($name:literal) => {
        Asset {
            path: concat!("/console/", $name),
            media_type: "text/javascript; charset=utf-8",
            text: include_str!(concat!("console/", $name)),
        }
    };
}

const ASSETS: [Asset; 17] = [
    Asset {
        path: "/",
        media_type: "text/html; charset=utf-8",
        text: include_str!("console/index.html"),
    },
    Asset {
        path: "/console/style.css",
        media_type: "text/css; charset=utf-8",
        text: include_str!("console/style.css"),
    },
    Asset {
        path: "/console/icon.svg",
        media_type: "image/svg+xml",
        text: include_str!("console/icon.svg"),
    },
    script!("main.js"),
    script!("api.js"),
    script!("dom.js"),
    script!("format.js"),
    script!("live.js"),
    script!("sparkline.js"),
    script!("dialog.js"),
    script!("actions.js"),
    script!("overview.js"),
    script!("plugin.js"),
    script!("routes.js"),
    script!("host.js"),
    script!("log.js"),
    script!("try.js"),
];

/// The page and its files.
pub fn router() -> Router {
    let mut router = Router::new();
    for asset in &ASSETS {
        router = router.route(asset.path, get(async || asset.response()));
    }
    router
}

/// Whether this is the page or one of its files.
pub fn has(path: &str) -> bool {
    ASSETS.iter().any(|asset| asset.path == path)
}

impl Asset {
    fn response(&self) -> Response {
        let mut response = self.text.into_response();
        let media_type = [(header::CONTENT_TYPE, self.media_type)];
        for (name, value) in media_type.into_iter().chain(HEADERS) {
            let value = HeaderValue::from_static(value);
            response.headers_mut().insert(name, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ways in which text could become markup or code, and other hosts be asked.
    const FORBIDDEN: [&str; 16] = [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "createContextualFragment",
        "DOMParser",
        "srcdoc",
        "eval(",
        "new Function",
        "setTimeout(\"",
        "javascript:",
        "<script>",
        "style=",
        "onclick=",
        "https://",
        "transition",
    ];

    #[test]
    fn nothing_in_the_page_makes_markup_or_code_of_a_text_or_asks_another_host() {
        for asset in &ASSETS {
            for word in FORBIDDEN {
                let found = asset.text.contains(word);
                assert!(!found, "{} has `{word}`", asset.path);
            }
            // Of other addresses only the name of a namespace, which is never fetched.
            let mut places = asset.text.match_indices("http://");
            let is_namespace =
                |(at, _): (usize, &str)| asset.text[at..].starts_with("http://www.w3.org/2000/svg");
            assert!(places.all(is_namespace), "{}", asset.path);
        }
    }

    #[test]
    fn every_file_that_the_page_names_is_served_and_every_file_that_is_served_is_named() {
        let all: String = ASSETS.iter().map(|asset| asset.text).collect();
        for asset in ASSETS.iter().skip(1) {
            let name = asset.path.trim_start_matches("/console/");
            let is_named = all.contains(&format!("./{name}\"")) || all.contains(asset.path);
            assert!(is_named, "nothing needs {}", asset.path);
        }
        for part in all.split("from \"./").skip(1) {
            let name = part.split('"').next().unwrap_or_default();
            assert!(has(&format!("/console/{name}")), "{name} is not served");
        }
    }
}
