//! Completion ports: a queue of the operations that have ended, for one thread or many, or for an async runtime.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Instant,
};

use super::{
    bell::{Bell, first_ringing},
    objects,
    sync::{Mutex, ignore_poison},
};

#[derive(Debug)]
pub(crate) struct Port {
    state: Mutex<State>,
    /// Rings while there are packets, and without end when the port is closed. Only touched with the state's lock held.
    bell: Bell,
}

#[derive(Debug, Default)]
struct State {
    packets: VecDeque<Packet>,
    closed: bool,
}

/// An operation that has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Packet {
    /// Given when the socket was attached.
    pub(crate) key: usize,
    /// Address of the `OVERLAPPED`.
    pub(crate) overlapped: usize,
    pub(crate) bytes: u32,
    /// 0, or why it failed.
    pub(crate) error: i32,
}

/// What a wait brought.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Received {
    Packet(Packet),
    TimedOut,
    Closed,
}

impl Port {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { state: Mutex::default(), bell: Bell::new()? })
    }

    pub(super) fn push(&self, packet: Packet) {
        let mut state = ignore_poison(self.state.lock());
        state.packets.push_back(packet);
        self.bell.ring();
    }

    /// The oldest packet; waits for it until `end` (`None`: without end). Packets wait for their readers also after
    /// [`close`](Self::close).
    pub(crate) fn receive(&self, end: Option<Instant>) -> io::Result<Received> {
        loop {
            if let Some(received) = self.take() {
                return Ok(received);
            }
            if first_ringing(&[&self.bell], end)?.is_none() {
                return Ok(Received::TimedOut);
            }
        }
    }

    /// Ends all waits, now and later.
    pub(crate) fn close(&self) {
        let mut state = ignore_poison(self.state.lock());
        state.closed = true;
        self.bell.ring();
    }

    fn take(&self) -> Option<Received> {
        let mut state = ignore_poison(self.state.lock());
        let packet = state.packets.pop_front();
        if state.closed {
            return Some(packet.map_or(Received::Closed, Received::Packet));
        }
        // Also where it rang for nobody: its descriptor is a child's, too, after fork(), and anybody's who asks for it.
        if state.packets.is_empty() {
            self.bell.silence();
        }
        packet.map(Received::Packet)
    }
}

/// A descriptor that is readable while a port has packets.
#[derive(Debug)]
pub(crate) struct Readiness(Arc<Port>);

impl Readiness {
    pub(crate) fn of(port: usize) -> Option<Self> {
        objects::port(port).map(Self)
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.bell.as_fd()
    }
}
