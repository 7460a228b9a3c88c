//! MPTCP. Programs of the kernel see an MPTCP connection's subflows, processes hold the connection: what is known of one
//! must be found from the other.

use std::io::ErrorKind::WouldBlock;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Instant;

use carnet::{ErrorKind, Redirect, State};
use carnet_e2e::sockets::{PATIENCE, accept, assert_joined};
use carnet_e2e::{raw, set_records};
use carnet_policy::{Action, Match, Service as Kind};
use libc::{ECONNREFUSED, EINVAL, EISCONN};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Course, Way};

#[test]
fn an_mptcp_client_of_a_plain_service() {
    let mut course = Course::new();
    for way in Way::ALL {
        let client = course.connect(Protocol::MPTCP, way);
        course.follow(client, way);
    }
}

/// The socket that is accepted is a plain one. The mark of its owner is the listener's, which is an MPTCP one.
#[test]
fn a_plain_client_of_an_mptcp_service() {
    let mut course = Course::new();
    course.listen_for_mptcp();
    for way in Way::ALL {
        let client = course.connect(Protocol::TCP, way);
        course.follow(client, way);
    }
}

#[test]
fn an_mptcp_client_of_an_mptcp_service() {
    let mut course = Course::new();
    course.listen_for_mptcp();
    for way in Way::ALL {
        let client = course.connect(Protocol::MPTCP, way);
        assert!(is_mptcp(&client), "{way:?}: both ends can, so it is");
        course.follow(client, way);
    }
}

/// Every kind of socket at every hop, from the services too: what one sets is on the next one's accepted socket.
#[test]
fn services_go_on_by_mptcp_with_the_record() {
    for listening in [Protocol::TCP, Protocol::MPTCP] {
        let mut course = Course::new();
        if listening == Protocol::MPTCP {
            course.listen_for_mptcp();
            course.servers = [Way::V4, Way::V6].map(listen_for_mptcp);
        }
        for way in Way::ALL {
            let mut client = course.connect(Protocol::MPTCP, way);
            let mut arrived = course.arrive(way, Some(&client), b"");
            assert_eq!(is_mptcp(&arrived.socket), listening == Protocol::MPTCP);
            assert_joined(&mut client, &mut arrived.socket);
            let (mut onward, mut at_second) = course.dial_by_mptcp(0, &arrived.socket, way);
            let before = Redirect::of(&arrived.socket).flow().unwrap();
            let after = Redirect::of(&at_second).flow().unwrap();
            assert_eq!((after.id(), after.origin(), after.depth()), (before.id(), before.origin(), 2));
            assert_eq!(onward.peer_addr().unwrap(), super::canonical(course.destination(way)));
            assert_joined(&mut onward, &mut at_second);
            let (mut last, mut at_server) = course.dial_by_mptcp(1, &at_second, way);
            assert_eq!(is_mptcp(&at_server), listening == Protocol::MPTCP);
            assert_joined(&mut last, &mut at_server);
            drop((client, onward, at_second, last, at_server));
            course.over(arrived);
        }
    }
}

#[test]
fn every_question_is_answered_on_an_accepted_mptcp_socket() {
    let mut course = Course::new();
    course.sandbox.policy.providers[0].filters[0].action = Action::Redirect { context: b"context".to_vec() };
    course.listen_for_mptcp();
    let client = course.connect(Protocol::MPTCP, Way::V4);
    let arrived = course.arrive(Way::V4, Some(&client), b"");
    assert!(is_mptcp(&arrived.socket));
    let redirect = Redirect::of(&arrived.socket);
    assert_eq!(redirect.context().unwrap().as_deref(), Some(&b"context"[..]));
    assert_eq!(redirect.records().unwrap().as_bytes().len(), 528);
    assert_eq!(course.sandbox.in_service(0, || redirect.state().unwrap()), State::RedirectedBySelf);
    assert_eq!(course.sandbox.in_service(1, || redirect.state().unwrap()), State::RedirectedByOther);
    // What was set is known of an outgoing one.
    let socket = course.sandbox.in_service(0, || Way::V4.socket_of(Protocol::MPTCP));
    assert_eq!(Redirect::of(&socket).state().unwrap(), State::NotRedirected);
    course.sandbox.in_service(0, || redirect.records().unwrap().apply_to(&socket)).expect("SET");
    assert_eq!(course.sandbox.in_service(0, || Redirect::of(&socket).state().unwrap()), State::RedirectedBySelf);
    assert_eq!(Redirect::of(&socket).flow().unwrap_err().kind(), ErrorKind::NotRedirected);
}

