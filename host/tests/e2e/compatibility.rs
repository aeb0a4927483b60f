//! Libraries that were built otherwise than this host: with an earlier `plugin-abi`, by another compiler,
//! with other settings. Each does everything that a plugin can do, or is refused with a reason.

use std::fs;

use serde_json::json;

use crate::support::{
    Gateway, Host, PluginDir,
    asking::post,
    builds::{Built, LATER_ABI},
    get, plugin_host, request, response, wait_for,
};

/// Everything that a plugin can do, in a host that runs this library.
fn does_everything(built: Built) {
    let host = Host::builder().start();
    let plugin = built.plugin();
    built.version("0.2.0").swap_in(&host.plugins().join(plugin));
    host.log_line(&["a thread speaks", plugin, "version=0.2.0"]);
    host.log_line(&["is loaded", "greeting=hello", "version=0.2.0"]);
    host.log_line(&["plugin loaded", plugin]);
    let mut gateway = host.gateway();
    gateway.set_variable("route_id", "7");
    gateway.set_request_body(b"a body");

    let token = gateway.route([(plugin, json!({ "word": "pass" }))]);
    let call = request("POST", "/here").header("x-in", "in").arg("q", "1");
    assert_eq!(
        gateway.call(token, call.clone()),
        "rewrite path '/elsewhere' headers [x-report='0.2.0 hello pass true: POST /here in 1 7 a body 127.0.0.1', x-in] args [q='changed'] response headers [x-also='to the client'] body 'a new body'"
    );
    assert_eq!(gateway.asked(), ["route_id", "request body"]);
    gateway.set_response_body(b"its body");
    assert_eq!(
        gateway.call(token, response(200).header("x-in", "in")),
        "answer 201 headers [x-report='0.2.0 pass: 200 in 7 its body', x-more='1'] body 'another body'"
    );

    let token = gateway.route([(plugin, json!({ "word": "halt", "stop": true }))]);
    let report = "0.2.0 hello halt true: POST /here in 1 7 a body 127.0.0.1";
    assert_eq!(
        gateway.call(token, call),
        format!("stop 418 headers [X-Report='{report}'] body '{report}'").as_str()
    );

    for (fail, told) in [("error", "told to fail"), ("panic", "told to panic")] {
        let token = gateway.route([(plugin, json!({ "word": "w", "fail": fail }))]);
        assert_eq!(gateway.call(token, get("/")), "error 1");
        host.log_line(&[told, plugin]);
    }
    let token = gateway.route([(plugin, json!({ "word": "" }))]);
    assert_eq!(gateway.call(token, get("/")), "error 1");
    host.log_line(&["word is empty", plugin]);

    fs::remove_dir_all(host.plugins().join(plugin)).unwrap();
    host.log_line(&["0.2.0 says goodbye", plugin]);
    host.log_line(&["plugin unloaded", plugin]);
}

