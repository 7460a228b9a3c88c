//! `Policy::block_quic`: UDP to port 443.

use std::net::{SocketAddr, UdpSocket};

use carnet_abi::{REASON_QUIC, REASON_UDP, VERDICT_PASS, VERDICT_REFUSE};
use carnet_e2e::raw::{Ring, send_to_each};
use carnet_e2e::sockets::{accept, connect, listen, mapped};
use carnet_e2e::{Sandbox, netns};
use carnet_policy::Service;
use libc::{ECONNREFUSED, EPERM};
use socket2::{SockAddr, Socket};

use super::{blocking, destinations, received, receiver, told, udp};

#[test]
fn refused_when_sent() {
    let mut sandbox = blocking();
    let connected: fn(&Socket, &SockAddr) -> _ = |socket, to| {
        socket.connect(to).expect("connect() sends nothing");
        errno(socket.send(b"1"))
    };
    let unconnected: fn(&Socket, &SockAddr) -> _ = |socket, to| errno(socket.send_to(b"1", to));
    let v4 = SocketAddr::from(([127, 0, 0, 1], 443));
    let v6 = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 443));
    for (attempt, errors_of) in [(connected, [EPERM, EPERM, ECONNREFUSED]), (unconnected, [ECONNREFUSED; 3])] {
        // What a connected IPv6 socket sends to IPv4 is to the kernel as if it named the address.
        for ((to, as_told), errno) in [(v4, v4), (v6, v6), (mapped(v4), v4)].into_iter().zip(errors_of) {
            let (errors, events) = told(&mut sandbox, || {
                let socket = udp(to);
                [(); 3].map(|()| attempt(&socket, &to.into()))
            });
            assert_eq!(errors, [Some(errno); 3], "each time");
            let [event] = events[..] else { panic!("told once: {events:#?}") };
            assert_eq!((event.verdict, event.reason, event.error), (VERDICT_REFUSE, REASON_QUIC, errno));
            assert_eq!((event.remote.to_socket_addr(), event.dialer), (as_told, 0));
            assert_eq!(event.record.origin.pid, std::process::id());
        }
    }
}

#[test]
fn nothing_of_it_arrives() {
    netns::alone(|| {
        let mut sandbox = blocking();
        let (at, to) = receiver("127.0.0.1:443");
        let (elsewhere, passes) = receiver("127.0.0.1:0");
        let mut addresses = [passes, to, passes].map(SockAddr::from);
        let (sent, events) = told(&mut sandbox, || {
            let socket = udp(to);
            socket.connect(&to.into()).unwrap();
            assert_eq!(errno(socket.send(b"0")), Some(EPERM));
            // It is good for everything else.
            let sent = send_to_each(&socket, b"1", &addresses);
            addresses.swap(0, 1);
            (sent, send_to_each(&socket, b"2", &addresses), Ring::inline().send_to(&socket, b"3", &to.into()))
        });
        assert_eq!(sent, (Ok(1), Err(ECONNREFUSED), Err(ECONNREFUSED)));
        assert_eq!(destinations(&events), [to, passes]);
        assert_eq!(received(&elsewhere), b"1");
        for receiver in [&at, &elsewhere] {
            receiver.set_nonblocking(true).unwrap();
            assert!(receiver.recv(&mut [0; 8]).is_err(), "loopback delivers before send() returns");
        }
    });
}

#[test]
fn other_ports_are_not_concerned() {
    let mut sandbox = blocking();
    for port in [442, 444, 80, 53, 4433] {
        let to = SocketAddr::from(([127, 0, 0, 1], port));
        let (_sockets, events) = told(&mut sandbox, || {
            let [connected, free] = [(); 2].map(|()| udp(to));
            connected.connect(&to.into()).unwrap();
            connected.send(b"1").unwrap();
            free.send_to(b"1", &to.into()).unwrap();
            [connected, free]
        });
        assert_eq!(destinations(&events), [to; 2]);
        assert!(events.iter().all(|event| (event.verdict, event.reason) == (VERDICT_PASS, REASON_UDP)), "{events:#?}");
    }
}

#[test]
fn tcp_is_not_concerned() {
    netns::alone(|| {
        let mut sandbox = blocking();
        let server = listen("127.0.0.1:443");
        let to = server.local_addr().unwrap();
        let (_client, event) = sandbox.decided(|| connect(to).expect("TCP to port 443"));
        assert_eq!((event.verdict, event.remote.to_socket_addr()), (VERDICT_PASS, to));
        accept(&server);
    });
}

#[test]
fn services_may() {
    netns::alone(|| {
        let mut sandbox = blocking();
        let service = sandbox.service(Service::Aware);
        let (at, to) = receiver("127.0.0.1:443");
        sandbox.events();
        sandbox.in_service(service.index, || {
            let [connected, free] = [(); 2].map(|()| udp(to));
            connected.connect(&to.into()).unwrap();
            connected.send(b"1").unwrap();
            free.send_to(b"2", &to.into()).unwrap();
        });
        assert_eq!([received(&at), received(&at)], [b"1", b"2"]);
        let events = sandbox.events();
        assert_eq!(destinations(&events), [to; 2]);
        assert!(events.iter().all(|event| (event.verdict, event.dialer) == (VERDICT_PASS, 1)), "{events:#?}");
    });
}

#[test]
fn without_the_wish_it_passes() {
    netns::alone(|| {
        let mut sandbox = Sandbox::new();
        let (at, to) = receiver("127.0.0.1:443");
        let (_, events) = told(&mut sandbox, || UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"1", to).unwrap());
        assert_eq!(received(&at), b"1");
        let [event] = events[..] else { panic!("{events:#?}") };
        assert_eq!((event.verdict, event.reason), (VERDICT_PASS, REASON_UDP));
    });
}

fn errno<T>(result: std::io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}
