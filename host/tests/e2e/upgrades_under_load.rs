//! Upgrades under load: every request carries a nonce, and its answer is compared with what its
//! route and the versions that may answer at that moment allow.
//!
//! A few dozen upgrades run with the other tests; `scripts/upgrades 1000` runs a thousand.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use serde_json::json;

use crate::support::{Host, get, versions::version, wait_for};

/// Connections that call without a pause.
const CALLERS: usize = 8;

/// Upgrades, where the environment does not say how many.
const UPGRADES: u64 = 24;

fn upgrades() -> u64 {
    std::env::var("PLUGIN_HOST_TEST_UPGRADES")
        .ok()
        .map_or(UPGRADES, |number| number.parse().unwrap())
}

/// The version of an upgrade. After a thousand they begin again, which is as good as any.
fn number(number: u64) -> String {
    format!("{}.{}.{}", number / 100 % 10, number / 10 % 10, number % 10)
}

#[test]
fn no_request_is_lost_or_misrouted_while_a_plugin_is_upgraded_again_and_again() {
    let host = Arc::new(Host::builder().flag("--log", "info").start());
    let directory = host.plugins().join("versioned");
    version(&number(0)).swap_in(&directory);
    let mut watching = host.gateway();
    let token = watching.prepare("route#w#pre#1", [("versioned", json!({ "word": "w" }))]);
    let mut until = |number: u64| {
        let expected = format!("X-Version='{}'", self::number(number));
        wait_for(&expected, || {
            let answer = watching.call(token, get("/")).to_string();
            answer.contains(&expected).then_some(())
        });
    };
    until(0);

    // The oldest version that may still answer, and the newest that may.
    let oldest = Arc::new(AtomicU64::new(0));
    let newest = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (host, oldest, newest, over) = (
                Arc::clone(&host),
                Arc::clone(&oldest),
                Arc::clone(&newest),
                Arc::clone(&over),
            );
            thread::spawn(move || {
                let mut gateway = host.gateway();
                let word = format!("word{caller}");
                let key = format!("route#{caller}#pre#1");
                let token = gateway.prepare(&key, [("versioned", json!({ "word": word }))]);
                let mut calls = 0_u64;
                while !over.load(Ordering::SeqCst) {
                    let nonce = format!("{caller}-{calls}");
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
                    calls += 1;
                }
                calls
            })
        })
        .collect();

    for upgrade in 1..=upgrades() {
        newest.store(upgrade, Ordering::SeqCst);
        version(&number(upgrade)).swap_in(&directory);
        until(upgrade);
        // Other routes follow one after the other; when the old version is unloaded, all have.
        host.log_line(&[
            "plugin unloaded",
            &format!("version={}", number(upgrade - 1)),
        ]);
        oldest.store(upgrade, Ordering::SeqCst);
    }
    over.store(true, Ordering::SeqCst);
    let calls: u64 = callers
        .into_iter()
        .map(|caller| caller.join().unwrap())
        .sum();
    assert!(calls > upgrades(), "{calls} calls were made");
    let (_, status, _) = host.ask(&["status"]);
    let expected = format!("0 still in use, {} unloaded, 0 stuck", upgrades());
    assert!(status.contains(&expected), "{status}");
}
