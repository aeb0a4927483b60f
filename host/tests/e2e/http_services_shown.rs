//! What operators see of HTTP services: which routes there are, who serves them, and why one is not.

use serde_json::{Value, json};

use crate::support::{
    Host,
    asking::{get, post},
    guarded::guarded_with,
    http::free_address,
    versions::{named, version},
    wait_for,
};

/// What is told of the routes of a plugin, when it is so many.
fn routes(host: &Host, plugin: &str, count: usize) -> Vec<Value> {
    wait_for(&format!("{count} routes of {plugin}"), || {
        let told = get(&format!("/v1/plugins/{plugin}")).of(host).json();
        let routes = told["plugins"][0]["http_routes"].as_array()?.clone();
        (routes.len() == count).then_some(routes)
    })
}

/// A command of this host's, and what it shows.
fn shown(host: &Host, arguments: &[&str]) -> String {
    let (code, shown, complaint) = host.ask(arguments);
    assert_eq!(code, 0, "{complaint}");
    shown
}

fn doctor(host: &Host) -> Vec<Value> {
    let listen = host.socket().display().to_string();
    let runtime_dir = host.directory().to_str().unwrap();
    let arguments = [
        "doctor",
        "--json",
        "--listen",
        &listen,
        "--runtime-dir",
        runtime_dir,
    ];
    let report = crate::support::plugin_host(&arguments).json();
    report["findings"].as_array().unwrap().clone()
}

#[test]
fn routes_are_shown_with_who_serves_them_and_a_refused_one_with_who_has_it() {
    let address = free_address().to_string();
    let guarded = guarded_with(Host::builder().flag("--http-listen", &address));
    let host = &guarded.host;
    let mut first = version("0.1.0").http_routes(&["/version", "/greet/:name"]);
    first.metadata["http_services"]["routes"][1] =
        json!({ "route": "/greet/:name", "label": "greet" });
    first.swap_in(&host.plugins().join("versioned"));
    let told = routes(host, "versioned", 2);
    let generation =
        get("/v1/plugins/versioned").of(host).json()["plugins"][0]["generation"].take();
    assert!(generation.is_u64(), "{generation}");
    assert_eq!(
        told,
        [
            json!({
                "method": "GET", "route": "/version", "label": "", "state": "served",
                "version": "0.1.0", "generation": generation, "taken_by": null, "reason": null
            }),
            json!({
                "method": null, "route": "/greet/:name", "label": "greet", "state": "served",
                "version": "0.1.0", "generation": generation, "taken_by": null, "reason": null
            })
        ]
    );
    // Another plugin serves one of its own, and is not upgraded to what wants two that are taken.
    let rival = host.plugins().join("contender");
    let claims = |number: &str, routes: &[&str]| named("contender", number).http_routes(routes);
    claims("0.5.0", &["/mine"]).swap_in(&rival);
    routes(host, "contender", 1);
    claims("0.6.0", &["/mine", "/version", "/greet/:who"]).swap_in(&rival);
    let told = routes(host, "contender", 3);
    assert_eq!(told[0]["state"], "served");
    assert_eq!(told[0]["version"], "0.5.0");
    for (refused, route, of) in [
        (&told[1], "/version", "GET /version"),
        (&told[2], "/greet/:who", "any method /greet/:name"),
    ] {
        assert_eq!(refused["state"], "refused", "{refused}");
        assert_eq!(refused["route"], route);
        assert_eq!(refused["version"], "0.6.0");
        assert_eq!(refused["generation"], Value::Null);
        assert_eq!(refused["taken_by"], "versioned 0.1.0");
        let reason = refused["reason"].as_str().unwrap();
        assert!(reason.contains(&format!("({of})")), "{reason}");
    }
    // The next worker, which has tried none of it, knows the same.
    let worker = host.worker();
    assert_eq!(post("/v1/workers/replace").of(host).status, 200);
    wait_for("another worker serves", || {
        (host.worker() != worker).then_some(())
    });
    assert_eq!(routes(host, "contender", 3)[1..], told[1..]);

    let facts = get("/v1/host").of(host).json();
    assert_eq!(facts["http_listen"], address);
    let status = shown(host, &["status"]);
    assert!(
        status.contains(&format!("HTTP services on {address}")),
        "{status}"
    );
    for show in [&status, &shown(host, &["show", "contender"])] {
        assert!(
            show.contains("HTTP GET /mine: served by generation"),
            "{show}"
        );
        let refused = "HTTP GET /version: refused (0.6.0), its HTTP route GET /version is that of plugin \
                       versioned 0.1.0 already";
        assert!(show.contains(refused), "{show}");
    }
    assert!(
        status.contains("HTTP, any method, /greet/:name (label greet): served by generation"),
        "{status}"
    );
    let list = shown(host, &["list"]);
    let line = |name: &str| list.lines().find(|line| line.starts_with(name)).unwrap();
    assert!(line("NAME").ends_with("HTTP"), "{list}");
    assert!(line("contender").ends_with("1, 2 not served"), "{list}");
    assert!(line("versioned").ends_with(" 2"), "{list}");
    let listed: Value = serde_json::from_str(&shown(host, &["list", "--json"])).unwrap();
    assert_eq!(listed["plugins"][0]["http_routes"][1]["state"], "refused");

    let mut page = guarded.console();
    page.eval("location.hash = '#/plugin/contender'");
    page.until_shown("HTTP services (3)");
    page.until_shown("/greet/:who");
    page.until_shown("is that of plugin versioned 0.1.0 already (GET /version)");
    page.until_shown(&address);
    assert_eq!(page.complaints(), Vec::<String>::new());

    // What was given up may be had, and then nothing is refused any more.
    version("0.2.0")
        .http_routes(&["/else/where"])
        .swap_in(&host.plugins().join("versioned"));
    wait_for("it has changed", || {
        (routes(host, "versioned", 1)[0]["version"] == "0.2.0").then_some(())
    });
    shown(host, &["upgrade", "contender"]);
    let told = routes(host, "contender", 3);
    assert!(
        told.iter().all(|route| route["state"] == "served"),
        "{told:#?}"
    );
}

