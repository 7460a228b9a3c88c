//! TCP between two sockets of this host, as far as calls that take effect at once can tell.

use std::net::{IpAddr, SocketAddr};

use carnet_abi as abi;
use carnet_e2e::actor::{Family, MOST_READ};
use libc::{EAGAIN, ECONNRESET, EINVAL, ENOTCONN, EPIPE};

use super::{Accepted, Answer, Model, Place, SockId, Told};
use crate::op::{Source, source};

/// One end of a connection.
#[derive(Clone, Debug)]
pub struct End {
    pub sock: SockId,
    /// Where the connection leads.
    at: SocketAddr,
    /// Its last descriptor is closed.
    pub orphan: bool,
    fin_sent: bool,
    fin_came: bool,
    /// Its state is CLOSE.
    dead: bool,
    unread: usize,
}

/// What the kernel says of a socket's state (`TCP_INFO`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TcpState {
    Closed,
    Listening { waiting: usize },
    Established,
    FinSent,
    FinCame,
}

impl End {
    pub fn new(sock: SockId, at: SocketAddr) -> Self {
        Self { sock, at, orphan: false, fin_sent: false, fin_came: false, dead: false, unread: 0 }
    }
}

impl Model {
    pub fn tcp_state(&self, id: SockId) -> TcpState {
        match &self.socks[id].state {
            Place::Fresh => TcpState::Closed,
            Place::Listening { queue, .. } => TcpState::Listening { waiting: queue.len() },
            &Place::End { conn, side } => {
                let end = &self.conns[conn][side];
                match (end.dead, end.fin_sent, end.fin_came) {
                    (true, ..) => TcpState::Closed,
                    (_, true, _) => TcpState::FinSent,
                    (_, _, true) => TcpState::FinCame,
                    _ => TcpState::Established,
                }
            }
        }
    }

    pub(super) fn bind(&mut self, id: SockId, to: Source) -> Answer {
        let closed = self.tcp_state(id) == TcpState::Closed;
        let sock = &mut self.socks[id];
        let address = source(sock.family, to);
        let mapped = sock.family == Family::V6 && address.ip().to_canonical().is_ipv4();
        if mapped || !closed || sock.has_port {
            return Answer::Error(EINVAL);
        }
        (sock.bound, sock.has_port) = (Some(address.ip()), true);
        // What is bound to an IPv6 address has become IPV6_V6ONLY, for good.
        if sock.family == Family::Dual && !address.ip().to_canonical().is_ipv4() {
            sock.family = Family::V6;
        }
        Answer::Error(0)
    }

    pub(super) fn send(&mut self, id: SockId) -> Answer {
        let sock = &mut self.socks[id];
        let error = std::mem::take(&mut sock.error);
        if error != 0 {
            return Answer::Error(error);
        }
        let muted = sock.mute;
        let &Place::End { conn, side } = &sock.state else { return Answer::Error(EPIPE) };
        let end = &self.conns[conn][side];
        if end.dead || end.fin_sent || muted {
            return Answer::Error(EPIPE);
        }
        if self.conns[conn][1 - side].orphan {
            self.reset(conn, side);
        } else {
            self.conns[conn][1 - side].unread += 1;
        }
        Answer::Error(0)
    }

    pub(super) fn receive(&mut self, id: SockId) -> Answer {
        let sock = &mut self.socks[id];
        let end = match sock.state {
            Place::Listening { .. } => return Answer::Error(ENOTCONN),
            Place::Fresh => None,
            Place::End { conn, side } => Some(&mut self.conns[conn][side]),
        };
        if let Some(end) = end {
            let count = end.unread.min(MOST_READ);
            end.unread -= count;
            if count > 0 || end.fin_came {
                return Answer::Count(count);
            }
            if end.dead {
                return match std::mem::take(&mut sock.error) {
                    0 => Answer::Count(0),
                    error => Answer::Error(error),
                };
            }
            return Answer::Error(EAGAIN);
        }
        match std::mem::take(&mut sock.error) {
            0 => Answer::Error(ENOTCONN),
            error => Answer::Error(error),
        }
    }

    pub(super) fn shutdown(&mut self, id: SockId) -> Answer {
        match self.tcp_state(id) {
            TcpState::Listening { .. } => return Answer::Error(0),
            TcpState::Closed => {
                self.socks[id].mute = true;
                return Answer::Error(ENOTCONN);
            }
            _ => {}
        }
        self.socks[id].mute = true;
        if let Place::End { conn, side } = self.socks[id].state {
            self.finish(conn, side);
        }
        Answer::Error(0)
    }

    /// `connect` with `AF_UNSPEC`.
    pub(super) fn disconnect(&mut self, id: SockId) -> Answer {
        let state = std::mem::replace(&mut self.socks[id].state, Place::Fresh);
        match state {
            Place::Fresh => {}
            // A port of its own would stay taken; that is another story.
            Place::Listening { .. } => {
                self.socks[id].state = state;
                return Answer::Nothing;
            }
            Place::End { conn, side } => {
                let end = self.conns[conn][side].clone();
                if !end.dead {
                    self.socks[id].error = ECONNRESET;
                    self.socks[id].has_port = false;
                    self.die(conn, side, if end.fin_sent { abi::HOW_CLOSED } else { abi::HOW_ABORTED }, 0);
                    self.reset(conn, 1 - side);
                }
            }
        }
        self.socks[id].mute = false;
        Answer::Error(0)
    }