/// Nobody else's connection either: a record is for a connection that is still to come.
#[test]
fn a_record_is_set_before_connect() {
    let mut course = Course::new();
    course.listen_for_mptcp();
    let client = course.connect(Protocol::MPTCP, Way::V4);
    let arrived = course.arrive(Way::V4, Some(&client), b"");
    let blob = Redirect::of(&arrived.socket).records().unwrap();
    let set = |socket: &Socket| course.sandbox.in_service(0, || set_records(socket, blob.as_bytes()));
    let listening = Socket::from(course.services[0].listeners[0].try_clone().unwrap());
    assert_eq!(set(&listening), Err(EINVAL));
    assert_eq!(set(&Socket::from(arrived.socket.try_clone().unwrap())), Err(EISCONN), "accepted");
    let (onward, at_second) = course.dial_by_mptcp(0, &arrived.socket, Way::V4);
    assert_eq!(set(&Socket::from(onward)), Err(EISCONN), "connected");
    assert_eq!(Redirect::of(&at_second).flow().unwrap().depth(), 2, "too late is without effect");
}

/// A socket that was refused may try again and keeps its record. The kernel may make it a new first subflow for that.
#[test]
fn again_after_a_refusal_and_after_af_unspec() {
    let mut course = Course::new();
    course.listen_for_mptcp();
    let way = Way::V4;
    let closed = Way::V4.socket();
    closed.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let refusing = closed.local_addr().unwrap();
    let port = course.destination(way).port();
    for provider in &mut course.sandbox.policy.providers {
        provider.filters[0].matches = Match::default().on_ports(port..=port);
    }
    course.sandbox.apply();

    let socket = course.sandbox.in_app(|| way.socket_of(Protocol::MPTCP));
    for _ in 0..2 {
        let refused = course.sandbox.in_app(|| socket.connect(&refusing)).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(ECONNREFUSED));
    }
    let mut client = course.sandbox.in_app(|| super::connected(socket, course.destination(way)));
    for _ in 0..2 {
        let arrived = course.arrive(way, Some(&client), b"");
        course.go_on(&arrived, way);
        raw::disconnect(&client).expect("AF_UNSPEC");
        drop(arrived);
        client = course.sandbox.in_app(|| super::connected(client.into(), course.destination(way)));
    }
    course.follow(client, way);
}

/// It knows SO_ORIGINAL_DST only, and its own connection inherits the flow's record, be it by MPTCP.
#[test]
fn unaware_services() {
    for own in [Protocol::TCP, Protocol::MPTCP] {
        let mut course = Course::new();
        course.sandbox.policy.providers[0].service = Kind::Unaware;
        course.listen_for_mptcp();
        for way in [Way::V4, Way::V6] {
            let mut client = course.connect(Protocol::MPTCP, way);
            let mut arrived = course.arrive(way, Some(&client), b"");
            assert!(is_mptcp(&arrived.socket));
            assert_joined(&mut client, &mut arrived.socket);
            let destination = Redirect::of(&arrived.socket).original_destination().expect("SO_ORIGINAL_DST");
            let mut onward = course.sandbox.in_service(0, || super::connected(way.socket_of(own), destination));
            let mut at_second = accept(&course.services[1].listeners[way.family()]);
            let flow = Redirect::of(&at_second).flow().unwrap();
            assert_eq!((flow.id(), flow.depth(), flow.origin().inferred), (arrived.flow, 2, true));
            assert_joined(&mut onward, &mut at_second);
            let mut last = course.sandbox.in_service(1, || carnet::dial(&at_second)).expect("dial");
            assert_joined(&mut last, &mut accept(&course.servers[way.family()]));
            drop((client, onward, at_second, last));
            course.over(arrived);
        }
    }
}

