//! The built library in a real host, over HTTP, with the routes of `apisix.yaml`.

use plugin_abi::testing::RealHost;

#[test]
fn the_library_serves() {
    let host = RealHost::of(env!("CARGO_MANIFEST_DIR")).start();
    assert_eq!(host.get("/orders?id=7").status(), 200);
    let line = host.log_line("served");
    for part in ["my-plugin", "method=GET", "uri=/orders?id=7", "status=200"] {
        assert!(line.contains(part), "{line}");
    }
}
