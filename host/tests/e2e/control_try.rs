//! Trying a request out: what each plugin of a chain makes of it, and that live routes notice nothing.

use std::{thread, time::Instant};

use serde_json::{Value, json};

use crate::support::{
    Host,
    asking::{get, post},
    get as call, wait_for,
};

fn host() -> Host {
    let host = Host::builder()
        .plugin("versioned")
        .plugin("scripted")
        .plugin("say")
        .plugin("limit-req")
        .start();
    wait_for("the host is ready", || {
        (get("/readyz").of(&host).status == 200).then_some(())
    });
    host
}

fn tried(host: &Host, wanted: Value) -> Value {
    let reply = post("/v1/try").body(wanted).of(host);
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

fn plugin(name: &str, configuration: Value) -> Value {
    json!({ "name": name, "configuration": configuration })
}

/// What each plugin did: its name, the word for it, and what it has added.
fn effects(tried: &Value) -> Vec<(String, String, Vec<String>)> {
    let texts = |list: &Value| -> Vec<String> { serde_json::from_value(list.clone()).unwrap() };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    tried["plugins"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            (
                text(&it["name"]),
                text(&it["effect"]),
                texts(&it["changes"]),
            )
        })
        .collect()
}

fn effect(name: &str, effect: &str, changes: &[&str]) -> (String, String, Vec<String>) {
    let changes = changes.iter().map(|it| (*it).to_owned()).collect();
    (name.to_owned(), effect.to_owned(), changes)
}

#[test]
fn each_plugin_is_told_apart_with_what_it_changes_answers_and_asks() {
    let host = host();
    let answer = tried(
        &host,
        json!({
            "plugins": [
                plugin("versioned@^0.1", json!({ "word": "w", "pass": true, "ask": "route_id" })),
                plugin("scripted", json!([{ "set_header": ["x-version", "mine"] }])),
                plugin("say", json!({ "body": "" })),
                plugin("say", json!({ "body": "hello" })),
                plugin("limit-req", json!({ "rate": 1 })),
            ],
            "method": "PUT",
            "target": "/a%20b?c=d",
            "headers": [{ "name": "X-User", "value": "me" }],
            "client": "10.1.2.3",
            "variables": [{ "name": "route_id", "value": "r1" }],
        }),
    );
    assert_eq!(
        effects(&answer),
        [
            effect(
                "versioned@^0.1",
                "changed",
                &["set header x-version: 0.1.0"]
            ),
            effect("scripted", "changed", &["set header x-version: mine"]),
            effect("say", "passed", &[]),
            effect(
                "say",
                "stopped",
                &[
                    "200",
                    "X-Resp-A6-Runner: Rust",
                    "content-type: text/plain; charset=utf-8 (the gateway's own)",
                    "body of 5 bytes"
                ]
            ),
            effect("limit-req", "not_reached", &[]),
        ]
    );
    let plugins = &answer["plugins"];
    assert_eq!(plugins[0]["version"], "0.1.0");
    assert_eq!(
        plugins[0]["questions"],
        json!([{ "question": "variable route_id", "answer": "r1" }])
    );
    assert_eq!(plugins[1]["undone"], json!(["set header x-version: 0.1.0"]));
    assert!(plugins[3]["microseconds"].as_u64().unwrap() > 0);
    assert_eq!(answer["outcome"]["action"], "stop");
    assert_eq!(answer["outcome"]["body"], "hello");
    assert_eq!(answer["route"], Value::Null);
    host.log_line(&["an operator's action", "/v1/try"]);
}

#[test]
fn the_chain_of_a_live_route_is_tried_without_its_state_and_leaves_nothing_behind() {
    let host = host();
    let mut gateway = host.gateway();
    let key = "route#7#ext-plugin-pre-req#1";
    let limit = json!({ "rate": 0.001, "rejected_code": 429 });
    let token = gateway.prepare(
        key,
        [("limit-req", limit), ("say", json!({ "body": "hi" }))],
    );
    let before = get("/v1/tokens").of(&host).json();
    for _ in 0..2 {
        let answer = tried(&host, json!({ "token": token }));
        assert_eq!(answer["route"], key);
        let words: Vec<String> = effects(&answer).into_iter().map(|it| it.1).collect();
        assert_eq!(
            words,
            ["passed", "stopped"],
            "each trial has a bucket of its own"
        );
    }
    // The route's only call within the next quarter of an hour has not been used up.
    let said = gateway.call(token, call("/")).to_string();
    assert!(said.contains("body 'hi'"), "{said}");
    let expect_the_routes_alone = || {
        let after = get("/v1/tokens").of(&host).json();
        assert_eq!(after["total"], before["total"], "{after}");
        assert_eq!(after["tokens"][0]["token"], token);
    };
    expect_the_routes_alone();
    // What a worker leaves to the next one has no trials in it either.
    host.replace_worker();
    expect_the_routes_alone();
    let shown = post("/v1/try")
        .body(json!({ "token": token }))
        .of(&host)
        .body;
    assert!(
        !shown.contains("0.001"),
        "no configuration is told: {shown}"
    );
}