/// accept() may return a connection while the kernel is still busy with the handshake of its first subflow on another
/// processor. The record comes at the end of that.
#[test]
fn asked_as_soon_as_accepted() {
    const CONNECTIONS: usize = 1500;
    let mut course = Course::new();
    course.listen_for_mptcp();
    let listener = &course.services[0].listeners[Way::V4.family()];
    let destination = course.destination(Way::V4);
    let answers = course.sandbox.in_app(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..CONNECTIONS).for_each(|_| drop(super::connected(Way::V4.socket_of(Protocol::MPTCP), destination)))
            });
            let asked = |_| Redirect::of(&accept_spinning(listener)).flow().map(|flow| flow.destination());
            (0..CONNECTIONS).map(asked).collect::<Vec<_>>()
        })
    });
    let wrong: Vec<_> = answers.iter().filter(|answer| !matches!(answer, Ok(to) if *to == destination)).collect();
    assert!(wrong.is_empty(), "{} of {CONNECTIONS}, such as {:?}", wrong.len(), wrong[0]);
}

impl Course {
    /// An application's connection.
    pub(super) fn connect(&self, protocol: Protocol, way: Way) -> TcpStream {
        self.sandbox.in_app(|| super::connected(way.socket_of(protocol), self.destination(way)))
    }

    /// Both services have MPTCP listeners from now on, as those written in Go have.
    pub(super) fn listen_for_mptcp(&mut self) {
        for service in 0..2 {
            let listeners = self.sandbox.in_service(service, || [Way::V4, Way::V6].map(listen_for_mptcp));
            let addresses = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
            self.services[service].listeners = listeners.into();
            self.sandbox.policy.providers[service].listeners = addresses;
        }
        self.sandbox.apply();
    }

    /// A service goes on with an MPTCP socket that has the record. Both ends.
    pub(super) fn dial_by_mptcp(&self, service: usize, accepted: &TcpStream, way: Way) -> (TcpStream, TcpStream) {
        let to = Redirect::of(accepted).flow().expect("flow").destination();
        let onward = self.sandbox.in_service(service, || {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::MPTCP)).expect("MPTCP");
            Redirect::of(accepted).records().expect("records").apply_to(&socket).expect("SET");
            super::connected(socket, to)
        });
        let next = self.services.get(service + 1).map_or(&self.servers[..], |service| &service.listeners[..]);
        (onward, accept(&next[way.family()]))
    }
}

/// As [`accept`], but asks all the time.
fn accept_spinning(listener: &TcpListener) -> TcpStream {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        match listener.accept() {
            Ok((stream, _)) => return stream,
            Err(error) if error.kind() == WouldBlock => {}
            Err(error) => panic!("accept: {error}"),
        }
    }
    panic!("no connection in {PATIENCE:?}");
}

/// `MPTCP_INFO` is answered by MPTCP sockets, and says whether one has fallen back to TCP.
pub(super) fn is_mptcp(socket: &impl AsFd) -> bool {
    info(socket).is_some_and(|info| u32::from_ne_bytes([info[8], info[9], info[10], info[11]]) & FALLBACK == 0)
}

/// Subflows besides the first.
pub(super) fn further_subflows(socket: &impl AsFd) -> u8 {
    info(socket).expect("an MPTCP socket")[0]
}

fn info(socket: &impl AsFd) -> Option<[u8; 16]> {
    const SOL_MPTCP: i32 = 284;
    const MPTCP_INFO: i32 = 1;
    let mut info = [0; 16];
    raw::get(socket, SOL_MPTCP, MPTCP_INFO, &mut info).is_ok().then_some(info)
}

fn listen_for_mptcp(way: Way) -> TcpListener {
    let at = ["127.0.0.1:0", "[::1]:0"][way.family()].parse::<SocketAddr>().expect("an address");
    listen_for_mptcp_at(at)
}

/// As [`carnet_e2e::sockets::listen`].
pub(super) fn listen_for_mptcp_at(at: SocketAddr) -> TcpListener {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::MPTCP)).expect("MPTCP");
    socket.bind(&at.into()).expect("bind");
    socket.listen(128).expect("listen");
    socket.set_nonblocking(true).expect("non-blocking");
    socket.into()
}

const FALLBACK: u32 = 1;
