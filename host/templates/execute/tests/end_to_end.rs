//! The built library in a real host, over HTTP, with the routes of `apisix.yaml`, and asked with
//! `plugin-host exec`.

use plugin_abi::testing::{RealHost, execution};

#[test]
fn the_library_serves() {
    let host = RealHost::of(env!("CARGO_MANIFEST_DIR")).start();
    assert_eq!(host.get("/").status(), 200);
    let closed = host.execute(&execution("switch").set("closed", true));
    assert_eq!(closed.value("was_closed"), false);
    assert_eq!(host.get("/").status(), 503);
    assert_eq!(host.get("/").text(), "Back at noon.\n");
    let unknown = host.execute(&execution("open"));
    assert!(
        unknown.failure().contains("only `look` and `switch`"),
        "{unknown:?}"
    );
}
