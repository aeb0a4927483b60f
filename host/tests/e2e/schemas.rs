//! The JSON Schema of a plugin's configuration: that which its library brings along, that of its
//! `plugin.json` over it, and how each keeps a wrong configuration from the plugin, with the place.

use serde_json::{Value, json};

use crate::support::{
    Host, PluginDir, builds::Built, get, plugin_host, wait_for, with_environment,
};

/// A configuration that fits, and one in which the second filter does not.
fn good() -> Value {
    json!({ "filters": [{ "regex": "^/a" }] })
}

fn bad() -> Value {
    json!({ "filters": [{ "regex": "^/a" }, { "regex": "/secret" }] })
}

const WHERE: &str = "/filters/1/regex: ";

#[test]
fn a_configuration_that_does_not_fit_the_librarys_schema_never_reaches_the_plugin() {
    let host = Host::with("described");
    let mut gateway = host.gateway();
    let token = gateway.route([("described", good())]);
    assert_eq!(
        gateway.call(token, get("/")),
        "stop 200 headers [] body '^/a'"
    );
    let token = gateway.route([("described", bad())]);
    assert_eq!(gateway.call(token, get("/")), "error 1");
    let line = host.log_line(&["ERROR", "described", WHERE]);
    assert!(line.contains("route#2"), "{line}");
    assert!(
        !line.contains("secret"),
        "values stay out of the log: {line}"
    );
    assert_eq!(host.log().matches("the plugin has seen it").count(), 1);
}

#[test]
fn the_status_names_the_closed_route_the_place_and_the_reason_until_it_is_mended() {
    let host = Host::with("described");
    let mut gateway = host.gateway();
    let token = gateway.prepare("route#1#pre#1", [("described", bad())]);
    assert_eq!(gateway.call(token, get("/")), "error 1");
    let (_, status, _) = host.ask(&["status"]);
    let told = status.lines().find(|line| line.contains("fail closed"));
    let told = told.unwrap_or_else(|| panic!("{status}"));
    for part in [
        "route#1#pre#1",
        "described: version 0.1.0",
        WHERE,
        "does not match",
    ] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    let closed = || {
        let (_, status, _) = host.ask(&["status", "--json"]);
        let status: Value = serde_json::from_str(&status).unwrap();
        status["closed_routes"].as_array().unwrap().len()
    };
    assert_eq!(closed(), 1);
    let token = gateway.prepare("route#1#pre#2", [("described", good())]);
    assert!(
        gateway
            .call(token, get("/"))
            .to_string()
            .starts_with("stop")
    );
    wait_for("the mended route is closed no more", || {
        (closed() == 0).then_some(())
    });
}

#[test]
fn the_status_names_no_more_closed_routes_than_it_has_room_for_and_counts_the_rest() {
    let host = Host::with("described");
    let mut gateway = host.gateway();
    for _ in 0..70 {
        let token = gateway.route([("described", bad())]);
        assert_eq!(gateway.call(token, get("/")), "error 1");
    }
    let (_, status, _) = host.ask(&["status"]);
    assert_eq!(status.matches("fail closed: described").count(), 64);
    assert!(status.contains("and those of 6 routes more"), "{status}");
}

