//! What is not redirected: UDP, whose destinations are told, QUIC, which can be refused, and kinds of sockets that no
//! hook sees.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
#![forbid(unsafe_code)]

mod destinations;
mod evasions;
mod kinds;
mod quic;
mod ways;

use std::net::{SocketAddr, UdpSocket};

use carnet_abi::{EVENT_DATAGRAM, Event};
use carnet_e2e::Sandbox;
use carnet_e2e::sockets::PATIENCE;
use socket2::{Domain, Protocol, Socket, Type};

/// A socket that takes datagrams, in the test's own cgroup.
fn receiver(at: &str) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(at).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// The next datagram that has come.
fn received(by: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 2048];
    let size = by.recv(&mut buffer).expect("a datagram");
    buffer[..size].to_vec()
}

/// A UDP socket of this address's family; IPv6 ones reach IPv4 too.
fn udp(to: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP)).unwrap();
    if to.is_ipv6() {
        socket.set_only_v6(false).unwrap();
    }
    socket
}

/// What is told when an application does this. Nothing else may be told meanwhile.
fn told<T>(sandbox: &mut Sandbox, act: impl FnOnce() -> T) -> (T, Vec<Event>) {
    sandbox.events();
    let result = sandbox.in_app(act);
    let events = sandbox.events();
    assert!(events.iter().all(|event| event.kind == EVENT_DATAGRAM), "{events:#?}");
    (result, events)
}

/// Where they are to.
fn destinations(events: &[Event]) -> Vec<SocketAddr> {
    events.iter().map(|event| event.remote.to_socket_addr()).collect()
}

/// Refuses applications' QUIC.
fn blocking() -> Sandbox {
    let mut sandbox = Sandbox::new();
    sandbox.policy.block_quic = true;
    sandbox.apply();
    sandbox
}
