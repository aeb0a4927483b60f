//! The built library in a real host, over HTTP, with the routes of `apisix.yaml`.

use plugin_abi::testing::RealHost;

#[test]
fn the_library_serves() {
    let host = RealHost::of(env!("CARGO_MANIFEST_DIR")).start();
    let statuses = [1, 2, 3, 4].map(|_| host.get("/").status());
    assert_eq!(statuses, [200, 200, 200, 429]);
}