    /// The last descriptor goes.
    pub(super) fn close(&mut self, id: SockId) {
        match std::mem::replace(&mut self.socks[id].state, Place::Fresh) {
            Place::Fresh => {}
            Place::Listening { queue, .. } => {
                for child in queue {
                    if let Place::End { conn, side } = self.socks[child].state {
                        self.abort(conn, side, abi::HOW_ABORTED);
                    }
                }
            }
            state @ Place::End { conn, side } => {
                // Until it is over it has its place.
                self.socks[id].state = state;
                let end = self.conns[conn][side].clone();
                if end.unread > 0 {
                    self.abort(conn, side, if end.fin_sent { abi::HOW_CLOSED } else { abi::HOW_ABORTED });
                } else {
                    self.conns[conn][side].orphan = true;
                    self.finish(conn, side);
                    // Nobody is left to wait for the other side's FIN.
                    self.die(conn, side, abi::HOW_CLOSED, 0);
                }
                self.conns[conn][side].orphan = true;
            }
        }
        self.end_unsent(id);
    }

    pub(super) fn peer_name(&mut self, id: SockId) -> Answer {
        let &Place::End { conn, side } = &self.socks[id].state else { return Answer::Error(ENOTCONN) };
        if self.conns[conn][side].dead {
            return Answer::Error(ENOTCONN);
        }
        let sock = &self.socks[id];
        match sock.redirected {
            Some(name) => Answer::Name(self.as_seen(sock.family, name)),
            None if side == 0 => Answer::Name(self.as_seen(sock.family, self.conns[conn][side].at)),
            None => Answer::NameOf(self.conns[conn][1 - side].sock),
        }
    }

    /// IPv6 sockets show IPv4 addresses in the mapped form.
    fn as_seen(&self, family: Family, name: SocketAddr) -> SocketAddr {
        match name.ip() {
            IpAddr::V4(v4) if family != Family::V4 => (v4.to_ipv6_mapped(), name.port()).into(),
            _ => name,
        }
    }

    /// Sends what says that no more will come.
    fn finish(&mut self, conn: usize, side: usize) {
        if self.conns[conn][side].dead || self.conns[conn][side].fin_sent {
            return;
        }
        self.conns[conn][side].fin_sent = true;
        self.conns[conn][1 - side].fin_came = true;
        if self.conns[conn][side].fin_came {
            self.die(conn, side, abi::HOW_CLOSED, 0);
            self.die(conn, 1 - side, abi::HOW_CLOSED, 0);
        }
    }

    /// Breaks off: dead here, and reset there.
    fn abort(&mut self, conn: usize, side: usize, how: u32) {
        if !self.conns[conn][side].dead {
            self.die(conn, side, how, 0);
            self.reset(conn, 1 - side);
        }
    }

    /// The other side's reset comes.
    fn reset(&mut self, conn: usize, side: usize) {
        let end = &self.conns[conn][side];
        if end.dead {
            return;
        }
        let error = if end.fin_came { EPIPE } else { ECONNRESET };
        let sock = end.sock;
        self.die(conn, side, abi::HOW_RESET, error);
        self.socks[sock].error = error;
    }

    /// The state becomes CLOSE.
    fn die(&mut self, conn: usize, side: usize, how: u32, error: i32) {
        let end = &mut self.conns[conn][side];
        if std::mem::replace(&mut end.dead, true) {
            return;
        }
        let id = end.sock;
        self.socks[id].has_port = false;
        if let Accepted::With { flight, remote, handle, .. } = &mut self.socks[id].accepted
            && std::mem::take(flight)
        {
            let (remote, handle) = (*remote, *handle);
            self.let_go(handle, remote);
        }
        self.end_sent(id, how, error);
    }

    /// Tells of the end of a connection of which something was sent.
    pub(super) fn end_sent(&mut self, id: SockId, how: u32, error: i32) {
        if self.socks[id].decided.as_ref().is_some_and(|decided| decided.sent) {
            self.tell_end(id, how, error);
        }
    }

    /// The same where nothing was: when the socket goes, with its next connect(), or when it is given a record.
    pub(super) fn end_unsent(&mut self, id: SockId) {
        if self.socks[id].decided.as_ref().is_some_and(|decided| !decided.sent) {
            self.tell_end(id, abi::HOW_FAILED, 0);
        }
    }

    fn tell_end(&mut self, id: SockId, how: u32, error: i32) {
        let Some(decided) = self.socks[id].decided.take() else { return };
        self.told.push(Told::End {
            sock: id,
            record: decided.record,
            remote: decided.remote,
            verdict: decided.verdict,
            handle: decided.handle,
            dialer: decided.dialer,
            base: decided.base,
            how,
            error,
        });
    }
}
