//! HTTP services of plugins that change: routes come, change and go with their plugin, plugins are
//! upgraded and workers replaced, and no request is lost.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use crate::support::{
    Builder, Host,
    asking::{get as ask_host, post},
    http::free_address,
    plugin_host,
    service_client::connect,
    versions::{named, version},
    wait_for,
};

/// A host that serves `versioned` 0.1.0 with a route, and its plugin's directory.
fn serving(builder: Builder) -> (Host, PathBuf, SocketAddr) {
    let address = free_address();
    let host = builder.flag("--http-listen", &address.to_string()).start();
    let directory = host.plugins().join("versioned");
    version("0.1.0")
        .http_routes(&["/version"])
        .swap_in(&directory);
    host.log_line(&["plugin loaded", "version=0.1.0"]);
    until(address, "/version", 200);
    (host, directory, address)
}

/// Waits until a path is answered so.
fn until(address: SocketAddr, path: &str, code: u16) -> String {
    wait_for(&format!("{path} gives {code}"), || {
        let answer = connect(address).get(path);
        (answer.code() == code).then(|| answer.body())
    })
}

/// Clients that ask on connections that stay, and on new ones, until they are told to stop: each answer
/// has to be a good one.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<u64>>,
}

impl Load {
    fn on(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..6).map(|number| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut asked = 0;
                let mut client = connect(address);
                while !stop.load(Ordering::Relaxed) {
                    if number < 2 {
                        client = connect(address);
                    }
                    let answer = client.get("/version");
                    assert_eq!(answer.code(), 200, "{answer:?}");
                    assert!(answer.body().starts_with("{\"version\":\"0."), "{answer:?}");
                    if answer.header("connection") == Some("close") {
                        client = connect(address);
                    }
                    asked += 1;
                }
                asked
            })
        });
        Self {
            clients: clients.collect(),
            stop,
        }
    }

    /// Ends it; none of the requests was lost.
    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            assert!(client.join().unwrap() > 0);
        }
    }
}

#[test]
fn routes_come_change_and_go_with_their_plugin() {
    let (host, directory, address) = serving(Host::builder());
    until(address, "/other", 404);
    version("0.2.0")
        .http_routes(&["/version", "/other"])
        .swap_in(&directory);
    assert_eq!(until(address, "/other", 200), "{\"version\":\"0.2.0\"}");
    version("0.3.0")
        .http_routes(&["/other"])
        .swap_in(&directory);
    until(address, "/version", 404);
    assert_eq!(until(address, "/other", 200), "{\"version\":\"0.3.0\"}");
    assert_eq!(post("/v1/plugins/versioned/disable").of(&host).status, 200);
    until(address, "/other", 404);
    assert_eq!(post("/v1/plugins/versioned/enable").of(&host).status, 200);
    until(address, "/other", 200);
    std::fs::remove_dir_all(&directory).unwrap();
    until(address, "/other", 404);
}

#[test]
fn a_route_that_another_plugin_serves_keeps_the_later_one_out_with_both_names() {
    let (host, directory, address) = serving(Host::builder());
    let rival = host.plugins().join("contender");
    let claims = |number: &str, routes: &[&str]| named("contender", number).http_routes(routes);
    claims("0.5.0", &["/mine", "/version"]).swap_in(&rival);
    let told = "its HTTP route GET /version is that of plugin versioned 0.1.0 already";
    host.log_line(&["ERROR", "contender 0.5.0", told]);
    let status = ask_host("/v1/plugins/contender").of(&host).json();
    let plugin = &status["plugins"][0];
    assert_eq!(plugin["state"], "failed");
    assert!(
        plugin["last_error"].as_str().unwrap().contains(told),
        "{plugin}"
    );
    assert_eq!(connect(address).get("/mine").code(), 404);
    assert_eq!(
        connect(address).get("/version").body(),
        "{\"version\":\"0.1.0\"}"
    );
    // One that claims what is free serves, and an upgrade of it that wants more is refused as well.
    claims("0.6.0", &["/mine"]).swap_in(&rival);
    until(address, "/mine", 200);
    claims("0.7.0", &["/mine", "/:any"]).swap_in(&rival);
    until(address, "/anything", 200);
    claims("0.8.0", &["/mine", "/version"]).swap_in(&rival);
    host.log_line(&["ERROR", "contender 0.8.0", told]);
    assert_eq!(until(address, "/mine", 200), "{\"version\":\"0.7.0\"}");
    // What is left behind may be taken.
    version("0.2.0")
        .http_routes(&["/else/where"])
        .swap_in(&directory);
    until(address, "/else/where", 200);
    let (code, _, complaint) = host.ask(&["upgrade", "contender"]);
    assert_eq!(code, 0, "{complaint}");
    let expected = "{\"version\":\"0.8.0\"}";
    wait_for("it has the route now", || {
        (connect(address).get("/version").body() == expected).then_some(())
    });
    // Who only looks at one plugin need not know the others.
    let ended = plugin_host(&["check", rival.to_str().unwrap()]);
    assert_eq!(ended.code, 0, "{ended:?}");
}

#[test]
fn no_request_is_lost_while_a_plugin_is_upgraded_and_workers_are_replaced() {
    let (host, directory, address) = serving(Host::builder());
    let load = Load::on(address);
    for number in 2..8 {
        let next = format!("0.{number}.0");
        version(&next)
            .http_routes(&["/version"])
            .swap_in(&directory);
        let expected = format!("{{\"version\":\"{next}\"}}");
        wait_for(&expected, || {
            (connect(address).get("/version").body() == expected).then_some(())
        });
        if number % 2 == 0 {
            host.replace_worker();
        }
    }
    load.end();
}

#[test]
fn a_client_keeps_its_connection_while_workers_are_replaced() {
    let (host, _, address) = serving(Host::builder());
    let mut idle = connect(address);
    assert_eq!(idle.get("/version").code(), 200);
    let mut fresh = connect(address);
    let mut half = connect(address);
    assert_eq!(half.get("/version").code(), 200);
    half.send("GET /version HTTP/1.1\r\nHo");
    let before = host.worker();
    for _ in 0..2 {
        host.replace_worker();
        wait_for("the worker before has ended", || {
            (host.workers().len() == 1).then_some(())
        });
    }
    assert_ne!(host.worker(), before);
    assert_eq!(idle.get("/version").code(), 200);
    assert_eq!(fresh.get("/version").code(), 200);
    half.send("st: h\r\n\r\n");
    assert_eq!(half.answer().code(), 200);
}

#[test]
fn the_next_release_and_the_next_host_on_the_address_go_on_serving() {
    let (mut host, _, address) = serving(Host::builder());
    let mut client = connect(address);
    assert_eq!(client.get("/version").code(), 200);
    let load = Load::on(address);
    let (code, _, complaint) = host.ask(&["upgrade-host"]);
    assert_eq!(code, 0, "{complaint}");
    load.end();
    assert_eq!(client.get("/version").code(), 200);
    // As a gateway's reload does: the next host begins before this one ends.
    let next = Host::builder()
        .beside(&host)
        .flag("--http-listen", &address.to_string())
        .start();
    next.log_line(&["the plugin directory has been read"]);
    host.stop();
    until(address, "/version", 200);
}
