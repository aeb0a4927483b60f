//! The built library in a real host, over HTTP, with the routes of `apisix.yaml`.

use plugin_abi::testing::RealHost;

#[test]
fn the_library_serves() {
    let host = RealHost::of(env!("CARGO_MANIFEST_DIR")).start();
    let closed = host.get("/shop/cart");
    assert_eq!(
        (closed.status(), closed.header("retry-after")),
        (503, Some("3600"))
    );
    assert_eq!(closed.text(), "Closed for maintenance.\n");
    assert_eq!(host.get("/open").status(), 200);
}
