//! Somebody else listens where the service should: no connection and no record for them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use carnet::Redirect;
use carnet_abi::{COUNT_STRANGERS, EVENT_STRANGER, REASON_RULE, REASON_STRANGER, VERDICT_REDIRECT};
use carnet_e2e::Sandbox;
use carnet_e2e::sockets::{accept, connect, is_idle, listen};
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

/// connect() sees one member of a group that shares a port; the kernel may give the connection to another. Groups
/// need one uid for all members, so the stranger is a process of the service's own user, here an application.
#[test]
fn one_who_shares_the_port_gets_no_record_and_no_byte() {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service(Service::Aware);
    drop(service);
    let destination: SocketAddr = ([127, 0, 0, 1], 9).into();
    let (mut refused, mut served, mut cut) = (0, 0, 0);
    for port in 0..200 {
        if refused > 0 && served >= 20 && cut >= 20 {
            break;
        }
        // Which member is looked at is up to the kernel: by hash, or the newest.
        let any = ([127, 0, 0, 1], 0).into();
        let (owner, stranger) = if port % 2 == 0 {
            let owner = sandbox.in_service(0, || share(any));
            let stranger = sandbox.in_app(|| share(owner.local_addr().unwrap()));
            (owner, stranger)
        } else {
            let stranger = sandbox.in_app(|| share(any));
            let owner = sandbox.in_service(0, || share(stranger.local_addr().unwrap()));
            (owner, stranger)
        };
        let at = owner.local_addr().unwrap();
        sandbox.policy.providers[0].listeners = vec![at];
        sandbox.apply();
        sandbox.events();
        for _ in 0..16 {
            let client = sandbox.in_app(|| connect(destination));
            let events = sandbox.events();
            let Ok(mut client) = client else {
                assert!(events.iter().any(|event| event.reason == REASON_STRANGER));
                assert!(is_idle(&owner) && is_idle(&stranger));
                refused += 1;
                continue;
            };
            if let Ok((accepted, _)) = owner.accept() {
                assert_eq!(Redirect::of(&accepted).flow().expect("flow").destination(), destination);
                served += 1;
                continue;
            }
            let mut accepted = accept(&stranger);
            assert!(Redirect::of(&accepted).records().is_err(), "a stranger has the record");
            let told = events.iter().filter(|event| event.kind == EVENT_STRANGER).collect::<Vec<_>>();
            assert_eq!(told.iter().map(|event| event.handle).collect::<Vec<_>>(), [1]);
            // The client learns of it as soon as it says something, which the stranger does not hear.
            let _ = client.write_all(b"secret");
            assert_eq!(client.read(&mut [0]).unwrap_err().raw_os_error(), Some(libc::ECONNRESET));
            accepted.set_nonblocking(true).unwrap();
            let heard = accepted.read(&mut [0; 8]);
            assert!(heard.is_err(), "a stranger heard {heard:?} bytes");
            cut += 1;
        }
        assert_eq!(sandbox.engine.open_handovers().unwrap(), 0);
    }
    assert!(refused > 0 && served > 0 && cut > 0, "refused {refused}, served {served}, cut off {cut}");
    assert_eq!(sandbox.engine.counters().unwrap()[COUNT_STRANGERS], cut);
}

fn share(at: SocketAddr) -> TcpListener {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    socket.set_reuse_port(true).expect("SO_REUSEPORT");
    socket.bind(&at.into()).expect("bind");
    socket.listen(64).expect("listen");
    socket.set_nonblocking(true).expect("non-blocking");
    socket.into()
}
