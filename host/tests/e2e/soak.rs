//! A soak: mixed load on 64 connections while workers are killed, plugins upgraded, workers handed
//! over, bad files dropped, and the gateway's reload imitated. Nothing but calls that were inside a
//! killed worker may be lost.
//!
//! A minute of it runs with the other tests; `scripts/soak 3600` runs an hour. What happens when is
//! decided by a random seed, which is printed.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Gateway, Host, get, request, response,
    versions::version,
    wait_for,
    workers::{descendants, memory},
};

/// Seconds, where the environment does not say how many.
const SECONDS: u64 = 60;

/// Connections that call without a pause.
const CONNECTIONS: u64 = 64;

/// How long after a worker was killed a call may still be lost to that: until the supervisor has
/// heard of it.
const HEARD: Duration = Duration::from_secs(1);

/// How long calls may go on at least after their host was told to stop: its drain time, without what
/// it takes to answer for those that are still open then.
const DRAINED: Duration = Duration::from_millis(600);

/// A token that the host does not know.
const NOT_FOUND: &str = "error 2";
const CLOSED: &str = "error 1";

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(default, |number| number.parse().unwrap())
}

/// What all callers see of the scene.
#[derive(Default)]
struct Scene {
    over: AtomicBool,
    /// Counts hosts: another one knows no tokens of the one before.
    host: AtomicU64,
    /// The newest version that may answer.
    newest: AtomicU64,
    /// When a worker was killed, or a host told to stop.
    blows: Mutex<Vec<Blow>>,
}

#[derive(Clone, Copy)]
struct Blow {
    at: Instant,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Kill,
    Reload,
}

/// What callers have seen.
#[derive(Default)]
struct Tally {
    calls: u64,
    /// Inside a worker that was killed.
    crashed: u64,
    /// Open when their host was told to stop, and longer than it waits.
    reloaded: u64,
    slowest: Duration,
    failures: Vec<String>,
}

/// What a caller calls, and what it expects.
#[derive(Clone, Copy)]
enum Role {
    Request,
    Response,
    ExtraInfo,
    Prepare,
    BigBody,
}

impl Role {
    fn of(caller: u64) -> Self {
        match caller % 16 {
            0..8 => Self::Request,
            8..11 => Self::Response,
            11..13 => Self::ExtraInfo,
            13..15 => Self::Prepare,
            _ => Self::BigBody,
        }
    }

    fn conf(self, caller: u64, call: u64) -> (&'static str, Value) {
        match self {
            Self::Request => ("versioned", json!({ "word": format!("word{caller}") })),
            Self::Prepare => (
                "versioned",
                json!({ "word": format!("word{caller}-{call}") }),
            ),
            Self::Response => (
                "scripted",
                json!([{ "set_header": ["x-a", caller.to_string()] }]),
            ),
            Self::ExtraInfo => (
                "scripted",
                json!([{ "report": ["x-route", { "var": "route_id" }] }, { "report": ["x-body", "body"] }]),
            ),
            Self::BigBody => (
                "scripted",
                json!([{ "report": ["x-body", "body"] }, { "set_long_body": 256 << 10 }]),
            ),
        }
    }

    /// Puts one call; an error says what is wrong with the answer, which is none where the
    /// connection has ended.
    fn call(
        self,
        gateway: &mut Gateway,
        token: u32,
        caller: u64,
        call: u64,
        newest: impl Fn() -> u64,
    ) -> Result<(), Option<String>> {
        let nonce = format!("{caller}-{call}");
        let put = match self {
            Self::Request | Self::Prepare => get("/").header("x-nonce", &nonce),
            Self::Response => response(200).header("x-nonce", &nonce),
            Self::ExtraInfo | Self::BigBody => request("POST", "/"),
        };
        let answer = gateway.try_call(token, put).ok_or(None)?.to_string();
        let is_good = match self {
            Self::Request | Self::Prepare => {
                let (_, conf) = self.conf(caller, call);
                let word = conf["word"].as_str().unwrap();
                (0..=newest()).any(|version| {
                    answer
                        == format!(
                            "stop 200 headers [X-Version='{}', X-Word='{word}'] body '{nonce}'",
                            number(version)
                        )
                })
            }
            Self::Response => {
                answer.contains(&format!("x-a='{caller}'")) && answer.contains(&nonce)
            }
            Self::ExtraInfo => {
                answer.contains("x-route=''7''") && answer.contains("x-body=''body''")
            }
            Self::BigBody => {
                answer.starts_with("rewrite") && answer.contains("x-body='262144 bytes")
            }
        };
        is_good.then_some(()).ok_or(Some(answer))
    }
}

/// The version of an upgrade. After a thousand they begin again, which is as good as any.
fn number(number: u64) -> String {
    format!("{}.{}.{}", number / 100 % 10, number / 10 % 10, number % 10)
}

/// One connection, as a gateway uses it: closed after any error, and made anew.
struct Caller {
    number: u64,
    role: Role,
    scene: Arc<Scene>,
    socket: std::path::PathBuf,
    tally: Tally,
}