#[test]
fn routes_that_no_listener_serves_are_told_of_by_status_list_doctor_and_the_page() {
    let guarded = guarded_with(Host::builder());
    let host = &guarded.host;
    assert!(!shown(host, &["status"]).contains("HTTP"), "nothing to say");
    version("0.1.0")
        .http_routes(&["/version"])
        .swap_in(&host.plugins().join("versioned"));
    let told = routes(host, "versioned", 1);
    assert_eq!(told[0]["state"], "not_listening");
    assert_eq!(told[0]["generation"], Value::Null);
    let status = shown(host, &["status"]);
    assert!(status.contains("HTTP services: no listener"), "{status}");
    assert!(status.contains("--http-listen"), "{status}");
    let list = shown(host, &["list"]);
    assert!(list.contains("1 not served"), "{list}");
    let findings = doctor(host);
    let finding = findings.iter().find(|it| it["check"] == "http-listener");
    let finding = finding.unwrap_or_else(|| panic!("{findings:#?}"));
    assert_eq!(finding["level"], "warning");
    let found = finding["found"].as_str().unwrap();
    assert!(found.contains("GET /version of versioned"), "{finding}");
    assert!(
        finding["next"].as_str().unwrap().contains("--http-listen"),
        "{finding}"
    );
    let mut page = guarded.console();
    page.eval("location.hash = '#/plugin/versioned'");
    page.until_shown("The host has no listener for them");
    page.until_shown("not listening");
}

#[test]
fn of_several_versions_the_routes_of_the_one_are_served_that_serves_without_a_requirement() {
    let address = free_address().to_string();
    let host = Host::builder().flag("--http-listen", &address).start();
    for number in ["0.1.0", "0.2.0"] {
        let place = host.plugins().join(format!("versioned@{number}"));
        version(number).http_routes(&["/version"]).swap_in(&place);
        host.log_line(&["plugin loaded", number]);
    }
    let told = wait_for("both serve", || {
        let told = get("/v1/plugins/versioned").of(&host).json();
        let plugins = told["plugins"].as_array()?.clone();
        (plugins.len() == 2).then_some(plugins)
    });
    let old = &told[0]["http_routes"][0];
    assert_eq!(old["state"], "other_version", "{old}");
    assert_eq!(
        old["reason"],
        "version 0.2.0 serves the HTTP routes of its name"
    );
    assert_eq!(told[1]["http_routes"][0]["state"], "served");
}
