//! The development gateway in plain HTTP: which route a request takes, what an edit of the file
//! does, and what a client gets where there is no route or no host.

use std::fs;

use serde_json::{Value, json};

use crate::support::{
    Host,
    http::{HttpGateway, Response},
    upstream::Upstream,
    wait_for,
};

/// A route that answers with its id, by the plugin `say`.
fn said_by(id: &str, fields: Value) -> Value {
    let conf = json!([{ "name": "say", "value": json!({ "body": id }).to_string() }]);
    let mut route = json!({ "id": id, "plugins": { "ext-plugin-pre-req": { "conf": conf } } });
    let all = route.as_object_mut().unwrap();
    all.extend(fields.as_object().unwrap().clone());
    route
}

/// A complete route file; JSON is YAML.
fn file_of(routes: &[Value]) -> String {
    format!("{}\n#END\n", json!({ "routes": routes }))
}

/// A host with `say`, and a gateway with these routes to it.
fn start(routes: &[Value]) -> (Host, HttpGateway) {
    let host = Host::with("say");
    let gateway = HttpGateway::start(&file_of(routes), &host.socket());
    (host, gateway)
}

/// Whose answer it is, or the status where it is nobody's.
fn who(response: &Response) -> String {
    match response.code() {
        200 => response.body(),
        other => other.to_string(),
    }
}

#[test]
fn a_request_takes_the_route_of_its_host_then_of_its_path_then_of_its_method() {
    let (_host, gateway) = start(&[
        said_by("any", json!({ "uri": "/*" })),
        said_by("a", json!({ "uris": ["/a", "/a/*"] })),
        said_by("exact", json!({ "uri": "/a/b", "methods": ["GET"] })),
        said_by("host", json!({ "uri": "/*", "host": "shop.example" })),
        said_by("wild", json!({ "uri": "/*", "hosts": ["*.shop.example"] })),
        said_by("off", json!({ "uri": "/off", "status": 0 })),
        said_by("low", json!({ "uri": "/prior", "priority": 1 })),
        said_by("high", json!({ "uri": "/prior", "priority": 2 })),
    ]);
    for (host, path, expected) in [
        ("gw.example", "/", "any"),
        ("gw.example", "/a", "a"),
        ("gw.example", "/a/b", "exact"),
        ("gw.example", "/a/./x/../b?c=d", "exact"),
        ("gw.example", "/a/%62", "exact"),
        ("gw.example", "/a/b/c", "a"),
        ("gw.example", "/off", "any"),
        ("gw.example", "/prior", "high"),
        ("shop.example:9080", "/a/b", "host"),
        ("SHOP.example", "/a/b", "host"),
        ("x.y.shop.example", "/a/b", "wild"),
    ] {
        let response = gateway.get(path, &[&format!("Host: {host}")]);
        assert_eq!(who(&response), expected, "{host} {path}");
    }
    let post = b"POST /a/b HTTP/1.1\r\nHost: gw.example\r\nConnection: close\r\n\
                 Content-Length: 2\r\n\r\nhi";
    assert_eq!(who(&gateway.send(post)), "a");
}

#[test]
fn a_request_without_a_route_gets_the_real_gateways_answer() {
    let (_host, gateway) = start(&[said_by("a", json!({ "uri": "/a" }))]);
    let response = gateway.get("/b", &[]);
    assert_eq!(response.status, "HTTP/1.1 404 Not Found");
    assert_eq!(response.body(), "{\"error_msg\":\"404 Route Not Found\"}\n");
    let content_type = response.header("content-type");
    assert_eq!(content_type, Some("text/plain; charset=utf-8"));
}

