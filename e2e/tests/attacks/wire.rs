//! What leaves the host: nothing that is redirected.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use carnet_e2e::netns::{self, ip};
use carnet_e2e::sockets::{PATIENCE, connect, connect_on, listen, mapped, stream};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{Stage, as_user};

/// A user may bind a socket to an interface at any time. What is redirected stays within the host all the same.
#[test]
fn bound_to_an_interface_after_connect_nothing_leaves_the_host() {
    let there = || (listen("10.99.0.2:7000"), listen("[fd99::2]:7000"), everything());
    netns::with_neighbour(there, |(v4, v6, mut wire)| {
        ip("route add default via 10.99.0.2");
        ip("-6 route add default via fd99::2");
        let stage = Stage::new();
        let marker = UdpSocket::bind("[::]:0").unwrap();
        for (to, from) in [(&v4, "10.99.0.1:0"), (&v6, "[fd99::1]:0")] {
            let to = to.local_addr().unwrap();
            let from: SocketAddr = from.parse().unwrap();
            // The neighbour's address is known from here on, so that no packet waits for it.
            connect(to).expect("outside");
            let own = listen(if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" });
            let at = own.local_addr().unwrap();
            send_by_the_wire(at, from);
            assert!(carries(&mut wire, &marker, to, b"outside"), "outside of the sandbox");
            as_user(&stage.sandbox, || send_by_the_wire(to, from));
            assert!(!carries(&mut wire, &marker, to, b"inside"), "{to}");
        }
    });
}

const SECRET: &[u8] = b"SECRET";

fn send_by_the_wire(to: SocketAddr, from: SocketAddr) {
    let socket = stream(to);
    socket.bind(&from.into()).unwrap();
    let mut connected: TcpStream = connect_on(socket, &to.into()).unwrap();
    SockRef::from(&connected).bind_device(Some(b"carnet0")).expect("no privilege is needed");
    connected.write_all(SECRET).unwrap();
    // Sent once, and again when nobody answers; once is enough, and it is not to come later.
    SockRef::from(&connected).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Whether the secret was sent before the marker, which goes the same way.
fn carries(wire: &mut Socket, marker: &UdpSocket, to: SocketAddr, name: &[u8]) -> bool {
    // No other packet has it: the neighbour answers markers with errors that quote them.
    let name = [to.to_string().as_bytes(), name].concat();
    marker.send_to(&name, mapped(to)).unwrap();
    let mut came = false;
    loop {
        let mut packet = [0; 2048];
        let size = wire.read(&mut packet).expect("the marker comes");
        let has = |what: &[u8]| packet[..size].windows(what.len()).any(|window| window == what);
        came |= has(SECRET);
        if has(&name) {
            return came;
        }
    }
}

/// All packets of the calling thread's network.
fn everything() -> Socket {
    const ALL: u16 = 3;
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(i32::from(ALL.to_be())))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}
