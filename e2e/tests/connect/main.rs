//! connect() in all its forms, by every kind of socket, to every kind of listener and destination.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod forms;
mod interfaces;
mod listeners;
mod special;

use std::net::{SocketAddr, TcpListener, TcpStream};

use carnet::Redirect;
use carnet_e2e::sockets::{accept, assert_joined, canonical};
use socket2::{Domain, Protocol, Socket, Type};

/// A socket by what it can reach.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    V4,
    V6,
    V6Only,
}

impl Kind {
    fn socket(self) -> Socket {
        let domain = if self == Self::V4 { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        if self != Self::V4 {
            socket.set_only_v6(self == Self::V6Only).expect("IPV6_V6ONLY");
        }
        socket
    }
}

/// Accepts the client's connection and makes sure that it is this one, that the service knows where it was going, and
/// that the client is none the wiser.
fn assert_redirected(listener: &TcpListener, client: &mut TcpStream, destination: SocketAddr) -> TcpStream {
    let mut accepted = accept(listener);
    let redirect = Redirect::of(&accepted);
    let flow = redirect.flow().expect("flow");
    assert_eq!(flow.destination(), canonical(destination));
    assert_eq!(flow.origin().destination, canonical(destination));
    assert_eq!(flow.origin().source, Some(canonical(client.local_addr().expect("connected"))));
    assert_eq!(canonical(accepted.peer_addr().expect("connected")), canonical(client.local_addr().expect("connected")));
    assert_eq!(redirect.original_destination().expect("SO_ORIGINAL_DST"), canonical(destination));
    assert_eq!(client.peer_addr().expect("connected"), destination, "getpeername() answers as was asked");
    assert_joined(client, &mut accepted);
    accepted
}