#[test]
fn an_edit_takes_effect_and_a_bad_one_changes_nothing() {
    let (_host, gateway) = start(&[said_by("one", json!({ "uri": "/a" }))]);
    assert_eq!(who(&gateway.get("/a", &[])), "one");
    // In place, as an operator's `sed` does, and then by renaming, as an editor does.
    fs::write(
        gateway.routes(),
        file_of(&[said_by("two", json!({ "uri": "/a" }))]),
    )
    .unwrap();
    until(&gateway, "/a", "two");
    fs::write(gateway.routes(), "routes: [\n#END\n").unwrap();
    gateway.log_line(&["apisix.yaml:", "not readable YAML"]);
    assert_eq!(who(&gateway.get("/a", &[])), "two");
    let unfinished = file_of(&[said_by("half", json!({ "uri": "/a" }))]);
    fs::write(gateway.routes(), unfinished.replace("#END", "")).unwrap();
    gateway.log_line(&["add the line `#END`"]);
    assert_eq!(who(&gateway.get("/a", &[])), "two");
    let new = gateway.routes().with_extension("new");
    fs::write(&new, file_of(&[said_by("three", json!({ "uri": "/a" }))])).unwrap();
    fs::rename(&new, gateway.routes()).unwrap();
    until(&gateway, "/a", "three");
}

fn until(gateway: &HttpGateway, path: &str, expected: &str) {
    wait_for(expected, || {
        (who(&gateway.get(path, &[])) == expected).then_some(())
    });
}

#[test]
fn what_the_gateway_does_not_support_is_named_in_its_log() {
    let fields = json!({ "uri": "/a", "vars": [["arg_x", "==", "1"]], "service_id": "7" });
    let (_host, gateway) = start(&[said_by("one", fields)]);
    assert_eq!(who(&gateway.get("/a", &[])), "one");
    gateway.log_line(&["WARN", "line 1: route `one`: `vars` is not supported here"]);
    gateway.log_line(&[
        "WARN",
        "line 1: route `one`: `service_id` is not supported here",
    ]);
}

#[test]
fn without_a_host_a_request_is_refused_or_goes_on_as_its_route_says() {
    let upstream = Upstream::start();
    upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nupstream".to_vec());
    let nodes = json!({ "nodes": { upstream.node(): 1 } });
    let route = |id: &str, allow: bool| {
        let plugin = json!({ "conf": [], "allow_degradation": allow });
        let plugins = json!({ "ext-plugin-pre-req": plugin });
        json!({ "id": id, "uri": format!("/{id}"), "plugins": plugins, "upstream": nodes })
    };
    let directory = tempfile::tempdir().unwrap();
    let nobody = directory.path().join("s");
    let gateway = HttpGateway::start(
        &file_of(&[route("closed", false), route("open", true)]),
        &nobody,
    );
    let refused = gateway.get("/closed", &[]);
    assert_eq!(
        refused.status,
        "HTTP/1.1 503 Service Temporarily Unavailable"
    );
    assert_eq!(
        refused.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(upstream.received(), []);
    assert_eq!(who(&gateway.get("/open", &[])), "upstream");
    let received = upstream.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].uri, "/open");
}

#[test]
fn an_upstreams_nodes_take_turns_as_their_weights_say() {
    let upstreams = [Upstream::start(), Upstream::start()];
    for (upstream, body) in upstreams.iter().zip(["a", "b"]) {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{body}");
        upstream.answer(answer.into_bytes());
    }
    let [a, b] = &upstreams;
    let nodes = json!([
        { "host": "127.0.0.1", "port": a.port(), "weight": 2 },
        { "host": "127.0.0.1", "port": b.port(), "weight": 1 },
    ]);
    let file = json!({
        "routes": [{ "id": 1, "uri": "/", "upstream_id": "shared" }],
        "upstreams": [{ "id": "shared", "type": "roundrobin", "nodes": nodes }],
    });
    let directory = tempfile::tempdir().unwrap();
    let gateway = HttpGateway::start(&format!("{file}\n#END\n"), &directory.path().join("s"));
    let answers: String = (0..6).map(|_| who(&gateway.get("/", &[]))).collect();
    assert_eq!(answers.matches('a').count(), 4, "{answers}");
    assert_eq!(answers.matches('b').count(), 2, "{answers}");
}

#[test]
fn a_url_may_hold_any_byte_as_long_as_it_is_encoded() {
    let (_host, gateway) = start(&[said_by("any", json!({ "uri": "/*" }))]);
    assert_eq!(who(&gateway.get("/%ff%3c?x=%fe%00&y=%", &[])), "any");
    for refused in [&b"/\xff"[..], b"/%00", b"/100%", b"/%zz"] {
        let request = [
            b"GET ",
            refused,
            b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        ];
        assert_eq!(gateway.send(&request.concat()).code(), 400);
    }
}