/// Message and next step of a check, which has one problem to tell.
fn only_problem(plugins: &PluginDir, name: &str) -> [String; 2] {
    let ended = plugin_host(&["check", &plugins.path(name), "--json"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let shown = ended.json();
    assert_eq!(shown["problems"].as_array().unwrap().len(), 1, "{shown}");
    let problem = &shown["problems"][0];
    ["message", "next_step"].map(|key| problem[key].as_str().unwrap().to_owned())
}

/// Calls until a version answers, and never meets anything but the two.
fn until_reported(gateway: &mut Gateway, token: u32, old: &str, new: &str) {
    wait_for(new, || {
        let answer = gateway.call(token, get("/")).to_string();
        let by =
            |version: &str| answer.starts_with(&format!("stop 418 headers [X-Report='{version} "));
        assert!(by(old) || by(new), "{answer}");
        by(new).then_some(())
    });
}

#[test]
fn a_library_of_this_build_does_everything() {
    does_everything(Built::Now);
}

#[test]
fn a_library_with_the_abi_as_it_was_in_1_0_and_with_another_serde_does_everything() {
    does_everything(Built::WithAbi1_0);
}

#[test]
fn a_library_with_the_abi_as_it_was_in_1_1_does_everything_and_has_nothing_to_execute() {
    does_everything(Built::WithAbi1_1);
    let host = Host::builder().start();
    let files = Built::WithAbi1_1.version("0.2.0");
    files.swap_in(&host.plugins().join("compatible"));
    host.log_line(&["plugin loaded", "compatible"]);
    let execute = post("/v1/plugins/compatible/execute").body("{}");
    let refusal = execute.of(&host).problem(501);
    assert!(refusal.contains("has no `execute`"), "{refusal}");
}

#[test]
fn a_plugin_is_upgraded_from_abi_1_0_to_this_one_and_back_without_a_failure() {
    let host = Host::builder().start();
    let directory = host.plugins().join("compatible");
    Built::WithAbi1_0.version("0.1.0").swap_in(&directory);
    host.log_line(&["plugin loaded", "version=0.1.0"]);
    let mut gateway = host.gateway();
    let token = gateway.route([("compatible", json!({ "word": "w", "stop": true }))]);
    until_reported(&mut gateway, token, "0.1.0", "0.1.0");
    Built::Now.version("0.2.0").swap_in(&directory);
    until_reported(&mut gateway, token, "0.1.0", "0.2.0");
    Built::WithAbi1_0.version("0.3.0").swap_in(&directory);
    until_reported(&mut gateway, token, "0.2.0", "0.3.0");
    let (code, _, complaint) = host.ask(&["rollback", "compatible"]);
    assert_eq!(code, 0, "{complaint}");
    until_reported(&mut gateway, token, "0.3.0", "0.2.0");
}

#[test]
fn plugins_of_two_abi_versions_work_on_one_call() {
    let host = Host::builder().start();
    Built::WithAbi1_0
        .version("0.1.0")
        .swap_in(&host.plugins().join("compatible"));
    Built::WithItsOwnAllocator
        .version("0.2.0")
        .swap_in(&host.plugins().join("own-allocator"));
    let mut gateway = host.gateway();
    let token = gateway.route([
        ("compatible", json!({ "word": "first" })),
        ("own-allocator", json!({ "word": "second", "stop": true })),
    ]);
    // The second one sees what the first one changed.
    let report = "0.2.0 hello second true: GET /elsewhere  changed none a new body 127.0.0.1";
    wait_for("both are loaded", || {
        let answer = gateway.call(token, get("/")).to_string();
        answer.contains(report).then_some(())
    });
}

#[test]
fn a_library_with_a_later_abi_of_which_it_uses_nothing_new_does_everything() {
    does_everything(Built::WithALaterAbi);
    let plugins = PluginDir::new();
    let files = Built::WithALaterAbi.version("0.2.0");
    files.write(plugins.path("foresighted").as_ref());
    let ended = plugin_host(&["check", &plugins.path("foresighted"), "--json"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(ended.json()["plugins"][0]["abi"], LATER_ABI);
}

#[test]
fn a_library_that_uses_what_this_host_does_not_have_is_refused_by_the_name_of_that() {
    // Real code, marked as the SDK marks it: what is in the library and never called is no reason.
    let plugins = PluginDir::new().library("from-tomorrow");
    let [message, next_step] = only_problem(&plugins, "libfrom_tomorrow.so");
    assert!(
        message.contains("uses `time_travel` of it, which this host"),
        "{message}"
    );
    assert!(next_step.contains("upgrade this host"), "{next_step}");
}

#[test]
fn a_library_of_another_layout_is_refused_by_the_field_before_it_is_constructed() {
    let plugins = PluginDir::new();
    let files = Built::WithAnotherLayout.version("0.2.0");
    files.write(plugins.path("misshapen").as_ref());
    let [message, next_step] = only_problem(&plugins, "misshapen");
    assert_eq!(
        message,
        "it does not load: when the library was opened: its plugin-abi is laid out differently from \
         this host's: `ReplyParts.status` is a `u32` in the library and `u16` in this host: build it \
         with the plugin-abi of this host"
    );
    assert!(next_step.contains("plugin-abi of this host"), "{next_step}");

    let host = Host::builder().start();
    files.swap_in(&host.plugins().join("misshapen"));
    host.log_line(&["ERROR", "misshapen 0.2.0", "`ReplyParts.status`"]);
    assert!(!host.log().contains("a thread speaks"), "on_load has run");
}

#[test]
fn a_library_that_another_compiler_has_built_does_everything() {
    does_everything(Built::ByAnotherCompiler);
}

#[test]
fn a_library_that_is_optimised_across_all_crates_does_everything() {
    does_everything(Built::Optimised);
}

#[test]
fn a_library_with_an_allocator_of_its_own_does_everything() {
    does_everything(Built::WithItsOwnAllocator);
}
