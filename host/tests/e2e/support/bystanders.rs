//! Connections that go on calling a plugin of their own while something bad happens beside them, and
//! what they see of it.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    gateway::{Gateway, get},
    host::wait_for,
};

/// What `say` is told, and what it answers then.
pub(crate) const SAY: &str = r#"{"body":"hello"}"#;
pub(crate) const HELLO: &str = "stop 200 headers [X-Resp-A6-Runner='Rust'] body 'hello'";

/// Calls after which they have gone on.
const FURTHER_CALLS: u64 = 100;

/// Connections that call `say`.
pub(crate) struct Bystanders {
    over: Arc<AtomicBool>,
    /// Good answers so far, of all callers.
    good: Arc<AtomicU64>,
    callers: Vec<JoinHandle<Seen>>,
    idle: Vec<Gateway>,
    token: u32,
}

/// What connections saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Calls that were answered as they should be.
    pub(crate) good: u64,
    /// Calls that were answered by an error frame, or by the end of the connection: they were inside
    /// a worker that died.
    pub(crate) lost: u64,
    /// Any other answer.
    pub(crate) wrong: Vec<String>,
    /// The longest time of a good answer.
    pub(crate) slowest: Duration,
}

impl Bystanders {
    /// So many that call without a pause, and as many that have called once and are idle.
    pub(crate) fn around(socket: &Path, number: usize) -> Self {
        let mut first = Gateway::connect(socket);
        let token = first.prepare("route#bystanders#pre#1", [("say", SAY)]);
        assert_eq!(first.call(token, get("/")), HELLO);
        let idle = (0..number)
            .map(|_| {
                let mut gateway = Gateway::connect(socket);
                assert_eq!(gateway.call(token, get("/")), HELLO);
                gateway
            })
            .collect();
        let (over, good) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let callers = (0..number)
            .map(|_| {
                let socket = socket.to_owned();
                let (over, good) = (Arc::clone(&over), Arc::clone(&good));
                thread::spawn(move || call_until(&socket, token, &over, &good))
            })
            .collect();
        Self {
            over,
            good,
            callers,
            idle,
            token,
        }
    }

    /// The idle connections call, each on its own old connection: nothing may have happened to it.
    pub(crate) fn idle_ones_call(&mut self) {
        for gateway in &mut self.idle {
            assert_eq!(gateway.call(self.token, get("/")), HELLO);
        }
    }

    /// Waits until they have been answered again and again from now on.
    pub(crate) fn go_on(&self) {
        let before = self.good.load(Ordering::SeqCst);
        wait_for("bystanders go on", || {
            (self.good.load(Ordering::SeqCst) >= before + FURTHER_CALLS).then_some(())
        });
    }

    /// What they have seen, now that they have gone on for a while. No idle connection was lost, whatever happened.
    pub(crate) fn end(mut self) -> Seen {
        self.go_on();
        self.idle_ones_call();
        self.over.store(true, Ordering::SeqCst);
        let mut all = Seen::default();
        for caller in self.callers {
            let seen = caller.join().unwrap();
            all.good += seen.good;
            all.lost += seen.lost;
            all.wrong.extend(seen.wrong);
            all.slowest = all.slowest.max(seen.slowest);
        }
        all
    }
}

impl Seen {
    /// Nobody but the culprit was touched.
    pub(crate) fn expect_nothing(&self) {
        assert!(self.good > 0, "{self:?}");
        assert_eq!((self.lost, &self.wrong[..]), (0, &[][..]), "{self:?}");
    }

    /// Of so many deaths each has cost every connection one call at most, and no answer was wrong:
    /// no token was forgotten, and no connection refused.
    pub(crate) fn expect_deaths(&self, deaths: u64, connections: u64) {
        assert!(self.good > 0, "{self:?}");
        assert_eq!(self.wrong, Vec::<String>::new(), "{self:?}");
        assert!(self.lost <= deaths * connections, "{self:?}");
    }
}

fn call_until(socket: &Path, token: u32, over: &AtomicBool, good: &AtomicU64) -> Seen {
    let mut seen = Seen::default();
    let mut gateway = Gateway::connect(socket);
    while !over.load(Ordering::SeqCst) {
        let began = Instant::now();
        match gateway.try_call(token, get("/")) {
            Some(answer) if answer == HELLO => {
                seen.good += 1;
                good.fetch_add(1, Ordering::SeqCst);
                seen.slowest = seen.slowest.max(began.elapsed());
                continue;
            }
            // What is left of a call that was inside.
            None => seen.lost += 1,
            Some(answer) if answer == "error 1" => seen.lost += 1,
            Some(answer) => seen.wrong.push(answer.to_string()),
        }
        // As the gateway does after any error.
        gateway = Gateway::connect(socket);
    }
    seen
}