#[test]
fn a_response_is_tried_with_the_upstreams_status_and_headers() {
    let host = host();
    let answer = tried(
        &host,
        json!({
            "plugins": [plugin("versioned", json!({ "word": "w" }))],
            "response_status": 404,
            "headers": [{ "name": "X-Up", "value": "1" }],
            "body": "not here",
        }),
    );
    assert_eq!(
        effects(&answer),
        [effect("versioned", "changed", &["x-version: 0.1.0"])]
    );
    let lines = answer["outcome"]["lines"].to_string();
    assert!(
        lines.contains("404") && lines.contains("X-Up: 1"),
        "{lines}"
    );
}

#[test]
fn why_a_plugin_fails_or_keeps_the_chain_from_running_is_told() {
    let host = host();
    let failing = plugin("scripted", json!([{ "fail": "no luck" }]));
    let last = plugin("say", json!({ "body": "x" }));
    let answer = tried(&host, json!({ "plugins": [failing, last] }));
    let plugins = &answer["plugins"];
    assert_eq!(plugins[0]["effect"], "failed");
    assert!(plugins[0]["reason"].as_str().unwrap().contains("no luck"));
    assert_eq!(plugins[1]["effect"], "not_reached");
    assert_eq!(answer["outcome"]["action"], "failed");

    let good = plugin("say", json!({ "body": "x" }));
    let wrong = plugin("limit-req", json!({ "rate": "fast" }));
    let missing = plugin("nowhere", Value::Null);
    let answer = tried(&host, json!({ "plugins": [good, wrong, missing] }));
    let plugins = &answer["plugins"];
    assert_eq!(plugins[0]["effect"], "not_reached");
    for (index, part) in [(1, "rate"), (2, "no plugin `nowhere` is loaded")] {
        assert_eq!(plugins[index]["effect"], "refused");
        let reason = plugins[index]["reason"].as_str().unwrap();
        assert!(reason.contains(part), "{reason}");
    }
    let status = get("/v1/status").of(&host).json();
    assert_eq!(status["closed_routes"], json!([]), "it was no route");
}

#[test]
fn a_plugin_that_may_be_skipped_is_and_the_trial_says_why() {
    let open = json!({ "failure_policy": "open" });
    let host = Host::builder()
        .plugin_json("scripted", open)
        .plugin("say")
        .start();
    let failing = plugin("scripted", json!([{ "fail": "no luck" }]));
    let last = plugin("say", json!({ "body": "x" }));
    let answer = tried(&host, json!({ "plugins": [failing, last] }));
    assert_eq!(answer["plugins"][0]["effect"], "skipped");
    let reason = answer["plugins"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("no luck"), "{reason}");
    assert_eq!(answer["plugins"][1]["effect"], "stopped");
}

#[test]
fn a_trial_in_which_the_worker_dies_tells_so_and_the_next_worker_serves() {
    let host = Host::with("misdeeds");
    wait_for("the host is ready", || {
        (get("/readyz").of(&host).status == 200).then_some(())
    });
    let before = host.worker();
    let deadly = plugin("misdeeds", json!({ "request": ["fault"] }));
    let answer = tried(&host, json!({ "plugins": [deadly] }));
    assert_eq!(answer["plugins"][0]["effect"], "failed", "{answer}");
    assert_eq!(answer["outcome"]["action"], "failed");
    wait_for("another worker serves", || {
        (host.worker() != before).then_some(())
    });
    let harmless = tried(&host, json!({ "plugins": [plugin("misdeeds", json!({}))] }));
    assert_eq!(harmless["outcome"]["action"], "unchanged", "{harmless}");
}

