//! What the engine tells: every decision, every SET, every end with its byte counts, and how much it could not tell.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use carnet::Redirect;
use carnet_abi::{
    ABI_VERSION, CARNET_RECORDS, COUNT_EVENTS_LOST, COUNT_LOST_CONTEXT, EVENT_CONNECT, EVENT_END, EVENT_LOST,
    EVENT_SET, Event, HOW_ABORTED, HOW_CLOSED, HOW_FAILED, HOW_RESET, REASON_BLOCKED, REASON_DEFAULT, REASON_RULE,
    Records, SOL_CARNET, VERDICT_PASS, VERDICT_REDIRECT, VERDICT_REFUSE,
};
use carnet_e2e::sockets::{accept, connect, connect_on, is_idle, listen, stream, until};
use carnet_e2e::{Sandbox, netns, raw};
use carnet_engine::Options;
use carnet_policy::{HostAction, Match, Service};
use socket2::SockRef;

#[test]
fn a_decision_tells_who_where_and_why() {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service(Service::Aware);
    let server = listen("127.0.0.1:0");
    let destination = server.local_addr().unwrap();

    let (client, event) = sandbox.decided(|| connect(destination));
    let client = client.expect("connect");
    assert_eq!((event.version, event.size as usize), (ABI_VERSION, size_of::<Event>()));
    assert_eq!((event.verdict, event.reason), (VERDICT_REDIRECT, REASON_RULE));
    assert_eq!((event.handle, event.filter, event.error), (1, 1, 0));
    assert_eq!((event.dialer, event.base), (0, 0), "an application's own");
    assert_eq!(event.remote.to_socket_addr(), destination);
    assert_eq!((event.pid, event.uid), (std::process::id(), 0));
    let origin = event.record.origin;
    assert_eq!(origin.remote.to_socket_addr(), destination);
    assert_eq!((origin.pid, origin.cgroup_id), (std::process::id(), sandbox.app_cgroup().id()));
    assert_eq!(event.record.depth, 1, "this hop included");
    assert_eq!((event.record.tag, event.record.stamp, event.record.key_id), (0, 0, 0), "nothing that could be set");

    // The service goes on: one flow, another socket.
    let accepted = accept(&service.listeners[0]);
    let _onward = sandbox.in_service(0, || carnet::dial(&accepted)).expect("dial");
    let events = sandbox.events();
    let onward = events.iter().find(|event| event.kind == EVENT_CONNECT).expect("a decision");
    assert_eq!((onward.verdict, onward.reason), (VERDICT_PASS, REASON_DEFAULT));
    assert_eq!((onward.dialer, onward.base, onward.handle, onward.filter), (1, 1, 0, 0));
    assert_eq!(onward.record.flow, event.record.flow);
    assert_eq!(onward.record.origin.remote, event.record.origin.remote);
    assert_ne!(onward.cookie, event.cookie);
    assert!(onward.time > event.time);
    drop(client);

    sandbox.host_filter(Match::default().on_ports(destination.port()..=destination.port()), HostAction::Permit);
    let (_client, event) = sandbox.decided(|| connect(destination));
    assert_eq!((event.verdict, event.reason, event.filter), (VERDICT_PASS, REASON_RULE, 1));
    sandbox.policy.filters[0].action = HostAction::Block;
    sandbox.apply();
    let (result, event) = sandbox.decided(|| connect(destination));
    assert_eq!(result.expect_err("blocked"), libc::EACCES);
    assert_eq!((event.verdict, event.reason, event.error), (VERDICT_REFUSE, REASON_BLOCKED, libc::EACCES));
    assert_eq!((event.filter, event.handle), (1, 0));
}

#[test]
fn a_set_is_told_whether_it_succeeds_or_not() {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service(Service::Aware);
    let (_client, accepted) = sandbox.arrive(&service, ([127, 0, 0, 1], 9).into());
    let records = Redirect::of(&accepted).records().expect("records");
    let flow = Redirect::of(&accepted).flow().expect("flow").id();
    sandbox.events();

    sandbox.in_service(0, || records.apply_to(&stream(([127, 0, 0, 1], 9).into()))).expect("the owner's own");
    let [event] = sandbox.events()[..] else { panic!("one SET, one event") };
    assert_eq!((event.kind, event.error, event.handle), (EVENT_SET, 0, 1));
    assert_eq!(carnet_abi::flow_id(event.record.flow), flow);
    assert_eq!((event.pid, event.uid), (std::process::id(), 0));

    let mut forged = records.as_bytes().to_vec();
    forged[100] ^= 1;
    let short = &records.as_bytes()[..records.as_bytes().len() - 1];
    for (blob, errno) in [(&forged[..], libc::EBADMSG), (short, libc::EINVAL)] {
        let result =
            sandbox.in_service(0, || raw::set(&stream(([127, 0, 0, 1], 9).into()), SOL_CARNET, CARNET_RECORDS, blob));
        assert_eq!(result, Err(errno));
        let [event] = sandbox.events()[..] else { panic!("one SET, one event") };
        assert_eq!((event.kind, event.error, event.handle), (EVENT_SET, errno, 0));
        assert_eq!(event.record, Records::default(), "what was refused is not believed");
    }
    // Somebody who is not the owner.
    let result = sandbox.in_service(0, || stream(([127, 0, 0, 1], 9).into()));
    assert!(records.apply_to(&result).is_err());
    let [event] = sandbox.events()[..] else { panic!("one SET, one event") };
    assert_eq!((event.kind, event.error), (EVENT_SET, libc::EACCES));
}

