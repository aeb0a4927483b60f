//! Which of several routes is found for a request.

use std::path::Path;

use crate::gateway::routes::RouteTable;

/// A table of routes, each written as its id and the fields that decide.
fn table(routes: &[&str]) -> RouteTable {
    let routes: String = routes
        .iter()
        .map(|route| format!("- {{{route}}}\n"))
        .collect();
    let text = format!("routes:\n{routes}#END");
    RouteTable::parse(Path::new("apisix.yaml"), text.as_bytes(), 1)
        .unwrap_or_else(|error| panic!("{error}"))
}

/// `host method path` and the route that is to be found for them.
fn check(table: &RouteTable, request: &str, expected: &str) {
    let parts: Vec<_> = request.split(' ').collect();
    let &[host, method, path] = parts.as_slice() else {
        panic!("{request}");
    };
    let host = (host != "-").then_some(host.as_bytes());
    let found = table.find(host, method, path.as_bytes());
    let found = found.map_or("none", |route| route.id.as_str());
    assert_eq!(found, expected, "{request}");
}

#[test]
fn an_exact_uri_comes_before_a_wildcard_and_the_longer_prefix_first() {
    let table = table(&[
        "id: all, uri: /*",
        "id: a, uri: /a/*",
        "id: ab, uri: /a/b/*",
        "id: exact, uri: /a/b/c",
        "id: word, uri: /a/wo*",
    ]);
    for (path, expected) in [
        ("/a/b/c", "exact"),
        ("/a/b/d", "ab"),
        ("/a/b/", "ab"),
        ("/a/b", "a"),
        ("/a/", "a"),
        ("/a", "all"),
        ("/a/word", "word"),
        ("/", "all"),
    ] {
        check(&table, &format!("- GET {path}"), expected);
    }
}

#[test]
fn a_route_for_the_host_comes_before_one_for_any_whatever_their_uris() {
    let table = table(&[
        "id: any, uri: /a",
        "id: org, uri: /*, host: '*.org'",
        "id: sub, uri: /*, hosts: ['*.example.org', other.net]",
        "id: exact, uri: /*, host: Www.Example.org",
    ]);
    for (host, expected) in [
        ("www.example.org", "exact"),
        ("WWW.example.ORG:8080", "exact"),
        ("a.example.org", "sub"),
        ("a.b.example.org", "sub"),
        ("example.org", "org"),
        ("other.net", "sub"),
        ("org", "any"),
        ("[::1]:80", "any"),
        ("-", "any"),
    ] {
        check(&table, &format!("{host} GET /a"), expected);
    }
    check(&table, "nobody.net GET /b", "none");
}

#[test]
fn among_the_same_uri_the_highest_priority_comes_first_and_then_the_file() {
    let table = table(&[
        "id: low, uri: /a, priority: -1",
        "id: first, uri: /a",
        "id: second, uri: /a",
        "id: post, uri: /a, priority: 5, methods: [POST]",
        "id: higher, uri: /*, priority: 100",
    ]);
    check(&table, "- GET /a", "first");
    check(&table, "- POST /a", "post");
    check(&table, "- GET /b", "higher");
}

#[test]
fn a_route_is_only_for_its_methods() {
    let table = table(&["id: get, uri: /a, methods: [GET, HEAD]"]);
    check(&table, "- HEAD /a", "get");
    check(&table, "- POST /a", "none");
    check(&table, "- get /a", "none");
}

#[test]
fn a_path_need_not_be_text() {
    let table = table(&["id: a, uri: /a/*"]);
    assert!(table.find(None, "GET", b"/a/\xff").is_some());
    assert!(table.find(None, "GET", b"/\xff").is_none());
}