impl Caller {
    fn run(mut self) -> Tally {
        let mut connected_to = self.scene.host.load(Ordering::SeqCst);
        let mut gateway = self.connect();
        // A token, and the host that gave it.
        let mut token = None;
        let mut call = 0;
        while !self.scene.over.load(Ordering::SeqCst) {
            let host = self.scene.host.load(Ordering::SeqCst);
            // A gateway that reloads has new workers, which connect anew; the old ones end with what
            // they have begun.
            if connected_to != host || gateway.has_ended() {
                connected_to = host;
                gateway = self.connect();
            }
            let began = Instant::now();
            if matches!(self.role, Role::Prepare) {
                call += 1;
                token = None;
            }
            let (given_by, number) = match token {
                Some(token) => token,
                None => {
                    let Some(number) = self.prepare(&mut gateway, call) else {
                        self.lost(began, None);
                        gateway = self.connect();
                        continue;
                    };
                    (host, number)
                }
            };
            token = Some((given_by, number));
            if !matches!(self.role, Role::Prepare) {
                call += 1;
            }
            let newest = || self.scene.newest.load(Ordering::SeqCst);
            let called = self
                .role
                .call(&mut gateway, number, self.number, call, newest);
            match called {
                Ok(()) => {
                    self.tally.calls += 1;
                    self.tally.slowest = self.tally.slowest.max(began.elapsed());
                }
                // The host has changed since: the gateway prepares again.
                Err(Some(answer))
                    if answer == NOT_FOUND
                        && given_by != self.scene.host.load(Ordering::SeqCst) =>
                {
                    token = None;
                }
                Err(answer) => {
                    self.lost(began, answer);
                    gateway = self.connect();
                }
            }
        }
        self.tally
    }

    fn connect(&self) -> Gateway {
        let mut gateway = Gateway::connect(&self.socket);
        gateway.set_variable("route_id", "7");
        match self.role {
            Role::BigBody => gateway.set_request_body(&vec![b'x'; 256 << 10]),
            _ => gateway.set_request_body(b"body"),
        }
        gateway
    }

    fn prepare(&self, gateway: &mut Gateway, call: u64) -> Option<u32> {
        let (plugin, conf) = self.role.conf(self.number, call);
        let key = match self.role {
            Role::Prepare => format!("route#{}#pre#{call}", self.number),
            _ => format!("route#{}#pre#1", self.number),
        };
        gateway.try_prepare(&key, [(plugin, conf)])
    }

    /// A call was lost: to a blow, or it is a failure.
    fn lost(&mut self, began: Instant, answer: Option<String>) {
        let ended = Instant::now();
        // A call may be lost that began before a blow was heard, and ended when it could be felt.
        let was_hit = |kind, heard, felt| {
            let blows = self.scene.blows.lock();
            let mut of_kind = blows.iter().filter(|blow| blow.kind == kind);
            of_kind.any(|blow| began <= blow.at + heard && blow.at + felt <= ended)
        };
        let closed = answer
            .as_ref()
            .is_none_or(|answer| answer == CLOSED || answer.starts_with("answer 503"));
        if closed && was_hit(Kind::Kill, HEARD, Duration::ZERO) {
            self.tally.crashed += 1;
        } else if closed && was_hit(Kind::Reload, Duration::ZERO, DRAINED) {
            self.tally.reloaded += 1;
        } else {
            let answer = answer.unwrap_or_else(|| "the end of the connection".to_owned());
            self.tally.failures.push(format!(
                "caller {} after {:?}: {answer}",
                self.number,
                began.elapsed()
            ));
        }
    }
}

/// Whoever makes things happen.
struct Chaos {
    scene: Arc<Scene>,
    host: Host,
    random: fastrand::Rng,
    next_kill: Instant,
    kills: u64,
    upgrades: u64,
    replacements: u64,
    bad_files: u64,
    reloads: u64,
}

impl Chaos {
    fn step(&mut self) {
        if Instant::now() >= self.next_kill {
            // Workers that die young one after the other are started later and later.
            self.next_kill = Instant::now() + Duration::from_millis(self.random.u64(2_000..18_000));
            self.kill();
            return;
        }
        match self.random.u32(0..12) {
            0..5 => self.upgrade(),
            5..8 => self.replace(),
            8..11 => self.drop_bad_file(),
            _ => self.reload(),
        }
    }

    fn kill(&mut self) {
        let mut blows = self.scene.blows.lock();
        // Any of them: that which serves, or one that is about to.
        let workers = self.host.workers();
        let Some(worker) = self.random.choice(workers) else {
            return;
        };
        blows.push(Blow {
            at: Instant::now(),
            kind: Kind::Kill,
        });
        drop(blows);
        crate::support::send(worker, Signal::KILL);
        self.kills += 1;
    }

    fn upgrade(&mut self) {
        let newest = self.scene.newest.fetch_add(1, Ordering::SeqCst) + 1;
        version(&number(newest)).swap_in(&self.host.plugins().join("versioned"));
        self.upgrades += 1;
    }

