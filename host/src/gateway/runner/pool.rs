//! Connections to the host that wait for their next call.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::client::Connection;

/// Connections that wait at the same time, at most.
const MAX_IDLE: usize = 32;

/// How long one waits until it is closed.
const IDLE_TIME: Duration = Duration::from_secs(180);

/// The idle connections of one worker; the one used last is used next.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Mutex<Vec<(Instant, Connection)>>,
}

impl Pool {
    /// A connection that the host has not closed, where there is one.
    pub(super) fn take(&self) -> Option<Connection> {
        let mut idle = self.idle.lock();
        close_old(&mut idle);
        loop {
            let (_, connection) = idle.pop()?;
            if connection.is_open() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection on which no call is open; above the bound it is closed.
    pub(super) fn put(&self, connection: Connection) {
        let mut idle = self.idle.lock();
        close_old(&mut idle);
        if idle.len() < MAX_IDLE {
            idle.push((Instant::now(), connection));
        }
    }
}

fn close_old(idle: &mut Vec<(Instant, Connection)>) {
    idle.retain(|(since, _)| since.elapsed() < IDLE_TIME);
}
