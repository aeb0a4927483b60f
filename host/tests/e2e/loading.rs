//! What happens to a host when plugins in its directory are wrong: the others serve, and the log
//! says what to do.

use serde_json::{Value, json};

use crate::support::{Gateway, Host, get};

const SERVICE_UNAVAILABLE: &str = "error 1";

/// A host with the good plugin `say` and with a plugin that does this while it is loaded.
fn beside_say(on_load: Value) -> Host {
    Host::builder()
        .plugin("say")
        .plugin_json("scripted", json!({"settings": {"on_load": [on_load]}}))
        .start()
}

fn say_serves(gateway: &mut Gateway) {
    let token = gateway.route([("say", json!({"body": "still here"}))]);
    let answer = gateway.call(token, get("/")).to_string();
    assert!(answer.contains("still here"), "{answer}");
}

fn scripted_fails_closed(gateway: &mut Gateway) {
    let token = gateway.route([("scripted", "[]")]);
    assert_eq!(gateway.call(token, get("/")), SERVICE_UNAVAILABLE);
}

#[test]
fn what_is_wrong_in_the_directory_is_told_with_path_and_next_step_and_the_others_serve() {
    let host = Host::builder()
        .plugin("say")
        .file("cut/plugin.json", "{\"name\": ")
        .file("empty/README", "")
        .file("text/libtext.so", "not a library")
        .file(
            "lost/plugin.json",
            r#"{"name":"lost","version":"1.0.0","source":{"mode":"local_so","path":"liblost.so"}}"#,
        )
        .file(
            "digest/plugin.json",
            json!({
                "name": "digest", "version": "1.0.0",
                "source": {"mode": "local_so", "path": "x.so", "sha256": "0".repeat(64)},
            })
            .to_string(),
        )
        .file("digest/x.so", "other bytes")
        .start();
    say_serves(&mut host.gateway());
    for (path, what, next_step) in [
        ("plugins/cut/plugin.json", "line 1", "correct the JSON"),
        (
            "plugins/empty",
            "neither a plugin.json nor a library",
            "put a plugin.json",
        ),
        (
            "plugins/text/libtext.so",
            "not an ELF library",
            "crate-type",
        ),
        ("plugins/lost/liblost.so", "not there", "build the plugin"),
        ("plugins/digest/x.so", "SHA-256", "copy the library again"),
    ] {
        host.log_line(&["ERROR", path, what, next_step]);
    }
    host.log_line(&["the plugin directory has been read", "serving=1 problems=5"]);
}

#[test]
fn an_unknown_field_only_warns() {
    let host = Host::builder()
        .plugin_json("say", json!({"from_the_future": true}))
        .start();
    say_serves(&mut host.gateway());
    host.log_line(&["WARN", "`from_the_future` is not a field", "say", "0.1.0"]);
}

#[test]
fn a_directory_that_is_not_there_is_told_and_calls_fail_closed() {
    let host = Host::builder()
        .flag("--plugin-dir", "/no/such/plugins")
        .start();
    let mut gateway = host.gateway();
    scripted_fails_closed(&mut gateway);
    host.log_line(&[
        "ERROR",
        "/no/such/plugins",
        "there is no such directory",
        "create it",
    ]);
}

#[test]
fn a_plugin_that_panics_while_it_loads_concerns_nobody_else() {
    let host = beside_say(json!({"panic": "oh no"}));
    let mut gateway = host.gateway();
    say_serves(&mut gateway);
    scripted_fails_closed(&mut gateway);
    host.log_line(&["ERROR", "scripted 0.1.0", "oh no"]);
}

#[test]
fn a_plugin_that_never_ends_to_load_does_not_need_the_last_thread_for_it() {
    let host = Host::builder()
        .plugin("say")
        .plugin_json(
            "scripted",
            json!({"settings": {"on_load": [{"block": 600_000}]}}),
        )
        .flag("--blocking-threads", "1")
        .start();
    say_serves(&mut host.gateway());
}

#[test]
fn configurations_that_never_end_to_parse_do_not_keep_other_routes_from_being_served() {
    let host = Host::builder()
        .plugin("say")
        .plugin("scripted")
        .flag("--call-budget", "200ms")
        .start();
    let mut gateway = host.gateway();
    for _ in 0..20 {
        let steps = json!([{"when_configured": {"block": 600_000}}]);
        gateway.route([("scripted", steps)]);
    }
    say_serves(&mut gateway);
}

#[test]
fn the_operators_settings_and_what_they_refer_to_reach_on_load() {
    let host = Host::builder()
        .plugin("scripted")
        .config(
            "[[plugins.scripted.settings.on_load]]\nlog = [\"warn\", \"${env:WORD} arrived\"]\n",
        )
        .env("WORD", "secret-word")
        .start();
    let line = host.log_line(&["secret-word arrived"]);
    assert!(
        line.contains("WARN") && line.contains("scripted") && line.contains("0.1.0"),
        "{line}"
    );
    // Nothing but the plugin itself has told.
    assert_eq!(host.log().matches("secret-word").count(), 1);
}

#[test]
fn a_reference_that_leads_nowhere_concerns_its_plugin_only() {
    let host = Host::builder()
        .plugin("say")
        .plugin("scripted")
        .config("[plugins.scripted.settings]\nword = \"${env:NOT_SET_HERE}\"\n")
        .start();
    let mut gateway = host.gateway();
    say_serves(&mut gateway);
    scripted_fails_closed(&mut gateway);
    host.log_line(&["ERROR", "scripted", "NOT_SET_HERE"]);
}

#[test]
fn settings_that_do_not_fit_the_plugins_schema_are_refused_with_the_place() {
    let fields = json!({
        "settings": {"on_load": []},
        "settings_schema": {"properties": {"on_load": {"type": "array"}}},
    });
    let host = Host::builder()
        .plugin_json("scripted", fields)
        .config("[plugins.scripted.settings]\non_load = 3\n")
        .start();
    scripted_fails_closed(&mut host.gateway());
    host.log_line(&["ERROR", "scripted", "/on_load", "settings_schema"]);
}
