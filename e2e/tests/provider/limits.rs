//! What there is only so much of: flights, hops, room for hand-overs, memory of a socket.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};

use carnet::Redirect;
use carnet_abi::{
    COUNT_HELD_BACK, COUNT_NO_ROOM, EVENT_END, HOW_FAILED, MAX_HOPS, REASON_NO_ROOM, REASON_RULE, REASON_RUNAWAY,
    REASON_TOO_DEEP, VERDICT_PASS, VERDICT_REDIRECT, VERDICT_REFUSE,
};
use carnet_e2e::sockets::{accept, assert_joined, connect, connect_on, is_idle, listen, stream, until};
use carnet_e2e::{Sandbox, netns};
use carnet_engine::Options;
use carnet_policy::Service;
use socket2::{Domain, Protocol, Socket, Type};

use super::assert_refused;

#[test]
fn the_runaway_guard_counts_what_is_open_to_one_destination() {
    const LIMIT: usize = 3;
    let mut sandbox = Sandbox::new();
    let service = sandbox.service(Service::Aware);
    sandbox.policy.providers[0].in_flight_limit = LIMIT as u32;
    sandbox.apply();
    let destination: SocketAddr = ([127, 0, 0, 1], 9).into();
    let another: SocketAddr = ([127, 0, 0, 1], 10).into();
    let open = |to| {
        let client = sandbox.in_app(|| connect(to)).expect("below the limit");
        (client, accept(&service.listeners[0]))
    };
    let mut flows: Vec<(TcpStream, TcpStream)> = (0..LIMIT).map(|_| open(destination)).collect();
    let elsewhere = open(another);
    for _ in 0..2 {
        let event = assert_refused(&mut sandbox, destination, libc::ELOOP, REASON_RUNAWAY);
        assert_eq!(event.handle, 1);
    }
    assert!(is_idle(&service.listeners[0]));

    // One closes, so there is room for one, and not for two.
    drop(flows.remove(0));
    let client = until("room below the limit", || sandbox.in_app(|| connect(destination)).ok());
    flows.push((client, accept(&service.listeners[0])));
    assert_refused(&mut sandbox, destination, libc::ELOOP, REASON_RUNAWAY);
    drop((flows, elsewhere));
    until("the flights to end", || (sandbox.engine.open_flights().unwrap() == 0).then_some(()));
}

/// What the guard is for: a service that hands what it gets to a process which nobody has registered, and that one
/// dials again.
#[test]
fn the_runaway_guard_ends_a_loop_through_an_unregistered_process() {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service(Service::Aware);
    sandbox.policy.providers[0].in_flight_limit = 50;
    sandbox.apply();
    let destination: SocketAddr = ([127, 0, 0, 1], 9).into();
    let mut held = Vec::new();
    let errno = loop {
        match sandbox.in_app(|| connect(destination)) {
            Ok(client) => held.push((client, accept(&service.listeners[0]))),
            Err(errno) => break errno,
        }
        assert!(held.len() <= 50, "the guard lets everything through");
    };
    assert_eq!((errno, held.len()), (libc::ELOOP, 50));
}

#[test]
fn sixteen_hops_and_no_more() {
    let mut sandbox = Sandbox::new();
    let server = listen("127.0.0.1:0");
    let destination = server.local_addr().unwrap();
    let services: Vec<_> = (0..MAX_HOPS).map(|_| sandbox.service(Service::Aware)).collect();
    let client = sandbox.in_app(|| connect(destination)).expect("connect");
    let mut held = vec![client];
    for service in &services[..MAX_HOPS - 1] {
        let accepted = accept(&service.listeners[0]);
        let onward = sandbox.in_service(service.index, || carnet::dial(&accepted)).expect("dial");
        held.extend([accepted, onward]);
    }
    let last = accept(&services[MAX_HOPS - 1].listeners[0]);
    assert_eq!(Redirect::of(&last).flow().expect("flow").depth(), MAX_HOPS);

    // A full record still reaches the destination.
    let (onward, decision) = dial_as_last(&mut sandbox, &last);
    assert_eq!((decision.verdict, decision.base as usize), (VERDICT_PASS, MAX_HOPS));
    assert_joined(&mut onward.expect("dial"), &mut accept(&server));

    let seventeenth = sandbox.service(Service::Aware);
    let (onward, decision) = dial_as_last(&mut sandbox, &last);
    assert_eq!(onward.expect_err("hop 17").os_error(), Some(libc::ELOOP));
    assert_eq!((decision.verdict, decision.reason, decision.error), (VERDICT_REFUSE, REASON_TOO_DEEP, libc::ELOOP));
    assert_eq!((decision.handle, decision.record.depth as usize), (17, MAX_HOPS));
    assert!(is_idle(&seventeenth.listeners[0]) && is_idle(&server));
}