#[test]
fn a_connection_without_a_record_is_told() {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service(Service::Aware);
    sandbox.events();
    let stray = connect(service.listeners[0].local_addr().unwrap()).expect("connect");
    accept(&service.listeners[0]);
    let [event] = sandbox.events()[..] else { panic!("one connection, one event") };
    assert_eq!((event.kind, event.handle), (EVENT_LOST, 1));
    assert_eq!(event.remote.to_socket_addr(), stray.local_addr().unwrap(), "who came");
    assert_eq!(event.local.to_socket_addr(), service.listeners[0].local_addr().unwrap());
    assert_eq!(sandbox.engine.counters().unwrap()[COUNT_LOST_CONTEXT], 1);
}

#[test]
fn the_client_closes_first() {
    ended(HOW_CLOSED, 0, 1000, 500, |client, mut server| {
        exchange(&client, &server, 1000, 500);
        drop(client);
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn the_server_closes_first() {
    ended(HOW_CLOSED, 0, 1000, 500, |mut client, server| {
        exchange(&client, &server, 1000, 500);
        drop(server);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn nothing_is_said() {
    ended(HOW_CLOSED, 0, 0, 0, |client, mut server| {
        drop(client);
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
    });
    ended(HOW_CLOSED, 0, 0, 0, |mut client, server| {
        drop(server);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn one_byte() {
    ended(HOW_CLOSED, 0, 1, 0, |client, mut server| {
        exchange(&client, &server, 1, 0);
        drop(client);
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
    });
    ended(HOW_CLOSED, 0, 0, 1, |mut client, server| {
        exchange(&client, &server, 0, 1);
        drop(server);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn ten_megabytes_each_way() {
    const MUCH: usize = 10 << 20;
    ended(HOW_CLOSED, 0, MUCH as u64, MUCH as u64, |mut client, server| {
        exchange(&client, &server, MUCH, MUCH);
        drop(server);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn half_closed_by_the_client() {
    ended(HOW_CLOSED, 0, 100, 3000, |mut client, server| {
        exchange(&client, &server, 100, 0);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!((&server).read(&mut [0]).unwrap(), 0);
        exchange(&client, &server, 0, 3000);
        drop(server);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn half_closed_by_the_server() {
    ended(HOW_CLOSED, 0, 2000, 100, |client, mut server| {
        exchange(&client, &server, 0, 100);
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!((&client).read(&mut [0]).unwrap(), 0);
        exchange(&client, &server, 2000, 0);
        drop(client);
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn both_close_at_once() {
    ended(HOW_CLOSED, 0, 10, 10, |client, server| {
        exchange(&client, &server, 10, 10);
        thread::scope(|scope| {
            scope.spawn(|| client.shutdown(Shutdown::Write).unwrap());
            scope.spawn(|| server.shutdown(Shutdown::Write).unwrap());
        });
        assert_eq!((&client).read(&mut [0]).unwrap(), 0);
        assert_eq!((&server).read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn reset_by_the_peer() {
    ended(HOW_RESET, libc::ECONNRESET, 1000, 500, |mut client, server| {
        exchange(&client, &server, 1000, 500);
        SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
        drop(server);
        assert_eq!(client.read(&mut [0]).unwrap_err().raw_os_error(), Some(libc::ECONNRESET));
    });
}

#[test]
fn reset_by_the_client() {
    ended(HOW_ABORTED, 0, 1000, 500, |client, mut server| {
        exchange(&client, &server, 1000, 500);
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        assert_eq!(server.read(&mut [0]).unwrap_err().raw_os_error(), Some(libc::ECONNRESET));
    });
}

#[test]
fn closed_by_the_client_with_data_unread() {
    ended(HOW_ABORTED, 0, 1000, 507, |client, mut server| {
        exchange(&client, &server, 1000, 500);
        server.write_all(b"unread!").unwrap();
        until("the data", || (client.peek(&mut [0; 7]).unwrap() == 7).then_some(()));
        drop(client);
        assert_eq!(server.read(&mut [0]).unwrap_err().raw_os_error(), Some(libc::ECONNRESET));
    });
}

#[test]
fn never_accepted() {
    ended_before(HOW_CLOSED, 0, 6, 0, |mut client, _listener| {
        client.write_all(b"hello?").unwrap();
        drop(client);
    });
}

#[test]
fn disconnected() {
    ended(HOW_ABORTED, 0, 1000, 500, |client, mut server| {
        exchange(&client, &server, 1000, 500);
        raw::disconnect(&client).expect("AF_UNSPEC");
        assert_eq!(server.read(&mut [0]).unwrap_err().raw_os_error(), Some(libc::ECONNRESET));
    });
}

#[test]
fn refused_by_the_destination() {
    let mut sandbox = Sandbox::new();
    let server = listen("127.0.0.1:0");
    let destination = server.local_addr().unwrap();
    drop(server);
    sandbox.events();
    assert_eq!(sandbox.in_app(|| connect(destination)).expect_err("nobody listens"), libc::ECONNREFUSED);
    let (decision, end) = whole(&mut sandbox);
    assert_eq!(decision.verdict, VERDICT_PASS);
    assert_eq!((end.how, end.error, end.sent, end.received), (HOW_FAILED, libc::ECONNREFUSED, 0, 0));
}

#[test]
fn refused_by_carnet_is_told_once() {
    let mut sandbox = Sandbox::new();
    sandbox.policy.default = HostAction::Block;
    sandbox.apply();
    let (result, event) = sandbox.decided(|| connect(([127, 0, 0, 1], 9).into()));
    assert_eq!(result.expect_err("blocked"), libc::EACCES);
    assert_eq!((event.verdict, event.error), (VERDICT_REFUSE, libc::EACCES));
    assert!(sandbox.events().is_empty(), "what never began has no end");
}

/// A connection of which nothing was ever sent has no change of state to be told by; it ends with its socket, or with
/// the next connect() on it.
#[test]
fn without_a_route() {
    netns::alone(|| {
        let mut sandbox = Sandbox::new();
        let destination: SocketAddr = ([203, 0, 113, 1], 80).into();
        sandbox.events();
        let socket = sandbox.in_app(|| stream(destination));
        for _ in 0..2 {
            let error = socket.connect(&destination.into()).expect_err("no route");
            assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH));
        }
        let events = sandbox.events();
        let kinds: Vec<_> = events.iter().map(|event| (event.kind, event.verdict, event.how)).collect();
        let decision = (EVENT_CONNECT, VERDICT_PASS, 0);
        let end = (EVENT_END, VERDICT_PASS, HOW_FAILED);
        assert_eq!(kinds, [decision, end, decision]);
        drop(socket);
        let [last] = sandbox.events()[..] else { panic!("the second connection has its end too") };
        assert_eq!((last.kind, last.how, last.sent, last.received), (EVENT_END, HOW_FAILED, 0, 0));
        assert_eq!(last.record.flow, events[2].record.flow);
        assert_eq!(last.cookie, events[0].cookie);
    });
}

/// A socket's second connection shows nothing of the first.
#[test]
fn an_end_is_that_of_the_last_connection() {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service(Service::Aware);
    let server = listen("127.0.0.1:0");
    let direct = server.local_addr().unwrap();
    sandbox.host_filter(Match::default().on_ports(direct.port()..=direct.port()), HostAction::Permit);
    let (client, accepted) = sandbox.arrive(&service, ([127, 0, 0, 1], 9).into());
    exchange(&client, &accepted, 700, 70);
    raw::disconnect(&client).expect("AF_UNSPEC");
    sandbox.events();
    let client = connect_on(client.into(), &direct.into()).expect("connect");
    let mut accepted = accept(&server);
    exchange(&client, &accepted, 5, 6);
    drop(client);
    assert_eq!(accepted.read(&mut [0]).unwrap(), 0);
    let (decision, end) = whole(&mut sandbox);
    assert_eq!((decision.verdict, decision.handle, decision.record.depth), (VERDICT_PASS, 0, 0));
    assert_eq!((end.verdict, end.handle, end.record.depth), (VERDICT_PASS, 0, 0));
    assert_eq!((end.sent, end.received), (5, 6));
}

#[test]
fn what_there_was_no_room_to_tell_is_counted() {
    const CONNECTIONS: u64 = 50;
    let mut sandbox = Sandbox::with(&Options { event_bytes: 4096, ..Options::default() });
    let server = listen("127.0.0.1:0");
    let destination = server.local_addr().unwrap();
    // Nobody reads meanwhile.
    for _ in 0..CONNECTIONS {
        let client = sandbox.in_app(|| connect(destination)).expect("connect");
        let mut accepted = accept(&server);
        drop(client);
        assert_eq!(accepted.read(&mut [0]).unwrap(), 0);
    }
    let lost = |sandbox: &Sandbox| sandbox.engine.counters().unwrap()[COUNT_EVENTS_LOST];
    // A decision and an end each. The last end may be a moment late.
    let mut told = 0;
    until("all to be told or lost", || {
        told += sandbox.events().len() as u64;
        (told + lost(&sandbox) == 2 * CONNECTIONS).then_some(())
    });
    assert!(told > 0 && lost(&sandbox) > 0, "{told} told, {} lost", lost(&sandbox));

    // There is room again, and nothing more is lost.
    let before = lost(&sandbox);
    let (_client, event) = sandbox.decided(|| connect(destination).expect("connect"));
    assert_eq!(event.verdict, VERDICT_PASS);
    assert_eq!(lost(&sandbox), before);
}

#[test]
fn every_connection_has_one_decision_and_one_end() {
    const CONNECTIONS: usize = 400;
    let mut sandbox = Sandbox::new();
    let service = sandbox.service(Service::Aware);
    sandbox.events();
    for _ in 0..CONNECTIONS {
        let (client, accepted) = sandbox.arrive(&service, ([127, 0, 0, 1], 9).into());
        drop((client, accepted));
    }
    let mut by_socket: BTreeMap<u64, Vec<u16>> = BTreeMap::new();
    until("every end", || {
        for event in sandbox.events() {
            by_socket.entry(event.cookie).or_default().push(event.kind);
        }
        by_socket.values().all(|kinds| kinds.len() > 1).then_some(())
    });
    assert_eq!(by_socket.len(), CONNECTIONS);
    assert!(by_socket.values().all(|kinds| kinds[..] == [EVENT_CONNECT, EVENT_END]), "{by_socket:?}");
}

/// How a connection's end is told, straight to its server and redirected to a service, over IPv4 and IPv6.
fn ended(how: u32, error: i32, sent: u64, received: u64, act: impl Fn(TcpStream, TcpStream)) {
    ended_before(how, error, sent, received, |client, listener| act(client, accept(listener)));
}

/// The same before anybody has accepted it.
fn ended_before(how: u32, error: i32, sent: u64, received: u64, act: impl Fn(TcpStream, &TcpListener)) {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service(Service::Aware);
    for (family, here) in ["127.0.0.1:0", "[::1]:0"].into_iter().enumerate() {
        let server = listen(here);
        let destination = server.local_addr().unwrap();
        for redirected in [true, false] {
            if !redirected {
                sandbox.host_filter(
                    Match::default().on_ports(destination.port()..=destination.port()),
                    HostAction::Permit,
                );
            }
            sandbox.events();
            let client = sandbox.in_app(|| connect(destination)).expect("connect");
            let local = client.local_addr().unwrap();
            act(client, if redirected { &service.listeners[family] } else { &server });
            let (decision, end) = whole(&mut sandbox);
            let verdict = if redirected { VERDICT_REDIRECT } else { VERDICT_PASS };
            assert_eq!((decision.verdict, end.verdict), (verdict, verdict));
            assert_eq!((end.how, end.error), (how, error), "{here}, redirected: {redirected}");
            assert_eq!((end.sent, end.received), (sent, received), "{here}, redirected: {redirected}");
            assert_eq!(end.record.flow, decision.record.flow);
            assert_eq!(end.remote.to_socket_addr(), destination);
            assert_eq!(end.local.to_socket_addr(), local);
            assert_eq!(end.handle, u32::from(redirected));
            assert_eq!((end.base, end.dialer), (0, 0));
            assert_eq!(end.time - decision.time, end.duration);
            assert!(is_idle(&server) || !redirected);
        }
    }
}

/// The decision and the end of the only connection since the events were last read.
fn whole(sandbox: &mut Sandbox) -> (Event, Event) {
    let events = sandbox.events_until(|event| event.kind == EVENT_END);
    let [decision, end] = events[..] else { panic!("there was one connection, and these events: {events:#?}") };
    assert_eq!((decision.kind, end.kind, decision.cookie), (EVENT_CONNECT, EVENT_END, end.cookie));
    (decision, end)
}

/// Sends so many bytes each way. When it returns, both sides have read everything and acknowledged it.
fn exchange(client: &TcpStream, server: &TcpStream, there: usize, back: usize) {
    transfer(client, server, there);
    transfer(server, client, back);
    for socket in [client, server] {
        until("every byte to be acknowledged", || (raw::unacknowledged(socket) == 0).then_some(()));
    }
}

fn transfer(mut from: &TcpStream, mut to: &TcpStream, bytes: usize) {
    thread::scope(|scope| {
        scope.spawn(move || from.write_all(&vec![7; bytes]).expect("write"));
        to.read_exact(&mut vec![0; bytes]).expect("read");
    });
}
