//! Upgrades under load: every request carries a nonce, and its answer is compared with what its
//! route and the versions that may answer at that moment allow.
//!
//! A few dozen upgrades run with the other tests; `scripts/upgrades 1000` runs a thousand.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{
    Builder, Gateway, Host, get, resident::Resident, versions::version, wait_for,
};

/// Connections that call without a pause.
const CALLERS: u64 = 8;

/// Upgrades, where the environment does not say how many.
const UPGRADES: u64 = 24;

/// Generations whose libraries fit into the budget of retired memory.
const RETIRED_GENERATIONS: u64 = 5;

/// How often memory is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(10);

fn upgrades() -> u64 {
    std::env::var("PLUGIN_HOST_TEST_UPGRADES")
        .ok()
        .map_or(UPGRADES, |number| number.parse().unwrap())
}

/// The version of an upgrade. After a thousand they begin again, which is as good as any.
fn number(number: u64) -> String {
    format!("{}.{}.{}", number / 100 % 10, number / 10 % 10, number % 10)
}

/// Callers, and the versions that may answer them. They end with it.
struct Load {
    host: Arc<Host>,
    watching: Gateway,
    token: u32,
    /// The oldest version that may still answer, and the newest that may.
    oldest: Arc<AtomicU64>,
    newest: Arc<AtomicU64>,
    calls: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    callers: Vec<JoinHandle<()>>,
}

impl Load {
    /// A host that serves version 0 under load.
    fn start(builder: Builder) -> Self {
        let host = Arc::new(builder.flag("--log", "info").start());
        version(&number(0)).swap_in(&host.plugins().join("versioned"));
        let mut watching = host.gateway();
        let token = watching.prepare("route#w#pre#1", [("versioned", json!({ "word": "w" }))]);
        let mut load = Self {
            host,
            watching,
            token,
            oldest: Arc::default(),
            newest: Arc::default(),
            calls: Arc::default(),
            over: Arc::default(),
            callers: Vec::new(),
        };
        load.until(0);
        load.callers = (0..CALLERS).map(|caller| load.call(caller)).collect();
        wait_for("every caller has called often", || {
            (load.calls.load(Ordering::SeqCst) > CALLERS * 100).then_some(())
        });
        load
    }

    fn call(&self, caller: u64) -> JoinHandle<()> {
        let (host, oldest, newest, calls, over) = (
            Arc::clone(&self.host),
            Arc::clone(&self.oldest),
            Arc::clone(&self.newest),
            Arc::clone(&self.calls),
            Arc::clone(&self.over),
        );
        thread::spawn(move || {
            let mut gateway = host.gateway();
            let word = format!("word{caller}");
            let key = format!("route#{caller}#pre#1");
            let token = gateway.prepare(&key, [("versioned", json!({ "word": word }))]);
            while !over.load(Ordering::SeqCst) {
                let nonce = format!("{caller}-{}", calls.fetch_add(1, Ordering::SeqCst));
                let from = oldest.load(Ordering::SeqCst);
                let answer = gateway
                    .call(token, get("/").header("x-nonce", &nonce))
                    .to_string();
                let to = newest.load(Ordering::SeqCst);
                let allowed = (from..=to).any(|version| {
                    let version = number(version);
                    answer
                        == format!(
                            "stop 200 headers [X-Version='{version}', X-Word='{word}'] \
                             body '{nonce}'"
                        )
                });
                assert!(allowed, "versions {from} to {to}, call {nonce}: {answer}");
            }
        })
    }

    /// Waits until a version answers.
    fn until(&mut self, number: u64) {
        let expected = format!("X-Version='{}'", self::number(number));
        wait_for(&expected, || {
            let answer = self.watching.call(self.token, get("/")).to_string();
            answer.contains(&expected).then_some(())
        });
    }

    /// Puts a version in place, and waits until it answers.
    fn upgrade(&mut self, number: u64) {
        self.newest.store(number, Ordering::SeqCst);
        version(&self::number(number)).swap_in(&self.host.plugins().join("versioned"));
        self.until(number);
        let all_call = self.callers.iter().all(|caller| !caller.is_finished());
        assert!(all_call, "a caller has had a wrong answer, or none");
    }

    /// Ends the callers, each of which has had the right answer to each call; gives the number of
    /// calls.
    fn end(mut self) -> u64 {
        self.over.store(true, Ordering::SeqCst);
        for caller in self.callers.drain(..) {
            caller.join().unwrap();
        }
        self.calls.load(Ordering::SeqCst)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Where the test has failed: the host ends with the last that holds it.
        for caller in self.callers.drain(..) {
            let _ = caller.join();
        }
    }
}

