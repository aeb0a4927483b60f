//! Route files: what they mean, what is warned of, and what is refused.

#![allow(
    clippy::unwrap_used,
    reason = "a failed expectation is the test's result"
)]
use super::*;
use crate::client::Field;
use crate::gateway::routes::{ExtPlugin, Node as Server, PassHost};

fn parse(text: &str) -> Result<RouteTable, RouteFileError> {
    let text = format!("{text}\n#END\n");
    RouteTable::parse(Path::new("apisix.yaml"), text.as_bytes(), 7)
}

fn table(text: &str) -> RouteTable {
    parse(text).unwrap_or_else(|error| panic!("{error}"))
}

/// The only route of a file that nothing is said about.
fn only_route(text: &str) -> Route {
    let table = table(text);
    assert_eq!(table.warnings(), [] as [String; 0]);
    let [route] = table.routes() else {
        panic!("{} routes", table.routes().len());
    };
    Route::clone(route)
}

fn server(host: &str, port: u16, weight: u32) -> Server {
    let host = host.to_owned();
    Server { host, port, weight }
}

#[test]
fn a_file_of_the_real_gateway_is_read_whole() {
    let route = only_route(
        r#"
routes:
  - id: 1
    name: hello
    uris: ["/hello", "/hello/*"]
    methods: [GET, POST]
    hosts: [example.com, "*.example.org"]
    priority: 3
    status: 1
    desc: says hello
    labels: {team: web}
    plugins:
      ext-plugin-pre-req:
        allow_degradation: true
        conf:
          - name: say
            value: '{"body":"hello"}'
          - {name: "say@^1.2", value: ""}
      ext-plugin-post-req: {}
      ext-plugin-post-resp:
        conf: [{name: stamp, value: "{}"}]
      proxy-rewrite:
        uri: /new?a=$arg_a
        headers:
          set: {X-A: "1", X-B: 2}
          add: {X-C: "$remote_addr"}
          remove: [X-D]
    upstream:
      type: roundrobin
      pass_host: node
      nodes: {"127.0.0.1:1980": 1, "[::1]:81": 2, "example.net": 1, "off:1": 0}
"#,
    );
    let plugin = |name: &str, conf: &[(&str, &str)], allow_degradation| {
        Some(ExtPlugin {
            key: format!("route#1#{name}#7"),
            conf: conf
                .iter()
                .map(|(name, value)| Field::new(*name, *value))
                .collect(),
            allow_degradation,
        })
    };
    let chain = [("say", r#"{"body":"hello"}"#), ("say@^1.2", "")];
    assert_eq!(route.id, "1");
    assert_eq!(route.name.as_deref(), Some("hello"));
    assert_eq!(route.pre_req, plugin("ext-plugin-pre-req", &chain, true));
    assert_eq!(route.post_req, plugin("ext-plugin-post-req", &[], false));
    let stamp = plugin("ext-plugin-post-resp", &[("stamp", "{}")], false);
    assert_eq!(route.post_resp, stamp);
    let rewrite = route.proxy_rewrite.unwrap();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(rewrite.uri.as_deref(), Some("/new?a=$arg_a"));
    assert_eq!(rewrite.set, [pair("X-A", "1"), pair("X-B", "2")]);
    assert_eq!(rewrite.add, [pair("X-C", "$remote_addr")]);
    assert_eq!(rewrite.remove, ["X-D"]);
    let upstream = route.upstream.unwrap();
    assert_eq!(upstream.pass_host, PassHost::Node);
    let nodes = [
        server("127.0.0.1", 1980, 1),
        server("::1", 81, 2),
        server("example.net", 80, 1),
    ];
    assert_eq!(upstream.nodes, nodes);
}

#[test]
fn a_route_takes_its_upstream_from_the_shared_ones() {
    let route = only_route(
        "
routes:
  - {id: r, uri: /, upstream_id: 2}
upstreams:
  - {id: 1, nodes: []}
  - id: 2
    name: second
    pass_host: rewrite
    upstream_host: inner.example
    nodes: [{host: a, port: 1, weight: 3}, {host: b}]
",
    );
    let upstream = route.upstream.unwrap();
    assert_eq!(upstream.id.as_deref(), Some("2"));
    assert_eq!(upstream.nodes, [server("a", 1, 3), server("b", 80, 1)]);
    let rewritten = PassHost::Rewrite("inner.example".to_owned());
    assert_eq!(upstream.pass_host, rewritten);
}

#[test]
fn headers_of_proxy_rewrite_may_be_a_plain_map() {
    let route = only_route(
        "routes: [{id: 1, uri: /, plugins: {proxy-rewrite: {headers: {X-A: a, set: b}}}}]",
    );
    let rewrite = route.proxy_rewrite.unwrap();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(rewrite.set, [pair("X-A", "a"), pair("set", "b")]);
    assert_eq!(rewrite.uri, None);
}

#[test]
fn a_route_without_an_id_is_named_by_its_place() {
    let table = table("routes: [{id: a, uri: /a}, {uri: /b, plugins: {ext-plugin-pre-req: {}}}]");
    let second = &table.routes()[1];
    assert_eq!(second.id, "routes#2");
    let key = &second.pre_req.as_ref().unwrap().key;
    assert_eq!(key, "route#routes#2#ext-plugin-pre-req#7");
}

#[test]
fn what_is_switched_off_is_not_there() {
    let table = table(
        "
routes:
  - {id: off, uri: /off, status: 0}
  - id: on
    uri: /on
    plugins:
      ext-plugin-pre-req: {_meta: {disable: true}, conf: [{name: a, value: b}]}
      proxy-rewrite: {_meta: {disable: true}, uri: /x}
",
    );
    assert_eq!(table.warnings(), [] as [String; 0]);
    assert_eq!(table.routes().len(), 1);
    let route = &table.routes()[0];
    assert_eq!(route.pre_req, None);
    assert_eq!(route.proxy_rewrite, None);
    assert!(table.find(None, "GET", b"/off").is_none());
}

#[test]
fn a_file_without_routes_is_a_table_without_any() {
    for text in ["", "routes:", "routes: []", "# nothing yet"] {
        assert_eq!(table(text).routes().len(), 0, "{text}");
    }
}

#[test]
fn whatever_is_not_supported_is_a_warning_that_names_it() {
    let table = table(
        "
routes:
  - id: 1
    uri: /a
    vars: [[arg_x, ==, y]]
    methods: [PROPFIND]
    plugins:
      limit-count: {count: 1}
      ext-plugin-pre-req: {conf: [{name: a, value: b, extra: 1}], more: 1}
      ext-plugin-post-req: {conf: []}
      proxy-rewrite: {regex_uri: [a, b]}
    upstream:
      type: chash
      scheme: https
      retries: 2
      nodes: {'a:1': 1}
global_rules: []
",
    );
    let expected = [
        "line 6: route `1`, `methods`: the real gateway has no routes for the method `PROPFIND`",
        "line 9: route `1`, `ext-plugin-pre-req`, plugin 1: `extra` is not supported here",
        "line 9: route `1`, `ext-plugin-pre-req`: `more` is not supported here",
        "line 10: route `1`, `ext-plugin-post-req`, `conf`: the real gateway refuses an empty",
        "line 11: route `1`, `proxy-rewrite`: `regex_uri` is not supported here",
        "line 8: route `1`, `plugins`: `limit-count` is not supported here",
        "line 13: route `1`, `upstream`, `type`: `chash` is not supported here",
        "line 14: route `1`, `upstream`, `scheme`: `https` is not supported here",
        "line 15: route `1`, `upstream`: `retries` is not supported here",
        "line 5: route `1`: `vars` is not supported here",
        "line 17: the file: `global_rules` is not supported here",
    ];
    let warnings = table.warnings();
    assert_eq!(warnings.len(), expected.len(), "{warnings:#?}");
    for (warning, expected) in warnings.iter().zip(expected) {
        assert!(warning.starts_with(expected), "{warning}\n{expected}");
    }
}

#[test]
fn an_error_names_the_line_the_route_and_the_field() {
    for (text, expected) in [
        (
            "routes: {a: 1}",
            ":1: `routes` is a map, and a list is needed",
        ),
        (
            "routes: [1]",
            ":1: routes#1 is a number, and a map is needed",
        ),
        ("routes:\n- id: 1", ":2: route `1`, `uri`: it is missing"),
        (
            "routes:\n- id: 1\n  uri: 5",
            ":3: route `1`, `uri`: a number is there",
        ),
        (
            "routes:\n- id: 1\n  uri: x",
            ":3: route `1`, `uri`: `x` is no path",
        ),
        (
            "routes:\n- id: 1\n  uri: /a/*/b",
            ":3: route `1`, `uri`: `/a/*/b` is no path",
        ),
        (
            "routes:\n- uri: /\n  status: 2",
            ":3: route `routes#1`, `status`: 1 (on) or 0",
        ),
        (
            "routes:\n- uri: /\n  host: a.*",
            ":3: route `routes#1`, `host`: `a.*` is neither",
        ),
        (
            "routes:\n- uri: /\n  upstream_id: 9",
            ":3: route `routes#1`, `upstream_id`: the file's",
        ),
        (
            "routes: [{id: 1, uri: /}, {id: 1, uri: /}]",
            ":1: route `1` is there twice",
        ),
        (
            "routes: [{uri: /, upstream: {}}]",
            "`upstream`, `nodes`: it is missing",
        ),
        (
            "routes: [{uri: /, upstream: {nodes: {'a:x': 1}}}]",
            "`a:x`: `x` is no port",
        ),
        (
            "routes: [{uri: /, upstream: {nodes: {'a:1': -1}}}]",
            "-1 is no weight",
        ),
        (
            "routes: [{uri: /, upstream: {pass_host: rewrite}}]",
            "needs the host",
        ),
        (
            "routes:\n- uri: /\n  plugins:\n    ext-plugin-pre-req:\n      conf:\n      - name: say\n        value: {\"body\": 1}",
            ":7: route `routes#1`, `ext-plugin-pre-req`, plugin 1, `value`: a map is there, and a \
             text is needed: put it in quotes",
        ),
        (
            "routes: [{uri: /, plugins: {ext-plugin-pre-req: {conf: [{value: x}]}}}]",
            "`name`: it is missing",
        ),
        (
            "routes: [{uri: /, plugins: {proxy-rewrite: {uri: x}}}]",
            "begins with `/`",
        ),
        (
            "routes: [{uri: /, plugins: {proxy-rewrite: {headers: {'a b': x}}}}]",
            "no name of a header",
        ),
        ("routes:\n\t- x", ":2: the file is not readable YAML"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.starts_with("apisix.yaml:"), "{error}");
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn only_a_file_that_says_it_is_complete_is_read() {
    let parse = |text: &[u8]| RouteTable::parse(Path::new("apisix.yaml"), text, 1);
    assert!(parse(b"routes: []\n#END").is_ok());
    assert!(parse(b"routes: []\n#END \r\n\n").is_ok());
    for unfinished in ["", "routes: []\n", "#END\nroutes: []\n", "routes: []\n#EN"] {
        let error = parse(unfinished.as_bytes()).unwrap_err().to_string();
        assert!(
            error.contains("add the line `#END`"),
            "{unfinished}: {error}"
        );
    }
    assert!(parse(b"routes: [] # \xff\n#END").is_err());
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(MAX_FILE + 1).unwrap();
    let error = RouteTable::load(file.path(), 1).unwrap_err();
    assert!(error.to_string().contains("larger than 4194304 bytes"));
}

#[test]
fn a_small_file_cannot_become_a_large_table() {
    let list = |prefix: &str, length: u32| {
        let items: Vec<_> = (0..length)
            .map(|number| format!("{prefix}{number}"))
            .collect();
        items.join(",")
    };
    let route = |uris, hosts| {
        let (uris, hosts) = (list("/", uris), list("h", hosts));
        format!("{{uris: [{uris}], hosts: [{hosts}]}}")
    };
    let (large, half) = (route(400, 400), route(400, 150));
    for too_many in [large, format!("{half}, {half}")] {
        let error = parse(&format!("routes: [{too_many}]")).unwrap_err();
        assert!(error.to_string().contains("more than 100000"), "{error}");
    }
    assert!(parse(&format!("routes: [{half}]")).is_ok());
}
