//! What no service gets: datagrams, and sockets that no hook sees. A program may use thousands of sockets for one
//! thing, and one line says it.

use std::net::SocketAddr;

use carnet_abi::{self as abi, Event, Origin};

use super::recent::Recent;

/// A socket whose traffic is not seen, or which was refused for that.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnseenSocket {
    /// When it was made: `CLOCK_BOOTTIME`, nanoseconds.
    pub time: u64,
    /// Of the program that was first.
    pub pid: u32,
    /// Real uid.
    pub uid: u32,
    /// The process's name, which the process itself chooses.
    pub program: String,
    /// What was asked for.
    pub kind: SocketKind,
    /// The errno that `socket()` failed with: `--strict`.
    pub refused: Option<i32>,
}

/// The arguments of `socket()`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SocketKind {
    /// `AF_*`.
    pub family: u16,
    /// `SOCK_*`.
    pub sock_type: u16,
    /// `IPPROTO_*`.
    pub protocol: u32,
}

/// Remembers what has been said.
#[derive(Debug)]
pub(super) struct Uninspected {
    destinations: Recent<(Process, SocketAddr, bool)>,
    sockets: Recent<([u8; 16], SocketKind, bool)>,
}

/// One process for all time: numbers are used again.
type Process = (u32, u64);

impl Default for Uninspected {
    fn default() -> Self {
        Self { destinations: Recent::new(DESTINATIONS), sockets: Recent::new(SOCKETS) }
    }
}

impl Uninspected {
    /// Whether the process has not sent to this destination, or has not been refused it, before.
    pub(super) fn is_new_destination(&mut self, event: &Event) -> bool {
        let Origin { pid, start_time, .. } = event.record.origin;
        self.destinations.insert(((pid, start_time), event.remote.to_socket_addr(), is_refused(event)))
    }

    /// The socket, where the program has not made one of its kind before.
    pub(super) fn socket(&mut self, event: &Event) -> Option<UnseenSocket> {
        let &Event { family, sock_type, protocol, ref record, .. } = event;
        let kind = SocketKind { family, sock_type, protocol };
        let refused = is_refused(event);
        self.sockets.insert((record.origin.comm, kind, refused)).then(|| UnseenSocket {
            time: event.time,
            pid: record.origin.pid,
            uid: record.origin.uid,
            program: String::from_utf8_lossy(record.origin.comm()).into_owned(),
            kind,
            refused: refused.then_some(event.error),
        })
    }
}

fn is_refused(event: &Event) -> bool {
    event.verdict == abi::VERDICT_REFUSE
}

