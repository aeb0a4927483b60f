//! The plugin in a fake host, and HTTP clients who ask it.

use plugin_abi::testing::{Execution, Gateway, check_plugin_json, execution, get, put};

use super::*;

fn reading(name: &str) -> Execution {
    let request = get(&format!("/notes/{name}"));
    execution("read").request(request).param("name", name)
}

fn writing(name: &str, note: impl AsRef<[u8]>) -> Execution {
    let request = put(&format!("/notes/{name}")).body(note);
    execution("write").request(request).param("name", name)
}

#[test]
fn what_is_written_is_read_until_it_is_written_over() {
    let plugin = Gateway::new().load::<MyPlugin>();
    assert_eq!(plugin.execute(reading("a")).reply().status(), 404);
    assert_eq!(plugin.execute(writing("a", "milk")).reply().status(), 201);
    assert_eq!(plugin.execute(reading("a")).reply().text(), "milk");
    assert_eq!(plugin.execute(writing("a", "tea")).reply().status(), 204);
    assert_eq!(plugin.execute(reading("a")).reply().text(), "tea");
    assert_eq!(plugin.execute(reading("b")).reply().status(), 404);
}

#[test]
fn what_is_no_text_or_too_much_is_refused() {
    let plugin = Gateway::new().load::<MyPlugin>();
    let status = |of: Execution| plugin.execute(of).reply().status();
    assert_eq!(status(writing("a", [0xff])), 400);
    assert_eq!(status(writing("a", vec![b'x'; MAX_BYTES + 1])), 413);
    for number in 0..MAX_NOTES {
        assert_eq!(status(writing(&number.to_string(), "x")), 201);
    }
    assert_eq!(status(writing("one-more", "x")), 507);
    assert_eq!(status(writing("0", "y")), 204, "one that is there");
}

#[test]
fn plugin_json_is_true_about_this_crate() {
    check_plugin_json!((), include_str!("../plugin.json"));
}