    fn replace(&mut self) {
        // Refused where the worker has just been killed.
        self.replacements += u64::from(self.host.try_replace_worker());
    }

    fn drop_bad_file(&mut self) {
        let broken = self.host.plugins().join("broken");
        match self.random.u32(0..4) {
            0 => _ = fs::remove_dir_all(&broken),
            1 => {
                fs::create_dir_all(&broken).unwrap();
                fs::write(broken.join("plugin.json"), "{ \"name\": \"broken\", ").unwrap();
            }
            2 => {
                fs::create_dir_all(&broken).unwrap();
                let bytes: Vec<u8> = std::iter::repeat_with(|| self.random.u8(..))
                    .take(4_096)
                    .collect();
                fs::write(broken.join("libbroken.so"), bytes).unwrap();
            }
            _ => fs::write(
                self.host.plugins().join("libother.so"),
                "\x7fELF and no more",
            )
            .unwrap(),
        }
        self.bad_files += 1;
    }

    /// The next host on the same path, and 100 ms later an end to this one.
    fn reload(&mut self) {
        let mut next = builder().beside(&self.host).spawn();
        wait_for("the next host takes the path over", || {
            let mut gateway = Gateway::connect(&next.socket());
            let listening = next.log().contains("listening");
            assert!(next.process().try_wait().unwrap().is_none(), "it has ended");
            gateway.end_sending();
            listening.then_some(())
        });
        self.scene.host.fetch_add(1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(100));
        self.scene.blows.lock().push(Blow {
            at: Instant::now(),
            kind: Kind::Reload,
        });
        std::mem::swap(&mut self.host, &mut next);
        next.stop();
        self.reloads += 1;
    }
}

fn builder() -> crate::support::Builder {
    Host::builder().flag("--log", "info")
}

/// Memory in use by all processes of a host, in MiB.
fn memory_of(host: &mut Host) -> u64 {
    let own = host.process().id();
    let processes = [vec![own], descendants(own)].concat();
    processes.into_iter().map(memory).sum::<u64>() >> 20
}

#[test]
fn a_soak_loses_no_call_but_those_inside_a_killed_worker() {
    let time = Duration::from_secs(setting("PLUGIN_HOST_TEST_SOAK", SECONDS));
    let seed = setting("PLUGIN_HOST_TEST_SEED", fastrand::u64(..));
    println!("soak: {} s, seed {seed}", time.as_secs());
    let mut host = builder().plugin("scripted").start();
    version(&number(0)).swap_in(&host.plugins().join("versioned"));
    host.log_line(&["plugin loaded", "plugin=versioned"]);
    let fresh = memory_of(&mut host);

    let scene = Arc::new(Scene::default());
    let callers: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            let caller = Caller {
                number,
                role: Role::of(number),
                scene: Arc::clone(&scene),
                socket: host.socket(),
                tally: Tally::default(),
            };
            thread::spawn(move || caller.run())
        })
        .collect();
    let mut chaos = Chaos {
        scene: Arc::clone(&scene),
        host,
        random: fastrand::Rng::with_seed(seed),
        next_kill: Instant::now() + Duration::from_secs(1),
        kills: 0,
        upgrades: 0,
        replacements: 0,
        bad_files: 0,
        reloads: 0,
    };
    let began = Instant::now();
    let mut most = fresh;
    while began.elapsed() < time {
        thread::sleep(Duration::from_millis(chaos.random.u64(100..1_000)));
        chaos.step();
        most = most.max(memory_of(&mut chaos.host));
    }
    scene.over.store(true, Ordering::SeqCst);
    let mut all = Tally::default();
    for caller in callers {
        let tally = caller.join().unwrap();
        all.calls += tally.calls;
        all.crashed += tally.crashed;
        all.reloaded += tally.reloaded;
        all.slowest = all.slowest.max(tally.slowest);
        all.failures.extend(tally.failures);
    }
    chaos.host.replace_worker();
    wait_for("the last worker but one has ended", || {
        (chaos.host.workers().len() == 1).then_some(())
    });
    let replaced = memory_of(&mut chaos.host);
    println!(
        "soak: {} calls on {CONNECTIONS} connections in {} s\n\
         soak: {} lost inside {} killed workers, {} cut off by {} reloads, {} failures\n\
         soak: {} upgrades, {} replacements, {} bad files; slowest answer {} ms\n\
         soak: memory {fresh} MiB fresh, {most} MiB at most, {replaced} MiB after a last replacement",
        all.calls,
        began.elapsed().as_secs(),
        all.crashed,
        chaos.kills,
        all.reloaded,
        chaos.reloads,
        all.failures.len(),
        chaos.upgrades,
        chaos.replacements,
        chaos.bad_files,
        all.slowest.as_millis(),
    );
    assert!(all.calls > CONNECTIONS, "{} calls", all.calls);
    let shown = &all.failures[..all.failures.len().min(20)];
    assert!(all.failures.is_empty(), "seed {seed}: {shown:#?}");
    assert!(
        all.crashed <= chaos.kills * CONNECTIONS,
        "each death costs a connection one call at most"
    );
}