/// As many as the kernel program remembers.
const DESTINATIONS: usize = 16 * 1024;
/// Few programs make such sockets. One that keeps changing its name is told again.
const SOCKETS: usize = 1024;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use crate::run::flows::{Bytes, Decision, End, Flow, Joiner, Output, Protocol};

    use super::*;

    /// What a UDP socket of the process's does.
    fn datagram(pid: u32, to: &str) -> Event {
        let origin = Origin {
            pid,
            uid: 5,
            time: 1000,
            start_time: 70,
            comm: *b"dig\0\0\0\0\0\0\0\0\0\0\0\0\0",
            ..Default::default()
        };
        let mut event = Event { kind: abi::EVENT_DATAGRAM, verdict: abi::VERDICT_PASS, ..Default::default() };
        event.record.origin = origin;
        event.record.flow = [7, 9];
        event.remote = to.parse::<SocketAddr>().unwrap().into();
        event.reason = abi::REASON_UDP;
        event
    }

    fn refused(event: Event, reason: u32, error: i32) -> Event {
        Event { verdict: abi::VERDICT_REFUSE, reason, error, ..event }
    }

    fn raw(pid: u32) -> Event {
        let event = datagram(pid, "[::]:0");
        Event { kind: abi::EVENT_SOCKET, time: 2000, family: 2, sock_type: 3, protocol: 1, ..event }
    }

    fn flow(joiner: &mut Joiner, event: &Event) -> Option<Flow> {
        match joiner.event(event) {
            Some(Output::Flow(flow)) => Some(*flow),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    fn socket(joiner: &mut Joiner, event: &Event) -> Option<UnseenSocket> {
        match joiner.event(event) {
            Some(Output::Socket(socket)) => Some(*socket),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_destination_of_udp_is_a_flow_at_once() {
        let mut joiner = Joiner::new(HashMap::new());
        let flow = flow(&mut joiner, &datagram(42, "192.0.2.7:53")).unwrap();
        assert_eq!((flow.protocol, flow.decision, flow.end), (Protocol::Udp, Decision::NotInspected, End::Untold));
        assert_eq!((flow.pid, flow.uid, &flow.program[..], flow.begun), (42, 5, "dig", 1000));
        assert_eq!((flow.destination, flow.bytes, flow.duration), ("192.0.2.7:53".parse().unwrap(), None, None));
        assert_eq!((joiner.open(), joiner.finish()), (0, vec![]), "nothing waits for an end that does not come");
    }

    #[test]
    fn many_sockets_of_a_process_to_one_destination_are_one_flow() {
        let mut joiner = Joiner::new(HashMap::new());
        assert!(flow(&mut joiner, &datagram(42, "192.0.2.7:53")).is_some());
        for cookie in 0..1000 {
            let again = Event { cookie, ..datagram(42, "192.0.2.7:53") };
            assert_eq!(flow(&mut joiner, &again), None);
        }
        let later = |pid, start_time| {
            let mut event = datagram(pid, "192.0.2.7:53");
            event.record.origin.start_time = start_time;
            event
        };
        for (other, why) in [
            (datagram(42, "192.0.2.7:5353"), "another port"),
            (datagram(42, "192.0.2.8:53"), "another address"),
            (datagram(43, "192.0.2.7:53"), "another process"),
            (later(42, 71), "another process with the same number"),
            (refused(datagram(42, "192.0.2.7:53"), abi::REASON_QUIC, 111), "another decision"),
        ] {
            assert!(flow(&mut joiner, &other).is_some(), "{why}");
            assert_eq!(flow(&mut joiner, &other), None, "{why}");
        }
    }

    #[test]
    fn refused_quic() {
        let mut joiner = Joiner::new(HashMap::new());
        let event = refused(datagram(42, "192.0.2.7:443"), abi::REASON_QUIC, 111);
        let flow = flow(&mut joiner, &event).unwrap();
        assert_eq!((flow.protocol, flow.decision, flow.bytes), (Protocol::Udp, Decision::Refused, None::<Bytes>));
        assert_eq!(flow.end, End::Refused { reason: abi::REASON_QUIC, service: None, error: 111 });
    }

    #[test]
    fn a_program_is_told_once_for_each_kind_of_socket() {
        let mut joiner = Joiner::new(HashMap::new());
        let kind = SocketKind { family: 2, sock_type: 3, protocol: 1 };
        let expected = UnseenSocket { time: 2000, pid: 42, uid: 5, program: "dig".into(), kind, refused: None };
        assert_eq!(socket(&mut joiner, &raw(42)), Some(expected.clone()));
        assert_eq!(socket(&mut joiner, &raw(42)), None);
        assert_eq!(socket(&mut joiner, &raw(43)), None, "the same program once more");

        let strict = refused(raw(44), abi::REASON_SOCKET, 13);
        assert_eq!(socket(&mut joiner, &strict), Some(UnseenSocket { pid: 44, refused: Some(13), ..expected }));
        assert_eq!(socket(&mut joiner, &strict), None);
        let mut renamed = raw(42);
        renamed.record.origin.comm[0] = b'p';
        for other in [Event { protocol: 2, ..raw(42) }, Event { family: 10, ..raw(42) }, renamed] {
            assert!(socket(&mut joiner, &other).is_some());
            assert_eq!(socket(&mut joiner, &other), None);
        }
    }
}
