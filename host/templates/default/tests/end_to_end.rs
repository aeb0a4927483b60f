//! The built library in a real host, over HTTP, with the routes of `apisix.yaml`.

use plugin_abi::testing::{RealHost, get};

#[test]
fn the_library_serves() {
    let host = RealHost::of(env!("CARGO_MANIFEST_DIR")).start();
    assert_eq!(host.get("/hello").text(), "Hello, Ada!\n");
    // The built-in upstream answers with what it got.
    let echo = host.send(&get("/orders"));
    assert!(echo.text().contains("x-greeted"), "{}", echo.text());
    assert_eq!(echo.header("x-served-by"), Some("my-plugin"));
}
