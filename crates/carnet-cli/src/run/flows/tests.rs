mod any_event;

use std::net::SocketAddr;

use carnet_abi::{Address, Hop, Origin, Records};
use nix::errno::Errno;

use super::*;

/// One socket's events: an application's (base 0) or a service's.
#[derive(Clone, Copy)]
struct Connection {
    flow: u64,
    base: u32,
    handles: &'static [u32],
    flags: u16,
}

const APPLICATION: Connection = Connection { flow: 7, base: 0, handles: &[1], flags: 0 };
const FIRST_SERVICE: Connection = Connection { flow: 7, base: 1, handles: &[1, 2], flags: 0 };
const SECOND_SERVICE: Connection = Connection { flow: 7, base: 2, handles: &[1, 2], flags: 0 };

impl Connection {
    fn event(&self, kind: u16) -> Event {
        let mut comm = [0; 16];
        comm[..4].copy_from_slice(b"curl");
        let mut record = Records {
            flow: [self.flow, 9],
            depth: self.handles.len() as u32,
            origin: Origin { time: 1000, pid: 42, uid: 5, comm, flags: self.flags, ..Default::default() },
            ..Default::default()
        };
        for (hop, &handle) in record.chain.iter_mut().zip(self.handles) {
            *hop = Hop { handle, ..Default::default() };
        }
        let remote = Address::from("192.0.2.7:443".parse::<SocketAddr>().unwrap());
        // The services dial in the order of their handles here.
        Event { kind, record, base: self.base, dialer: self.base, remote, ..Default::default() }
    }

    fn redirected(&self) -> Event {
        let handle = *self.handles.last().unwrap();
        Event { verdict: abi::VERDICT_REDIRECT, handle, ..self.event(abi::EVENT_CONNECT) }
    }

    fn passed(&self, reason: u32) -> Event {
        Event { verdict: abi::VERDICT_PASS, reason, ..self.event(abi::EVENT_CONNECT) }
    }

    fn refused(&self, reason: u32, handle: u32, error: i32) -> Event {
        Event { verdict: abi::VERDICT_REFUSE, reason, handle, error, ..self.event(abi::EVENT_CONNECT) }
    }

    fn ended(&self, how: u32, error: i32) -> Event {
        Event { how, error, sent: 10, received: 20, duration: 5_000_000, ..self.event(abi::EVENT_END) }
    }
}

fn joiner() -> Joiner {
    let known = |name: &str, unaware| Known { name: name.into(), unaware };
    Joiner::new(HashMap::from([(1, known("a", true)), (2, known("b", false))]))
}

/// The only flow that comes out of these events.
fn join(events: &[Event]) -> Flow {
    let mut joiner = joiner();
    let outputs: Vec<_> = events.iter().filter_map(|event| joiner.event(event)).collect();
    assert_eq!(joiner.open(), 0);
    let [Output::Flow(flow)] = &outputs[..] else { panic!("one flow, got {outputs:?}") };
    *flow.clone()
}

fn chain(flow: &Flow) -> Vec<(&str, bool)> {
    flow.chain.iter().map(|link| (&link.service[..], link.inferred)).collect()
}

#[test]
fn a_flow_through_two_services() {
    let flow = join(&[
        APPLICATION.redirected(),
        FIRST_SERVICE.redirected(),
        SECOND_SERVICE.passed(abi::REASON_DEFAULT),
        SECOND_SERVICE.ended(abi::HOW_CLOSED, 0),
        FIRST_SERVICE.ended(abi::HOW_CLOSED, 0),
        APPLICATION.ended(abi::HOW_CLOSED, 0),
    ]);
    assert_eq!(chain(&flow), [("a", false), ("b", false)]);
    assert_eq!((flow.id, flow.begun, flow.pid, flow.uid, &flow.program[..]), (9 << 64 | 7, 1000, 42, 5, "curl"));
    assert_eq!((flow.protocol, flow.bytes), (Protocol::Tcp, Some(Bytes { sent: 10, received: 20 })));
    assert_eq!(flow.duration, Some(Duration::from_millis(5)));
    assert_eq!((flow.decision, flow.end), (Decision::Redirected, End::Closed));
    assert_eq!(flow.destination, "192.0.2.7:443".parse().unwrap());
}

