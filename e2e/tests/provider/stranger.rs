//! Somebody else listens where the service should: no connection and no record for them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use carnet::{ErrorKind, Redirect};
use carnet_abi::{COUNT_STRANGERS, EVENT_STRANGER, REASON_RULE, REASON_STRANGER, VERDICT_REDIRECT};
use carnet_e2e::sockets::{accept, connect, connect_on, is_idle, listen, stream, until};
use carnet_e2e::{Sandbox, raw};
use carnet_policy::{OnDead, Service};
use socket2::{Domain, Protocol, Socket, Type};

use super::assert_refused;

#[test]
fn one_who_took_the_port_gets_nothing() {
    let mut sandbox = Sandbox::new();
    let mut service = sandbox.service(Service::Aware);
    let _other = sandbox.service(Service::Aware);
    let server = listen("127.0.0.1:0");
    let at = service.listeners[0].local_addr().unwrap().to_string();
    service.listeners.clear();
    for maker in ["nobody of ours", "the application", "another service"] {
        let stranger = match maker {
            "the application" => sandbox.in_app(|| listen(&at)),
            "another service" => sandbox.in_service(1, || listen(&at)),
            _ => listen(&at),
        };
        let event = assert_refused(&mut sandbox, server.local_addr().unwrap(), libc::ECONNREFUSED, REASON_STRANGER);
        assert_eq!((event.handle, event.record.depth), (1, 0), "{maker}");
        assert!(is_idle(&stranger) && is_idle(&server), "{maker}");
        assert!(Redirect::of(&stranger).records().is_err());
    }
    let revived = sandbox.in_service(0, || listen(&at));
    let _client = sandbox.in_app(|| connect(server.local_addr().unwrap())).expect("the owner is back");
    accept(&revived);
}

#[test]
fn open_passes_over_a_stranger() {
    let mut sandbox = Sandbox::new();
    let mut first = sandbox.service(Service::Aware);
    let second = sandbox.service(Service::Aware);
    sandbox.policy.providers[0].on_dead = OnDead::Open;
    sandbox.apply();
    let at = first.listeners[0].local_addr().unwrap().to_string();
    first.listeners.clear();
    let stranger = listen(&at);
    let (client, decision) = sandbox.decided(|| connect(([127, 0, 0, 1], 9).into()));
    client.expect("connect");
    assert_eq!((decision.verdict, decision.reason, decision.handle), (VERDICT_REDIRECT, REASON_RULE, 2));
    accept(&second.listeners[0]);
    assert!(is_idle(&stranger));
}

/// The kernel may give a connection to any member of a group that shares a port, so one stranger spoils it. Groups need
/// one uid for all members: the stranger is a process of the service's own user.
#[test]
fn one_who_shares_the_port_gets_nothing() {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service(Service::Aware);
    let _other = sandbox.service(Service::Aware);
    drop(service);
    let destination: SocketAddr = ([127, 0, 0, 1], 9).into();
    // The application, another service, nobody of ours; before the owner's and after, because the kernel shows one.
    for stranger in 0..3 {
        for stranger_first in [false, true] {
            let mut at = ([127, 0, 0, 1], 0).into();
            let mut owned = Vec::new();
            let mut join = |sandbox: &Sandbox| {
                owned.push(sandbox.in_service(0, || share(at)));
                at = owned[0].local_addr().unwrap();
            };
            join(&sandbox);
            if !stranger_first {
                (0..3).for_each(|_| join(&sandbox));
            }
            let at = owned[0].local_addr().unwrap();
            let stranger = match stranger {
                0 => sandbox.in_app(|| share(at)),
                1 => sandbox.in_service(1, || share(at)),
                _ => share(at),
            };
            if stranger_first {
                owned.extend((0..3).map(|_| sandbox.in_service(0, || share(at))));
            }
            sandbox.policy.providers[0].listeners = vec![at];
            sandbox.apply();
            for _ in 0..8 {
                assert_refused(&mut sandbox, destination, libc::ECONNREFUSED, REASON_STRANGER);
            }
            assert!(owned.iter().chain([&stranger]).all(is_idle));
            drop(stranger);
            let _client = sandbox.in_app(|| connect(destination)).expect("the stranger is gone");
            until("the connection", || owned.iter().find_map(|listener| listener.accept().ok()));
        }
    }
}

/// TCP Fast Open puts the handshake off until the first write, so there is all the time in the world between the look
/// at the listener and the SYN.
#[test]
fn one_who_takes_the_port_after_connect_is_cut_off() {
    let mut sandbox = Sandbox::new();
    let mut service = sandbox.service(Service::Aware);
    let at = service.listeners[0].local_addr().unwrap();
    let destination: SocketAddr = ([127, 0, 0, 1], 9).into();
    let mut client = sandbox.in_app(|| {
        let socket = stream(destination);
        for option in [libc::TCP_FASTOPEN_CONNECT, libc::TCP_FASTOPEN_NO_COOKIE] {
            raw::set(&socket, libc::IPPROTO_TCP, option, &1_i32.to_ne_bytes()).expect("TCP Fast Open");
        }
        connect_on(socket, &destination.into()).expect("nothing is sent yet")
    });
    assert!(is_idle(&service.listeners[0]));
    service.listeners.clear();
    let stranger = sandbox.in_app(|| listen(&at.to_string()));

    sandbox.events();
    // Begins the handshake and no more: bytes in its last packet are delivered before anybody can be cut off.
    assert_eq!(client.write(b"").expect("it begins"), 0);
    let mut accepted = accept(&stranger);
    let events = sandbox.events_until(|event| event.kind == EVENT_STRANGER);
    let event = events.last().unwrap();
    assert_eq!((event.handle, event.record.depth), (1, 1));
    assert_eq!((event.remote.to_socket_addr(), event.local.to_socket_addr()), (destination, at));
    assert_eq!(sandbox.engine.counters().unwrap()[COUNT_STRANGERS], 1);

    let kind = Redirect::of(&accepted).records().expect_err("a stranger has the record").kind();
    assert!(matches!(kind, ErrorKind::NotRedirected | ErrorKind::NoEngine), "{kind:?}");
    let _ = client.write_all(b"secret");
    assert_eq!(client.read(&mut [0]).unwrap_err().raw_os_error(), Some(libc::ECONNRESET));
    accepted.set_nonblocking(true).unwrap();
    accepted.read(&mut [0; 8]).expect_err("a stranger heard something");
    assert_eq!(sandbox.engine.open_handovers().unwrap(), 0);
}

fn share(at: SocketAddr) -> TcpListener {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    socket.set_reuse_port(true).expect("SO_REUSEPORT");
    socket.bind(&at.into()).expect("bind");
    socket.listen(64).expect("listen");
    socket.set_nonblocking(true).expect("non-blocking");
    socket.into()
}
