//! Ways to send where the hooks were not asked about.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use carnet_abi::{REASON_QUIC, REASON_UDP, VERDICT_PASS, VERDICT_REFUSE};
use carnet_e2e::{Sandbox, netns, raw};
use carnet_policy::{HostAction, Match, Protocol};
use libc::{EACCES, EPERM};
use socket2::Socket;

use super::{blocking, received, receiver, told, udp};

/// The kernel leaves a socket connected where it was if connect() to elsewhere fails after the hook.
#[test]
fn who_connects_elsewhere_in_vain_is_told_where_it_sends() {
    let mut sandbox = Sandbox::new();
    let (at, to) = receiver("127.0.0.1:0");
    let (_socket, events) = told(&mut sandbox, || {
        let socket = udp(to);
        socket.connect(&to.into()).unwrap();
        assert_in_vain(&socket);
        socket.send(b"1").unwrap();
        socket
    });
    assert_eq!(received(&at), b"1");
    let [event] = events[..] else { panic!("{events:#?}") };
    assert_eq!((event.verdict, event.reason, event.remote.to_socket_addr()), (VERDICT_PASS, REASON_UDP, to));
    assert_eq!(event.record.origin.remote, event.remote);
}

#[test]
fn who_connects_elsewhere_in_vain_is_refused_quic_all_the_same() {
    netns::alone(|| {
        let mut sandbox = blocking();
        let (at, to) = receiver("127.0.0.1:443");
        let (_socket, events) = told(&mut sandbox, || {
            let socket = udp(to);
            socket.connect(&to.into()).unwrap();
            assert_in_vain(&socket);
            assert_eq!(socket.send(b"1").unwrap_err().raw_os_error(), Some(EPERM));
            socket
        });
        assert_nothing(&at);
        let [event] = events[..] else { panic!("{events:#?}") };
        assert_eq!((event.verdict, event.reason, event.error), (VERDICT_REFUSE, REASON_QUIC, EPERM));
        assert_eq!(event.remote.to_socket_addr(), to);
    });
}

/// One thread connects all the time, others send meanwhile.
#[test]
fn nothing_of_quic_is_sent_while_another_thread_connects() {
    netns::alone(|| {
        let sandbox = blocking();
        let (at, to) = receiver("127.0.0.1:443");
        sandbox.in_app(|| {
            let socket = udp(to);
            socket.connect(&to.into()).unwrap();
            let done = AtomicBool::new(false);
            let refused = thread::scope(|scope| {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        socket.connect(&to.into()).unwrap();
                    }
                });
                let refused = (0..50_000).filter(|_| socket.send(b"1").is_err()).count();
                done.store(true, Ordering::Relaxed);
                refused
            });
            assert_eq!(refused, 50_000);
        });
        assert_nothing(&at);
    });
}

/// One thread connects to and fro between a destination that is permitted and one that is not, and another one sends.
#[test]
fn nothing_that_is_blocked_is_sent_while_another_thread_connects() {
    let mut sandbox = Sandbox::new();
    let ((permitted, one), (blocked, other)) = (receiver("127.0.0.1:0"), receiver("127.0.0.1:0"));
    let only_udp = Match { protocol: Some(Protocol::Udp), ..Match::default() };
    sandbox.host_filter(only_udp.to(other.ip()).on_ports(other.port()..=other.port()), HostAction::Block);
    sandbox.in_app(|| {
        let socket = udp(one);
        socket.connect(&one.into()).unwrap();
        socket.send(b"1").expect("it is permitted");
        let done = AtomicBool::new(false);
        let sent = thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // Refused, or to the one that is permitted.
                    let _ = socket.send(b"1");
                }
            });
            let sends = || {
                socket.connect(&one.into()).unwrap();
                socket.connect(&other.into()).unwrap();
                socket.send(b"1").is_ok()
            };
            let sent = (0..100_000).filter(|_| sends()).count();
            done.store(true, Ordering::Relaxed);
            sent
        });
        assert_eq!(sent, 0);
    });
    assert_eq!(received(&permitted), b"1");
    assert_nothing(&blocked);
}

/// With a routing header, which needs no privilege, a packet goes to the header's first address, not to its socket's.
#[test]
fn a_packet_with_an_ipv6_routing_header_is_dropped() {
    netns::alone(|| {
        for interface in ["all", "lo"] {
            fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/seg6_enabled"), "1").expect("it takes such packets");
        }
        let sandbox = Sandbox::new();
        let (at, to) = receiver("[::1]:0");
        let send = || {
            let socket = udp(to);
            let header = || raw::set(&socket, libc::IPPROTO_IPV6, IPV6_RTHDR, &segment_routing());
            raw::as_nobody(header).expect("no privilege is needed");
            socket.send_to(b"1", &to.into()).map_err(|error| error.raw_os_error().unwrap())
        };
        assert_eq!(send(), Ok(1), "outside of the sandbox");
        assert_eq!(received(&at), b"1");
        assert_eq!(sandbox.in_app(send), Err(EPERM));
        assert_nothing(&at);
    });
}

/// Broadcasts have to be asked for with `SO_BROADCAST`.
fn assert_in_vain(socket: &Socket) {
    let nowhere = SocketAddr::from(([255, 255, 255, 255], 80));
    assert_eq!(socket.connect(&nowhere.into()).unwrap_err().raw_os_error(), Some(EACCES));
}

fn assert_nothing(at: &UdpSocket) {
    at.set_nonblocking(true).unwrap();
    assert_eq!(at.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock, "loopback delivers before send() ends");
    at.set_nonblocking(false).unwrap();
}

/// Not in libc.
const IPV6_RTHDR: i32 = 57;

/// A `struct ipv6_sr_hdr` with `::1` for its one segment.
fn segment_routing() -> [u8; 24] {
    let mut header = [0; 24];
    (header[1], header[2], header[23]) = (2, 4, 1);
    header
}
