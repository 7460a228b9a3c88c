//! The main job: a connection passes through every service once and reaches its destination.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use carnet::{ErrorKind, Redirect, State};
use carnet_abi::{EVENT_CONNECT, EVENT_END, HOW_CLOSED, VERDICT_PASS, VERDICT_REDIRECT};
use carnet_e2e::Sandbox;
use carnet_e2e::sockets::{accept, assert_joined, connect, is_idle, listen};
use carnet_policy::Service;

/// One application connection through `n` aware services, by hand, hop by hop.
fn through(n: usize, destination: &str) {
    let mut sandbox = Sandbox::new();
    let server = listen(destination);
    let destination = server.local_addr().unwrap();
    let services: Vec<_> = (0..n).map(|_| sandbox.service(Service::Aware)).collect();

    let mut client = sandbox.in_app(|| connect(destination)).expect("connect");
    assert_eq!(client.peer_addr().unwrap(), destination, "the application sees its destination");
    let family = usize::from(destination.is_ipv6());
    let mut held = Vec::new();
    for (hop, service) in services.iter().enumerate() {
        let accepted = accept(&service.listeners[family]);
        let redirect = Redirect::of(&accepted);
        let flow = redirect.flow().expect("flow");
        assert_eq!(flow.destination(), destination);
        assert_eq!(flow.origin().pid, std::process::id());
        assert_eq!(flow.origin().source, Some(client.local_addr().unwrap()));
        assert_eq!(flow.origin().cgroup_id, sandbox.app_cgroup().id());
        assert_eq!(flow.depth(), hop + 1);
        assert_eq!(
            flow.chain().iter().map(|hop| hop.handle).collect::<Vec<_>>(),
            (1..=hop as u32 + 1).collect::<Vec<_>>()
        );
        assert_eq!(redirect.original_destination().expect("SO_ORIGINAL_DST"), destination);
        assert_eq!(sandbox.in_service(service.index, || redirect.state()).expect("state"), State::RedirectedBySelf);
        let onward = sandbox.in_service(service.index, || redirect.dial()).expect("dial");
        held.push((accepted, onward));
    }
    let mut last = accept(&server);
    assert!(services.iter().flat_map(|service| &service.listeners).all(is_idle), "each service has the flow once");

    // Join the ends by hand: each service passes on what it gets.
    if let Some((mut first, _)) = held.first().map(|(a, b)| (a.try_clone().unwrap(), b)) {
        assert_joined(&mut client, &mut first);
        let (_, onward) = held.last_mut().unwrap();
        assert_joined(onward, &mut last);
    } else {
        assert_joined(&mut client, &mut last);
    }
    assert_eq!(sandbox.engine.open_handovers().unwrap(), 0);
    assert_eq!(sandbox.engine.open_flights().unwrap() > 0, n > 0);

    // The server end closes last, so that the application's socket sees both FINs.
    drop(client);
    drop(held);
    drop(last);
    let events = sandbox.events_until(|event| event.kind == EVENT_END && event.base == 0);
    let decisions: Vec<_> = events.iter().filter(|event| event.kind == EVENT_CONNECT).collect();
    assert_eq!(decisions.len(), n + 1);
    for (hop, event) in decisions.iter().enumerate() {
        assert_eq!(event.verdict, if hop < n { VERDICT_REDIRECT } else { VERDICT_PASS });
        assert_eq!(event.base as usize, hop);
        assert_eq!(event.record.flow, decisions[0].record.flow, "one flow id at every hop");
        assert_eq!(event.remote.to_socket_addr(), destination);
    }
    let end = events.iter().find(|event| event.kind == EVENT_END && event.base == 0).unwrap();
    assert_eq!((end.sent, end.received), (5, 5), "payload alone, no SYN and no FIN");
    if n > 0 {
        assert_eq!(end.how, HOW_CLOSED);
    }
}

#[test]
fn no_service() {
    through(0, "127.0.0.1:0");
}

#[test]
fn one_to_eight_services_ipv4() {
    for n in 1..=8 {
        through(n, "127.0.0.1:0");
    }
}

#[test]
fn one_to_eight_services_ipv6() {
    for n in [1, 2, 8] {
        through(n, "[::1]:0");
    }
}

#[test]
fn a_connection_nobody_redirected_has_no_record() {
    let mut sandbox = Sandbox::new();
    let server = listen("127.0.0.1:0");
    let service = sandbox.service(Service::Aware);
    // Made outside the sandbox: the engine has nothing to do with it.
    let client = connect(server.local_addr().unwrap()).expect("connect");
    assert!(is_idle(&service.listeners[0]));
    let accepted = accept(&server);
    assert_eq!(Redirect::of(&accepted).flow().unwrap_err().kind(), ErrorKind::NoEngine);
    drop(client);

    // Somebody outside dials the service itself: no record, and the service is told that one is missing.
    let stray = connect(service.listeners[0].local_addr().unwrap()).expect("connect");
    let accepted = accept(&service.listeners[0]);
    assert_eq!(Redirect::of(&accepted).flow().unwrap_err().kind(), ErrorKind::ContextLost);
    drop(stray);
}
