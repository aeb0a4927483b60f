//! The built library in a real host, asked over HTTP at the listener for services.

use plugin_abi::testing::{RealHost, get, put};

#[test]
fn the_library_serves() {
    let host = RealHost::of(env!("CARGO_MANIFEST_DIR")).start();
    let written = host.service(&put("/notes/shopping").body("milk"));
    assert_eq!(written.status(), 201);
    let read = host.service(&get("/notes/shopping"));
    assert_eq!((read.status(), read.text()), (200, "milk"));
    assert_eq!(host.service(&get("/notes/other")).status(), 404);
    assert_eq!(host.service(&get("/elsewhere")).status(), 404);
    assert_eq!(host.service(&put("/notes/bad").body([0xff])).status(), 400);
}
