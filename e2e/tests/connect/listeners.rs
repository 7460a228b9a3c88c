//! What a service listens on, against what an application's socket can reach.

use std::net::{SocketAddr, TcpListener};

use carnet_abi::{REASON_FAMILY, REASON_RULE, VERDICT_REDIRECT, VERDICT_REFUSE};
use carnet_e2e::sockets::{PATIENCE, connect_on, is_idle, listen, mapped, until};
use carnet_e2e::{Sandbox, Service};
use carnet_policy::Service as Awareness;
use socket2::{Domain, Protocol, Socket, Type};

use super::{Kind, assert_redirected};

#[test]
fn ipv4_loopback() {
    reach(&["127.0.0.1:0"], V4_ONLY);
}

#[test]
fn ipv6_loopback() {
    reach(&["[::1]:0"], V6_ONLY);
}

#[test]
fn both_loopbacks() {
    reach(&["127.0.0.1:0", "[::1]:0"], ALL);
}

#[test]
fn another_loopback_address() {
    reach(&["127.99.0.1:0"], V4_ONLY);
}

#[test]
fn ipv4_wildcard() {
    reach(&["0.0.0.0:0"], V4_ONLY);
}

#[test]
fn dual_stack_wildcard() {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service_at(Awareness::Aware, &["[::]:0"]);
    // One listener, two addresses by which to dial it.
    let port = service.listeners[0].local_addr().unwrap().port();
    sandbox.policy.providers[service.index].listeners.push(([127, 0, 0, 1], port).into());
    sandbox.apply();
    reach_service(&mut sandbox, &service, ALL);
}

#[test]
fn four_sharing_a_port() {
    for (at, reachable) in [("127.0.0.1:0", V4_ONLY), ("[::1]:0", V6_ONLY)] {
        let mut sandbox = Sandbox::new();
        let mut service = sandbox.service(Awareness::Aware);
        service.listeners = sandbox.in_service(service.index, || share(at, 4));
        let address = service.listeners[0].local_addr().unwrap();
        sandbox.policy.providers[service.index].listeners = vec![address];
        sandbox.apply();
        for _ in 0..8 {
            reach_service(&mut sandbox, &service, reachable);
        }
    }
}

/// Which of [`Kind::V4`], [`Kind::V6`], that with a mapped address, and [`Kind::V6Only`] get there.
type Reachable = [bool; 4];
const ALL: Reachable = [true; 4];
const V4_ONLY: Reachable = [true, true, true, false];
const V6_ONLY: Reachable = [false, true, true, true];

fn reach(listen: &[&str], reachable: Reachable) {
    let mut sandbox = Sandbox::new();
    let service = sandbox.service_at(Awareness::Aware, listen);
    reach_service(&mut sandbox, &service, reachable);
}

fn reach_service(sandbox: &mut Sandbox, service: &Service, reachable: Reachable) {
    let servers = [listen("127.0.0.1:0"), listen("[::1]:0")];
    let [v4, v6] = [0, 1].map(|family: usize| servers[family].local_addr().unwrap());
    let clients = [(Kind::V4, v4), (Kind::V6, v6), (Kind::V6, mapped(v4)), (Kind::V6Only, v6)];
    for ((kind, destination), reachable) in clients.into_iter().zip(reachable) {
        let (client, decision) = sandbox.decided(|| connect_on(kind.socket(), &destination.into()));
        if reachable {
            assert_eq!((decision.verdict, decision.reason), (VERDICT_REDIRECT, REASON_RULE), "{kind:?}");
            let listener = whichever_has_one(&service.listeners);
            assert_redirected(listener, &mut client.expect("connect"), destination);
        } else {
            assert_eq!(client.expect_err("out of reach"), libc::ECONNREFUSED, "{kind:?} {destination}");
            assert_eq!((decision.verdict, decision.reason), (VERDICT_REFUSE, REASON_FAMILY), "{kind:?}");
            assert_eq!(decision.error, libc::ECONNREFUSED);
        }
        assert!(servers.iter().chain(&service.listeners).all(is_idle), "{kind:?} {destination}");
    }
}

fn whichever_has_one(listeners: &[TcpListener]) -> &TcpListener {
    use std::os::fd::AsFd;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    let mut polled: Vec<_> = listeners.iter().map(|each| PollFd::new(each.as_fd(), PollFlags::POLLIN)).collect();
    let patience = PollTimeout::try_from(PATIENCE).expect("milliseconds");
    until("a connection", || (poll(&mut polled, patience).expect("poll") > 0).then_some(()));
    let at = polled.iter().position(|each| each.any() == Some(true)).expect("poll() counted one");
    &listeners[at]
}

/// Listeners that share one port.
fn share(at: &str, count: usize) -> Vec<TcpListener> {
    let mut at: SocketAddr = at.parse().expect("an address");
    let mut listeners = Vec::new();
    for _ in 0..count {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        socket.set_reuse_port(true).expect("SO_REUSEPORT");
        socket.bind(&at.into()).expect("bind");
        socket.listen(64).expect("listen");
        socket.set_nonblocking(true).expect("non-blocking");
        let listener = TcpListener::from(socket);
        at = listener.local_addr().expect("bound");
        listeners.push(listener);
    }
    listeners
}