#[test]
fn without_room_for_the_hand_over_nothing_is_sent() {
    let mut sandbox = Sandbox::with(&Options { handover_entries: 2, handover_share: Some(9), ..Options::default() });
    let mut service = sandbox.service(Service::Aware);
    let server = listen("127.0.0.1:0");
    let destination = server.local_addr().unwrap();
    // A listener whose queue is full answers no SYN, so handshakes stay open and so do their hand-overs.
    let at = service.listeners[0].local_addr().unwrap();
    service.listeners.clear();
    let narrow = sandbox.in_service(0, || listen_with_backlog(at, 0));
    let mut waiting = Vec::new();
    while sandbox.engine.open_handovers().unwrap() < 2 {
        assert!(waiting.len() < 20, "the listener's queue does not fill");
        waiting.push(sandbox.in_app(|| {
            let socket = stream(destination);
            socket.set_nonblocking(true).unwrap();
            let error = socket.connect(&destination.into()).expect_err("it takes a moment");
            assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS));
            socket
        }));
    }

    let (result, decision) = sandbox.decided(|| connect(destination));
    assert_eq!(result.expect_err("no room"), libc::EHOSTUNREACH);
    assert_eq!((decision.verdict, decision.reason), (VERDICT_REDIRECT, REASON_RULE));
    assert_eq!(sandbox.engine.counters().unwrap()[COUNT_HELD_BACK], 1);
    assert!(is_idle(&server), "it must not go past the service either");

    drop(waiting);
    until("the hand-overs to end", || (sandbox.engine.open_handovers().unwrap() == 0).then_some(()));
    while let Ok((stale, _)) = narrow.accept() {
        drop(stale);
    }
    drop(narrow);
    let wide = sandbox.in_service(0, || listen(&at.to_string()));
    let _client = sandbox.in_app(|| connect(destination)).expect("there is room again");
    assert_eq!(Redirect::of(&accept(&wide)).flow().expect("flow").destination(), destination);
}

/// The same socket is as good as new afterwards, at least for root: the failure leaves it bound to no interface.
#[test]
fn a_connection_held_back_ends_and_can_be_tried_again() {
    let mut sandbox = Sandbox::with(&Options { handover_entries: 1, handover_share: Some(9), ..Options::default() });
    let mut service = sandbox.service(Service::Aware);
    let destination: SocketAddr = ([127, 0, 0, 1], 9).into();
    let at = service.listeners[0].local_addr().unwrap();
    service.listeners.clear();
    let narrow = sandbox.in_service(0, || listen_with_backlog(at, 0));
    let mut waiting = Vec::new();
    while sandbox.engine.open_handovers().unwrap() < 1 {
        assert!(waiting.len() < 20, "the listener's queue does not fill");
        waiting.push(sandbox.in_app(|| {
            let socket = stream(destination);
            socket.set_nonblocking(true).unwrap();
            socket.connect(&destination.into()).expect_err("it takes a moment");
            socket
        }));
    }
    sandbox.events();
    let socket = sandbox.in_app(|| stream(destination));
    let error = socket.connect(&destination.into()).expect_err("no room");
    assert_eq!(error.raw_os_error(), Some(libc::EHOSTUNREACH));
    let end = *sandbox.events_until(|event| event.kind == EVENT_END).last().unwrap();
    assert_eq!((end.how, end.sent, end.received), (HOW_FAILED, 0, 0));
    drop(waiting);
    until("the hand-over to end", || (sandbox.engine.open_handovers().unwrap() == 0).then_some(()));
    drop(narrow);
    let wide = sandbox.in_service(0, || listen(&at.to_string()));
    let _client = connect_on(socket, &destination.into()).expect("there is room again");
    let flow = Redirect::of(&accept(&wide)).flow().expect("flow");
    assert_eq!(flow.origin().bound_interface, None, "what held it back is not the application's binding");
}

#[test]
fn without_memory_for_the_record_connect_fails() {
    netns::alone(|| {
        let mut sandbox = Sandbox::new();
        let service = sandbox.service(Service::Aware);
        let server = listen("127.0.0.1:0");
        let destination = server.local_addr().unwrap();
        let most = fs::read_to_string(OPTMEM).expect("optmem_max is per network namespace since Linux 6.9");
        fs::write(OPTMEM, "256").expect("it can be set");
        let event = assert_refused(&mut sandbox, destination, libc::ENOBUFS, REASON_NO_ROOM);
        assert_eq!(event.remote.to_socket_addr(), destination);
        assert_eq!(sandbox.engine.counters().unwrap()[COUNT_NO_ROOM], 1);
        assert!(is_idle(&server) && is_idle(&service.listeners[0]));

        fs::write(OPTMEM, most).expect("it can be set");
        let _client = sandbox.in_app(|| connect(destination)).expect("there is memory again");
        accept(&service.listeners[0]);
    });
}

const OPTMEM: &str = "/proc/sys/net/core/optmem_max";

fn dial_as_last(sandbox: &mut Sandbox, accepted: &TcpStream) -> (Result<TcpStream, carnet::Error>, carnet_abi::Event) {
    sandbox.events();
    let result = sandbox.in_service(MAX_HOPS - 1, || carnet::dial(accepted));
    let events = sandbox.events();
    let decision = events.into_iter().find(|event| event.kind == carnet_abi::EVENT_CONNECT).expect("a decision");
    (result, decision)
}

fn listen_with_backlog(at: SocketAddr, backlog: i32) -> TcpListener {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.bind(&at.into()).expect("bind");
    socket.listen(backlog).expect("listen");
    socket.set_nonblocking(true).expect("non-blocking");
    socket.into()
}
