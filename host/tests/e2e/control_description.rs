//! The control interface is what its OpenAPI description says: real answers of a host with something of
//! everything, compared with the description that it serves.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Host,
    asking::{ask, get, post},
    get as call,
    serving::{serving, until, word},
    versions::{named, version},
    wait_for,
    workers::Overview,
};

/// A host with a plugin of each kind: one that serves after an upgrade, with a failed try and a failed
/// call behind it; one that is disabled; one in quarantine; one that cannot be read. A worker has died.
fn something_of_everything() -> Host {
    let (host, directory, mut gateway, token) = serving();
    version("0.2.0")
        .http_routes(&["/version"])
        .swap_in(&directory);
    until(&mut gateway, token, "0.2.0", "hello");
    version("0.3.0")
        .settings(json!({ "load": "fail" }))
        .swap_in(&directory);
    host.log_line(&["ERROR", "0.3.0", "told to fail"]);
    for name in ["set-aside", "forbidden"] {
        named(name, "0.1.0").swap_in(&host.plugins().join(name));
        host.log_line(&["plugin loaded", name]);
    }
    post("/v1/plugins/set-aside/disable").of(&host);
    post("/v1/plugins/forbidden/quarantine").of(&host);
    std::fs::create_dir(host.plugins().join("broken")).unwrap();
    std::fs::write(host.plugins().join("broken/plugin.json"), "[]").unwrap();
    host.log_line(&["ERROR", "broken/plugin.json"]);
    let dead = host.signal_worker(Signal::KILL);
    wait_for("another worker serves", || {
        (host.worker() != dead).then_some(())
    });
    let mut gateway = host.gateway();
    gateway.prepare("route#2#pre#1", [("missing", word("x"))]);
    let failing = gateway.prepare(
        "route#3#pre#1",
        [("versioned", json!({ "word": "hello", "fail": "no luck" }))],
    );
    gateway.call(failing, call("/"));
    // The next worker looks at the directory anew, and takes its time to call something broken.
    wait_for("the problem is known", || {
        let plugins = get("/v1/plugins").of(&host).json();
        (!plugins["problems"].as_array()?.is_empty()).then_some(())
    });
    wait_for("a report of the death", || {
        let crashes = get("/v1/crashes").of(&host).json();
        (!crashes["crashes"].as_array()?.is_empty()).then_some(())
    });
    host
}

/// The description, where objects have no fields but those that it names.
fn strict(description: &Value) -> Value {
    fn close(schema: &mut Value) {
        match schema {
            Value::Object(fields) => {
                // What is made of several parts is closed as a whole.
                if fields.contains_key("allOf") {
                    fields.insert("unevaluatedProperties".to_owned(), json!(false));
                    return;
                }
                let is_closed = fields.contains_key("properties")
                    && !fields.contains_key("additionalProperties");
                if is_closed {
                    fields.insert("additionalProperties".to_owned(), json!(false));
                }
                fields.values_mut().for_each(close);
            }
            Value::Array(items) => items.iter_mut().for_each(close),
            _ => {}
        }
    }
    let mut description = description.clone();
    let schemas = description["components"]["schemas"]
        .as_object_mut()
        .unwrap();
    // A part of another one.
    for (name, schema) in schemas {
        if name != "Culprit" {
            close(schema);
        }
    }
    description
}

/// Fails where a value is not what a schema of the description says.
fn expect_schema(description: &Value, schema: &Value, value: &Value, of: &str) {
    let mut whole = schema.clone();
    whole["components"] = description["components"].clone();
    let validator = jsonschema::validator_for(&whole).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{of}: {errors:#?}\n{value:#}");
}

/// A path with something real in it.
fn filled(path: &str, crash: &str) -> String {
    path.replace("{name}", "versioned").replace("{id}", crash)
}

#[test]
fn every_answer_is_what_the_description_says_and_every_path_is_described() {
    let host = something_of_everything();
    let reply = get("/openapi.json").of(&host);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let description = reply.json();
    assert_eq!(description["openapi"], "3.1.0");
    assert_eq!(description["info"]["title"], "plugin-host");
    let closed = strict(&description);
    let crashes = get("/v1/crashes").of(&host).json();
    let crash = crashes["crashes"][0]["id"].as_str().unwrap();
    let mut seen = BTreeSet::new();
    // What only looks comes first: the rest changes what there is to see. The host ends last.
    let paths = description["paths"].as_object().unwrap();
    let mut operations: Vec<(&str, &str)> = paths
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(move |method| (method.as_str(), path.as_str()))
        })
        .collect();
    operations.sort_by_key(|(method, path)| {
        let last = ["/v1/renew", "/v1/drain"];
        let place = last.iter().position(|last| last == path);
        (*method != "get", place)
    });
    for (method, path) in operations {
        let operation = &paths[path][method];
        for text in ["summary", "tags", "operationId"] {
            assert!(!operation[text].is_null(), "{method} {path} has no {text}");
        }
        seen.insert(format!("{method} {path}"));
        if ["/v1/events", "/v1/log/follow"].contains(&path) {
            continue;
        }
        wait_for("no worker is on its way", || {
            let overview = Overview::of(host.directory())?;
            (overview.0["workers"].as_array()?.len() == 1).then_some(())
        });
        let asked = ask(&method.to_uppercase(), &filled(path, crash)).body("{}");
        let reply = asked.of(&host);
        let name = format!("{method} {path}: {}", reply.status);
        let response = &operation["responses"][reply.status.to_string()];
        assert!(!response.is_null(), "{name} is not described: {reply:?}");
        let media_type = reply.header("content-type").unwrap();
        let media_type = media_type.split(';').next().unwrap();
        let schema = &response["content"][media_type]["schema"];
        assert!(!schema.is_null(), "{name}: no {media_type} is described");
        let value = match media_type {
            "text/plain" => json!(reply.body),
            _ => reply.json(),
        };
        expect_schema(&closed, schema, &value, &name);
        if path == "/v1/renew" {
            assert_eq!(reply.status, 200, "{reply:?}");
            wait_for("the same program has taken over", || {
                let overview = Overview::of(host.directory())?;
                (overview.count("renewals") == 1 && overview.count("replacements") > 1)
                    .then_some(())
            });
        }
        if method == "get" {
            assert_eq!(reply.status, 200, "{name}: {reply:?}");
        }
    }
    for expected in [
        "get /v1/status",
        "get /v1/plugins",
        "get /v1/plugins/{name}",
        "get /v1/chains",
        "get /v1/tokens",
        "get /v1/workers",
        "get /v1/crashes",
        "get /v1/settings",
        "get /v1/events",
        "post /v1/rescan",
        "post /v1/plugins/{name}/upgrade",
        "post /v1/plugins/{name}/rollback",
        "post /v1/plugins/{name}/disable",
        "post /v1/plugins/{name}/enable",
        "post /v1/plugins/{name}/quarantine",
        "post /v1/plugins/{name}/lift",
        "post /v1/workers/replace",
        "post /v1/log",
        "post /v1/drain",
        "get /healthz",
        "get /readyz",
    ] {
        assert!(
            seen.contains(expected),
            "{expected} is not described: {seen:?}"
        );
    }
}

