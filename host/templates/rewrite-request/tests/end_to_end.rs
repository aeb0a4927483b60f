//! The built library in a real host, over HTTP, with the routes of `apisix.yaml`.

use plugin_abi::testing::RealHost;

#[test]
fn the_library_serves() {
    let host = RealHost::of(env!("CARGO_MANIFEST_DIR")).start();
    // The built-in upstream answers with what it got.
    let echo = host.get("/api/orders?token=secret&q=1").json();
    assert_eq!(echo["uri"], "/orders?q=1");
    assert!(echo["headers"].to_string().contains(r#"["x-team","blue"]"#));
}
