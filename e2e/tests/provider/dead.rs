//! Nobody listens: seen when an application connects, neither before nor after.

use std::net::SocketAddr;

use carnet::Redirect;
use carnet_abi::{REASON_DEAD, REASON_DEFAULT, REASON_RULE, VERDICT_PASS, VERDICT_REDIRECT};
use carnet_e2e::Sandbox;
use carnet_e2e::sockets::{accept, assert_joined, connect, is_idle, listen};
use carnet_policy::{OnDead, Service};

use super::assert_refused;

#[test]
fn closed_means_refused() {
    let mut sandbox = Sandbox::new();
    drop(sandbox.service(Service::Aware));
    for here in ["127.0.0.1:0", "[::1]:0"] {
        let server = listen(here);
        let event = assert_refused(&mut sandbox, server.local_addr().unwrap(), libc::ECONNREFUSED, REASON_DEAD);
        assert_eq!((event.handle, event.record.depth), (1, 0));
        assert!(is_idle(&server));
    }
}

#[test]
fn a_listener_that_comes_and_goes_is_seen_at_once() {
    let mut sandbox = Sandbox::new();
    let mut service = sandbox.service(Service::Aware);
    let at = service.listeners[0].local_addr().unwrap().to_string();
    let server = listen("127.0.0.1:0");
    let destination = server.local_addr().unwrap();
    for _ in 0..20 {
        let client = sandbox.in_app(|| connect(destination)).expect("alive");
        accept(&service.listeners[0]);
        drop(client);
        service.listeners.clear();
        assert_refused(&mut sandbox, destination, libc::ECONNREFUSED, REASON_DEAD);
        service.listeners.push(sandbox.in_service(0, || listen(&at)));
    }
    assert!(is_idle(&server));
}

#[test]
fn one_that_has_bound_and_does_not_listen_is_dead() {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service(Service::Aware);
    let at = service.listeners[0].local_addr().unwrap();
    drop(service);
    let _bound = sandbox.in_service(0, || {
        let socket = carnet_e2e::sockets::stream(at);
        socket.set_reuse_address(true).unwrap();
        socket.bind(&at.into()).unwrap();
        socket
    });
    assert_refused(&mut sandbox, ([127, 0, 0, 1], 9).into(), libc::ECONNREFUSED, REASON_DEAD);
}

#[test]
fn open_means_the_next_provider_and_then_the_destination() {
    let mut sandbox = Sandbox::new();
    let server = listen("127.0.0.1:0");
    let destination = server.local_addr().unwrap();
    drop(sandbox.service(Service::Aware));
    let second = sandbox.service(Service::Aware);
    for provider in &mut sandbox.policy.providers {
        provider.on_dead = OnDead::Open;
    }
    sandbox.apply();

    let (client, decision) = sandbox.decided(|| connect(destination));
    assert_eq!((decision.verdict, decision.reason, decision.handle), (VERDICT_REDIRECT, REASON_RULE, 2));
    let accepted = accept(&second.listeners[0]);
    let flow = Redirect::of(&accepted).flow().expect("flow");
    assert_eq!(flow.chain().iter().map(|hop| hop.handle).collect::<Vec<_>>(), [2], "the dead one has not had it");
    drop(client);

    drop(second);
    let (client, decision) = sandbox.decided(|| connect(destination));
    assert_eq!((decision.verdict, decision.reason, decision.handle), (VERDICT_PASS, REASON_DEFAULT, 0));
    assert_joined(&mut client.expect("connect"), &mut accept(&server));
}

#[test]
fn an_open_one_before_a_closed_one() {
    let mut sandbox = Sandbox::new();
    drop(sandbox.service(Service::Aware));
    drop(sandbox.service(Service::Aware));
    sandbox.policy.providers[0].on_dead = OnDead::Open;
    sandbox.apply();
    let event = assert_refused(&mut sandbox, ([127, 0, 0, 1], 9).into(), libc::ECONNREFUSED, REASON_DEAD);
    assert_eq!(event.handle, 2);
}

#[test]
fn one_of_its_listeners_is_enough() {
    let mut sandbox = Sandbox::new();
    let mut service = sandbox.service_at(Service::Aware, &["127.0.0.1:0", "127.0.0.2:0", "127.0.0.3:0"]);
    let destination: SocketAddr = ([127, 0, 0, 1], 9).into();
    while !service.listeners.is_empty() {
        let _client = sandbox.in_app(|| connect(destination)).expect("alive");
        accept(&service.listeners[0]);
        service.listeners.remove(0);
    }
    assert_refused(&mut sandbox, destination, libc::ECONNREFUSED, REASON_DEAD);
}