#[test]
fn the_host_with_something_of_everything_tells_of_all_of_it() {
    let host = something_of_everything();
    let status = get("/v1/status").of(&host).json();
    let states: Vec<(&str, &str)> = status["plugins"]
        .as_array()
        .unwrap()
        .iter()
        .map(|plugin| {
            (
                plugin["name"].as_str().unwrap(),
                plugin["state"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        states,
        [
            ("forbidden", "quarantined"),
            ("set-aside", "disabled"),
            ("versioned", "serving")
        ]
    );
    let plugin = &status["plugins"][2];
    assert_eq!(plugin["version"], "0.2.0");
    assert_eq!(plugin["previous"], "0.1.0");
    assert_eq!(plugin["http_routes"][0]["state"], "not_listening");
    let outcomes: Vec<(&str, &str)> = plugin["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            (
                it["version"].as_str().unwrap(),
                it["outcome"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        outcomes,
        [
            ("0.1.0", "served"),
            ("0.2.0", "served"),
            ("0.3.0", "failed")
        ],
        "known to a worker that did none of it"
    );
    assert!(
        plugin["last_error"]
            .as_str()
            .unwrap()
            .contains("told to fail")
    );
    assert_eq!(
        plugin["build"]["target"]
            .as_str()
            .unwrap()
            .split('-')
            .count(),
        4
    );
    assert_eq!(
        plugin["library"],
        host.plugins()
            .join("versioned/libversioned.so")
            .to_str()
            .unwrap()
    );
    assert_eq!(status["disabled"][0]["name"], "set-aside");
    let by = status["disabled"][0]["by"].as_str().unwrap();
    assert!(by.starts_with("user ") && by.contains("process"), "{by}");
    let problem = status["problems"][0]["problem"].as_str().unwrap();
    assert!(problem.contains("broken/plugin.json"), "{problem}");
    assert_eq!(status["host"]["crashes"], 1);

    let chains = get("/v1/chains").of(&host).json();
    let chain = |key: &str| {
        let mut all = chains["chains"].as_array().unwrap().iter();
        all.find(|chain| chain["key"] == key).unwrap().clone()
    };
    let serving = chain("route#1#pre#1");
    assert_eq!(serving["route"], "route#1#pre");
    assert_eq!(serving["state"], "ready");
    assert_eq!(serving["plugins"][0]["version"], "0.2.0");
    let refused = chain("route#2#pre#1");
    assert_eq!(refused["state"], "refused");
    let reason = refused["plugins"][0]["refused"].as_str().unwrap();
    assert!(reason.contains("no plugin `missing` is loaded"), "{reason}");
    assert!(
        !chains.to_string().contains("hello"),
        "no configuration is told"
    );

    let crashes = get("/v1/crashes").of(&host).json();
    let summary = crashes["crashes"][0]["summary"].as_str().unwrap();
    assert!(summary.contains("SIGKILL"), "{summary}");
}

#[test]
fn what_a_plugin_says_about_itself_is_told_with_the_schema_of_its_configurations() {
    let host = Host::builder()
        .plugin_json(
            "say",
            json!({ "home": "example.com/say", "timeout_ms": 250 }),
        )
        .start();
    wait_for("the host is ready", || {
        (get("/readyz").of(&host).status == 200).then_some(())
    });
    let about = get("/v1/plugins/say/about").of(&host).json()["plugins"][0].take();
    assert_eq!(about["version"], "0.1.0");
    assert_eq!(about["home"], "example.com/say");
    assert_eq!(about["timeout_ms"], 250);
    let schema = &about["config_schema"];
    assert_eq!(schema["properties"]["body"]["type"], "string", "{about}");
    assert_eq!(about["settings_schema"], Value::Null);
    get("/v1/plugins/nobody/about").of(&host).problem(404);
}
