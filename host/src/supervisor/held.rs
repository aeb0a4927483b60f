//! The connections that the supervisor holds duplicates of, and what becomes of each when its worker
//! dies.
//!
//! | what the connection was doing | what becomes of it |
//! |---|---|
//! | nothing | the next worker serves it |
//! | a frame was being read, all of which is still there | the next worker serves it |
//! | a call was open | it is answered for at once, and closed |
//! | a frame was being read or written in part | it is closed: nobody knows what the gateway has seen |
//!
//! A duplicate keeps a connection open, so that one is always shut down before it is closed.

use std::{
    collections::HashMap,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use plugin_proto::{
    Entry, FrameWriter, err,
    frame::{HEADER_LEN, Header},
    http_resp_call,
};
use rustix::net::{RecvFlags, SendFlags, Shutdown};

use crate::{
    crash,
    server::{ResponseFailure, conversation::RESPONSE_FAILED, handover::Passed},
    shared_memory::connections::{CallKind, ConnectionSlots, OpenCall, State},
};

/// A connection that has come to stay.
#[derive(Debug)]
struct Held {
    number: u64,
    owner: u32,
    socket: Arc<OwnedFd>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct HeldConnections {
    slots: ConnectionSlots,
    held: HashMap<usize, Held>,
    response_failure: ResponseFailure,
}

/// What a dead worker leaves behind.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// To be served by the next worker.
    pub(super) alive: Vec<(Passed, Arc<OwnedFd>)>,
    /// Calls that were open, and have been answered for.
    pub(super) calls: Vec<crash::OpenCall>,
    /// Connections that were closed because a frame was under way.
    pub(super) cut: usize,
}

impl HeldConnections {
    pub(super) fn new(slots: ConnectionSlots, response_failure: ResponseFailure) -> Self {
        Self {
            slots,
            held: HashMap::new(),
            response_failure,
        }
    }

    pub(super) fn slots(&self) -> &ConnectionSlots {
        &self.slots
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Each connection, with the worker that has it.
    pub(super) fn all(&self) -> Vec<(Passed, u32, &OwnedFd)> {
        let held = self.held.iter().map(|(slot, held)| {
            let passed = Passed {
                slot: *slot,
                number: held.number,
                unread_answers: 0,
            };
            (passed, held.owner, &*held.socket)
        });
        held.collect()
    }

    /// How many connections do this.
    pub(super) fn count(&self, state: State) -> usize {
        let slots = self.held.keys().filter_map(|slot| self.slots.slot(*slot));
        slots.filter(|slot| slot.state() == state).count()
    }

    /// A worker has a connection that has come to stay.
    pub(super) fn register(&mut self, passed: Passed, owner: u32, socket: OwnedFd) {
        let held = Held {
            number: passed.number,
            owner,
            socket: Arc::new(socket),
        };
        self.held.insert(passed.slot, held);
    }

    /// A connection has ended: its duplicate goes, and with it the slot's tenant.
    pub(super) fn end(&mut self, passed: Passed) {
        let is_meant = |held: &Held| held.number == passed.number;
        if self.held.get(&passed.slot).is_some_and(is_meant)
            && let Some(held) = self.held.remove(&passed.slot)
        {
            let _ = rustix::net::shutdown(&held.socket, Shutdown::Both);
            self.free(passed.slot);
        }
    }

    /// A worker has handed a connection over, which is nobody's until [`HeldConnections::give`].
    pub(super) fn take_back(
        &mut self,
        passed: Passed,
        socket: Option<OwnedFd>,
    ) -> Option<Arc<OwnedFd>> {
        if let Some(socket) = socket {
            self.register(passed, 0, socket);
        }
        let held = self.held.get_mut(&passed.slot)?;
        (held.number == passed.number).then(|| {
            held.owner = 0;
            Arc::clone(&held.socket)
        })
    }

    /// A connection is this worker's from now on, whether it knows already or not.
    pub(super) fn give(&mut self, passed: Passed, owner: u32) {
        if let Some(held) = self.held.get_mut(&passed.slot) {
            held.owner = owner;
        }
    }

    /// Answers for a dead worker.
    pub(super) fn bury(&mut self, owner: u32) -> Left {
        let mut left = Left::default();
        let theirs: Vec<usize> = self
            .held
            .iter()
            .filter(|(_, held)| held.owner == owner)
            .map(|(slot, _)| *slot)
            .collect();
        for index in theirs {
            self.bury_connection(index, &mut left);
        }
        // Connections that had not come to stay ended with the process.
        for index in 0..self.slots.len() {
            let is_lost = self
                .slots
                .slot(index)
                .is_some_and(|slot| slot.owner() == owner && slot.state() != State::Free);
            if is_lost && !self.held.contains_key(&index) {
                if let Some(slot) = self.slots.slot(index)
                    && slot.state() == State::InCall
                {
                    left.calls.push(crash::OpenCall::of(&slot));
                }
                self.free(index);
            }
        }
        left
    }

    fn bury_connection(&mut self, index: usize, left: &mut Left) {
        let (Some(slot), Some(held)) = (self.slots.slot(index), self.held.get_mut(&index)) else {
            return;
        };
        let socket = Arc::clone(&held.socket);
        let passed = Passed {
            slot: index,
            number: held.number,
            unread_answers: 0,
        };
        let is_alive = match slot.state() {
            State::Idle => true,
            State::Reading => has_one_whole_frame(socket.as_fd()),
            State::InCall | State::Writing | State::Free => false,
        };
        if is_alive {
            held.owner = 0;
            slot.set_state(State::Idle);
            left.alive.push((passed, socket));
            return;
        }
        if slot.state() == State::InCall {
            answer_for(socket.as_fd(), slot.call(), self.response_failure);
            left.calls.push(crash::OpenCall::of(&slot));
        } else {
            left.cut += 1;
        }
        self.end(passed);
    }

    fn free(&self, index: usize) {
        if let Some(slot) = self.slots.slot(index) {
            slot.free();
        }
    }
}

/// Whether nothing of a frame has been taken: one whole frame of a gateway is still to be read.
fn has_one_whole_frame(socket: BorrowedFd<'_>) -> bool {
    let mut header = [0; HEADER_LEN];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let Ok((HEADER_LEN, _)) = rustix::net::recv(socket, &mut header[..], flags) else {
        return false;
    };
    let header = Header::decode(header);
    let waiting = rustix::io::ioctl_fionread(socket).unwrap_or(0);
    header.frame_type().is_ok() && waiting == header.frame_len() as u64
}

/// Tells the gateway at once what it would wait for in vain.
fn answer_for(socket: BorrowedFd<'_>, call: OpenCall, response_failure: ResponseFailure) {
    let mut writer = FrameWriter::new();
    let by_status =
        call.kind == CallKind::Response && response_failure == ResponseFailure::Status503;
    let frame = if by_status {
        // An error frame would let the upstream's body through.
        let headers = [Entry {
            name: b"Content-Type",
            value: Some(b"text/plain; charset=utf-8"),
        }];
        http_resp_call::write_answer(
            &mut writer,
            call.request,
            Some(503),
            headers,
            Some(RESPONSE_FAILED),
        )
        .expect("a short answer fits a frame")
        .to_vec()
    } else {
        err::write(&mut writer, err::Code::ServiceUnavailable).to_vec()
    };
    // A gateway that takes not even these few bytes sees the end instead.
    let _ = rustix::net::send(socket, &frame, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
}
