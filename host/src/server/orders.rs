//! What a loop's connections are asked to do about their end.
//!
//! Each looks at it once for every call, so looking is one load; only a connection that waits for the
//! first time leaves its waker, and no lock is taken from then on until something is asked.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use slab::Slab;

use super::Shutdown;

/// The orders of one loop.
#[derive(Debug)]
pub(super) struct Orders {
    asked: AtomicU8,
    /// The tasks of the connections that have waited.
    connections: Mutex<Slab<Waker>>,
}

/// A connection's ear for them.
#[derive(Debug)]
pub(super) struct Ear {
    orders: Arc<Orders>,
    /// Where its task's waker is, once it has waited.
    place: Option<usize>,
}

impl Orders {
    pub(super) fn new(asked: Shutdown) -> Arc<Self> {
        Arc::new(Self {
            asked: AtomicU8::new(asked as u8),
            connections: Mutex::default(),
        })
    }

    /// Asks every connection, where it is something new.
    pub(super) fn give(&self, asked: Shutdown) {
        if self.asked.swap(asked as u8, Ordering::AcqRel) == asked as u8 {
            return;
        }
        let connections = self.connections.lock();
        connections.iter().for_each(|(_, task)| task.wake_by_ref());
    }

    pub(super) fn asked(&self) -> Shutdown {
        match self.asked.load(Ordering::Acquire) {
            asked if asked == Shutdown::Running as u8 => Shutdown::Running,
            asked if asked == Shutdown::Standby as u8 => Shutdown::Standby,
            asked if asked == Shutdown::Drain as u8 => Shutdown::Drain,
            _ => Shutdown::HandedOver,
        }
    }

    /// For one connection, and always for the same task.
    pub(super) fn ear(self: &Arc<Self>) -> Ear {
        Ear {
            orders: Arc::clone(self),
            place: None,
        }
    }
}

impl Ear {
    /// Ready where something else is asked than `seen`.
    pub(super) fn poll_other_than(
        &mut self,
        seen: Shutdown,
        context: &Context<'_>,
    ) -> Poll<Shutdown> {
        if self.place.is_none() {
            let waker = context.waker().clone();
            self.place = Some(self.orders.connections.lock().insert(waker));
        }
        // After the waker is there, so that nothing is missed.
        match self.orders.asked() {
            asked if asked == seen => Poll::Pending,
            asked => Poll::Ready(asked),
        }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.orders.connections.lock().remove(place);
        }
    }
}