#[test]
fn the_last_hop_says_what_the_destination_did() {
    let refused = Errno::ECONNREFUSED as i32;
    let reset = Errno::ECONNRESET as i32;
    for (last, own, expected) in [
        ((abi::HOW_FAILED, refused), (abi::HOW_RESET, reset), End::Failed(Place::Destination, refused)),
        // A service may answer politely instead.
        ((abi::HOW_FAILED, refused), (abi::HOW_CLOSED, 0), End::Failed(Place::Destination, refused)),
        ((abi::HOW_RESET, reset), (abi::HOW_RESET, reset), End::Reset(Place::Destination, reset)),
        ((abi::HOW_CLOSED, 0), (abi::HOW_RESET, reset), End::Reset(Place::Service("a".into()), reset)),
        ((abi::HOW_ABORTED, 0), (abi::HOW_RESET, reset), End::Reset(Place::Service("a".into()), reset)),
        ((abi::HOW_RESET, reset), (abi::HOW_ABORTED, 0), End::Aborted),
        ((abi::HOW_RESET, reset), (abi::HOW_CLOSED, 0), End::Closed),
    ] {
        let flow = join(&[
            APPLICATION.redirected(),
            FIRST_SERVICE.redirected(),
            SECOND_SERVICE.passed(abi::REASON_DEFAULT),
            SECOND_SERVICE.ended(last.0, last.1),
            FIRST_SERVICE.ended(abi::HOW_RESET, reset),
            APPLICATION.ended(own.0, own.1),
        ]);
        assert_eq!(flow.end, expected, "last {last:?}, own {own:?}");
    }
}

#[test]
fn a_later_attempt_of_the_service_counts_not_an_earlier_one() {
    let last = Connection { handles: &[1], ..FIRST_SERVICE };
    let flow = join(&[
        APPLICATION.redirected(),
        last.passed(abi::REASON_DEFAULT),
        last.ended(abi::HOW_FAILED, 111),
        last.passed(abi::REASON_DEFAULT),
        APPLICATION.ended(abi::HOW_CLOSED, 0),
    ]);
    assert_eq!(flow.end, End::Closed);
    assert_eq!(chain(&flow), [("a", false)]);
}

#[test]
fn a_refusal_at_the_application_s_connect() {
    let at_once = Connection { handles: &[], ..APPLICATION };
    let flow = join(&[at_once.refused(abi::REASON_DEAD, 2, 111)]);
    assert_eq!(flow.decision, Decision::Refused);
    assert_eq!(flow.end, End::Refused { reason: abi::REASON_DEAD, service: Some("b".into()), error: 111 });
    assert_eq!((flow.duration, chain(&flow)), (None, vec![]));
}

#[test]
fn a_refusal_at_a_later_hop() {
    let flow = join(&[
        APPLICATION.redirected(),
        Connection { handles: &[1], ..FIRST_SERVICE }.refused(abi::REASON_STRANGER, 2, 111),
        APPLICATION.ended(abi::HOW_RESET, 104),
    ]);
    assert_eq!(flow.end, End::Refused { reason: abi::REASON_STRANGER, service: Some("b".into()), error: 111 });
    assert_eq!(chain(&flow), [("a", false)]);
}

#[test]
fn connections_that_are_not_redirected() {
    let direct = Connection { handles: &[], ..APPLICATION };
    for (reason, expected) in [
        (abi::REASON_DEFAULT, Decision::Direct),
        (abi::REASON_DEAD, Decision::Direct),
        (abi::REASON_SPECIAL, Decision::LeftAlone(abi::REASON_SPECIAL)),
    ] {
        let flow = join(&[direct.passed(reason), direct.ended(abi::HOW_FAILED, 113)]);
        assert_eq!((flow.decision, flow.end), (expected, End::Failed(Place::Destination, 113)));
    }
}

/// Nobody would tell its end, so it is a line at once.
#[test]
fn a_connection_of_the_kernels_own() {
    let mount = Connection { handles: &[], ..APPLICATION };
    let flow = join(&[mount.passed(abi::REASON_KERNEL)]);
    assert_eq!((flow.decision, flow.end), (Decision::LeftAlone(abi::REASON_KERNEL), End::Untold));
    assert_eq!((flow.bytes, flow.duration), (None, None));
}

/// A further subflow of an MPTCP connection, at whatever hop, changes nothing of what is known of the flow.
#[test]
fn subflows_are_part_of_their_flow() {
    let expected = [
        APPLICATION.redirected(),
        FIRST_SERVICE.redirected(),
        SECOND_SERVICE.passed(abi::REASON_DEFAULT),
        SECOND_SERVICE.ended(abi::HOW_FAILED, 111),
        APPLICATION.ended(abi::HOW_CLOSED, 0),
    ];
    let mut events = expected.to_vec();
    for (place, hop) in [(1, APPLICATION), (3, SECOND_SERVICE), (5, FIRST_SERVICE)] {
        events.insert(place, Connection { base: 0, ..hop }.passed(abi::REASON_KERNEL));
    }
    assert_eq!(join(&events), join(&expected));
}

