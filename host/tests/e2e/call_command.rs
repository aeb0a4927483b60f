//! `plugin-host call` as a user runs it against a real host: what it shows to people and scripts,
//! and its exit codes.

use serde_json::{Value, json};

use crate::support::{Host, PluginDir, plugin_host, with_environment};

/// Runs `plugin-host call` against this host.
fn call(host: &Host, arguments: &[&str]) -> crate::support::Ended {
    let socket = host.socket();
    let all = [&["call", "--socket", socket.to_str().unwrap()], arguments].concat();
    plugin_host(&all)
}

/// The JSON of a call that has to get an answer.
fn answered(host: &Host, arguments: &[&str]) -> Value {
    let ended = call(host, &[arguments, &["--json"]].concat());
    assert_eq!(ended.code, 0, "{ended:?}");
    let shown = ended.json();
    assert_eq!(shown["result"], "answered");
    shown
}

/// Text without the times and numbers that differ from run to run.
fn without_numbers(text: &str) -> String {
    let line = |line: &str| {
        let line = line.split("  (").next().unwrap();
        match line.strip_prefix("< token") {
            Some(_) => "< token".to_owned(),
            None => line.trim_end().to_owned(),
        }
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_stop_is_shown_as_what_the_client_gets() {
    let host = Host::with("say");
    let ended = call(
        &host,
        &["/hello?a=1", "--plugin", r#"say={"body":"hi\nthere"}"#],
    );
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(
        without_numbers(&ended.stdout),
        "> prepare   say\n\
         < token\n\
         > request   GET /hello?a=1\n\
         < stop      the client gets this, and nothing goes upstream\n\
         \n\
         200\n\
         X-Resp-A6-Runner: Rust\n\
         content-type: text/plain; charset=utf-8 (the gateway's own)\n\
         \n\
         hi\n\
         there"
    );
    assert!(ended.stdout.contains(" ms)"), "{}", ended.stdout);
    assert!(
        !ended.stdout.contains('\x1b'),
        "no colours where nobody looks"
    );
}

#[test]
fn questions_are_answered_from_the_flags_and_shown() {
    let host = Host::with("scripted");
    let steps = json!([
        {"report": ["x-route", {"var": "route_id"}]},
        {"report": ["x-none", {"var": "consumer_name"}]},
        {"report": ["x-arg", {"var": "arg_a"}]},
        {"report": ["x-body", "body"]},
    ]);
    let plugin = format!("scripted={steps}");
    let arguments = [
        "/x?a=%201",
        "-X",
        "PUT",
        "-d",
        "the body",
        "--var",
        "route_id=r1",
        "--plugin",
        &plugin,
    ];
    let shown = answered(&host, &arguments);
    assert_eq!(
        shown["questions"],
        json!([
            {"question": "variable", "name": "route_id", "answer": "r1"},
            {"question": "variable", "name": "consumer_name", "answer": null},
            {"question": "variable", "name": "arg_a", "answer": " 1"},
            {"question": "request_body", "name": null, "answer": "the body"},
        ])
    );
    let text = call(&host, &arguments).stdout;
    for line in [
        "< asks for  the variable route_id\n> answers   `r1`\n",
        "< asks for  the variable consumer_name\n> answers   there is none\n",
        "< asks for  the request body\n> answers   8 bytes\n",
        "set header x-route: ",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_request_arrives_as_its_flags_say() {
    let host = Host::with("scripted");
    let steps = json!([
        {"report": ["x-method", "method"]},
        {"report": ["x-path", "path"]},
        {"report": ["x-args", "args"]},
        {"report": ["x-headers", "headers"]},
        {"report": ["x-client", "client_ip"]},
    ]);
    let shown = answered(
        &host,
        &[
            "https://example.com/a%20b/../c?q=%41&z",
            "-X",
            "DELETE",
            "-H",
            "X-One: 1",
            "-H",
            "User-Agent:",
            "-H",
            "accept: text/html",
            "--client-ip",
            "::1",
            "--plugin",
            &format!("scripted={steps}"),
        ],
    );
    let header = |name: &str| {
        let headers = shown["effect"]["headers"].as_array().unwrap();
        let found = headers.iter().find(|header| header["name"] == name);
        found.map(|header| header["value"].as_str().unwrap().to_owned())
    };
    assert_eq!(header("x-method").unwrap(), "DELETE");
    assert_eq!(header("x-path").unwrap(), "/c");
    assert_eq!(header("x-client").unwrap(), "::1");
    let args = header("x-args").unwrap();
    assert!(
        args.contains("q") && args.contains('A') && args.contains('z'),
        "{args}"
    );
    let headers = header("x-headers").unwrap();
    assert!(
        headers.contains("x-one") && headers.contains("example.com"),
        "{headers}"
    );
    assert!(!headers.contains("user-agent"), "{headers}");
}

#[test]
fn several_plugins_run_in_order_and_their_configurations_may_lie_in_files() {
    let host = Host::builder().plugin("scripted").plugin("say").start();
    let files = PluginDir::new()
        .file("conf.json", r#"{"body":"from a file"}"#)
        .file(
            "list.json",
            r#"[{"name":"say@^0.1","value":"{\"body\":\"from a list\"}"}]"#,
        );
    let say = format!("say=@{}", files.path("conf.json"));
    let first = r#"scripted=[{"set_response_header":["x-first","1"]}]"#;
    let shown = answered(&host, &["/", "--plugin", first, "--plugin", &say]);
    assert_eq!(shown["effect"]["action"], "stop");
    assert_eq!(shown["effect"]["body"], "from a file");
    assert_eq!(
        shown["effect"]["headers"][1],
        json!({"name": "x-first", "value": "1"})
    );
    let list = format!("@{}", files.path("list.json"));
    let shown = answered(&host, &["/", "--conf", &list]);
    assert_eq!(shown["effect"]["body"], "from a list");
}

#[test]
fn in_the_response_phase_the_flags_are_the_upstreams_response() {
    let host = Host::with("response-rewrite");
    let ended = call(
        &host,
        &[
            "/",
            "--phase",
            "response",
            "--status",
            "404",
            "-H",
            "Content-Type: text/html",
            "-d",
            "not here",
            "--plugin",
            r#"response-rewrite={"status":200,"filters":[{"regex":"not","replace":"now"}]}"#,
        ],
    );
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(
        without_numbers(&ended.stdout),
        "> prepare   response-rewrite\n\
         < token\n\
         > response  404 to GET /\n\
         < asks for  the response body\n\
         > answers   8 bytes\n\
         < response  the client gets this in place of the upstream's response\n\
         \n\
         200\n\
         Content-Type: text/html\n\
         \n\
         now here"
    );
}

#[test]
fn bytes_that_are_no_text_are_kept_apart_from_text() {
    let host = Host::with("scripted");
    let plugin = r#"scripted=[{"report":["x-path","path"]}]"#;
    let shown = answered(&host, &["/%ff", "--plugin", plugin]);
    assert_eq!(
        shown["effect"]["headers"],
        json!([{"name": "x-path", "value": {"hex": "2fff"}}])
    );
    let text = call(&host, &["/%ff", "--plugin", plugin]).stdout;
    assert!(text.contains("\nset header x-path: /\\xff\n"), "{text}");
}

#[test]
fn a_call_that_fails_closed_is_exit_code_1_with_a_way_to_the_reason() {
    let host = Host::with("say");
    let ended = call(&host, &["/", "--plugin", "missing"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(
        ended
            .stdout
            .contains("failed: the host answered with the error SERVICE_UNAVAILABLE (1)"),
        "{}",
        ended.stdout
    );
    // The log has what the hint says.
    let hint = "request_id=";
    let id = ended.stdout.split(hint).nth(1).unwrap().trim();
    host.log_line(&["plugin-host call", &format!("{hint}{id}"), "missing"]);

    let shown = call(&host, &["/", "--plugin", "missing", "--json"]);
    assert_eq!(shown.code, 1);
    assert_eq!(shown.json()["error"]["code"], "SERVICE_UNAVAILABLE");
    assert_eq!(shown.json()["result"], "failed");
}

#[test]
fn a_plugin_that_fails_on_a_response_is_exit_code_1_although_the_host_answers() {
    let host = Host::with("scripted");
    let plugin = r#"scripted=[{"fail":"no luck"}]"#;
    let ended = call(&host, &["/", "--phase", "response", "--plugin", plugin]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stdout.contains("a plugin failed"), "{}", ended.stdout);
    assert!(ended.stdout.contains("\n503\n"), "{}", ended.stdout);
    host.log_line(&["no luck"]);
}

#[test]
fn the_gateways_variable_names_the_socket_and_standard_input_can_be_the_body() {
    let host = Host::with("scripted");
    let address = format!("unix:{}", host.socket().display());
    let ended = with_environment(
        &[
            "call",
            "/",
            "--json",
            "-d",
            "@-",
            "--plugin",
            r#"scripted=[{"report":["x-body","body"]}]"#,
        ],
        &[("APISIX_LISTEN_ADDRESS", &address)],
        "typed\nin\n",
    );
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(ended.json()["questions"][0]["answer"], "typed\nin\n");
}

#[test]
fn where_no_host_is_the_next_step_is_told() {
    let nobody = PluginDir::new().file("file", "");
    let ended = plugin_host(&[
        "call",
        "/",
        "--plugin",
        "say",
        "--socket",
        &nobody.path("s"),
    ]);
    assert_eq!(ended.code, 1);
    assert!(
        ended.stdout.contains("failed: cannot connect to")
            && ended
                .stdout
                .contains("next: start a host there: plugin-host run --listen"),
        "{}",
        ended.stdout
    );
    drop(std::os::unix::net::UnixListener::bind(nobody.path("stale")).unwrap());
    let stale = nobody.path("stale");
    let ended = plugin_host(&["call", "/", "--plugin", "say", "--socket", &stale, "--json"]);
    assert_eq!(ended.code, 1);
    assert_eq!(
        ended.json()["error"]["next_step"],
        "the host that bound it is gone: start one"
    );
}

#[test]
fn what_cannot_be_meant_is_exit_code_2_on_standard_error() {
    for (wrong, why) in [
        (
            &["call", "/", "--plugin", "say"][..],
            "APISIX_LISTEN_ADDRESS",
        ),
        (&["call", "/", "--socket", "/s"], "--plugin"),
        (
            &["call", "hello", "--socket", "/s", "--plugin", "say"],
            "neither a path",
        ),
        (
            &["call", "/", "--socket", "/s", "--conf", "{}"],
            "--conf: write a list",
        ),
        (
            &["call", "/", "--socket", "/s", "--plugin", "say=@/no/such"],
            "--plugin @/no/such: No such file",
        ),
    ] {
        let ended = plugin_host(wrong);
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.stderr.contains(why), "{ended:?}");
        assert_eq!(ended.stdout, "");
    }
}