#[test]
fn check_and_call_tell_the_place_as_well() {
    let plugins = PluginDir::new().with("described", Value::Null);
    let ended = plugin_host(&[
        "check",
        &plugins.path("described"),
        "--json",
        "--conf",
        &bad().to_string(),
    ]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let shown = ended.json();
    assert_eq!(shown["plugins"][0]["schema"], "library");
    let problem = &shown["problems"][0];
    let message = problem["message"].as_str().unwrap();
    assert!(
        message.contains("does not fit the plugin's schema") && message.contains(WHERE),
        "{message}"
    );
    assert_eq!(problem["fault"], "operator");

    let host = Host::with("described");
    let conf = format!("described={}", bad());
    let socket = host.socket();
    let runtime_dir = host.directory().to_str().unwrap();
    let mut call = vec!["call", "/", "--plugin", &conf, "--runtime-dir", runtime_dir];
    call.extend(["--socket", socket.to_str().unwrap()]);
    let ended = plugin_host(&call);
    assert_eq!(ended.code, 1, "{ended:?}");
    for part in ["< closed", "described", WHERE, "correct the configuration"] {
        assert!(ended.stdout.contains(part), "{part} is not in {ended:?}");
    }
    call.push("--json");
    let closed = plugin_host(&call).json()["closed"].take();
    assert!(closed.as_str().unwrap().contains(WHERE), "{closed}");
}

#[test]
fn a_route_without_a_configuration_is_told_which_field_is_missing_and_where_to_give_it() {
    let host = Host::with("described");
    let mut gateway = host.gateway();
    let token = gateway.route([("described", "")]);
    assert_eq!(gateway.call(token, get("/")), "error 1");
    host.log_line(&[
        "the route gives no configuration",
        "\"filters\"",
        "a `value`",
    ]);
}

#[test]
fn the_schema_of_plugin_json_wins_over_the_librarys() {
    let strict = json!({ "config_schema": { "properties": { "filters": { "maxItems": 1 } } } });
    let two = json!({ "filters": [{ "regex": "^/a" }, { "regex": "^/b" }] });
    let host = Host::builder().plugin_json("described", strict).start();
    let mut gateway = host.gateway();
    let token = gateway.route([("described", two)]);
    assert_eq!(gateway.call(token, get("/")), "error 1");
    host.log_line(&["ERROR", "/filters: ", "has more than 1 item"]);

    // One that says nothing lets everything reach the plugin.
    let host = Host::builder()
        .plugin_json("described", json!({ "config_schema": {} }))
        .start();
    let mut gateway = host.gateway();
    let token = gateway.route([("described", bad())]);
    assert_eq!(
        gateway.call(token, get("/")),
        "stop 200 headers [] body '^/a /secret'"
    );
}

/// What `plugin-host schema` prints, with these arguments.
fn schema(arguments: &[&str]) -> Value {
    let ended = plugin_host(&[&["schema"], arguments].concat());
    assert_eq!(ended.code, 0, "{ended:?}");
    ended.json()
}

#[test]
fn schema_prints_it_for_a_name_a_directory_and_a_library_without_a_host() {
    let plugins = PluginDir::new()
        .with("described", Value::Null)
        .library("say");
    let by_name = schema(&["described", "--plugin-dir", &plugins.path(".")]);
    assert_eq!(by_name["required"], json!(["filters"]));
    assert_eq!(
        by_name["$defs"]["Filter"]["properties"]["regex"]["pattern"],
        r"^\^"
    );
    assert_eq!(schema(&[&plugins.path("described")]), by_name);
    assert_eq!(
        schema(&[&plugins.path("described/libdescribed.so")]),
        by_name
    );
    // From the derived schema of a library alone, without plugin.json.
    let of_say = schema(&[&plugins.path("libsay.so")]);
    assert_eq!(of_say["properties"]["body"]["type"], "string");
    let of_say = schema(&["say@^0.1", "--plugin-dir", &plugins.path(".")]);
    assert_eq!(of_say["required"], json!(["body"]));
    let by_environment = with_environment(
        &["schema", "described"],
        &[("PLUGIN_HOST_PLUGIN_DIR", &plugins.path("."))],
        "",
    );
    assert_eq!(by_environment.json(), by_name);
}

#[test]
fn schema_prints_that_of_plugin_json_where_it_has_one() {
    let own = json!({ "type": "object", "title": "mine" });
    let plugins = PluginDir::new().with("described", json!({ "config_schema": own }));
    assert_eq!(schema(&[&plugins.path("described")]), own);
}

#[test]
fn schema_says_what_to_do_where_there_is_none() {
    let plugins = PluginDir::new()
        .with("versioned", Value::Null)
        .file("bad/plugin.json", "{");
    Built::WithAbi1_0
        .version("0.1.0")
        .write(plugins.path("compatible").as_ref());
    let check = |arguments: &[&str], code: i32, expected: &[&str]| {
        let ended = plugin_host(&[&["schema"], arguments].concat());
        assert_eq!(ended.code, code, "{ended:?}");
        for part in expected {
            assert!(ended.stderr.contains(part), "{part} is not in {ended:?}");
        }
    };
    let all = plugins.path(".");
    let what_to_do = ["has no schema", "derive `JsonSchema`", "`config_schema`"];
    check(&["versioned", "--plugin-dir", &all], 1, &what_to_do);
    // Libraries of earlier days could not bring one along.
    check(&["compatible", "--plugin-dir", &all], 1, &what_to_do);
    check(
        &["nobody", "--plugin-dir", &all],
        1,
        &["bad/plugin.json", "correct the JSON"],
    );
    check(&[&plugins.path("bad")], 1, &["correct the JSON"]);
    check(&[&plugins.path("nowhere")], 2, &["nowhere"]);
    check(&[&all], 2, &["directory of plugins", "--plugin-dir"]);
    check(&["no/such.so"], 2, &["no/such.so"]);
    check(&["a b", "--plugin-dir", &all], 2, &["no plugin name"]);
}

#[test]
fn a_schema_that_is_none_keeps_the_plugin_out_and_says_how_to_go_on() {
    for (how, told) in [
        (
            "broken",
            "the JSON Schema of its configuration type cannot be used",
        ),
        ("panic", "no schema today"),
    ] {
        let plugins = PluginDir::new().with("described", Value::Null);
        let arguments = ["check", &plugins.path("described"), "--json"];
        let ended = with_environment(&arguments, &[("SCHEMA", how)], "");
        assert_eq!(ended.code, 1, "{ended:?}");
        let problem = &ended.json()["problems"][0];
        let message = problem["message"].as_str().unwrap();
        assert!(
            message.contains("when it was asked for the schema") && message.contains(told),
            "{message}"
        );
        let next_step = problem["next_step"].as_str().unwrap();
        assert!(next_step.contains("`config_schema`"), "{next_step}");

        // Without a rehearsal the worker meets it, and goes on.
        let host = Host::builder()
            .plugin("described")
            .plugin("say")
            .env("SCHEMA", how)
            .flag("--rehearse", "false")
            .start();
        host.log_line(&["ERROR", "described 0.1.0", told]);
        let mut gateway = host.gateway();
        let token = gateway.route([("say", json!({ "body": "still here" }))]);
        let answer = gateway.call(token, get("/")).to_string();
        assert!(answer.contains("still here"), "{answer}");

        // A schema of plugin.json wins, and the library is not even asked.
        let host = Host::builder()
            .plugin_json("described", json!({ "config_schema": true }))
            .env("SCHEMA", how)
            .start();
        host.log_line(&["plugin loaded", "described"]);
    }
}
