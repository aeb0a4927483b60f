//! The built library in a real host, over HTTP, with the routes of `apisix.yaml`.

use plugin_abi::testing::RealHost;

#[test]
fn the_library_serves() {
    let host = RealHost::of(env!("CARGO_MANIFEST_DIR")).start();
    // The built-in upstream answers with what it got, as JSON.
    let answer = host.get("/old/page");
    assert_eq!(answer.json()["uri"], "/new/page");
    assert_eq!(answer.header("content-type"), Some("application/json"));
}