/// The kernel tells of a subflow when it is up, and the application may have closed its socket by then.
#[test]
fn a_subflow_that_is_told_after_the_end_is_no_flow_of_its_own() {
    let mut joiner = joiner();
    assert_eq!(joiner.event(&APPLICATION.redirected()), None);
    assert!(joiner.event(&APPLICATION.ended(abi::HOW_CLOSED, 0)).is_some());
    for late in [APPLICATION, Connection { base: 0, ..FIRST_SERVICE }] {
        assert_eq!(joiner.event(&late.passed(abi::REASON_KERNEL)), None);
    }
    let other = Connection { flow: 8, handles: &[], ..APPLICATION };
    assert!(joiner.event(&other.passed(abi::REASON_KERNEL)).is_some(), "another flow's");
}

/// Where there was no memory for a record, the id says nothing.
#[test]
fn an_end_without_an_id_hides_no_later_flow() {
    let nameless = |mut event: Event| {
        event.record.flow = [0, 0];
        event
    };
    let mut joiner = joiner();
    assert!(joiner.event(&nameless(APPLICATION.ended(abi::HOW_CLOSED, 0))).is_some());
    assert!(joiner.event(&nameless(APPLICATION.passed(abi::REASON_KERNEL))).is_some());
}

#[test]
fn inferred_hops_are_marked_at_the_service_that_forgot() {
    let forgets = Connection { flags: abi::ORIGIN_INFERRED, ..FIRST_SERVICE };
    let carries = Connection { flags: abi::ORIGIN_INFERRED, ..SECOND_SERVICE };
    let flow = join(&[
        APPLICATION.redirected(),
        forgets.redirected(),
        carries.passed(abi::REASON_DEFAULT),
        APPLICATION.ended(abi::HOW_CLOSED, 0),
    ]);
    assert_eq!(chain(&flow), [("a", true), ("b", false)]);
}

#[test]
fn an_ambiguous_connection_is_a_flow_of_its_own() {
    let service = Connection { flow: 8, flags: abi::ORIGIN_AMBIGUOUS, ..APPLICATION };
    let flow = join(&[service.redirected(), service.ended(abi::HOW_CLOSED, 0)]);
    assert!(flow.ambiguous);
}

#[test]
fn names_join_before_and_after_the_first_event() {
    let name = |text: &str| Name { text: text.into(), from: "tls".into() };
    let id = 9 << 64 | 7;
    for early in [true, false] {
        let mut joiner = joiner();
        if early {
            joiner.name(id, name("one"));
        }
        assert_eq!(joiner.event(&APPLICATION.redirected()), None);
        joiner.name(id, name("two"));
        let Some(Output::Flow(flow)) = joiner.event(&APPLICATION.ended(abi::HOW_CLOSED, 0)) else { panic!() };
        assert_eq!(flow.name, Some(name(if early { "one" } else { "two" })));
    }
}

#[test]
fn names_of_flows_that_never_come_do_not_pile_up() {
    let mut joiner = joiner();
    for id in 0..100_000 {
        joiner.name(id, Name { text: "x".into(), from: "tls".into() });
    }
    assert!(joiner.early_names.len() <= MOST_EARLY_NAMES);
}

#[test]
fn an_end_whose_beginning_was_lost_still_makes_a_line() {
    let flow = join(&[Event { verdict: abi::VERDICT_REDIRECT, ..APPLICATION.ended(abi::HOW_CLOSED, 0) }]);
    assert_eq!((flow.pid, chain(&flow), flow.decision), (42, vec![("a", false)], Decision::Redirected));
}

#[test]
fn events_of_unknown_flows_are_let_go() {
    let mut joiner = joiner();
    for event in [FIRST_SERVICE.redirected(), FIRST_SERVICE.ended(abi::HOW_CLOSED, 0), Event::default()] {
        assert_eq!(joiner.event(&event), None);
    }
    assert_eq!(joiner.open(), 0);
}

#[test]
fn flows_that_are_open_at_the_end_come_out_oldest_first() {
    let mut joiner = joiner();
    for flow in [3, 1, 2] {
        let mut event = Connection { flow, ..APPLICATION }.redirected();
        event.record.origin.time = 100 - flow;
        joiner.event(&event);
    }
    let open = joiner.finish();
    assert_eq!(open.iter().map(|flow| flow.begun).collect::<Vec<_>>(), [97, 98, 99]);
    assert!(open.iter().all(|flow| flow.end == End::Open && flow.duration.is_none()));
}

#[test]
fn a_warning_is_said_once() {
    let mut joiner = joiner();
    let lost = Event { kind: abi::EVENT_LOST, handle: 1, ..Event::default() };
    let stranger = Event { kind: abi::EVENT_STRANGER, handle: 1, ..Event::default() };
    let set = Event { kind: abi::EVENT_SET, error: 13, pid: 5, ..Event::default() };
    for event in [lost, stranger, set] {
        assert!(matches!(joiner.event(&event), Some(Output::Warning(_))));
        assert_eq!(joiner.event(&event), None);
    }
    assert_eq!(joiner.event(&Event { error: 0, ..set }), None);
}