#[test]
fn no_request_is_lost_or_misrouted_while_a_plugin_is_upgraded_again_and_again() {
    let mut load = Load::start(Host::builder());
    let host = Arc::clone(&load.host);
    for upgrade in 1..=upgrades() {
        load.upgrade(upgrade);
        // Other routes follow one after the other; when the old version is unloaded, all have.
        host.log_line(&[
            "plugin unloaded",
            &format!("version={}", number(upgrade - 1)),
        ]);
        load.oldest.store(upgrade, Ordering::SeqCst);
    }
    let calls = load.end();
    assert!(calls > upgrades(), "{calls} calls were made");
    let (_, status, _) = host.ask(&["status"]);
    let expected = format!("0 still in use, {} unloaded, 0 stuck", upgrades());
    assert!(status.contains(&expected), "{status}");
}

fn asked(host: &Host, command: &str) -> Value {
    let (code, said, complaint) = host.ask(&[command, "--json"]);
    assert_eq!(code, 0, "{complaint}");
    serde_json::from_str(&said).unwrap()
}

/// Bytes of libraries that stay mapped in the worker that serves.
fn retired(host: &Host) -> u64 {
    asked(host, "status")["retired"]["mapped_bytes"]
        .as_u64()
        .unwrap()
}

/// What one generation leaves mapped, by the host's own count.
fn mapped_by_one() -> u64 {
    let mut load = Load::start(Host::builder());
    load.upgrade(1);
    let mapped = wait_for("the version before is retired", || {
        Some(retired(&load.host)).filter(|bytes| *bytes > 0)
    });
    load.end();
    mapped
}

/// Looks at memory again and again, until the load ends; gives the most that was held by the
/// supervisor and a worker alone, and with others beside them.
fn watch_memory(
    load: &Load,
    bound: impl Fn(usize) -> u64 + Send + 'static,
) -> JoinHandle<[Resident; 2]> {
    let (host, over) = (Arc::clone(&load.host), Arc::clone(&load.over));
    thread::spawn(move || {
        let mut most = [Resident::default(); 2];
        while !over.load(Ordering::SeqCst) {
            let now = Resident::of(&host);
            let bound = bound(now.processes);
            assert!(now.bytes <= bound, "{now:?}, where {bound} are allowed");
            let most = &mut most[usize::from(now.processes > 1)];
            if now.bytes > most.bytes {
                *most = now;
            }
            thread::sleep(SAMPLE_EVERY);
        }
        most
    })
}

#[test]
fn memory_stays_within_its_budget_during_upgrades_and_is_free_again_after_a_hand_over() {
    let mapped = mapped_by_one();
    let budget = mapped * RETIRED_GENERATIONS;
    let mut load = Load::start(
        Host::builder()
            .flag("--retired-memory", &budget.to_string())
            // Under this load no moment is sure to be quiet.
            .flag("--replace-patience", "0ms"),
    );
    let host = Arc::clone(&load.host);
    let fresh = wait_for("nothing is being rehearsed", || {
        Some(Resident::of(&host)).filter(|resident| resident.processes == 1)
    });
    // While a generation is loaded, its file is in memory beside its mapping.
    let generation = mapped + u64::try_from(version(&number(0)).library.len()).unwrap();
    // A worker that takes over, and a rehearsal, are processes beside the one that was there: each
    // holds what that held, and what it loads itself.
    let watching = watch_memory(&load, move |processes| {
        let beside = u64::try_from(processes.saturating_sub(1)).unwrap();
        fresh.bytes + budget + 2 * generation + beside * (fresh.largest_worker + generation)
    });
    let mut most_retired = 0;
    for upgrade in 1..=upgrades() {
        load.upgrade(upgrade);
        // A worker that takes over in the middle of an upgrade does it by itself, and may answer
        // with the version before once more.
        load.oldest.store(upgrade - 1, Ordering::SeqCst);
        assert!(!watching.is_finished(), "too much memory was held");
        most_retired = most_retired.max(retired(&host));
    }
    assert!(
        most_retired <= budget + 2 * mapped,
        "{most_retired} bytes stayed mapped, where {budget} are the budget"
    );
    let by_budget = asked(&host, "workers")["replacements"].as_u64().unwrap();
    assert!(
        by_budget >= upgrades() / (2 * RETIRED_GENERATIONS + 2),
        "replaced {by_budget} times"
    );

    let (code, _, complaint) = host.ask(&["replace-worker"]);
    assert_eq!(code, 0, "{complaint}");
    let after = wait_for("memory is near that of a fresh start again", || {
        Some(Resident::of(&host))
            .filter(|now| now.processes == 1 && now.bytes * 10 <= fresh.bytes * 12)
    });
    let calls = load.end();
    let [alone, with_others] = watching.join().unwrap();
    let overview = asked(&host, "workers");
    for key in ["crashes", "calls_lost", "connections_cut"] {
        assert_eq!(overview[key], 0, "{key}");
    }
    println!(
        "{} upgrades, {calls} calls, {by_budget} replacements by the budget of {budget} bytes, at \
         most {most_retired} bytes retired; memory fresh: {fresh:?}, at most: {alone:?} and \
         {with_others:?}, after a hand-over: {after:?}; one generation: {generation} bytes",
        upgrades()
    );
}