#[test]
fn a_chain_of_more_plugins_than_can_be_tried_is_refused() {
    let host = host();
    let many = |count: usize| vec![plugin("say", json!({ "body": "" })); count];
    let sixteen = tried(&host, json!({ "plugins": many(16) }));
    assert_eq!(sixteen["plugins"].as_array().unwrap().len(), 16);
    let reply = post("/v1/try")
        .body(json!({ "plugins": many(17) }))
        .of(&host);
    assert!(reply.problem(400).contains("at most 16"));
}

#[test]
fn a_trial_for_which_there_is_no_room_beside_the_routes_is_refused() {
    let host = Host::builder()
        .plugin("say")
        .flag("--max-tokens", "16")
        .start();
    let mut gateway = host.gateway();
    let routes = [(); 15].map(|()| gateway.route([("say", json!({ "body": "hi" }))]));
    let many = |count: usize| vec![plugin("say", json!({ "body": "" })); count];
    tried(&host, json!({ "plugins": many(1) }));
    let reply = post("/v1/try")
        .body(json!({ "plugins": many(2) }))
        .of(&host);
    assert!(reply.problem(503).contains("--max-tokens"));
    for token in routes {
        let said = gateway.call(token, call("/")).to_string();
        assert!(said.contains("body 'hi'"), "{said}");
    }
}

#[test]
fn long_answers_are_told_in_part() {
    let host = host();
    let body = "ü".repeat(20_000);
    let answer = tried(
        &host,
        json!({ "plugins": [plugin("say", json!({ "body": body }))] }),
    );
    assert_eq!(answer["outcome"]["body_bytes"], 40_000);
    assert_eq!(answer["outcome"]["body"].as_str().unwrap().len(), 16 << 10);
    let steps: Vec<_> = (0..300)
        .map(|number| {
            let value = "y".repeat(if number == 0 { 3_000 } else { 1 });
            json!({ "set_header": [format!("x-{number}"), value] })
        })
        .collect();
    let answer = tried(
        &host,
        json!({ "plugins": [plugin("scripted", json!(steps))] }),
    );
    let changes = answer["plugins"][0]["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 200);
    assert_eq!(changes[0].as_str().unwrap().len(), 2_048 + "…".len());
}

#[test]
fn trials_beyond_the_bound_are_refused_while_others_are_on_their_way() {
    let host = host();
    let slow = json!({ "plugins": [plugin("scripted", json!([{ "sleep": 1_000 }]))] });
    let began = Instant::now();
    thread::scope(|scope| {
        let trials: Vec<_> = (0..5)
            .map(|_| scope.spawn(|| post("/v1/try").body(&slow).of(&host)))
            .collect();
        let mut replies: Vec<_> = trials.into_iter().map(|it| it.join().unwrap()).collect();
        replies.sort_by_key(|reply| reply.status);
        let statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
        assert_eq!(statuses, [200, 200, 200, 200, 503]);
        let detail = replies[4].problem(503);
        assert!(detail.contains("4 trials"), "{detail}");
    });
    assert!(began.elapsed().as_secs() < 5, "they run side by side");
}

#[test]
fn what_cannot_be_understood_is_refused_with_the_field() {
    let host = host();
    for (wanted, part) in [
        (json!({}), "either `token` or `plugins`"),
        (json!({ "token": 1, "plugins": [] }), "either"),
        (json!({ "plugins": [], "target": "nowhere" }), "target"),
        (json!({ "plugins": [], "method": "LOOK" }), "method"),
        (json!({ "plugins": [], "client": "home" }), "client"),
        (
            json!({ "plugins": [], "response_status": 99 }),
            "response_status",
        ),
        (
            json!({ "plugins": [], "headers": [{ "name": "a b" }] }),
            "headers",
        ),
        (json!({ "plugins": [], "colour": "red" }), "colour"),
    ] {
        let detail = post("/v1/try").body(&wanted).of(&host).problem(400);
        assert!(detail.contains(part), "{wanted}: {detail}");
    }
    post("/v1/try")
        .body(json!({ "token": 1 }))
        .of(&host)
        .problem(404);
    let nothing = tried(&host, json!({ "plugins": [] }));
    assert_eq!(nothing["outcome"]["action"], "unchanged");
}
